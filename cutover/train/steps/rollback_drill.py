"""The canary rollback drill: it moves traffic to the canary step by step, and proves that a rollback works.

``canary_share.py`` gives the canary each share, and has it watched and judged.
"""

import attrs

from cutover.checking.probe import Probe
from cutover.model import step_ids
from cutover.model.gates import drill_holds
from cutover.model.gcloud_service import GcloudService
from cutover.model.results import StepResult, StepStatus
from cutover.model.traffic_state import TrafficState, TrafficTarget, split
from cutover.model.train_events import TrafficSettled
from cutover.model.undo_plan import TrafficUndo, plan_undo, shares_moved
from cutover.production.services import Services
from cutover.production.traffic.mover import HELD_SECONDS
from cutover.train import canary_plan
from cutover.train.canary_evidence import WAYS_TO_SEE_CANARY, CanaryEvidence
from cutover.train.canary_hold import hold_share
from cutover.train.canary_metrics import measure_share
from cutover.train.canary_share import CanaryShares
from cutover.train.hold import Holds
from cutover.train.sentinels import Sentinels
from cutover.train.step_recorder import StepRecorder
from cutover.train.stream_proof import LAG_PAUSE, LAG_SECONDS, LOOKS, StreamProof
from cutover.train.undo_executor import UndoExecutor, UndoResult
from cutover.train.undo_traffic import TrafficPart

STEP_ID = step_ids.DRILL
ROLLBACK_LOOKS = LOOKS
"""Number of looks in a row after the rollback in which the canary must answer no probe; each look probes every alias."""
_ALL = 100


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the drill."""

    share: canary_plan.Plan
    canary_steps: tuple[int, ...]
    """The canary's share at each step, in percent, rising."""
    max_rollback_seconds: float
    """Largest number of seconds from the first evidence of a fault (without one: from the rollback's first write) to the last look at which the
    canary still answered a stream, or to the proof that stable serves everything if that comes later."""
    gcloud_service: GcloudService
    max_canary_drill_failures: int
    """Largest number of failed checks with which the drill goes on, if each of them is tolerable."""


async def run(
    plan: Plan,
    captured: TrafficState,
    services: Services,
    sentinels: Sentinels,
    recorder: StepRecorder,
    *,
    evidence: CanaryEvidence,
    holds: Holds,
) -> StepResult:
    """Move traffic step by step, roll back, and restore the captured split; a failed drill leaves all traffic on stable.

    Each change is read back; the canary steps and the rollback are probed too. The drill moves nothing if the split
    cannot be read, is in change, or is no longer as the preflight captured it.
    """
    shares = CanaryShares(
        plan=plan.share,
        captured=captured,
        services=services,
        sentinels=sentinels,
        recorder=recorder,
        evidence=evidence,
        label="drill",
    )
    if not await shares.is_as_captured(
        "status-pre", otherwise="the service is not as the preflight found it"
    ):
        return recorder.finish()
    drill = _Drill(
        plan=plan, services=services, sentinels=sentinels, recorder=recorder, shares=shares, holds=holds
    )
    return await drill.run()


@attrs.define(eq=False)
class _Drill:
    plan: Plan
    services: Services
    sentinels: Sentinels
    recorder: StepRecorder
    shares: CanaryShares
    holds: Holds
    rollback_seconds: float | None = None
    rolled_back: bool = True
    """False if a rollback could not be proven, by the control plane and by the streams."""

    @property
    def moved(self) -> bool:
        """True if a share may have moved; a tag at 0 % moves none."""
        return shares_moved(self.recorder.journal.events)

    async def run(self) -> StepResult:
        await self.shares.give_tag()
        if self._may_go_on():
            await self._canary_first()
        if self._may_go_on():
            for percent in self.plan.canary_steps:
                began = self.services.clock.now()
                await self.shares.give(percent)
                if self._may_go_on() and not await measure_share(
                    self.shares, percent=percent, after=f"traffic-{percent}", began=began
                ):
                    # The probes of the share passed, so this is the first evidence of a fault.
                    self.shares.see_fault()
                if self._may_go_on() and self.holds.at(str(percent)):
                    await hold_share(self.shares, percent, self.holds)
                if not self._may_go_on():
                    break
        await self._rollback()
        await self._restore()
        return self.recorder.finish(
            f"{'the rollback took' if self.rollback_seconds is not None else 'no rollback was needed:'} "
            f"{self.rollback_seconds or 0:.1f} s; {self.shares.state.describe_served()}",
            facts={
                "rollback_seconds": self.rollback_seconds,
                "max_rollback_seconds": self.plan.max_rollback_seconds,
                "canary_tag_given": self.shares.tag.row.tag if self.shares.tag.row else None,
                **self.shares.facts(),
            },
            sentinels=self.shares.tallies,
        )

    def _may_go_on(self) -> bool:
        return drill_holds(self.recorder.checks, max_failed=self.plan.max_canary_drill_failures)

    async def _canary_first(self) -> None:
        """Probe the canary at its tag URL, if it answers there, before it serves anyone.

        While a header names another revision at the tag URL, the tag lags: the probes are sent again for ``LAG_SECONDS``. If
        neither a tag URL nor a header can tell who answers, the drill ends here, unless it may be blind.
        """
        canary, clock = self.plan.share.canary_revision, self.services.clock
        if (url := self.shares.tag_url(canary)) is not None:
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
                await self.shares.judge_at_tag(probes)
        elif not self.shares.evidence.header and not self.plan.share.accept_blind_drill:
            detail = (
                "nothing shows whether the canary answers a stream: its tag URL does not answer, and no header names the revision. "
                f"No share was moved. {WAYS_TO_SEE_CANARY}"
            )
            self.recorder.check("canary-evidence", StepStatus.ERROR, detail, tolerable=False)

    def _stranger(self, probe: Probe) -> str | None:
        """Return the revision that answered a probe at the canary's tag URL, if the header names another one than the canary."""
        name = self.services.prober.revision(probe)
        return None if name == self.plan.share.canary_revision else name

    async def _rollback(self) -> None:
        """Move all traffic to stable, also after a failed drill, and check that the canary answers no more.

        After a failure nothing comes before the write: no stream is opened, finished or waited for. Do nothing if the drill moved nothing.
        """
        undo = self._open_undo()
        if undo is None or not self.moved:
            return
        targets = split(self.shares.captured, {self.plan.share.stable_revision: _ALL})
        part = self._part(attrs.evolve(undo, targets=targets), "rollback")
        watch = self.sentinels.around("rollback")
        started = self.shares.fault_seen_at

        async def move() -> UndoResult:
            nonlocal started
            started = self.services.clock.now() if started is None else started
            return await self._executor().restore(part, hold=False)

        undone = await (watch.across(move) if self._may_go_on() else move())
        self.shares.state = part.last or self.shares.state
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
            self._record_rollback(part.proof, f"stable serves everything, proven within {seconds:.1f} s")
        self.shares.count(watch)

    def _record_rollback(self, proof: StreamProof, detail: str) -> None:
        """Record the check of a rollback that the control plane and the streams prove."""
        if proof.broken and not self.shares.judge.baseline_unhealthy:
            self.recorder.stream_check("rollback", proof.probes, kind="rollback")
            return
        # A stable revision that fails by itself breaks these streams too, and that is no fault of the rollback.
        status = StepStatus.ERROR if proof.broken else StepStatus.PASS
        self.recorder.judged_check("rollback", proof.probes, status, detail, kind="rollback")

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
            known=self.shares.state,
            deadline=self.plan.max_rollback_seconds,
            lag=self.plan.max_rollback_seconds,
            header_seen=self.shares.header_seen,
            stop_when_broken=True,
        )

    async def _restore(self) -> None:
        """Restore the captured split and its tags; after a failed drill that moved a share leave all traffic on stable."""
        if self.moved and not self._may_go_on():
            # No later step reads the split again, so this read waits until a lost split shows.
            await self.services.clock.sleep(HELD_SECONDS)
            stable = split(self.shares.captured, {self.plan.share.stable_revision: _ALL})
            await self._status_post(stable, "left on stable, because the drill failed")
            return
        undo, what = self._open_undo(), "as captured" if self.moved else "as captured, no share was moved"
        if undo is not None:
            part = attrs.evolve(self._part(undo, "restore" if self.moved else "untag"), streams=False)
            undone = await self._executor().restore(part, hold=False)
            self.shares.state = part.last or self.shares.state
            if not undone.proven:
                self.recorder.check(step_ids.DRILL_RESTORED, StepStatus.FAIL, undone.detail, tolerable=False)
                return
        await self._status_post(self.shares.captured.targets, what)

    def _open_undo(self) -> TrafficUndo | None:
        """Return the changes of the split that are still open; None if there are none."""
        return plan_undo(self.recorder.journal.events, stable=self.plan.share.stable_revision).traffic

    async def _status_post(self, targets: tuple[TrafficTarget, ...], what: str) -> None:
        if not await self.shares.still_has(targets, name=step_ids.DRILL_RESTORED):
            return
        if self.rolled_back:
            self.recorder.journal.record(TrafficSettled())
        self.recorder.check(
            step_ids.DRILL_RESTORED, StepStatus.PASS, f"{self.shares.state.describe_served()}: {what}"
        )
