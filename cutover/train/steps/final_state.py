"""The final state: it checks that routes, traffic and budget are as the train means to leave them."""

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import StepResult, StepStatus
from cutover.model.traffic_state import (
    TrafficState,
    TrafficTarget,
    describe_shares,
    mismatch_reason,
    release_reason,
)
from cutover.model.train_events import TrafficRead
from cutover.production.services import Services
from cutover.train.measured_budget import check_budget
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.FINAL_STATE


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the final state: the wanted routes, traffic and budget."""

    routes: tuple[tuple[str, str | None], ...]
    captured: TrafficState
    """The split before the first change."""
    promoted: tuple[TrafficTarget, ...] | None
    """The split after a promotion; None: the captured split must be served again."""
    canary_revision: str
    budget: ErrorBudget


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> StepResult:
    """Read routes and traffic, and check the budget again."""
    async with anyio.create_task_group() as reads:
        reads.start_soon(_routes, plan, services, recorder)
        reads.start_soon(_traffic, plan, services, recorder)
    reading = await check_budget(services, recorder)
    if reading is None:
        recorder.budget_check(plan.budget)
    return recorder.finish(f"routes and traffic are as they should be; {(reading or plan.budget).describe()}")


async def _routes(plan: Plan, services: Services, recorder: StepRecorder) -> None:
    try:
        sample = await services.control.sample(label="final.routes")
    except PeerError as error:
        recorder.failure("routes", error, tolerable=False)
        return
    status = StepStatus.PASS if sample.holds(plan.routes) else StepStatus.FAIL
    recorder.check("routes", status, sample.describe(), tolerable=False)


async def _traffic(plan: Plan, services: Services, recorder: StepRecorder) -> None:
    try:
        state = await services.traffic.read(label="final.traffic")
    except PeerError as error:
        recorder.failure("traffic", error, tolerable=False)
        return
    if plan.promoted is not None:
        problem = mismatch_reason(state, plan.promoted)
    else:
        problem = mismatch_reason(state, plan.captured.targets) or release_reason(plan.captured, state)
    recorder.journal.record(TrafficRead(found=state, proven=not problem))
    share = state.served().get(plan.canary_revision, 0)
    goal = "as captured" if plan.promoted is None else "as promoted"
    detail = problem or f"{describe_shares(state.served())}: {goal}, the canary at {share} %"
    recorder.check("traffic", StepStatus.FAIL if problem else StepStatus.PASS, detail, tolerable=False)
