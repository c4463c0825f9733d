"""A client for each peer that a test can name: an app, a URL, or a client of httpx, aiohttp or httpx2."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import attrs
import httpx
from starlette.types import ASGIApp

from cutover.contract import StreamContract
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.http.clients import AnyClient, is_client, stream_client
from cutover.http.connection import StreamClient
from cutover.http.environment import read_environment

APP_BASE_URL = "http://app"
"""The base URL of an app that runs in this process."""


@runtime_checkable
class Httpx2Client(Protocol):
    """The part of an ``httpx2.AsyncClient`` that is used here. httpx2 is not imported, so it need not be installed."""

    @property
    def base_url(self) -> object:
        """The URL that the paths of requests are relative to."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the client sends with each request."""

    @property
    def build_request(self) -> Callable[..., Any]:
        """The method that builds a request with the client's own headers and cookies."""

    @property
    def send(self) -> Callable[..., Awaitable[Any]]:
        """The method that sends a request with the client's own authentication and transport."""


Peer: TypeAlias = ASGIApp | str | AnyClient | Httpx2Client
"""An ASGI app, a base URL, or an async client whose base URL, headers and transport are used."""


@attrs.frozen(kw_only=True)
class OpenPeer:
    """A peer that is ready for requests."""

    client: StreamClient
    is_app: bool = False
    """True if the app runs in this process by a transport made here; False for a URL and for a client of the caller."""


def contract_of_app(peer: Peer, path: str, method: str | None) -> StreamContract:
    """Return the contract of a path of an app that can describe itself in OpenAPI, such as a FastAPI app.

    Args:
        peer: The app.
        path: Path and query of the request.
        method: The method; None: the one that has an event stream.

    Raises:
        TypeError: The peer is no such app.
        OpenApiError: Its document has no contract for this path and method.
    """
    describe = None if isinstance(peer, str | httpx.AsyncClient) else getattr(peer, "openapi", None)
    document = describe() if callable(describe) else None
    if not isinstance(document, Mapping):
        raise TypeError(
            'contract="openapi" asks the app for its own document, as a FastAPI app has one; this peer has none. '
            "Give its document: contract=StreamContract.from_openapi(document, path)"
        )
    return StreamContract.from_openapi(document, path, method)


@asynccontextmanager
async def open_peer(peer: Peer, *, grace: float, lifespan: bool) -> AsyncGenerator[OpenPeer]:
    """Give a client for the peer, and close it afterwards. A client that the caller made is left open.

    Raises:
        TypeError: The peer is a synchronous client, or nothing that can be asked for a stream.
    """
    if is_client(peer):
        yield OpenPeer(client=stream_client(peer))
        return
    is_app = False
    if isinstance(peer, str):
        client = read_environment().client(base_url=peer)
    elif isinstance(peer, Httpx2Client):
        transport = _Httpx2Transport(client=peer)
        client = httpx.AsyncClient(
            transport=transport, base_url=str(peer.base_url), headers=dict(peer.headers)
        )
    elif callable(peer):
        is_app = True
        app = StreamingASGITransport(peer, grace=grace, lifespan=lifespan)
        client = httpx.AsyncClient(transport=app, base_url=APP_BASE_URL)
    else:
        raise TypeError(f"a peer is an ASGI app, a base URL or an asynchronous client, and not {peer!r}")
    async with client:
        yield OpenPeer(client=stream_client(client), is_app=is_app)


@attrs.define(eq=False, kw_only=True)
class _Httpx2Transport(httpx.AsyncBaseTransport):
    """An httpx transport that sends requests through an httpx2 client and returns responses and errors as httpx types."""

    client: Httpx2Client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout", {})
        timeout = tuple(limits.get(kind) for kind in ("connect", "read", "write", "pool"))
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw]
        httpx2_request = self.client.build_request(
            request.method, str(request.url), headers=headers, content=await request.aread(), timeout=timeout
        )
        try:
            response = await self.client.send(httpx2_request, stream=True, follow_redirects=False)
        except Exception as error:
            raise _translate(error) from error
        body = _Httpx2Body(response=response)
        return httpx.Response(
            response.status_code, headers=response.headers.raw, stream=body, extensions=response.extensions
        )


@attrs.define(eq=False, kw_only=True)
class _Httpx2Body(httpx.AsyncByteStream):
    response: Any

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self.response.stream:
                yield piece
        except Exception as error:
            raise _translate(error) from error

    async def aclose(self) -> None:
        await self.response.aclose()


def _translate(error: Exception) -> Exception:
    """Return the httpx error of the same name. An error that is not from httpx2, such as an app's, stays unchanged."""
    if type(error).__module__.split(".")[0] != "httpx2":
        return error
    error_type = getattr(httpx, type(error).__name__, httpx.TransportError)
    return cast("Exception", error_type(str(error)))
