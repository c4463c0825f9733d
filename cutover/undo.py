"""Taking back what was applied: one pure plan over the train's events, and its execution, for the train and for recovery."""

from collections.abc import Iterable, Sequence

import attrs

from cutover.control_plane import set_routes
from cutover.errors import PeerError
from cutover.journal import (
    TRAFFIC,
    Answered,
    CheckRecorded,
    Journal,
    RouteIntended,
    TrafficIntended,
    TrafficRead,
    TrafficSettled,
    TrainEvent,
    TrainFinished,
    UndoFinished,
)
from cutover.state import (
    GLOBAL,
    OnRefusal,
    RouteState,
    TrafficState,
    TrafficTarget,
    describe_shares,
    shares,
    split,
)
from cutover.steps import Peers
from cutover.steps.rollback_drill import STEP_ID as DRILL
from cutover.traffic import TrafficMover, unproven

STEP_ID = "undo"
_TRIES = 2
LATE_EFFECT_SECONDS = 5.0
"""After a change whose fate is not known, how long until the undo is read once more."""


@attrs.frozen(kw_only=True)
class TrafficUndo:
    """The split to put back."""

    captured: TrafficState
    targets: tuple[TrafficTarget, ...]
    unsure: bool
    """Whether a write's fate is unknown: it may take effect late, so the target is written whatever is found."""


@attrs.frozen(kw_only=True)
class RoutesUndo:
    """The overrides to put back, the global one last."""

    captured: RouteState
    values: tuple[tuple[str, str | None], ...]
    unsure: bool


@attrs.frozen(kw_only=True)
class UndoPlan:
    """What to put back; a part is None where nothing is outstanding."""

    routes: RoutesUndo | None
    traffic: TrafficUndo | None

    def __bool__(self) -> bool:
        """Whether there is anything to undo."""
        return self.routes is not None or self.traffic is not None


@attrs.frozen(kw_only=True)
class Undone:
    """What became of one part of an undo."""

    proven: bool
    detail: str
    to_do: tuple[str, ...] = ()


def plan_undo(events: Sequence[TrainEvent], *, stable: str) -> UndoPlan:
    """Work out what is outstanding after these events.

    Traffic goes back to what was captured; after a failed drill to stable alone, whatever was captured. Routes that were
    touched go back to exactly what was captured. After a passed train nothing is outstanding: that is what it was for.
    """
    if any(isinstance(event, TrainFinished) and event.passed for event in events):
        return UndoPlan(routes=None, traffic=None)
    undone = [index for index, event in enumerate(events) if isinstance(event, UndoFinished) and event.proven]
    events = events[undone[-1] + 1 :] if undone else events
    return UndoPlan(routes=_routes_outstanding(events), traffic=_traffic_outstanding(events, stable))


def _traffic_outstanding(events: Sequence[TrainEvent], stable: str) -> TrafficUndo | None:
    settled = max(
        (index for index, event in enumerate(events) if isinstance(event, TrafficSettled)), default=-1
    )
    intents = [event for event in events[settled + 1 :] if isinstance(event, TrafficIntended)]
    if not intents:
        return None
    captured = next(event.captured for event in events if isinstance(event, TrafficIntended))
    failed = any(
        isinstance(event, CheckRecorded) and event.step_id == DRILL and event.check.status.failed
        for event in events
    )
    return TrafficUndo(
        captured=captured,
        targets=split(captured, {stable: 100}) if failed else captured.targets,
        unsure=_traffic_unsure(events[settled + 1 :]),
    )


def _routes_outstanding(events: Sequence[TrainEvent]) -> RoutesUndo | None:
    intents = [event for event in events if isinstance(event, RouteIntended)]
    if not intents:
        return None
    captured = intents[0].captured
    touched = dict.fromkeys(event.key for event in reversed(intents))
    keys = [*(key for key in touched if key != GLOBAL), *(key for key in touched if key == GLOBAL)]
    return RoutesUndo(
        captured=captured,
        values=tuple((key, captured.get(key)) for key in keys),
        unsure=_routes_unsure(events),
    )


def _routes_unsure(events: Iterable[TrainEvent]) -> bool:
    """Whether an override may still take effect: only a refused one is sure not to.

    There is no etag here: one of many writes may land late, after a sample has agreed and the undo has read.
    """
    pending: set[str] = set()
    for event in events:
        match event:
            case RouteIntended():
                pending.add(event.key)
            case Answered() if event.outcome == "refused":
                pending.discard(event.key)
            case _:
                pass
    return bool(pending)


def _traffic_unsure(events: Iterable[TrainEvent]) -> bool:
    """Whether an update may still take effect: only a refusal, or reading it back proven, makes sure.

    Accepted is not enough: an update that was accepted and not yet read back may land after the undo has read.
    """
    pending = False
    for event in events:
        match event:
            case TrafficIntended():
                pending = True
            case Answered() if event.key == TRAFFIC and event.outcome == "refused":
                pending = False
            case TrafficRead() if event.proven:
                pending = False
            case _:
                pass
    return pending


async def carry_out(plan: UndoPlan, peers: Peers, journal: Journal, *, service: str) -> Undone:
    """Put everything back and prove it: routes first, for they were applied last.

    Args:
        plan: What to put back.
        peers: Peers of the undo's own, whose clients nobody else closes.
        journal: Where the undo's own intents go.
        service: How a gcloud command names the service: ``SERVICE --project P --region R``.
    """
    parts: list[Undone] = []
    if plan.routes is not None:
        parts.append(await _undo_routes(plan.routes, peers, journal))
    if plan.traffic is not None:
        parts.append(await _undo_traffic(plan.traffic, peers, journal, service))
    return Undone(
        proven=all(part.proven for part in parts),
        detail="; ".join(part.detail for part in parts) or "nothing had been applied",
        to_do=tuple(line for part in parts for line in part.to_do),
    )


async def _undo_routes(undo: RoutesUndo, peers: Peers, journal: Journal) -> Undone:
    wanted = ", ".join(f"{key}={value or 'clear'}" for key, value in undo.values)
    detail = ""
    for attempt in ("check", "write", "write again"):
        if attempt != "check":
            change = await set_routes(
                peers.control,
                undo.values,
                captured=undo.captured,
                step_id=STEP_ID,
                label="undo.routes",
                on_refusal=OnRefusal.TRY_AGAIN,
                journal=journal,
                clock=peers.clock,
            )
            detail = change.detail
            if not change.proven:
                continue
            if undo.unsure:
                await peers.clock.sleep(LATE_EFFECT_SECONDS)
        elif undo.unsure:
            continue
        try:
            sample = await peers.control.sample(label="undo.routes.read-back")
        except PeerError as error:
            detail = f"the routes could not be read: {error}"
            continue
        if sample.holds(undo.values):
            return Undone(proven=True, detail=f"routes are as captured ({wanted})")
        detail = sample.describe()
    lane, base = peers.control.lane, peers.control.base_url
    to_do = [f"check that {base}{lane.status_path} says {wanted} on every instance"]
    for key, value in undo.values:
        body = f'"target":"{lane.override_words.get(value, value)}"' + (
            "" if key == GLOBAL else f',"domain":"{key}"'
        )
        to_do.append(
            f"curl -X POST {base}{lane.override_path} -H 'authorization: Bearer '$CONTROL_ACCESS_TOKEN"
            f" -H 'content-type: application/json' -d '{{{body}}}'"
        )
    return Undone(proven=False, detail=f"the routes could not be proven undone: {detail}", to_do=tuple(to_do))


async def _undo_traffic(undo: TrafficUndo, peers: Peers, journal: Journal, service: str) -> Undone:
    found, detail = await _traffic(peers)
    targets, pinned = _safe_targets(undo, found)
    wanted = describe_shares(shares(targets, latest=(found or undo.captured).latest_ready))
    if found is not None and not undo.unsure and not pinned and not unproven(found, targets):
        return Undone(proven=True, detail=f"traffic is as it should be ({wanted})")
    proven = False
    mover = TrafficMover(
        backend=peers.traffic, journal=journal, clock=peers.clock, captured=undo.captured, step_id=STEP_ID
    )
    for _ in range(_TRIES):
        # without a read there is no etag to go by: the write is made all the same, for nothing is worse than not
        current = found or attrs.evolve(undo.captured, etag=None)
        shift = await mover.shift(
            targets, current=current, label="undo.traffic", on_refusal=OnRefusal.TRY_AGAIN
        )
        proven, detail, found = shift.proven, shift.detail, shift.state
        if proven and undo.unsure:  # a write whose fate is not known may land after this one
            await peers.clock.sleep(LATE_EFFECT_SECONDS)
            found, detail = await _traffic(peers)
            detail = detail or unproven(found or undo.captured, targets)
            proven = not detail
        if proven or not shift.proven:
            break
    if proven:
        journal.record(TrafficSettled())
        to_latest = f"when that revision is tested: gcloud run services update-traffic {service} --to-latest"
        return Undone(
            proven=not pinned,
            detail=pinned or f"traffic is back: {wanted}",
            to_do=(to_latest,) if pinned else (),
        )
    rows = ",".join(f"{row.revision or 'LATEST'}={row.percent}" for row in targets if row.percent)
    return Undone(
        proven=False,
        detail=f"the traffic could not be proven undone: {detail}",
        to_do=(
            f"check that {wanted} is served: gcloud run services describe {service}",
            f"gcloud run services update-traffic {service} --to-revisions {rows}",
        ),
    )


async def _traffic(peers: Peers) -> tuple[TrafficState | None, str]:
    try:
        return await peers.traffic.read(label="undo.traffic"), ""
    except PeerError as error:
        return None, f"the traffic could not be read: {error}"


def _safe_targets(undo: TrafficUndo, found: TrafficState | None) -> tuple[tuple[TrafficTarget, ...], str]:
    """Return what to write, and why it is less than was captured: LATEST must not release a revision nobody tested."""
    latest = any(row.revision is None and row.percent for row in undo.captured.targets)
    was = undo.captured.latest_ready
    if not latest or found is None or was is None or found.latest_ready == was:
        return undo.targets, ""
    pinned = tuple(attrs.evolve(row, revision=was) if row.revision is None else row for row in undo.targets)
    served = describe_shares(shares(pinned, latest=None))
    return (
        pinned,
        f"LATEST was {was} and now is {found.latest_ready}, which nobody tested: pinned on {served}",
    )
