"""What is outstanding after a train's events, and what it would be to put that back: one pure plan, for the train and for recovery."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import attrs

from cutover.model import step_ids
from cutover.model.route_state import GLOBAL, ROUTES_DEADLINE, RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget, pin_latest_if_changed, split
from cutover.model.train_events import (
    NOT_SENT,
    TRAFFIC,
    Answered,
    CheckRecorded,
    RouteIntended,
    TrafficIntended,
    TrafficRead,
    TrafficSettled,
    TrainEvent,
    TrainFinished,
    UndoFinished,
    UndoStarted,
    changes,
)
from cutover.text import timestamp

Intent = TypeVar("Intent", RouteIntended, TrafficIntended)
_SAYS_NOTHING = frozenset({"unknown", "failed"})
_CERTAINLY_NOT = frozenset({"refused", NOT_SENT})


@attrs.frozen(kw_only=True)
class TrafficUndo:
    """The split to put back."""

    captured: TrafficState
    targets: tuple[TrafficTarget, ...]
    own_states: tuple[tuple[TrafficTarget, ...], ...]
    """Every split that the train knew: what was captured, and what it asked for, its own undo included."""
    intended: tuple[TrafficTarget, ...]
    """What it had asked for last, before it was undone."""
    last_sent_at: str
    """Until when it may have sent changes: UTC, ISO 8601."""
    last_unanswered_at: str
    """Until when it may have sent some whose fate no answer tells; empty where there are none such."""
    write_outcome_unknown: bool
    """Whether a write's fate is unknown: it may take effect late, so the target is written whatever is found."""
    found: TrafficState | None = None
    """The state that recovery decided upon: any other one that comes up ends the undo. None: whatever is found."""
    releases_untested: bool = False
    """Whether LATEST is put back whatever it stands for by now: an operator said so."""

    def aim(self, found: TrafficState | None) -> tuple[tuple[TrafficTarget, ...], str]:
        """Return what to write, and why it is less than was captured, where it is."""
        if self.releases_untested:
            return self.targets, ""
        return pin_latest_if_changed(self.targets, captured=self.captured, found=found)

    def objection(self, aim: tuple[TrafficTarget, ...], state: TrafficState) -> str:
        """Return why this aim must not be written over this state, empty where it may be."""
        if self.aim(state)[0] != aim:
            return "another revision became ready in the meantime"
        if self.found is None or state.asks_for(aim) or state.asks_for(self.found.targets):
            return ""
        return "somebody else changed the traffic in the meantime"


@attrs.frozen(kw_only=True)
class RoutesUndo:
    """The overrides to put back, the global one last."""

    captured: RouteState
    values: tuple[tuple[str, str | None], ...]
    own_states: tuple[tuple[str, str | None], ...]
    """Every (key, override) that the train knew: what was captured, and what it asked for, its own undo included."""
    intended: tuple[tuple[str, str | None], ...]
    """What it had asked for last of each key, before it was undone."""
    last_sent_at: str
    """Until when it may have sent changes: UTC, ISO 8601."""
    last_unanswered_at: str
    """Until when it may have sent some whose fate no answer tells; empty where there are none such."""
    write_outcome_unknown: bool


@attrs.frozen(kw_only=True)
class UndoPlan:
    """What to put back; a part is None where nothing is outstanding."""

    routes: RoutesUndo | None
    traffic: TrafficUndo | None

    def __bool__(self) -> bool:
        """Whether there is anything to undo."""
        return self.routes is not None or self.traffic is not None


def plan_undo(events: Sequence[TrainEvent], *, stable: str) -> UndoPlan:
    """Work out what is outstanding after these events.

    Traffic goes back to what was captured; after a failed drill to stable alone, whatever was captured. Routes that were
    touched go back to exactly what was captured. After a passed train nothing is outstanding: that is what it was for,
    until it is to be undone all the same, which ``UndoStarted`` says.
    """
    begun = max((index for index, event in enumerate(events) if isinstance(event, UndoStarted)), default=0)
    if any(isinstance(event, TrainFinished) and event.passed for event in events[begun:]):
        return UndoPlan(routes=None, traffic=None)
    undone = [index for index, event in enumerate(events) if isinstance(event, UndoFinished) and event.proven]
    events = events[undone[-1] + 1 :] if undone else events
    return UndoPlan(routes=_routes_outstanding(events), traffic=_traffic_outstanding(events, stable))


def _traffic_outstanding(events: Sequence[TrainEvent], stable: str) -> TrafficUndo | None:
    settled = max(
        (index for index, event in enumerate(events) if isinstance(event, TrafficSettled)), default=-1
    )
    asked = [event for event in changes(events) if isinstance(event, TrafficIntended)]
    since = events[settled + 1 :]
    open_still = [event for event in changes(since) if isinstance(event, TrafficIntended)]
    if not open_still and not _came_back(since, asked):
        return None
    captured = asked[0].captured
    last, unanswered = _sent(since, TrafficIntended)
    return TrafficUndo(
        captured=captured,
        targets=way_back(events, captured, stable),
        own_states=(captured.targets, *(event.wanted for event in asked)),
        intended=_intended(asked)[-1].wanted,
        last_sent_at=last,
        last_unanswered_at=unanswered,
        write_outcome_unknown=_traffic_outcome_unknown(since),
    )


def way_back(events: Iterable[TrainEvent], captured: TrafficState, stable: str) -> tuple[TrafficTarget, ...]:
    """Return where the traffic goes: as captured, and after a failed drill to stable alone."""
    failed = any(
        isinstance(event, CheckRecorded) and event.step_id == step_ids.DRILL and event.check.status.failed
        for event in events
    )
    return split(captured, {stable: 100}) if failed else captured.targets


def _came_back(events: Iterable[TrainEvent], intents: Sequence[TrafficIntended]) -> bool:
    """Whether, after it had settled, the traffic was found on a split of the train's own: its way back was lost.

    Any other split is somebody else's, and no business of the undo.
    """
    return any(
        isinstance(event, TrafficRead)
        and not event.proven
        and any(
            event.found.serves(intent.wanted) or event.found.asks_for(intent.wanted) for intent in intents
        )
        for event in events
    )


def _routes_outstanding(events: Sequence[TrainEvent]) -> RoutesUndo | None:
    intents = [event for event in changes(events) if isinstance(event, RouteIntended)]
    if not intents:
        return None
    captured = intents[0].captured
    last, unanswered = _sent(events, RouteIntended)
    touched = dict.fromkeys(event.key for event in reversed(intents))
    keys = [*(key for key in touched if key != GLOBAL), *(key for key in touched if key == GLOBAL)]
    values = tuple((key, captured.get(key)) for key in keys)
    wanted = {event.key: event.wanted for event in _intended(intents)}
    return RoutesUndo(
        captured=captured,
        values=values,
        own_states=tuple(dict.fromkeys((*values, *((event.key, event.wanted) for event in intents)))),
        intended=tuple((key, wanted[key]) for key in keys if key in wanted),
        last_sent_at=last,
        last_unanswered_at=unanswered,
        write_outcome_unknown=_routes_outcome_unknown(events),
    )


def _intended(intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return the intents of the train itself; all, where there is nothing else."""
    return [event for event in intents if event.step_id != step_ids.UNDO] or intents


def _sent(events: Iterable[TrainEvent], kind: type[RouteIntended] | type[TrafficIntended]) -> tuple[str, str]:
    """Return until when changes of a kind may have been sent, and those that no answer tells of; empty where there are none.

    One intent may stand for many writes: what is sure is only that all were sent before the answer was recorded.
    """
    open_until: dict[str, str] = {}
    last = unanswered = ""
    for event in events:
        if isinstance(event, kind):
            often = isinstance(event, RouteIntended) and event.times > 1
            key = event.key if isinstance(event, RouteIntended) else TRAFFIC
            open_until[key] = _later(event.at, ROUTES_DEADLINE) if often else event.at
        elif isinstance(event, Answered) and open_until.pop(event.key, None) is not None:
            last = max(last, event.at)
            if event.outcome in _SAYS_NOTHING:
                unanswered = max(unanswered, event.at)
    left = max(open_until.values(), default="")
    return max(last, left), max(unanswered, left)


def _routes_outcome_unknown(events: Iterable[TrainEvent]) -> bool:
    """Whether an override may still take effect: only a refused one is sure not to.

    There is no etag here: one of many writes may land late, after a sample has agreed and the undo has read.
    """
    pending: set[str] = set()
    for event in events:
        match event:
            case RouteIntended():
                pending.add(event.key)
            case Answered() if event.outcome in _CERTAINLY_NOT:
                pending.discard(event.key)
            case _:
                pass
    return bool(pending)


def _traffic_outcome_unknown(events: Iterable[TrainEvent]) -> bool:
    """Whether an update may still take effect: only a refusal, or reading it back proven, makes sure.

    Accepted is not enough: an update that was accepted and not yet read back may land after the undo has read.
    """
    pending = False
    for event in events:
        match event:
            case TrafficIntended():
                pending = True
            case Answered() if event.key == TRAFFIC and event.outcome in _CERTAINLY_NOT:
                pending = False
            case TrafficRead() if event.proven:
                pending = False
            case _:
                pass
    return pending


def _later(at: str, seconds: float) -> str:
    """Return the time so many seconds after ``at``; ``at`` itself where it is no time."""
    try:
        return timestamp(datetime.fromisoformat(at) + timedelta(seconds=seconds))
    except ValueError:
        return at
