"""The measurements after a share that its own probes passed: the error budget, and the requests of real users.

The requests of the canary and of stable are compared over the same window.
"""

from cutover.model.error_budget import in_words
from cutover.model.judgement import Verdict
from cutover.model.results import USERS, StepStatus
from cutover.model.revision_metrics import Comparison, Margins, RevisionFigures, compare
from cutover.production.metrics.revision_meter import RevisionMeter
from cutover.train.canary_share import CanaryShares
from cutover.train.measured_budget import check_budget

_ALL = 100


async def measure_share(shares: CanaryShares, *, percent: int, after: str, began: float) -> bool:
    """Measure the error budget, then the requests of real users, and record their checks; return False if the share must not pass.

    Args:
        shares: The shares of the step.
        percent: The share.
        after: The change that gave the share.
        began: Time on the clock at which that change began.
    """
    reading = await check_budget(shares.services, shares.recorder, after=after)
    window = shares.services.clock.now() - began
    if reading is not None and not reading.holds:
        return False
    return await _check_requests(shares, percent=percent, after=after, window=window)


async def _check_requests(shares: CanaryShares, *, percent: int, after: str, window: float) -> bool:
    """Compare both revisions over the window of a share, and record a check; return False if the share must not pass.

    Worse fails. Inconclusive is an error with CANARY_METRICS=1, and is only shown without. Nothing is recorded without a source of metrics.

    Args:
        shares: The shares of the step.
        percent: The share.
        after: The change after which the revisions are compared.
        window: Seconds since the change began.
    """
    meter = shares.services.revisions
    if meter is None:
        return True
    comparison = await _compare(meter, shares, percent=percent, window=window)
    status = {
        Verdict.WORSE: StepStatus.FAIL,
        Verdict.NO_WORSE: StepStatus.PASS,
    }.get(comparison.verdict, StepStatus.ERROR if meter.required else StepStatus.SKIP)
    detail = f"users' requests of the last {window:.0f} s: {comparison.detail}"
    if comparison.verdict is Verdict.UNDECIDED:
        if meter.lag_seconds:
            detail += f"; Cloud Monitoring shows a request up to {in_words(meter.lag_seconds)} late: give CANARY_SOAK_SECONDS more than that"
        if not meter.required:
            detail += "; set CANARY_METRICS=1 to pass only with this evidence"
    shares.recorder.check(f"{after}-users", status, detail, kind=USERS)
    return not status.failed


async def _compare(meter: RevisionMeter, shares: CanaryShares, *, percent: int, window: float) -> Comparison:
    plan = shares.plan
    names = (plan.canary_revision,) if percent == _ALL else (plan.canary_revision, plan.stable_revision)
    figures: dict[str, RevisionFigures] = {}
    for name, found in (await meter.read(names, window)).items():
        if isinstance(found, str):
            return Comparison(verdict=Verdict.UNDECIDED, detail=f"inconclusive: {name}: {found}")
        figures[name] = found
    margins = Margins(
        max_worse=plan.max_canary_worse_percent / 100,
        max_slower=plan.max_canary_slower_percent / 100,
        min_requests=meter.min_requests,
        times=bool(meter.queries.p95_ms),
    )
    return compare(figures[plan.canary_revision], figures.get(plan.stable_revision), margins)
