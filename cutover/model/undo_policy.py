"""The undo policy: the action of every way back for each state that production can show. Pure functions, one table.

A drill's rollback, a train's undo and ``cutover recover`` all ask this policy, and ``train/undo_executor.py`` carries its decision out.

| production shows | decision |
|---|---|
| the state to restore, and no write can still take effect | close |
| the state to restore, and an earlier write may still take effect | wait until that write has expired, then write once more |
| a split of this train, with tags of somebody else | write the percentages, keep these tags, take the train's own away |
| any other state of this train, even one whose change failed | write the state to restore |
| LATEST would release an untested revision | write the captured revision by its name (LATEST is pinned); an operator decides |
| LATEST, which somebody has asked for again and which now is another revision than the captured one | change nothing; an operator decides |
| a state of somebody else | change nothing; an operator decides. Overrides are decided key by key |
| nothing: it cannot be read | recovery changes nothing. The train that made the changes writes: it knows what it asked for last |

A state of this train is a state that the train captured or asked for (``own_states``). With ``--accept-found`` or ``--restore-captured``
the operator decides instead.
"""

import enum
from collections.abc import Collection, Sequence
from typing import Literal

import attrs

from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason, pin_latest_if_changed

RecoveryMode = Literal["finish", "revert", "accept-found", "restore-captured"]
"""The way to recover a run.

``finish`` finishes the undo of a killed train. ``revert`` undoes a completed cutover too. ``accept-found`` closes a run
and accepts the state of production, even if that state cannot be read. ``restore-captured`` writes the captured state
over any other state, after a completed cutover too.
"""

REASONS: dict[RecoveryMode, str] = {
    "finish": "recovered",
    "revert": "reverted",
    "accept-found": "the state that was found was accepted",
    "restore-captured": "the captured state was restored",
}
UNRESOLVED = "a recovery could not finish, and an operator must act"
"""The reason of a verdict of a recovery that did not close the run."""
MOVED_ON = "production has moved on: somebody else has changed it"
"""The reason why a state of somebody else is left alone."""


def closed_by_recovery(reasons: Collection[str], *, proven: bool) -> str:
    """Return how a recovery closed a run, as a reason of its verdict says; empty if none did. ``proven`` is the proof of the last undo."""
    return next((reason for reason in reasons if reason in REASONS.values()), "") if proven else ""


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
    values: tuple[tuple[str, str | None], ...] = ()
    """The (route key, override) pairs to restore, for the routes alone: those that nobody else has changed."""
    moved_on: tuple[str, ...] = ()
    """The route keys that somebody else has changed. They stay as they are."""
    pinned: bool = False
    """True if nothing but LATEST is left to restore, and it stands for an untested revision now."""


def decide_traffic(
    found: TrafficState,
    *,
    targets: tuple[TrafficTarget, ...],
    captured: TrafficState,
    own_states: Sequence[tuple[TrafficTarget, ...]],
    given_tags: Collection[tuple[str | None, str]] = (),
    write_outcome_unknown: bool,
    wait: float,
) -> Decision:
    """Return the decision about the split.

    Args:
        found: The split now.
        targets: The targets to restore.
        captured: The split before the train's first change.
        own_states: Every split that the train captured or asked for.
        given_tags: The (revision, tag) pairs that the train itself added. They are taken away, and all other tags stay.
        write_outcome_unknown: True if a write may still take effect.
        wait: Seconds to wait for the end of that write before another one is sent.
    """
    # The same rows can be somebody else's release: LATEST, and a newer revision behind it.
    released = found.asks_for_latest and found.latest_ready != captured.latest_ready
    if not any(found.splits_as(rows) for rows in own_states) or (released and not found.splits_as(targets)):
        return Decision(action=Action.REFUSE, why=MOVED_ON)
    why = "this train made the state that was found"
    tags = found.tags - set(given_tags)
    if tags != captured.tags:
        targets, why = (
            _with_tags(tags, targets),
            "the percentages are from this train, but the tags are not: the tags stay",
        )
    goal, pinned = pin_latest_if_changed(targets, captured=captured, found=found)
    if mismatch_reason(found, goal):
        return Decision(action=Action.WRITE, why=why, targets=targets)
    if write_outcome_unknown:
        return attrs.evolve(_with_unknown_write(wait), targets=targets)
    if pinned:
        return Decision(action=Action.REFUSE, why=pinned, targets=targets, pinned=True)
    return Decision(action=Action.CLOSE, why="production is as it should be", targets=targets)


def decide_routes(
    found: Sequence[RouteState],
    *,
    values: Sequence[tuple[str, str | None]],
    own_states: Sequence[tuple[str, str | None]],
    write_outcome_unknown: bool,
    wait: float,
) -> Decision:
    """Return the decision about the overrides, key by key: a key that somebody else has changed stays as it is.

    Args:
        found: Each state that a sample of the instances saw.
        values: The (route key, override) pairs to restore.
        own_states: Every pair that the train captured or asked for. A clear override always counts as such a pair: an
            instance that started later has no override.
        write_outcome_unknown: True if a write may still take effect.
        wait: Seconds to wait for the end of that write before another one is sent.
    """
    moved_on = keys_of_others(found, keys=[key for key, _ in values], own_states=own_states)
    ours = tuple((key, value) for key, value in values if key not in moved_on)
    as_wanted = all(state.holds(ours) for state in found)
    if moved_on and as_wanted and not (write_outcome_unknown and wait):
        return Decision(action=Action.REFUSE, why=MOVED_ON, moved_on=moved_on)
    if not as_wanted:
        why = "this train made the state that was found"
        if moved_on:
            why = (
                f"somebody else has changed {', '.join(moved_on)}, which stays; the rest is this train's own"
            )
        return Decision(action=Action.WRITE, why=why, values=ours, moved_on=moved_on)
    if write_outcome_unknown:
        return attrs.evolve(_with_unknown_write(wait), values=ours, moved_on=moved_on)
    return Decision(action=Action.CLOSE, why="production is as it should be")


def keys_of_others(
    found: Sequence[RouteState], *, keys: Sequence[str], own_states: Sequence[tuple[str, str | None]]
) -> tuple[str, ...]:
    """Return the route keys that hold, in one of the found states, an override that this train neither captured nor asked for."""
    own = set(own_states)
    return tuple(
        key
        for key in dict.fromkeys(keys)
        if any((key, state.get(key)) not in {(key, None), *own} for state in found)
    )


def decide_unread(
    why: str,
    *,
    targets: tuple[TrafficTarget, ...] = (),
    values: tuple[tuple[str, str | None], ...] = (),
    knows_last: bool,
) -> Decision:
    """Return the decision about a part that cannot be read.

    Args:
        why: The reason why it cannot be read.
        targets: The targets to restore, for the traffic.
        values: The (route key, override) pairs to restore, for the routes.
        knows_last: True if this process made the changes, and so knows the last state that it read or asked for.
    """
    if knows_last:
        why = f"production could not be read ({why}), but this train itself made the last change"
        return Decision(action=Action.WRITE, why=why, targets=targets, values=values)
    return Decision(
        action=Action.REFUSE, why=f"production could not be read, and was not changed: {why}", targets=targets
    )


def decide_for(mode: RecoveryMode, decision: Decision, *, read: bool, wait: float) -> Decision:
    """Return the decision in this mode: ``accept-found`` and ``restore-captured`` replace the policy's decision.

    With ``accept-found``, recovery first waits for a write that may still take effect. A ``revert`` of a completed cutover writes all
    overrides or none: half of it would be a state that nobody asked for.
    """
    if mode == "revert" and decision.moved_on and decision.action is Action.WRITE:
        return attrs.evolve(decision, action=Action.REFUSE, why=MOVED_ON)
    if mode == "accept-found":
        if wait:
            why = f"an earlier write may still take effect: waiting {wait:.0f} s"
            return attrs.evolve(decision, action=Action.WAIT, why=why)
        state = "that was found" if read else "UNSEEN: it could not be read, so nobody knows it"
        return attrs.evolve(decision, action=Action.ACCEPT, why=f"an operator accepts the state {state}")
    if mode == "restore-captured" and decision.action is not Action.WAIT:
        why = "an operator wants the captured state, whatever the state is now"
        return attrs.evolve(decision, action=Action.WRITE, why=why, moved_on=(), pinned=False)
    return decision


def _with_unknown_write(wait: float) -> Decision:
    """Return the decision where production is as it should be, but an earlier write may still take effect."""
    if wait:
        why = (
            f"production is as it should be, but an earlier write may still take effect: waiting {wait:.0f} s"
        )
        return Decision(action=Action.WAIT, why=why)
    why = "production is as it should be, and is written once more, because the effect of an earlier write is not certain"
    return Decision(action=Action.WRITE, why=why)


def _with_tags(
    tags: Collection[tuple[str | None, str]], targets: Sequence[TrafficTarget]
) -> tuple[TrafficTarget, ...]:
    rows = (TrafficTarget(revision=row.revision, percent=row.percent) for row in targets if row.percent)
    # Sorted for a stable order; a tag of LATEST has no revision.
    ordered = sorted(tags, key=lambda pair: (pair[1], pair[0] or ""))
    return (*rows, *(TrafficTarget(revision=revision, tag=tag) for revision, tag in ordered))
