"""The engine: the stage table ``STAGES``, and the train that runs it, stops at a failed gate and undoes its changes.

The module is a little longer than most, because the stage table, the train and its undo are read together.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

import anyio
import attrs

from cutover.clock import utc_now
from cutover.errors import UndoUnprovenError, root_cause
from cutover.model.gates import Ceilings, exit_code, judge, may_go_on, reasons
from cutover.model.gcloud_service import GcloudService
from cutover.model.holds import refused_holds
from cutover.model.losses import MOST_FAILED
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState
from cutover.model.train_events import (
    Interrupted,
    StepFinished,
    StepStarted,
    TrainEvent,
    TrainFinished,
    UndoFinished,
    UndoStarted,
    changes,
    may_reach_users,
)
from cutover.model.undo_plan import UndoPlan, plan_undo
from cutover.production.services import Services
from cutover.record.decisions import Decisions
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.train import hold
from cutover.train.sentinels import Sentinels
from cutover.train.step_recorder import StepRecorder
from cutover.train.steps import (
    dual_run,
    error_budget,
    final_state,
    preflight,
    promotion,
    rollback_drill,
    route_flip,
)
from cutover.train.steps import stream_smoke as smoke
from cutover.train.stream_journal import StreamJournal
from cutover.train.token_lifetimes import check_again
from cutover.train.undo_executor import UNDO_DEADLINE, UndoExecutor, UndoResult, together


@attrs.frozen(kw_only=True)
class TrainPlan:
    """The plans of all steps, and the numbers of failures that the gates tolerate."""

    preflight: preflight.Plan
    error_budget: error_budget.Plan
    drill: rollback_drill.Plan
    flip: route_flip.Plan
    promotion: promotion.Plan | None
    """None if the configuration leaves the promotion out."""
    hold: hold.Plan
    dual_run: dual_run.Plan | None
    """None if the configuration leaves the dual run out."""
    held_streams: int
    ceilings: Ceilings
    gcloud_service: GcloudService
    rehearsal: bool
    """True if the production is embedded, and ends with the run: then an operator gets no command, because it would reach real production."""

    @property
    def most_failed(self) -> float:
        """The part of the turns of a smoke, and of the sentinels, that chance explains: MAX_CANARY_WORSE_PERCENT at most."""
        return min(MOST_FAILED, self.drill.share.max_canary_worse_percent / 100)


NOTHING_TO_UNDO = together(())
NOTHING_TO_DO = "nothing to restore: this was a rehearsal, and its production has ended with it; a live run names the commands here"
"""The line in place of all commands, after a rehearsal whose undo was not proven."""
Step = Callable[["Train", StepRecorder], Awaitable[StepResult]]


@attrs.frozen(kw_only=True)
class Stage:
    """The steps that run side by side. A step that moves traffic or sets overrides is alone in its stage."""

    steps: tuple[tuple[str, Step], ...]


@attrs.define(eq=False)
class Train:
    """One train: its plans, its services and its results so far."""

    plan: TrainPlan
    services: Services
    undo_services: Callable[[], AbstractAsyncContextManager[Services]]
    """Opens services for the undo alone, because the train's clients may be closing by then."""
    interrupted_code: Callable[[], int]
    """Returns the exit code of a cancelled train. After a fault in cutover itself the exit code is 1."""
    journal: Journal
    evidence: EvidenceFolder
    decisions: Decisions
    """The decisions that the holds wait for."""
    write_step: Callable[[StepResult], str | None] = lambda _: None
    """Writes the summary of a step that is about to finish; returns its file, or None if it was not written."""
    prepare_verdict: Callable[[TrainEvent], bool] = lambda _: True
    """Makes the summary of a GO ready just before the journal gets it; False if an artifact could not be written."""
    results: list[StepResult] = attrs.field(factory=list)
    captured: preflight.Captured = attrs.field(factory=preflight.Captured)
    undone: UndoResult = NOTHING_TO_UNDO
    sentinels: Sentinels = attrs.field(init=False)
    holds: hold.Holds = attrs.field(init=False)
    streams: StreamJournal = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the sentinels and the holds, which all steps share, and the recorder of all streams."""
        self.holds = hold.Holds(plan=self.plan.hold, clock=self.services.clock, decisions=self.decisions)
        prober = self.services.prober
        self.streams = StreamJournal(journal=self.journal, front_door=prober.base_url)
        prober.on_end = self.streams.take
        self.sentinels = Sentinels(
            prober=self.services.prober,
            held=self.plan.held_streams,
            journal=self.journal,
            most_failed=self.plan.most_failed,
            max_broken=self.plan.ceilings.broken_streams,
        )

    async def run(self) -> None:
        """Run the stages in order, and journal the verdict.

        If a gate fails, or the journal or an artifact cannot be written, the later stages are skipped and every change is undone.
        The exit code in the journal's last event is 4 if that undo could not be proven.

        After a cancellation, or a fault in cutover itself, the train undoes every change and raises the same error again.

        Raises:
            UndoUnprovenError: The train was cancelled, or stopped by a fault, and a change could not be proven undone.
        """
        try:
            for stage in STAGES:
                await self._run_stage(stage)
            passed = all(gate.holds for gate in judge(self.results, self.plan.ceilings))
            verdict = TrainFinished(passed=True, exit_code=0)
            if passed and await self._pass(verdict):
                return
            await self._undo(self.journal.stopped or "a gate does not hold")
        except BaseException as error:
            interrupted = Interrupted(cause=type(root_cause(error)).__name__)
            self.streams.flush()
            self.journal.record(interrupted)
            # The first cancellation is raised again below.
            with suppress(anyio.get_cancelled_exc_class()):
                await self._undo(interrupted.why)
            stopped = 1 if isinstance(error, Exception) else self.interrupted_code()
            code = stopped if self.undone.proven else 4
            self.journal.record(TrainFinished(passed=False, exit_code=code, reasons=(interrupted.why,)))
            if not self.undone.proven:
                raise UndoUnprovenError("\n".join((self.undone.detail, *self.undone.to_do))) from error
            raise
        why = reasons(judge(self.results, self.plan.ceilings))
        self.journal.record(
            TrainFinished(
                passed=False,
                exit_code=exit_code(
                    self.results,
                    touched=may_reach_users(self.journal.events),
                    undone=self.undone.proven,
                    recorded=self.journal.stopped is None,
                ),
                reasons=(*refused_holds(self.journal.events), *why, *filter(None, [self.journal.stopped])),
            )
        )

    async def look(self) -> None:
        """Run the first stage alone, which changes nothing."""
        await self._run_stage(STAGES[0])

    async def _pass(self, verdict: TrainFinished) -> bool:
        """Record the verdict GO; return False if the journal, its copy or an artifact cannot hold it. Then the train is undone."""
        # The verdict is on disk before it is in the copy, so that what went before must be there.
        await self.journal.durable()
        if self.journal.stopped is not None or not self.journal.commit(verdict, ready=self.prepare_verdict):
            return False
        with anyio.CancelScope(shield=True):
            await self.journal.durable()
        # The verdict is on the disk: an artifact that is made from it and fails, such as the page, costs no verdict any more.
        return self.journal.copy is None or self.journal.copy.stopped is None

    @property
    def captured_routes(self) -> RouteState:
        """The captured overrides, for the flip, the undo and the final state."""
        assert self.captured.routes is not None  # noqa: S101  no stage runs after a preflight that did not read this
        return self.captured.routes

    @property
    def captured_traffic(self) -> TrafficState:
        """The captured split, for the drill, the undo and the final state."""
        assert self.captured.traffic is not None  # noqa: S101  no stage runs after a preflight that did not read this
        return self.captured.traffic

    @property
    def touched(self) -> bool:
        """True if a change may have been sent to production."""
        return bool(changes(self.journal.events))

    async def _run_stage(self, stage: Stage) -> None:
        may = may_go_on(self.results, self.plan.ceilings) and self.journal.stopped is None
        async with anyio.create_task_group() as group:
            for step_id, step in stage.steps:
                if left_out := self._left_out(step_id):
                    self._finish(_skipped(step_id, left_out, by_configuration=True))
                elif not may:
                    why = self.journal.stopped or "an earlier step failed"
                    self._finish(_skipped(step_id, f"not run: {why}", by_configuration=False))
                else:
                    group.start_soon(self._run_step, step_id, step)

    def _left_out(self, step_id: str) -> str:
        """Return the reason why the configuration leaves a step out; an empty text if it does not."""
        if step_id == dual_run.STEP_ID and self.plan.dual_run is None:
            return "RUN_DUAL_RUN is 0"
        if step_id == promotion.STEP_ID and self.plan.promotion is None:
            return "PROMOTE is 0"
        return ""

    async def _run_step(self, step_id: str, step: Step) -> None:
        self.journal.record(StepStarted(step_id=step_id))
        recorder = StepRecorder(
            step_id=step_id, journal=self.journal, evidence=self.evidence, before_check=self.streams.flush
        )
        self._finish(await step(self, recorder))

    def _finish(self, result: StepResult) -> None:
        self.results.append(attrs.evolve(result, artifact=self.write_step(result)))
        self.streams.flush()
        self.journal.record(StepFinished(result=self.results[-1]))

    async def _undo(self, reason: str) -> None:
        """Read the traffic again, undo the changes that are still open, and run the smoke; do nothing if no change was sent.

        All of it ends after ``UNDO_DEADLINE`` seconds. It runs in a child task with a shield of its own, so that no cancellation reaches it.
        """
        if not self.touched:
            return

        async def undo() -> None:
            with anyio.CancelScope(shield=True):
                ends = anyio.current_time() + UNDO_DEADLINE
                with anyio.CancelScope(deadline=ends), suppress(Exception):
                    # If the traffic cannot be read again, its earlier proof stands.
                    async with self._undo_executor() as executor:
                        await executor.look_again(stable=self.plan.drill.share.stable_revision)
                if self.journal.taken_over is not None:
                    self.undone = self._executor(self.services).left_to_others(self.journal.taken_over)
                    return
                plan = self._open_changes(reason)
                if plan:
                    await self._carry_out(plan, reason, ends=ends)
                if plan.routes is not None and self.undone.proven:
                    # If the deadline cuts this smoke off, the journal has its start but no end.
                    with anyio.CancelScope(deadline=ends), suppress(Exception):
                        await self._smoke_again()

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(undo)

    def _open_changes(self, reason: str) -> UndoPlan:
        """Return the changes to undo. A verdict GO that the copy of the journal could not hold has closed them; the undo opens them again."""
        events = self.journal.events
        closed = any(isinstance(event, TrainFinished) for event in events)
        begun = [UndoStarted(reason=reason)] if closed else []
        return plan_undo([*events, *begun], stable=self.plan.drill.share.stable_revision)

    @asynccontextmanager
    async def _undo_executor(self) -> AsyncIterator[UndoExecutor]:
        async with self._services_of_undo() as services:
            yield self._executor(services)

    @asynccontextmanager
    async def _services_of_undo(self) -> AsyncIterator[Services]:
        """Open the services for the undo; its streams are recorded too, at the latest when it is over."""
        async with self.undo_services() as services:
            services.prober.on_end = self.streams.take
            try:
                yield services
            finally:
                self.streams.flush()

    def _executor(self, services: Services) -> UndoExecutor:
        return UndoExecutor(
            services=services,
            journal=self.journal,
            service=self.plan.gcloud_service,
            folder=self.journal.address or self.evidence.root,
            header_seen=self.captured.evidence.header,
        )

    async def _carry_out(self, plan: UndoPlan, reason: str, *, ends: float) -> None:
        """Undo the changes of a plan, and journal the result. ``ends`` is the time of the event loop at which the undo gives up."""
        self.journal.record(UndoStarted(reason=reason))
        self.undone = UndoResult(
            proven=False,
            detail=f"the changes could not be proven undone within {UNDO_DEADLINE:g} s",
            to_do=self._executor(self.services).by_hand(plan),
        )
        try:
            async with self._undo_executor() as executor:
                with anyio.CancelScope(deadline=ends):
                    self.undone = await executor.undo(plan)
        except Exception as error:  # noqa: BLE001  a fault in cutover itself: the operator must still learn what is open
            detail = f"the undo itself failed: {root_cause(error)!r}"
            self.undone = attrs.evolve(self.undone, proven=False, detail=detail)
        if self.plan.rehearsal and not self.undone.proven:
            self.undone = attrs.evolve(self.undone, to_do=(NOTHING_TO_DO,))
        self.journal.record(
            UndoFinished(proven=self.undone.proven, detail=self.undone.detail, to_do=self.undone.to_do)
        )

    async def _smoke_again(self) -> None:
        """Run the smoke again after the routes were undone."""
        step_id = smoke.Phase.UNDONE.step_id
        self.journal.record(StepStarted(step_id=step_id))
        recorder = StepRecorder(step_id=step_id, journal=self.journal, evidence=self.evidence)
        async with self._services_of_undo() as services:
            plan = smoke.Plan(phase=smoke.Phase.UNDONE, most_failed=self.plan.most_failed)
            self._finish(await smoke.run(plan, services, recorder))


def _skipped(step_id: str, why: str, *, by_configuration: bool) -> StepResult:
    return StepResult(
        step_id=step_id,
        status=StepStatus.SKIP,
        detail=why,
        by_configuration=by_configuration,
        recorded_at=utc_now(),
    )


async def _preflight(train: Train, recorder: StepRecorder) -> StepResult:
    result, train.captured = await preflight.run(train.plan.preflight, train.services, recorder)
    return result


async def _error_budget(train: Train, recorder: StepRecorder) -> StepResult:
    return await error_budget.run(train.plan.error_budget, train.services, recorder)


async def _smoke_pre(train: Train, recorder: StepRecorder) -> StepResult:
    needs = train.plan.preflight

    def judge_turn(seconds: float, recorder: StepRecorder) -> None:
        check_again(
            train.captured.token_ends,
            needs.seconds_needed,
            turn=seconds,
            turns_in_a_row=needs.turns_in_a_row,
            now=train.services.clock.now(),
            recorder=recorder,
        )

    plan = smoke.Plan(
        phase=smoke.Phase.PRE,
        most_failed=train.plan.most_failed,
        only=needs.stable_revision,
        judge_turn=judge_turn,
    )
    return await smoke.run(plan, train.services, recorder)


async def _drill(train: Train, recorder: StepRecorder) -> StepResult:
    plan, services, evidence = train.plan.drill, train.services, train.captured.evidence
    return await rollback_drill.run(
        plan,
        train.captured_traffic,
        services,
        train.sentinels,
        recorder,
        evidence=evidence,
        holds=train.holds,
    )


async def _flip(train: Train, recorder: StepRecorder) -> StepResult:
    return await route_flip.run(
        train.plan.flip,
        train.captured_routes,
        train.services,
        train.sentinels,
        recorder,
        holds=train.holds,
    )


def _wanted_routes(train: Train) -> tuple[tuple[str, str | None], ...]:
    """Return the overrides of a flip in the order of the writes; after a flip that only verifies them, the captured ones."""
    routes = train.captured_routes
    if not train.plan.flip.apply_route_flip:
        return routes.overrides
    return route_flip.wanted_routes(routes, train.services.control.lane.new_target)


async def _promotion(train: Train, recorder: StepRecorder) -> StepResult:
    plan, services, evidence = train.plan.promotion, train.services, train.captured.evidence
    assert plan is not None  # noqa: S101  without a plan the train skips this step
    return await promotion.run(
        plan,
        train.captured_traffic,
        services,
        train.sentinels,
        recorder,
        evidence=evidence,
        routes=promotion.Routes(
            captured=train.captured_routes,
            wanted=_wanted_routes(train),
            apply=train.plan.flip.apply_route_flip,
        ),
        holds=train.holds,
    )


async def _smoke_post(train: Train, recorder: StepRecorder) -> StepResult:
    plan = smoke.Plan(phase=smoke.Phase.POST, most_failed=train.plan.most_failed)
    return await smoke.run(plan, train.services, recorder)


async def _dual_run(train: Train, recorder: StepRecorder) -> StepResult:
    assert train.plan.dual_run is not None  # noqa: S101  without a plan the train skips this step
    return await dual_run.run(train.plan.dual_run, train.services, recorder)


async def _final_state(train: Train, recorder: StepRecorder) -> StepResult:
    plan = final_state.Plan(
        routes=tuple(dict(_wanted_routes(train)).items()),
        captured=train.captured_traffic,
        promoted=(
            None
            if train.plan.promotion is None
            else promotion.promoted(train.captured_traffic, train.plan.drill.share.canary_revision)
        ),
        canary_revision=train.plan.drill.share.canary_revision,
        budget=train.plan.error_budget.budget,
    )
    return await final_state.run(plan, train.services, recorder)


STAGES: tuple[Stage, ...] = (
    Stage(steps=((preflight.STEP_ID, _preflight), (error_budget.STEP_ID, _error_budget))),
    Stage(steps=((smoke.Phase.PRE.step_id, _smoke_pre),)),
    Stage(steps=((rollback_drill.STEP_ID, _drill),)),
    Stage(steps=((route_flip.STEP_ID, _flip),)),
    Stage(steps=((promotion.STEP_ID, _promotion),)),
    Stage(steps=((smoke.Phase.POST.step_id, _smoke_post), (dual_run.STEP_ID, _dual_run))),
    Stage(steps=((final_state.STEP_ID, _final_state),)),
)
"""The stages, in order. A step that moves traffic or sets overrides is alone in its stage."""
