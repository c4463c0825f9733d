"""The stream smoke: it probes every alias against the contract, side by side, each on a thread of its own.

A turn that breaks the contract fails the smoke at once. After a turn that failed on its way it looks again, because a healthy service loses one
now and then: it passes after five good looks in a row, and fails when an alias fails more turns than chance explains.
"""

import enum
from collections.abc import Callable, Mapping

import attrs

from cutover.checking.probe import Probe
from cutover.model import step_ids
from cutover.model.losses import IN_A_ROW, SmokeLooks
from cutover.model.results import StepResult, StepStatus
from cutover.production.services import Services
from cutover.train.canary_evidence import names_others
from cutover.train.canary_turns import weighed_turn
from cutover.train.probe_log import ProbeLog
from cutover.train.step_recorder import StepRecorder

PAUSE = 1.0
"""Seconds between two looks."""


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
    logs = {alias.name: ProbeLog() for alias in prober.aliases}
    named = set[str]()
    good, last = await _ask(plan, services, logs, named)
    for name, log in logs.items():
        check_id = f"{plan.phase.value}-{name}"
        if good and log.bad:
            detail = f"the last {IN_A_ROW} looks are good, and a healthy service loses a turn now and then"
            recorder.judged_check(check_id, log, StepStatus.PASS, detail)
        else:
            recorder.stream_check(check_id, log)
    if plan.only is not None and (why := names_others(prober.revision_header, named, stable=plan.only)):
        recorder.check("revisions", StepStatus.ERROR, why, tolerable=False)
    if plan.judge_turn is not None and good:
        plan.judge_turn(max(probe.elapsed for probe in last), recorder)
    blind = (
        f"; no reply has the header {prober.revision_header}: is REVISION_HEADER correct?"
        if prober.revision_header and not named
        else ""
    )
    return recorder.finish(
        f"every alias keeps the contract ({len(logs)} of {len(logs)}){blind}",
        facts={
            "phase": plan.phase.value,
            "revisions": sorted(named),
            "first_event_seconds": [probe.report.timings.first_event for probe in last],
        },
    )


async def _ask(
    plan: Plan, services: Services, logs: Mapping[str, ProbeLog], named: set[str]
) -> tuple[bool, list[Probe]]:
    """Look once, or on after a turn that failed on its way; return True if the smoke passes, and the probes of the last look.

    ``logs`` gets the probes of each alias, ``named`` the revisions that answered.
    """
    prober, looks = services.prober, SmokeLooks(aliases=len(logs), most=plan.most_failed)
    while True:
        look = await prober.probe_all(label=plan.phase.step_id)
        named |= prober.revisions(look)
        for log, probe in zip(logs.values(), look, strict=True):
            log.add(probe)
        turns = [weighed_turn(probe) for probe in look]
        weighed = [turn.failed for turn in turns if turn is not None]
        passed = looks.take(weighed) if len(weighed) == len(look) else False
        if passed is not None:
            return passed, look
        await services.clock.sleep(PAUSE)
