"""What recovery does about what it finds: the decision table, as pure functions.

| found | do |
|---|---|
| what is to be, and no change may still land | close |
| what is to be, and a change may still land | wait out its deadline, then write all the same |
| a split that the train knew; the tags are somebody else's | write the percentages, keep the tags |
| anything else that the train knew, even as a failed specification | write |
| LATEST stands for a revision that nobody tested | stay pinned; an operator decides |
| anything else, or nothing that can be read | touch nothing; an operator decides |

Where an operator has decided already, ``cutover.recoverer`` carries that out.
"""

import enum
from collections.abc import Sequence

import attrs

from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason, pin_latest_if_changed


class Action(enum.Enum):
    """What to do about one part of production."""

    CLOSE = "close"
    WAIT = "wait"
    WRITE = "write"
    REFUSE = "touch nothing"
    ACCEPT = "accept what is found"


@attrs.frozen(kw_only=True)
class Decision:
    """What to do about one part of production, and by which row of the table."""

    action: Action
    why: str
    targets: tuple[TrafficTarget, ...] = ()
    """Of the traffic: what to put back, LATEST not yet pinned."""


def decide_traffic(
    found: TrafficState,
    *,
    targets: tuple[TrafficTarget, ...],
    captured: TrafficState,
    own_states: Sequence[tuple[TrafficTarget, ...]],
    write_outcome_unknown: bool,
    wait: float,
) -> Decision:
    """Decide about the split.

    Args:
        found: As it was read just now.
        targets: What the undo means to put back.
        captured: What was there before the train touched it.
        own_states: Every split that the train knew: captured, or asked for.
        write_outcome_unknown: Whether a change that was asked for may still take effect.
        wait: Seconds until the deadline of the last such change is over.
    """
    if not any(found.splits_as(rows) for rows in own_states):
        return Decision(action=Action.REFUSE, why="production has moved on, and nothing of it was touched")
    why = "it is what the train had asked for"
    if not any(found.asks_for(rows) for rows in own_states):
        targets, why = (
            _with_tags_of(found, targets),
            "the percentages are the train's, and the tags are not: they stay",
        )
    goal, pinned = pin_latest_if_changed(targets, captured=captured, found=found)
    if mismatch_reason(found, goal):
        return Decision(action=Action.WRITE, why=why, targets=targets)
    if write_outcome_unknown:
        return _in_doubt(wait, targets=targets)
    if pinned:
        return Decision(action=Action.REFUSE, why=pinned)
    return Decision(action=Action.CLOSE, why="it is as it should be", targets=targets)


def decide_routes(
    found: Sequence[RouteState],
    *,
    values: Sequence[tuple[str, str | None]],
    own_states: Sequence[tuple[str, str | None]],
    write_outcome_unknown: bool,
    wait: float,
) -> Decision:
    """Decide about the overrides.

    Args:
        found: Each state that a sample of the instances saw.
        values: What the undo means to put back.
        own_states: Every (key, override) that the train knew; that a key is clear it always knows: an instance born since.
        write_outcome_unknown: Whether a change that was asked for may still take effect.
        wait: Seconds until the deadline of the last such change is over.
    """
    if any((key, state.get(key)) not in {(key, None), *own_states} for state in found for key, _ in values):
        return Decision(action=Action.REFUSE, why="production has moved on, and nothing of it was touched")
    if not all(state.holds(values) for state in found):
        return Decision(action=Action.WRITE, why="it is what the train had asked for")
    if write_outcome_unknown:
        return _in_doubt(wait)
    return Decision(action=Action.CLOSE, why="it is as it should be")


def _in_doubt(wait: float, *, targets: tuple[TrafficTarget, ...] = ()) -> Decision:
    """Decide where all is as it should be, and a change may still come that has no answer."""
    if wait:
        said = (
            f"it is as it should be, and a change without an answer may still land: {wait:.0f} s are waited"
        )
        return Decision(action=Action.WAIT, why=said, targets=targets)
    said = "it is as it should be, and is written all the same, for a change without an answer may still land"
    return Decision(action=Action.WRITE, why=said, targets=targets)


def _with_tags_of(found: TrafficState, targets: Sequence[TrafficTarget]) -> tuple[TrafficTarget, ...]:
    rows = (TrafficTarget(revision=row.revision, percent=row.percent) for row in targets if row.percent)
    tags = (TrafficTarget(revision=row.revision, tag=row.tag) for row in found.targets if row.tag)
    return (*rows, *tags)
