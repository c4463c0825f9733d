"""The stream smoke: every alias, side by side, each on a thread of its own, against the contract."""

import enum

import attrs

from cutover.model.results import StepResult
from cutover.production.lane_prober import LaneProber
from cutover.train.step_recorder import StepLog


class Phase(enum.Enum):
    """When the smoke runs."""

    PRE = "pre-cutover"
    POST = "post-cutover"
    UNDONE = "after-undo"

    @property
    def step_id(self) -> str:
        """The id of the step of this phase."""
        return {"pre-cutover": "stream-smoke-pre", "post-cutover": "stream-smoke-post"}.get(
            self.value, "stream-smoke-undone"
        )


@attrs.frozen(kw_only=True)
class Plan:
    """Which phase."""

    phase: Phase


async def run(plan: Plan, prober: LaneProber, log: StepLog) -> StepResult:
    """Probe every alias of the lane at once; one row each."""
    label = plan.phase.step_id
    probes = await prober.probe_all(label=label)
    for alias, probe in zip(prober.aliases, probes, strict=True):
        log.stream_check(f"{plan.phase.value}-{alias.name}", [probe])
    named = {name for probe in probes if (name := prober.revision(probe))}
    blind = (
        f"; no reply has the header {prober.revision_header}: is it mistyped?"
        if prober.revision_header and not named
        else ""
    )
    return log.finish(
        f"every alias keeps the contract ({len(probes)} of {len(probes)}){blind}",
        facts={
            "phase": plan.phase.value,
            "revisions": sorted(named),
            "first_event_seconds": [probe.report.timings.first_event for probe in probes],
        },
    )
