"""The undo plan: the changes of a train that are still open, and the values to restore. Computed from the train events alone.

The train's own undo carries this plan out directly (``train/undo_executor.py``). ``cutover recover`` first asks ``undo_policy.py`` about the state that
production shows now.
"""

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
_OUTCOME_UNKNOWN = frozenset({"unknown", "failed"})
"""Outcomes that are not a clear answer: the change may or may not have taken effect."""
_NOT_DONE = frozenset({"refused", NOT_SENT})
"""Outcomes after which a change certainly did not take effect."""


@attrs.frozen(kw_only=True)
class TrafficUndo:
    """The split to restore."""

    captured: TrafficState
    """The split before the train's first change."""
    targets: tuple[TrafficTarget, ...]
    """The targets to restore, with LATEST not yet pinned."""
    own_states: tuple[tuple[TrafficTarget, ...], ...]
    """Every split that this train captured or asked for, in its undo too. Any other split is somebody else's."""
    intended: tuple[TrafficTarget, ...]
    """The last split that the train asked for before its undo."""
    last_sent_at: str
    """The latest time at which the train may have sent a change: UTC, ISO 8601; empty if no change is open."""
    last_unanswered_at: str
    """The latest time at which the train may have sent a change without a clear answer; empty if there is no such change."""
    write_outcome_unknown: bool
    """True if a write may still take effect late. The undo then writes the targets even where they are served already."""
    found: TrafficState | None = None
    """The state that recovery decided on. The undo stops if somebody else's state appears. None: the undo writes over any state."""
    releases_untested: bool = False
    """True if an operator asked to restore LATEST even if it now stands for an untested revision."""

    def targets_for(self, found: TrafficState | None) -> tuple[tuple[TrafficTarget, ...], str]:
        """Return the targets to write, and the reason why LATEST is pinned in them; an empty reason if LATEST is not pinned."""
        if self.releases_untested:
            return self.targets, ""
        return pin_latest_if_changed(self.targets, captured=self.captured, found=found)

    def refuse_reason(self, targets: tuple[TrafficTarget, ...], state: TrafficState) -> str:
        """Return the reason why these targets must not be written over a state; an empty text if they may."""
        if self.targets_for(state)[0] != targets:
            return "another revision became ready in the meantime"
        if self.found is None or state.asks_for(targets) or state.asks_for(self.found.targets):
            return ""
        return "somebody else changed the traffic in the meantime"


@attrs.frozen(kw_only=True)
class RoutesUndo:
    """The overrides to restore."""

    captured: RouteState
    """The overrides before the train's first change."""
    values: tuple[tuple[str, str | None], ...]
    """(route key, override) to restore, the global one last; None clears an override."""
    own_states: tuple[tuple[str, str | None], ...]
    """Every (route key, override) that this train captured or asked for, in its undo too."""
    intended: tuple[tuple[str, str | None], ...]
    """The last override that the train asked for of each key, before its undo."""
    last_sent_at: str
    """The latest time at which the train may have sent a change: UTC, ISO 8601."""
    last_unanswered_at: str
    """The latest time at which the train may have sent a change without a clear answer; empty if there is no such change."""
    write_outcome_unknown: bool
    """True if a write may still take effect late."""


@attrs.frozen(kw_only=True)
class UndoPlan:
    """The parts of production to restore; a part is None if nothing of it is left to undo."""

    routes: RoutesUndo | None
    traffic: TrafficUndo | None

    def __bool__(self) -> bool:
        """True if there is anything to undo."""
        return self.routes is not None or self.traffic is not None


def plan_undo(events: Sequence[TrainEvent], *, stable: str) -> UndoPlan:
    """Return the undo plan after these events: the changes that are still open.

    Traffic goes back to the captured split; after a failed drill it goes to stable at 100 %. Every override that the train wrote goes back
    to its captured value. After a passed train nothing is left to undo, unless ``UndoStarted`` follows: then an operator reverts the
    train.
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
    """Return the targets to restore: the captured ones; if a check of the drill failed, stable at 100 % with the captured tags.

    A drill that only gave the canary a tag at 0 % has no share to keep from the canary: the captured targets come back then too.
    """
    events = list(events)
    moved = any(
        isinstance(event, TrafficIntended) and not captured.splits_as(event.wanted) for event in events
    )
    failed = moved and any(
        isinstance(event, CheckRecorded) and event.step_id == step_ids.DRILL and event.check.status.failed
        for event in events
    )
    return split(captured, {stable: 100}) if failed else captured.restorable_targets


def _came_back(events: Iterable[TrainEvent], intents: Sequence[TrafficIntended]) -> bool:
    """Return True if settled traffic was later found on a split that the train asked for: the restored split was lost.

    Any other split is somebody else's, and the undo leaves it alone.
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
    """Return the changes that the train itself intended; if there are none, the changes that its undo intended."""
    return [event for event in intents if event.step_id != step_ids.UNDO] or intents


def _sent(events: Iterable[TrainEvent], kind: type[RouteIntended] | type[TrafficIntended]) -> tuple[str, str]:
    """Return the latest time at which such a change may have been sent, and the latest for a change without a clear answer.

    A time is an empty text if there is no such change. One event may stand for many writes: the only certain limit is the time at
    which their answer was recorded.
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
            if event.outcome in _OUTCOME_UNKNOWN:
                unanswered = max(unanswered, event.at)
    left = max(open_until.values(), default="")
    return max(last, left), max(unanswered, left)


def _routes_outcome_unknown(events: Iterable[TrainEvent]) -> bool:
    """Return True if a write of an override may still take effect; only a refused or unsent one cannot.

    Overrides have no etag: one of many writes may land late, after a sample has agreed and the undo has read the overrides.
    """
    pending: set[str] = set()
    for event in events:
        match event:
            case RouteIntended():
                pending.add(event.key)
            case Answered() if event.outcome in _NOT_DONE:
                pending.discard(event.key)
            case _:
                pass
    return bool(pending)


def _traffic_outcome_unknown(events: Iterable[TrainEvent]) -> bool:
    """Return True if a write of the split may still take effect; a refusal or a proven read-back rules that out.

    An accepted write that was not read back may land after the undo has read the split.
    """
    pending = False
    for event in events:
        match event:
            case TrafficIntended():
                pending = True
            case Answered() if event.key == TRAFFIC and event.outcome in _NOT_DONE:
                pending = False
            case TrafficRead() if event.proven:
                pending = False
            case _:
                pass
    return pending


def _later(at: str, seconds: float) -> str:
    """Return the time that many seconds after ``at``; ``at`` itself if it is not a time."""
    try:
        return timestamp(datetime.fromisoformat(at) + timedelta(seconds=seconds))
    except ValueError:
        return at
