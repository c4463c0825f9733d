"""The canary's shares in one step of the train: the canary gets a share, and streams watch and judge it while it has that share.

The canary rollback drill gives it one share after another. A step that moves the canary for good gives it all traffic by the same way.

A turn that breaks the contract ends a share at once. Turns that failed on their way are weighed: the share passes when the canary is no worse
than stable by MAX_CANARY_WORSE_PERCENT, ends when it is worse, and is held longer while that is undecided.

The module is longer than most, because the soak of a share and the wait that may follow it watch and judge by the same code.
"""

from collections.abc import Awaitable, Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress

import anyio
import attrs

from cutover.checking.probe import Probe
from cutover.errors import PeerError
from cutover.model.gates import BASELINE, SENTINELS
from cutover.model.holds import check_id
from cutover.model.judgement import Judgement, Verdict
from cutover.model.results import Check, SentinelTally, StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason, split
from cutover.model.train_events import TrafficIntended
from cutover.production.on_refusal import OnRefusal
from cutover.production.services import Services
from cutover.production.traffic.mover import SETTLE_DEADLINE, TrafficMover
from cutover.train.canary_answers import StepAnswers, ask_on
from cutover.train.canary_evidence import CanaryEvidence
from cutover.train.canary_tag import CanaryTag
from cutover.train.canary_turns import CanaryTurns
from cutover.train.hold import Ending, Holds
from cutover.train.sentinels import Sentinels, Watch
from cutover.train.soak import MOST_AT_ONCE, Seen, look, look_count, paced_count, soak
from cutover.train.step_recorder import StepRecorder
from cutover.train.stream_proof import LAG_SECONDS

FRONT_DOOR = "the front door"
"""The place of a look at BASE_URL; the other places are the revisions with a URL of their own."""
SPLIT_SECONDS = 30.0
"""Seconds between two reads of the split during a wait for a decision."""
PRESSING_SECONDS = 1.0
"""Seconds between two looks while a share is undecided, if CANARY_LOOK_SECONDS is not less: after a failed turn, and after the soak."""
_ALL = 100


@attrs.frozen(kw_only=True)
class Plan:
    """The plan by which each share is held, watched and judged."""

    stable_revision: str
    canary_revision: str
    canary_soak_seconds: float
    """Seconds for which each share is held and watched."""
    canary_look_seconds: float
    """Longest time in seconds between two looks at every alias while a share is held."""
    canary_max_soak_seconds: float
    """Seconds for which a share is held at most while it is undecided; CANARY_SOAK_SECONDS if that is longer."""
    max_canary_worse_percent: float
    """The share of its turns that the canary must be shown not to fail, in percent."""
    max_canary_slower_percent: float
    """The percentage by which the canary may be slower than stable; 0: the times are not judged."""
    max_broken_streams: int
    canary_tag: str
    """The tag that the canary gets for the time of the step, if ``CanaryEvidence.gives_tag`` says so."""
    accept_blind_drill: bool
    """True: a share may pass although no stream is known to have been answered by the canary."""


@attrs.define(eq=False, kw_only=True)
class CanaryShares:
    """The shares of the canary in one step of the train, and what their streams showed."""

    plan: Plan
    captured: TrafficState
    """The split that the preflight captured."""
    state: TrafficState
    """The split at the last read."""
    services: Services
    sentinels: Sentinels
    recorder: StepRecorder
    evidence: CanaryEvidence
    """The evidence that the preflight found."""
    label: str
    """The beginning of the labels of the requests."""
    mover: TrafficMover = attrs.field(init=False)
    tag: CanaryTag = attrs.field(init=False)
    """The tag that the step may give the canary."""
    answers: StepAnswers | None = None
    """The counts of the present share; None before the first one."""
    by_canary: dict[str, dict[str, int]] = attrs.field(factory=dict)
    """Share -> the number of streams that the canary answered: at the front door, by the header, and at its tag."""
    blind: bool = False
    """True if a share passed although no stream is known to have been answered by the canary."""
    tallies: list[SentinelTally] = attrs.field(factory=list)
    fault_seen_at: float | None = None
    """Time on the clock at which the first evidence of a fault of the present share was seen; None without any."""
    named: set[str] = attrs.field(factory=set)
    """The revisions that have answered at the front door so far, by the header."""
    judgement: Judgement = attrs.field(init=False)
    """The judgement of the canary over all shares. It begins anew after a share that failed, if that failure is tolerated."""
    judged: dict[str, dict[str, object]] = attrs.field(factory=dict)
    """Check -> the judgement on which it rests, ready for JSON."""
    baseline_unhealthy: bool = False
    """True if stable failed by itself, so that the canary could not be judged."""
    _turns: CanaryTurns = attrs.field(init=False)
    """The turns of the present share."""
    _stop: Callable[[], None] = lambda: None
    """Ends the watching of the present share."""
    _turn_failed: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when a turn failed and the share is undecided."""
    _pressing: anyio.Lock = attrs.field(factory=anyio.Lock)
    """Held by the one task that looks on while a share is undecided."""

    def __attrs_post_init__(self) -> None:
        """Make the mover, the tag and the judgement of the step."""
        self._begin_judgement()
        self.mover = TrafficMover(
            backend=self.services.traffic,
            journal=self.recorder.journal,
            clock=self.services.clock,
            captured=self.captured,
            step_id=self.recorder.step_id,
            refuse_reason=self._overtaken,
        )
        self.tag = CanaryTag(
            canary=self.plan.canary_revision,
            name=self.plan.canary_tag,
            captured=self.captured,
            services=self.services,
            mover=self.mover,
            recorder=self.recorder,
        )

    async def give(
        self, percent: int, *, change: str = "", once_served: Callable[[], Awaitable[bool]] | None = None
    ) -> None:
        """Give the canary a share, hold it for the soak, and record one check for all of it.

        The check fails at the first sign of a fault. The share stays as it is: a rollback is the caller's.

        Args:
            percent: The share.
            change: The name of the change, for its check and its sentinels; empty for ``traffic-<percent>``.
            once_served: Called when the share is served, before it is watched; False ends it there. It records its own check.
        """
        name = change or f"traffic-{percent}"
        targets = self._targets(percent)
        # A fault of an earlier step was tolerated, so it is not the cause of a later rollback.
        self.fault_seen_at = None
        watch = self.sentinels.around(name, on_fault=self.see_fault)
        async with watch.open():
            shift = await watch.across(
                lambda: self.mover.shift(
                    targets,
                    current=self.state,
                    label=f"{self.label}.{name}",
                    on_refusal=OnRefusal.STOP,
                    deadline=SETTLE_DEADLINE,
                )
            )
            self.state = shift.state or self.state
            if shift.proven and once_served is not None and not await once_served():
                self.see_fault()
            elif shift.proven:
                self.answers = StepAnswers(
                    canary=self.plan.canary_revision,
                    percent=percent,
                    lag_ends=self.services.clock.now() + LAG_SECONDS,
                )
                self._begin_turns(percent)
                await self._soak(percent, targets, name, watch)
                counts = {"front": self.answers.at_front, "tag": self.answers.at_tag}
                self.by_canary[name] = counts
            else:
                self.see_fault()
                self.recorder.check(name, StepStatus.FAIL, shift.detail, kind="traffic", tolerable=False)
        self.count(watch)

    async def hold(self, percent: int, holds: Holds) -> None:
        """Keep a share that was given and judged until an operator's decision, and watch it as in the soak; record one check.

        The check passes only with the decision ``go``. A fault ends the wait at once, and no number of failed checks tolerates it.
        """
        name, targets, every = check_id(str(percent)), self._targets(percent), self.plan.canary_look_seconds
        seen = Seen()
        split_watch = _SplitWatch(shares=self, targets=targets, label=f"{self.label}.{name}.split")
        watch = self.sentinels.around(name, on_fault=self.see_fault)

        async def take_look() -> bool:
            return await self._look(name, seen) and await split_watch.holds()

        async def keep_watch(seconds: float, ends: anyio.Event) -> bool:
            whole = await self._watch_share(
                seconds,
                name=name,
                seen=seen,
                watch=watch,
                looks=look_count(seconds, every),
                take_look=take_look,
                ends=ends,
            )
            # A turn that failed in the wait is decided before the train goes on.
            return whole and (self._turns.blind or self.judgement.verdict is Verdict.NO_WORSE)

        served, judged = self.state.describe_served(), self._detail_of(f"traffic-{percent}")
        state = judged if served in judged else f"{served}; {judged}"
        async with watch.open():
            held = await holds.wait(str(percent), state=state, recorder=self.recorder, keep_watch=keep_watch)
        if held.ending is Ending.FAULT:
            self._fault_of_hold(name, seen, split_watch.problem)
        elif held.ending is Ending.NO_GO or await self._held(targets, name, through="wait"):
            held.record(self.recorder)
        else:
            self.see_fault()
        self.count(watch)

    def _fault_of_hold(self, name: str, seen: Seen, problem: str) -> None:
        """Record the check of a wait that a fault ended."""
        self.see_fault()
        undecided = not self._turns.blind and self.judgement.verdict is not Verdict.NO_WORSE
        if seen.failing or (undecided and not problem):
            self._record_failure(name, seen, tolerable=False)
        else:
            detail = problem or "the wait was ended early, because a sentinel stream broke"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic", tolerable=False)

    def _detail_of(self, name: str) -> str:
        """Return the text of the latest check of this name."""
        return next((check.detail for check in reversed(self.recorder.checks) if check.check_id == name), "")

    def _targets(self, percent: int) -> tuple[TrafficTarget, ...]:
        """Return the split in which the canary has this share."""
        shares = {self.plan.stable_revision: _ALL - percent, self.plan.canary_revision: percent}
        return (*split(self.captured, shares), *([self.tag.row] if self.tag.row else []))

    def see_fault(self) -> None:
        """Note the time of the first evidence of a fault."""
        if self.fault_seen_at is None:
            self.fault_seen_at = self.services.clock.now()

    def count(self, watch: Watch) -> None:
        """Add the tally of one change to the tallies. Record a failed check if it has a break and the step has too many."""
        tally = watch.tally()
        self.tallies.append(tally)
        broken = sum(seen.broken for seen in self.tallies)
        if tally.broken and broken > self.plan.max_broken_streams:
            detail = f"{tally.broken} of {tally.streams} streams broke across {tally.change}: {'; '.join(tally.details)}"
            if tally.shown_in_flight:
                detail += f" ({tally.shown_in_flight})"
            self.recorder.check(f"{tally.change}-sentinels", StepStatus.FAIL, detail, kind=SENTINELS)

    async def judge_at_tag(self, probes: Sequence[Probe]) -> None:
        """Record the check of the canary's first turns, at its own URL and before its first share.

        If one of them failed on its way, look on until that is decided: no user reaches the canary yet.
        """
        name, seen = "canary-direct", Seen()
        self._begin_turns(0)
        stopped = [probe for probe in probes if not self._take(self.plan.canary_revision, probe, seen)]
        if not seen.log.bad or stopped:
            self.recorder.stream_check(name, probes)
            return
        async with anyio.create_task_group() as looks:
            self._stop = looks.cancel_scope.cancel
            await self._press_on(name, seen, ends=self.services.clock.now() + self._longest)
            looks.cancel_scope.cancel()
        if self.judgement.verdict is Verdict.NO_WORSE and not seen.failing:
            self._note(name)
            self.recorder.judged_check(name, seen.log, StepStatus.PASS, self.judgement.describe())
        else:
            self._record_failure(name, seen)

    async def _soak(self, percent: int, targets: tuple[TrafficTarget, ...], name: str, watch: Watch) -> None:
        """Watch one canary step through its soak, up to the first sign of a fault; record one check for the whole soak."""
        seen = Seen()
        plan, ends = self.plan, self.services.clock.now() + self._longest
        whole = await self._watch_share(
            plan.canary_soak_seconds,
            name=name,
            seen=seen,
            watch=watch,
            looks=look_count(plan.canary_soak_seconds, plan.canary_look_seconds),
            take_look=lambda: self._look(name, seen),
        )
        if seen.failing or self._decided_against:
            self._record_failure(name, seen)
        elif not whole:
            detail = "the soak was ended early, because a sentinel stream broke"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic")
        elif await self._held(targets, name):
            check = await self._judge(percent, name, seen, ends=ends)
            if check.status.failed:
                self.see_fault()
                self._begin_judgement()
            elif not self._turns.blind:
                # The turns that failed were weighed, and are no evidence of a fault.
                self.fault_seen_at = None
        else:
            self.see_fault()

    async def _watch_share(
        self,
        seconds: float,
        *,
        name: str,
        seen: Seen,
        watch: Watch,
        looks: int,
        take_look: Callable[[], Awaitable[bool]],
        ends: anyio.Event | None = None,
    ) -> bool:
        """Watch one share for a time, and on while it is undecided; return False at once if it failed. The options are those of ``soak``."""
        whole, clock = False, self.services.clock
        longest = clock.now() + max(seconds, self._longest)
        async with anyio.create_task_group() as tasks:
            self._stop = tasks.cancel_scope.cancel

            async def press_on_after_failures() -> None:
                while True:
                    await self._turn_failed.wait()
                    self._turn_failed = anyio.Event()
                    await self._press_on(name, seen, ends=longest)

            tasks.start_soon(press_on_after_failures)
            if await soak(
                seconds,
                clock=clock,
                watch=watch,
                paced=paced_count(seconds),
                looks=looks,
                take_look=take_look,
                ends=ends,
            ):
                await self._press_on(name, seen, ends=longest)
                whole = True
            tasks.cancel_scope.cancel()
        return whole

    async def _press_on(self, name: str, seen: Seen, *, ends: float) -> None:
        """Look every second or so while the share is undecided and more looks can decide it, up to ``ends`` on the clock."""
        clock, pause = self.services.clock, min(PRESSING_SECONDS, self.plan.canary_look_seconds)
        slots = anyio.Semaphore(MOST_AT_ONCE)
        running = 0

        async def take() -> None:
            nonlocal running
            try:
                if not await self._look(name, seen):
                    self._stop()
            finally:
                running -= 1
                slots.release()

        async with self._pressing:
            while self._wants_more() and clock.now() < ends:
                async with anyio.create_task_group() as looks:
                    while self._wants_more() and clock.now() < ends:
                        await clock.sleep(pause)
                        if not self._wants_more():
                            break
                        if running and running * self._turns.least_at_a_look >= self.judgement.missing_turns:
                            # The looks that still run may be enough.
                            continue
                        await slots.acquire()
                        running += 1
                        looks.start_soon(take)

    def _wants_more(self) -> bool:
        """Return True if the share is undecided and more looks can decide it."""
        if self._turns.blind or self.judgement.verdict is not Verdict.UNDECIDED:
            return False
        return self.answers is None or self.answers.may_see_canary()

    @property
    def _decided_against(self) -> bool:
        """True if the turns say that the canary is worse, or that stable itself fails."""
        return self.judgement.verdict in {Verdict.WORSE, Verdict.BASELINE_UNHEALTHY}

    @property
    def _longest(self) -> float:
        """The seconds for which a share is held at most."""
        return max(self.plan.canary_soak_seconds, self.plan.canary_max_soak_seconds)

    def _record_failure(self, name: str, seen: Seen, *, tolerable: bool = True) -> None:
        """Record the check of a share that did not pass, by a turn that ended it at once or by the judgement."""
        self.see_fault()
        self._note(name)
        stable_broke = self.plan.stable_revision in seen.failing
        if not seen.failing:
            claim = self.judgement.describe()
        elif stable_broke:
            claim = "baseline unhealthy: stable itself breaks the contract, so nothing can be said about the canary"
        else:
            blame = _blame(seen.failing, self.plan)
            self.recorder.stream_check(name, seen.log, blame=blame, kind="traffic", tolerable=tolerable)
            self._begin_judgement()
            return
        if stable_broke or self.judgement.verdict is Verdict.BASELINE_UNHEALTHY:
            self.baseline_unhealthy = True
            self.recorder.judged_check(
                name, seen.log, StepStatus.ERROR, claim, kind=BASELINE, tolerable=False
            )
        else:
            worse = self.judgement.verdict is Verdict.WORSE
            status = StepStatus.FAIL if worse else StepStatus.ERROR
            self.recorder.judged_check(name, seen.log, status, claim, kind="traffic", tolerable=tolerable)
        self._begin_judgement()

    def _note(self, name: str) -> None:
        if not self._turns.blind:
            self.judged[name] = self.judgement.facts()

    def _begin_judgement(self) -> None:
        """Begin the judgement of the canary anew."""
        self.judgement = Judgement(
            max_worse=self.plan.max_canary_worse_percent / 100,
            max_slower=self.plan.max_canary_slower_percent / 100,
        )

    def _begin_turns(self, percent: int) -> None:
        """Begin the turns of a share; 0 before the first one."""
        self._turn_failed = anyio.Event()
        self._turns = CanaryTurns(
            judgement=self.judgement,
            stable=self.plan.stable_revision,
            canary=self.plan.canary_revision,
            percent=percent,
            canary_has_url=self.tag_url(self.plan.canary_revision) is not None,
            stable_has_url=self.tag_url(self.plan.stable_revision) is not None,
            header=self.evidence.header,
            aliases=len(self.services.prober.aliases),
        )

    async def _held(self, targets: tuple[TrafficTarget, ...], name: str, *, through: str = "soak") -> bool:
        """Read the split once more; return True if it held through the soak, else record a failed check and return False."""
        try:
            self.state = await self.services.traffic.read(label=f"{self.label}.{name}.held")
        except PeerError as error:
            self.recorder.failure(name, error, kind="traffic", tolerable=False)
            return False
        if problem := mismatch_reason(self.state, targets):
            detail = f"the split did not hold through the {through}: {problem}"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic", tolerable=False)
        return not problem

    async def _look(self, name: str, seen: Seen) -> bool:
        """Probe the front door, and each revision that has a tag URL, side by side; return True if every probe is good."""
        probers = {FRONT_DOOR: self.services.prober}
        for revision in (self.plan.canary_revision, self.plan.stable_revision):
            if url := self.tag_url(revision):
                probers[revision] = self.services.prober.at(url)
        began = self.services.clock.now()

        def take(where: str, probe: Probe) -> bool:
            if self.answers is not None:
                self._count_answer(where, probe, began=began)
            return self._take(where, probe, seen)

        return await look(probers, label=f"{self.label}.{name}", take=take)

    def _take(self, where: str, probe: Probe, seen: Seen) -> bool:
        """Take one probe into the judgement; return False if it ends the share at once."""
        seen.log.add(probe)
        if not probe.ok:
            self.see_fault()
        # At a tag URL the header outweighs the tag.
        named = self.services.prober.revision(probe)
        if not self._turns.weigh(probe, name=named, place=None if where == FRONT_DOOR else where):
            seen.failing.add((None if where == FRONT_DOOR else named) or where)
            return False
        if self._decided_against:
            self._stop()
        elif not probe.ok:
            self._turn_failed.set()
        return True

    def _count_answer(self, where: str, probe: Probe, *, began: float) -> None:
        """Count a stream of a look by the revision that answered."""
        assert self.answers is not None  # noqa: S101  the caller asks
        name = self.services.prober.revision(probe)
        if where == FRONT_DOOR:
            self._names([probe])
            self.answers.count_front([name], began=began)
        elif where == self.plan.canary_revision:
            self.answers.count_tag([name])

    async def _judge(self, percent: int, name: str, seen: Seen, *, ends: float) -> Check:
        """Record the check of one step: it passes only with a number of streams that the canary answered."""
        answers = self.answers
        assert answers is not None  # noqa: S101  a step is judged
        more = await ask_on(
            answers, self.services.prober, clock=self.services.clock, label=f"{self.label}.{name}.on"
        )
        self._names(more)
        log = seen.log
        for probe in more:
            self._take(FRONT_DOOR, probe, seen)
        if not seen.failing:
            await self._press_on(name, seen, ends=ends)
        if seen.failing or self._decided_against:
            self._record_failure(name, seen)
            return self.recorder.checks[-1]
        if problem := answers.share_problem():
            return self.recorder.check(name, StepStatus.FAIL, problem, kind="traffic", tolerable=False)
        who = answers.describe()
        if not answers.by_canary:
            if not self.plan.accept_blind_drill:
                detail = f"the canary has {percent} % of the traffic, but {who}"
                return self.recorder.check(name, StepStatus.ERROR, detail, kind="traffic")
            self.blind = True
            who += "; ACCEPT_BLIND_DRILL=1 accepts that"
        served = f"{self.state.describe_served()}; {log.count - log.bad} probes keep the contract; {who}"
        if self._turns.blind:
            return self.recorder.stream_check(name, log, detail=served, kind="traffic")
        self._note(name)
        if self.judgement.verdict is not Verdict.NO_WORSE:
            held = (
                f"the share was held for {self._longest:g} s at most, and it is {self.judgement.describe()}"
            )
            return self.recorder.judged_check(name, log, StepStatus.ERROR, held, kind="traffic")
        detail = f"{self.judgement.describe()}; {served}"
        return self.recorder.judged_check(name, log, StepStatus.PASS, detail, kind="traffic")

    def _names(self, probes: Iterable[Probe]) -> set[str]:
        """Return the revisions that answered these probes, by the header; add them to ``named``."""
        names = self.services.prober.revisions(probes)
        self.named |= names
        return names

    def tag_url(self, revision: str) -> str | None:
        """Return the tag URL at which a revision is probed; None if it has none, or if no instance can be reached there."""
        closed = self.evidence.closed | ({self.plan.canary_revision} if self.tag.closed else set())
        return None if revision in closed else self.state.tag_url(revision)

    def _overtaken(self, state: TrafficState) -> str:
        """Return the reason not to go forward from this state: somebody else has changed the split since the train's last write."""
        asked = [event.wanted for event in self.recorder.journal.events if isinstance(event, TrafficIntended)]
        ours = any(state.asks_for(rows) for rows in (self.captured.targets, *asked))
        # The same rows can be somebody else's release: LATEST, and a newer revision behind it.
        released = state.asks_for_latest and state.latest_ready != self.captured.latest_ready
        if ours and not released:
            return ""
        return f"somebody else changed the service in the meantime: {state.describe_served()}"


@attrs.define(eq=False, kw_only=True)
class _SplitWatch:
    """The reads of the split during a wait: one with a look, at most every ``SPLIT_SECONDS``."""

    shares: CanaryShares
    targets: tuple[TrafficTarget, ...]
    label: str
    problem: str = ""
    """The reason why the split is not as it was given; empty while it is, as far as the reads show."""
    _next: float = 0.0

    async def holds(self) -> bool:
        """Return False if a read shows another split. A read without an answer shows nothing: the read after the wait must have one."""
        services = self.shares.services
        if services.clock.now() >= self._next:
            self._next = services.clock.now() + SPLIT_SECONDS
            with suppress(PeerError):
                found = await services.traffic.read(label=self.label)
                reason = mismatch_reason(found, self.targets)
                self.problem = reason and f"the split did not hold through the wait: {reason}"
        return not self.problem


def _blame(failing: AbstractSet[str], plan: Plan) -> str:
    """Return who breaks the contract, in words: the canary, or the front door."""
    if plan.canary_revision in failing:
        return f"{plan.canary_revision} breaks the contract at its own URL"
    return "a stream through the front door breaks the contract"
