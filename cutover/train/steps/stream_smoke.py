"""The stream smoke: it probes every alias against the contract, side by side, each on a thread of its own."""

import enum
from collections.abc import Callable

import attrs

from cutover.model import step_ids
from cutover.model.results import StepResult, StepStatus
from cutover.production.lane_prober import LaneProber
from cutover.train.canary_evidence import names_others
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
    only: str | None = None
    """The one revision that may answer, by the header; None: any."""
    judge_turn: Callable[[float, StepRecorder], None] | None = None
    """Called with the seconds of the longest turn; it may record checks. None: turns may take any time."""


async def run(plan: Plan, prober: LaneProber, recorder: StepRecorder) -> StepResult:
    """Probe every alias of the lane; record one check for each."""
    label = plan.phase.step_id
    probes = await prober.probe_all(label=label)
    for alias, probe in zip(prober.aliases, probes, strict=True):
        recorder.stream_check(f"{plan.phase.value}-{alias.name}", [probe])
    named = prober.revisions(probes)
    if plan.only is not None and (why := names_others(prober.revision_header, named, stable=plan.only)):
        recorder.check("revisions", StepStatus.ERROR, why, tolerable=False)
    if plan.judge_turn is not None and all(probe.ok for probe in probes):
        plan.judge_turn(max(probe.elapsed for probe in probes), recorder)
    blind = (
        f"; no reply has the header {prober.revision_header}: is REVISION_HEADER correct?"
        if prober.revision_header and not named
        else ""
    )
    return recorder.finish(
        f"every alias keeps the contract ({len(probes)} of {len(probes)}){blind}",
        facts={
            "phase": plan.phase.value,
            "revisions": sorted(named),
            "first_event_seconds": [probe.report.timings.first_event for probe in probes],
        },
    )
