"""The measured error budget as a check: before the train, after each change, and at the end."""

from cutover.model.error_budget import BudgetReading
from cutover.model.results import StepStatus
from cutover.model.train_events import BudgetRead
from cutover.production.services import Services
from cutover.train.step_recorder import StepRecorder

CHECK = "error-budget"


async def check_budget(
    services: Services, recorder: StepRecorder, *, after: str = ""
) -> BudgetReading | None:
    """Measure the error budget, journal the reading, and record its check; return None if no source of metrics is set.

    The check fails above the ceiling, and is an error if the share is unknown. No limit tolerates either.

    Args:
        services: The services of the train.
        recorder: Gets the check.
        after: The change after which the budget is measured; empty for a reading at no change.
    """
    if services.budget is None:
        return None
    reading = await services.budget.read()
    recorder.journal.record(
        BudgetRead(step_id=recorder.step_id, moment=after or recorder.step_id, reading=reading)
    )
    status = StepStatus.PASS if reading.holds else StepStatus.ERROR if reading.unknown else StepStatus.FAIL
    name = f"{after}-{CHECK}" if after else CHECK
    recorder.check(name, status, reading.describe(), kind="error_budget", tolerable=False)
    return reading
