"""The canary rollback drill: move traffic step by step, watch what it does, and prove the way back before it is needed.

It is long because way forward, soak and way back share what was captured and what has failed, and are read as one story.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import anyio
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
from cutover.train.sentinels import Sentinels, Watch, ticks
from cutover.train.step_recorder import StepRecorder

if TYPE_CHECKING:
    from cutover.production.lane_prober import LaneProber

STEP_ID = step_ids.DRILL
LAG_SECONDS = 15.0
"""How long the front door may lag behind the split that is served, where a header tells who answers."""
LAG_PAUSE = 1.0
"""Seconds between two looks at who answers; each starts turns."""
ROLLBACK_LOOKS = 5
"""Looks in a row after the rollback, each at every alias, in which the canary answers nobody: ten probes of this lane."""
_ALL = 100


@attrs.frozen(kw_only=True)
class Plan:
    """What to move, how far, and how long to watch."""

    stable: str
    canary: str
    percents: tuple[int, ...]
    """The canary's share at each step, in percent, rising."""
    soak_seconds: float
    """How long each step is held and watched."""
    max_rollback_seconds: float
    """From the rollback's first write to the proof that stable serves everything."""
    max_failures: int
    """Failed rows that do not end the drill."""
    max_broken_streams: int


async def run(
    plan: Plan, captured: TrafficState, services: Services, sentinels: Sentinels, recorder: StepRecorder
) -> StepResult:
    """Drill: each step read back and probed, then the rollback, proven and timed, then what was captured.

    What was captured is the preflight's: where the split is another by now nothing is moved, for it is somebody else's.
    """
    try:
        found = await services.traffic.read(label="drill.status-pre")
    except (
        PeerError
    ) as error:  # nothing was moved, and nothing is known: no evidence, also where it was refused
        recorder.check("status-pre", StepStatus.ERROR, str(error), tolerable=False)
        return recorder.finish()
    if moved := captured.differences_from(found) or found.unready_reason():
        said = f"the service is not as the preflight found it, and was not touched: {moved}"
        recorder.check("status-pre", StepStatus.FAIL, said, tolerable=False)
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
    """By the preflight."""
    state: TrafficState
    """As it was last read."""
    mover: TrafficMover = attrs.field(init=False)
    tallies: list[SentinelTally] = attrs.field(factory=list)
    rollback_seconds: float | None = None
    named: set[str] = attrs.field(factory=set)
    """Who has ever answered at the front door, where a header told."""

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
        """Whether a write may have been sent."""
        return any(isinstance(event, TrafficIntended) for event in changes(self.recorder.journal.events))

    async def run(self) -> StepResult:
        await self._canary_first()
        if self._may_go_on():
            for percent in self.plan.percents:
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
            len(failed) <= self.plan.max_failures
            and all(check.tolerable for check in failed)
            and broken <= self.plan.max_broken_streams
        )

    def _names(self, probes: Iterable[Probe]) -> set[str]:
        """Return who answered these, where a header tells."""
        names = {name for probe in probes if (name := self.services.prober.revision(probe))}
        self.named |= names
        return names

    async def _until_canary(self, seen: set[str], name: str) -> set[str]:
        """Return who answers, given who answered so far: a shift is not instantaneous, so ask on for the canary."""
        deadline = self.services.clock.now() + LAG_SECONDS
        while seen and self.plan.canary not in seen and self.services.clock.now() < deadline:
            await self.services.clock.sleep(LAG_PAUSE)
            probe = await self.services.prober.probe(
                self.services.prober.aliases[0], label=f"drill.{name}.lag"
            )
            seen = self._names([probe])
        return seen

    async def _without_canary(self, seconds: float) -> tuple[list[Probe], bool]:
        """Look until the canary has answered nobody in so many looks in a row; return all probes, and whether it still did.

        Each answer of the canary starts the run anew after a pause, and fails it once the seconds are over. Where no header
        has ever told who answers one look is all; a broken stream ends it as well.
        """
        deadline, clean, probes = self.services.clock.now() + seconds, 0, list[Probe]()
        while True:
            look = await self.services.prober.probe_all(label="drill.rollback.front")
            probes += look
            still = self.plan.canary in self._names(look)
            clean = 0 if still else clean + 1
            over = still and self.services.clock.now() >= deadline
            broken = any(not probe.ok for probe in look)
            if over or broken or clean == ROLLBACK_LOOKS or not self.named:
                return probes, still
            if still:
                await self.services.clock.sleep(LAG_PAUSE)

    async def _canary_first(self) -> None:
        """Probe the canary by its tag's URL, where it has one, before it serves anyone."""
        url = self.state.tag_url(self.plan.canary)
        if url is not None:
            probes = await self.services.prober.at(url).probe_all(label="drill.canary-direct")
            self.recorder.stream_check("canary-direct", probes)

    async def _step(self, percent: int) -> None:
        name = f"traffic-{percent}"
        targets = split(self.captured, {self.plan.stable: _ALL - percent, self.plan.canary: percent})
        watch = self.sentinels.around(name)
        shift = await self._shift(targets, watch, name, on_refusal=OnRefusal.STOP, deadline=SETTLE_DEADLINE)
        if not shift.proven:
            self.recorder.check(name, StepStatus.FAIL, shift.detail, kind="traffic", tolerable=False)
        else:
            await self._soak(percent, targets, name, watch)
        self._count(watch)

    def _count(self, watch: Watch) -> None:
        """Add up the sentinels of one change; more broken ones than may be are a row of their own."""
        tally = watch.tally()
        self.tallies.append(tally)
        broken = sum(seen.broken for seen in self.tallies)
        if tally.broken and broken > self.plan.max_broken_streams:
            said = f"{tally.broken} of {tally.streams} streams broke across {tally.change}: {'; '.join(tally.details)}"
            self.recorder.check(f"{tally.change}-sentinels", StepStatus.FAIL, said, kind="sentinels")

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
        """Watch one step through its soak; all that is seen is one row."""
        seen: dict[str, list[Probe]] = {}
        for tick in ticks(self.plan.soak_seconds):
            if tick.pause:
                await self.services.clock.sleep(tick.pause)
                await watch.pace()
            if tick.probe:
                for who, probes in (await self._look(name)).items():
                    seen.setdefault(who, []).extend(probes)
                if any(not probe.ok for probes in seen.values() for probe in probes):
                    break  # it has failed; every further second is a user's
        if all(probe.ok for probes in seen.values() for probe in probes) and not await self._held(
            targets, name
        ):
            return
        await self._judge(percent, name, seen)

    async def _held(self, targets: tuple[TrafficTarget, ...], name: str) -> bool:
        """Read the split once more: what was watched is evidence only if it was there to the end."""
        try:
            self.state = await self.services.traffic.read(label=f"drill.{name}.held")
        except PeerError as error:
            self.recorder.failure(name, error, kind="traffic", tolerable=False)
            return False
        if problem := mismatch_reason(self.state, targets):
            said = f"it did not hold through the soak: {problem}"
            self.recorder.check(name, StepStatus.FAIL, said, kind="traffic", tolerable=False)
        return not problem

    async def _look(self, name: str) -> Mapping[str, list[Probe]]:
        """Probe the front door, and each revision by its tag's URL where it has one, side by side."""
        probers: dict[str, LaneProber] = {"the front door": self.services.prober}
        for revision in (self.plan.canary, self.plan.stable):
            if url := self.state.tag_url(revision):
                probers[revision] = self.services.prober.at(url)
        seen: dict[str, list[Probe]] = {}

        async def look(who: str) -> None:
            seen[who] = await probers[who].probe_all(label=f"drill.{name}.{who}")

        async with anyio.create_task_group() as group:
            for who in probers:
                group.start_soon(look, who)
        return seen

    async def _judge(self, percent: int, name: str, seen: Mapping[str, list[Probe]]) -> Check:
        probes = [probe for who in seen for probe in seen[who]]
        failing = [who for who in seen if any(not probe.ok for probe in seen[who])]
        if failing:
            return self.recorder.stream_check(name, probes, blame=_blame(failing, self.plan), kind="traffic")
        answered = self._names(seen["the front door"])
        if percent == _ALL:
            answered = await self._until_canary(answered, name)
        told = ", ".join(sorted(answered))
        if percent == _ALL and answered and self.plan.canary not in answered:
            said = f"all traffic is the canary's, and {told} answered"
            return self.recorder.check(name, StepStatus.FAIL, said, kind="traffic", tolerable=False)
        who = f", answered by {told}" if answered else ""
        who += "" if not answered or self.plan.canary in answered else f" ({self.plan.canary} answered none)"
        said = f"{describe_shares(self.state.served())}; {len(probes)} probes keep the contract{who}"
        return self.recorder.stream_check(name, probes, detail=said, kind="traffic")

    async def _rollback(self) -> None:
        """Give everything to stable, by way of proof also where the drill has failed; and see who answers then."""
        if not self.moved:
            return
        watch = self.sentinels.around("rollback")
        shift = await self._shift(
            split(self.captured, {self.plan.stable: _ALL}),
            watch,
            "rollback",
            on_refusal=OnRefusal.TRY_AGAIN,
            deadline=self.plan.max_rollback_seconds,
        )
        self.rollback_seconds = round(shift.seconds, 3)
        if not shift.proven:
            self.recorder.check("rollback", StepStatus.FAIL, shift.detail, kind="rollback", tolerable=False)
        elif shift.seconds > self.plan.max_rollback_seconds:
            said = (
                f"the rollback took {shift.seconds:.1f} s, and may take {self.plan.max_rollback_seconds:g} s"
            )
            self.recorder.check("rollback", StepStatus.FAIL, said, kind="rollback", tolerable=False)
        else:
            probes, still = await self._without_canary(self.plan.max_rollback_seconds - shift.seconds)
            if still:
                said = f"after the rollback {self.plan.canary} still answered a stream"
                self.recorder.check("rollback", StepStatus.FAIL, said, kind="rollback", tolerable=False)
            else:
                said = f"stable serves everything, proven within {shift.seconds:.1f} s"
                self.recorder.stream_check("rollback", probes, detail=said, kind="rollback")
        self._count(watch)

    async def _restore(self) -> None:
        """Put back what was captured; after a failed drill, leave everything on stable."""
        stable = split(self.captured, {self.plan.stable: _ALL})
        if not self.moved:
            await self._status_post(self.captured.targets, "as captured, nothing was moved")
            return
        if not self._may_go_on():
            await self.services.clock.sleep(HELD_SECONDS)  # no later step looks again
            await self._status_post(stable, "left on stable, for the drill failed")
            return
        if not self._untested(self.state) and mismatch_reason(self.state, self.captured.targets):
            mover = attrs.evolve(self.mover, objection=self._untested)
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
        """Return why what was captured is not to be put back over this state, empty where it may be."""
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
    """Say whose fault it looks like: the canary's alone, or everybody's."""
    if plan.stable in failing:
        return "stable breaks the contract too: not the canary alone is broken"
    if plan.canary in failing:
        return f"{plan.canary} breaks the contract by its own URL"
    return "a stream through the front door breaks the contract"
