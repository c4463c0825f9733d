"""The holds of a train: the places where it waits for an operator's decision, and what came of each wait."""

from collections.abc import Iterable, Sequence

import attrs

from cutover.model.results import Check
from cutover.model.train_events import (
    CheckRecorded,
    DecisionTaken,
    Interrupted,
    StepFinished,
    TakenOver,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoStarted,
    Waiting,
)

GO, STOP = "go", "stop"
"""The answers of a decision."""
ANSWERS = (GO, STOP)
FLIP = "flip"
"""The hold before the first override is set."""
PROMOTE = "promote"
"""The hold before the promotion gives the canary all traffic."""
NAMED_HOLDS = (FLIP, PROMOTE)
"""The holds that are no share of the canary."""
CHECK_KIND = "hold"
"""The ``kind`` of a hold's check that tells the decision, or that none came. A fault that ended the wait has another kind."""


def check_id(hold: str) -> str:
    """Return the id of the check that ends a hold."""
    return f"hold-{hold}"


def place(hold: str) -> str:
    """Return a hold in words."""
    return f"at {hold} %" if hold.isdecimal() else f"before the {'promotion' if hold == PROMOTE else hold}"


@attrs.frozen(kw_only=True)
class Hold:
    """One hold of a train: the wait, the decision, and the check that ended it."""

    waiting: Waiting
    decision: DecisionTaken | None = None
    """None until a decision comes, and for a wait that ended without one."""
    check: Check | None = None
    """The check that ended the hold; None while the train waits, and for a train that was cut off."""

    @property
    def refused(self) -> str:
        """The reason why the train did not go on, if a decision or the lack of one is the reason; else empty."""
        check = self.check
        if check is None or not check.status.failed or check.kind != CHECK_KIND:
            return ""
        return f"hold {place(self.waiting.hold)}: {check.detail}"


def holds_of(events: Iterable[TrainEvent]) -> tuple[Hold, ...]:
    """Return the holds of a train, in order."""
    found: list[Hold] = []
    for event in events:
        match event:
            case TrainStarted():
                found = []
            case Waiting():
                found.append(Hold(waiting=event))
            case DecisionTaken() if found and event.wait == found[-1].waiting.wait:
                found[-1] = attrs.evolve(found[-1], decision=event)
            case CheckRecorded() if found and _ends(found[-1], event):
                found[-1] = attrs.evolve(found[-1], check=event.check)
            case _:
                pass
    return tuple(found)


def open_wait(events: Sequence[TrainEvent]) -> Waiting | None:
    """Return the wait that no decision, no fault and no end has closed yet; None if there is none."""
    waiting: Waiting | None = None
    for event in events:
        match event:
            case Waiting():
                waiting = event
            case DecisionTaken() | Interrupted() | TakenOver() | UndoStarted() | TrainFinished():
                waiting = None
            case StepFinished() if waiting is not None and event.result.step_id == waiting.step_id:
                waiting = None
            case CheckRecorded() if waiting is not None and _ends(Hold(waiting=waiting), event):
                waiting = None
            case _:
                pass
    return waiting


def refused_holds(events: Iterable[TrainEvent]) -> tuple[str, ...]:
    """Return the reasons why a train did not go on after a hold; empty if each hold ended with ``go``, or with a fault."""
    return tuple(hold.refused for hold in holds_of(events) if hold.refused)


def _ends(hold: Hold, event: CheckRecorded) -> bool:
    waiting = hold.waiting
    return (
        hold.check is None
        and event.step_id == waiting.step_id
        and event.check.check_id == check_id(waiting.hold)
    )
