"""StreamingASGITransport: what httpx sees of an app in process.

Unlike ``httpx.ASGITransport`` it delivers a chunk when the app sends it, slows an app down whose chunks nobody reads,
tells it of a disconnect, applies the read and pool timeouts (over a socket that is httpcore's work) and lets what the
app raised reach the reader.

A chunk here is one ASGI message, not a TCP segment: what a proxy holds back can be seen over a real URL alone.
"""

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import attrs
import httpx
from starlette.types import ASGIApp

from cutover.http.asgi.exchange import Exchange, end
from cutover.http.asgi.lifespan import Lifespan

# uvicorn's value. From 2.4 on, Starlette leaves a generator's `finally` unrun when the reader disconnects.
_SPEC_VERSION = "2.3"
_DEFAULT_PORTS = {"http": 80, "https": 443}


@attrs.define(eq=False)
class StreamingASGITransport(httpx.AsyncBaseTransport):
    """Runs an ASGI app in the client's event loop, on asyncio or trio.

    Enter it with its client, ``async with httpx.AsyncClient(transport=StreamingASGITransport(app)) as client``: one task
    group for the client's life runs the app. It must be left in the task that entered it, so do not hold it across a
    fixture's ``yield``; and since httpx leaves its mounts in the order it entered them, which task groups do not allow,
    a client can have one such transport: let one app tell the hosts apart.

    What the app raises before the head is raised by the request, after the head by the reading of the body, as itself.
    An app that returns too early gives `httpx.RemoteProtocolError`. Each response has its `Exchange` in
    ``response.extensions["asgi_exchange"]``.
    """

    app: ASGIApp
    max_buffered_chunks: int = attrs.field(default=16, kw_only=True, validator=attrs.validators.ge(0))
    """How many chunks the app may be ahead of the reader: the socket's buffer, in chunks."""
    grace: float = attrs.field(default=1.0, kw_only=True, validator=attrs.validators.ge(0))
    """Seconds an app has to clean up after a disconnect or at the client's end, before it is cancelled."""
    max_connections: int = attrs.field(default=100, kw_only=True, validator=attrs.validators.ge(1))
    """Requests in flight at once; one more waits for the pool timeout. The default is httpx's own."""
    root_path: str = attrs.field(default="", kw_only=True)
    """Where the app is mounted; put before the path, as uvicorn's ``--root-path`` is."""
    client: tuple[str, int] = attrs.field(default=("127.0.0.1", 123), kw_only=True)
    """The address that the app sees the requests come from."""
    lifespan: bool = attrs.field(default=False, kw_only=True)
    """Run the app's lifespan; a failed startup is raised at the client's entry, a failed shutdown at its exit."""
    latest: Exchange | None = attrs.field(default=None, init=False)
    """The newest request's exchange, also where no response came of it."""
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
        """Leave the task group, without the caller's exception: handed to it, that would come back as a group."""
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)

    async def aclose(self) -> None:
        """Disconnect every request in flight, and wait until the app has let go of each."""
        await end(tuple(self._exchanges), grace=self.grace)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request into the app; its response is here as soon as the app has sent the head.

        Raises:
            RuntimeError: The transport was not entered.
            httpx.PoolTimeout: ``max_connections`` were in flight for the pool timeout.
            httpx.ReadTimeout: The app sent no head within the read timeout.
            httpx.RemoteProtocolError: The app returned without a response.
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
            raise httpx.PoolTimeout(f"{self.max_connections} requests are in flight")
        exchange = Exchange(
            app=self.app,
            scope=scope,
            request=request,
            read_timeout=timeout.get("read"),
            max_buffered_chunks=self.max_buffered_chunks,
        )
        self.latest = exchange
        self._exchanges.add(exchange)
        self._tasks.start_soon(self._run, exchange)
        try:
            status, headers = await exchange.head()
        except BaseException:  # a caller cancelled here never closes the response: there is none
            await self._close(exchange)
            raise
        extensions = {"http_version": b"HTTP/1.1", "asgi_exchange": exchange}
        body = _Body(exchange=exchange, close=self._close)
        return httpx.Response(status, headers=headers, stream=body, extensions=extensions)

    async def _run(self, exchange: Exchange) -> None:
        try:
            await exchange.run()
        finally:
            if exchange.left:
                self._exchanges.discard(exchange)

    async def _close(self, exchange: Exchange) -> None:
        """Leave one exchange. An app that has sent the whole response goes on in the background, as under a server."""
        if exchange.left:
            return
        exchange.left = True
        try:
            if exchange.complete:
                exchange.disconnect()
            else:
                await end((exchange,), grace=self.grace)
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
class _Body(httpx.AsyncByteStream):
    """The response's body: an iterator and no generator, so that a reader who stops early leaves nothing open."""

    _exchange: Exchange
    _close: Callable[[Exchange], Awaitable[None]]

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._exchange.chunk()
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        await self._close(self._exchange)
