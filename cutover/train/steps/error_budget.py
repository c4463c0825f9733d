"""The error-budget gate: a train starts only if enough of the budget is left, by a measured figure or one that was typed by hand."""

import attrs

from cutover.model import step_ids
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import StepResult
from cutover.production.services import Services
from cutover.train.measured_budget import check_budget
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.ERROR_BUDGET


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the error-budget gate."""

    budget: ErrorBudget


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> StepResult:
    """Compare the consumed budget with its ceiling. Unknown is no pass."""
    budget = plan.budget
    reading = await check_budget(services, recorder)
    if reading is None:
        recorder.budget_check(budget)
    facts: dict[str, object] = {
        "observed_consumed_percent": budget.consumed_percent if reading is None else reading.consumed_percent,
        "max_consumed_percent": budget.max_consumed_percent,
        "source": budget.source.value,
    }
    if reading is not None:
        facts["reading"] = attrs.asdict(reading)
    return recorder.finish((reading or budget).describe(), facts=facts)
