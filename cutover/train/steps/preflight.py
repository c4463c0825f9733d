"""The preflight: it checks that production has one clear state, that the tokens work, and that both revisions are ready.

It changes nothing. It tries the tokens of the control plane and of Cloud Run, and the permission to update the traffic. If the flip will set
overrides, it proves that the token may set them. The smoke that follows tries AUTH_TOKEN, because only a chat stream certainly needs that
token. If the service refuses it, the check is an ``error``.
"""

from collections.abc import Callable, Mapping, Sequence

import anyio
import attrs

from cutover.errors import PeerError, RefusedError
from cutover.http.statuses import TOO_MANY_REQUESTS
from cutover.http.tokens import UNAUTHORIZED
from cutover.model import step_ids
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, describe_shares, shares
from cutover.production.services import Services
from cutover.production.traffic.backend import advice
from cutover.train.canary_evidence import WAYS_TO_SEE_CANARY, CanaryEvidence, EvidenceSearch, names_others
from cutover.train.step_recorder import StepRecorder
from cutover.train.token_lifetimes import check_tokens

STEP_ID = step_ids.PREFLIGHT


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the preflight."""

    stable_revision: str
    canary_revision: str
    canary_tag: str
    accept_blind_drill: bool
    apply_route_flip: bool
    """True if the flip sets overrides: then the preflight proves that the token may set them."""
    seconds_needed: float = 0.0
    """Seconds for which every token must still live: those of the train, with short chat turns, and of its undo."""
    turns_in_a_row: int = 0
    """Number of chat turns that the train waits for one after another; the smoke shows how long one takes."""
    token_info_url: str = ""
    """The page where Google tells how long the token for Cloud Run lives; empty for an API that is not Google's."""
    service: str
    gcloud_service: str
    """The service in a gcloud command, for messages to an operator."""
    earlier_run: Callable[[Sequence[Mapping[str, int]]], str]
    """Returns a sentence that names the earlier run which asked for one of these splits; an empty text if there is none."""


@attrs.frozen(kw_only=True)
class Captured:
    """The capture: production before the first change. A part is None if it could not be read, or if the instances disagree on it."""

    routes: RouteState | None = None
    traffic: TrafficState | None = None
    evidence: CanaryEvidence = attrs.field(factory=CanaryEvidence)
    """The evidence that can tell whether the canary answered. Without any, only a drill that may be blind starts."""
    token_ends: Mapping[str, float] = attrs.field(factory=dict)
    """Name of a fixed token -> the time on the train's clock at which it expires, if that is known."""


@attrs.define(eq=False)
class _Found:
    """The parts of the capture as they are read."""

    routes: RouteState | None = None
    traffic: TrafficState | None = None
    revisions: tuple[str | None, ...] = ()
    """The revisions that answered the status reads, by the header."""
    token_ends: Mapping[str, float] = attrs.field(factory=dict)


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> tuple[StepResult, Captured]:
    """Read the routes, the traffic and both revisions side by side, and check each. Return the result and the capture."""
    found = _Found()
    async with anyio.create_task_group() as reads:
        reads.start_soon(_routes, services, recorder, found)
        if plan.apply_route_flip:
            reads.start_soon(_permission, services, recorder)
        reads.start_soon(_traffic, plan, services, recorder, found)
        for role, name in (("stable", plan.stable_revision), ("canary", plan.canary_revision)):
            reads.start_soon(_revision, role, name, services, recorder)
        reads.start_soon(_tokens, plan, services, recorder, found)
    evidence = await _evidence(plan, services, recorder, found)
    captured = Captured(
        routes=found.routes, traffic=found.traffic, evidence=evidence, token_ends=found.token_ends
    )
    facts = {
        "traffic": captured.traffic.served() if captured.traffic else None,
        "routes": dict(captured.routes.overrides) if captured.routes else None,
    }
    detail = "production has one clear state, and may be changed"
    if found.traffic is not None and (warning := found.traffic.warning()):
        detail += f"; WARNING: {warning}"
    return recorder.finish(detail, facts=facts), captured


async def _tokens(plan: Plan, services: Services, recorder: StepRecorder, found: _Found) -> None:
    found.token_ends = await check_tokens(
        plan.seconds_needed, services, recorder, token_info_url=plan.token_info_url
    )


async def _routes(services: Services, recorder: StepRecorder, found: _Found) -> None:
    try:
        sample = await services.control.sample(label="preflight.routes")
    except PeerError as error:
        advice = "; renew CONTROL_ACCESS_TOKEN" if _status(error) == UNAUTHORIZED else ""
        recorder.check("routes", StepStatus.ERROR, f"{error}{advice}", tolerable=False)
        return
    if sample.agreed is None:
        detail = (
            f"the instances disagree, so there is no single state to restore: {sample.describe()}; "
            f"{services.control.how_to_agree(sample)}"
        )
        recorder.check("routes", StepStatus.ERROR, detail, tolerable=False)
        return
    found.routes, found.revisions = sample.agreed, sample.revisions
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


async def _traffic(plan: Plan, services: Services, recorder: StepRecorder, found: _Found) -> None:
    try:
        state = await services.traffic.read(label="preflight.traffic")
    except PeerError as error:
        recorder.check("traffic", StepStatus.ERROR, _unread(error), tolerable=False)
        return
    found.traffic = state
    problem = _traffic_problem(plan, state)
    detail = problem or state.describe_served()
    if not problem and state.asks_for_latest:
        detail += "; LATEST is pinned during the drill, and restored after it"
    # A refusal judges nothing: the drill never began.
    recorder.check("traffic", StepStatus.ERROR if problem else StepStatus.PASS, detail, tolerable=False)
    await _may_write(state, services, recorder)


def _traffic_problem(plan: Plan, state: TrafficState) -> str:
    """Return the reason not to start a train from this traffic, and the command that mends it; an empty text if there is none.

    A train starts only where stable serves everything and nothing else is asked for. From any other split the drill would take a
    share from somebody, or give back a share that nobody served.
    """
    if unready := state.unready_reason():
        return f"{unready}; to see it: gcloud run services describe {plan.gcloud_service}"
    served, asked = state.served(), shares(state.targets, latest=state.latest_ready)
    stable, canary = plan.stable_revision, plan.canary_revision
    whole = {stable: 100}
    if state.asks_for_latest and state.latest_ready == canary:
        problem = f"LATEST is {canary} already, so the earlier split cannot be restored"
    elif served == asked == whole:
        return ""
    elif not served.get(stable):
        problem = (
            f"{stable} serves nothing ({describe_shares(served)}): are STABLE and CANARY the wrong way round?"
        )
    elif served.get(canary):
        problem = f"{canary} serves already ({describe_shares(served)}), and the drill begins with {stable} at 100 %"
    elif served != whole:
        problem = f"other revisions serve too ({describe_shares(served)}), and the drill begins with {stable} at 100 %"
    else:
        problem = (
            f"the service's specification asks for {describe_shares(asked)}, but {describe_shares(served)} is served: "
            "the next change of the service may move the traffic to the split of the specification"
        )
    command = f"gcloud run services update-traffic {plan.gcloud_service} --to-revisions {stable}=100"
    left = plan.earlier_run([split for split in (asked, served) if split != whole])
    return "; ".join(filter(None, (problem, left, f"to give {stable} everything: {command}")))


async def _evidence(plan: Plan, services: Services, recorder: StepRecorder, found: _Found) -> CanaryEvidence:
    """Find out what can tell that the canary answers a stream; without anything the drill could prove nothing."""
    check_id = "canary-evidence"
    if found.traffic is None or any(check.status.failed for check in recorder.checks):
        recorder.check(check_id, StepStatus.SKIP, "not looked for, because another check failed")
        return CanaryEvidence()
    search = EvidenceSearch(
        stable=plan.stable_revision,
        canary=plan.canary_revision,
        canary_tag=plan.canary_tag,
        service=plan.service,
        services=services,
        traffic=found.traffic,
        revisions=found.revisions,
        label=f"preflight.{check_id}",
    )
    evidence, holder = await search.find()
    status, detail = StepStatus.PASS, evidence.detail
    named = {name for name in found.revisions if name}
    if why := names_others(services.prober.revision_header, named, stable=plan.stable_revision):
        status, detail = StepStatus.ERROR, why
    elif holder is not None:
        status = StepStatus.ERROR
        detail = (
            f"the canary has no tag, and the tag {plan.canary_tag}, which the drill would give it, is on {holder}: "
            "choose another name for CANARY_TAG, or set it to an empty text so that the drill gives no tag"
        )
    elif not evidence.exists and plan.accept_blind_drill:
        detail = f"nothing will show whether the canary answers a stream, and ACCEPT_BLIND_DRILL=1 accepts that: {detail}"
    elif not evidence.exists:
        status = StepStatus.ERROR
        detail = f"nothing would show whether the canary answers a stream: {detail}. {WAYS_TO_SEE_CANARY}"
    recorder.check(check_id, status, detail, tolerable=False)
    return evidence


async def _may_write(state: TrafficState, services: Services, recorder: StepRecorder) -> None:
    """Try the permission to move traffic before anything moves: by a write of the captured split that changes nothing."""
    try:
        untried = await services.traffic.may_write(state, label="preflight.permission-traffic")
    except PeerError as error:
        detail = f"the permission to update the traffic is not proven, and nothing was changed: {error}"
        detail += advice(_status(error))
        if _status(error) == TOO_MANY_REQUESTS:
            detail += "; wait a minute, then start again"
        recorder.check("permission-traffic", StepStatus.ERROR, detail, tolerable=False)
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
        recorder.check(check_id, StepStatus.ERROR, _unread(error), tolerable=False)
        return
    # A revision that cannot be tried was not judged.
    if not revision.exists:
        detail = f"there is no revision {name}: {revision.message}; correct {role.upper()}, or SERVICE, REGION or PROJECT"
        recorder.check(check_id, StepStatus.ERROR, detail, tolerable=False)
    elif not revision.ready:
        detail = (
            f"{name} is not ready: {revision.message}; repair it, or name another revision as {role.upper()}"
        )
        recorder.check(check_id, StepStatus.ERROR, detail, tolerable=False)
    else:
        recorder.check(check_id, StepStatus.PASS, f"{name} is ready", tolerable=False)


def _status(error: PeerError) -> int:
    """Return the HTTP status of a refusal; 0 for any other failure."""
    return error.status if isinstance(error, RefusedError) else 0


def _unread(error: PeerError) -> str:
    """Return the reason why Cloud Run could not be read, and the thing to do if the token was refused."""
    return f"{error}{advice(_status(error))}"
