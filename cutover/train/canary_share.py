"""The canary's shares in one step of the train: the canary gets a share, and keeps it while it is watched and judged.

The canary rollback drill gives it one share after another. A step that moves the canary for good gives it all traffic by the same way.
``canary_watch.py`` looks at a share, and ``canary_judge.py`` decides about it.
"""

from collections.abc import Awaitable, Callable, Sequence

import attrs

from cutover.checking.probe import Probe
from cutover.errors import PeerError
from cutover.model.gates import SENTINELS
from cutover.model.results import SentinelTally, StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason, split
from cutover.model.train_events import TrafficIntended
from cutover.production.on_refusal import OnRefusal
from cutover.production.services import Services
from cutover.production.traffic.mover import SETTLE_DEADLINE, TrafficMover
from cutover.train.canary_answers import StepAnswers
from cutover.train.canary_evidence import CanaryEvidence
from cutover.train.canary_judge import CanaryJudge
from cutover.train.canary_plan import Plan
from cutover.train.canary_tag import CanaryTag
from cutover.train.canary_watch import CanaryWatch
from cutover.train.sentinels import Sentinels, Watch
from cutover.train.step_recorder import StepRecorder
from cutover.train.stream_proof import LAG_SECONDS

_ALL = 100


@attrs.define(eq=False, kw_only=True)
class CanaryShares:
    """The shares of the canary in one step of the train, and what their streams showed."""

    plan: Plan
    captured: TrafficState
    """The split that the preflight captured."""
    services: Services
    sentinels: Sentinels
    recorder: StepRecorder
    evidence: CanaryEvidence
    """The evidence that the preflight found."""
    label: str
    """The beginning of the labels of the requests."""
    state: TrafficState = attrs.field(init=False)
    """The split at the last read; the captured one before the first read."""
    mover: TrafficMover = attrs.field(init=False)
    tag: CanaryTag = attrs.field(init=False)
    """The tag that the step may give the canary."""
    judge: CanaryJudge = attrs.field(init=False)
    """The judge of all shares. It records the check of each."""
    tallies: list[SentinelTally] = attrs.field(factory=list)
    fault_seen_at: float | None = None
    """Time on the clock at which the first evidence of a fault of the present share was seen; None without any."""
    _answers: list[StepAnswers] = attrs.field(factory=list)
    """The counts of each share so far."""
    _by_canary: dict[str, dict[str, int]] = attrs.field(factory=dict)
    """Share -> the number of streams that the canary answered in its soak: at the front door, by the header, and at its tag."""

    def __attrs_post_init__(self) -> None:
        """Make the mover, the tag and the judge of the step."""
        self.state = self.captured
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
        self.judge = CanaryJudge(
            plan=self.plan,
            recorder=self.recorder,
            header=self.evidence.header,
            aliases=len(self.services.prober.aliases),
        )

    async def is_as_captured(self, name: str, *, otherwise: str) -> bool:
        """Read the split before the step moves anything; record a check, and return True if it is the captured one and is ready.

        ``otherwise`` is the text of a failed check before the differences.
        """
        try:
            self.state = await self.services.traffic.read(label=f"{self.label}.{name}")
        # Nothing was moved and nothing is known: even a refusal is no evidence here.
        except PeerError as error:
            self.recorder.failure(name, error, tolerable=False)
            return False
        if moved := self.captured.differences_from(self.state) or self.state.unready_reason():
            detail = f"{otherwise}, and was not changed: {moved}"
            self.recorder.check(name, StepStatus.FAIL, detail, tolerable=False)
            return False
        self.recorder.check(name, StepStatus.PASS, self.state.describe_served())
        return True

    async def still_has(
        self,
        targets: Sequence[TrafficTarget],
        *,
        name: str,
        moment: str = "",
        otherwise: str = "",
        kind: str | None = None,
    ) -> bool:
        """Read the split once more; return True if it is this one, else record a failed check and return False.

        Args:
            targets: The split.
            name: The check.
            moment: The end of the request's label; empty for the name of the check.
            otherwise: The text of the check before the difference.
            kind: The kind of a failed check.
        """
        try:
            self.state = await self.services.traffic.read(label=f"{self.label}.{moment or name}")
        except PeerError as error:
            self.recorder.failure(name, error, kind=kind, tolerable=False)
            return False
        if problem := mismatch_reason(self.state, targets):
            self.recorder.check(name, StepStatus.FAIL, otherwise + problem, kind=kind, tolerable=False)
        return not problem

    async def give_tag(self) -> None:
        """Give the canary the tag of the step, if the evidence needs one; record a check. No share moves."""
        if self.evidence.gives_tag:
            self.state = await self.tag.give(self.state)

    async def judge_at_tag(self, probes: Sequence[Probe]) -> None:
        """Record the check of the canary's first turns, at its own URL and before its first share.

        If one of them failed on its way, look on until that is decided: no user reaches the canary yet.
        """
        name = "canary-direct"
        self._begin_turns(0)
        watch = self.watch(name)
        stopped = [probe for probe in probes if not watch.take(self.plan.canary_revision, probe)]
        if not watch.seen.log.bad or stopped:
            self.recorder.stream_check(name, probes)
            return
        await watch.press_on(self.services.clock.now() + self.plan.longest_soak)
        if self.judge.allows and not watch.seen.failing:
            self.judge.record_first_turns(name, watch.seen)
        else:
            self.see_fault()
            self.judge.record_failure(name, watch.seen)

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
        name, targets = change or f"traffic-{percent}", self.targets(percent)
        # A fault of an earlier step was tolerated, so it is not the cause of a later rollback.
        self.fault_seen_at = None
        sentinels = self.sentinels.around(name, on_fault=self.see_fault)
        async with sentinels.open():
            shift = await sentinels.across(
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
                answers = StepAnswers(
                    canary=self.plan.canary_revision,
                    percent=percent,
                    lag_ends=self.services.clock.now() + LAG_SECONDS,
                )
                self._answers.append(answers)
                self._begin_turns(percent)
                await self._soak(self.watch(name), answers, targets, sentinels)
                self._by_canary[name] = {"front": answers.at_front, "tag": answers.at_tag}
            else:
                self.see_fault()
                self.recorder.check(name, StepStatus.FAIL, shift.detail, kind="traffic", tolerable=False)
        self.count(sentinels)

    async def _soak(
        self, watch: CanaryWatch, answers: StepAnswers, targets: tuple[TrafficTarget, ...], sentinels: Watch
    ) -> None:
        """Watch a share through its soak, up to the first sign of a fault; record one check for the whole soak."""
        name, seen = watch.name, watch.seen
        longest = self.services.clock.now() + self.plan.longest_soak
        whole = await watch.keep(self.plan.canary_soak_seconds, sentinels=sentinels)
        if watch.lost:
            self.see_fault()
            self.judge.record_failure(name, seen)
        elif not whole:
            detail = "the soak was ended early, because a sentinel stream broke"
            self.recorder.check(name, StepStatus.FAIL, detail, kind="traffic")
        elif await self.kept(targets, name, through="soak"):
            await watch.ask_on(answers, until=longest)
            check = self.judge.record_share(name, seen, answers, served=self.state.describe_served())
            if check.status.failed:
                self.see_fault()
            elif not self.judge.turns.blind:
                # The turns that failed were weighed, and are no evidence of a fault.
                self.fault_seen_at = None
        else:
            self.see_fault()

    def watch(self, name: str) -> CanaryWatch:
        """Return a watch over the canary at the present share, for the check of this name."""
        return CanaryWatch(
            name=name,
            label=f"{self.label}.{name}",
            plan=self.plan,
            services=self.services,
            judge=self.judge,
            answers=self._answers[-1] if self._answers else None,
            tag_url=self.tag_url,
            see_fault=self.see_fault,
        )

    async def kept(self, targets: tuple[TrafficTarget, ...], name: str, *, through: str) -> bool:
        """Read the split; return True if it was kept through the soak or the wait, else record a failed check and return False."""
        otherwise = f"the split did not hold through the {through}: "
        return await self.still_has(
            targets, name=name, moment=f"{name}.held", otherwise=otherwise, kind="traffic"
        )

    def targets(self, percent: int) -> tuple[TrafficTarget, ...]:
        """Return the split in which the canary has this share."""
        shares = {self.plan.stable_revision: _ALL - percent, self.plan.canary_revision: percent}
        return (*split(self.captured, shares), *([self.tag.row] if self.tag.row else []))

    def see_fault(self) -> None:
        """Note the time of the first evidence of a fault."""
        if self.fault_seen_at is None:
            self.fault_seen_at = self.services.clock.now()

    def count(self, sentinels: Watch) -> None:
        """Add the tally of one change to the tallies. Record a failed check if it has a break and the step has too many."""
        tally = sentinels.tally()
        self.tallies.append(tally)
        broken = sum(seen.counted for seen in self.tallies)
        if tally.counted and broken > self.plan.max_broken_streams:
            name, detail = f"{tally.change}-sentinels", tally.describe_broken(tally.change)
            self.recorder.check(name, StepStatus.FAIL, detail, kind=SENTINELS)

    def tag_url(self, revision: str) -> str | None:
        """Return the tag URL at which a revision is probed; None if it has none, or if no instance can be reached there."""
        closed = self.evidence.closed | ({self.plan.canary_revision} if self.tag.closed else set())
        return None if revision in closed else self.state.tag_url(revision)

    @property
    def header_seen(self) -> bool:
        """True if a header has named who answered at the front door."""
        return any(answers.header_tells for answers in self._answers)

    def facts(self) -> dict[str, object]:
        """Return the facts of the step's result about the shares, ready for JSON."""
        return {
            "traffic": self.state.served(),
            "captured_traffic": self.captured.served(),
            "canary_streams": self._by_canary,
            "blind": self.judge.passed_blind,
            "judgement": self.judge.judged,
        }

    def _begin_turns(self, percent: int) -> None:
        """Begin the turns of a share; 0 before the first one."""
        self.judge.begin_share(
            percent,
            canary_has_url=self.tag_url(self.plan.canary_revision) is not None,
            stable_has_url=self.tag_url(self.plan.stable_revision) is not None,
        )

    def _overtaken(self, state: TrafficState) -> str:
        """Return the reason not to go forward from this state: somebody else has changed the split since the train's last write."""
        asked = [event.wanted for event in self.recorder.journal.events if isinstance(event, TrafficIntended)]
        ours = any(state.asks_for(rows) for rows in (self.captured.targets, *asked))
        # The same rows can be somebody else's release: LATEST, and a newer revision behind it.
        released = state.asks_for_latest and state.latest_ready != self.captured.latest_ready
        if ours and not released:
            return ""
        return f"somebody else changed the service in the meantime: {state.describe_served()}"
