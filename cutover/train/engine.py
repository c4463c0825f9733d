"""The engine: the stage table ``STAGES``, and the train that runs it, stops at a failed gate and undoes its changes."""

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, suppress

import anyio
import attrs

from cutover.clock import utc_now
from cutover.errors import UndoUnprovenError, root_cause
from cutover.model.gates import Ceilings, exit_code, judge, may_go_on, reasons
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState
from cutover.model.train_events import (
    Interrupted,
    StepFinished,
    StepStarted,
    TrainFinished,
    UndoFinished,
    UndoStarted,
    changes,
)
from cutover.model.undo_plan import UndoPlan, plan_undo
from cutover.production.services import Services
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.text import recover_command
from cutover.train.sentinels import Sentinels
from cutover.train.step_recorder import StepRecorder
from cutover.train.steps import dual_run, error_budget, final_state, preflight, rollback_drill, route_flip
from cutover.train.steps import stream_smoke as smoke
from cutover.train.undo_executor import UndoResult, carry_out, look_again, to_do, together

UNDO_DEADLINE = 300.0
"""Seconds for an undo; a longer undo counts as not proven. The read before the undo and the smoke after it get as many each."""


@attrs.frozen(kw_only=True)
class TrainPlan:
    """The plans of all steps, and the numbers of failures that the gates tolerate."""

    preflight: preflight.Plan
    error_budget: error_budget.Plan
    drill: rollback_drill.Plan
    flip: route_flip.Plan
    dual_run: dual_run.Plan | None
    """None if the configuration leaves the dual run out."""
    held_streams: int
    ceilings: Ceilings
    gcloud_service: str
    """The service in a gcloud command, for messages to an operator."""


NOTHING_TO_UNDO = together(())

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
    results: list[StepResult] = attrs.field(factory=list)
    captured: preflight.Captured = attrs.field(factory=preflight.Captured)
    undone: UndoResult = NOTHING_TO_UNDO
    sentinels: Sentinels = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make the sentinels, which all steps share."""
        self.sentinels = Sentinels(
            prober=self.services.prober,
            held=self.plan.held_streams,
            journal=self.journal,
            max_broken=self.plan.ceilings.broken_streams,
        )

    async def run(self) -> None:
        """Run the stages in order, and journal the verdict.

        If a gate fails or the journal cannot be written, the later stages are skipped and every change is undone. The exit code
        in the journal's last event is 4 if that undo could not be proven.

        After a cancellation, or a fault in cutover itself, the train undoes every change and raises the same error again.

        Raises:
            UndoUnprovenError: The train was cancelled, or stopped by a fault, and a change could not be proven undone.
        """
        try:
            for stage in STAGES:
                await self._run_stage(stage)
            passed = all(gate.holds for gate in judge(self.results, self.plan.ceilings))
            if passed and self.journal.commit(TrainFinished(passed=True, exit_code=0)):
                return
            await self._undo(self.journal.broken or "a gate does not hold")
        except BaseException as error:
            cause = type(root_cause(error)).__name__
            self.journal.record(Interrupted(cause=cause))
            # The first cancellation is raised again below.
            with suppress(anyio.get_cancelled_exc_class()):
                await self._undo(f"interrupted ({cause})")
            stopped = 1 if isinstance(error, Exception) else self.interrupted_code()
            code = stopped if self.undone.proven else 4
            self.journal.record(
                TrainFinished(passed=False, exit_code=code, reasons=(f"interrupted ({cause})",))
            )
            if not self.undone.proven:
                raise UndoUnprovenError("\n".join((self.undone.detail, *self.undone.to_do))) from error
            raise
        why = reasons(judge(self.results, self.plan.ceilings))
        self.journal.record(
            TrainFinished(
                passed=False,
                exit_code=exit_code(
                    self.results,
                    touched=self.touched,
                    undone=self.undone.proven,
                    recorded=self.journal.broken is None,
                ),
                reasons=(*why, *filter(None, [self.journal.broken])),
            )
        )

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
        may = may_go_on(self.results, self.plan.ceilings) and self.journal.broken is None
        async with anyio.create_task_group() as group:
            for step_id, step in stage.steps:
                if step_id == dual_run.STEP_ID and self.plan.dual_run is None:
                    self._finish(_skipped(step_id, "RUN_DUAL_RUN is 0", by_configuration=True))
                elif not may:
                    why = self.journal.broken or "an earlier step failed"
                    self._finish(_skipped(step_id, f"not run: {why}", by_configuration=False))
                else:
                    group.start_soon(self._run_step, step_id, step)

    async def _run_step(self, step_id: str, step: Step) -> None:
        self.journal.record(StepStarted(step_id=step_id))
        recorder = StepRecorder(step_id=step_id, journal=self.journal, evidence=self.evidence)
        self._finish(await step(self, recorder))

    def _finish(self, result: StepResult) -> None:
        if self.evidence.root is not None:
            result = attrs.evolve(result, artifact=f"{result.step_id}/summary.json")
        self.results.append(result)
        self.journal.record(StepFinished(result=result))

    async def _undo(self, reason: str) -> None:
        """Read the traffic again, and undo the changes that are still open; do nothing if no change was sent.

        The undo runs in a child task with a shield of its own, so that no cancellation reaches the undo.
        """
        if not self.touched:
            return
        stable = self.plan.drill.stable_revision

        async def undo() -> None:
            with anyio.CancelScope(shield=True):
                # If the traffic cannot be read again, its earlier proof stands.
                with anyio.move_on_after(UNDO_DEADLINE), suppress(Exception):
                    async with self.undo_services() as services:
                        await look_again(services, self.journal, stable=stable)
                if plan := plan_undo(self.journal.events, stable=stable):
                    await self._carry_out(plan, reason)

        with anyio.CancelScope(shield=True):
            async with anyio.create_task_group() as group:
                group.start_soon(undo)

    async def _carry_out(self, plan: UndoPlan, reason: str) -> None:
        self.journal.record(UndoStarted(reason=reason))
        service = self.plan.gcloud_service
        self.undone = UndoResult(
            proven=False,
            detail=f"the changes could not be proven undone within {UNDO_DEADLINE:g} s",
            to_do=to_do(plan, self.services.control, service=service),
        )
        try:
            with anyio.move_on_after(UNDO_DEADLINE):
                async with self.undo_services() as services:
                    self.undone = await carry_out(plan, services, self.journal, service=service)
        except Exception as error:  # noqa: BLE001  a fault in cutover itself: the operator must still learn what is open
            detail = f"the undo itself failed: {root_cause(error)!r}"
            self.undone = attrs.evolve(self.undone, proven=False, detail=detail)
        if not self.undone.proven and self.evidence.root is not None:
            again = f"or, once production answers: {recover_command(self.evidence.root)}"
            self.undone = attrs.evolve(self.undone, to_do=(*self.undone.to_do, again))
        self.journal.record(
            UndoFinished(proven=self.undone.proven, detail=self.undone.detail, to_do=self.undone.to_do)
        )
        if plan.routes is not None and self.undone.proven:
            # If the deadline cuts this smoke off, the journal has its start but no end.
            with anyio.move_on_after(UNDO_DEADLINE), suppress(Exception):
                await self._smoke_again()

    async def _smoke_again(self) -> None:
        """Run the smoke again after the routes were undone."""
        step_id = smoke.Phase.UNDONE.step_id
        self.journal.record(StepStarted(step_id=step_id))
        recorder = StepRecorder(step_id=step_id, journal=self.journal, evidence=self.evidence)
        async with self.undo_services() as services:
            self._finish(await smoke.run(smoke.Plan(phase=smoke.Phase.UNDONE), services.prober, recorder))


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
    return await error_budget.run(train.plan.error_budget, recorder)


async def _smoke_pre(train: Train, recorder: StepRecorder) -> StepResult:
    return await smoke.run(smoke.Plan(phase=smoke.Phase.PRE), train.services.prober, recorder)


async def _drill(train: Train, recorder: StepRecorder) -> StepResult:
    return await rollback_drill.run(
        train.plan.drill, train.captured_traffic, train.services, train.sentinels, recorder
    )


async def _flip(train: Train, recorder: StepRecorder) -> StepResult:
    return await route_flip.run(
        train.plan.flip, train.captured_routes, train.services, train.sentinels, recorder
    )


async def _smoke_post(train: Train, recorder: StepRecorder) -> StepResult:
    return await smoke.run(smoke.Plan(phase=smoke.Phase.POST), train.services.prober, recorder)


async def _dual_run(train: Train, recorder: StepRecorder) -> StepResult:
    assert train.plan.dual_run is not None  # noqa: S101  without a plan the train skips this step
    return await dual_run.run(train.plan.dual_run, train.services, recorder)


async def _final_state(train: Train, recorder: StepRecorder) -> StepResult:
    routes = train.captured_routes
    goal: Sequence[tuple[str, str | None]] = routes.overrides
    if train.plan.flip.apply_route_flip:
        goal = tuple(dict(route_flip.wanted_routes(routes, train.services.control.lane.new_target)).items())
    plan = final_state.Plan(
        routes=tuple(goal),
        traffic=train.captured_traffic,
        canary_revision=train.plan.drill.canary_revision,
        budget=train.plan.error_budget.budget,
    )
    return await final_state.run(plan, train.services, recorder)


STAGES: tuple[Stage, ...] = (
    Stage(steps=((preflight.STEP_ID, _preflight), (error_budget.STEP_ID, _error_budget))),
    Stage(steps=((smoke.Phase.PRE.step_id, _smoke_pre),)),
    Stage(steps=((rollback_drill.STEP_ID, _drill),)),
    Stage(steps=((route_flip.STEP_ID, _flip),)),
    Stage(steps=((smoke.Phase.POST.step_id, _smoke_post), (dual_run.STEP_ID, _dual_run))),
    Stage(steps=((final_state.STEP_ID, _final_state),)),
)
"""The stages, in order. The drill moves traffic and the flip sets overrides, so each is alone in its stage."""
