"""The error-budget gate: is there enough left to take a risk?"""

import attrs

from cutover.model.error_budget import ErrorBudget
from cutover.model.results import StepResult
from cutover.train.step_recorder import StepLog

STEP_ID = "slo-error-budget-gate"


@attrs.frozen(kw_only=True)
class Plan:
    """What is consumed, and what may be."""

    budget: ErrorBudget


async def run(plan: Plan, log: StepLog) -> StepResult:
    """Hold the consumed budget against its ceiling."""
    budget = plan.budget
    log.budget_check(budget)
    facts = {
        "observed_consumed_percent": budget.consumed_percent,
        "max_consumed_percent": budget.max_consumed_percent,
        "source": budget.source.value,
    }
    return log.finish(budget.describe(), facts=facts)
