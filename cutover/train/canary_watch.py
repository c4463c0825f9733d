"""A watch over the canary at one share: looks at every place, for a time and on until the canary is decided.

The soak of a share, the wait that may follow it, and the canary's first turns at its own URL are watched by this code. A turn that breaks the
contract, or a decision against the canary, ends the watch at once. After a turn that failed on its way, looks come every second until the
judge has enough turns.
"""

from collections.abc import Awaitable, Callable

import anyio
import attrs

from cutover.checking.probe import Probe
from cutover.production.services import Services
from cutover.train.canary_answers import StepAnswers, ask_on
from cutover.train.canary_judge import CanaryJudge
from cutover.train.canary_plan import Plan
from cutover.train.sentinels import Watch
from cutover.train.soak import FRONT_DOOR, MOST_AT_ONCE, Seen, look, look_count, paced_count, soak

PRESSING_SECONDS = 1.0
"""Seconds between two looks while a share is undecided, if CANARY_LOOK_SECONDS is not less: after a failed turn, and after the soak."""


@attrs.define(eq=False, kw_only=True)
class CanaryWatch:
    """One watch over the canary at one share."""

    name: str
    """The check that rests on this watch."""
    label: str
    """The beginning of the labels of the requests."""
    plan: Plan
    services: Services
    judge: CanaryJudge
    answers: StepAnswers | None
    """The counts of the share; None before the first one."""
    tag_url: Callable[[str], str | None]
    """Returns the URL at which a revision is probed alone; None without one."""
    see_fault: Callable[[], None]
    """Called for each probe that is not good."""
    seen: Seen = attrs.field(factory=Seen)
    """Everything that the looks of this watch saw."""
    _stop: Callable[[], None] = lambda: None
    """Ends the looks."""
    _turn_failed: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when a turn failed on its way."""
    _pressing: anyio.Lock = attrs.field(factory=anyio.Lock)
    """Held by the one task that looks on while the share is undecided."""

    @property
    def lost(self) -> bool:
        """True if the share cannot pass any more: a turn ended it at once, or the judge decided against the canary."""
        return bool(self.seen.failing) or self.judge.decided_against

    async def keep(
        self,
        seconds: float,
        *,
        sentinels: Watch,
        take_look: Callable[[], Awaitable[bool]] | None = None,
        ends: anyio.Event | None = None,
    ) -> bool:
        """Watch the share for a time, and on while it is undecided; return False at once if it failed.

        A watch that ``ends`` may end early is over with its time, decided or not.

        Args:
            seconds: The time.
            sentinels: The sentinels around the change. Too many broken ones end the watch.
            take_look: Takes one look, and returns True if it was good; None for ``look``.
            ends: Ends the time early: no planned look or sentinel begins after it is set.
        """
        whole, clock = False, self.services.clock
        longest = clock.now() + max(seconds, self.plan.longest_soak)
        async with anyio.create_task_group() as tasks:
            self._stop = tasks.cancel_scope.cancel

            async def press_on_after_failures() -> None:
                while True:
                    await self._turn_failed.wait()
                    self._turn_failed = anyio.Event()
                    await self._press_on(longest)

            sentinels.take_paced = self.take_paced
            tasks.start_soon(press_on_after_failures)
            if await soak(
                seconds,
                clock=clock,
                watch=sentinels,
                paced=paced_count(seconds),
                looks=look_count(seconds, self.plan.canary_look_seconds),
                take_look=take_look or self.look,
                ends=ends,
            ):
                if ends is None:
                    await self._press_on(longest)
                whole = True
            tasks.cancel_scope.cancel()
        return whole

    async def look(self) -> bool:
        """Probe the front door, and each revision that has a tag URL, side by side; return True if no probe ends the share."""
        probers = {FRONT_DOOR: self.services.prober}
        for revision in (self.plan.canary_revision, self.plan.stable_revision):
            if url := self.tag_url(revision):
                probers[revision] = self.services.prober.at(url)
        began = self.services.clock.now()

        def take(where: str, probe: Probe) -> bool:
            self._count_answer(where, probe, began=began)
            return self.take(where, probe)

        return await look(probers, label=self.label, take=take)

    def take(self, where: str, probe: Probe) -> bool:
        """Give the judge one probe; return False if it ends the share at once."""
        self.seen.log.add(probe)
        if not probe.ok:
            self.see_fault()
        place = None if where == FRONT_DOOR else where
        if not self._weigh(probe, place):
            # At a tag URL the header outweighs the tag.
            self.seen.failing.add((place and self.services.prober.revision(probe)) or where)
            return False
        return True

    def take_paced(self, probe: Probe) -> bool:
        """Give the judge a sentinel that follows the change, because it is a turn as any other; return False if it is not weighed."""
        return self._weigh(probe, None)

    def _weigh(self, probe: Probe, place: str | None) -> bool:
        """Give the judge a probe at the own URL of a revision, or at the front door; return False if it is not weighed."""
        named = self.services.prober.revision(probe)
        if not self.judge.turns.weigh(probe, name=named, place=place):
            return False
        if self.judge.decided_against:
            self._stop()
        elif not probe.ok:
            self._turn_failed.set()
        return True

    async def ask_on(self, answers: StepAnswers, *, until: float) -> None:
        """Probe the front door on while more streams can show who answers there; then press on if their turns leave the share undecided."""
        prober = self.services.prober
        more = await ask_on(answers, prober, clock=self.services.clock, label=f"{self.label}.on")
        for probe in more:
            self.take(FRONT_DOOR, probe)
        if not self.seen.failing:
            await self.press_on(until)

    async def press_on(self, until: float) -> None:
        """Look on while the share is undecided and more looks can decide it, up to a time on the clock or the first turn that ends it."""
        with anyio.CancelScope() as looks:
            self._stop = looks.cancel
            await self._press_on(until)

    async def _press_on(self, until: float) -> None:
        """Do the looks of ``press_on``. ``_stop`` ends them."""
        clock, pause = self.services.clock, min(PRESSING_SECONDS, self.plan.canary_look_seconds)
        slots = anyio.Semaphore(MOST_AT_ONCE)
        running = 0

        async def take() -> None:
            nonlocal running
            try:
                if not await self.look():
                    self._stop()
            finally:
                running -= 1
                slots.release()

        async with self._pressing:
            while self._wants_more() and clock.now() < until:
                async with anyio.create_task_group() as looks:
                    while self._wants_more() and clock.now() < until:
                        await clock.sleep(pause)
                        if not self._wants_more():
                            break
                        missing = self.judge.judgement.missing_turns
                        if running and running * self.judge.turns.least_at_a_look >= missing:
                            # The looks that still run may be enough.
                            continue
                        await slots.acquire()
                        running += 1
                        looks.start_soon(take)

    def _wants_more(self) -> bool:
        """Return True if the share is undecided and more looks can decide it."""
        return self.judge.undecided and (self.answers is None or self.answers.may_see_canary())

    def _count_answer(self, where: str, probe: Probe, *, began: float) -> None:
        """Count a stream of a look by the revision that answered."""
        if self.answers is None:
            return
        name = self.services.prober.revision(probe)
        if where == FRONT_DOOR:
            self.answers.count_front([name], began=began)
        elif where == self.plan.canary_revision:
            self.answers.count_tag([name])
