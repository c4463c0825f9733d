"""The executor of every undo: it writes the values of an undo plan, and proves them by reading production again."""

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import anyio
import attrs

from cutover.errors import PeerError
from cutover.http.outbound import MUTATION_DEADLINE
from cutover.model import step_ids
from cutover.model.route_state import GLOBAL, ROUTES_DEADLINE, describe_overrides
from cutover.model.traffic_state import TrafficState, TrafficTarget, describe_shares, mismatch_reason, shares
from cutover.model.train_events import TrafficIntended, TrafficRead, TrafficSettled
from cutover.model.undo_plan import RoutesUndo, TrafficUndo, UndoPlan, plan_undo, way_back
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.control_plane import ControlPlane
from cutover.production.routes.writer import set_routes
from cutover.production.services import Services
from cutover.production.traffic.mover import HELD_SECONDS, TrafficMover
from cutover.record.journal import Journal

TRAFFIC_DEADLINE = 150.0
"""Seconds for restoring the split: two attempts, each of which reads until the split has settled."""


@attrs.frozen(kw_only=True)
class UndoResult:
    """The result of an undo, or of one part of it."""

    proven: bool
    detail: str
    to_do: tuple[str, ...] = ()
    overtaken: bool = False
    """True if somebody else changed production meanwhile, so that a new decision is needed."""


async def look_again(services: Services, journal: Journal, *, stable: str) -> None:
    """Read the traffic once more after it was restored, and journal it; if it was lost since, the undo plan restores it again.

    Do nothing if the train never moved traffic, or if the traffic is still to be undone. If it cannot be read, nothing is
    journaled, and it counts as restored.
    """
    events = journal.events
    captured = next((event.captured for event in events if isinstance(event, TrafficIntended)), None)
    if captured is None or plan_undo(events, stable=stable).traffic is not None:
        return
    found, _ = await _traffic(services, label="undo.traffic.settled")
    if found is not None:
        problem = mismatch_reason(found, way_back(events, captured, stable))
        journal.record(TrafficRead(found=found, proven=not problem))


async def carry_out(plan: UndoPlan, services: Services, journal: Journal, *, service: str) -> UndoResult:
    """Restore everything in a plan and prove it; return the result.

    The traffic comes first, because overrides live in the memory of the serving revision. Each value that the undo
    wrote is read once more after ``HELD_SECONDS``, or later if a write without an answer may still take effect.

    Args:
        plan: The undo plan.
        services: Services for the undo alone, whose clients nobody else closes.
        journal: The journal for the undo's own changes.
        service: The service in a gcloud command: ``SERVICE --project P --region R``.
    """
    parts: list[UndoResult] = []
    if plan.traffic is not None:
        undone = UndoResult(
            proven=False,
            detail=f"the traffic could not be proven undone within {TRAFFIC_DEADLINE:g} s",
            to_do=_traffic_to_do(
                plan.traffic.targets_for(None)[0], plan.traffic.captured.latest_ready, service
            ),
        )
        # The deadline of the traffic leaves time for the routes.
        with anyio.move_on_after(TRAFFIC_DEADLINE):
            undone = await _undo_traffic(plan.traffic, services, journal, service)
        parts.append(undone)
    if plan.routes is not None:
        parts.append(await _undo_routes(plan.routes, services, journal))
    return together(parts)


def together(parts: Sequence[UndoResult]) -> UndoResult:
    """Return the result of several parts together. The result of no parts is proven."""
    return UndoResult(
        proven=all(part.proven for part in parts),
        detail="; ".join(part.detail for part in parts) or "nothing had been applied",
        to_do=tuple(dict.fromkeys(line for part in parts for line in part.to_do)),
        overtaken=any(part.overtaken for part in parts),
    )


def _hold(undo: RoutesUndo | TrafficUndo) -> float:
    """Return the seconds from the proof of a restored value to its last read."""
    return max(
        HELD_SECONDS, seconds_until_write_expires(undo.last_unanswered_at) if undo.last_unanswered_at else 0.0
    )


def seconds_until_write_expires(last_sent_at: str) -> float:
    """Return the seconds for which a write sent at ``last_sent_at`` may still take effect; 0 if that time is over.

    A text that is not a time with a time zone counts as the present time.
    """
    try:
        left = MUTATION_DEADLINE - (datetime.now(UTC) - datetime.fromisoformat(last_sent_at)).total_seconds()
    # The text is not a time, or has no time zone.
    except (ValueError, TypeError):
        return MUTATION_DEADLINE
    # A wrong clock must not make the wait endless.
    return min(max(0.0, left), ROUTES_DEADLINE + MUTATION_DEADLINE)


async def _undo_routes(undo: RoutesUndo, services: Services, journal: Journal) -> UndoResult:
    wanted = describe_overrides(undo.values)
    detail = ""
    for attempt in ("check", "write", "write again"):
        if attempt != "check":
            change = await set_routes(
                services.control,
                undo.values,
                captured=undo.captured,
                step_id=step_ids.UNDO,
                label="undo.routes",
                on_refusal=OnRefusal.TRY_AGAIN,
                journal=journal,
                clock=services.clock,
            )
            detail = change.detail
            if not change.proven:
                continue
            await services.clock.sleep(_hold(undo))
        elif undo.write_outcome_unknown:
            continue
        try:
            sample = await services.control.sample(label="undo.routes.read-back")
        except PeerError as error:
            detail = f"the routes could not be read: {error}"
            continue
        if sample.holds(undo.values):
            return UndoResult(proven=True, detail=f"routes are as captured ({wanted})")
        detail = sample.describe()
    return UndoResult(
        proven=False,
        detail=f"the routes could not be proven undone: {detail}",
        to_do=_routes_to_do(undo, services.control),
    )


def to_do(plan: UndoPlan, control: ControlPlane, *, service: str) -> tuple[str, ...]:
    """Return the checks and commands with which an operator carries a plan out by hand."""
    lines: list[str] = []
    if plan.traffic is not None:
        lines += _traffic_to_do(
            plan.traffic.targets_for(None)[0], plan.traffic.captured.latest_ready, service
        )
    if plan.routes is not None:
        lines += _routes_to_do(plan.routes, control)
    return tuple(lines)


def _routes_to_do(undo: RoutesUndo, control: ControlPlane) -> tuple[str, ...]:
    wanted = describe_overrides(undo.values)
    lane, base = control.lane, control.base_url
    lines = [f"check that {base}{lane.status_path} says {wanted} on every instance"]
    for key, value in undo.values:
        body = f'"target":"{lane.override_words.get(value, value)}"' + (
            "" if key == GLOBAL else f',"domain":"{key}"'
        )
        lines.append(
            f"curl -X POST {shlex.quote(base + lane.override_path)} -H 'authorization: Bearer '$CONTROL_ACCESS_TOKEN"
            f" -H 'content-type: application/json' -d '{{{body}}}'"
        )
    return tuple(lines)


async def _undo_traffic(undo: TrafficUndo, services: Services, journal: Journal, service: str) -> UndoResult:
    found, detail = (
        (undo.found, "") if undo.found is not None else await _traffic(services, label="undo.traffic")
    )
    targets, pinned = undo.targets_for(found)
    if (
        found is not None
        and not undo.write_outcome_unknown
        and not pinned
        and not mismatch_reason(found, targets)
    ):
        journal.record(TrafficSettled())
        served = describe_shares(shares(targets, latest=found.latest_ready))
        return UndoResult(proven=True, detail=f"traffic is as it should be ({served})")
    proven = overtaken = False
    for write_again in (False, True):
        targets, pinned = undo.targets_for(found)
        mover = TrafficMover(
            backend=services.traffic,
            journal=journal,
            clock=services.clock,
            captured=undo.captured,
            step_id=step_ids.UNDO,
            refuse_reason=partial(undo.refuse_reason, targets) if found is not None else lambda _: "",
        )
        # Without a read there is no etag. The write is sent all the same: not to restore the split would be worse.
        current = found or attrs.evolve(undo.captured, etag=None)
        shift = await mover.shift(
            targets,
            current=current,
            label="undo.traffic",
            on_refusal=OnRefusal.TRY_AGAIN,
            write_again=write_again,
        )
        await services.clock.sleep(_hold(undo))
        found, unread = await _traffic(services, label="undo.traffic.held")
        detail = unread or mismatch_reason(found or undo.captured, targets)
        if proven := not detail and undo.targets_for(found)[0] == targets:
            break
        detail = detail if shift.proven else shift.detail
        overtaken = found is not None and bool(undo.refuse_reason(targets, found))
        if overtaken and undo.targets_for(found)[0] == targets:
            # The split is somebody else's now: a new decision is needed.
            break
    _, pinned = undo.targets_for(found)
    # A pinned split stays open: an operator decides about LATEST.
    if proven and not pinned:
        journal.record(TrafficSettled())
    latest = (found or undo.captured).latest_ready
    undone = _traffic_undone(
        targets, latest=latest, service=service, problem="" if proven else detail, pinned=pinned
    )
    return attrs.evolve(undone, overtaken=overtaken and not proven)


def _traffic_undone(
    targets: Sequence[TrafficTarget], *, latest: str | None, service: str, problem: str, pinned: str
) -> UndoResult:
    """Return the result for the split.

    The result is not proven, and has commands for an operator, if ``problem`` or ``pinned`` is not empty.
    ``problem`` is the reason why the split is not proven, ``pinned`` the reason why LATEST is pinned.
    """
    if problem:
        return UndoResult(
            proven=False,
            detail=f"the traffic could not be proven undone: {problem}",
            to_do=_traffic_to_do(targets, latest, service),
        )
    wanted = describe_shares(shares(targets, latest=latest))
    to_latest = f"when that revision is tested: gcloud run services update-traffic {service} --to-latest"
    return UndoResult(
        proven=not pinned,
        detail=pinned or f"traffic is back: {wanted}",
        to_do=(to_latest,) if pinned else (),
    )


def _traffic_to_do(targets: Sequence[TrafficTarget], latest: str | None, service: str) -> tuple[str, ...]:
    wanted = describe_shares(shares(targets, latest=latest))
    rows = ",".join(f"{row.revision or 'LATEST'}={row.percent}" for row in targets if row.percent)
    return (
        f"check that {wanted} is served: gcloud run services describe {service}",
        f"gcloud run services update-traffic {service} --to-revisions {rows}",
    )


async def _traffic(services: Services, *, label: str) -> tuple[TrafficState | None, str]:
    try:
        return await services.traffic.read(label=label), ""
    except PeerError as error:
        return None, f"the traffic could not be read: {error}"
