"""Wire faults between httpx and the embedded production. A fault is injected by the label and the number of a request."""

import enum
import math
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import attrs
import httpx

from cutover.simulation import ConnectionBroken, SimulatedProduction
from cutover.simulation.exchange import Fate
from cutover.simulation.faults import Situation
from tests.support.embedded_trains import CHANGES

LATE = 1.5
"""Seconds after which a late effect lands. The trains here confirm a flip for longer, as an operator would."""
UNDONE = 1.0
"""Seconds after which an effect is undone."""
SLOW = 30.0
"""Seconds that a slow traffic change takes to settle."""


class WireFault(enum.Enum):
    """One failure of a request on its way to production or back."""

    REFUSED = "refused"
    HTTP_401 = "401"
    HTTP_403 = "403"
    HTTP_404 = "404"
    HTTP_409 = "409"
    HTTP_412 = "412"
    HTTP_429 = "429"
    HTTP_500 = "500"
    HTTP_503 = "503"
    HANG = "hang"
    RESET = "reset"
    TRUNCATED = "truncated reply"
    HTML = "HTML instead of JSON"
    # only for requests that change traffic or routes:
    REPLY_LOST = "reply lost after the effect"
    NO_REPLY = "effect without reply"
    FAILED_AND_DONE = "503 after the effect"
    LOST_AND_LATE = "reply lost, effect late"
    FAILED_AND_LATE = "503, effect late"
    NO_EFFECT = "success without effect"
    UNDONE = "effect undone a second later"
    LATE = "effect that lands late"
    # only for requests that change the traffic:
    SLOW = "slow to settle"
    NEVER = "never settles"
    BROKEN_DEPLOY = "somebody else deploys a broken revision just before"

    @property
    def status(self) -> int | None:
        """The HTTP status of the refusal; None if the fault is no refusal."""
        return int(self.value) if self.value.isdecimal() else None


ANY_REQUEST_FAULTS = tuple(WireFault)[: tuple(WireFault).index(WireFault.REPLY_LOST)]
ROUTE_CHANGE_FAULTS = tuple(WireFault)[: tuple(WireFault).index(WireFault.SLOW)]
TRAFFIC_CHANGE_FAULTS = tuple(WireFault)

FATES = {
    WireFault.LOST_AND_LATE: Fate(after=LATE),
    WireFault.FAILED_AND_LATE: Fate(after=LATE),
    WireFault.NO_EFFECT: Fate(takes_effect=False),
    WireFault.UNDONE: Fate(undone_after=UNDONE),
    WireFault.LATE: Fate(after=LATE),
    WireFault.SLOW: Fate(settles_after=SLOW),
    WireFault.NEVER: Fate(settles_after=math.inf),
    WireFault.BROKEN_DEPLOY: Fate(overtaken=True, overtaken_by_broken=True),
}
_ERROR_BODY = b'{"error":{"code":"injected","message":"injected"}}'
_SIGN_IN_PAGE = b"<!doctype html><title>Sign in</title>\n"


@attrs.frozen(kw_only=True)
class Injection:
    """An order to inject one fault at one request of a label, or at every one."""

    label: str
    fault: WireFault
    number: int | None
    """Number of the request among those of its label, from one; None: every request."""

    def applies_to(self, label: str, number: int) -> bool:
        return label == self.label and self.number in (None, number)


@attrs.define(eq=False)
class FaultyTransport(httpx.AsyncBaseTransport):
    """A transport from every client to the embedded production, with injected faults and without sockets or tasks.

    It also replaces the production's own faults: ``strike`` gives the production the fate of a change.
    """

    production: SimulatedProduction
    injections: tuple[Injection, ...] = ()
    request_counts: Counter[str] = attrs.field(factory=Counter)
    """Number of requests that each label had."""
    fault_counts: Counter[WireFault] = attrs.field(factory=Counter)
    """Number of times that each fault was injected."""
    _fate: Fate | None = None

    def __attrs_post_init__(self) -> None:
        self.production._active = self  # type: ignore[assignment]

    def strike(self, situation: Situation) -> tuple[Fate, ...]:
        """Return the fate of the change that the production is receiving. The production calls this method."""
        fate, self._fate = self._fate, None
        return (fate,) if fate is not None and situation.operation in CHANGES else ()

    def stop_faults(self) -> None:
        """Let every later request pass without a fault."""
        self.injections = ()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        label = request.extensions["label"]
        self.request_counts[label] += 1
        number = self.request_counts[label]
        fault = next((each.fault for each in self.injections if each.applies_to(label, number)), None)
        if fault is None:
            return await self._deliver(request)
        self.fault_counts[fault] += 1
        if fault.status is not None:
            return httpx.Response(
                fault.status, headers={"content-type": "application/json"}, content=_ERROR_BODY
            )
        match fault:
            case WireFault.REFUSED:
                raise httpx.ConnectError("injected")
            case WireFault.HANG:
                await anyio.sleep_forever()
            case WireFault.RESET:
                raise httpx.ReadError("injected")
            case WireFault.HTML:
                return httpx.Response(200, headers={"content-type": "text/html"}, content=_SIGN_IN_PAGE)
        return await self._deliver_with_fault(request, fault)

    async def _deliver_with_fault(self, request: httpx.Request, fault: WireFault) -> httpx.Response:
        """Deliver the request, then apply the fault to the change or to the reply."""
        self._fate = FATES.get(fault)
        response = await self._deliver(request)
        match fault:
            case WireFault.TRUNCATED:
                return httpx.Response(
                    response.status_code, headers=response.headers, stream=_TruncatedBody(response.content)
                )
            case WireFault.REPLY_LOST | WireFault.LOST_AND_LATE:
                raise httpx.ReadError("injected")
            case WireFault.FAILED_AND_DONE | WireFault.FAILED_AND_LATE:
                return httpx.Response(503, headers={"content-type": "application/json"}, content=_ERROR_BODY)
            case WireFault.NO_REPLY:
                await anyio.sleep_forever()
        return response

    async def _deliver(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        pieces = aiter(request.stream)
        head: dict[str, Any] = {}
        body: list[bytes] = []
        complete: list[bool] = []

        async def receive() -> dict[str, Any]:
            async for piece in pieces:
                return {"type": "http.request", "body": piece, "more_body": True}
            if complete:
                # no client here disconnects before the end
                await anyio.sleep_forever()
            complete.append(True)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                head.update(message)
            else:
                body.append(message.get("body", b""))

        scope = {
            "type": "http",
            "method": request.method,
            "path": request.url.path,
            "query_string": request.url.query,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
        }
        try:
            await self.production.app(scope, receive, send)
        except ConnectionBroken as error:
            raise httpx.RemoteProtocolError(str(error)) from error
        return httpx.Response(head["status"], headers=head["headers"], content=b"".join(body))


@attrs.define(eq=False)
class KillableTransport(FaultyTransport):
    """A faulty transport of a process that a test can kill. A dead process sends nothing."""

    is_dead: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_dead:
            raise httpx.ConnectError("the process is dead")
        return await super().handle_async_request(request)


@attrs.define(eq=False)
class _TruncatedBody(httpx.AsyncByteStream):
    """The first half of a body, then the error that httpx raises when a server closes too early."""

    body: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body[: len(self.body) // 2]
        raise httpx.RemoteProtocolError("injected: the peer closed without sending the complete body")
