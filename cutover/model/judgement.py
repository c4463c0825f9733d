"""The judgement of a canary by its turns: worse than stable, no worse by a stated margin, or undecided. Pure.

The claims rest on e-values (``e_values.py``), so the train may judge after every turn. A broken contract is not judged here: it needs no
statistics.
"""

import enum
import math
from collections import deque
from collections.abc import Iterator

import attrs

from cutover.model.e_values import Bet, TwoStreams, clean_turns_needed, least_margin

LEAST_SLOWER_SECONDS = 0.25
"""A canary that is slower than stable by no more than this many seconds is not slower, whatever the margin is."""
LEAST_PAIRS = 6
"""Smallest number of pairs of turns that can say that the canary is no slower."""
_MOST_UNPAIRED = 4
"""Largest number of turns of one revision that wait for a turn of the other; more would let old turns hide a fault that begins now."""


class Verdict(enum.Enum):
    """The verdict on a canary."""

    WORSE = "worse"
    NO_WORSE = "no worse"
    UNDECIDED = "undecided"
    BASELINE_UNHEALTHY = "baseline unhealthy"
    """Stable itself fails, so that nothing can be compared with it."""


class Who(enum.Enum):
    """The revision that answered a turn."""

    CANARY = "canary"
    STABLE = "stable"
    UNKNOWN = "unknown"


@attrs.frozen(kw_only=True)
class Turn:
    """One chat turn of a probe. A turn that breaks the contract is no such turn: it is not weighed."""

    failed: bool
    """True if it failed on its way: a status of 5xx, a broken connection, a deadline."""
    first_event: float | None = None
    """Seconds to the first event; None without one."""
    whole: float | None = None
    """Seconds to the end of the turn; None if it did not end."""


def is_slower(canary: float, stable: float, *, margin: float) -> bool:
    """Return True if the canary needed more seconds than stable, by more than the margin (0.5: half as long again) and 0.25 s."""
    return canary > stable + max(stable * margin, LEAST_SLOWER_SECONDS)


@attrs.define(eq=False)
class _Slowness:
    """The two bets on one time of a turn: that the canary is slower in more than half of the pairs, and that it is not."""

    slower: Bet = attrs.field(factory=Bet)
    not_slower: Bet = attrs.field(factory=Bet)

    def add(self, canary: float | None, stable: float | None, *, margin: float) -> None:
        if canary is not None and stable is not None:
            slower = is_slower(canary, stable, margin=margin)
            self.slower.add(happened=slower, most=0.5)
            self.not_slower.add(happened=not slower, most=0.5)

    @property
    def pairs(self) -> int:
        return self.slower.yes + self.slower.no


@attrs.define(eq=False, kw_only=True)
class Judgement:
    """The judgement of one canary over the shares that it gets, one after another. It holds counts alone, however long it goes on.

    The turns of all shares count together for "worse than stable", "no worse by" and the times. The three bets begin anew with each share.
    """

    max_worse: float
    """The margin by which the canary must be no worse: the part of its turns that may fail, between 0 and 1."""
    max_slower: float
    """The margin by which the canary may be slower, as a part of stable's time; 0: the times are not judged."""
    compared: TwoStreams = attrs.field(factory=TwoStreams)
    clean: int = 0
    """Number of turns that the canary answered and that did not fail."""
    failed: int = 0
    """Number of turns that the canary answered and that failed."""
    stable_clean: int = 0
    stable_failed: int = 0
    unknown_failed: int = 0
    """Number of turns of this share that failed, and nobody knows whose they were. With one of them, the front door itself must be shown to
    fail less than ``max_worse`` of its turns."""
    first_event: _Slowness = attrs.field(factory=_Slowness)
    whole: _Slowness = attrs.field(factory=_Slowness)
    _share: float = 0.0
    _stable_answers: bool = True
    _alone: Bet = attrs.field(factory=Bet)
    _front: Bet = attrs.field(factory=Bet)
    _stable_own: Bet = attrs.field(factory=Bet)
    _beyond_share: Bet = attrs.field(factory=Bet)
    _canary_waits: deque[Turn] = attrs.field(factory=lambda: deque(maxlen=_MOST_UNPAIRED))
    _stable_waits: deque[Turn] = attrs.field(factory=lambda: deque(maxlen=_MOST_UNPAIRED))

    def begin_share(self, percent: int, *, stable_answers: bool) -> None:
        """Begin the next share of the canary.

        Args:
            percent: The share.
            stable_answers: True if turns of stable can be seen at this share: at the front door, or at a URL of its own.
        """
        self._share, self._stable_answers, self.unknown_failed = percent / 100, stable_answers, 0
        self._alone, self._front, self._stable_own, self._beyond_share = Bet(), Bet(), Bet(), Bet()
        self._canary_waits.clear()
        self._stable_waits.clear()

    def add(self, turn: Turn, who: Who, *, at_front: bool) -> None:
        """Add one turn. ``at_front`` is True for a turn through the front door, False for one at a revision's own URL."""
        if at_front:
            self._front.add(happened=turn.failed, most=self.max_worse)
            if self._share + self.max_worse < 1:
                # Even a canary that fails each of its turns explains no more failures than its share.
                self._beyond_share.add(happened=turn.failed, most=self._share + self.max_worse)
        match who:
            case Who.CANARY:
                self.clean, self.failed = self.clean + (not turn.failed), self.failed + turn.failed
                if self._stable_answers:
                    self._canary_waits.append(turn)
                else:
                    self._alone.add(happened=turn.failed, most=self.max_worse)
            case Who.STABLE:
                self.stable_clean += not turn.failed
                self.stable_failed += turn.failed
                self._stable_own.add(happened=turn.failed, most=self.max_worse)
                self._stable_waits.append(turn)
            case Who.UNKNOWN:
                self.unknown_failed += turn.failed
                # While stable has a share, the front door stands for stable: that can only make the canary look better than it is.
                if self._share < 1:
                    self._stable_waits.append(turn)
        while self._canary_waits and self._stable_waits:
            self._compare(self._canary_waits.popleft(), self._stable_waits.popleft())

    def _compare(self, canary: Turn, stable: Turn) -> None:
        self.compared.add(canary_failed=canary.failed, stable_failed=stable.failed)
        if self.max_slower and not canary.failed and not stable.failed:
            self.first_event.add(canary.first_event, stable.first_event, margin=self.max_slower)
            self.whole.add(canary.whole, stable.whole, margin=self.max_slower)

    @property
    def verdict(self) -> Verdict:
        """The verdict on the turns so far."""
        if self.compared.holds:
            return Verdict.WORSE
        if self._stable_own.holds or self._beyond_share.holds:
            return Verdict.BASELINE_UNHEALTHY
        if self._alone.holds or self._front.holds or self._slower:
            return Verdict.WORSE
        open_still = self._own_missing > 0 or self._front_missing > 0 or self._times_open
        return Verdict.UNDECIDED if open_still else Verdict.NO_WORSE

    @property
    def missing_turns(self) -> int:
        """The number of clean turns of the canary, or of pairs of turns, that are missing at least for NO WORSE; 0 if none is."""
        pairs = max(1, LEAST_PAIRS - self.whole.pairs) if self._times_open else 0
        return max(self._own_missing, self._front_missing, pairs, 0)

    @property
    def _own_missing(self) -> int:
        return clean_turns_needed(self.max_worse, self.failed) - self.clean

    @property
    def _front_missing(self) -> int:
        """The number of clean turns that are missing at the front door, where a failed turn names nobody."""
        if not self.unknown_failed:
            return 0
        return clean_turns_needed(self.max_worse, self._front.yes) - self._front.no

    @property
    def _times(self) -> tuple[tuple[str, _Slowness], ...]:
        return ("first event", self.first_event), ("whole turn", self.whole)

    @property
    def _slower(self) -> bool:
        return any(time.slower.holds for _, time in self._times)

    @property
    def _times_open(self) -> bool:
        """True if the times are judged, can be compared at this share, and do not yet say that the canary is no slower."""
        judged = bool(self.max_slower) and self._stable_answers
        return judged and not all(time.not_slower.holds for _, time in self._times)

    def describe(self) -> str:
        """Return the verdict, the claim that it allows, and the counts behind it, in words."""
        match self.verdict:
            case Verdict.NO_WORSE:
                margin = least_margin(self.clean, self.failed)
                return f"no worse by {margin:g} %, at 95 % ({self.counts}); {self._describe_times()}"
            case Verdict.WORSE:
                return f"the canary {'; '.join(self._reasons())} ({self.counts})"
            case Verdict.BASELINE_UNHEALTHY:
                more = f"stable fails more than {self.max_worse * 100:g} % of its turns, at 95 %"
                return f"baseline unhealthy: {more} ({self.counts})"
            case Verdict.UNDECIDED:
                return f"undecided: {'; '.join(self._gaps())} ({self.counts})"

    @property
    def counts(self) -> str:
        """The counts of the turns, in words."""
        text = f"canary: {self.failed} of {self.clean + self.failed} turns failed"
        if seen := self.stable_clean + self.stable_failed:
            text += f"; stable: {self.stable_failed} of {seen}"
        if self.unknown_failed:
            front = f"{self.unknown_failed} of {self._front.yes + self._front.no} turns failed"
            text += f"; front door: {front}, and nothing shows which revision answered"
        return text

    def facts(self) -> dict[str, object]:
        """Return the verdict and its figures, ready for JSON."""
        return {
            "verdict": self.verdict.value,
            "claim": self.describe(),
            "no_worse_by_percent": least_margin(self.clean, self.failed),
            "confidence_percent": 95,
            "canary_turns": self.clean + self.failed,
            "canary_failed": self.failed,
            "stable_turns": self.stable_clean + self.stable_failed,
            "stable_failed": self.stable_failed,
            "unknown_failed": self.unknown_failed,
            "worse_e_value": round(math.exp(min(self.compared.log, 50.0)), 3),
            "time_pairs": self.whole.pairs,
        }

    def _reasons(self) -> Iterator[str]:
        """Yield the reasons for WORSE."""
        most = f"more than {self.max_worse * 100:g} % of"
        if self.compared.holds:
            yield "fails more turns than stable, at 95 %"
        elif self._alone.holds:
            yield f"fails {most} its turns, at 95 %"
        elif self._front.holds:
            yield f"may be the cause: {most} the turns through the front door fail, at 95 %, and the streams do not show which revision answers"
        for name, time in self._times:
            if time.slower.holds:
                yield f"is slower than stable: {name} by more than {self._margin}, in {time.slower.yes} of {time.pairs} pairs"

    def _gaps(self) -> Iterator[str]:
        """Yield the things that are missing for NO WORSE."""
        claim = f"for no worse by {self.max_worse * 100:g} %, at 95 %,"
        if self._own_missing > 0:
            yield f"{claim} {self._own_missing} more turns of the canary must succeed"
        if self._front_missing > 0:
            yield f"{claim} {self._front_missing} more turns through the front door must succeed"
        if self._times_open:
            pairs = f"{self.whole.slower.yes} of {self.whole.pairs} pairs slower"
            yield f"too few pairs to say that the canary is no slower than stable by {self._margin} ({pairs})"

    @property
    def _margin(self) -> str:
        return f"{self.max_slower * 100:g} % (at least {LEAST_SLOWER_SECONDS:g} s)"

    def _describe_times(self) -> str:
        if not self.max_slower:
            return "times are not judged (MAX_CANARY_SLOWER_PERCENT is 0)"
        if not self.whole.pairs:
            return "times are not compared, because no stream of stable was seen beside the canary's"
        return f"no slower than stable by {self._margin}, in {self.whole.pairs} pairs"
