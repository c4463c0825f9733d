"""The error-budget gate: is there enough left to take a risk?"""

import attrs

from cutover.model import step_ids
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import StepResult
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.ERROR_BUDGET


@attrs.frozen(kw_only=True)
class Plan:
    """What is consumed, and what may be."""

    budget: ErrorBudget


async def run(plan: Plan, recorder: StepRecorder) -> StepResult:
    """Hold the consumed budget against its ceiling."""
    budget = plan.budget
    recorder.budget_check(budget)
    facts = {
        "observed_consumed_percent": budget.consumed_percent,
        "max_consumed_percent": budget.max_consumed_percent,
        "source": budget.source.value,
    }
    return recorder.finish(budget.describe(), facts=facts)
