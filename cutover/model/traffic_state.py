"""What production holds: who serves what share, and where the routes lead; as values that can be kept, compared and put back."""

import enum
from collections import Counter
from collections.abc import Iterable

import attrs

GLOBAL = "global"
"""The route key of the override that stands for every domain without one of its own."""


class OnRefusal(enum.Enum):
    """What it means that a change was refused, by a stale etag for instance."""

    STOP = "stop"
    """While going forward: somebody else may be at work."""
    TRY_AGAIN = "try again"
    """While going back: read the state again, and write again, up to the deadline."""


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

    def unrest(self) -> str:
        """Return why nobody should set out from this state; empty where it is settled and well."""
        if not self.settled:
            return "the service is reconciling: somebody else is deploying"
        if not self.succeeded:
            return f"the service's last change failed ({self.message}): repair that first"
        return ""

    def moved_on(self, found: "TrafficState") -> str:
        """Return what is another in a state found later, first what it was; empty where nothing that matters is.

        A revision that became ready in between matters only where LATEST serves.
        """
        before, now = (_facets(state, asks_for_latest=self.asks_for_latest) for state in (self, found))
        return _differences(before, now)

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


def _differences(captured: dict[str, str], found: dict[str, str]) -> str:
    names = [name for name in captured | found if captured.get(name) != found.get(name)]
    return "; ".join(
        f"{name}: captured {captured.get(name, 'unknown')}, found {found.get(name, 'unknown')}"
        for name in names
    )


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


@attrs.frozen(kw_only=True)
class RouteState:
    """The overrides of the route split, as one instance of the service told them."""

    overrides: tuple[tuple[str, str | None], ...]
    """(route key, target or None) for each domain, sorted, the global one last."""
    mode: str = ""
    """What decides where nothing is overridden: enabled, mode, cohort percentage, force_legacy."""

    def get(self, key: str) -> str | None:
        """Return what the override of this key is; None when it is clear."""
        return dict(self.overrides).get(key)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that the service knows."""
        return tuple(key for key, _ in self.overrides if key != GLOBAL)

    def holds(self, wanted: Iterable[tuple[str, str | None]]) -> bool:
        """Return whether each of these keys has its value here."""
        found = dict(self.overrides)
        return all(found.get(key) == value for key, value in wanted)

    def moved_on(self, found: "RouteState") -> str:
        """Return which overrides are others in a state found later, first what they were; empty where none is."""
        before, now = ({key: value or "clear" for key, value in state.overrides} for state in (self, found))
        return _differences(before, now)

    def describe(self) -> str:
        """Write the overrides for a reader."""
        return describe_overrides(self.overrides)


def describe_overrides(overrides: Iterable[tuple[str, str | None]]) -> str:
    """Write overrides for a reader: ``auth_entry=rust_shell, global=clear``."""
    return ", ".join(f"{key}={value or 'clear'}" for key, value in overrides)
