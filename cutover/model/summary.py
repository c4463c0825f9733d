"""The summary of a run: a fold over its train events, and nothing else."""

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from cutover.model.gates import Ceilings, Gate, judge
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus
from cutover.model.train_events import (
    CheckRecorded,
    Interrupted,
    StepFinished,
    StepStarted,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
)


@attrs.frozen(kw_only=True)
class CutoverSummary:
    """What a run did, found and decided."""

    facts: Mapping[str, object]
    """The configuration without its secrets."""
    steps: tuple[StepResult, ...]
    """In the order in which they finished."""
    gates: tuple[Gate, ...]
    passed: bool
    """Whether all gates hold: the routes are as asked for, the traffic is as it was captured."""
    exit_code: int
    """As the command exits; 4 where an undo could not be proven."""
    reasons: tuple[str, ...]
    """Why it did not pass."""
    undo: UndoFinished | None
    """What became of the undo, where one was needed."""
    interrupted: str | None
    started_at: str
    finished_at: str
    """When the verdict was reached; empty where the run never got there."""

    @property
    def overall_status(self) -> str:
        """``passed`` or ``failed``."""
        return "passed" if self.passed else "failed"

    @property
    def sentinels(self) -> tuple[SentinelTally, ...]:
        """What the sentinel streams saw, change by change."""
        return tuple(tally for step in self.steps for tally in step.sentinels)

    def step(self, step_id: str) -> StepResult | None:
        """Return what became of one step."""
        return next((step for step in self.steps if step.step_id == step_id), None)

    def gate(self, name: str) -> Gate:
        """Return one gate.

        Raises:
            KeyError: There is none of this name.
        """
        return {gate.name: gate for gate in self.gates}[name]


def fold(events: Sequence[TrainEvent]) -> CutoverSummary:
    """Fold a run's events into its summary."""
    facts: Mapping[str, object] = {}
    steps: list[StepResult] = []
    open_steps: dict[str, list[Check]] = {}
    undo: UndoFinished | None = None
    finished: TrainFinished | None = None
    interrupted: str | None = None
    for event in events:
        match event:
            case TrainStarted():
                facts = event.facts
            case StepStarted():
                open_steps[event.step_id] = []
            case CheckRecorded():
                open_steps.setdefault(event.step_id, []).append(event.check)
            case StepFinished():
                open_steps.pop(event.result.step_id, None)
                steps.append(event.result)
            case Interrupted():
                interrupted = event.cause
            case UndoFinished():
                undo = event
            case TrainFinished():
                finished = event
            case _:
                pass
    steps += [_cut_off(step_id, checks) for step_id, checks in open_steps.items()]
    ceilings = msgspec.convert(facts.get("ceilings", {}), Ceilings)
    return CutoverSummary(
        facts=facts,
        steps=tuple(steps),
        gates=judge(steps, ceilings),
        passed=finished is not None and finished.passed,
        exit_code=finished.exit_code if finished else 4,
        reasons=finished.reasons if finished else ("the run was cut off; recover it",),
        undo=undo,
        interrupted=interrupted,
        started_at=events[0].at if events else "",
        finished_at=finished.at if finished else "",
    )


def _cut_off(step_id: str, checks: Sequence[Check]) -> StepResult:
    """A step that began and never ended has no evidence to show, whatever its checks said so far."""
    return StepResult(
        step_id=step_id, status=StepStatus.ERROR, detail="it was interrupted", checks=tuple(checks)
    )
