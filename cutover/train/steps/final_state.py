"""The last look: are routes, traffic and budget what the train means to leave behind?"""

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import StepResult, StepStatus
from cutover.model.traffic_state import TrafficState, describe_shares
from cutover.production.traffic.mover import unproven
from cutover.record.journal import TrafficRead
from cutover.train.step_recorder import Peers, StepLog

STEP_ID = "final-state"


@attrs.frozen(kw_only=True)
class Plan:
    """What is meant to be there."""

    routes: tuple[tuple[str, str | None], ...]
    traffic: TrafficState
    """As captured; its targets and shares are wanted again."""
    canary: str
    budget: ErrorBudget


async def run(plan: Plan, peers: Peers, log: StepLog) -> StepResult:
    """Read both once more, and the budget again."""
    async with anyio.create_task_group() as reads:
        reads.start_soon(_routes, plan, peers, log)
        reads.start_soon(_traffic, plan, peers, log)
    log.budget_check(plan.budget)
    return log.finish(f"routes and traffic are as they should be; {plan.budget.describe()}")


async def _routes(plan: Plan, peers: Peers, log: StepLog) -> None:
    try:
        sample = await peers.control.sample(label="final.routes")
    except PeerError as error:
        log.failure("routes", error, tolerable=False)
        return
    status = StepStatus.PASS if sample.holds(plan.routes) else StepStatus.FAIL
    log.check("routes", status, sample.describe(), tolerable=False)


async def _traffic(plan: Plan, peers: Peers, log: StepLog) -> None:
    try:
        state = await peers.traffic.read(label="final.traffic")
    except PeerError as error:
        log.failure("traffic", error, tolerable=False)
        return
    problem = unproven(state, plan.traffic.targets)
    log.journal.record(TrafficRead(found=state, proven=not problem))
    share = state.served().get(plan.canary, 0)
    said = problem or f"{describe_shares(state.served())}: as captured, the canary at {share} %"
    log.check("traffic", StepStatus.FAIL if problem else StepStatus.PASS, said, tolerable=False)
