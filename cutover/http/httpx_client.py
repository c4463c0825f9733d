"""The adapter of an ``httpx.AsyncClient``. It also serves trio, and apps in this process."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import Any

import anyio
import attrs
import httpx
from httpx_sse import EventSource, aconnect_sse

from cutover.contract import FailureKind
from cutover.http.asgi.exchange import Exchange
from cutover.http.asgi.transport import AsgiBody
from cutover.http.causes import CONNECT_TIMEOUT, describe_failure
from cutover.http.connection import SSE_HEADERS, OpenStream, StreamFailure, StreamRequest, with_sse_headers


@attrs.define(eq=False)
class HttpxClient:
    """The adapter of an ``httpx.AsyncClient``."""

    client: httpx.AsyncClient

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the client sends with each request."""
        return self.client.headers

    def url_of(self, request: StreamRequest) -> str:
        """Return the absolute URL of a request, with the login of the client's base URL; see `mask_urls`. A URL that is none is returned as it is."""
        try:
            return str(self.client.build_request(request.method, request.url).url)
        except (httpx.InvalidURL, UnicodeError):
            return request.url

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
            failure = None if _is_of_app(error, exchanges) else _failure_of(error)
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
            failure = None if _is_of_app(error, [self.exchange]) else _failure_of(error)
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


def _is_of_app(error: Exception, exchanges: Sequence[Exchange | None]) -> bool:
    """Return True if an app in this process raised the error."""
    return any(exchange is not None and exchange.error is error for exchange in exchanges)


def _failure_of(error: Exception) -> StreamFailure | None:
    """Return the failure that an error of httpx means; None for another error, such as one of an event hook.

    A request that itself breaks HTTP, such as by a header with a line end, is no failure: the caller must mend it.
    """
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
        case httpx.HTTPError() | OSError() if not isinstance(error, httpx.LocalProtocolError):
            return StreamFailure(FailureKind.RESET, describe_failure(error))
        case _:
            return None
