"""The stream smoke: every alias, side by side, each on a thread of its own, against the contract."""

import enum

import attrs

from cutover.model import step_ids
from cutover.model.results import StepResult
from cutover.production.lane_prober import LaneProber
from cutover.train.step_recorder import StepRecorder


class Phase(enum.Enum):
    """When the smoke runs."""

    PRE = "pre-cutover"
    POST = "post-cutover"
    UNDONE = "after-undo"

    @property
    def step_id(self) -> str:
        """The id of the step of this phase."""
        match self:
            case Phase.PRE:
                return step_ids.SMOKE_PRE
            case Phase.POST:
                return step_ids.SMOKE_POST
            case Phase.UNDONE:
                return step_ids.SMOKE_UNDONE


@attrs.frozen(kw_only=True)
class Plan:
    """Which phase."""

    phase: Phase


async def run(plan: Plan, prober: LaneProber, recorder: StepRecorder) -> StepResult:
    """Probe every alias of the lane at once; one row each."""
    label = plan.phase.step_id
    probes = await prober.probe_all(label=label)
    for alias, probe in zip(prober.aliases, probes, strict=True):
        recorder.stream_check(f"{plan.phase.value}-{alias.name}", [probe])
    named = {name for probe in probes if (name := prober.revision(probe))}
    blind = (
        f"; no reply has the header {prober.revision_header}: is it mistyped?"
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
