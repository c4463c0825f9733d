"""StreamingASGITransport: an httpx transport that runs an ASGI app in this process and streams its response.

Unlike ``httpx.ASGITransport``, it delivers a chunk when the app sends it and makes the app wait while nobody reads. It
also signals a disconnect to the app, applies the read and pool timeouts, and raises the app's errors to the reader.

In this folder, a chunk is one piece of the body as the app sends it. To find out if a proxy holds chunks back, test a
real URL.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import attrs
import httpx
from starlette.types import ASGIApp

from cutover.http.asgi.exchange import Exchange
from cutover.http.asgi.lifespan import Lifespan

# The version of the ASGI specification, as in uvicorn.
# From version 2.4 on, Starlette does not run a generator's `finally` after a disconnect.
_SPEC_VERSION = "2.3"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.define(eq=False)
class StreamingASGITransport(httpx.AsyncBaseTransport):
    """An httpx transport that runs an ASGI app in the client's event loop, on asyncio or trio.

    Use it as ``async with httpx.AsyncClient(transport=StreamingASGITransport(app)) as client``. The app runs in a task
    group that lives as long as the client. Leave the client in the task that entered it: do not hold it across a
    fixture's ``yield``. A client can have only one such transport, because httpx closes its mounts in an order that task
    groups do not allow; if you need several hosts, let one app answer for all of them.

    An error of the app is raised unchanged: by the request if no head was sent yet, else by reading the body. If the app
    returns too early, `httpx.RemoteProtocolError` is raised. ``response.extensions["asgi_exchange"]`` holds the
    `Exchange` of a response. An error after the whole response is not raised; only the ``error`` of the exchange holds it.
    """

    app: ASGIApp
    """The app that answers the requests."""
    max_buffered_chunks: int = attrs.field(default=16, kw_only=True, validator=attrs.validators.ge(0))
    """Chunks that the app may send before the reader has read them, like the buffer of a socket. Default 16."""
    grace: float = attrs.field(default=1.0, kw_only=True, validator=attrs.validators.ge(0))
    """Seconds that the app has to clean up after a disconnect or when the client closes. Then it is cancelled. Default 1."""
    max_connections: int = attrs.field(default=100, kw_only=True, validator=attrs.validators.ge(1))
    """Requests that may be in flight at once; the next one waits up to the pool timeout. Default 100, as in httpx."""
    root_path: str = attrs.field(default="", kw_only=True)
    """Path under which the app is mounted, put before the request's path as by uvicorn's ``--root-path``. Default none."""
    client: tuple[str, int] = attrs.field(default=("127.0.0.1", 123), kw_only=True)
    """Client address and port that the app sees. Default ``("127.0.0.1", 123)``."""
    lifespan: bool = attrs.field(default=False, kw_only=True)
    """True to run the app's lifespan. A failed startup raises on entry, a failed shutdown on exit without other error. Default False."""
    latest: Exchange | None = attrs.field(default=None, init=False)
    """The exchange of the newest request, also of one without a response. None before the first request."""
    _tasks: anyio.abc.TaskGroup | None = attrs.field(default=None, init=False)
    _pool: anyio.Semaphore = attrs.field(init=False)
    _lifespan: Lifespan | None = attrs.field(default=None, init=False)
    _exchanges: set[Exchange] = attrs.field(factory=set, init=False)

    async def __aenter__(self) -> Self:
        if self._tasks is not None:
            raise RuntimeError("StreamingASGITransport is entered already: one transport, one client")
        self._pool = anyio.Semaphore(self.max_connections)
        self._lifespan = Lifespan(app=self.app, grace=self.grace) if self.lifespan else None
        self._tasks = await anyio.create_task_group().__aenter__()
        if self._lifespan is not None:
            self._tasks.start_soon(self._lifespan.run)
            try:
                await self._lifespan.startup()
            except BaseException:
                await self._leave()
                raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        try:
            await self.aclose()
            if self._lifespan is not None:
                await self._lifespan.shutdown()
        finally:
            await self._leave()
        if self._lifespan is not None and exc_value is None:
            self._lifespan.raise_for_error()

    async def _leave(self) -> None:
        """Leave the task group without the caller's exception: the group would raise it inside an exception group."""
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Disconnect every request in flight, and wait until each has ended; cancel the app after the grace period."""
        await _end(tuple(self._exchanges), grace=self.grace)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request to the app, and return the response as soon as the app has sent the head.

        Raises:
            RuntimeError: The transport is not entered.
            httpx.PoolTimeout: ``max_connections`` requests stayed in flight for the whole pool timeout.
            httpx.ReadTimeout: The app sent no head within the read timeout.
            httpx.ReadError: The client was closed.
            httpx.RemoteProtocolError: The app returned without a response.
            BaseException: The app or the request's body raised it.
        """
        if self._tasks is None:
            raise RuntimeError(
                "StreamingASGITransport is not entered: use it as "
                "`async with httpx.AsyncClient(transport=StreamingASGITransport(app)) as client:`"
            )
        scope = self._scope(request)
        timeout: Mapping[str, float | None] = request.extensions.get("timeout", {})
        with anyio.move_on_after(timeout.get("pool")) as waiting:
            await self._pool.acquire()
        if waiting.cancelled_caught:
            raise httpx.PoolTimeout(
                f"{self.max_connections} requests are in flight (max_connections); none ended within the pool timeout"
            )
        exchange = Exchange(
            app=self.app,
            scope=scope,
            request=request,
            read_timeout=timeout.get("read"),
            max_buffered_chunks=self.max_buffered_chunks,
        )
        self.latest = exchange
        on_exchange = request.extensions.get("on_asgi_exchange")
        if on_exchange is not None:
            # Also a request without a response has an exchange, and several requests may run at the same time.
            on_exchange(exchange)
        self._exchanges.add(exchange)
        self._tasks.start_soon(self._run, exchange)
        try:
            status, headers = await exchange.head()
        except BaseException:
            # Without a response there is nothing that the caller could close.
            await self._close(exchange)
            raise
        extensions = {"http_version": b"HTTP/1.1", "asgi_exchange": exchange}
        body = AsgiBody(exchange=exchange, close=self._close)
        return httpx.Response(status, headers=headers, stream=body, extensions=extensions)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await exchange.run()
        finally:
            if exchange.left:
                self._exchanges.discard(exchange)

    async def _close(self, exchange: Exchange) -> None:
        """Close one exchange. An app that has sent the whole response may go on in the background, as under a server."""
        if exchange.left:
            return
        exchange.left = True
        try:
            if exchange.complete:
                exchange.disconnect()
            else:
                await _end((exchange,), grace=self.grace)
        finally:
            self._pool.release()
            if exchange.finished_at is not None:
                self._exchanges.discard(exchange)

    def _scope(self, request: httpx.Request) -> dict[str, Any]:
        url = request.url
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": _SPEC_VERSION},
            "http_version": "1.1",
            "method": request.method,
            "scheme": url.scheme,
            "path": self.root_path + url.path,
            "raw_path": self.root_path.encode("ascii") + url.raw_path.split(b"?")[0],
            "query_string": url.query,
            "root_path": self.root_path,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": self.client,
            "server": (url.host, url.port or _DEFAULT_PORTS.get(url.scheme)),
            "extensions": {},
        }
        if self._lifespan is not None:
            scope["state"] = self._lifespan.state.copy()
        return scope


@attrs.define(eq=False, kw_only=True)
class AsgiBody(httpx.AsyncByteStream):
    """The response's body. It is an iterator and not a generator, so a reader who stops early leaves nothing open."""

    exchange: Exchange
    _close: Callable[[Exchange], Awaitable[None]]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.exchange.chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Close the exchange."""
        await self._close(self.exchange)


async def _end(exchanges: Collection[Exchange], *, grace: float) -> None:
    """Disconnect the exchanges, wait up to ``grace`` seconds for the apps to end, and cancel each app that still runs.

    Cancellation of the caller does not shorten the wait. After cancelling an app, it waits without a limit for its end.
    """
    for exchange in exchanges:
        exchange.disconnect()
    with anyio.CancelScope(shield=True):
        with anyio.move_on_after(grace):
            for exchange in exchanges:
                await exchange.finished()
        for exchange in exchanges:
            exchange.cancel()
        for exchange in exchanges:
            await exchange.finished()
