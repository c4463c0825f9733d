"""E-values: the number of turns that each claim needs, and the bound of 5 % for a false one."""

import math
import random
from itertools import pairwise

import pytest

from cutover.model.e_values import (
    ENOUGH,
    Bet,
    TwoStreams,
    clean_turns_needed,
    least_margin,
    no_worse,
)

RUNS = 400


@pytest.mark.parametrize(
    ("percent", "clean", "more"), [(10, 32, 25), (5, 65, 50), (2, 165, 127), (1, 332, 255)]
)
def test_a_smaller_margin_needs_more_clean_turns(percent: int, clean: int, more: int) -> None:
    margin = percent / 100
    assert clean_turns_needed(margin) == clean
    assert no_worse(clean, 0, margin)
    assert not no_worse(clean - 1, 0, margin)
    assert clean_turns_needed(margin, 1) == pytest.approx(clean + more, abs=1)
    assert not no_worse(clean, 1, margin)


def test_the_smallest_margin_grows_with_failures_and_shrinks_with_clean_turns() -> None:
    assert least_margin(0, 0) is None
    assert least_margin(32, 0) == 9.9
    assert least_margin(57, 1) == 9.8
    margins = [least_margin(clean, 0) or 100 for clean in (5, 14, 32, 65, 332)]
    assert all(before > after for before, after in pairwise(margins))


def test_a_canary_that_always_fails_is_worse_after_four_pairs() -> None:
    streams = TwoStreams()
    for number in range(1, 5):
        assert not streams.holds, number
        streams.add(canary_failed=True, stable_failed=False)
    assert streams.holds
    assert math.exp(streams.log) > ENOUGH


def test_a_canary_that_fails_less_than_stable_is_never_worse() -> None:
    streams = TwoStreams()
    for _ in range(1000):
        streams.add(canary_failed=False, stable_failed=True)
    assert streams.log == 0


@pytest.mark.parametrize("rate", [0.03, 0.2])
def test_two_equal_revisions_are_called_worse_in_five_percent_of_the_runs_at_most(rate: float) -> None:
    chance, alarms = random.Random(7), 0  # noqa: S311  the same runs in every test
    for _ in range(RUNS):
        streams = TwoStreams()
        for _ in range(200):
            streams.add(canary_failed=chance.random() < rate, stable_failed=chance.random() < rate)
            if streams.holds:
                alarms += 1
                break
    assert alarms <= 0.05 * RUNS


def test_a_canary_at_the_margin_is_called_no_worse_in_five_percent_of_the_runs_at_most() -> None:
    chance, wrong, margin = random.Random(7), 0, 0.1  # noqa: S311
    for _ in range(RUNS):
        failed = 0
        for turn in range(1, 301):
            failed += chance.random() < margin
            if no_worse(turn - failed, failed, margin):
                wrong += 1
                break
    assert 0 < wrong <= 0.05 * RUNS


def test_a_bet_at_the_limit_is_won_in_five_percent_of_the_runs_at_most() -> None:
    chance, won = random.Random(7), 0  # noqa: S311
    for _ in range(RUNS):
        bet = Bet()
        for _ in range(200):
            bet.add(happened=chance.random() < 0.1, most=0.1)
            if bet.holds:
                won += 1
                break
    assert won <= 0.05 * RUNS


def test_a_bet_on_something_that_always_happens_is_won_soon() -> None:
    bet = Bet()
    for _ in range(5):
        bet.add(happened=True, most=0.5)
        assert not bet.holds
    bet.add(happened=True, most=0.5)
    assert bet.holds
