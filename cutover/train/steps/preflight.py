"""The preflight: it checks that every address answers, that production has one clear state, that the tokens work, and that both revisions are ready.

`cutover preflight` runs it too. It changes nothing. It tries the tokens of the control plane and of Cloud Run, and the permission to update the traffic. If the flip will set
overrides, it proves that the token may set them. The smoke that follows tries AUTH_TOKEN, because only a chat stream certainly needs that
token. If the service refuses it, the check is an ``error``.
"""

from collections.abc import Callable, Mapping, Sequence

import anyio
import attrs

from cutover.errors import PeerError
from cutover.http.tokens import UNAUTHORIZED
from cutover.model import step_ids
from cutover.model.gcloud_service import GcloudService
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState
from cutover.production.services import Services
from cutover.train.canary_evidence import WAYS_TO_SEE_CANARY, CanaryEvidence, EvidenceSearch, names_others
from cutover.train.reachability import Address, address_facts, check_addresses
from cutover.train.step_recorder import StepRecorder
from cutover.train.token_lifetimes import check_tokens
from cutover.train.traffic_readiness import TrafficReadiness, status_of

STEP_ID = step_ids.PREFLIGHT
_FRONT, _CLOUD_RUN = "base_url", "cloud_run_api_url"
"""The fields of the two addresses whose APIs are read."""
_BEFORE_EVIDENCE = frozenset({"routes", "traffic", "revision-stable", "revision-canary"})
"""The checks without which no answer would be evidence. Others, such as those of the tokens, may fail: one run then shows all there is to mend."""
_ROUTES_REMEDY = "check BASE_URL and CONTROL_ACCESS_TOKEN, and start again when the route-split API answers"


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the preflight."""

    addresses: tuple[Address, ...] = ()
    """The addresses that the train needs, which are asked first."""
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
    gcloud_service: GcloudService
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
    revisions: tuple[str | None, ...] = ()
    """The revisions that answered the status reads, by the header."""
    token_ends: Mapping[str, float] = attrs.field(factory=dict)


async def run(plan: Plan, services: Services, recorder: StepRecorder) -> tuple[StepResult, Captured]:
    """Ask at every address; then read the routes, the traffic and both revisions side by side, and check each. Return the result and the capture."""
    found = _Found()
    reached = await check_addresses(plan.addresses, plan.seconds_needed, services, recorder)
    # An address without an answer has its line. More requests to it would only cost time, and say the same again.
    closed = {
        each.field: f"not asked, because {each.name} is not reached"
        for each in plan.addresses
        if each.field not in reached
    }
    traffic = TrafficReadiness(
        stable_revision=plan.stable_revision,
        canary_revision=plan.canary_revision,
        gcloud_service=plan.gcloud_service,
        earlier_run=plan.earlier_run,
        services=services,
        recorder=recorder,
    )
    async with anyio.create_task_group() as reads:
        if no_control := closed.get(_FRONT):
            recorder.check("routes", StepStatus.SKIP, no_control, tolerable=False)
        else:
            reads.start_soon(_routes, services, recorder, found)
        if plan.apply_route_flip and not no_control:
            reads.start_soon(_permission, services, recorder)
        else:
            why = no_control or "not asked: APPLY_ROUTE_FLIP is 0, so the train sets no override"
            recorder.check("permission-routes", StepStatus.SKIP, why, tolerable=False)
        if no_cloud_run := closed.get(_CLOUD_RUN):
            traffic.skip(no_cloud_run)
        else:
            reads.start_soon(traffic.check)
        reads.start_soon(_tokens, plan, services, recorder, found, closed)
    evidence = await _evidence(plan, services, recorder, found, traffic.state)
    captured = Captured(
        routes=found.routes, traffic=traffic.state, evidence=evidence, token_ends=found.token_ends
    )
    facts = {
        "traffic": captured.traffic.served() if captured.traffic else None,
        "routes": dict(captured.routes.overrides) if captured.routes else None,
        "addresses": [address_facts(each, reached.get(each.field)) for each in plan.addresses],
        "evidence": evidence.facts(),
    }
    detail = "production has one clear state, and may be changed"
    if traffic.state is not None and (warning := traffic.state.warning()):
        detail += f"; WARNING: {warning}"
    return recorder.finish(detail, facts=facts), captured


async def _tokens(
    plan: Plan, services: Services, recorder: StepRecorder, found: _Found, closed: Mapping[str, str]
) -> None:
    """Check the lifetimes of the tokens. ``closed`` has the reason not to ask, by the field of an address without an answer."""
    places = {"control": _FRONT, "auth": _FRONT, "cloud-run": _CLOUD_RUN}
    found.token_ends = await check_tokens(
        plan.seconds_needed,
        services,
        recorder,
        unasked={role: closed[field] for role, field in places.items() if field in closed},
        token_info_url=plan.token_info_url,
    )


async def _routes(services: Services, recorder: StepRecorder, found: _Found) -> None:
    try:
        sample = await services.control.sample(label="preflight.routes")
    except PeerError as error:
        advice = "renew CONTROL_ACCESS_TOKEN" if status_of(error) == UNAUTHORIZED else _ROUTES_REMEDY
        recorder.check("routes", StepStatus.ERROR, f"{error}; {advice}", tolerable=False)
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


async def _evidence(
    plan: Plan, services: Services, recorder: StepRecorder, found: _Found, traffic: TrafficState | None
) -> CanaryEvidence:
    """Find out what can tell that the canary answers a stream; without anything the drill could prove nothing."""
    check_id = "canary-evidence"
    failed = {check.check_id for check in recorder.checks if check.status.failed}
    if traffic is None or found.routes is None or failed & _BEFORE_EVIDENCE:
        recorder.check(
            check_id, StepStatus.SKIP, "not looked for, because an earlier check failed", tolerable=False
        )
        return CanaryEvidence()
    search = EvidenceSearch(
        stable=plan.stable_revision,
        canary=plan.canary_revision,
        canary_tag=plan.canary_tag,
        service=plan.service,
        services=services,
        traffic=traffic,
        revisions=found.revisions,
        label=f"preflight.{check_id}",
    )
    evidence, holder = await search.find()
    status, warns, detail = StepStatus.PASS, False, evidence.detail
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
        warns = True
        detail = f"nothing will show whether the canary answers a stream, and ACCEPT_BLIND_DRILL=1 accepts that: {detail}"
    elif not evidence.exists:
        status = StepStatus.ERROR
        detail = f"nothing would show whether the canary answers a stream: {detail}. {WAYS_TO_SEE_CANARY}"
    recorder.check(check_id, status, detail, tolerable=False, warns=warns)
    return evidence
