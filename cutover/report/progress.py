"""The progress of a train, computed from its events: the steps, the traffic split, the line of the latest event."""

import attrs

from cutover.model.traffic_state import describe_shares
from cutover.model.train_events import (
    Decided,
    Interrupted,
    StepFinished,
    StepStarted,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    UndoFinished,
    UndoStarted,
)
from cutover.report.terminal import action_in_words, line_of

UNDO = "undo"
"""The name of the row of the undo, beside the ids of the steps."""
RUNNING, STOPPED = "running", "stopped"
"""The status of a row that has not ended, and of one that was cut off."""


@attrs.define(eq=False)
class Progress:
    """The progress so far."""

    steps: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """Status and detail of each step and of the undo, in the order in which they started or were skipped."""
    split: str = "not read yet"
    """The traffic split that was read last."""
    last: str = ""
    """The line of the latest event that has one."""

    @property
    def running(self) -> tuple[str, ...]:
        """The steps that run now, and the undo if it runs."""
        return tuple(name for name, (status, _) in self.steps.items() if status == RUNNING)

    def observe(self, event: TrainEvent) -> None:
        """Take in one train event."""
        match event:
            case StepStarted():
                self.steps[event.step_id] = (RUNNING, "")
            case StepFinished():
                self.steps[event.result.step_id] = (event.result.status.value, event.result.detail)
            case TrafficIntended():
                self.split = (
                    describe_shares(event.captured.served()) if self.split == "not read yet" else self.split
                )
            case TrafficRead():
                self.split = describe_shares(event.found.served())
            case Interrupted() | TrainFinished():
                # A cancelled step has no end of its own.
                for name in self.running:
                    self.steps[name] = (STOPPED, self.steps[name][1])
            case UndoStarted():
                self._undo(RUNNING, event.reason)
            case Decided():
                self._undo(RUNNING, f"{event.part}: {action_in_words(event)}, {event.why}")
            case UndoFinished():
                self._undo("pass" if event.proven else "fail", event.detail)
            case _:
                pass
        self.last = line_of(event) or self.last

    def _undo(self, status: str, detail: str) -> None:
        """Add one sentence to the row of the undo. A second undo, or a second look, adds to the first one."""
        before = self.steps.get(UNDO, ("", ""))[1]
        self.steps[UNDO] = (status, f"{before}; {detail}" if before else detail)
