"""The undo plan: the changes of a train that are still open, and the values to restore. Computed from the train events alone.

Every way back starts from this plan: the drill's rollback, the train's undo and ``cutover recover``. ``undo_policy.py`` then decides from the
state that production shows now, and ``train/undo_executor.py`` carries the decision out.

The module is longer than most, because one reading of the events fills the whole plan.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import attrs
import msgspec

from cutover.model import step_ids
from cutover.model.gates import Ceilings, drill_holds
from cutover.model.route_state import GLOBAL, ROUTES_DEADLINE, RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget, pin_latest_if_changed, split
from cutover.model.train_events import (
    NOT_SENT,
    TRAFFIC,
    Answered,
    CheckRecorded,
    Decided,
    RouteIntended,
    RoutesRead,
    TrafficIntended,
    TrafficRead,
    TrafficSettled,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    changes,
)
from cutover.text import timestamp

Intent = TypeVar("Intent", RouteIntended, TrafficIntended)
_OUTCOME_UNKNOWN = frozenset({"unknown", "failed", "no effect"})
"""Outcomes that are not a clear answer: the change may have taken effect, or may still do so."""
_NOT_DONE = frozenset({"refused", NOT_SENT})
"""Outcomes after which a change certainly did not take effect."""


@attrs.frozen(kw_only=True)
class Moment:
    """A time at which a request was sent, on the wall clock and, inside the process that sent it, on its monotonic clock."""

    at: str
    """UTC, ISO 8601."""
    tick: float | None = None
    """Seconds of the monotonic clock; None if another process sent the request."""

    def later(self, seconds: float) -> "Moment":
        """Return the time that many seconds later; on a clock whose time is not a time, the same time."""
        try:
            at = timestamp(datetime.fromisoformat(self.at) + timedelta(seconds=seconds))
        except ValueError:
            at = self.at
        return Moment(at=at, tick=None if self.tick is None else self.tick + seconds)


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
    last_sent: "Moment"
    """The latest time at which the train may have sent a change."""
    last_unanswered: "Moment | None"
    """The latest time at which the train may have sent a change without a clear answer; None if there is no such change."""
    write_outcome_unknown: bool
    """True if a write may still take effect late. The undo then writes the targets even where they are served already."""
    given_tags: tuple[tuple[str | None, str], ...] = ()
    """The (revision, tag) pairs that the train itself added."""
    found: TrafficState | None = None
    """The state that the decision was made on. None: only an operator's wish to restore the captured state writes over any state."""
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
    last_sent: "Moment"
    """The latest time at which the train may have sent a change."""
    last_unanswered: "Moment | None"
    """The latest time at which the train may have sent a change without a clear answer; None if there is no such change."""
    write_outcome_unknown: bool
    """True if a write may still take effect late."""
    on_canary: tuple[tuple[str, str | None], ...] = ()
    """The overrides that the promotion set on the canary's instances, as far as they differ from the captured ones."""


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
        own_states=_own_splits(events, asked, captured, stable),
        given_tags=_given_tags(events, captured),
        intended=_intended(asked)[-1].wanted,
        last_sent=last,
        last_unanswered=unanswered,
        write_outcome_unknown=_traffic_outcome_unknown(since),
    )


def _own_splits(
    events: Iterable[TrainEvent], asked: Sequence[TrafficIntended], captured: TrafficState, stable: str
) -> tuple[tuple[TrafficTarget, ...], ...]:
    """Return every split that this train captured or asked for.

    A train that has moved a share asks for stable at 100 % before anything else, also when a full disk keeps that out of its journal.
    """
    rollback = (split(captured, {stable: 100}),) if shares_moved(events) else ()
    return tuple(dict.fromkeys((captured.targets, *(event.wanted for event in asked), *rollback)))


def _given_tags(events: Iterable[TrainEvent], captured: TrafficState) -> tuple[tuple[str | None, str], ...]:
    """Return the tags that the train added: those of its forward changes. A way back, which begins with ``Decided``, may keep tags of others."""
    tags: dict[tuple[str | None, str], None] = {}
    for event in events:
        if isinstance(event, Decided):
            break
        if isinstance(event, TrafficIntended):
            tags |= dict.fromkeys((row.revision, row.tag) for row in event.wanted if row.tag)
    return tuple(pair for pair in tags if pair not in captured.tags)


def way_back(events: Iterable[TrainEvent], captured: TrafficState, stable: str) -> tuple[TrafficTarget, ...]:
    """Return the targets to restore: the captured ones; if the gate of the drill does not hold, stable at 100 % with the captured tags.

    A drill whose failed checks MAX_CANARY_DRILL_FAILURES tolerates restores the captured split, LATEST included, and so does an undo. The check
    of that last step says nothing about the canary, so it does not count here. A drill that moved no share has none to keep from the canary:
    the captured targets come back then too.
    """
    events = list(events)
    ceilings, checks = Ceilings(), []
    for event in events:
        if isinstance(event, TrainStarted):
            ceilings = msgspec.convert(event.facts.get("ceilings", {}), Ceilings)
        elif (
            isinstance(event, CheckRecorded)
            and event.step_id == step_ids.DRILL
            and event.check.check_id != step_ids.DRILL_RESTORED
        ):
            checks.append(event.check)
    holds = drill_holds(checks, max_failed=ceilings.canary_drill)
    return (
        captured.restorable_targets if holds or not shares_moved(events) else split(captured, {stable: 100})
    )


def shares_moved(events: Iterable[TrainEvent]) -> bool:
    """Return True if a write of other shares than the captured ones may have taken effect.

    False if each was refused for certain or never sent, or changed tags alone.
    """
    waiting = False
    for event in events:
        match event:
            case TrafficIntended():
                waiting = not event.captured.splits_as(event.wanted)
            case Answered() if event.key == TRAFFIC and waiting:
                if event.outcome not in _NOT_DONE:
                    return True
                waiting = False
            case _:
                pass
    return waiting


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
        last_sent=last,
        last_unanswered=unanswered,
        write_outcome_unknown=_routes_outcome_unknown(events),
        on_canary=tuple(pair for pair in _promoted(events).items() if pair not in values),
    )


def _promoted(events: Iterable[TrainEvent]) -> dict[str, str | None]:
    """Return the overrides that the promotion has set, or may have set: not those that were all refused, or never sent."""
    promoted: dict[str, str | None] = {}
    waiting: dict[str, str | None] = {}
    for event in events:
        match event:
            case RouteIntended() if event.step_id == step_ids.PROMOTION:
                waiting[event.key] = event.wanted
            case Answered() if event.key in waiting:
                wanted = waiting.pop(event.key)
                if event.outcome not in _NOT_DONE:
                    promoted[event.key] = wanted
            case _:
                pass
    return promoted | waiting


def _intended(intents: Sequence[Intent]) -> Sequence[Intent]:
    """Return the changes that the train itself intended; if there are none, the changes that its undo intended."""
    return [event for event in intents if event.step_id != step_ids.UNDO] or intents


def _sent(
    events: Iterable[TrainEvent], kind: type[RouteIntended] | type[TrafficIntended]
) -> tuple[Moment, Moment | None]:
    """Return the latest time at which such a change may have been sent, and the latest for a change without a clear answer.

    One event may stand for many writes: the only certain limit is the time at which their answer was recorded.
    """
    open_until: dict[str, Moment] = {}
    sent, unanswered = [Moment(at="")], list[Moment]()
    for event in events:
        if isinstance(event, kind):
            often = isinstance(event, RouteIntended) and event.times > 1
            key = event.key if isinstance(event, RouteIntended) else TRAFFIC
            open_until[key] = _moment(event).later(ROUTES_DEADLINE) if often else _moment(event)
        elif isinstance(event, Answered) and open_until.pop(event.key, None) is not None:
            sent.append(_moment(event))
            if event.outcome in _OUTCOME_UNKNOWN:
                unanswered.append(_moment(event))
    sent += open_until.values()
    unanswered += open_until.values()
    return _latest(sent), _latest(unanswered) if unanswered else None


def _moment(event: TrainEvent) -> Moment:
    return Moment(at=event.at, tick=event.tick)


def _latest(moments: Sequence[Moment]) -> Moment:
    """Return the latest of these times. What this process did itself came after everything that it read in a journal."""
    return max(moments, key=lambda moment: (moment.tick is not None, moment.tick or 0.0, moment.at))


def _routes_outcome_unknown(events: Iterable[TrainEvent]) -> bool:
    """Return True if a write of an override may still take effect.

    Overrides have no etag, so a write without a clear answer may always land late. A refused or unsent one cannot, and neither can one that was
    accepted and that a proven sample has shown.
    """
    waiting: set[str] = set()
    unread: set[str] = set()
    for event in events:
        match event:
            case RouteIntended():
                waiting.add(event.key)
            case Answered() if event.outcome in _NOT_DONE:
                # An earlier write of the same key may still be under way.
                waiting.discard(event.key)
            case Answered() if event.key in waiting:
                if event.outcome in _OUTCOME_UNKNOWN:
                    return True
                waiting.discard(event.key)
                unread.add(event.key)
            case RoutesRead() if event.proven:
                unread.clear()
            case _:
                pass
    return bool(waiting or unread)


def _traffic_outcome_unknown(events: Iterable[TrainEvent]) -> bool:
    """Return True if a write of the split may still take effect; a refusal or a proven read-back rules that out.

    An accepted write that was not read back may land after the undo has read the split.
    """
    waiting = earlier = False
    for event in events:
        match event:
            case TrafficIntended():
                waiting = True
            case Answered() if event.key == TRAFFIC:
                # A refusal says nothing about a write before it.
                earlier = earlier or (waiting and event.outcome not in _NOT_DONE)
                waiting = False
            case TrafficRead() if event.proven:
                waiting = earlier = False
            case _:
                pass
    return waiting or earlier
