"""The promotion: after a passed drill and the flip, the canary gets all traffic and keeps it.

``canary_share.py`` moves it, and has it watched and judged, as in the drill. If the promotion or a later step fails, the undo of the
train gives the captured split back.

An override lives in the memory of one instance, and the flip has set it on stable's. So the promotion sets the overrides of the flip once more,
on the canary's instances, as soon as they have the traffic. It sets none after a flip that only verified them.
"""

import attrs

from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.gcloud_service import GcloudService
from cutover.model.holds import PROMOTE
from cutover.model.results import StepResult, StepStatus
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget, split
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.writer import set_routes
from cutover.production.services import Services
from cutover.train import canary_plan
from cutover.train.canary_evidence import CanaryEvidence
from cutover.train.canary_metrics import measure_share
from cutover.train.canary_share import CanaryShares
from cutover.train.front_door_hold import hold_at_front_door
from cutover.train.hold import Holds
from cutover.train.sentinels import Sentinels
from cutover.train.step_recorder import StepRecorder

STEP_ID = step_ids.PROMOTION
CHANGE = "promotion"
"""The name of the change, for its check and its sentinels."""
_ALL = 100


@attrs.frozen(kw_only=True)
class Plan:
    """The plan of the promotion."""

    share: canary_plan.Plan
    gcloud_service: GcloudService


@attrs.frozen(kw_only=True)
class Routes:
    """The overrides that must hold once the canary has the traffic."""

    captured: RouteState
    """The overrides before the train's first change."""
    wanted: tuple[tuple[str, str | None], ...]
    """(route key, override) in the order of the writes."""
    apply: bool
    """True if the flip has set them; then the promotion sets them on the canary's instances."""


def promoted(captured: TrafficState, canary: str) -> tuple[TrafficTarget, ...]:
    """Return the targets after a promotion: all traffic on the canary, and every captured tag."""
    return split(captured, {canary: _ALL})


async def run(
    plan: Plan,
    captured: TrafficState,
    services: Services,
    sentinels: Sentinels,
    recorder: StepRecorder,
    *,
    evidence: CanaryEvidence,
    routes: Routes,
    holds: Holds,
) -> StepResult:
    """Give the canary all traffic, set the overrides on its instances, watch it as in the drill, and read the split back.

    Nothing is moved if the split cannot be read, is in change, or is no longer as the preflight captured it, or if the hold before the
    promotion does not end with ``go``.
    """
    shares = CanaryShares(
        plan=plan.share,
        captured=captured,
        services=services,
        sentinels=sentinels,
        recorder=recorder,
        evidence=evidence,
        label=CHANGE,
    )
    if not await _may_begin(shares, routes, holds):
        return recorder.finish()
    await shares.give_tag()
    began = services.clock.now()
    if _holds(recorder):
        await shares.give(_ALL, change=CHANGE, once_served=lambda: _routes(routes, services, recorder))
    if _holds(recorder):
        await measure_share(shares, percent=_ALL, after=CHANGE, began=began)
    if _holds(recorder) and shares.tag.row is not None:
        await _take_tag_away(plan, shares)
    if _holds(recorder):
        await _status_post(plan, shares)
    return recorder.finish(
        f"the canary has all traffic: {shares.state.describe_served()}",
        facts=shares.facts(),
        sentinels=shares.tallies,
    )


async def _may_begin(shares: CanaryShares, routes: Routes, holds: Holds) -> bool:
    """Read the split, and wait for a decision if the train holds here; return True if the promotion may begin."""
    otherwise = "the split is not as the drill left it"
    if not await shares.is_as_captured("status-pre", otherwise=otherwise):
        return False
    if not holds.at(PROMOTE):
        return True
    canary = shares.plan.canary_revision
    await hold_at_front_door(
        PROMOTE,
        state=f"{shares.state.describe_served()}; the promotion gives {canary} all traffic",
        services=shares.services,
        sentinels=shares.sentinels,
        recorder=shares.recorder,
        holds=holds,
        every=shares.plan.canary_look_seconds,
        most_failed_percent=shares.plan.max_canary_worse_percent,
        flipped=routes.apply,
    )
    # Somebody else may have changed the split during the wait.
    return _holds(shares.recorder) and await shares.is_as_captured(
        "status-pre-after-hold", otherwise=otherwise
    )


def _holds(recorder: StepRecorder) -> bool:
    return not any(check.status.failed for check in recorder.checks)


async def _routes(routes: Routes, services: Services, recorder: StepRecorder) -> bool:
    """Set the overrides on the canary's instances, or only verify them; return True if they hold."""
    if routes.apply:
        change = await set_routes(
            services.control,
            routes.wanted,
            captured=routes.captured,
            step_id=STEP_ID,
            label=f"{CHANGE}.routes",
            on_refusal=OnRefusal.STOP,
            journal=recorder.journal,
            clock=services.clock,
            own_states=(*routes.captured.overrides, *routes.wanted),
        )
        holds, detail = change.proven, change.detail
    else:
        try:
            sample = await services.control.sample(label=f"{CHANGE}.routes")
        except PeerError as error:
            recorder.failure("routes", error, kind="control_status", tolerable=False)
            return False
        holds, detail = sample.holds(routes.wanted), sample.describe()
        if not holds:
            detail += (
                "; an override lives in the memory of one instance, and the canary's instances do not have those of stable: "
                "set APPLY_ROUTE_FLIP=1 so that the promotion sets them there"
            )
    status = StepStatus.PASS if holds else StepStatus.FAIL
    recorder.check("routes", status, detail, kind="control_status", tolerable=False)
    return holds


async def _take_tag_away(plan: Plan, shares: CanaryShares) -> None:
    """Take the tag of the step away again. No share moves."""
    shift = await shares.mover.shift(
        promoted(shares.captured, plan.share.canary_revision),
        current=shares.state,
        label=f"{CHANGE}.untag",
        on_refusal=OnRefusal.STOP,
    )
    shares.state = shift.state or shares.state
    status = StepStatus.PASS if shift.proven else StepStatus.FAIL
    detail = "the tag of the promotion is taken away" if shift.proven else shift.detail
    shares.recorder.check("untag", status, detail, kind="traffic", tolerable=False)


async def _status_post(plan: Plan, shares: CanaryShares) -> None:
    """Record the check of the split at the end: the canary has all traffic, and every captured tag is as it was."""
    targets = promoted(shares.captured, plan.share.canary_revision)
    if not await shares.still_has(targets, name="status-post"):
        return
    detail = shares.state.describe_served()
    if shares.captured.asks_for_latest:
        detail += (
            "; LATEST had the traffic before, and now the revision is pinned: later deployments get no traffic until you run "
            f"{plan.gcloud_service.command('update-traffic', '--to-latest')}"
        )
    shares.recorder.check("status-post", StepStatus.PASS, detail, tolerable=False)
