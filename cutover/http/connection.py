"""One request whose response streams, sent by the caller's own client. This file knows no contract.

A `StreamClient` stands for the caller's client. Its ``open`` sends one request, and gives an `OpenStream` once the head has come.
A failure is a `StreamFailure`: one of the kinds of `FailureKind`, and the cause in the client's own words. Each library of clients
has one adapter: `HttpxClient` here, and the one of aiohttp in ``aiohttp_client.py``.
"""

import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, TypeGuard, Union

import anyio
import anyio.lowlevel
import attrs
import httpx
from httpx_sse import EventSource, aconnect_sse

from cutover.contract import FailureKind
from cutover.http.asgi.exchange import Exchange
from cutover.http.asgi.transport import AsgiBody
from cutover.http.causes import CONNECT_TIMEOUT, describe_failure
from cutover.http.decoding import Decoder, DecodingError, decoder_for

if TYPE_CHECKING:
    import aiohttp

AnyClient: TypeAlias = Union[httpx.AsyncClient, "aiohttp.ClientSession"]
"""The client of a caller: its base URL, headers and connections are used. It is not closed."""

_SYNCHRONOUS = frozenset(
    {("httpx", "Client"), ("httpx2", "Client"), ("requests", "Session"), ("niquests", "Session")}
)
"""Library and name of synchronous clients. The test client of Starlette is one of the first two."""
_NOT_A_CLIENT = "a stream needs an asynchronous client, such as httpx.AsyncClient or aiohttp.ClientSession, and not {given}"

SSE_HEADERS: Mapping[str, str] = {"accept": "text/event-stream", "cache-control": "no-store"}
"""Headers that a client of event streams sends (WHATWG HTML 9.2.2), unless the caller gives them another value."""


@attrs.frozen(kw_only=True)
class StreamRequest:
    """A request that starts a stream."""

    method: str
    url: str
    """Absolute, or relative to the client's base URL."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Headers by name. ``accept`` and ``cache-control`` have the values of `SSE_HEADERS` by default; ``content-length`` is added."""
    body: bytes = b""
    label: str = "stream"
    """Name of the request: httpx gives it to the transport as the extension ``label``, so that a test can inject a fault."""


class StreamFailure(Exception):  # noqa: N818  it becomes a finding, and no caller sees it
    """A request, or the reading of its response, failed for a reason outside the stream's bytes."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        """The cause: in plain words, then in those of the client."""


class OpenStream(Protocol):
    """A response whose head has come."""

    @property
    def status(self) -> int:
        """The status of the response."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Raw names and values, in the order of the response."""

    @property
    def is_decoded(self) -> bool:
        """True if the pieces are decompressed already, whatever the headers say."""

    @property
    def exchange(self) -> Exchange | None:
        """The exchange with an app in this process, if each piece is one that the app has sent; else None."""

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body as it is on the wire, and return it; return None at the end of the body.

        Raises:
            StreamFailure: The connection failed before the end of the body.
            BaseException: An app in this process raised it.
        """

    async def aclose(self) -> None:
        """Close the response, and its connection if the body was not read to its end."""


class StreamClient(Protocol):
    """A client that sends requests for streams."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the client sends with each request."""

    def url_of(self, request: StreamRequest) -> str:
        """Return the absolute URL of a request, without a password."""

    async def open(
        self,
        request: StreamRequest,
        *,
        headers: Mapping[str, str | bytes],
        content: bytes | AsyncGenerator[bytes],
        on_exchange: Callable[[Exchange], None],
    ) -> OpenStream:
        """Send a request, and return its response once the head has come.

        Args:
            request: The request. Its own headers and body are not sent.
            headers: All headers to send besides the client's own.
            content: The body to send.
            on_exchange: Receives the exchange with an app in this process, before the app runs.

        Raises:
            StreamFailure: No head came.
            BaseException: An app in this process raised it.
        """


def is_client(value: object) -> TypeGuard[AnyClient]:
    """Return True for a client that `stream_client` takes.

    Raises:
        TypeError: The value is a synchronous client. It would fail only later, and with an error about something else.
    """
    if isinstance(value, httpx.AsyncClient) or _is_aiohttp(value):
        return True
    for base in type(value).__mro__:
        library = base.__module__.partition(".")[0]
        if (library, base.__name__) in _SYNCHRONOUS:
            raise TypeError(_NOT_A_CLIENT.format(given=f"a synchronous {library}.{base.__name__}"))
    return False


def stream_client(client: AnyClient) -> StreamClient:
    """Return the adapter for a caller's client.

    Raises:
        TypeError: The client is synchronous, or of no library that is known here.
    """
    if not is_client(client):
        raise TypeError(_NOT_A_CLIENT.format(given=f"{client!r:.100}"))
    if isinstance(client, httpx.AsyncClient):
        return HttpxClient(client)
    from cutover.http.aiohttp_client import AiohttpClient  # noqa: PLC0415  aiohttp is optional

    return AiohttpClient(client)


def _is_aiohttp(value: object) -> bool:
    """Return True for a session of aiohttp. aiohttp is optional, and who has a session has imported it."""
    aiohttp = sys.modules.get("aiohttp")
    return aiohttp is not None and isinstance(value, aiohttp.ClientSession)


def with_sse_headers(headers: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """Return the headers with those of `SSE_HEADERS` that are not among them, in whatever case their names are written."""
    given = {name.lower() for name in headers}
    return {**{name: value for name, value in SSE_HEADERS.items() if name not in given}, **headers}


def reader_of(stream: OpenStream) -> Callable[[], Awaitable[bytes | None]]:
    """Return a function like `OpenStream.receive`, whose pieces are decompressed. For a body without compression it is that one.

    Raises:
        StreamFailure: The body has a coding that cannot be read here. The returned function raises it for a body that is not what
            its coding says.
    """
    if stream.is_decoded:
        return stream.receive
    try:
        decoder = decoder_for(stream.headers)
    except DecodingError as error:
        raise StreamFailure(FailureKind.DECODING, str(error)) from error
    return stream.receive if decoder is None else _DecodedBody(stream, decoder).receive


@attrs.define(eq=False)
class _DecodedBody:
    """The body of an open stream, decompressed."""

    _stream: OpenStream
    _decoder: Decoder
    _pieces: Iterator[bytes] = attrs.field(factory=lambda: iter(()), init=False)

    async def receive(self) -> bytes | None:
        try:
            while True:
                # A short body can hold a lot, and its deadlines must hold all the same.
                await anyio.lowlevel.checkpoint()
                if (piece := next(self._pieces, None)) is not None:
                    return piece
                data = await self._stream.receive()
                if data is None:
                    self._decoder.finish()
                    return None
                self._pieces = self._decoder.decode(data)
        except DecodingError as error:
            raise StreamFailure(FailureKind.DECODING, str(error)) from error


@attrs.define(eq=False)
class HttpxClient:
    """The adapter of an ``httpx.AsyncClient``."""

    client: httpx.AsyncClient

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the client sends with each request."""
        return self.client.headers

    def url_of(self, request: StreamRequest) -> str:
        """Return the absolute URL of a request, without a password."""
        return str(self.client.build_request(request.method, request.url).url.copy_with(userinfo=b""))

    async def open(
        self,
        request: StreamRequest,
        *,
        headers: Mapping[str, str | bytes],
        content: bytes | AsyncGenerator[bytes],
        on_exchange: Callable[[Exchange], None],
    ) -> OpenStream:
        """Send a request, and return its response once the head has come; see `StreamClient.open`."""
        exchanges: list[Exchange] = []

        def note(exchange: Exchange) -> None:
            exchanges.append(exchange)
            on_exchange(exchange)

        connect: Any = partial(aconnect_sse, self.client)
        fields = dict(headers)
        if not SSE_HEADERS.keys().isdisjoint(name.lower() for name in headers):
            # httpx-sse always sends the values of the standard, and here the caller's own ones win.
            connect, fields = self.client.stream, with_sse_headers(headers)
        resources = AsyncExitStack()
        try:
            opened = await resources.enter_async_context(
                connect(
                    request.method,
                    request.url,
                    headers=fields,
                    content=content,
                    timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT, pool=CONNECT_TIMEOUT),
                    extensions={"label": request.label, "on_asgi_exchange": note},
                    follow_redirects=False,
                )
            )
        except Exception as error:
            failure = None if is_of_app(error, exchanges[-1] if exchanges else None) else _failure_of(error)
            if failure is None:
                raise
            raise failure from error
        return _HttpxStream(opened.response if isinstance(opened, EventSource) else opened, resources)


@attrs.define(eq=False)
class _HttpxStream:
    """A response of httpx."""

    _response: httpx.Response
    _resources: AsyncExitStack
    status: int = attrs.field(init=False)
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(init=False)
    is_decoded: bool = attrs.field(default=False, init=False)
    exchange: Exchange | None = attrs.field(default=None, init=False)
    _next: Callable[[], Awaitable[bytes | None]] = attrs.field(init=False)
    # The iterator over the body; None before the first piece, after the last one, and for an app in this process.
    _pieces: AsyncIterator[bytes] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        response = self._response
        self.status, self.headers = response.status_code, tuple(response.headers.raw)
        self._next = self._next_piece
        # httpx wraps the stream of a transport. Where it does so in another way, the general path below reads the same body.
        inner = getattr(response.stream, "_stream", response.stream)
        if isinstance(inner, AsgiBody):
            self.exchange = inner.exchange
        if response.is_stream_consumed and not isinstance(inner, httpx.ByteStream):
            # An event hook of the caller has read the body, and httpx has decompressed it.
            self.is_decoded = True
            self._pieces = _once(response.content)
        elif self.exchange is not None:
            self._next = self.exchange.chunk

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body, and return it; see `OpenStream.receive`."""
        try:
            return await self._next()
        except Exception as error:
            failure = None if is_of_app(error, self.exchange) else _failure_of(error)
            if failure is None:
                raise
            raise failure from error

    async def _next_piece(self) -> bytes | None:
        if self._pieces is None:
            self._pieces = aiter(self._response.stream)  # type: ignore[arg-type]  # an asynchronous client has such a stream
        return await anext(self._pieces, None)

    async def aclose(self) -> None:
        """Close the response."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            # The body is a chain of generators. Closing the outer one leaves the inner ones to the garbage collector, of which trio
            # warns. A cancelled read ends all of them. An error of a stream that is left does not matter.
            with anyio.CancelScope() as scope, suppress(Exception):
                scope.cancel()
                while await anext(pieces, None) is not None:
                    pass
        await self._resources.aclose()


async def _once(content: bytes) -> AsyncGenerator[bytes]:
    """Yield a body that is in memory."""
    yield content


def _failure_of(error: Exception) -> StreamFailure | None:
    """Return the failure that an error of httpx means; None for another error, such as one of an event hook."""
    match error:
        case httpx.HTTPStatusError():
            # A hook has called `raise_for_status`. The second line of the message is a link that explains statuses.
            return StreamFailure(FailureKind.REFUSED_STATUS, str(error).partition("\n")[0])
        case httpx.DecodingError():
            return StreamFailure(FailureKind.DECODING, describe_failure(error))
        case (
            httpx.ConnectError()
            | httpx.ConnectTimeout()
            | httpx.PoolTimeout()
            | httpx.ProxyError()
            | httpx.UnsupportedProtocol()
            | httpx.InvalidURL()
            | UnicodeError()
        ):
            return StreamFailure(FailureKind.UNREACHABLE, describe_failure(error))
        case _ if type(error) is httpx.TimeoutException or type(error).__name__ == "AllMockedAssertionError":
            # pytest-httpx raises the first one, which no transport raises itself, and respx the second one.
            return StreamFailure(FailureKind.NO_ROUTE, str(error))
        case httpx.HTTPError() | OSError():
            return StreamFailure(FailureKind.RESET, describe_failure(error))
        case _:
            return None
