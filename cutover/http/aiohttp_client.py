"""The adapter of an ``aiohttp.ClientSession`` (extra ``aiohttp``). It needs less CPU and memory for a stream than httpx."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from typing import TypeAlias

import aiohttp
import anyio.lowlevel
import attrs
from aiohttp.client_proto import ResponseHandler
from aiohttp.http import HttpProcessingError
from yarl import URL

from cutover.contract import FailureKind
from cutover.http.asgi.exchange import Exchange
from cutover.http.causes import CONNECT_TIMEOUT, Cause
from cutover.http.connection import OpenStream, StreamFailure, StreamRequest, with_sse_headers

_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=CONNECT_TIMEOUT)
"""The only limit that the client sets: the contract bounds all other waits."""
_PIECE = 1 << 18
"""Bytes of a request that are given to aiohttp at once: it warns of more than 1 MiB in one piece."""
_Error: TypeAlias = aiohttp.ClientError | HttpProcessingError | OSError | UnicodeError
"""The errors of aiohttp, and those that pass through it."""
_NO_CONNECTION = (
    ((aiohttp.ClientHttpProxyError, aiohttp.ClientConnectorError), Cause.NO_CONNECTION),
    (aiohttp.ServerTimeoutError, Cause.NOT_IN_TIME),
    (
        (
            aiohttp.InvalidURL,
            aiohttp.NonHttpUrlClientError,
            aiohttp.ServerFingerprintMismatch,
            UnicodeError,
        ),
        Cause.OTHER,
    ),
)
"""Types of errors before a connection is there, each with its cause."""
_LENGTH_HEADERS = frozenset({b"content-length", b"transfer-encoding"})


@attrs.define(eq=False)
class AiohttpClient:
    """The adapter of an ``aiohttp.ClientSession``. The session stays open."""

    session: aiohttp.ClientSession

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the session sends with each request."""
        return self.session.headers

    def url_of(self, request: StreamRequest) -> str:
        """Return the absolute URL of a request, with the login of the client's base URL; see `mask_urls`. A URL that is none is returned as it is."""
        # aiohttp has no public name for the base URL of a session.
        base = getattr(self.session, "_base_url", None)
        try:
            return str(URL(request.url) if base is None else base.join(URL(request.url)))
        except ValueError:
            return request.url

    async def open(
        self,
        request: StreamRequest,
        *,
        headers: Mapping[str, str | bytes],
        content: bytes | AsyncGenerator[bytes],
        on_exchange: Callable[[Exchange], None],  # noqa: ARG002  no app runs in this process
    ) -> OpenStream:
        """Send a request, and return its response once the head has come; see `StreamClient.open`.

        Raises:
            RuntimeError: The event loop is not one of asyncio.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError(
                "an aiohttp.ClientSession works with asyncio only, and this is trio: give an httpx.AsyncClient"
            ) from None
        try:
            response = await self.session.request(
                request.method,
                request.url,
                headers={
                    name: value.decode() if isinstance(value, bytes) else value
                    for name, value in with_sse_headers(headers).items()
                },
                data=_pieces(content)
                if isinstance(content, bytes) and len(content) > _PIECE
                else content or None,
                # Without a type of the caller, aiohttp would name one.
                skip_auto_headers=("content-type",),
                allow_redirects=False,
                auto_decompress=False,
                timeout=_TIMEOUT,
            )
            return _AiohttpStream(response, await _read_by_hook(response))
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            raise _failure_of(error) from error


async def _pieces(content: bytes) -> AsyncGenerator[bytes]:
    """Yield a long body piece by piece."""
    for at in range(0, len(content), _PIECE):
        yield content[at : at + _PIECE]


async def _read_by_hook(response: aiohttp.ClientResponse) -> bytes:
    """Return the body if a middleware of the caller, or a function for `raise_for_status`, has read it; else nothing."""
    return await response.read() if response.content.at_eof() else b""


@attrs.define(eq=False)
class _AiohttpStream:
    """A response of aiohttp."""

    _response: aiohttp.ClientResponse
    # The body, if it has been read already.
    _body: bytes
    status: int = attrs.field(init=False)
    headers: tuple[tuple[bytes, bytes], ...] = attrs.field(init=False)
    is_decoded: bool = attrs.field(default=False, init=False)
    exchange: Exchange | None = attrs.field(default=None, init=False)
    _content: aiohttp.StreamReader = attrs.field(init=False)
    # The protocol of the connection; None if the whole body came with the head.
    _protocol: ResponseHandler | None = attrs.field(default=None, init=False)
    # True once an error has come, and the bytes before it were returned.
    _has_failed: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        response = self._response
        self.status, self.headers, self._content = response.status, response.raw_headers, response.content
        self._protocol = None if response.connection is None else response.connection.protocol
        if self._protocol is not None and self._protocol.closed is not None:
            self._protocol.closed.add_done_callback(self._wake)

    def _wake(self, closed: "asyncio.Future[None]") -> None:
        """End the wait for a body whose connection has closed.

        aiohttp does so itself, but not after a fault in the framing of the body, and not if the session was closed.
        """
        _take_error(closed)
        if self._protocol is not None and not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(
                self._protocol.exception() or aiohttp.ServerDisconnectedError("Connection closed")
            )

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body, and return it; see `OpenStream.receive`."""
        try:
            data = await self._content.readany()
        except (aiohttp.ClientError, HttpProcessingError, OSError) as error:
            left: Collection[bytes] = getattr(self._content, "_buffer", ())
            if left and not self._has_failed:
                # aiohttp forgets what it has buffered when an error comes. Bytes and events that came would count as lost.
                self._has_failed = True
                return b"".join(left)
            raise _failure_of(error) from error
        if data:
            return data
        if self._body:
            data, self._body = self._body, b""
            return data
        reset = None if self._protocol is None else self._protocol.exception()
        if isinstance(reset, OSError) and _LENGTH_HEADERS.isdisjoint(
            name.lower() for name, _ in self.headers
        ):
            # aiohttp takes any close for the end of a body that the close of the connection ends.
            raise StreamFailure(FailureKind.RESET, Cause.RESET.described(str(reset))) from reset
        return None

    async def aclose(self) -> None:
        """Close the response, and stop sending the request."""
        protocol, self._protocol = self._protocol, None
        if protocol is not None and protocol.closed is not None:
            # The connection may serve other requests after this one, and asyncio reports an error that nobody has taken.
            protocol.closed.remove_done_callback(self._wake)
            protocol.closed.remove_done_callback(_take_error)
            protocol.closed.add_done_callback(_take_error)
        self._response.close()
        await self._response.wait_for_close()
        # asyncio closes the socket in the next round of its loop.
        await anyio.lowlevel.checkpoint()


def _take_error(closed: "asyncio.Future[None]") -> None:
    """Take the error of a connection that has closed."""
    if not closed.cancelled():
        closed.exception()


def _failure_of(error: _Error) -> StreamFailure:
    """Return the failure that an error means."""
    words = str(error)
    for types, cause in _NO_CONNECTION:
        if isinstance(error, types):
            return StreamFailure(FailureKind.UNREACHABLE, cause.described(words))
    match error:
        case aiohttp.ClientResponseError() if not isinstance(error.__cause__, HttpProcessingError):
            return StreamFailure(FailureKind.REFUSED_STATUS, words)
        case aiohttp.ClientConnectionError() if words.startswith("Connection refused: "):
            # aioresponses raises it. A connection that was refused has an error of its own above.
            return StreamFailure(FailureKind.NO_ROUTE, words)
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            # The message is a dump of the part of the head that came.
            words = "Server disconnected within the head"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            # aiohttp draws an arrow below the place.
            words = error.message.removesuffix("^")
    one_line = " ".join(words.split()) or type(error).__name__
    return StreamFailure(FailureKind.RESET, _cause_of(error).described(one_line))


def _cause_of(error: _Error) -> Cause:
    """Return the cause of a reply that did not come whole."""
    cause = Cause.OTHER
    match error:
        case aiohttp.ServerDisconnectedError():
            cause = Cause.NO_REPLY
        case aiohttp.ClientPayloadError() if "ConnectionResetError" in str(error):
            cause = Cause.RESET
        case aiohttp.ClientPayloadError() if "Not enough data" in str(error):
            cause = Cause.CUT_SHORT
        case aiohttp.ClientResponseError() | aiohttp.ClientPayloadError() | HttpProcessingError():
            cause = Cause.NOT_HTTP
        case aiohttp.ClientOSError():
            cause = Cause.RESET
    return cause
