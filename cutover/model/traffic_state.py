"""The traffic split of a service, as values that can be kept, compared and put back."""

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from cutover.model.differences import describe_differences


@attrs.frozen(kw_only=True)
class TrafficTarget:
    """One row of a Cloud Run traffic split."""

    revision: str | None
    """Short name of a revision; None is LATEST, whichever revision became ready last."""
    percent: int = 0
    """Share of the requests, in percent; 0 for a row that only holds a tag."""
    tag: str | None = None
    """Name under which the revision has a URL of its own."""
    uri: str | None = None
    """That URL, where the service tells it (in statuses alone)."""

    def wanted(self) -> "TrafficTarget":
        """Return the row as one asks for it: without what only a status tells."""
        return attrs.evolve(self, uri=None)


@attrs.frozen(kw_only=True)
class TrafficState:
    """The traffic of one service, as one read of its API told it (Cloud Run Admin API v2, Service)."""

    targets: tuple[TrafficTarget, ...]
    """What was asked for (``traffic``)."""
    statuses: tuple[TrafficTarget, ...]
    """What is served (``trafficStatuses``)."""
    generation: str = ""
    etag: str | None = None
    """Guards a write against one that came between: the Admin API's own, or with gcloud the generation."""
    settled: bool = True
    """Whether nothing is under way: not reconciling, and the last generation was observed."""
    succeeded: bool = True
    """Whether the last change, once settled, took effect (``terminalCondition``)."""
    message: str = ""
    """What the service says of its condition."""
    latest_ready: str | None = None
    """Short name of the revision that LATEST stands for."""
    latest_created: str | None = None

    @property
    def asks_for_latest(self) -> bool:
        """Whether LATEST is to have a share, so that whatever becomes ready next gets it."""
        return any(row.revision is None and row.percent for row in self.targets)

    def served(self) -> dict[str, int]:
        """Return the share of each revision that gets any, in percent, LATEST resolved."""
        return shares(self.statuses, latest=self.latest_ready)

    def unready_reason(self) -> str:
        """Return why nobody should set out from this state; empty where it is settled and well."""
        if not self.settled:
            return "the service is reconciling: somebody else is deploying"
        if not self.succeeded:
            return f"the service's last change failed ({self.message}): repair that first"
        return ""

    def differences_from(self, found: "TrafficState") -> str:
        """Return what is another in a state found later, first what it was; empty where nothing that matters is.

        A revision that became ready in between matters only where LATEST serves.
        """
        before, now = (_facets(state, asks_for_latest=self.asks_for_latest) for state in (self, found))
        return describe_differences(before, now)

    def serves(self, targets: Iterable[TrafficTarget]) -> bool:
        """Return whether the split that is served is the one of these targets."""
        return self.served() == shares(targets, latest=self.latest_ready)

    def asks_for(self, targets: Iterable[TrafficTarget]) -> bool:
        """Return whether the specification holds these shares and these tags."""
        return _rows(self.targets) == _rows(targets)

    def splits_as(self, targets: Iterable[TrafficTarget]) -> bool:
        """Return whether the specification holds these shares, whatever its tags."""
        return _rows(self.targets)[0] == _rows(targets)[0]

    def tag_url(self, revision: str) -> str | None:
        """Return the URL that leads to this revision whatever the split, where one of its tags tells one."""
        for row in self.statuses:
            name = row.revision or self.latest_ready
            if name == revision and row.tag and row.uri:
                return row.uri
        return None


def shares(targets: Iterable[TrafficTarget], *, latest: str | None) -> dict[str, int]:
    """Add the percentages up for each revision; a revision without any is left out."""
    total: Counter[str] = Counter()
    for target in targets:
        total[target.revision or latest or "LATEST"] += target.percent
    return {name: percent for name, percent in sorted(total.items()) if percent}


def _facets(state: TrafficState, *, asks_for_latest: bool) -> dict[str, str]:
    """Return what makes a split the one that it is, in a reader's words."""
    _, tags = _rows(state.targets)
    facets = {
        "asked for": describe_shares(shares(state.targets, latest=None)),
        "served": describe_shares(state.served()),
        "tags": ", ".join(sorted(f"{tag}={revision or 'LATEST'}" for revision, tag in tags)) or "none",
    }
    return facets | ({"LATEST": state.latest_ready or "none"} if asks_for_latest else {})


def _rows(targets: Iterable[TrafficTarget]) -> tuple[dict[str | None, int], set[tuple[str | None, str]]]:
    total: Counter[str | None] = Counter()
    tags: set[tuple[str | None, str]] = set()
    for target in targets:
        total[target.revision] += target.percent
        if target.tag:
            tags.add((target.revision, target.tag))
    return {name: percent for name, percent in total.items() if percent}, tags


def split(state: TrafficState, percents: dict[str, int]) -> tuple[TrafficTarget, ...]:
    """Return the targets that give these shares and keep every tag there is.

    Cloud Run replaces the whole array at each write, so a tag that is not sent again is lost.
    """
    rows = [TrafficTarget(revision=name, percent=percent) for name, percent in percents.items() if percent]
    tags = [TrafficTarget(revision=row.revision, tag=row.tag) for row in state.targets if row.tag]
    return (*rows, *tags)


def describe_shares(percents: dict[str, int]) -> str:
    """Write a split for a reader: ``stable 95 %, canary 5 %``."""
    return ", ".join(f"{name} {percent} %" for name, percent in percents.items()) or "nobody"


def pin_latest_if_changed(
    targets: tuple[TrafficTarget, ...], *, captured: TrafficState, found: TrafficState | None
) -> tuple[tuple[TrafficTarget, ...], str]:
    """Pin LATEST where putting it back would release a revision that nobody tested; return the targets, and why.

    So it is pinned, too, where nobody can say what it stands for (``found`` is None). Where LATEST is asked for already,
    somebody else released it, and putting it back changes nothing.
    """
    was = captured.latest_ready
    if was is None or not captured.asks_for_latest:
        return targets, ""
    if found is None and not any(row.revision is None and row.percent for row in targets):
        return targets, ""
    if found is not None and (found.latest_ready == was or found.asks_for_latest):
        return targets, ""
    now = f"now is {found.latest_ready}, which nobody tested" if found else "what it now is could not be read"
    pinned = tuple(attrs.evolve(row, revision=was) if row.revision is None else row for row in targets)
    return pinned, f"LATEST was {was} and {now}: pinned on {describe_shares(shares(pinned, latest=None))}"


def mismatch_reason(found: TrafficState, targets: Sequence[TrafficTarget]) -> str:
    """Return why a state does not prove that these targets are served; empty where it does."""
    wanted = describe_shares(shares(targets, latest=found.latest_ready))
    if not found.settled:
        return f"the service is still reconciling towards {wanted}"
    if not found.succeeded:
        return f"the service says that the change failed: {found.message or 'no reason given'}"
    if not found.serves(targets):
        return f"{wanted} was asked for, and {describe_shares(found.served())} is served"
    if not found.asks_for(targets):
        return f"{wanted} is served, but the specification differs (a tag is missing, or somebody else changed it)"
    return ""
