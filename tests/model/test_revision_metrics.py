"""The users' requests of two revisions: what makes the canary worse, no worse, or inconclusive."""

import random

import attrs
import pytest

from cutover.model.judgement import Verdict
from cutover.model.revision_metrics import Margins, RevisionFigures, at_least, compare, more_failed

MARGINS = Margins(max_worse=0.1, max_slower=0.5, min_requests=100, times=True)
WORSE, NO_WORSE, UNDECIDED = Verdict.WORSE, Verdict.NO_WORSE, Verdict.UNDECIDED


def figures(requests: int, failed: int = 0, p95_ms: float | None = 1000.0) -> RevisionFigures:
    return RevisionFigures(requests=requests, failed=failed, p95_ms=p95_ms)


@pytest.mark.parametrize(
    ("canary", "stable", "verdict", "words"),
    [
        (figures(200), figures(4000), NO_WORSE, "less than 10 % of its requests, at 95 %"),
        (figures(200, 2), figures(4000, 40), NO_WORSE, "less than 10 %"),
        (figures(200, 40), figures(4000, 40), WORSE, "fails more requests than stable, at 99 %"),
        # Both fail alike: that is no fault of the canary, and no evidence for it.
        (figures(200, 40), figures(4000, 800), UNDECIDED, "not shown that the canary fails less than 10 %"),
        (figures(99), figures(4000), UNDECIDED, "the canary has fewer than 100 requests"),
        (figures(99, 99), figures(4000), UNDECIDED, "the canary has fewer than 100 requests"),
        (figures(200), figures(99), UNDECIDED, "stable has fewer than 100 requests"),
        (figures(0, p95_ms=None), figures(0, p95_ms=None), UNDECIDED, "the canary has fewer"),
        (figures(200, p95_ms=1501), figures(200), WORSE, "p95 is slower than stable's by more than 50 %"),
        (figures(200, p95_ms=1499), figures(200), NO_WORSE, "p95 is not slower"),
        (figures(200, p95_ms=1), figures(200), NO_WORSE, "p95 is not slower"),
        # A third of a second more is much of 0.1 s, and little for a user.
        (figures(200, p95_ms=340), figures(200, p95_ms=100), NO_WORSE, "p95 is not slower"),
        (figures(200, p95_ms=360), figures(200, p95_ms=100), WORSE, "p95 is slower"),
        (figures(200, p95_ms=None), figures(200), UNDECIDED, "a p95 is unknown"),
        (figures(200), None, NO_WORSE, "stable has no share to compare with"),
        (figures(200, 40), None, WORSE, "fails more requests than 10 %, at 99 %"),
        (figures(200, 20), None, UNDECIDED, "not shown"),
    ],
)
def test_the_verdict_and_its_reason(
    canary: RevisionFigures, stable: RevisionFigures | None, verdict: Verdict, words: str
) -> None:
    found = compare(canary, stable, MARGINS)
    assert found.verdict is verdict
    assert words in found.detail
    assert canary.describe() in found.detail


@pytest.mark.parametrize(
    "margins", [attrs.evolve(MARGINS, max_slower=0.0), attrs.evolve(MARGINS, times=False)]
)
def test_times_that_nobody_asked_for_decide_nothing(margins: Margins) -> None:
    found = compare(figures(200, p95_ms=9000), figures(200), margins)
    assert found.verdict is NO_WORSE
    assert "times were not compared" in found.detail


def test_the_exact_tests_have_the_values_of_the_tables() -> None:
    # Fisher's tea: 3 of 4 right, one-sided.
    assert more_failed(3, 4, 1, 4) == pytest.approx(17 / 70)
    assert at_least(8, 10, 0.5) == pytest.approx(56 / 1024)
    assert more_failed(0, 10, 0, 10) == pytest.approx(1.0)
    assert at_least(0, 10, 0.1) == pytest.approx(1.0)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1])
def test_two_equal_revisions_are_seldom_called_worse(rate: float) -> None:
    draw = random.Random(7)  # noqa: S311  the same draws in every run
    false_alarms = sum(
        compare(
            figures(150, sum(draw.random() < rate for _ in range(150))),
            figures(450, sum(draw.random() < rate for _ in range(450))),
            MARGINS,
        ).verdict
        is WORSE
        for _ in range(1000)
    )
    assert false_alarms <= 15


def test_a_canary_that_fails_a_tenth_of_its_requests_is_found() -> None:
    draw = random.Random(8)  # noqa: S311
    found = sum(
        compare(
            figures(150, sum(draw.random() < 0.1 for _ in range(150))), figures(2850, 28), MARGINS
        ).verdict
        is WORSE
        for _ in range(200)
    )
    assert found >= 190


def test_large_counts_are_tested_too() -> None:
    assert compare(figures(50_000, 1000), figures(950_000, 9500), MARGINS).verdict is WORSE
    assert compare(figures(50_000, 500), figures(950_000, 9500), MARGINS).verdict is NO_WORSE
