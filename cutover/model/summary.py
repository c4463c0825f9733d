"""The summary of a run, computed from its train events alone."""

from collections.abc import Mapping, Sequence

import attrs
import msgspec

from cutover.model import step_ids
from cutover.model.gates import JUDGED_NOTHING, Ceilings, Gate, judge
from cutover.model.holds import Hold, holds_of
from cutover.model.results import USERS, Check, SentinelTally, StepResult, StepStatus
from cutover.model.train_events import (
    BudgetRead,
    CheckRecorded,
    Interrupted,
    StepFinished,
    StepStarted,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
)
from cutover.model.undo_policy import closed_by_recovery

MOST_CAUSES = 5
"""Largest number of failed checks that the first lines of a summary name."""
_INTERRUPTED = "it was interrupted"
_NO_RESULT = "it has no result in the journal"


@attrs.frozen(kw_only=True)
class CutoverSummary:
    """The summary of a run: its steps, gates, undo and verdict."""

    facts: Mapping[str, object]
    """The configuration without its secrets."""
    steps: tuple[StepResult, ...]
    """The steps, in the order in which they finished."""
    gates: tuple[Gate, ...]
    passed: bool
    """True if the verdict is GO: all gates hold, the routes are as asked for, and the traffic is as captured."""
    exit_code: int
    """Exit code of the command; 4 if an undo could not be proven, or if the run has no verdict."""
    reasons: tuple[str, ...]
    """Reasons why the run did not pass."""
    undo: UndoFinished | None
    """The end of the undo; None if no undo has ended."""
    interrupted: str | None
    """Name of the exception that interrupted the run; None if none did."""
    budget_readings: tuple[BudgetRead, ...]
    """The readings of the error budget in order; empty if the train did not measure it."""
    started_at: str
    holds: tuple[Hold, ...]
    """The waits for an operator's decision, in order."""
    finished_at: str
    """Time of the verdict; empty if the run never reached one."""

    @property
    def overall_status(self) -> str:
        """``passed`` or ``failed``."""
        return "passed" if self.passed else "failed"

    @property
    def closed_by_recovery(self) -> str:
        """The way in which a recovery closed the run, in words: ``reverted``; empty if none did."""
        return closed_by_recovery(self.reasons, proven=self.undo is None or self.undo.proven)

    @property
    def sentinels(self) -> tuple[SentinelTally, ...]:
        """The tallies of the sentinel streams, change by change."""
        return tuple(tally for step in self.steps for tally in step.sentinels)

    @property
    def blind_drill(self) -> bool:
        """True if a share of the canary passed although no stream is known to have been answered by the canary."""
        moved = (self.step(step_id) for step_id in (step_ids.DRILL, step_ids.PROMOTION))
        return any(step is not None and step.facts.get("blind") is True for step in moved)

    @property
    def claims(self) -> tuple[tuple[str, str], ...]:
        """(check, the claim about the canary that its turns allow), for each share that was judged."""
        judged = (step.facts.get("judgement") for step in self.steps)
        return tuple(
            (check, str(facts["claim"]))
            for shares in judged
            if isinstance(shares, Mapping)
            for check, facts in shares.items()
        )

    @property
    def user_claims(self) -> tuple[tuple[str, str], ...]:
        """(check, the claim about the canary that the requests of real users allow), for each share at which they were read."""
        return tuple(
            (check.check_id, check.detail)
            for step in self.steps
            for check in step.checks
            if check.kind == USERS
        )

    @property
    def judged_nothing(self) -> bool:
        """True if the run proves nothing, for or against the canary; production is then as the run found it."""
        return self.exit_code == JUDGED_NOTHING

    @property
    def cut_off(self) -> tuple[str, ...]:
        """The ids of the steps that started and never ended. Each has the status ``error``, because its evidence is incomplete."""
        return tuple(step.step_id for step in self.steps if step.detail in {_INTERRUPTED, _NO_RESULT})

    @property
    def causes(self) -> tuple[str, ...]:
        """The first ``MOST_CAUSES`` failed checks in words, and the number of the others; none for a run that passed."""
        if self.passed:
            return ()
        failed = [
            f"{step.step_id}, {check.check_id}: {check.detail}"
            for step in self.steps
            for check in step.checks
            if check.status.failed
        ]
        more = len(failed) - MOST_CAUSES
        return (*failed[:MOST_CAUSES], *([f"{more} more, in the steps"] if more > 0 else []))

    def step(self, step_id: str) -> StepResult | None:
        """Return the result of one step; None if the step neither started nor was skipped."""
        return next((step for step in self.steps if step.step_id == step_id), None)

    def gate(self, name: str) -> Gate:
        """Return a gate by its name.

        Raises:
            KeyError: No gate has this name.
        """
        return {gate.name: gate for gate in self.gates}[name]


def fold(events: Sequence[TrainEvent]) -> CutoverSummary:
    """Return the summary of a run from its events."""
    facts: Mapping[str, object] = {}
    steps: list[StepResult] = []
    open_steps: dict[str, list[Check]] = {}
    undo: UndoFinished | None = None
    finished: TrainFinished | None = None
    interrupted: str | None = None
    readings: list[BudgetRead] = []
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
            case BudgetRead():
                readings.append(event)
            case Interrupted():
                interrupted = event.cause
            case UndoFinished():
                undo = event
            case TrainFinished():
                finished = event
            case _:
                pass
    cut_off = _NO_RESULT if interrupted is None else _INTERRUPTED
    steps += [
        StepResult(step_id=step_id, status=StepStatus.ERROR, detail=cut_off, checks=tuple(checks))
        for step_id, checks in open_steps.items()
    ]
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
        budget_readings=tuple(readings),
        started_at=events[0].at if events else "",
        holds=holds_of(events),
        finished_at=finished.at if finished else "",
    )
