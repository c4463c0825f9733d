"""The error-budget gate: a train starts only if enough of the budget is left."""

import attrs

from cutover.model import step_ids
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import StepResult
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.ERROR_BUDGET


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the error-budget gate."""

    budget: ErrorBudget


async def run(plan: Plan, recorder: StepRecorder) -> StepResult:
    """Compare the consumed budget with its ceiling."""
    budget = plan.budget
    recorder.budget_check(budget)
    facts = {
        "observed_consumed_percent": budget.consumed_percent,
        "max_consumed_percent": budget.max_consumed_percent,
        "source": budget.source.value,
    }
    return recorder.finish(budget.describe(), facts=facts)
