"""Turns that fail on their way in a smoke, and streams that fail on their way around a change: how many does chance explain? Pure.

A healthy service loses a turn now and then. A fault loses one after another. `cutover.model.judgement` weighs the turns of the canary against
those of stable; here there is nothing to compare with, so the part that chance explains is given.
"""

from collections.abc import Sequence

import attrs

from cutover.model.e_values import Bet

MOST_FAILED = 0.1
"""Largest part of its turns that a healthy service loses."""
IN_A_ROW = 5
"""Number of good looks in a row with which a smoke passes after a turn that failed on its way."""
MOST_LOOKS = 30
"""Largest number of looks of a smoke."""
BEFORE = "before"
"""The kind of the streams that ended before their change."""
_CLEAN_BEFORE = 4
"""Number of clean streams that are counted besides those that ended before their change, so that a single failed one explains little."""


@attrs.define(eq=False)
class SmokeLooks:
    """The looks of one smoke. Each has one turn of every alias, and none of them breaks the contract."""

    aliases: int
    most: float
    """The part of the turns, between 0 and 1, that chance explains."""
    number: int = 0
    """Number of looks so far."""
    _in_a_row: int = 0
    _bets: list[Bet] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin the count of each alias."""
        self._bets = [Bet() for _ in range(self.aliases)]

    def take(self, failed: Sequence[bool]) -> bool | None:
        """Take one look; return True if the smoke passes, False if it fails, None if it must look again.

        ``failed`` has True for each alias whose turn failed on its way.
        """
        self.number += 1
        for bet, each in zip(self._bets, failed, strict=True):
            bet.add(happened=each, most=self.most)
        self._in_a_row = 0 if any(failed) else self._in_a_row + 1
        if self._in_a_row == IN_A_ROW or self._in_a_row == self.number == 1:
            return True
        return False if any(bet.holds for bet in self._bets) or self.number == MOST_LOOKS else None


@attrs.define(eq=False)
class ChangeLosses:
    """The streams around one change that failed on their way. They count as broken once chance does not explain them."""

    most: float
    """The part of the streams of one kind, between 0 and 1, that chance explains."""
    over_all: dict[str, Bet]
    """Kind -> the bet over all changes of the train, which share it: one stream lost at each change is more than chance too."""
    by_chance: int = 0
    """Number of failed streams that chance explains so far."""
    _bets: dict[str, Bet] = attrs.field(factory=dict)
    _beyond: bool = False

    def add(self, kind: str, *, failed: bool) -> int:
        """Add one stream; return the number of streams of this change that count as broken from now on.

        A stream of the kind ``BEFORE`` ended before the change, so the change did not break it: where many of them fail, chance explains more.
        """
        self.by_chance += failed
        before = self.over_all.setdefault(BEFORE, Bet())
        if kind == BEFORE:
            before.add(happened=failed, most=self.most)
            return 0
        most = max(self.most, before.yes / (before.yes + before.no + _CLEAN_BEFORE))
        for bets in (self._bets, self.over_all):
            bet = bets.setdefault(kind, Bet())
            bet.add(happened=failed, most=most)
            self._beyond = self._beyond or bet.holds
        if not self._beyond:
            return 0
        counted, self.by_chance = self.by_chance, 0
        return counted
