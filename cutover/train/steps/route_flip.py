"""The route flip: it sets the overrides, or only verifies them, then proves twice that every path leads to the new service."""

import re

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.holds import FLIP
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import GLOBAL, RouteState
from cutover.production.lane import WriteProbe
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.writer import RouteChange, set_routes
from cutover.production.services import Services
from cutover.train.front_door_hold import hold_at_front_door
from cutover.train.hold import Holds
from cutover.train.measured_budget import check_budget
from cutover.train.sentinels import Sentinels, Watch
from cutover.train.soak import confirm_count, soak
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.FLIP
_SERVER_ERROR = 500


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the flip."""

    apply_route_flip: bool
    cohort_key: str
    flip_confirm_seconds: float
    """Seconds after the flip until the routes are read once more."""
    canary_look_seconds: float
    """Longest time in seconds between two sentinels while the flip is confirmed."""
    max_canary_worse_percent: float
    """The percentage of the turns at the front door that may fail while the train waits before the flip."""
    thread_id: str
    """Thread id in the evaluated alias paths; no stream starts on it."""


def wanted_routes(captured: RouteState, new_target: str) -> tuple[tuple[str, str | None], ...]:
    """Return the writes of a flip, in order: clear the global override, set each domain, set the global override."""
    return (
        (GLOBAL, None),
        *((domain, new_target) for domain in captured.domains),
        (GLOBAL, new_target),
    )


async def run(
    plan: Plan,
    captured: RouteState,
    services: Services,
    sentinels: Sentinels,
    recorder: StepRecorder,
    *,
    holds: Holds,
) -> StepResult:
    """Verify the routes, or set and verify them with sentinel streams across the change.

    The step ends early and sets nothing if the overrides cannot be read, if the instances disagree, if somebody else has
    changed the overrides since the preflight, or if the hold before the flip does not end with ``go``.
    """
    if not await _is_as_captured("control-status", captured, services, recorder):
        return recorder.finish()
    if plan.apply_route_flip and holds.at(FLIP):
        target = services.control.lane.new_target
        await hold_at_front_door(
            FLIP,
            state=f"the overrides: {recorder.checks[-1].detail}; the flip sets all of them to {target}",
            services=services,
            sentinels=sentinels,
            recorder=recorder,
            holds=holds,
            every=plan.canary_look_seconds,
            most_failed_percent=plan.max_canary_worse_percent,
            flipped=False,
        )
        if recorder.checks[-1].status.failed or not await _is_as_captured(
            "control-status-after-hold", captured, services, recorder
        ):
            return recorder.finish()
    watch = sentinels.around(STEP_ID)
    async with watch.open():
        goal = await _carry_out(plan, captured, services, watch, recorder)
    tally = watch.tally()
    tallies = (tally,) if plan.apply_route_flip else ()
    if watch.too_many.is_set():
        detail = tally.describe_broken("the flip")
        recorder.check(f"{STEP_ID}-sentinels", StepStatus.FAIL, detail, kind="sentinels")
    if goal is None:
        return recorder.finish(sentinels=tallies)
    await check_budget(services, recorder, after=STEP_ID)
    verb = "applied and verified" if plan.apply_route_flip else "verified"
    rows = len(services.control.lane.paths_to_evaluate(plan.thread_id))
    return recorder.finish(
        f"{verb}: {rows} paths lead to {services.control.lane.new_target}",
        facts={"applied": plan.apply_route_flip, "routes": dict(goal)},
        sentinels=tallies,
    )


async def _carry_out(
    plan: Plan, captured: RouteState, services: Services, watch: Watch, recorder: StepRecorder
) -> tuple[tuple[str, str | None], ...] | None:
    """Set the overrides if the plan says so, and verify the routes; return the overrides that must hold.

    Return None if the overrides could not be set.
    """
    goal: tuple[tuple[str, str | None], ...] = captured.overrides
    if plan.apply_route_flip:
        wanted = wanted_routes(captured, services.control.lane.new_target)
        goal = tuple(dict(wanted).items())
        if not await _apply(wanted, captured, services, watch, recorder):
            return None
    for path, (status, detail) in (await _evaluate_all(plan, services, label="flip.evaluate")).items():
        name = _slug(path.replace(plan.thread_id, "id"))
        recorder.check(f"evaluate-{name}", status, detail, kind="route_evaluate", endpoint=path)
    await _write_probes(services, recorder)
    await _confirm(plan, goal, services, watch, recorder)
    return goal


async def _is_as_captured(
    name: str, captured: RouteState, services: Services, recorder: StepRecorder
) -> bool:
    """Read the overrides; record a check, and return True if every instance still has the captured ones."""
    try:
        found = await services.control.sample(label=f"flip.{name}")
    except PeerError as error:
        recorder.failure(name, error, kind="control_status", tolerable=False)
        return False
    status, detail = StepStatus.PASS, found.describe()
    if found.agreed is None:
        status = StepStatus.FAIL
        detail = f"the instances disagree: {found.describe()}; {services.control.how_to_agree(found)}"
    elif moved := captured.differences_from(found.agreed):
        status = StepStatus.FAIL
        detail = f"the overrides have changed since the preflight, so the flip changed nothing: {moved}"
    recorder.check(name, status, detail, kind="control_status", tolerable=not status.failed)
    return not status.failed


async def _apply(
    wanted: tuple[tuple[str, str | None], ...],
    captured: RouteState,
    services: Services,
    watch: Watch,
    recorder: StepRecorder,
) -> bool:
    async def move() -> RouteChange:
        # The sentinels took their time, so somebody may have acted since the first look.
        if watch.sentinels.held and (problem := await _moved_since(captured, services)):
            return RouteChange(proven=False, detail=f"the flip changed nothing: {problem}")
        return await set_routes(
            services.control,
            wanted,
            captured=captured,
            step_id=STEP_ID,
            label="flip.apply",
            on_refusal=OnRefusal.STOP,
            journal=recorder.journal,
            clock=services.clock,
            own_states=(*captured.overrides, *wanted),
        )

    change = await watch.across(move)
    status = StepStatus.PASS if change.proven else StepStatus.FAIL
    recorder.check("apply-overrides", status, change.detail, kind="apply", tolerable=False)
    return change.proven


async def _moved_since(captured: RouteState, services: Services) -> str:
    """Return the changes of the overrides since the capture, or the reason why they cannot be read; empty if nothing changed."""
    try:
        sample = await services.control.sample(label="flip.apply.look")
    except PeerError as error:
        return str(error)
    changes = [captured.differences_from(state) for state, _ in sample.shares]
    found = next((change for change in changes if change), "")
    return found and f"the overrides have changed since the preflight: {found}"


async def _evaluate_all(plan: Plan, services: Services, *, label: str) -> dict[str, tuple[StepStatus, str]]:
    """Evaluate every path side by side; return the outcomes in the lane's order."""
    paths = services.control.lane.paths_to_evaluate(plan.thread_id)
    outcomes = dict.fromkeys(paths, (StepStatus.ERROR, ""))

    async def evaluate(path: str) -> None:
        outcomes[path] = await _evaluate(path, plan, services, label=label)

    async with anyio.create_task_group() as group:
        for path in paths:
            group.start_soon(evaluate, path)
    return outcomes


async def _evaluate(path: str, plan: Plan, services: Services, *, label: str) -> tuple[StepStatus, str]:
    try:
        found = await services.control.evaluate(
            path, cohort_key=plan.cohort_key, label=f"{label}.{_slug(path)}"
        )
    except PeerError as error:
        return StepStatus.ERROR, str(error)
    wanted = services.control.lane.new_target
    detail = f"{path} leads to {found.target} ({found.reason or 'no reason given'}), {wanted} was wanted"
    return (StepStatus.PASS if found.target == wanted else StepStatus.FAIL), detail


async def _write_probes(services: Services, recorder: StepRecorder) -> None:
    """Send an empty object without a token to each write path. Any answer passes, except a redirect or a server error.

    Only a 3xx status is a redirect. RFC 9110 10.2.2: in a 201 answer, ``location`` names the resource that was created; in a 401
    answer it has no meaning. No answer is an ``error``.
    """

    async def write(probe: WriteProbe) -> None:
        check_id = f"write-{probe.method.lower()}-{_slug(probe.path)}"
        url = services.prober.base_url + probe.path
        try:
            reply = await services.service.read(
                probe.method, url, label=f"flip.{check_id}", json={}, attempts=1
            )
        except PeerError as error:
            recorder.check(check_id, StepStatus.ERROR, str(error), kind="write_probe", endpoint=url)
            return
        bad = reply.is_redirect or reply.status >= _SERVER_ERROR
        status = StepStatus.FAIL if bad else StepStatus.PASS
        recorder.check(
            check_id, status, reply.describe(), kind="write_probe", endpoint=url, http_status=reply.status
        )

    async with anyio.create_task_group() as group:
        for probe in services.control.lane.write_probes:
            group.start_soon(write, probe)


async def _confirm(
    plan: Plan,
    goal: tuple[tuple[str, str | None], ...],
    services: Services,
    watch: Watch,
    recorder: StepRecorder,
) -> None:
    """Wait, then read the overrides and evaluate every path again: an override may be lost with its instance.

    After an applied flip, sentinel streams run during the wait. If too many of them break, the wait ends at once and
    nothing is read: the step has failed.
    """
    window = plan.flip_confirm_seconds
    paced = confirm_count(window, plan.canary_look_seconds) if plan.apply_route_flip else 0
    if not await soak(window, clock=services.clock, watch=watch, paced=paced):
        return
    try:
        sample = await services.control.sample(label="flip.confirm")
    except PeerError as error:
        recorder.failure("confirm-routes", error, kind="control_status", tolerable=False)
        return
    held = sample.holds(goal)
    detail = (
        f"after {plan.flip_confirm_seconds:g} s the overrides {'still' if held else 'no longer'} hold: "
        f"{sample.describe()}"
    )
    status = StepStatus.PASS if held else StepStatus.FAIL
    recorder.check("confirm-routes", status, detail, kind="control_status", tolerable=False)
    outcomes = (await _evaluate_all(plan, services, label="flip.confirm")).values()
    # A path that leads elsewhere is evidence, and comes first. A path without an answer is none.
    astray = [detail for status, detail in outcomes if status is StepStatus.FAIL]
    unanswered = [detail for status, detail in outcomes if status is StepStatus.ERROR]
    status = StepStatus.FAIL if astray else StepStatus.ERROR if unanswered else StepStatus.PASS
    recorder.check(
        "confirm-evaluations",
        status,
        "; ".join((*astray, *unanswered)) or "every path still leads to the new service",
        kind="route_evaluate",
    )


def _slug(path: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", path.lower()).strip("-") or "root"
