"""Clients, control plane, traffic backend and clock of one run; live over HTTP."""

import http.cookiejar
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import attrs
import httpx

from cutover.clock import Clock, EventLoopClock
from cutover.config.config import GOOGLE_API, CutoverConfig
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets
from cutover.production.lane import COMPAT
from cutover.production.lane_prober import LaneProber
from cutover.production.routes.control_plane import ControlPlane
from cutover.production.services import Services
from cutover.production.traffic.backend import TrafficBackend
from cutover.production.traffic.cloud_run_api import CloudRunApi, TokenSource
from cutover.production.traffic.gcloud import Gcloud
from cutover.record.lock import ServiceLock
from cutover.simulation import SimulatedProduction
from cutover.train.engine import TrainPlan
from cutover.wiring.step_plans import lane_contract, lane_headers, train_plan

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
    secrets: Secrets = attrs.field(
        init=False, default=attrs.Factory(lambda self: Secrets(self.config.secrets), takes_self=True)
    )
    """What must be masked in whatever comes back; one for the run, for tokens join it on the way."""

    @asynccontextmanager
    async def services(self, purpose: str = "") -> AsyncIterator[Services]:
        """Open clients and give the services that use them.

        Args:
            purpose: Told apart in thread ids: the train's own, or the undo's.
        """
        async with AsyncExitStack() as stack:
            kept = await stack.enter_async_context(self.new_client(_KEPT))
            fresh = await stack.enter_async_context(self.new_client(_FRESH))
            yield self._services(kept, fresh, purpose)

    def _services(self, kept: httpx.AsyncClient, fresh: httpx.AsyncClient, purpose: str) -> Services:
        config, masks = self.config, self.secrets
        outbound = Outbound(client=kept, clock=self.clock, secrets=masks)
        return Services(
            prober=LaneProber(
                client=kept,
                base_url=config.base_url,
                lane=COMPAT,
                headers=lane_headers(config) | {"authorization": f"Bearer {config.auth_token}"},
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
            traffic=self._traffic(outbound),
            service=outbound,
            legacy=outbound,
            clock=self.clock,
        )

    def _traffic(self, outbound: Outbound) -> TrafficBackend:
        """Return the backend that the configuration names; an embedded production has the Admin API alone."""
        config = self.config
        if config.traffic_backend == "gcloud" and self.simulation is None:
            return Gcloud(
                project=config.project,
                region=config.region,
                service=config.service,
                clock=self.clock,
                secrets=self.secrets,
                token=config.cloud_run_access_token,
            )
        return CloudRunApi(
            outbound=outbound,
            base_url=config.cloud_run_api_url,
            project=config.project,
            region=config.region,
            service=config.service,
            token=self._known_token,
        )

    async def _known_token(self) -> str | None:
        """Return a token for the Admin API that is masked already, wherever it came from."""
        token = await self.cloud_run_token()
        if token:
            self.secrets.add(token)
        return token

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
    """Make a live production's services; nothing is connected yet."""
    uses_tls = any(
        url.startswith("https:")
        for url in (config.base_url, config.cloud_run_api_url, config.legacy_base_url)
    )
    context = httpx.create_ssl_context() if uses_tls else False  # 20 ms: made once, for all clients

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(verify=context, limits=limits, cookies=no_cookies())

    return Production(
        config=config,
        clock=EventLoopClock(),
        new_client=new_client,
        cloud_run_token=_token_source(config),
        run_id=new_run_id(),
    )


def no_cookies() -> http.cookiejar.CookieJar:
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
    from cutover.production.traffic.google_credentials import DefaultCredentials  # noqa: PLC0415  an extra, only where it is used

    return DefaultCredentials().token
