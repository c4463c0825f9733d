"""The streams of one canary step, counted by the revision that answered, and the judgement on these counts.

The share that the canary got is held against the share asked for by an exact test (``model/share_test.py``). A front door may lag behind
the split, so only streams that began after the lag contradict a share for certain; earlier ones are a reason to ask again.
"""

from collections import Counter
from collections.abc import Iterable

import anyio
import attrs

from cutover.checking.probe import Probe
from cutover.clock import Clock
from cutover.model import share_test
from cutover.production.lane_prober import LaneProber
from cutover.train.stream_proof import LAG_PAUSE

LOOKS_AT_ONCE = 2
"""Number of looks side by side while the front door is asked on; each look probes every alias."""
MOST_LATE = 200
"""Number of late streams after which a contradiction by earlier ones is not looked into any more."""
_ALL = 100


@attrs.define(eq=False)
class FrontCount:
    """The streams at the front door in one part of a step, where a header names who answered."""

    names: Counter[str] = attrs.field(factory=Counter)

    @property
    def streams(self) -> int:
        """The number of streams."""
        return sum(self.names.values())


@attrs.define(eq=False, kw_only=True)
class StepAnswers:
    """The counts of one step. They hold no response, so a soak of any length takes no more room."""

    canary: str
    percent: int
    """The canary's share at this step."""
    lag_ends: float
    """The time, on the train's clock, from which the front door must keep the share."""
    early: FrontCount = attrs.field(factory=FrontCount)
    """The streams at the front door that began before ``lag_ends``."""
    late: FrontCount = attrs.field(factory=FrontCount)
    """The streams at the front door that began later."""
    soaked: int = 0
    """Number of named streams at the front door in the soak, without those that were asked on later."""
    unnamed: int = 0
    """Number of streams at the front door whose response has no header."""
    at_tag: int = 0
    """Number of streams that the canary answered at its tag URL."""
    strangers: Counter[str] = attrs.field(factory=Counter)
    """The streams at the canary's tag URL that another revision answered, by the header."""

    def count_front(self, names: Iterable[str | None], *, began: float) -> None:
        """Count streams at the front door by the name in their header; None: no header."""
        part = self.late if began >= self.lag_ends else self.early
        for name in names:
            if name:
                part.names[name] += 1
            else:
                self.unnamed += 1

    def count_tag(self, names: Iterable[str | None]) -> None:
        """Count streams at the canary's tag URL by the name in their header. Without a header the canary answered."""
        for name in names:
            if name in {None, self.canary}:
                self.at_tag += 1
            else:
                self.strangers[str(name)] += 1

    @property
    def at_front(self) -> int:
        """The number of streams at the front door that the canary answered, by the header."""
        return self.early.names[self.canary] + self.late.names[self.canary]

    @property
    def by_canary(self) -> int:
        """The number of streams that the canary answered, wherever."""
        return self.at_front + self.at_tag

    @property
    def header_tells(self) -> bool:
        """True if a header named who answered a stream at the front door."""
        return bool(self.early.streams or self.late.streams)

    def end_soak(self) -> None:
        """Note the number of streams of the soak. If they contradict the share, as many late ones decide."""
        self.soaked = self.early.streams + self.late.streams

    def asks_for_more(self) -> bool:
        """Return True if more streams at the front door can decide: on a contradiction by early ones, or on a canary not yet seen."""
        if self._contradicts(self.late):
            return False
        if self._contradicts(self.early, self.late) and self.late.streams < min(self.soaked, MOST_LATE):
            return True
        return self.header_tells and not self.by_canary and self.may_see_canary()

    def may_see_canary(self) -> bool:
        """Return True if the canary has answered, or if too few streams came after the lag to say that it never will."""
        return bool(self.by_canary) or self.late.streams < share_test.streams_until_certain(self.percent)

    def share_problem(self) -> str:
        """Return the reason why the canary cannot have the share asked for; an empty text if nothing contradicts it."""
        if not self._contradicts(self.late):
            return ""
        answered, streams = self.late.names[self.canary], self.late.streams
        if self.percent == _ALL:
            others = ", ".join(sorted(name for name in self.late.names if name != self.canary))
            return f"the canary has all traffic, but {others} answered"
        return (
            f"the canary has {self.percent} % of the traffic, but it answered {answered} of {streams} streams at the front door; "
            f"the chance of that is {share_test.chance(answered, streams, self.percent):.1g}, less than 1 in 10,000"
        )

    def describe(self) -> str:
        """Return the number of streams that the canary answered, in words, and who answered in its place."""
        if self.by_canary:
            text = (
                f"the canary answered {self.by_canary} {'stream' if self.by_canary == 1 else 'streams'} "
                f"({self.at_front} at the front door by the header, {self.at_tag} at its tag)"
            )
        elif self.header_tells:
            text = f"the canary answered no stream (others answered all {self.early.streams + self.late.streams} at the front door)"
        else:
            text = "nothing shows that the canary answered a stream"
        if self.unnamed and self.header_tells:
            text += f"; {self.unnamed} more had no header"
        if self.strangers:
            who = ", ".join(f"{name} ({count})" for name, count in sorted(self.strangers.items()))
            text += f"; at its tag {who} answered instead"
        return text

    def _contradicts(self, *parts: FrontCount) -> bool:
        streams = sum(part.streams for part in parts)
        answered = sum(part.names[self.canary] for part in parts)
        # Where some streams are not named, the named ones are no sample of all. But all traffic leaves nothing for others.
        if self.unnamed and self.percent != _ALL:
            return False
        return share_test.contradicts(answered, streams, self.percent)


async def ask_on(answers: StepAnswers, prober: LaneProber, *, clock: Clock, label: str) -> list[Probe]:
    """Probe the front door on while more streams can decide, and count them; return the probes. A broken stream ends it.

    ``StepAnswers.asks_for_more`` bounds the number of streams. Before ``lag_ends`` there is one look each second at most.
    """
    probes: list[Probe] = []
    answers.end_soak()
    while answers.asks_for_more() and all(probe.ok for probe in probes):
        left = answers.lag_ends - clock.now()
        if left > 0:
            await clock.sleep(left if answers.by_canary else min(LAG_PAUSE, left))
        began = clock.now()
        more: list[Probe] = []

        async def look(into: list[Probe] = more) -> None:
            into += await prober.probe_all(label=label)

        async with anyio.create_task_group() as looks:
            for _ in range(LOOKS_AT_ONCE if began >= answers.lag_ends else 1):
                looks.start_soon(look)
        answers.count_front([prober.revision(probe) for probe in more], began=began)
        probes += more
    return probes
