"""The embedded production, in this process: for rehearsals, and for tests of live trains."""

import ipaddress
import re
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

import attrs
import httpx

from cutover.clock import Clock, SkippingClock
from cutover.config.config import DAY, TOKEN_INPUTS, TOKEN_SOURCES, CutoverConfig
from cutover.errors import ConfigurationError
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.report.preview import train_seconds
from cutover.simulation import FAULTS, VARIANTS, ConnectionBroken, Credentials, Layout, SimulatedProduction
from cutover.train.undo_executor import UNDO_DEADLINE
from cutover.wiring.production import Production, new_run_id, no_cookies

_CONNECTIONS = 100
"""Requests in flight at once for a client without a limit of its own."""
INSTANCES = 3
"""Number of instances of each revision of a rehearsal."""


def rehearsal(config: CutoverConfig) -> Production:
    """Return an embedded production for a rehearsal of this configuration.

    Requests use the real addresses, but no connection is opened. The tokens are random ones, made for this rehearsal.
    An empty legacy address or revision header gets a made-up value.

    Raises:
        ConfigurationError: ``what_if`` names a fault that does not exist.
    """
    known = {**FAULTS, **VARIANTS}
    unknown = [
        f"what_if: no fault is named {name!r}; `--what-if list` shows all names"
        for name in config.what_if
        if name not in known
    ]
    if unknown:
        raise ConfigurationError(unknown)
    config = attrs.evolve(
        config,
        **_random_tokens(),
        legacy_base_url=config.legacy_base_url or "https://legacy.invalid",
        revision_header=config.revision_header or "x-cutover-revision",
        # The clock of a rehearsal adds up the sleeps of all streams, so their times say nothing.
        max_canary_slower_percent=0.0,
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


def _random_tokens() -> dict[str, Any]:
    """Return the values of the inputs that give tokens: random tokens, no file that is read, and no command that runs."""
    return {field: secrets.token_hex(16) for field in TOKEN_INPUTS} | dict.fromkeys(TOKEN_SOURCES, "")


def simulated(config: CutoverConfig, simulation: SimulatedProduction, *, clock: Clock) -> Production:
    """Return a production whose requests all go to this simulation, in this process."""

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        transport = _InProcess(simulation.app, max_connections=limits.max_connections or _CONNECTIONS)
        return httpx.AsyncClient(transport=transport, limits=limits, cookies=no_cookies())

    return Production(
        config=config,
        clock=clock,
        new_client=new_client,
        run_id=new_run_id(),
        simulation=simulation,
    )


def simulated_layout(config: CutoverConfig) -> Layout:
    """Return the layout that the simulated production of this configuration starts with.

    The routes are flipped at the start if the train only verifies them, and not flipped if it applies the flip.
    """
    return Layout(
        stable=config.stable_revision,
        canary=config.canary_revision,
        project=config.project,
        region=config.region,
        service=config.service,
        instances=INSTANCES,
        front_url=config.base_url,
        cloud_run_url=config.cloud_run_api_url,
        legacy_url=config.legacy_base_url,
        tag_urls={"canary": f"https://canary---{_name_of_host(config.base_url)}"},
        flipped=not config.apply_route_flip,
        revision_header=config.revision_header.lower(),
        instance_header=config.instance_header.lower(),
        # Nobody has asked for the tokens of a simulation, so their lifetime must not decide a rehearsal.
        session_seconds=DAY + 2.0 * (train_seconds(config) + UNDO_DEADLINE),
    )


def _name_of_host(url: str) -> str:
    """Return the host of a URL as a name to which a tag can be put: of an IP address, a made-up name (RFC 6761 6.4)."""
    host = urlsplit(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return re.sub("[^0-9a-z]+", "-", host).strip("-") + ".invalid"


def simulated_credentials(config: CutoverConfig) -> Credentials:
    """Return the tokens that the simulated production of this configuration accepts."""
    return Credentials(
        auth_token=config.auth_token,
        control_token=config.control_access_token,
        cloud_run_token=config.cloud_run_access_token,
        legacy_token=config.legacy_token,
    )


class _InProcess(StreamingASGITransport):
    """The httpx transport into the embedded production.

    A connection that the simulation breaks raises the httpx error that a broken network connection raises.
    """

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send one request to the simulation and return its response."""
        try:
            response = await super().handle_async_request(request)
        except ConnectionBroken as error:
            raise httpx.RemoteProtocolError(str(error), request=request) from error
        response.stream = _BreakableStream(response.stream, request)
        return response


class _BreakableStream(httpx.AsyncByteStream):
    """A response body that raises ``httpx.ReadError`` where the simulation breaks the connection."""

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
        """Close the body."""
        await self._stream.aclose()
