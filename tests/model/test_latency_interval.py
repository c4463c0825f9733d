"""The latencies of two services: intervals, and the limit of the difference."""

import random

import pytest

from cutover.model.asking import TIMED_ANSWERS, first_asks
from cutover.model.dual_run_facts import Latency
from cutover.model.latency_interval import intervals, percentile
from cutover.model.results import StepStatus

Asks = list[list[tuple[float, float]]]


def asks(count: int, *, slower: float = 1.0, seed: int = 0) -> Asks:
    """Return the latencies of one slow request and of one fast one, a quarter and three quarters of the answers."""
    chance = random.Random(seed)  # noqa: S311  a test needs the same latencies in each run

    def pair(median: float) -> tuple[float, float]:
        return slower * median * chance.lognormvariate(0, 0.1), median * chance.lognormvariate(0, 0.1)

    return [[pair(0.3) for _ in range(count // 4)], [pair(0.05) for _ in range(count - count // 4)]]


def latency(measured: Asks) -> Latency:
    new = [pair[0] for group in measured for pair in group]
    old = [pair[1] for group in measured for pair in group]
    return Latency(
        new_p50=percentile(new, 0.5),
        new_p95=percentile(new, 0.95),
        old_p50=percentile(old, 0.5),
        old_p95=percentile(old, 0.95),
        answers=len(new),
        intervals=intervals(measured),
    )


def test_the_same_evidence_gives_the_same_intervals() -> None:
    assert intervals(asks(60)) == intervals(asks(60))
    assert intervals([]) is None
    assert intervals([[], []]) is None


def test_an_interval_holds_the_measured_percentile() -> None:
    measured = latency(asks(200))
    found = measured.intervals
    assert found is not None
    assert measured.new_p95 is not None
    assert found.new_p95.low <= measured.new_p95 <= found.new_p95.high
    assert found.old_p50.low < found.old_p50.high


def test_constant_latencies_have_an_interval_of_no_width() -> None:
    found = intervals([[(0.07, 0.05)] * 60])
    assert found is not None
    assert (found.p95_delta.low, found.p95_delta.high) == (20.0, 20.0)


@pytest.mark.parametrize("seed", range(10))
def test_a_slower_service_is_found_and_a_faster_one_never_fails(seed: int) -> None:
    assert latency(asks(180, seed=seed)).judged(60.0)[0] is StepStatus.PASS
    assert latency(asks(180, slower=1.4, seed=seed)).judged(60.0)[0] is StepStatus.FAIL
    assert latency(asks(64, slower=0.5, seed=seed)).judged(0.001)[0] is StepStatus.PASS


def test_a_limit_inside_the_interval_is_inconclusive() -> None:
    measured = latency(asks(64, slower=1.2))
    assert measured.delta is not None
    status, detail = measured.judged(measured.delta)
    assert status is StepStatus.ERROR
    assert detail.startswith("inconclusive: the new service's p95 is +")


def test_too_few_answers_are_inconclusive() -> None:
    status, detail = latency([[(0.05, 0.05)] * (TIMED_ANSWERS - 1)]).judged(1000.0)
    assert status is StepStatus.ERROR
    assert "60 answers of each service are needed" in detail


@pytest.mark.parametrize(("reading", "count"), [(1, 30), (2, 15), (10, 3), (30, 1), (100, 1), (0, 30)])
def test_each_request_is_asked_often_enough_for_the_limit(reading: int, count: int) -> None:
    assert first_asks(reading, timed=True) == count
    assert first_asks(reading, timed=False) == 1
