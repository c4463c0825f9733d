"""The state of production as the run left it, part by part: the split and the overrides.

The module is a little longer than most, because both parts are read from the same events by the same rules.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from itertools import pairwise

import attrs

from cutover.model import step_ids
from cutover.model.route_state import RouteState
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import TrafficState, describe_shares, shares
from cutover.model.train_events import (
    Decided,
    RouteIntended,
    RoutesRead,
    StepFinished,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    changes,
)
from cutover.model.undo_plan import UndoPlan
from cutover.model.undo_policy import MOVED_ON, Action

_NOT_READ = "not read by this run"
_CLEAR = "clear"


class Certainty(Enum):
    """The certainty of a run about one part of production at its end."""

    UNTOUCHED = "untouched"
    PROVEN = "proven"
    """The last write was read back as asked for, or as an operator accepted it."""
    MOVED_ON = "changed by somebody else"
    """Somebody else has changed the part, and the run left that as it is."""
    OPEN = "not proven"
    """A change of the run is not proven undone."""


@attrs.frozen(kw_only=True)
class PartState:
    """One part of production at the end of the run."""

    name: str
    """``Traffic`` or ``Routes``."""
    certainty: Certainty
    sentence: str
    before: str
    after: str


@attrs.frozen(kw_only=True)
class RouteRow:
    """One route key before and after the run."""

    key: str
    before: str
    after: str

    @property
    def differs(self) -> bool:
        """True if the run ended with another value."""
        return self.before != self.after


def traffic_state(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> PartState:
    """Return the state of the split."""
    asked = [event for event in changes(events) if isinstance(event, TrafficIntended)]
    last = next((event for event in reversed(events) if isinstance(event, TrafficRead)), None)
    before = describe_shares(asked[0].captured.served()) if asked else _first_split(summary)
    after = before if last is None else describe_shares(last.found.served())
    certainty = Certainty.PROVEN
    if not asked:
        certainty, words = _untouched("moved traffic", events, before)
    elif plan.traffic is not None and (moved := _moved_on("traffic", events, before)):
        certainty, words, after = moved
    elif plan.traffic is not None:
        wanted = describe_shares(shares(plan.traffic.targets, latest=plan.traffic.captured.latest_ready))
        found = _last_found(events, "traffic", last)
        certainty, after = Certainty.OPEN, f"not known; last seen: {found}"
        words = f"NOT KNOWN to be restored. {_last_seen(events, 'traffic', last)} It should be {wanted}."
    elif _accepted(events, "traffic"):
        after = _last_found(events, "traffic", last)
        words = f"{after}: an operator accepted this state."
    else:
        same = last is not None and last.found.served() == asked[0].captured.served()
        words = _as_read(before, after, last, same=same)
    return PartState(name="Traffic", certainty=certainty, sentence=words, before=before, after=after)


def routes_state(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> PartState:
    """Return the state of the overrides."""
    rows = route_rows(events, summary)
    sample = _last_sample(events)
    before, after = (
        describe_routes({row.key: getattr(row, side) for row in rows}) for side in ("before", "after")
    )
    certainty = Certainty.PROVEN
    if not any(isinstance(event, RouteIntended) for event in changes(events)):
        certainty, words = _untouched("wrote an override", events, before)
    elif plan.routes is not None and (moved := _moved_on("routes", events, before)):
        certainty, words, after = moved
    elif plan.routes is not None:
        wanted = describe_routes({key: value or _CLEAR for key, value in plan.routes.values})
        seen = (
            f"They were last seen, at {_time(sample.at)}, as: {after}."
            if sample is not None
            else "They were never read back."
        )
        certainty, words = Certainty.OPEN, f"NOT KNOWN to be restored. {seen} They should be: {wanted}."
        after = f"not known; last seen: {after}"
    else:
        words = _as_read(before, after, sample, same=not any(row.differs for row in rows))
    return PartState(name="Routes", certainty=certainty, sentence=words, before=before, after=after)


def _untouched(never: str, events: Sequence[TrainEvent], before: str) -> tuple[Certainty, str]:
    """Return the certainty and the sentence about a part that the run never changed."""
    sentence = f"The run never {never}: {before}{_read_at(_preflight_time(events))}."
    return Certainty.UNTOUCHED, sentence


def _as_read(before: str, after: str, last: TrafficRead | RoutesRead | None, *, same: bool) -> str:
    """Return the sentence about a part whose last read proved it."""
    note = ", as before the run" if same else f"; before the run: {before}"
    return f"{after}{note}{_read_at(last.at) if last is not None else ''}."


def route_rows(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[RouteRow, ...]:
    """Return each route key with its override before the run and at its last read; empty if the run read no routes."""
    captured = next((event.captured for event in events if isinstance(event, RouteIntended)), None)
    before = _overrides(captured) if captured is not None else _first_routes(summary)
    sample = _last_sample(events)
    if sample is None:
        unknown = any(isinstance(event, RouteIntended) for event in changes(events))
        return tuple(
            RouteRow(key=key, before=value, after="not read back" if unknown else value)
            for key, value in before.items()
        )
    states = [(_overrides(state), count) for state, count in sample.shares]
    keys = dict.fromkeys([*before, *(key for state, _ in states for key in state)])
    return tuple(
        RouteRow(key=key, before=before.get(key, _NOT_READ), after=_among(states, key)) for key in keys
    )


def split_points(events: Sequence[TrainEvent]) -> tuple[tuple[str, TrafficState, bool], ...]:
    """Return the split over time: (time, state from then on, True if it was read back as asked for), the captured split first."""
    points: list[tuple[str, TrafficState, bool]] = []
    for event in events:
        match event:
            case TrafficIntended() if not points:
                points.append((events[0].at, event.captured, True))
            case TrafficRead():
                points.append((event.at, event.found, event.proven))
            case _:
                pass
    return tuple(points[:1]) + tuple(
        later for earlier, later in pairwise(points) if earlier[1].served() != later[1].served()
    )


def describe_routes(values: Mapping[str, str]) -> str:
    """Return overrides in few words: keys with the same value are named together, and all of them if there is one value."""
    found: dict[str, list[str]] = {}
    for key, value in values.items():
        found.setdefault(value, []).append(key)
    if len(found) == 1:
        (value,) = found
        word = "override" if len(values) == 1 else f"all {len(values)} overrides"
        return f"{word} {value}"
    return "; ".join(f"{', '.join(keys)}: {value}" for value, keys in found.items()) or _NOT_READ


def _first_split(summary: CutoverSummary) -> str:
    served = _fact(summary, "traffic")
    return (
        describe_shares({str(key): int(str(value)) for key, value in served.items()}) if served else _NOT_READ
    )


def _first_routes(summary: CutoverSummary) -> dict[str, str]:
    return {str(key): str(value or _CLEAR) for key, value in _fact(summary, "routes").items()}


def _fact(summary: CutoverSummary, name: str) -> Mapping[object, object]:
    """Return what the preflight noted; empty if it noted nothing."""
    preflight = summary.step(step_ids.PREFLIGHT)
    fact = preflight.facts.get(name) if preflight is not None else None
    return fact if isinstance(fact, Mapping) else {}


def _overrides(state: RouteState) -> dict[str, str]:
    return {key: value or _CLEAR for key, value in state.overrides}


def _last_sample(events: Sequence[TrainEvent]) -> RoutesRead | None:
    return next((event for event in reversed(events) if isinstance(event, RoutesRead)), None)


def _among(states: Sequence[tuple[Mapping[str, str], int]], key: str) -> str:
    """Return the value of a key in a sample; where the instances disagree, each value with the number of its reads."""
    counts: dict[str, int] = {}
    for state, count in states:
        value = state.get(key, _NOT_READ)
        counts[value] = counts.get(value, 0) + count
    if len(counts) == 1:
        return next(iter(counts))
    total = sum(counts.values())
    return ", ".join(f"{value} ({count} of {total} reads)" for value, count in counts.items())


def _decided(events: Sequence[TrainEvent], part: str) -> Decided | None:
    return next(
        (event for event in reversed(events) if isinstance(event, Decided) and event.part == part), None
    )


def _moved_on(part: str, events: Sequence[TrainEvent], before: str) -> tuple[Certainty, str, str] | None:
    """Return the certainty, the sentence and the found state of a part that somebody else has changed; None if nobody has."""
    decided = _decided(events, part)
    if decided is None or decided.action != Action.REFUSE.value or not decided.why.startswith(MOVED_ON):
        return None
    sentence = (
        f"Somebody else has changed it, and the run left that as it is. At {_time(decided.at)} it was: {decided.found}. "
        f"Before the run: {before}. An operator decides which of them stays."
    )
    return Certainty.MOVED_ON, sentence, decided.found


def _accepted(events: Sequence[TrainEvent], part: str) -> bool:
    decided = _decided(events, part)
    return decided is not None and decided.action == Action.ACCEPT.value


def _last_found(events: Sequence[TrainEvent], part: str, last: TrafficRead | None) -> str:
    """Return the newest state that was seen of a part, in words: by a look of the way back, or by a read."""
    decided = _decided(events, part)
    if decided is not None and (last is None or decided.at >= last.at):
        return decided.found
    return describe_shares(last.found.served()) if last is not None else _NOT_READ


def last_seen_traffic(events: Sequence[TrainEvent]) -> tuple[str, str] | None:
    """Return the newest split that was seen after the first write, in words, and the time of day; None if nobody looked."""
    for event in reversed(events):
        if isinstance(event, TrafficRead):
            return describe_shares(event.found.served()), _time(event.at)
        if isinstance(event, Decided) and event.part == "traffic":
            return event.found, _time(event.at)
    return None


def _last_seen(events: Sequence[TrainEvent], part: str, last: TrafficRead | None) -> str:
    asked = [event for event in changes(events) if isinstance(event, TrafficIntended)][-1]
    wanted = describe_shares(shares(asked.wanted, latest=None))
    seen = last_seen_traffic(events)
    when = f", at {seen[1]}," if seen is not None else ""
    return (
        f"It was last seen{when} as: {_last_found(events, part, last)}. "
        f"The last write, at {_time(asked.at)}, asked for {wanted}."
    )


def _preflight_time(events: Sequence[TrainEvent]) -> str:
    """Return the time at which the preflight, which reads both parts, ended; empty without one."""
    done = (event for event in events if isinstance(event, StepFinished))
    return next((event.at for event in done if event.result.step_id == step_ids.PREFLIGHT), "")


def _read_at(at: str) -> str:
    return f" (read at {_time(at)})" if at else ""


def _time(at: str) -> str:
    return at[11:19]
