"""A configuration made into peers: clients, control plane, traffic backend, clock; or the simulation, in process."""

import http.cookiejar
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from urllib.parse import urlsplit

import attrs
import httpx

from cutover.asgi import StreamingASGITransport
from cutover.clock import Clock, EventLoopClock, SkippingClock
from cutover.config import GOOGLE_API, CutoverConfig
from cutover.contract import COMPAT_LANE, StreamContract
from cutover.control_plane import ControlPlane
from cutover.errors import ConfigurationError
from cutover.evidence import Secrets
from cutover.lane import COMPAT
from cutover.lock import ServiceLock
from cutover.outbound import Outbound
from cutover.probe import LaneProber
from cutover.simulation import FAULTS, VARIANTS, ConnectionBroken, Credentials, Layout, SimulatedProduction
from cutover.steps import Peers, dual_run, error_budget, preflight, rollback_drill, route_flip
from cutover.traffic.cloud_run_api import CloudRunApi, TokenSource
from cutover.train import TrainPlan

ClientFactory = Callable[[httpx.Limits], httpx.AsyncClient]

_FRESH = httpx.Limits(max_connections=100, max_keepalive_connections=0)
"""A new connection for each request: a kept one may always reach the same instance."""
_KEPT = httpx.Limits(max_connections=100, max_keepalive_connections=20)


@attrs.frozen(kw_only=True)
class Production:
    """Everything that a train needs from outside of it."""

    config: CutoverConfig
    """With the tokens that are in use; a rehearsal's are made up."""
    clock: Clock
    new_client: ClientFactory
    cloud_run_token: TokenSource
    run_id: str
    simulation: SimulatedProduction | None = None

    @property
    def secrets(self) -> Secrets:
        """What must be masked in whatever comes back."""
        return Secrets(self.config.secrets)

    @asynccontextmanager
    async def peers(self, purpose: str = "") -> AsyncIterator[Peers]:
        """Open clients and give the peers that use them.

        Args:
            purpose: Told apart in thread ids: the train's own, or the undo's.
        """
        async with AsyncExitStack() as stack:
            kept = await stack.enter_async_context(self.new_client(_KEPT))
            fresh = await stack.enter_async_context(self.new_client(_FRESH))
            yield self._peers(kept, fresh, purpose)

    def _peers(self, kept: httpx.AsyncClient, fresh: httpx.AsyncClient, purpose: str) -> Peers:
        config, masks = self.config, self.secrets
        outbound = Outbound(client=kept, clock=self.clock, secrets=masks)
        return Peers(
            prober=LaneProber(
                client=kept,
                base_url=config.base_url,
                lane=COMPAT,
                headers=_lane_headers(config) | {"authorization": f"Bearer {config.auth_token}"},
                contract=lane_contract(config),
                thread_prefix=f"{config.thread_id_prefix}_{self.run_id}{purpose}_",
                secrets=masks,
                revision_header=config.revision_header or None,
            ),
            control=ControlPlane(
                outbound=Outbound(client=fresh, clock=self.clock, secrets=masks),
                base_url=config.base_url,
                lane=COMPAT,
                token=config.control_access_token,
            ),
            traffic=CloudRunApi(
                outbound=outbound,
                base_url=config.cloud_run_api_url,
                project=config.project,
                region=config.region,
                service=config.service,
                token=self.cloud_run_token,
            ),
            service=outbound,
            legacy=outbound,
            clock=self.clock,
        )

    def lock(self) -> ServiceLock:
        """Return the lock of the service: one train at a time."""
        config = self.config
        return ServiceLock.of(config.project, config.region, config.service, config.base_url)

    def plan(self) -> TrainPlan:
        """Make the plans of all steps."""
        return train_plan(self.config, run_id=self.run_id)


def new_run_id() -> str:
    """Return a name for one run, which its thread ids bear: the UTC second and a random suffix."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{secrets.token_hex(3)}"


def live(config: CutoverConfig) -> Production:
    """Make a live production's peers; nothing is connected yet."""
    uses_tls = any(
        url.startswith("https:")
        for url in (config.base_url, config.cloud_run_api_url, config.legacy_base_url)
    )
    context = httpx.create_ssl_context() if uses_tls else False  # 20 ms: made once, for all clients

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=context, limits=limits, cookies=_no_cookies())

    return Production(
        config=config,
        clock=EventLoopClock(),
        new_client=new_client,
        cloud_run_token=_token_source(config),
        run_id=new_run_id(),
    )


def rehearsal(config: CutoverConfig) -> Production:
    """Make an embedded production for a rehearsal: the addresses are the real ones, nothing is connected.

    No token is read: those in use here are made up.

    Raises:
        ConfigurationError: ``what_if`` names a fault that there is not.
    """
    known = {**FAULTS, **VARIANTS}
    unknown = [
        f"what_if: no fault is named {name!r}; `--what-if list` names all"
        for name in config.what_if
        if name not in known
    ]
    if unknown:
        raise ConfigurationError(unknown)
    config = attrs.evolve(
        config,
        auth_token=secrets.token_hex(16),
        control_access_token=secrets.token_hex(16),
        cloud_run_access_token=secrets.token_hex(16),
        legacy_auth_token=secrets.token_hex(16),
        legacy_base_url=config.legacy_base_url or "https://legacy.invalid",
        revision_header=config.revision_header or "x-cutover-revision",
    )
    clock = SkippingClock()
    simulation = SimulatedProduction(
        layout=simulated_layout(config),
        credentials=simulated_credentials(config),
        faults=tuple(known[name] for name in config.what_if),
        now=clock.now,
        sleep=clock.sleep,
    )
    return simulated(config, simulation, clock=clock)


def simulated(config: CutoverConfig, simulation: SimulatedProduction, *, clock: Clock) -> Production:
    """Make the peers of a configuration whose production is embedded."""

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=_InProcess(simulation.app), limits=limits, cookies=_no_cookies())

    async def token() -> str:
        return config.cloud_run_access_token

    return Production(
        config=config,
        clock=clock,
        new_client=new_client,
        cloud_run_token=token,
        run_id=new_run_id(),
        simulation=simulation,
    )


def simulated_layout(config: CutoverConfig) -> Layout:
    """Return the production that a rehearsal of this configuration starts on.

    A verify-only flip is rehearsed on routes that are flipped already, an applied one on routes that are not.
    """
    host = urlsplit(config.base_url).hostname
    return Layout(
        stable=config.stable_revision,
        canary=config.canary_revision,
        project=config.project,
        region=config.region,
        service=config.service,
        instances=3,
        front_url=config.base_url,
        cloud_run_url=config.cloud_run_api_url,
        legacy_url=config.legacy_base_url,
        tag_urls={"canary": f"https://canary---{host}"},
        flipped=not config.apply_route_flip,
        revision_header=config.revision_header.lower(),
    )


def simulated_credentials(config: CutoverConfig) -> Credentials:
    """Return the tokens of a configuration as its simulated production knows them."""
    return Credentials(
        auth_token=config.auth_token,
        control_token=config.control_access_token,
        cloud_run_token=config.cloud_run_access_token,
        legacy_token=config.legacy_token,
    )


def lane_contract(config: CutoverConfig) -> StreamContract:
    """Return the lane's contract with the operator's deadlines."""
    limits = attrs.evolve(
        COMPAT_LANE.limits,
        first_event=config.max_first_event_seconds,
        event_gap=config.max_event_gap_seconds,
        whole=config.probe_timeout_seconds,
    )
    return attrs.evolve(COMPAT_LANE, limits=limits)


def train_plan(config: CutoverConfig, *, run_id: str) -> TrainPlan:
    """Make the plans of all steps from a configuration; pure."""
    return TrainPlan(
        preflight=preflight.Plan(stable=config.stable_revision, canary=config.canary_revision),
        error_budget=error_budget.Plan(budget=config.budget),
        drill=rollback_drill.Plan(
            stable=config.stable_revision,
            canary=config.canary_revision,
            percents=config.canary_steps,
            soak_seconds=config.canary_soak_seconds,
            max_rollback_seconds=config.max_rollback_seconds,
            max_failures=config.max_canary_drill_failures,
            max_broken_streams=config.max_broken_streams,
        ),
        flip=route_flip.Plan(
            apply=config.apply_route_flip,
            cohort_key=config.cohort_key,
            confirm_seconds=config.flip_confirm_seconds,
            thread_id=f"{config.thread_id_prefix}_{run_id}",
        ),
        dual_run=_dual_run_plan(config, run_id) if config.run_dual_run else None,
        held_streams=config.held_streams,
        ceilings=config.ceilings,
        gcloud_service=f"{config.service} --project {config.project} --region {config.region}",
    )


def _dual_run_plan(config: CutoverConfig, run_id: str) -> dual_run.Plan:
    headers = _lane_headers(config)
    return dual_run.Plan(
        entries=config.manifest,
        new=dual_run.Side(name="new", base_url=config.base_url, token=config.auth_token, headers=headers),
        old=dual_run.Side(
            name="legacy", base_url=config.legacy_base_url, token=config.legacy_token, headers=headers
        ),
        contract=lane_contract(config),
        thread_prefix=f"{config.thread_id_prefix}_{run_id}_dual_",
        run_mutating=config.run_mutating_requests,
        max_mismatches=config.max_dual_run_failures,
        max_p95_delta_ms=config.max_p95_latency_delta_ms,
    )


def _lane_headers(config: CutoverConfig) -> dict[str, str]:
    values = (config.compat_client_build_id, config.compat_protocol_version, config.compat_schema_version)
    return dict(zip(COMPAT.header_names, values, strict=True))


def _no_cookies() -> http.cookiejar.CookieJar:
    """Return a jar that takes none: an affinity cookie would pin every later request to one instance."""
    return http.cookiejar.CookieJar(policy=http.cookiejar.DefaultCookiePolicy(allowed_domains=[]))


def _token_source(config: CutoverConfig) -> TokenSource:
    """Return where the Admin API's token comes from; application default credentials go to Google's own host alone."""
    if config.cloud_run_access_token or config.cloud_run_api_url != GOOGLE_API:

        async def given() -> str | None:
            return config.cloud_run_access_token or None

        return given
    return _default_credentials()


def _default_credentials() -> Callable[[], Awaitable[str | None]]:
    from cutover.traffic.google_credentials import DefaultCredentials  # noqa: PLC0415  an extra, only where it is used

    return DefaultCredentials().token


class _InProcess(StreamingASGITransport):
    """The embedded production as httpx sees it; a connection that it breaks looks like one that a peer broke."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request into the simulation."""
        try:
            response = await super().handle_async_request(request)
        except ConnectionBroken as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        response.stream = _Breakable(response.stream, request)
        return response


class _Breakable(httpx.AsyncByteStream):
    def __init__(self, stream: httpx.AsyncByteStream | httpx.SyncByteStream, request: httpx.Request) -> None:
        assert isinstance(stream, httpx.AsyncByteStream)  # noqa: S101  the transport is asynchronous
        self._stream, self._request = stream, request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._stream:
                yield chunk
        except ConnectionBroken as error:
            raise httpx.ReadError(str(error), request=self._request) from error

    async def aclose(self) -> None:
        """Leave the stream."""
        await self._stream.aclose()
