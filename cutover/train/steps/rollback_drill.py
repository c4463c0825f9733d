"""The canary rollback drill: it moves traffic to the canary step by step, and proves that a rollback works.

The drill probes and watches each step. The module is long because the steps, the soak and the rollback share the
capture and the failures so far, and are best read together.
"""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet

import attrs

from cutover.checking.probe import Probe
from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.gates import SENTINELS, drill_holds
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason, split
from cutover.model.train_events import TrafficIntended, TrafficSettled
from cutover.model.undo_plan import TrafficUndo, plan_undo, shares_moved
from cutover.production.on_refusal import OnRefusal
from cutover.production.services import Services
from cutover.production.traffic.mover import HELD_SECONDS, SETTLE_DEADLINE, Shift, TrafficMover
from cutover.train.canary_answers import StepAnswers, ask_on
from cutover.train.canary_evidence import WAYS_TO_SEE_CANARY, CanaryEvidence
from cutover.train.canary_tag import CanaryTag
from cutover.train.sentinels import Sentinels, Watch
from cutover.train.soak import Seen, look, look_count, paced_count, soak
from cutover.train.step_recorder import StepRecorder
from cutover.train.stream_proof import LAG_PAUSE, LAG_SECONDS, LOOKS
from cutover.train.undo_executor import UndoExecutor, UndoResult
from cutover.train.undo_traffic import TrafficPart

STEP_ID = step_ids.DRILL
ROLLBACK_LOOKS = LOOKS
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
    """Largest number of seconds from the first evidence of a fault (without one: from the rollback's first write) to the last look at which the
    canary still answered a stream, or to the proof that stable serves everything if that comes later."""
    gcloud_service: str
    """The service in a gcloud command: ``SERVICE --project P --region R``."""
    max_canary_drill_failures: int
    """Largest number of failed checks with which the drill goes on, if each of them is tolerable."""
    max_broken_streams: int
    canary_tag: str
    """The tag that the canary gets for the time of the drill, if ``CanaryEvidence.gives_tag`` says so."""
    accept_blind_drill: bool
    """True: a step may pass although no stream is known to have been answered by the canary."""


async def run(
    plan: Plan,
    captured: TrafficState,
    services: Services,
    sentinels: Sentinels,
    recorder: StepRecorder,
    *,
    evidence: CanaryEvidence,
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
    recorder.check("status-pre", StepStatus.PASS, found.describe_served())
    drill = _Drill(
        plan=plan,
        services=services,
        sentinels=sentinels,
        recorder=recorder,
        captured=captured,
        state=found,
        evidence=evidence,
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
    evidence: CanaryEvidence
    """The evidence that the preflight found."""
    tag: CanaryTag = attrs.field(init=False)
    """The tag that the drill may give the canary."""
    answers: StepAnswers | None = None
    """The counts of the present step; None before the first one."""
    by_canary: dict[str, dict[str, int]] = attrs.field(factory=dict)
    """Step -> the number of streams that the canary answered: at the front door, by the header, and at its tag."""
    blind: bool = False
    """True if a step passed although no stream is known to have been answered by the canary."""
    mover: TrafficMover = attrs.field(init=False)
    tallies: list[SentinelTally] = attrs.field(factory=list)
    fault_seen_at: float | None = None
    """Time on the clock at which the first evidence of a fault of the running step was seen; None without any."""
    rollback_seconds: float | None = None
    rolled_back: bool = True
    """False if a rollback could not be proven, by the control plane and by the streams."""
    named: set[str] = attrs.field(factory=set)
    """The revisions that have answered at the front door so far, by the header."""

    def __attrs_post_init__(self) -> None:
        self.mover = TrafficMover(
            backend=self.services.traffic,
            journal=self.recorder.journal,
            clock=self.services.clock,
            captured=self.captured,
            step_id=STEP_ID,
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

    @property
    def moved(self) -> bool:
        """True if a share may have moved; a tag at 0 % moves none."""
        return shares_moved(self.recorder.journal.events)

    async def run(self) -> StepResult:
        if self.evidence.gives_tag:
            self.state = await self.tag.give(self.state)
        if self._may_go_on():
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
            f"{self.rollback_seconds or 0:.1f} s; {self.state.describe_served()}",
            facts={
                "rollback_seconds": self.rollback_seconds,
                "max_rollback_seconds": self.plan.max_rollback_seconds,
                "traffic": self.state.served(),
                "captured_traffic": self.captured.served(),
                "canary_streams": self.by_canary,
                "canary_tag_given": self.tag.row.tag if self.tag.row else None,
                "blind": self.blind,
            },
            sentinels=self.tallies,
        )

    def _overtaken(self, state: TrafficState) -> str:
        """Return the reason not to go forward from this state: somebody else has changed the split since the drill's last write."""
        asked = [event.wanted for event in self.recorder.journal.events if isinstance(event, TrafficIntended)]
        ours = any(state.asks_for(rows) for rows in (self.captured.targets, *asked))
        # The same rows can be somebody else's release: LATEST, and a newer revision behind it.
        released = state.asks_for_latest and state.latest_ready != self.captured.latest_ready
        if ours and not released:
            return ""
        return f"somebody else changed the service in the meantime: {state.describe_served()}"

    def _may_go_on(self) -> bool:
        return drill_holds(self.recorder.checks, max_failed=self.plan.max_canary_drill_failures)

    def _names(self, probes: Iterable[Probe]) -> set[str]:
        """Return the revisions that answered these probes, by the header; add them to ``named``."""
        names = self.services.prober.revisions(probes)
        self.named |= names
        return names

    def _tag_url(self, revision: str) -> str | None:
        """Return the tag URL at which a revision is probed; None if it has none, or if no instance can be reached there."""
        closed = self.evidence.closed | ({self.plan.canary_revision} if self.tag.closed else set())
        return None if revision in closed else self.state.tag_url(revision)

    async def _canary_first(self) -> None:
        """Probe the canary at its tag URL, if it answers there, before it serves anyone.

        While a header names another revision at the tag URL, the tag lags: the probes are sent again for ``LAG_SECONDS``. If
        neither a tag URL nor a header can tell who answers, the drill ends here, unless it may be blind.
        """
        canary, clock = self.plan.canary_revision, self.services.clock
        if (url := self._tag_url(canary)) is not None:
            deadline = clock.now() + LAG_SECONDS
            while True:
                probes = await self.services.prober.at(url).probe_all(label="drill.canary-direct")
                others = {name for probe in probes if (name := self._stranger(probe))}
                if not others or clock.now() >= deadline:
                    break
                await clock.sleep(LAG_PAUSE)
            if others:
                detail = (
                    f"{', '.join(sorted(others))} answers at the canary's tag URL {url}, still after {LAG_SECONDS:g} s; "
                    "when that tag leads to the canary, start again"
                )
                self.recorder.check("canary-direct", StepStatus.ERROR, detail)
            else:
                self.recorder.stream_check("canary-direct", probes)
        elif not self.evidence.header and not self.plan.accept_blind_drill:
            detail = (
                "nothing shows whether the canary answers a stream: its tag URL does not answer, and no header names the revision. "
                f"No share was moved. {WAYS_TO_SEE_CANARY}"
            )
            self.recorder.check("canary-evidence", StepStatus.ERROR, detail, tolerable=False)

    def _stranger(self, probe: Probe) -> str | None:
        """Return the revision that answered a probe at the canary's tag URL, if the header names another one than the canary."""
        name = self.services.prober.revision(probe)
        return None if name == self.plan.canary_revision else name

    async def _step(self, percent: int) -> None:
        name = f"traffic-{percent}"
        shares = {self.plan.stable_revision: _ALL - percent, self.plan.canary_revision: percent}
        targets = (*split(self.captured, shares), *([self.tag.row] if self.tag.row else []))
        # A fault of an earlier step was tolerated, so it is not the cause of a later rollback.
        self.fault_seen_at = None
        watch = self.sentinels.around(name, on_fault=self._see_fault)
        async with watch.open():
            shift = await self._shift(
                targets, watch, name, on_refusal=OnRefusal.STOP, deadline=SETTLE_DEADLINE
            )
            if shift.proven:
                self.answers = StepAnswers(
                    canary=self.plan.canary_revision,
                    percent=percent,
                    lag_ends=self.services.clock.now() + LAG_SECONDS,
                )
                await self._soak(percent, targets, name, watch)
                counts = {"front": self.answers.at_front, "tag": self.answers.at_tag}
                self.by_canary[name] = counts
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
            self.recorder.check(f"{tally.change}-sentinels", StepStatus.FAIL, detail, kind=SENTINELS)

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
            detail = f"the split did not hold through the soak: {problem}"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic", tolerable=False)
        return not problem

    async def _look(self, name: str, seen: Seen) -> bool:
        """Probe the front door, and each revision that has a tag URL, side by side; return True if every probe is good."""
        probers = {FRONT_DOOR: self.services.prober}
        for revision in (self.plan.canary_revision, self.plan.stable_revision):
            if url := self._tag_url(revision):
                probers[revision] = self.services.prober.at(url)
        began = self.services.clock.now()

        def take(where: str, probe: Probe) -> None:
            self._count_answer(where, probe, began=began)
            seen.log.add(probe)
            if not probe.ok:
                self._see_fault()
                # At a tag URL the header outweighs the tag.
                name = None if where == FRONT_DOOR else self.services.prober.revision(probe)
                seen.failing.add(name or where)

        return await look(probers, label=f"drill.{name}", take=take)

    def _count_answer(self, where: str, probe: Probe, *, began: float) -> None:
        """Count a stream of a look by the revision that answered."""
        assert self.answers is not None  # noqa: S101  a look belongs to a step
        name = self.services.prober.revision(probe)
        if where == FRONT_DOOR:
            self._names([probe])
            self.answers.count_front([name], began=began)
        elif where == self.plan.canary_revision:
            self.answers.count_tag([name])

    async def _judge(self, percent: int, name: str, seen: Seen) -> Check:
        """Record the check of one step: it passes only with a number of streams that the canary answered."""
        answers = self.answers
        assert answers is not None  # noqa: S101  a step is judged
        log = seen.log
        if seen.failing:
            blame = _blame(seen.failing, self.plan)
            return self.recorder.stream_check(name, log, blame=blame, kind="traffic")
        more = await ask_on(
            answers, self.services.prober, clock=self.services.clock, label=f"drill.{name}.on"
        )
        self._names(more)
        for probe in more:
            log.add(probe)
        if log.bad:
            blame = _blame({FRONT_DOOR}, self.plan)
            return self.recorder.stream_check(name, log, blame=blame, kind="traffic")
        if problem := answers.share_problem():
            return self.recorder.check(name, StepStatus.FAIL, problem, kind="traffic", tolerable=False)
        who = answers.describe()
        if not answers.by_canary:
            if not self.plan.accept_blind_drill:
                detail = f"the canary has {percent} % of the traffic, but {who}"
                return self.recorder.check(name, StepStatus.ERROR, detail, kind="traffic")
            self.blind = True
            who += "; ACCEPT_BLIND_DRILL=1 accepts that"
        detail = f"{self.state.describe_served()}; {log.count} probes keep the contract; {who}"
        return self.recorder.stream_check(name, log, detail=detail, kind="traffic")

    async def _rollback(self) -> None:
        """Move all traffic to stable, also after a failed drill, and check that the canary answers no more.

        After a failure nothing comes before the write: no stream is opened, finished or waited for. Do nothing if the drill moved nothing.
        """
        undo = self._open_undo()
        if undo is None or not self.moved:
            return
        targets = split(self.captured, {self.plan.stable_revision: _ALL})
        part = self._part(attrs.evolve(undo, targets=targets), "rollback")
        watch = self.sentinels.around("rollback")
        started = self.fault_seen_at

        async def move() -> UndoResult:
            nonlocal started
            started = self.services.clock.now() if started is None else started
            return await self._executor().restore(part, hold=False)

        undone = await (watch.across(move) if self._may_go_on() else move())
        self.state = part.last or self.state
        ends = (part.proven_at, part.proof.last_stray_at if part.proof is not None else None)
        seconds = max((end for end in ends if end is not None), default=self.services.clock.now()) - (
            started or 0.0
        )
        self.rollback_seconds = round(seconds, 3)
        self.rolled_back = undone.proven
        if not undone.proven:
            stray = part.proof.problem if part.proof is not None else ""
            detail = f"after the rollback {stray}" if stray else undone.detail
            unknown = part.proof is not None and part.proof.nameless
            status = StepStatus.ERROR if unknown else StepStatus.FAIL
            self.recorder.check("rollback", status, detail, kind="rollback", tolerable=False)
        elif seconds > self.plan.max_rollback_seconds:
            detail = f"the rollback took {seconds:.1f} s, and {self.plan.max_rollback_seconds:g} s is allowed"
            self.recorder.check("rollback", StepStatus.FAIL, detail, kind="rollback", tolerable=False)
        elif part.proof is not None:
            detail = f"stable serves everything, proven within {seconds:.1f} s"
            self.recorder.stream_check("rollback", part.proof.probes, detail=detail, kind="rollback")
        self._count(watch)

    def _executor(self) -> UndoExecutor:
        return UndoExecutor(
            services=self.services, journal=self.recorder.journal, service=self.plan.gcloud_service
        )

    def _part(self, undo: TrafficUndo, name: str) -> TrafficPart:
        """Return the part of production that a way back of this drill restores. The last state that was read needs no second look."""
        return TrafficPart(
            undo=undo,
            services=self.services,
            journal=self.recorder.journal,
            service=self.plan.gcloud_service,
            label=f"drill.{name}",
            step_id=STEP_ID,
            knows_last=True,
            known=self.state,
            deadline=self.plan.max_rollback_seconds,
            lag=self.plan.max_rollback_seconds,
            header_seen=bool(self.named),
            stop_when_broken=True,
        )

    async def _restore(self) -> None:
        """Restore the captured split and its tags; after a failed drill that moved a share leave all traffic on stable."""
        if self.moved and not self._may_go_on():
            # No later step reads the split again, so this read waits until a lost split shows.
            await self.services.clock.sleep(HELD_SECONDS)
            stable = split(self.captured, {self.plan.stable_revision: _ALL})
            await self._status_post(stable, "left on stable, because the drill failed")
            return
        undo, what = self._open_undo(), "as captured" if self.moved else "as captured, no share was moved"
        if undo is not None:
            part = attrs.evolve(self._part(undo, "restore" if self.moved else "untag"), streams=False)
            undone = await self._executor().restore(part, hold=False)
            self.state = part.last or self.state
            if not undone.proven:
                self.recorder.check(step_ids.DRILL_RESTORED, StepStatus.FAIL, undone.detail, tolerable=False)
                return
        await self._status_post(self.captured.targets, what)

    def _open_undo(self) -> TrafficUndo | None:
        """Return the changes of the split that are still open; None if there are none."""
        return plan_undo(self.recorder.journal.events, stable=self.plan.stable_revision).traffic

    async def _status_post(self, targets: tuple[TrafficTarget, ...], what: str) -> None:
        try:
            self.state = await self.services.traffic.read(label="drill.status-post")
        except PeerError as error:
            self.recorder.failure(step_ids.DRILL_RESTORED, error, tolerable=False)
            return
        if problem := mismatch_reason(self.state, targets):
            self.recorder.check(step_ids.DRILL_RESTORED, StepStatus.FAIL, problem, tolerable=False)
            return
        if self.rolled_back:
            self.recorder.journal.record(TrafficSettled())
        self.recorder.check(
            step_ids.DRILL_RESTORED, StepStatus.PASS, f"{self.state.describe_served()}: {what}"
        )


def _blame(failing: AbstractSet[str], plan: Plan) -> str:
    """Return who breaks the contract, in words: the canary alone, stable too, or the front door."""
    if plan.stable_revision in failing:
        return "stable breaks the contract too, so the canary is not the only cause"
    if plan.canary_revision in failing:
        return f"{plan.canary_revision} breaks the contract at its own URL"
    return "a stream through the front door breaks the contract"
