"""The undo policy: the action of ``cutover recover`` for each state that production can show. Pure functions, one table.

| production shows | recovery |
|---|---|
| the captured state, and no write can still take effect | closes the run |
| the captured state, and a write without an answer may still take effect | waits until that write has expired, then writes once more |
| a split of this train, with tags of somebody else | writes the percentages and keeps the tags |
| any other state of this train, even one whose change failed | writes the captured state |
| LATEST would release an untested revision | writes the captured revision by its name (LATEST is pinned); an operator decides |
| a state of somebody else | changes nothing; an operator decides |

A state of this train is a state that the train captured or asked for (``own_states``). ``train/recovery.py`` carries the decision out.
Recovery changes nothing if production cannot be read. With ``--accept-found`` or ``--restore-captured`` the operator decides instead.
The train's own undo does not ask this policy.
"""

import enum
from collections.abc import Sequence

import attrs

from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason, pin_latest_if_changed


class Action(enum.Enum):
    """The action on one part of production, as the journal names it."""

    CLOSE = "close"
    """Write nothing: the part is as it should be."""
    WAIT = "wait"
    """Wait until a late write has expired, then decide again."""
    WRITE = "write"
    """Write the values to restore."""
    REFUSE = "touch nothing"
    """Change nothing: an operator decides."""
    ACCEPT = "accept what is found"
    """Write nothing: an operator has accepted the state that was found."""


@attrs.frozen(kw_only=True)
class Decision:
    """The decision about one part of production, and the reason for it."""

    action: Action
    why: str
    targets: tuple[TrafficTarget, ...] = ()
    """The targets to restore, for the traffic alone; LATEST is not yet pinned."""


def decide_traffic(
    found: TrafficState,
    *,
    targets: tuple[TrafficTarget, ...],
    captured: TrafficState,
    own_states: Sequence[tuple[TrafficTarget, ...]],
    write_outcome_unknown: bool,
    wait: float,
) -> Decision:
    """Return the decision about the split.

    Args:
        found: The split now.
        targets: The targets to restore.
        captured: The split before the train's first change.
        own_states: Every split that the train captured or asked for.
        write_outcome_unknown: True if a write may still take effect.
        wait: Seconds until the last such write has expired.
    """
    if not any(found.splits_as(rows) for rows in own_states):
        return Decision(
            action=Action.REFUSE,
            why="production has moved on: somebody else has changed it, and recovery changed nothing",
        )
    why = "it is what this train had asked for"
    if not any(found.asks_for(rows) for rows in own_states):
        targets, why = (
            _with_tags_of(found, targets),
            "the percentages are this train's, but the tags are not: the tags stay",
        )
    goal, pinned = pin_latest_if_changed(targets, captured=captured, found=found)
    if mismatch_reason(found, goal):
        return Decision(action=Action.WRITE, why=why, targets=targets)
    if write_outcome_unknown:
        return _with_unknown_write(wait, targets=targets)
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
    """Return the decision about the overrides.

    Args:
        found: Each state that a sample of the instances saw.
        values: The (route key, override) pairs to restore.
        own_states: Every pair that the train captured or asked for. A clear override always counts as such a pair: an
            instance that started later has no override.
        write_outcome_unknown: True if a write may still take effect.
        wait: Seconds until the last such write has expired.
    """
    if any((key, state.get(key)) not in {(key, None), *own_states} for state in found for key, _ in values):
        return Decision(
            action=Action.REFUSE,
            why="production has moved on: somebody else has changed it, and recovery changed nothing",
        )
    if not all(state.holds(values) for state in found):
        return Decision(action=Action.WRITE, why="it is what this train had asked for")
    if write_outcome_unknown:
        return _with_unknown_write(wait)
    return Decision(action=Action.CLOSE, why="it is as it should be")


def _with_unknown_write(wait: float, *, targets: tuple[TrafficTarget, ...] = ()) -> Decision:
    """Return the decision where production is as captured, but a write without an answer may still take effect."""
    if wait:
        why = f"it is as it should be, but a write without an answer may still take effect: waiting {wait:.0f} s"
        return Decision(action=Action.WAIT, why=why, targets=targets)
    why = "it is as it should be, and is written once more, because a write without an answer may still take effect"
    return Decision(action=Action.WRITE, why=why, targets=targets)


def _with_tags_of(found: TrafficState, targets: Sequence[TrafficTarget]) -> tuple[TrafficTarget, ...]:
    rows = (TrafficTarget(revision=row.revision, percent=row.percent) for row in targets if row.percent)
    tags = (TrafficTarget(revision=row.revision, tag=row.tag) for row in found.targets if row.tag)
    return (*rows, *tags)
