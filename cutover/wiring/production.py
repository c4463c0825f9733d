"""The way from a configuration to the services and plans of a run.

A run starts with one ``CutoverConfig``. One of two functions makes a ``Production`` from it:

- ``live(config)``: HTTP clients for the real addresses, real time, the tokens of the configuration.
- ``rehearsal(config)`` in ``embedded.py``: the same, but every request goes to a simulation in this process, sleeps are
  skipped, and the tokens are random ones. ``simulated(...)`` uses the simulation and the clock that a test brings.

Making a ``Production`` opens no connection. A run then calls its methods:

- ``lock()`` returns the lock of the service, so that only one train runs at a time. A rehearsal does not take it.
- ``services()`` opens two HTTP clients and gives the ``Services`` that the train talks to: the prober of the chat streams,
  the control plane of the routes, the traffic backend (Cloud Run Admin API or gcloud), clients of
  the new and the legacy service, and the clock. The undo opens services of its own, because the clients of a cancelled
  train may already be closing.
- ``state()`` opens a client of its own and gives the lock and the journal in the bucket of STATE_URL, if there is one.
- ``plan()`` returns the ``TrainPlan``: one plan for each step, made by ``step_plans.py``. A step sees its own plan only,
  never the whole configuration.

``run.py`` puts these together with a journal and an evidence folder and runs the train. ``recover.py`` does the same for a
recovery; its configuration comes from the journal, and so do the files and commands that give tokens, unless a variable of the environment
gives the token.
"""

import http.cookiejar
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import attrs
import httpx

from cutover.clock import Clock, EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.config.default_credentials import state_uses_default_credentials, uses_default_credentials
from cutover.http.environment import read_environment
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets
from cutover.http.tokens import TokenSource
from cutover.production.lane import COMPAT
from cutover.production.lane_prober import LaneProber
from cutover.production.routes.control_plane import ControlPlane
from cutover.production.services import Services
from cutover.production.traffic.backend import TrafficBackend
from cutover.production.traffic.cloud_run_api import CloudRunApi
from cutover.production.traffic.gcloud import Gcloud
from cutover.record.lock import ServiceLock
from cutover.simulation import SimulatedProduction
from cutover.train.engine import TrainPlan
from cutover.wiring.metrics import budget_meter, revision_meter
from cutover.wiring.run_state import RunState, run_state
from cutover.wiring.service_lock import service_lock
from cutover.wiring.step_plans import lane_contract, lane_headers, train_plan
from cutover.wiring.token_sources import Tokens, tokens_of

ClientFactory = Callable[[httpx.Limits], httpx.AsyncClient]
"""A function that returns a new HTTP client with these connection limits."""

_FRESH = httpx.Limits(max_connections=200, max_keepalive_connections=0)
"""Limits for a new connection per request, because a reused connection may reach one instance only.

Sixty held sentinels, eight paced ones and eight looks at two aliases in three places can be in flight at once, and a write to the
routes must not wait for one of them to end.
"""
_KEPT = httpx.Limits(max_connections=100, max_keepalive_connections=20)
"""Limits for connections that are reused."""


@attrs.frozen(kw_only=True)
class Production:
    """The production of one configuration, live or embedded. It makes a train's services, lock and plans."""

    config: CutoverConfig
    """The configuration, with the tokens in use; in a rehearsal they are random."""
    clock: Clock
    """Real time; in a rehearsal, a clock whose sleeps end at once."""
    new_client: ClientFactory
    run_id: str
    """The name of the run; thread ids contain it."""
    cloud_run_token: TokenSource | None = None
    """The source of the Admin API's access token; None for the token, the file or the command of the configuration."""
    state_token: TokenSource | None = None
    """The source of the token for the bucket of STATE_URL; None for that of Cloud Run, or for requests without a token."""
    notice_client: ClientFactory | None = None
    """Makes the clients for notices; None in a rehearsal, where a notice gets a client of its own that reaches the network."""
    simulation: SimulatedProduction | None = None
    """The embedded production; None if the production is live."""
    secrets: Secrets = attrs.field(
        init=False, default=attrs.Factory(lambda self: Secrets(self.config.secrets), takes_self=True)
    )
    """The secrets to mask in replies and evidence. One value for the whole run, because new tokens are added to it."""
    tokens: Tokens = attrs.field(
        init=False,
        default=attrs.Factory(
            lambda self: tokens_of(
                self.config,
                clock=self.clock,
                secrets=self.secrets,
                cloud_run=self.cloud_run_token,
                state=self.state_token,
            ),
            takes_self=True,
        ),
    )
    """The tokens. The train, its undo and a recovery share them, so a token that was renewed is renewed for all."""

    @asynccontextmanager
    async def services(self, purpose: str = "") -> AsyncIterator[Services]:
        """Open HTTP clients and give the services that use them; the clients close at the end of the block.

        Args:
            purpose: A suffix for thread ids: empty for the train, ``u`` for its undo, ``r`` for a recovery.
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
                # A kept connection may always reach the same revision. Each stream is a new draw from the split.
                client=fresh,
                base_url=config.base_url,
                lane=COMPAT,
                headers=lane_headers(config),
                token=self.tokens.auth,
                contract=lane_contract(config),
                thread_prefix=f"{config.thread_id_prefix}_{self.run_id}{purpose}_",
                secrets=masks,
                revision_header=config.revision_header or None,
            ),
            control=ControlPlane(
                outbound=Outbound(client=fresh, clock=self.clock, secrets=masks),
                base_url=config.base_url,
                lane=COMPAT,
                token=self.tokens.control,
                headers=lane_headers(config),
                revision_header=config.revision_header or None,
                instance_header=config.instance_header or None,
                is_simulated=config.dry_run,
            ),
            traffic=self._traffic(outbound),
            service=outbound,
            legacy=outbound,
            clock=self.clock,
            budget=budget_meter(config, outbound, self.tokens),
            revisions=revision_meter(config, outbound, self.tokens),
            tokens=self.tokens.in_use(config),
        )

    def _traffic(self, outbound: Outbound) -> TrafficBackend:
        """Return the backend that the configuration names; an embedded production has only the Admin API."""
        config = self.config
        if config.traffic_backend == "gcloud" and self.simulation is None:
            return Gcloud(
                project=config.project,
                region=config.region,
                service=config.service,
                clock=self.clock,
                secrets=self.secrets,
                token=self.tokens.cloud_run,
            )
        return CloudRunApi(
            outbound=outbound,
            base_url=config.cloud_run_api_url,
            project=config.project,
            region=config.region,
            service=config.service,
            token=self.tokens.cloud_run,
        )

    def lock(self) -> ServiceLock:
        """Return the lock that lets one train at a time run for this service."""
        return service_lock(self.config)

    @asynccontextmanager
    async def state(self, run: str) -> AsyncIterator[RunState | None]:
        """Open an HTTP client and give the state of a run in the bucket of STATE_URL; None if the configuration names none."""
        config = self.config
        if not config.state_url or config.dry_run:
            yield None
            return
        async with self.new_client(_KEPT) as client:
            outbound = Outbound(client=client, clock=self.clock, secrets=self.secrets)
            yield run_state(config, run, outbound=outbound, token=self.tokens.state)

    def plan(self) -> TrainPlan:
        """Return the plans of all steps."""
        return train_plan(self.config, run_id=self.run_id, tokens=self.tokens)


def new_run_id() -> str:
    """Return a new name for one run: the time in UTC, to the second, and a random suffix."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}_{secrets.token_hex(3)}"


def live(config: CutoverConfig) -> Production:
    """Return the live production of this configuration; no connection is opened yet.

    Raises:
        ConfigurationError: A variable for certificates or proxies cannot be used.
    """
    state = config.state_api_url if config.state_url else ""
    metrics = config.cloud_monitoring_url if config.slo_cloud_monitoring else config.slo_prometheus_url
    urls = (
        config.base_url,
        config.cloud_run_api_url,
        config.legacy_base_url,
        state,
        metrics,
        *config.notice_urls,
    )
    for_cloud_run, for_state = uses_default_credentials(config), state_uses_default_credentials(config)
    environment = read_environment(
        tls=any(url.startswith("https:") for url in urls),
        default_credentials=for_cloud_run or for_state,
    )
    credentials = _default_credentials() if for_cloud_run or for_state else None

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        return environment.client(limits=limits, cookies=no_cookies())

    return Production(
        config=config,
        clock=EventLoopClock(),
        new_client=new_client,
        notice_client=new_client,
        run_id=new_run_id(),
        cloud_run_token=credentials if for_cloud_run else None,
        state_token=credentials if for_state else None,
    )


class _NoCookies(http.cookiejar.CookieJar):
    """A cookie jar that takes no cookie of a response."""

    def extract_cookies(self, response: object, request: object) -> None:
        """Do nothing. A policy that allows no domain would do the same, but parse each response for it."""


def no_cookies() -> http.cookiejar.CookieJar:
    """Return a cookie jar that accepts no cookie: an affinity cookie would send every later request to one instance."""
    return _NoCookies()


def _default_credentials() -> TokenSource:
    """Return the source of tokens that uses Google's application default credentials."""
    from cutover.production.traffic.google_credentials import DefaultCredentials  # noqa: PLC0415  needs an extra, so load it only when it is used

    return DefaultCredentials()
