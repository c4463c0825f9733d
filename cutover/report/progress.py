"""The progress of a train, computed from its events: the steps, the traffic split, the line of the latest event."""

import attrs

from cutover.model import step_ids
from cutover.model.holds import place
from cutover.model.traffic_state import describe_shares, shares
from cutover.model.train_events import (
    Decided,
    DecisionTaken,
    Interrupted,
    RouteIntended,
    RoutesRead,
    StepFinished,
    StepStarted,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    UndoFinished,
    UndoStarted,
    Waiting,
)
from cutover.report.terminal import line_of

UNDO = "undo"
"""The name of the row of the undo, beside the ids of the steps."""
RUNNING, STOPPED = "running", "stopped"
"""The status of a row that has not ended, and of one that was cut off."""


_FIRST = {
    step_ids.PREFLIGHT: "answers of the service and of Cloud Run",
    step_ids.ERROR_BUDGET: "the error budget",
    step_ids.SMOKE_PRE: "the end of a stream at every alias",
    step_ids.DRILL: "the canary's own URL",
    step_ids.FLIP: "the routes of every instance",
    step_ids.PROMOTION: "the split as the drill left it",
    step_ids.SMOKE_POST: "the end of a stream at every alias",
    step_ids.SMOKE_UNDONE: "the end of a stream at every alias",
    step_ids.DUAL_RUN: "the answers of both services",
    step_ids.FINAL_STATE: "a last read of routes and traffic",
}
"""Step -> what it waits for first, in words."""


@attrs.define(eq=False)
class Progress:
    """The progress so far."""

    steps: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """Status and detail of each step and of the undo, in the order in which they started or were skipped."""
    split: str = "not read yet"
    """The traffic split that was read last."""
    last: str = ""
    """The line of the latest event that has one."""
    _awaited: dict[str, str] = attrs.field(factory=dict)
    """Row -> what it waits for, in words."""
    _mover: str = UNDO
    """The row that changed the traffic or an override last."""

    @property
    def running(self) -> tuple[str, ...]:
        """The steps that run now, and the undo if it runs."""
        return tuple(name for name, (status, _) in self.steps.items() if status == RUNNING)

    @property
    def waits_for(self) -> str:
        """The things that the running rows wait for, in words; empty if that is not known."""
        found = (self._awaited.get(name, "") for name in self.running)
        return ", and ".join(dict.fromkeys(filter(None, found)))

    def observe(self, event: TrainEvent) -> None:
        """Take in one train event."""
        self._await(event)
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
                self._undo(RUNNING, f"{event.part}: {event.action}, {event.why}")
            case UndoFinished():
                self._undo("pass" if event.proven else "fail", event.detail)
            case _:
                pass
        self.last = line_of(event) or self.last

    def _await(self, event: TrainEvent) -> None:
        """Note the thing that a row waits for after this event."""
        match event:
            case StepStarted():
                self._awaited[event.step_id] = _FIRST.get(event.step_id, "")
            case TrafficIntended():
                self._mover = event.step_id
                self._awaited[self._mover] = f"the split {describe_shares(shares(event.wanted, latest=None))}"
            case TrafficRead() if event.proven:
                self._awaited[self._mover] = "the streams that watch the new split"
            case RouteIntended():
                self._mover = event.step_id
                self._awaited[self._mover] = "the overrides of every instance"
            case RoutesRead() if event.proven:
                self._awaited[self._mover] = "the streams and reads that watch the new routes"
            case Waiting():
                self._awaited[event.step_id] = (
                    f"a decision {place(event.hold)} until {event.until[11:19]}: {event.decide}"
                )
            case DecisionTaken():
                self._awaited[event.step_id] = "the streams that began before the decision"
            case UndoStarted():
                self._awaited[UNDO] = "the captured state"
            case _:
                pass

    def _undo(self, status: str, detail: str) -> None:
        """Add one sentence to the row of the undo. A second undo, or a second look, adds to the first one."""
        before = self.steps.get(UNDO, ("", ""))[1]
        self.steps[UNDO] = (status, f"{before}; {detail}" if before else detail)
