"""One request and its response, between an app in this process and its reader.

The app's chunks wait in a queue. An event that wakes the other side exists only while one side waits, because most chunks of a busy
stream find their reader awake: a lock and a wake-up for each of them would cost several times more than the chunk.
"""

import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import attrs
import httpx
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from starlette.types import ASGIApp, Message

Head = tuple[int, list[tuple[bytes, bytes]]]
_Result = TypeVar("_Result")
_UNSEEN_SECONDS = 0.001
"""Seconds for which a chunk may lie unread while its app works on without waiting. Then its next send lets the reader run."""
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
    sent_at: float = attrs.field(default=0.0, init=False)
    """Time at which the app sent the chunk that ``chunk`` returned last."""

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
    # The chunks that nobody has read yet, each with the time at which the app sent it.
    _chunks: deque[tuple[bytes, float]] = attrs.field(factory=deque, init=False)
    # True once no further chunk will come: the app has ended, or the reader has left.
    _no_more: bool = attrs.field(default=False, init=False)
    # Wakes a reader that waits for a chunk; None while none waits.
    _chunk_came: anyio.Event | None = attrs.field(default=None, init=False)
    # Wakes an app that waits for room in the queue; None while none waits.
    _room_came: anyio.Event | None = attrs.field(default=None, init=False)
    _requests_in: MemoryObjectSendStream[Message] = attrs.field(init=False)
    _requests_out: MemoryObjectReceiveStream[Message] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
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
        if not self._chunks and not self._no_more:
            await self._within_read_timeout(self._next_chunk, missing="no chunk")
        if self._chunks:
            chunk, self.sent_at = self._chunks.popleft()
            if self._room_came is not None:
                self._room_came.set()
                self._room_came = None
            return chunk
        if self.complete:
            return None
        raise self._failure()

    async def _next_chunk(self) -> None:
        """Wait until there is a chunk, or none will come."""
        while not self._chunks and not self._no_more:
            if self._chunk_came is None:
                self._chunk_came = anyio.Event()
            if self._room_came is not None:
                # An app without a buffer waits until a reader waits.
                self._room_came.set()
                self._room_came = None
            await self._chunk_came.wait()

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
        self._chunks.clear()
        self._end_chunks()

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
            self._end_chunks()
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
            await self._hand_over(body)
        else:
            await anyio.lowlevel.checkpoint()
        if not more_body:
            self.complete = True
            self._end_chunks()
            self._pump_scope.cancel()

    async def _hand_over(self, body: bytes) -> None:
        """Put a chunk into the queue, and wake a reader. If the reader is behind, wait for it first."""
        now = anyio.current_time()
        if self._chunks and now - self._chunks[0][1] > _UNSEEN_SECONDS:
            await anyio.lowlevel.checkpoint()
        while (
            len(self._chunks) >= self._max_buffered_chunks and self._chunk_came is None and not self._no_more
        ):
            if self._room_came is None:
                self._room_came = anyio.Event()
            await self._room_came.wait()
        if self._no_more:
            # The reader has left while the app waited.
            self._notice()
            return
        self._chunks.append((body, now))
        if self._chunk_came is not None:
            self._chunk_came.set()
            self._chunk_came = None

    def _end_chunks(self) -> None:
        """Note that no further chunk will come, and wake both sides."""
        self._no_more = True
        for waiting in (self._chunk_came, self._room_came):
            if waiting is not None:
                waiting.set()
        self._chunk_came = self._room_came = None

    def _notice(self) -> None:
        if self.disconnected_at is not None and self.noticed_at is None:
            self.noticed_at = anyio.current_time()
            self._noticed_or_end.set()

    async def _within_read_timeout(self, wait: Callable[[], Awaitable[_Result]], *, missing: str) -> _Result:
        """Wait, at most for the read timeout if there is one. It pauses while the app waits for the caller's request body."""
        if self._read_timeout is None:
            return await wait()
        try:
            with anyio.CancelScope() as self._reading:
                self._set_request_pending(pending=self._request_pending)
                return await wait()
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


async def end(exchanges: Collection[Exchange], *, grace: float) -> None:
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
