"""The exact two-sided binomial test: it holds the share of the streams that the canary answered against the share asked for.

The test adds up the chances of every outcome that is at most as likely as the observed one (the method of small p-values, as in R's
``binom.test``). It needs streams that are independent of each other: each on a connection of its own, and without cookies.
"""

import math
from bisect import bisect_left

LEAST_CHANCE = 1e-4
"""The largest chance at which an outcome contradicts the share asked for: 1 in 10,000."""
_ALL = 100
_MOST_STREAMS = 10**6
"""The largest number of streams that ``streams_until_certain`` returns."""
_ROUNDING = 1e-7
"""Two outcomes whose chances differ by less than this part count as equally likely; the chances are rounded logarithms."""


def chance(answered: int, streams: int, percent: int) -> float:
    """Return the p-value: the chance of an outcome at most as likely as this one, if the canary has ``percent`` of the streams.

    Args:
        answered: Number of streams that the canary answered.
        streams: Number of streams in all.
        percent: The canary's share, 1 to 100.
    """
    observed = _log_chance(answered, streams, percent)
    if observed == -math.inf:
        return 0.0
    limit = observed + _ROUNDING
    outcomes = (_log_chance(count, streams, percent) for count in range(streams + 1))
    return min(1.0, math.fsum(math.exp(each) for each in outcomes if each <= limit))


def contradicts(answered: int, streams: int, percent: int) -> bool:
    """Return True if the canary cannot have had this share, but for a chance of 1 in 10,000. A few streams contradict nothing."""
    return chance(answered, streams, percent) < LEAST_CHANCE


def streams_until_certain(percent: int, answers: int = 1) -> int:
    """Return the number of streams of which a canary of this share answers fewer than ``answers`` with a chance of at most 1 in 10,000."""
    if percent == _ALL:
        return answers
    if answers > 1:
        # The chance falls with the number of streams.
        return bisect_left(
            range(_MOST_STREAMS),
            x=True,
            key=lambda streams: (
                streams >= answers
                and math.fsum(math.exp(_log_chance(count, streams, percent)) for count in range(answers))
                <= LEAST_CHANCE
            ),
        )
    # Without the small allowance for rounding, 99 % would need three streams instead of two.
    return math.ceil(math.log(LEAST_CHANCE) / math.log1p(-percent / _ALL) - _ROUNDING)


def _log_chance(answered: int, streams: int, percent: int) -> float:
    """Return the logarithm of the chance of exactly this outcome; minus infinity if it cannot happen."""
    if percent == _ALL:
        return 0.0 if answered == streams else -math.inf
    share = percent / _ALL
    ways = math.lgamma(streams + 1) - math.lgamma(answered + 1) - math.lgamma(streams - answered + 1)
    return ways + answered * math.log(share) + (streams - answered) * math.log1p(-share)
