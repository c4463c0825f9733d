"""The stream smoke: it probes every alias against the contract, side by side, each on a thread of its own; ``smoke_looks.py`` says when it passes."""

import enum
from collections.abc import Callable

import attrs

from cutover.model import step_ids
from cutover.model.results import StepResult, StepStatus
from cutover.production.services import Services
from cutover.train.canary_evidence import names_others
from cutover.train.smoke_looks import LOST_BY_CHANCE, ask
from cutover.train.step_recorder import StepRecorder


class Phase(enum.Enum):
    """The phase of the train in which the smoke runs."""

    PRE = "pre-cutover"
    POST = "post-cutover"
    UNDONE = "after-undo"

    @property
    def step_id(self) -> str:
        """The step id of this phase."""
        match self:
            case Phase.PRE:
                return step_ids.SMOKE_PRE
            case Phase.POST:
                return step_ids.SMOKE_POST
            case Phase.UNDONE:
                return step_ids.SMOKE_UNDONE


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the smoke."""

    phase: Phase
    most_failed: float
    """The part of the turns, between 0 and 1, that chance explains if they fail on their way."""
    only: str | None = None
    """The one revision that may answer, by the header; None: any."""
    judge_turn: Callable[[float, StepRecorder], None] | None = None
    """Called with the seconds of the longest turn; it may record checks. None: turns may take any time."""


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> StepResult:
    """Probe every alias of the lane; record one check for each."""
    prober = services.prober
    asked = await ask(prober, services.clock, label=plan.phase.step_id, most_failed=plan.most_failed)
    for name, log in asked.logs.items():
        check_id = f"{plan.phase.value}-{name}"
        if asked.passed and log.bad:
            recorder.judged_check(check_id, log, StepStatus.PASS, LOST_BY_CHANCE)
        else:
            recorder.stream_check(check_id, log)
    if plan.only is not None and (why := names_others(prober.revision_header, asked.named, stable=plan.only)):
        recorder.check("revisions", StepStatus.ERROR, why, tolerable=False)
    if plan.judge_turn is not None and asked.passed:
        plan.judge_turn(max(probe.elapsed for probe in asked.last), recorder)
    blind = (
        f"; no reply has the header {prober.revision_header}: is REVISION_HEADER correct?"
        if prober.revision_header and not asked.named
        else ""
    )
    count = len(asked.logs)
    return recorder.finish(
        f"every alias keeps the contract ({count} of {count}){blind}",
        facts={
            "phase": plan.phase.value,
            "revisions": sorted(asked.named),
            "first_event_seconds": [probe.report.timings.first_event for probe in asked.last],
        },
    )
