"""The exact binomial test of a share: known values, exact arithmetic, and its symmetry."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.model.share_test import LEAST_CHANCE, chance, contradicts, streams_until_certain


def exactly(answered: int, streams: int, percent: int) -> float:
    """Return the p-value in whole numbers, without any rounding before the last division."""
    weights = [
        math.comb(streams, count) * percent**count * (100 - percent) ** (streams - count)
        for count in range(streams + 1)
    ]
    return float(sum(weight for weight in weights if weight <= weights[answered]) / 100**streams)


@pytest.mark.parametrize(
    ("answered", "streams", "percent", "expected"),
    [
        # from the manual page of R's binom.test: Mendel's peas
        (682, 925, 75, 0.3825),
        (7, 20, 50, 0.2632),
        (0, 5, 50, 0.0625),
        (0, 0, 5, 1.0),
        (1, 1, 100, 1.0),
        (9, 10, 100, 0.0),
    ],
)
def test_known_values(answered: int, streams: int, percent: int, expected: float) -> None:
    assert chance(answered, streams, percent) == pytest.approx(expected, abs=5e-5)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(1, 100))
def test_it_is_the_exact_sum_of_the_outcomes_that_are_at_most_as_likely(
    outcome: tuple[int, int], percent: int
) -> None:
    assert chance(*outcome, percent) == pytest.approx(exactly(*outcome, percent), rel=1e-6, abs=1e-300)


@given(st.integers(0, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.integers(1, 99))
def test_the_canary_and_the_others_are_judged_alike(outcome: tuple[int, int], percent: int) -> None:
    answered, streams = outcome
    mirrored = chance(streams - answered, streams, 100 - percent)
    assert chance(answered, streams, percent) == pytest.approx(mirrored, rel=1e-6, abs=1e-300)


@pytest.mark.parametrize(("percent", "least"), [(5, 4), (25, 7), (50, 15)])
def test_a_canary_that_answers_everything_contradicts_its_share_from_this_number_of_streams_on(
    percent: int, least: int
) -> None:
    assert contradicts(least, least, percent)
    assert not contradicts(least - 1, least - 1, percent)


def test_a_few_streams_contradict_no_share_but_all_traffic() -> None:
    assert not any(contradicts(answered, 2, percent) for answered in (0, 1, 2) for percent in (5, 25, 50))
    assert contradicts(1, 2, 100)


@pytest.mark.parametrize(("percent", "streams"), [(5, 180), (25, 33), (50, 14), (99, 2), (100, 1)])
def test_the_number_of_streams_after_which_a_canary_is_missed_by_chance_once_in_10_000(
    percent: int, streams: int
) -> None:
    assert streams_until_certain(percent) == streams
    missed = (1 - percent / 100) ** streams
    # A float is not exactly one in ten thousand.
    assert missed <= LEAST_CHANCE * (1 + 1e-9)


def test_a_soak_of_a_day_is_judged_in_no_time() -> None:
    assert not contradicts(1_728, 34_560, 5)
    assert contradicts(1_000, 34_560, 5)
