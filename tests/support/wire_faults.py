"""One wire fault at one request of a train, found by the request's label: between httpx and the embedded production."""

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
"""Seconds after which a late effect lands: less than the trains here confirm, as an operator would choose it."""
UNDONE = 1.0
"""Seconds after which an effect is taken back."""
SLOW = 30.0
"""Seconds that a slow change of the traffic takes to settle."""


class Kind(enum.Enum):
    """What goes wrong with a request."""

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
    # of a change alone:
    REPLY_LOST = "reply lost after the effect"
    NO_REPLY = "effect without reply"
    FAILED_AND_DONE = "503 after the effect"
    LOST_AND_LATE = "reply lost, effect late"
    FAILED_AND_LATE = "503, effect late"
    NO_EFFECT = "success without effect"
    UNDONE = "effect undone a second later"
    LATE = "effect that lands late"
    # of a change of the traffic alone:
    SLOW = "slow to settle"
    NEVER = "never settles"

    @property
    def status(self) -> int | None:
        """The status with which the peer refuses, where it does."""
        return int(self.value) if self.value.isdecimal() else None


OF_ANY = tuple(Kind)[: tuple(Kind).index(Kind.REPLY_LOST)]
OF_ROUTES = tuple(Kind)[: tuple(Kind).index(Kind.SLOW)]
OF_TRAFFIC = tuple(Kind)

FATES = {
    Kind.LOST_AND_LATE: Fate(after=LATE),
    Kind.FAILED_AND_LATE: Fate(after=LATE),
    Kind.NO_EFFECT: Fate(takes_effect=False),
    Kind.UNDONE: Fate(undone_after=UNDONE),
    Kind.LATE: Fate(after=LATE),
    Kind.SLOW: Fate(settles_after=SLOW),
    Kind.NEVER: Fate(settles_after=math.inf),
}
_SAYS_NO = b'{"error":{"code":"injected","message":"injected"}}'
_LOGIN = b"<!doctype html><title>Sign in</title>\n"


@attrs.frozen(kw_only=True)
class Injection:
    """A fault at one request of a label, or at every one."""

    label: str
    kind: Kind
    number: int | None
    """Which request of the label, counted from one; None: every one."""

    def strikes(self, label: str, number: int) -> bool:
        return label == self.label and self.number in (None, number)


@attrs.define(eq=False)
class Wire(httpx.AsyncBaseTransport):
    """Every client's way to the production: no sockets, no tasks, and faults where they are asked for.

    It stands in for what decides about faults within the production, too: what becomes of a change is the production's.
    """

    production: SimulatedProduction
    injections: tuple[Injection, ...] = ()
    seen: Counter[str] = attrs.field(factory=Counter)
    """How many requests each label had."""
    struck: Counter[Kind] = attrs.field(factory=Counter)
    _fate: Fate | None = None

    def __attrs_post_init__(self) -> None:
        self.production._active = self  # type: ignore[assignment]

    def strike(self, situation: Situation) -> tuple[Fate, ...]:
        """Tell the production what is to become of the change that it was just sent."""
        fate, self._fate = self._fate, None
        return (fate,) if fate is not None and situation.operation in CHANGES else ()

    def heal(self) -> None:
        """Let every later request through."""
        self.injections = ()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        label = request.extensions["label"]
        self.seen[label] += 1
        kind = next((one.kind for one in self.injections if one.strikes(label, self.seen[label])), None)
        if kind is None:
            return await self._deliver(request)
        self.struck[kind] += 1
        if kind.status is not None:
            return httpx.Response(kind.status, headers={"content-type": "application/json"}, content=_SAYS_NO)
        match kind:
            case Kind.REFUSED:
                raise httpx.ConnectError("injected")
            case Kind.HANG:
                await anyio.sleep_forever()
            case Kind.RESET:
                raise httpx.ReadError("injected")
            case Kind.HTML:
                return httpx.Response(200, headers={"content-type": "text/html"}, content=_LOGIN)
        return await self._do_and_fail(request, kind)

    async def _do_and_fail(self, request: httpx.Request, kind: Kind) -> httpx.Response:
        """Let the production have the request; what becomes of the change, or of the reply, is the kind's."""
        self._fate = FATES.get(kind)
        response = await self._deliver(request)
        match kind:
            case Kind.TRUNCATED:
                return httpx.Response(
                    response.status_code, headers=response.headers, stream=_Cut(response.content)
                )
            case Kind.REPLY_LOST | Kind.LOST_AND_LATE:
                raise httpx.ReadError("injected")
            case Kind.FAILED_AND_DONE | Kind.FAILED_AND_LATE:
                return httpx.Response(503, headers={"content-type": "application/json"}, content=_SAYS_NO)
            case Kind.NO_REPLY:
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
                await anyio.sleep_forever()  # the client never leaves early here
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
class Severed(Wire):
    """The wire of a process that may be dead: then it sends nothing any more."""

    is_dead: bool = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.is_dead:
            raise httpx.ConnectError("the process is dead")
        return await super().handle_async_request(request)


@attrs.define(eq=False)
class _Cut(httpx.AsyncByteStream):
    """Half of a body, and then what httpx raises where a peer closes too early."""

    body: bytes

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body[: len(self.body) // 2]
        raise httpx.RemoteProtocolError("injected: the peer closed without sending the complete body")
