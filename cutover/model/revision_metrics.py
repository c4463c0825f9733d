"""The requests of real users at two revisions, compared: is the canary worse than stable, or no worse by the stated margins? Pure.

Each share is judged once, so exact tests of counts do; ``e_values.py`` is for evidence that is looked at again and again. A train has a handful of
shares, so a test at 99 % keeps all its false alarms together at about 5 %.
"""

import math

import attrs

from cutover.model.e_values import no_worse
from cutover.model.judgement import LEAST_SLOWER_SECONDS, Verdict, is_slower

_LEVEL = 0.01
"""The chance of a false alarm at one share."""
_SURE = f"{(1 - _LEVEL) * 100:g} %"


@attrs.frozen(kw_only=True)
class RevisionFigures:
    """The requests that one revision answered in a window."""

    requests: int
    failed: int
    p95_ms: float | None = None
    """The time within which 95 % of the requests ended, in milliseconds; None if it was not asked for, or is unknown."""

    def describe(self) -> str:
        """Return the figures in words."""
        time = "" if self.p95_ms is None else f", p95 {self.p95_ms:.0f} ms"
        return f"{self.failed} of {self.requests} requests failed{time}"


@attrs.frozen(kw_only=True)
class Margins:
    """The margins of a comparison, and the evidence that it needs."""

    max_worse: float
    """The part of its requests that the canary must be shown not to fail, between 0 and 1."""
    max_slower: float
    """The margin by which the canary's p95 may be above stable's, as a part of it; 0: times are not compared."""
    min_requests: int
    """Smallest number of requests of each revision."""
    times: bool
    """True if the times are asked for, so that a missing one is missing evidence."""


@attrs.frozen(kw_only=True)
class Comparison:
    """The verdict on a canary by its users' requests, and the reason in words."""

    verdict: Verdict
    detail: str


def compare(canary: RevisionFigures, stable: RevisionFigures | None, margins: Margins) -> Comparison:
    """Return the verdict. ``stable`` is None while stable has no share: then the canary's failures are judged alone, and no times."""
    text = f"canary: {canary.describe()}" + ("" if stable is None else f"; stable: {stable.describe()}")
    for name, side in (("the canary", canary), ("stable", stable)):
        if side is not None and side.requests < margins.min_requests:
            why = f"inconclusive: {name} has fewer than {margins.min_requests} requests in the window"
            return Comparison(verdict=Verdict.UNDECIDED, detail=f"{why} ({text})")
    if stable is None:
        worse = at_least(canary.failed, canary.requests, margins.max_worse) <= _LEVEL
    else:
        worse = more_failed(canary.failed, canary.requests, stable.failed, stable.requests) <= _LEVEL
    margin = f"{margins.max_worse * 100:g} %"
    if worse:
        than = f"than stable, at {_SURE}" if stable is not None else f"than {margin}, at {_SURE}"
        return Comparison(verdict=Verdict.WORSE, detail=f"the canary fails more requests {than} ({text})")
    if not no_worse(canary.requests - canary.failed, canary.failed, margins.max_worse):
        why = f"inconclusive: it is not shown that the canary fails less than {margin} of its requests"
        return Comparison(verdict=Verdict.UNDECIDED, detail=f"{why} ({text})")
    claim = f"the canary fails less than {margin} of its requests, at 95 %"
    if stable is None:
        return Comparison(
            verdict=Verdict.NO_WORSE, detail=f"{claim}; stable has no share to compare with ({text})"
        )
    return _with_times(canary, stable, margins, claim, text)


def _with_times(
    canary: RevisionFigures, stable: RevisionFigures, margins: Margins, claim: str, text: str
) -> Comparison:
    """Return the verdict on the times of a canary that fails no more requests than it may."""
    if not margins.max_slower or not margins.times:
        return Comparison(verdict=Verdict.NO_WORSE, detail=f"{claim}; times were not compared ({text})")
    if canary.p95_ms is None or stable.p95_ms is None:
        return Comparison(verdict=Verdict.UNDECIDED, detail=f"inconclusive: a p95 is unknown ({text})")
    margin = f"{margins.max_slower * 100:g} %, and by more than {LEAST_SLOWER_SECONDS:g} s"
    if is_slower(canary.p95_ms / 1000, stable.p95_ms / 1000, margin=margins.max_slower):
        return Comparison(
            verdict=Verdict.WORSE,
            detail=f"the canary's p95 is slower than stable's by more than {margin} ({text})",
        )
    return Comparison(
        verdict=Verdict.NO_WORSE,
        detail=f"{claim}; its p95 is not slower than stable's by more than {margin} ({text})",
    )


def more_failed(canary_failed: int, canary: int, stable_failed: int, stable: int) -> float:
    """Return the chance that so many of all failures, or more, fall to the canary if both revisions fail alike (Fisher's exact test, one-sided)."""
    failed, every = canary_failed + stable_failed, canary + stable
    terms = (
        _log_choose(canary, number) + _log_choose(stable, failed - number) - _log_choose(every, failed)
        for number in range(canary_failed, min(canary, failed) + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def at_least(failed: int, requests: int, part: float) -> float:
    """Return the chance of so many failures or more if each request fails with the chance ``part`` (binomial)."""
    terms = (
        _log_choose(requests, number) + number * math.log(part) + (requests - number) * math.log1p(-part)
        for number in range(failed, requests + 1)
    )
    return min(1.0, math.fsum(map(math.exp, terms)))


def _log_choose(of: int, number: int) -> float:
    """Return the logarithm of a binomial coefficient; minus infinity where there is none."""
    if not 0 <= number <= of:
        return -math.inf
    return math.lgamma(of + 1) - math.lgamma(number + 1) - math.lgamma(of - number + 1)
