"""The checks of the traffic before a train: the split, the permission to change it, both revisions, and who can reach the service."""

from collections.abc import Callable, Mapping, Sequence

import anyio
import attrs

from cutover.errors import PeerError, RefusedError
from cutover.http.statuses import TOO_MANY_REQUESTS
from cutover.model.gcloud_service import GcloudService
from cutover.model.results import StepStatus
from cutover.model.traffic_state import TrafficState, describe_shares, shares
from cutover.production.services import Services
from cutover.production.traffic.backend import TrafficBackend, advice, role_of
from cutover.train.step_recorder import StepRecorder

_NOT_FOUND = 404


@attrs.define(eq=False, kw_only=True)
class TrafficReadiness:
    """The checks of the traffic, and the split that they read."""

    stable_revision: str
    canary_revision: str
    gcloud_service: GcloudService
    earlier_run: Callable[[Sequence[Mapping[str, int]]], str]
    """Returns a sentence that names the earlier run which asked for one of these splits; an empty text if there is none."""
    services: Services
    recorder: StepRecorder
    state: TrafficState | None = None
    """The split as it was read; None before that, or if it could not be read."""

    async def check(self) -> None:
        """Read the split and both revisions side by side, and record the checks."""
        async with anyio.create_task_group() as reads:
            reads.start_soon(self._traffic)
            for role, name in self._revisions:
                reads.start_soon(self._revision, role, name)

    def skip(self, why: str) -> None:
        """Record that nothing of this was asked."""
        ids = (
            "traffic",
            "permission-traffic",
            "ingress",
            *(f"revision-{role}" for role, _ in self._revisions),
        )
        for check_id in ids:
            self.recorder.check(check_id, StepStatus.SKIP, why, tolerable=False)

    @property
    def _revisions(self) -> tuple[tuple[str, str], ...]:
        return ("stable", self.stable_revision), ("canary", self.canary_revision)

    async def _traffic(self) -> None:
        record = self.recorder.check
        try:
            state = await self.services.traffic.read(label="preflight.traffic")
        except PeerError as error:
            record("traffic", StepStatus.ERROR, _unread(error, self.services.traffic), tolerable=False)
            for check_id in ("permission-traffic", "ingress"):
                record(
                    check_id,
                    StepStatus.SKIP,
                    "not asked, because the traffic could not be read",
                    tolerable=False,
                )
            return
        self.state = state
        problem = self._problem(state)
        detail = problem or state.describe_served()
        if not problem and state.asks_for_latest:
            detail += "; LATEST is pinned during the drill, and restored after it"
        if not problem and state.warning():
            detail += f"; a train may start; to see it: {self.gcloud_service.command('describe')}"
        # A refusal judges nothing: the drill never began.
        status = StepStatus.ERROR if problem else StepStatus.PASS
        record("traffic", status, detail, tolerable=False, warns=not problem and bool(state.warning()))
        record("ingress", StepStatus.PASS, _who_reaches(state), tolerable=False)
        await self._may_write(state)

    def _problem(self, state: TrafficState) -> str:
        """Return the reason not to start a train from this traffic, and the command that mends it; an empty text if there is none.

        A train starts only where stable serves everything and nothing else is asked for. From any other split the drill would take a
        share from somebody, or give back a share that nobody served.
        """
        if unready := state.unready_reason():
            return f"{unready}; to see it: {self.gcloud_service.command('describe')}"
        served, asked = state.served(), shares(state.targets, latest=state.latest_ready)
        stable, canary = self.stable_revision, self.canary_revision
        whole = {stable: 100}
        if state.asks_for_latest and state.latest_ready == canary:
            problem = f"LATEST is {canary} already, so the earlier split cannot be restored"
        elif served == asked == whole:
            return ""
        elif not served.get(stable):
            problem = f"{stable} serves nothing ({describe_shares(served)}): are STABLE and CANARY the wrong way round?"
        elif served.get(canary):
            problem = f"{canary} serves already ({describe_shares(served)}), and the drill begins with {stable} at 100 %"
        elif served != whole:
            problem = f"other revisions serve too ({describe_shares(served)}), and the drill begins with {stable} at 100 %"
        else:
            problem = (
                f"the service's specification asks for {describe_shares(asked)}, but {describe_shares(served)} is served: "
                "the next change of the service may move the traffic to the split of the specification"
            )
        command = self.gcloud_service.command("update-traffic", "--to-revisions", f"{stable}=100")
        left = self.earlier_run([split for split in (asked, served) if split != whole])
        return "; ".join(filter(None, (problem, left, f"to give {stable} everything: {command}")))

    async def _may_write(self, state: TrafficState) -> None:
        """Try the permission to move traffic before anything moves: by a write of the captured split that changes nothing."""
        check_id = "permission-traffic"
        try:
            untried = await self.services.traffic.may_write(state, label=f"preflight.{check_id}")
        except PeerError as error:
            detail = f"the permission to update the traffic is not proven, and nothing was changed: {error}"
            detail += advice(status_of(error), self.services.traffic)
            if status_of(error) == TOO_MANY_REQUESTS:
                detail += "; wait a minute, then start again"
            self.recorder.check(check_id, StepStatus.ERROR, detail, tolerable=False)
            return
        detail = "the traffic may be updated"
        if untried:
            detail = f"the permission to update the traffic could not be tried: {untried}; check that its account has {role_of(self.services.traffic)}"
        self.recorder.check(check_id, StepStatus.PASS, detail, tolerable=False, warns=bool(untried))

    async def _revision(self, role: str, name: str) -> None:
        check_id = f"revision-{role}"
        try:
            revision = await self.services.traffic.revision(name, label=f"preflight.{check_id}")
        except PeerError as error:
            self.recorder.check(
                check_id, StepStatus.ERROR, _unread(error, self.services.traffic), tolerable=False
            )
            return
        # A revision that cannot be tried was not judged.
        status, detail = StepStatus.ERROR, f"{name} is ready"
        if not revision.exists:
            detail = f"there is no revision {name}: {revision.message}; correct {role.upper()}, or SERVICE, REGION or PROJECT"
        elif not revision.ready:
            detail = f"{name} is not ready: {revision.message}; repair it, or name another revision as {role.upper()}"
        else:
            status = StepStatus.PASS
        self.recorder.check(check_id, status, detail, tolerable=False)


def _who_reaches(state: TrafficState) -> str:
    """Return who can reach the service, and if its tag URLs can answer."""
    who = (
        f"the service's ingress is {state.ingress}"
        if state.ingress
        else "the ingress of the service is not named"
    )
    if state.default_uri_disabled:
        return f"{who}; its default URL is disabled, and its tag URLs with it, so only REVISION_HEADER can show who answers"
    if state.tag_urls_closed:
        return f"{who}, so a tag URL may not answer from here, and only REVISION_HEADER can show who answers"
    return f"{who}; its default URL is not disabled"


def status_of(error: PeerError) -> int:
    """Return the HTTP status of a refusal; 0 for any other failure."""
    return error.status if isinstance(error, RefusedError) else 0


def _unread(error: PeerError, backend: TrafficBackend) -> str:
    """Return the reason why Cloud Run could not be read, and the thing to do."""
    if status_of(error) == _NOT_FOUND:
        return f"{error}; correct SERVICE, REGION or PROJECT"
    return f"{error}{advice(status_of(error), backend) or '; start again when Cloud Run answers'}"
