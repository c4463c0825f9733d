"""One request and its response, between an app in this process and its reader."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.types import ASGIApp, Message

from cutover.http.asgi.chunk_queue import ChunkQueue

Head = tuple[int, list[tuple[bytes, bytes]]]
_SPIN_SECONDS = 1.0
"""Seconds after a disconnect for which an app may send without a pause."""


@attrs.define(eq=False)
class Exchange:
    """One request to the app and its response, with the times of a disconnect and the way the app ended.

    All times are in seconds on the clock of `anyio.current_time`.
    """

    _app: ASGIApp = attrs.field(kw_only=True)
    _asgi_scope: dict[str, Any] = attrs.field(kw_only=True, alias="scope", repr=False)
    _request: httpx.Request = attrs.field(kw_only=True)
    _read_timeout: float | None = attrs.field(kw_only=True)
    _max_buffered_chunks: int = attrs.field(kw_only=True)

    complete: bool = attrs.field(default=False, init=False)
    """True once the app has sent the whole response. The app may still work in the background."""
    left: bool = attrs.field(default=False, init=False)
    """True once the reader has closed the response."""
    disconnected_at: float | None = attrs.field(default=None, init=False)
    """Time of a disconnect before the end (the reader left, the client closed, or the request's body failed); else None."""
    noticed_at: float | None = attrs.field(default=None, init=False)
    """Time at which the app saw the disconnect (``receive()`` gave ``http.disconnect``, or it sent something); else None."""
    finished_at: float | None = attrs.field(default=None, init=False)
    """Time at which the app returned, raised or was cancelled; None while it runs."""
    cancelled: bool = attrs.field(default=False, init=False)
    """True if the app did not end within the grace period and was cancelled."""
    error: BaseException | None = attrs.field(default=None, init=False)
    """The error that the app raised, also if no reader was left to receive it; None if it raised none."""

    _head: Head | None = attrs.field(default=None, init=False)
    _body_left: int | None = attrs.field(default=None, init=False)
    _reading: anyio.CancelScope | None = attrs.field(default=None, init=False)
    _request_pending: bool = attrs.field(default=False, init=False)
    _request_error: Exception | None = attrs.field(default=None, init=False)
    _request_wanted: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _head_or_end: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _noticed_or_end: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _end: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _app_scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope, init=False)
    _pump_scope: anyio.CancelScope = attrs.field(factory=anyio.CancelScope, init=False)
    _chunks: ChunkQueue = attrs.field(init=False)
    _requests_in: MemoryObjectSendStream[Message] = attrs.field(init=False)
    _requests_out: MemoryObjectReceiveStream[Message] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._chunks = ChunkQueue(self._max_buffered_chunks)
        self._requests_in, self._requests_out = anyio.create_memory_object_stream[Message](0)

    async def head(self) -> Head:
        """Wait for the response's status and headers, and return them.

        Raises:
            httpx.ReadTimeout: No head came within the read timeout.
            httpx.ReadError: The client was closed.
            httpx.RemoteProtocolError: The app returned without a response.
            BaseException: The app or the request's body raised it.
        """
        await self._within_read_timeout(self._head_or_end.wait, missing="no head")
        if self._head is None or self._request_error is not None:
            raise self._failure()
        return self._head

    async def chunk(self) -> bytes | None:
        """Wait for the next chunk of the response's body, and return it; return None at the end of the body.

        Raises:
            httpx.ReadTimeout: No chunk came within the read timeout.
            httpx.ReadError: The client was closed.
            httpx.RemoteProtocolError: The app returned before the end of the body.
            BaseException: The app or the request's body raised it.
        """
        if self._chunks.must_wait:
            await self._within_read_timeout(self._chunks.wait, missing="no chunk")
        chunk = self._chunks.take()
        if chunk is not None or self.complete:
            return chunk
        raise self._failure()

    @property
    def sent_at(self) -> float:
        """Time at which the app sent the chunk that ``chunk`` returned last."""
        return self._chunks.sent_at

    async def noticed(self) -> bool:
        """Wait until the app ends or notices the disconnect, and return True if it noticed the disconnect."""
        await self._noticed_or_end.wait()
        return self.noticed_at is not None

    async def finished(self) -> None:
        """Wait until the app has returned, raised or been cancelled."""
        await self._end.wait()

    def disconnect(self) -> None:
        """Stop reading. If the app has not sent the whole response yet, record a disconnect and let the app see it."""
        if not self.complete and self.disconnected_at is None:
            self.disconnected_at = anyio.current_time()
            # This wakes an app that waits in receive().
            self._pump_scope.cancel()
        self._chunks.drop()

    def cancel(self) -> None:
        """Cancel the app if it still runs."""
        if self.finished_at is None:
            self.cancelled = True
            self._app_scope.cancel()

    async def run(self) -> None:
        """Run the app to its end and feed it the request's body.

        An error of the app is kept in ``error``. Only KeyboardInterrupt and SystemExit are raised.
        """
        try:
            with self._app_scope:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._pump_request)
                    await self._run_app()
                    self._pump_scope.cancel()
        finally:
            self.finished_at = anyio.current_time()
            self._chunks.end()
            self._requests_out.close()
            for event in (self._head_or_end, self._noticed_or_end, self._end):
                event.set()

    async def _run_app(self) -> None:
        try:
            await self._app(self._asgi_scope, self._receive, self._send)
        except (KeyboardInterrupt, SystemExit):
            raise
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            # Nothing here has cancelled the app. On asyncio, the app awaited a task that was cancelled.
            self.error = RuntimeError(f"the app awaited a task that was cancelled: {error}")
            self.error.__cause__ = error
        except BaseException as error:  # noqa: BLE001  the reader gets it; raised here, it would end other requests
            self.error = error

    async def _pump_request(self) -> None:
        """Pass the request's body to the app piece by piece, once the app first asks for it.

        This runs in its own task: an app that polls cancels its ``receive()``, and this cancellation must not reach the
        generator of the request's body. After this task has ended, `_receive` returns ``http.disconnect``.
        """
        with self._requests_in, self._pump_scope:
            await self._request_wanted.wait()
            pieces = aiter(self._request.stream)  # type: ignore[arg-type]  # httpx has checked that it is asynchronous
            try:
                while (piece := await self._next_piece(pieces)) is not None:
                    if piece:
                        await self._requests_in.send(
                            {"type": "http.request", "body": piece, "more_body": True}
                        )
            finally:
                if isinstance(pieces, AsyncGenerator):
                    await pieces.aclose()
            await self._requests_in.send({"type": "http.request", "body": b"", "more_body": False})
            await anyio.sleep_forever()

    async def _next_piece(self, pieces: AsyncIterator[bytes]) -> bytes | None:
        """Return the next piece; None at the end. An error in the request's body goes to the reader and disconnects the app."""
        self._set_request_pending(pending=True)
        try:
            return await anext(pieces, None)
        except Exception as error:  # noqa: BLE001  the caller's own body raised it, so the caller gets it
            self._request_error = error
            self.disconnect()
            self._head_or_end.set()
            return None
        finally:
            self._set_request_pending(pending=False)

    async def _receive(self) -> Message:
        with suppress(anyio.EndOfStream, anyio.ClosedResourceError):
            if not self.complete and self.disconnected_at is None:
                self._request_wanted.set()
                # No checkpoint first: Starlette's `is_disconnected()` calls this from a cancelled scope.
                try:
                    return self._requests_out.receive_nowait()
                except anyio.WouldBlock:
                    return await self._requests_out.receive()
        self._notice()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        if self.disconnected_at is not None:
            # As under uvicorn: what is sent after a disconnect is dropped at once, and the app sees no error. A pause here would deliver
            # Starlette's cancellation while a generator of the app is suspended, and its `finally` would then not run.
            self._notice()
            if anyio.current_time() - self.disconnected_at > _SPIN_SECONDS:
                # Under uvicorn, an endless generator that never waits blocks the process here.
                await anyio.lowlevel.checkpoint()
            return
        match message["type"]:
            case "http.response.start" if self._head is None:
                self._start(
                    message["status"],
                    [(bytes(name), bytes(value)) for name, value in message.get("headers", ())],
                )
            case "http.response.body" if self._head is not None and not self.complete:
                await self._send_body(
                    bytes(message.get("body", b"")), more_body=message.get("more_body", False)
                )
            case other:
                raise RuntimeError(f"the app may not send {other!r} here")

    def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if self._request.method != "HEAD":
            self._body_left = next(
                (int(value) for name, value in headers if name.lower() == b"content-length"), None
            )
        self._head = (status, headers)
        self._head_or_end.set()

    async def _send_body(self, body: bytes, *, more_body: bool) -> None:
        # A server refuses a body that is longer or shorter than its content-length (RFC 9112 6.3).
        if self._body_left is not None:
            self._body_left -= len(body)
            if self._body_left < 0 or (self._body_left > 0 and not more_body):
                raise RuntimeError("the app's body is not as long as its content-length says")
        if body and self._request.method != "HEAD":
            if not await self._chunks.put(body):
                # The reader has left while the app waited.
                self._notice()
                return
        else:
            await anyio.lowlevel.checkpoint()
        if not more_body:
            self.complete = True
            self._chunks.end()
            self._pump_scope.cancel()

    def _notice(self) -> None:
        if self.disconnected_at is not None and self.noticed_at is None:
            self.noticed_at = anyio.current_time()
            self._noticed_or_end.set()

    async def _within_read_timeout(self, wait: Callable[[], Awaitable[object]], *, missing: str) -> None:
        """Wait, at most for the read timeout if there is one. It pauses while the app waits for the caller's request body."""
        if self._read_timeout is None:
            await wait()
            return
        try:
            with anyio.CancelScope() as self._reading:
                self._set_request_pending(pending=self._request_pending)
                await wait()
                return
        finally:
            self._reading = None
        raise httpx.ReadTimeout(f"{missing} within {self._read_timeout} s")

    def _set_request_pending(self, *, pending: bool) -> None:
        self._request_pending = pending
        if self._reading is not None and self._read_timeout is not None:
            self._reading.deadline = math.inf if pending else anyio.current_time() + self._read_timeout

    def _failure(self) -> BaseException:
        """Return the error that explains why the response ended early."""
        if self._request_error is not None:
            return self._request_error
        if self.disconnected_at is not None:
            return httpx.ReadError("the client was closed")
        if self.error is not None:
            return self.error
        return httpx.RemoteProtocolError(
            "the app returned without a response"
            if self._head is None
            else "the app returned before its body's end"
        )
