"""E-values: evidence that may be looked at after every turn. Pure.

Under the hypothesis that an **e-value** speaks against, its mean is at most 1, however often somebody looks. So the chance that it ever
reaches 20 is at most 1 in 20 (Ville's inequality): a train may look whenever it likes, and stop when it likes.

- `TwoStreams`: two streams of yes and no in blocks (Turner, Ly and Grünwald, doi 10.1016/j.jspi.2023.106116), here with one turn of each revision
  in a block, one-sided. It speaks against "the canary fails no more turns than stable".
- `no_worse`: the likelihood ratio of m/10 against m for the part of the turns that fail. It speaks against "the canary fails m of its turns, or more".
- `Bet`: one stream of yes and no. It speaks against "this happens in at most p of the cases".
"""

import math

import attrs

ENOUGH = 20.0
"""The e-value at which a claim holds, at 95 %."""
_ENOUGH = math.log(ENOUGH)
_PRIOR = 0.18
"""Turns of each kind that an estimate begins with, as the authors advise: a Beta distribution with this figure twice."""


@attrs.define(eq=False)
class Bet:
    """The e-value against "this happens in at most ``most`` of the cases"."""

    yes: int = 0
    no: int = 0
    log: float = 0.0
    """The logarithm of the e-value."""

    def add(self, *, happened: bool, most: float) -> None:
        """Add one case. ``most`` may differ from case to case, but must not depend on the case itself."""
        chance = max(most, _estimate(self.yes, self.no))
        self.log += math.log(chance / most) if happened else math.log((1 - chance) / (1 - most))
        self.yes, self.no = self.yes + happened, self.no + (not happened)

    @property
    def holds(self) -> bool:
        """True if it happens more often, at 95 %."""
        return self.log >= _ENOUGH


@attrs.define(eq=False)
class TwoStreams:
    """The e-value against "the canary fails no more turns than stable", in pairs of one turn of each."""

    pairs: int = 0
    canary_failed: int = 0
    stable_failed: int = 0
    log: float = 0.0
    """The logarithm of the e-value."""

    def add(self, *, canary_failed: bool, stable_failed: bool) -> None:
        """Add one pair."""
        canary = _estimate(self.canary_failed, self.pairs - self.canary_failed)
        stable = _estimate(self.stable_failed, self.pairs - self.stable_failed)
        # One-sided: an estimate that speaks for the canary bets nothing.
        if canary > stable:
            same = (canary + stable) / 2
            for failed, own in ((canary_failed, canary), (stable_failed, stable)):
                self.log += math.log(own / same) if failed else math.log((1 - own) / (1 - same))
        self.pairs += 1
        self.canary_failed += canary_failed
        self.stable_failed += stable_failed

    @property
    def holds(self) -> bool:
        """True if the canary fails more turns than stable, at 95 %."""
        return self.log >= _ENOUGH


def no_worse(clean: int, failed: int, margin: float) -> bool:
    """Return True if a canary with these turns fails less than ``margin`` of its turns, at 95 %.

    Args:
        clean: Number of turns that did not fail.
        failed: Number of turns that failed.
        margin: Between 0 and 1, both excluded.
    """
    return clean * _gain(margin) - failed * math.log(10) >= _ENOUGH


def clean_turns_needed(margin: float, failed: int = 0) -> int:
    """Return the number of clean turns for the claim "no worse by ``margin``" after this many failed turns."""
    return math.ceil((_ENOUGH + failed * math.log(10)) / _gain(margin))


def least_margin(clean: int, failed: int) -> float | None:
    """Return the smallest margin by which a canary with these turns is no worse, as a percent with one decimal; None if there is none.

    A claim with a small margin holds only if those with larger ones hold too. So the smallest one may be chosen after the turns were seen.
    """
    return next((tenths / 10 for tenths in range(1, 1000) if no_worse(clean, failed, tenths / 1000)), None)


def _estimate(yes: int, no: int) -> float:
    """Return the estimate of a chance before the next case."""
    return (yes + _PRIOR) / (yes + no + 2 * _PRIOR)


def _gain(margin: float) -> float:
    """Return the logarithm of the factor of one clean turn."""
    return math.log((1 - margin / 10) / (1 - margin))
