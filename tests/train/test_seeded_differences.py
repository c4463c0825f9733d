"""The dual run of two services that generate their answers: no false alarm, and each seeded difference is found.

`tests/benchmarks/bench_dual_run.py` runs the same on 200 seeds, and 20 for each difference.
"""

import pytest

from cutover.model.results import StepStatus
from tests.support.seeded_differences import DIFFERENCES, SLOWER, dual_run_of

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


@pytest.mark.parametrize("seed", range(3))
async def test_two_services_that_are_alike_agree(seed: int) -> None:
    result = await dual_run_of(seed, gated=seed == 0)
    assert result.status is StepStatus.PASS, result.detail


@pytest.mark.parametrize("difference", DIFFERENCES)
async def test_a_difference_is_found(difference: str) -> None:
    result = await dual_run_of(0, difference=difference, gated=difference == SLOWER)
    assert result.status is StepStatus.FAIL, result.detail
    named = {check.check_id for check in result.checks if check.status is StepStatus.FAIL}
    assert (named == {"p95-latency"}) == (difference == SLOWER), result.detail
