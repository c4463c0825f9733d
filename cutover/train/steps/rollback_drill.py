"""The canary rollback drill: it moves traffic to the canary step by step, and proves that a rollback works.

The drill probes and watches each step. The module is long because the steps, the soak and the rollback share the
capture and the failures so far, and are best read together.
"""

from collections.abc import Iterable

import attrs

from cutover.checking.probe import Probe
from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus
from cutover.model.traffic_state import (
    TrafficState,
    TrafficTarget,
    describe_shares,
    mismatch_reason,
    pin_latest_if_changed,
    split,
)
from cutover.model.train_events import TrafficIntended, TrafficSettled, changes
from cutover.production.on_refusal import OnRefusal
from cutover.production.services import Services
from cutover.production.traffic.mover import HELD_SECONDS, SETTLE_DEADLINE, Shift, TrafficMover
from cutover.train.sentinels import Sentinels, Watch
from cutover.train.soak import Seen, look, look_count, paced_count, soak
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.DRILL
LAG_SECONDS = 15.0
"""Seconds for which the front door may lag behind the served split, if a header names who answers."""
LAG_PAUSE = 1.0
"""Seconds between two looks at who answers; each look starts chat turns."""
ROLLBACK_LOOKS = 5
"""Number of looks in a row after the rollback in which the canary must answer no probe; each look probes every alias."""
FRONT_DOOR = "the front door"
"""The place of a look at BASE_URL; the other places are the revisions with a URL of their own."""
_ALL = 100


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the drill."""

    stable_revision: str
    canary_revision: str
    canary_steps: tuple[int, ...]
    """The canary's share at each step, in percent, rising."""
    canary_soak_seconds: float
    """Seconds for which each step is held and watched."""
    canary_look_seconds: float
    """Longest time in seconds between two looks at every alias while a step is held."""
    max_rollback_seconds: float
    """Largest number of seconds from the rollback's first write to the proof that stable serves everything.

    If the canary answers a stream after these seconds, the drill fails.
    """
    max_canary_drill_failures: int
    """Largest number of failed checks with which the drill goes on, if each of them is tolerable."""
    max_broken_streams: int


async def run(
    plan: Plan, captured: TrafficState, services: Services, sentinels: Sentinels, recorder: StepRecorder
) -> StepResult:
    """Move traffic step by step, roll back, and restore the captured split; a failed drill leaves all traffic on stable.

    Each change is read back; the canary steps and the rollback are probed too. The drill moves nothing if the split
    cannot be read, is in change, or is no longer as the preflight captured it.
    """
    try:
        found = await services.traffic.read(label="drill.status-pre")
    # Nothing was moved and nothing is known: even a refusal is no evidence here.
    except PeerError as error:
        recorder.check("status-pre", StepStatus.ERROR, str(error), tolerable=False)
        return recorder.finish()
    if moved := captured.differences_from(found) or found.unready_reason():
        detail = f"the service is not as the preflight found it, and was not changed: {moved}"
        recorder.check("status-pre", StepStatus.FAIL, detail, tolerable=False)
        return recorder.finish()
    recorder.check("status-pre", StepStatus.PASS, describe_shares(found.served()))
    drill = _Drill(
        plan=plan, services=services, sentinels=sentinels, recorder=recorder, captured=captured, state=found
    )
    return await drill.run()


@attrs.define(eq=False)
class _Drill:
    plan: Plan
    services: Services
    sentinels: Sentinels
    recorder: StepRecorder
    captured: TrafficState
    """The split that the preflight captured."""
    state: TrafficState
    """The split at the last read."""
    mover: TrafficMover = attrs.field(init=False)
    tallies: list[SentinelTally] = attrs.field(factory=list)
    rollback_seconds: float | None = None
    named: set[str] = attrs.field(factory=set)
    """The revisions that have answered at the front door so far, by the header."""
    fault_seen_at: float | None = None
    """Time of the first evidence of a fault in the running step, on the clock of the train; None without one."""

    def __attrs_post_init__(self) -> None:
        self.mover = TrafficMover(
            backend=self.services.traffic,
            journal=self.recorder.journal,
            clock=self.services.clock,
            captured=self.captured,
            step_id=STEP_ID,
        )

    @property
    def moved(self) -> bool:
        """True if a write may have been sent."""
        return any(isinstance(event, TrafficIntended) for event in changes(self.recorder.journal.events))

    async def run(self) -> StepResult:
        await self._canary_first()
        if self._may_go_on():
            for percent in self.plan.canary_steps:
                await self._step(percent)
                if not self._may_go_on():
                    break
        await self._rollback()
        await self._restore()
        return self.recorder.finish(
            f"{'the rollback took' if self.rollback_seconds is not None else 'no rollback was needed:'} "
            f"{self.rollback_seconds or 0:.1f} s; {describe_shares(self.state.served())}",
            facts={
                "rollback_seconds": self.rollback_seconds,
                "max_rollback_seconds": self.plan.max_rollback_seconds,
                "traffic": self.state.served(),
                "captured_traffic": self.captured.served(),
            },
            sentinels=self.tallies,
        )

    def _may_go_on(self) -> bool:
        failed = [check for check in self.recorder.checks if check.status.failed]
        broken = sum(tally.broken for tally in self.tallies)
        return (
            len(failed) <= self.plan.max_canary_drill_failures
            and all(check.tolerable for check in failed)
            and broken <= self.plan.max_broken_streams
        )

    def _names(self, probes: Iterable[Probe]) -> set[str]:
        """Return the revisions that answered these probes, by the header; add them to ``named``."""
        names = {name for probe in probes if (name := self.services.prober.revision(probe))}
        self.named |= names
        return names

    async def _until_canary(self, seen: set[str], name: str) -> set[str]:
        """Probe on until the canary answers, because a front door may lag; return the revisions that answered last.

        The probes end after ``LAG_SECONDS``, or when no header names a revision. ``seen`` holds the revisions so far.
        """
        deadline = self.services.clock.now() + LAG_SECONDS
        while seen and self.plan.canary_revision not in seen and self.services.clock.now() < deadline:
            await self.services.clock.sleep(LAG_PAUSE)
            probe = await self.services.prober.probe(
                self.services.prober.aliases[0], label=f"drill.{name}.lag"
            )
            seen = self._names([probe])
        return seen

    async def _without_canary(self, seconds: float) -> tuple[list[Probe], bool]:
        """Look until the canary has answered no probe in ``ROLLBACK_LOOKS`` looks in a row.

        An answer of the canary starts the count again after a pause, and ends the looks once the time is over. Without a
        header that names who answers, one look is enough. A broken stream ends the looks as well.

        Args:
            seconds: Time until an answer of the canary is final.

        Returns:
            All probes, and True if the canary answered in the last look.
        """
        deadline, clean, probes = self.services.clock.now() + seconds, 0, list[Probe]()
        while True:
            look = await self.services.prober.probe_all(label="drill.rollback.front")
            probes += look
            still = self.plan.canary_revision in self._names(look)
            clean = 0 if still else clean + 1
            over = still and self.services.clock.now() >= deadline
            broken = any(not probe.ok for probe in look)
            if over or broken or clean == ROLLBACK_LOOKS or not self.named:
                return probes, still
            if still:
                await self.services.clock.sleep(LAG_PAUSE)

    async def _canary_first(self) -> None:
        """Probe the canary at its tag URL, if it has one, before it serves anyone."""
        url = self.state.tag_url(self.plan.canary_revision)
        if url is not None:
            probes = await self.services.prober.at(url).probe_all(label="drill.canary-direct")
            self.recorder.stream_check("canary-direct", probes)

    async def _step(self, percent: int) -> None:
        name = f"traffic-{percent}"
        targets = split(
            self.captured, {self.plan.stable_revision: _ALL - percent, self.plan.canary_revision: percent}
        )
        # A fault of an earlier step was tolerated, so it is not the cause of a later rollback.
        self.fault_seen_at = None
        watch = self.sentinels.around(name, on_fault=self._see_fault)
        async with watch.open():
            shift = await self._shift(
                targets, watch, name, on_refusal=OnRefusal.STOP, deadline=SETTLE_DEADLINE
            )
            if shift.proven:
                await self._soak(percent, targets, name, watch)
            else:
                self._see_fault()
                self.recorder.check(name, StepStatus.FAIL, shift.detail, kind="traffic", tolerable=False)
        self._count(watch)

    def _see_fault(self) -> None:
        """Note the time of the first evidence of a fault."""
        if self.fault_seen_at is None:
            self.fault_seen_at = self.services.clock.now()

    def _count(self, watch: Watch) -> None:
        """Add the tally of one change to the drill's tallies. Record a failed check if it has a break and the drill has too many."""
        tally = watch.tally()
        self.tallies.append(tally)
        broken = sum(seen.broken for seen in self.tallies)
        if tally.broken and broken > self.plan.max_broken_streams:
            detail = f"{tally.broken} of {tally.streams} streams broke across {tally.change}: {'; '.join(tally.details)}"
            if tally.shown_in_flight:
                detail += f" ({tally.shown_in_flight})"
            self.recorder.check(f"{tally.change}-sentinels", StepStatus.FAIL, detail, kind="sentinels")

    async def _shift(
        self,
        targets: tuple[TrafficTarget, ...],
        watch: Watch,
        name: str,
        *,
        on_refusal: OnRefusal,
        deadline: float,
    ) -> Shift:
        async def move() -> Shift:
            return await self.mover.shift(
                targets, current=self.state, label=f"drill.{name}", on_refusal=on_refusal, deadline=deadline
            )

        shift = await watch.across(move)
        self.state = shift.state or self.state
        return shift

    async def _soak(self, percent: int, targets: tuple[TrafficTarget, ...], name: str, watch: Watch) -> None:
        """Watch one canary step through its soak, up to the first sign of a fault; record one check for the whole soak."""
        seen = Seen()
        plan = self.plan
        whole = await soak(
            plan.canary_soak_seconds,
            clock=self.services.clock,
            watch=watch,
            paced=paced_count(plan.canary_soak_seconds),
            looks=look_count(plan.canary_soak_seconds, plan.canary_look_seconds),
            take_look=lambda: self._look(name, seen),
        )
        self.named |= set(seen.at(FRONT_DOOR).answered)
        if not whole and not seen.log.bad:
            detail = "the soak was ended early, because a sentinel stream broke"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic")
        elif seen.log.bad or await self._held(targets, name):
            check = await self._judge(percent, name, seen)
            if check.status.failed:
                self._see_fault()
        else:
            self._see_fault()

    async def _held(self, targets: tuple[TrafficTarget, ...], name: str) -> bool:
        """Read the split once more; return True if it held through the soak, else record a failed check and return False."""
        try:
            self.state = await self.services.traffic.read(label=f"drill.{name}.held")
        except PeerError as error:
            self.recorder.failure(name, error, kind="traffic", tolerable=False)
            return False
        if problem := mismatch_reason(self.state, targets):
            detail = f"it did not hold through the soak: {problem}"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic", tolerable=False)
        return not problem

    async def _look(self, name: str, seen: Seen) -> bool:
        """Probe the front door, and each revision that has a tag URL, side by side; return True if every probe is good."""
        probers = {FRONT_DOOR: self.services.prober}
        for revision in (self.plan.canary_revision, self.plan.stable_revision):
            if url := self.state.tag_url(revision):
                probers[revision] = self.services.prober.at(url)

        def take(where: str, probe: Probe) -> None:
            seen.add(where, probe, revision=self.services.prober.revision(probe))
            if not probe.ok:
                self._see_fault()

        return await look(probers, label=f"drill.{name}", take=take)

    async def _judge(self, percent: int, name: str, seen: Seen) -> Check:
        failing = [who for who, place in seen.places.items() if place.bad]
        if failing:
            return self.recorder.stream_check(
                name, seen.log, blame=_blame(failing, self.plan), kind="traffic"
            )
        answered = set(seen.at(FRONT_DOOR).answered)
        if percent == _ALL:
            answered = await self._until_canary(answered, name)
        names = ", ".join(sorted(answered))
        if percent == _ALL and answered and self.plan.canary_revision not in answered:
            detail = f"the canary has all traffic, but {names} answered"
            return self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic", tolerable=False)
        who = f", answered by {names}" if answered else ""
        who += (
            ""
            if not answered or self.plan.canary_revision in answered
            else f" ({self.plan.canary_revision} answered none)"
        )
        detail = f"{describe_shares(self.state.served())}; {seen.log.count} probes keep the contract{who}"
        return self.recorder.stream_check(name, seen.log, detail=detail, kind="traffic")

    async def _rollback(self) -> None:
        """Move all traffic to stable, also after a failed drill, and check that the canary answers no more.

        Do nothing if the drill sent no write.
        """
        if not self.moved:
            return
        watch = self.sentinels.around("rollback")
        shift = await self._shift(
            split(self.captured, {self.plan.stable_revision: _ALL}),
            watch,
            "rollback",
            on_refusal=OnRefusal.TRY_AGAIN,
            deadline=self.plan.max_rollback_seconds,
        )
        self.rollback_seconds = round(shift.seconds, 3)
        if not shift.proven:
            self.recorder.check("rollback", StepStatus.FAIL, shift.detail, kind="rollback", tolerable=False)
        elif shift.seconds > self.plan.max_rollback_seconds:
            detail = f"the rollback took {shift.seconds:.1f} s, and {self.plan.max_rollback_seconds:g} s is allowed"
            self.recorder.check("rollback", StepStatus.FAIL, detail, kind="rollback", tolerable=False)
        else:
            probes, still = await self._without_canary(self.plan.max_rollback_seconds - shift.seconds)
            if still:
                detail = f"after the rollback {self.plan.canary_revision} still answered a stream"
                self.recorder.check("rollback", StepStatus.FAIL, detail, kind="rollback", tolerable=False)
            else:
                detail = f"stable serves everything, proven within {shift.seconds:.1f} s"
                self.recorder.stream_check("rollback", probes, detail=detail, kind="rollback")
        self._count(watch)

    async def _restore(self) -> None:
        """Restore the captured split; after a failed drill leave all traffic on stable."""
        stable = split(self.captured, {self.plan.stable_revision: _ALL})
        if not self.moved:
            await self._status_post(self.captured.targets, "as captured, nothing was moved")
            return
        if not self._may_go_on():
            # No later step reads the split again, so this read waits until a lost split shows.
            await self.services.clock.sleep(HELD_SECONDS)
            await self._status_post(stable, "left on stable, because the drill failed")
            return
        if not self._untested(self.state) and mismatch_reason(self.state, self.captured.targets):
            mover = attrs.evolve(self.mover, refuse_reason=self._untested)
            shift = await mover.shift(
                self.captured.targets,
                current=self.state,
                label="drill.restore",
                on_refusal=OnRefusal.TRY_AGAIN,
            )
            self.state = shift.state or self.state
        if pinned := self._untested(self.state):
            self.recorder.check("status-post", StepStatus.FAIL, pinned, tolerable=False)
            return
        await self._status_post(self.captured.targets, "as captured")

    def _untested(self, found: TrafficState) -> str:
        """Return the reason why the captured split must not be restored over this state; an empty text if there is none."""
        return pin_latest_if_changed(self.captured.targets, captured=self.captured, found=found)[1]

    async def _status_post(self, targets: tuple[TrafficTarget, ...], what: str) -> None:
        try:
            self.state = await self.services.traffic.read(label="drill.status-post")
        except PeerError as error:
            self.recorder.failure("status-post", error, tolerable=False)
            return
        if problem := mismatch_reason(self.state, targets):
            self.recorder.check("status-post", StepStatus.FAIL, problem, tolerable=False)
            return
        self.recorder.journal.record(TrafficSettled())
        self.recorder.check("status-post", StepStatus.PASS, f"{describe_shares(self.state.served())}: {what}")


def _blame(failing: list[str], plan: Plan) -> str:
    """Return who breaks the contract, in words: the canary alone, stable too, or the front door."""
    if plan.stable_revision in failing:
        return "stable breaks the contract too, so the canary is not the only cause"
    if plan.canary_revision in failing:
        return f"{plan.canary_revision} breaks the contract at its own URL"
    return "a stream through the front door breaks the contract"
