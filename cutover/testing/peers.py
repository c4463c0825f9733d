"""What a stream can be asked of, made into an ``httpx.AsyncClient``: an app, a URL, a client of httpx or of httpx2."""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol, cast, runtime_checkable

import attrs
import httpx
from starlette.types import ASGIApp

from cutover.http.asgi.transport import StreamingASGITransport

APP_BASE_URL = "http://app"
"""The base URL that an app in process is asked under."""


@runtime_checkable
class Httpx2Client(Protocol):
    """As much of an ``httpx2.AsyncClient`` as is used; httpx2 is not imported, so it need not be there."""

    @property
    def base_url(self) -> object:
        """What its paths are relative to."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What it sends with each request."""

    @property
    def build_request(self) -> Callable[..., Any]:
        """Makes a request with the client's own headers and cookies."""

    @property
    def send(self) -> Callable[..., Awaitable[Any]]:
        """Sends it with the client's own authentication and transport."""


Peer = ASGIApp | str | httpx.AsyncClient | Httpx2Client
"""An ASGI app, a base URL, or a client whose base URL, headers and transport are used."""


@attrs.frozen(kw_only=True)
class OpenPeer:
    """A peer that can be asked."""

    client: httpx.AsyncClient
    app: StreamingASGITransport | None = None
    """What runs the app in process; None where there is a real address, or the client is the caller's."""


@asynccontextmanager
async def open_peer(peer: Peer, *, grace: float, lifespan: bool) -> AsyncGenerator[OpenPeer]:
    """Make a client for the peer. One that the caller made is the caller's to open and to close."""
    if isinstance(peer, httpx.AsyncClient):
        yield OpenPeer(client=peer)
        return
    app = None
    if isinstance(peer, str):
        client = httpx.AsyncClient(base_url=peer)
    elif isinstance(peer, Httpx2Client):
        transport = _Httpx2Transport(client=peer)
        client = httpx.AsyncClient(
            transport=transport, base_url=str(peer.base_url), headers=dict(peer.headers)
        )
    else:
        app = StreamingASGITransport(peer, grace=grace, lifespan=lifespan)
        client = httpx.AsyncClient(transport=app, base_url=APP_BASE_URL)
    async with client:
        yield OpenPeer(client=client, app=app)


@attrs.define(eq=False, kw_only=True)
class _Httpx2Transport(httpx.AsyncBaseTransport):
    """Sends httpx requests by an httpx2 client, and gives back what comes, errors too, in httpx's types."""

    client: Httpx2Client

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        limits = request.extensions.get("timeout", {})
        timeout = tuple(limits.get(kind) for kind in ("connect", "read", "write", "pool"))
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw]
        theirs = self.client.build_request(
            request.method, str(request.url), headers=headers, content=await request.aread(), timeout=timeout
        )
        try:
            response = await self.client.send(theirs, stream=True, follow_redirects=False)
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
    """Return httpx's error of the same name; what is not httpx2's (an app's own) stays itself."""
    if type(error).__module__.split(".")[0] != "httpx2":
        return error
    known = getattr(httpx, type(error).__name__, httpx.TransportError)
    return cast("Exception", known(str(error)))
