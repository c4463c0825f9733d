"""The p50 and p95 latencies of two services, with bootstrap intervals: how far other answers of the same services could have moved them."""

import math
import random
from collections.abc import Sequence

import attrs

from cutover.model.asking import LOOKS

_RESAMPLES = 600
_LOW, _HIGH = 0.05 / LOOKS, 1 - 0.05 / LOOKS
"""The bounds of each interval. The probability that the true value lies beyond one of them is 5 % over all looks together."""


@attrs.frozen
class Interval:
    """Two bounds, in milliseconds. Each of them alone holds with a probability of 95 %."""

    low: float
    high: float


@attrs.frozen(kw_only=True)
class LatencyIntervals:
    """The intervals of the percentiles of both services, in milliseconds."""

    new_p50: Interval
    new_p95: Interval
    old_p50: Interval
    old_p95: Interval
    p95_delta: Interval
    """The p95 of the new service, minus that of the legacy service."""


def percentile(seconds: Sequence[float], share: float) -> float | None:
    """Return a percentile in milliseconds, by nearest rank; None without a measurement."""
    return _nearest_rank(sorted(seconds), share) if seconds else None


def _nearest_rank(ordered: Sequence[float], share: float) -> float:
    # The product of floats may lie just above a whole number.
    return round(ordered[math.ceil(round(share * len(ordered), 9)) - 1] * 1000, 3)


def intervals(asks: Sequence[Sequence[tuple[float, float]]]) -> LatencyIntervals | None:
    """Return the bootstrap intervals; None without a measurement. The same latencies always give the same intervals.

    Answers to one request stay together: each resample has as many of them as were measured. So the mix of fast and slow requests is
    not taken for chance.

    Args:
        asks: For each request of the manifest, the seconds of the new and of the legacy service, side by side.
    """
    groups = [group for group in asks if group]
    if not groups:
        return None
    chance = random.Random(0)  # noqa: S311  the same evidence must give the same verdict
    rows: list[tuple[float, ...]] = []
    for _ in range(_RESAMPLES):
        drawn = [pair for group in groups for pair in chance.choices(group, k=len(group))]
        new, old = (sorted(pair[side] for pair in drawn) for side in (0, 1))
        values = [_nearest_rank(side, share) for side in (new, old) for share in (0.5, 0.95)]
        rows.append((*values, values[1] - values[3]))
    new_p50, new_p95, old_p50, old_p95, delta = (_interval(column) for column in zip(*rows, strict=True))
    return LatencyIntervals(
        new_p50=new_p50, new_p95=new_p95, old_p50=old_p50, old_p95=old_p95, p95_delta=delta
    )


def _interval(values: Sequence[float]) -> Interval:
    ordered = sorted(values)
    low, high = (ordered[min(math.floor(share * len(ordered)), len(ordered) - 1)] for share in (_LOW, _HIGH))
    return Interval(round(low, 3), round(high, 3))
