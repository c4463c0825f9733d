"""The course of each part of production through a train: its state now, the states that the train plans, the state that comes back. Pure."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import attrs

from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, shares

State = TypeVar("State")
_ALL = 100


@attrs.frozen(kw_only=True)
class Course(Generic[State]):
    """The states of one part of production, ready for JSON."""

    current: State
    planned: tuple[State, ...] = ()
    """The states that the train gives this part, in order; empty if the train does not change it."""
    restored: State
    """The state after an undo. The drill restores the traffic and the tags by itself."""


def traffic_course(
    captured: TrafficState, *, stable: str, canary: str, percents: Sequence[int], promoted: bool = False
) -> Course[Mapping[str, int]]:
    """Return the course of the split: revision -> percent, where ``LATEST`` stands for the revision that became ready last.

    Args:
        captured: The traffic now.
        stable: The revision that serves now.
        canary: The revision that the drill tries.
        percents: The shares of the canary, in the order of the drill.
        promoted: True if the train gives the canary everything in the end.
    """
    steps = [{stable: _ALL - percent, canary: percent} for percent in percents]
    # The rollback of the drill, and after it the promotion.
    steps += [{stable: _ALL}, *([{canary: _ALL}] if promoted else [])]
    return Course(
        current=shares(captured.targets, latest=None),
        planned=tuple({name: part for name, part in step.items() if part} for step in steps),
        restored=shares(captured.restorable_targets, latest=None),
    )


def tag_course(captured: TrafficState, *, canary: str, given: str | None) -> Course[Mapping[str, str]]:
    """Return the course of the tags: tag -> revision. ``given`` is the tag that the drill gives the canary; None if it gives none."""
    current = {tag: revision or "LATEST" for revision, tag in sorted(captured.tags, key=lambda row: row[1])}
    planned = ({**current, given: canary}, current) if given else ()
    return Course(current=current, planned=planned, restored=current)


def override_courses(
    captured: RouteState, wanted: Mapping[str, str | None] | None
) -> Mapping[str, Course[str | None]]:
    """Return the course of each override, by its route key.

    Args:
        captured: The overrides now.
        wanted: The overrides that the flip sets; None if it only verifies.
    """
    return {
        key: Course(
            current=value,
            planned=(wanted[key],) if wanted is not None and wanted.get(key, value) != value else (),
            restored=value,
        )
        for key, value in captured.overrides
    }
