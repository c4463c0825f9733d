"""The preflight: it checks that production has one clear state, that the tokens work, and that both revisions are ready.

It changes nothing. It tries the tokens of the control plane and of Cloud Run, and the permission to update the traffic. If the flip will set
overrides, it proves that the token may set them. The smoke that follows tries AUTH_TOKEN, because only a chat stream certainly needs that
token. If the service refuses it, the check is an ``error``.
"""

import anyio
import attrs

from cutover.errors import PeerError, RefusedError
from cutover.model import step_ids
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, describe_shares
from cutover.production.services import Services
from cutover.train.step_recorder import StepRecorder
from cutover.train.token_lifetimes import check_tokens

STEP_ID = step_ids.PREFLIGHT
_ADVICE = {
    401: "; renew CLOUD_RUN_ACCESS_TOKEN (or the application default credentials, if that is not set)",
    403: (
        "; ask the owner of PROJECT to grant run.services.update on SERVICE (roles/run.developer has it) to the account of "
        "CLOUD_RUN_ACCESS_TOKEN (or of the application default credentials, if that is not set)"
    ),
}
"""HTTP status of a refused trial of the traffic update -> the advice to the operator."""


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the preflight: the two revisions, the permission that the flip needs, and the time that all may take."""

    stable_revision: str
    canary_revision: str
    apply_route_flip: bool
    """True if the flip sets overrides: then the preflight proves that the token may set them."""
    seconds_needed: float = 0.0
    """Seconds for which every token must still live: those of the train and of its undo."""


@attrs.frozen(kw_only=True)
class Captured:
    """The capture: production before the first change. A part is None if it could not be read, or if the instances disagree on it."""

    routes: RouteState | None = None
    traffic: TrafficState | None = None


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> tuple[StepResult, Captured]:
    """Read the routes, the traffic and both revisions side by side, and check each. Return the result and the capture."""
    found: dict[str, RouteState | TrafficState] = {}
    async with anyio.create_task_group() as reads:
        reads.start_soon(_routes, services, recorder, found)
        if plan.apply_route_flip:
            reads.start_soon(_permission, services, recorder)
        reads.start_soon(_traffic, plan, services, recorder, found)
        for role, name in (("stable", plan.stable_revision), ("canary", plan.canary_revision)):
            reads.start_soon(_revision, role, name, services, recorder)
        reads.start_soon(check_tokens, plan.seconds_needed, services, recorder)
    routes, traffic = found.get("routes"), found.get("traffic")
    captured = Captured(
        routes=routes if isinstance(routes, RouteState) else None,
        traffic=traffic if isinstance(traffic, TrafficState) else None,
    )
    facts = {
        "traffic": captured.traffic.served() if captured.traffic else None,
        "routes": dict(captured.routes.overrides) if captured.routes else None,
    }
    return recorder.finish("production has one clear state, and may be changed", facts=facts), captured


async def _routes(
    services: Services, recorder: StepRecorder, found: dict[str, RouteState | TrafficState]
) -> None:
    try:
        sample = await services.control.sample(label="preflight.routes")
    except PeerError as error:
        recorder.check("routes", StepStatus.ERROR, str(error), tolerable=False)
        return
    if sample.agreed is None:
        detail = f"the instances disagree, so there is no single state to restore: {sample.describe()}"
        recorder.check("routes", StepStatus.ERROR, detail, tolerable=False)
        return
    found["routes"] = sample.agreed
    recorder.check("routes", StepStatus.PASS, f"{sample.describe()} ({sample.agreed.mode})", tolerable=False)


async def _permission(services: Services, recorder: StepRecorder) -> None:
    """Prove that the token may set overrides. Without a proof, the check is an ``error``: nothing was judged."""
    try:
        permission = await services.control.override_permission(label="preflight.permission-routes")
    except PeerError as error:
        detail = f"the permission to set overrides is not known: {error}; nothing was changed"
        recorder.check("permission-routes", StepStatus.ERROR, detail, tolerable=False)
        return
    status = StepStatus.PASS if permission.proven else StepStatus.ERROR
    recorder.check("permission-routes", status, permission.detail, tolerable=False)


async def _traffic(
    plan: Plan, services: Services, recorder: StepRecorder, found: dict[str, RouteState | TrafficState]
) -> None:
    try:
        state = await services.traffic.read(label="preflight.traffic")
    except PeerError as error:
        recorder.check("traffic", StepStatus.ERROR, str(error), tolerable=False)
        return
    found["traffic"] = state
    problem = _traffic_problem(plan, state)
    detail = problem or state.describe_served()
    if not problem and state.asks_for_latest:
        detail += "; LATEST is pinned during the drill, and restored after it"
    # Nothing was judged yet, so a problem is no evidence against the canary.
    recorder.check("traffic", StepStatus.ERROR if problem else StepStatus.PASS, detail, tolerable=False)
    await _may_write(state, services, recorder)


def _traffic_problem(plan: Plan, state: TrafficState) -> str:
    """Return the reason not to start a train from this traffic; an empty text if there is none."""
    served = state.served()
    if unready := state.unready_reason():
        return unready
    if state.asks_for_latest and state.latest_ready == plan.canary_revision:
        return f"LATEST is {plan.canary_revision} already, so the earlier split cannot be restored"
    if not served.get(plan.stable_revision):
        return (
            f"{plan.stable_revision} serves nothing ({describe_shares(served)}): "
            "are STABLE and CANARY the wrong way round?"
        )
    return ""


async def _may_write(state: TrafficState, services: Services, recorder: StepRecorder) -> None:
    """Try the permission to move traffic before anything moves: by a write of the captured split that changes nothing."""
    try:
        untried = await services.traffic.may_write(state, label="preflight.permission-traffic")
    except PeerError as error:
        detail = f"the permission to update the traffic could not be shown, and nothing was changed: {error}"
        status = error.status if isinstance(error, RefusedError) else 0
        recorder.check(
            "permission-traffic", StepStatus.ERROR, detail + _ADVICE.get(status, ""), tolerable=False
        )
        return
    detail = "the traffic may be updated"
    if untried:
        detail = f"the permission to update the traffic could not be tried: {untried}"
    recorder.check("permission-traffic", StepStatus.PASS, detail, tolerable=False)


async def _revision(role: str, name: str, services: Services, recorder: StepRecorder) -> None:
    check_id = f"revision-{role}"
    try:
        revision = await services.traffic.revision(name, label=f"preflight.{check_id}")
    except PeerError as error:
        recorder.check(check_id, StepStatus.ERROR, str(error), tolerable=False)
        return
    # A revision that cannot be tried was not judged.
    if not revision.exists:
        recorder.check(
            check_id, StepStatus.ERROR, f"there is no revision {name}: {revision.message}", tolerable=False
        )
    elif not revision.ready:
        recorder.check(
            check_id, StepStatus.ERROR, f"{name} is not ready: {revision.message}", tolerable=False
        )
    else:
        recorder.check(check_id, StepStatus.PASS, f"{name} is ready", tolerable=False)
