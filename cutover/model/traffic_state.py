"""The traffic split of a service: values to keep, compare and write again, and the reasons why a state does not match."""

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from cutover.model.differences import describe_differences


@attrs.frozen(kw_only=True)
class TrafficTarget:
    """One row of a Cloud Run traffic split."""

    revision: str | None
    """Short name of a revision; None is LATEST: the revision that became ready last."""
    percent: int = 0
    """Share of the requests, in percent; 0 for a row that only holds a tag."""
    tag: str | None = None
    """Name under which the revision has a URL of its own."""
    uri: str | None = None
    """URL of the revision under its tag; only a status has this URL."""

    def wanted(self) -> "TrafficTarget":
        """Return the row as a write sends it: without the fields that only a status has."""
        return attrs.evolve(self, uri=None)


@attrs.frozen(kw_only=True)
class TrafficState:
    """The traffic of one service, from one read of its API (Cloud Run Admin API v2, Service)."""

    targets: tuple[TrafficTarget, ...]
    """The split that was asked for (``traffic``)."""
    statuses: tuple[TrafficTarget, ...]
    """The split that is served (``trafficStatuses``)."""
    generation: str = ""
    etag: str | None = None
    """Version that a write must name, so that the write cannot overwrite a newer change. With gcloud: the generation."""
    settled: bool = True
    """True while no change of the split is in progress. A deployment that cannot move this split may still be under way."""
    succeeded: bool = True
    """True if the routes are as the last settled change asked for (RoutesReady; Ready where the service has no RoutesReady)."""
    message: str = ""
    """The service's own text about that condition."""
    unready: str = ""
    """The service's own text about the condition Ready while Ready is not true; empty while it is true.

    Ready is ConfigurationsReady and RoutesReady together, so a newest revision that does not start keeps Ready false.
    """
    deploying: bool = False
    """True while a revision is being deployed, so that Ready is neither true nor false. Its end may move LATEST."""
    latest_ready: str | None = None
    """Short name of the revision that LATEST stands for."""
    latest_created: str | None = None
    """Short name of the revision that was created last; it may not be ready yet."""
    ingress: str = ""
    """The callers that reach the service: ``INGRESS_TRAFFIC_ALL``, ``..._INTERNAL_ONLY`` or ``..._INTERNAL_LOAD_BALANCER``; empty: not known."""
    default_uri_disabled: bool = False
    """True if the service has no URL of its own under ``run.app``, and so no tag URL either."""

    @property
    def asks_for_latest(self) -> bool:
        """True if LATEST has a share: the next revision that becomes ready will get it."""
        return any(row.revision is None and row.percent for row in self.targets)

    def served(self) -> dict[str, int]:
        """Return revision -> percent for each revision that is served; LATEST is listed by the name of its revision."""
        return shares(self.statuses, latest=self.latest_ready)

    def unready_reason(self) -> str:
        """Return the reason why a train must not start from this state; an empty text if it may."""
        if not self.settled or self.deploying:
            return "the service is reconciling: somebody else is deploying"
        if not self.succeeded:
            return f"the service's last change failed ({self.message}): repair that first"
        return ""

    def describe_served(self) -> str:
        """Return the served split in words, with a warning if the newest revision is not ready."""
        warning = self.warning()
        return describe_shares(self.served()) + (f"; WARNING: {warning}" if warning else "")

    def warning(self) -> str:
        """Return a warning about a newest revision that is not ready while the split is served; an empty text if there is none."""
        if not self.unready or not self.succeeded:
            return ""
        if self.latest_created in (None, self.latest_ready):
            return f"the service is not ready ({self.unready}), although its split is served"
        state = "is being deployed" if self.deploying else "does not start"
        return f"the newest revision {self.latest_created} {state} ({self.unready}); the split is served all the same"

    def differences_from(self, found: "TrafficState") -> str:
        """Return the differences between this state and ``found``; an empty text if nothing that matters differs.

        A new ready revision matters only if LATEST has a share.
        """
        before, now = (_facets(state, asks_for_latest=self.asks_for_latest) for state in (self, found))
        return describe_differences(before, now)

    def serves(self, targets: Iterable[TrafficTarget]) -> bool:
        """Return True if the served split is the split of these targets."""
        return self.served() == shares(targets, latest=self.latest_ready)

    def asks_for(self, targets: Iterable[TrafficTarget]) -> bool:
        """Return True if the specification has these shares and these tags."""
        return _rows(self.targets) == _rows(targets)

    def splits_as(self, targets: Iterable[TrafficTarget]) -> bool:
        """Return True if the specification has these shares; tags may differ."""
        return _rows(self.targets)[0] == _rows(targets)[0]

    @property
    def tags(self) -> frozenset[tuple[str | None, str]]:
        """The (revision, tag) pairs of the specification; None is LATEST."""
        return frozenset(_rows(self.targets)[1])

    def tags_of(self, revision: str) -> tuple[str, ...]:
        """Return the tags of this revision, asked for or served; LATEST counts as the revision that it stands for."""
        rows = (*self.targets, *self.statuses)
        tags = (row.tag for row in rows if row.tag and (row.revision or self.latest_ready) == revision)
        return tuple(dict.fromkeys(tags))

    def holder_of_tag(self, tag: str) -> str | None:
        """Return the revision that has a tag, or LATEST; None if no row has the tag."""
        for row in (*self.targets, *self.statuses):
            if row.tag == tag:
                return row.revision or self.latest_ready or "LATEST"
        return None

    @property
    def restorable_targets(self) -> tuple[TrafficTarget, ...]:
        """The targets that restore this state. Shares that were asked for and not served are not restored: the served ones are."""
        served = self.served()
        if not served or shares(self.targets, latest=self.latest_ready) == served:
            return self.targets
        return split(self, served)

    @property
    def tag_urls_closed(self) -> str:
        """The reason why no tag URL of this service answers from outside; an empty text if its document gives none."""
        if self.default_uri_disabled:
            return "the service's default URL is disabled, and its tag URLs with it"
        if self.ingress not in {"", "INGRESS_TRAFFIC_ALL"}:
            return f"the service's ingress is {self.ingress}"
        return ""

    def tag_url(self, revision: str) -> str | None:
        """Return the URL of a tag of this revision, which reaches the revision at any split; None if no tag has a URL."""
        for row in self.statuses:
            name = row.revision or self.latest_ready
            if name == revision and row.tag and row.uri:
                return row.uri
        return None


def shares(targets: Iterable[TrafficTarget], *, latest: str | None) -> dict[str, int]:
    """Return revision -> percent, added up over the rows; a revision at 0 % is left out."""
    total: Counter[str] = Counter()
    for target in targets:
        total[target.revision or latest or "LATEST"] += target.percent
    return {name: percent for name, percent in sorted(total.items()) if percent}


def _facets(state: TrafficState, *, asks_for_latest: bool) -> dict[str, str]:
    """Return the parts of a split that are compared, in words."""
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
    """Return the targets that give these shares and keep every tag of a state.

    Cloud Run replaces the whole array at each write, so a tag that is not sent again is lost.
    """
    rows = [TrafficTarget(revision=name, percent=percent) for name, percent in percents.items() if percent]
    tags = [TrafficTarget(revision=row.revision, tag=row.tag) for row in state.targets if row.tag]
    return (*rows, *tags)


def describe_shares(percents: dict[str, int]) -> str:
    """Return a split in words: ``stable 95 %, canary 5 %``."""
    return ", ".join(f"{name} {percent} %" for name, percent in percents.items()) or "nobody"


def pin_latest_if_changed(
    targets: tuple[TrafficTarget, ...], *, captured: TrafficState, found: TrafficState | None
) -> tuple[tuple[TrafficTarget, ...], str]:
    """Return targets whose LATEST is pinned to the captured revision, if restoring LATEST would release an untested one.

    Args:
        targets: The targets to restore.
        captured: The split before the train's first change.
        found: The split now; None if it could not be read. A share of LATEST is pinned then too, since its revision is unknown.

    Returns:
        The targets, and the reason for pinning; an empty reason if nothing was pinned. A revision whose deployment is under way would be
        released as soon as it is ready, so LATEST is pinned then too. LATEST stays if ``found`` asks for LATEST
        already: somebody else has released that revision, and restoring LATEST changes nothing.
    """
    was = captured.latest_ready
    if was is None or not any(row.revision is None and row.percent for row in targets):
        return targets, ""
    if found is not None and ((found.latest_ready == was and not found.deploying) or found.asks_for_latest):
        return targets, ""
    if found is None:
        now = "its present value could not be read"
    elif found.latest_ready == was:
        now = f"{found.latest_created or 'another revision'} is being deployed, which nobody tested"
    else:
        now = f"now is {found.latest_ready}, which nobody tested"
    pinned = tuple(attrs.evolve(row, revision=was) if row.revision is None else row for row in targets)
    return pinned, f"LATEST was {was} and {now}: pinned on {describe_shares(shares(pinned, latest=None))}"


def release_reason(captured: TrafficState, found: TrafficState) -> str:
    """Return the reason why LATEST is not what was captured although it is asked for again; an empty text if it is."""
    if not captured.asks_for_latest or found.latest_ready == captured.latest_ready:
        return ""
    return f"LATEST was {captured.latest_ready} and now is {found.latest_ready}: somebody else released it, and no drill tried it"


def mismatch_reason(found: TrafficState, targets: Sequence[TrafficTarget]) -> str:
    """Return the reason why ``found`` does not prove that these targets are served; an empty text if it does."""
    wanted = describe_shares(shares(targets, latest=found.latest_ready))
    if not found.settled:
        return f"the service is still reconciling towards {wanted}"
    if not found.succeeded:
        return f"the service says that the change failed: {found.message or 'no reason given'}"
    if not found.serves(targets):
        return f"{wanted} was asked for, and {describe_shares(found.served())} is served"
    if not found.asks_for(targets):
        return f"{wanted} is served, but the specification differs (a tag is missing, or somebody else changed the specification)"
    return ""
