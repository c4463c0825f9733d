"""The streamed check of one HTTP response. A probe and a test session both use it."""

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import contextmanager
from types import AsyncGeneratorType

import anyio
import attrs

from cutover.checking.waiting import give_up, wait_until
from cutover.contract import ContractChecker, FailureKind
from cutover.http.asgi.exchange import Exchange
from cutover.http.connection import OpenStream, StreamClient, StreamFailure, StreamRequest, reader_of
from cutover.http.secrets import mask_urls

LAST_EVENT_ID = "last-event-id"
"""Name of the header with which a client asks for the events behind the one that it saw last, in lower case."""
CANCELLED_CLOSE_SECONDS = 0.5
"""Seconds that closing a cancelled stream may take: whoever cancels it has something urgent to do."""
_SLACK = 1 / 8
"""Part of the contract's gap by which a wait for an event may end late, so that its timer is moved seldom."""
HOLD_SECONDS = 15.0
"""Longest time in seconds for which a stream keeps back the last byte of a held request."""


@attrs.define(eq=False)
class Hold:
    """A hold on one request: the stream keeps back the last byte of its body until the release, at most for ``HOLD_SECONDS``.

    An empty body has no last byte to keep back.
    """

    in_flight: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when everything but the last byte was handed over for sending. ``probe_stream`` also sets it at the end of the request."""
    released: anyio.Event = attrs.field(factory=anyio.Event)
    """Set by the owner of the hold, or after ``HOLD_SECONDS`` by the stream. The last byte is then sent."""


@attrs.define(eq=False)
class Progress:
    """The progress of one stream, for another task that waits for it."""

    first_event: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when the first event has come. ``probe_stream`` also sets it at the end of the request."""
    on_data: Callable[[], None] = lambda: None
    """Called for each piece of the body."""


@attrs.define(eq=False)
class CheckedStream:
    """One stream that a checker checks as it arrives: open it, receive it piece by piece `in_time`, close it.

    A failure of the network is not raised. It becomes a finding of the checker, and the stream ends. Other errors, such as
    a ``ValueError`` of an app in this process, are raised.
    """

    client: StreamClient
    request: StreamRequest
    checker: ContractChecker
    hold: Hold | None = None
    progress: Progress | None = None
    leave_after: float | None = None
    """Seconds after which a stream without an end of its own is left, and judged as far as it went. None: it is never left."""
    gate: Callable[[bytes], bytes] | None = None
    """Returns the part of a piece of the body that the checker sees. None: it sees every piece."""
    status: int | None = None
    """Status of the response; None until the head has come."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    unreachable: str | None = None
    """Reason why no connection was made; None if a connection was made, or a deadline of the contract passed first."""
    failure: str | None = None
    """Reason why the connection broke or the body could not be decompressed; None without such a failure."""
    failed_by: BaseException | None = attrs.field(default=None, init=False)
    """The error behind ``unreachable`` or ``failure``, of the client's own type; None without one."""
    was_left: bool = False
    """True once a stream without an end of its own was left."""
    exchange: Exchange | None = attrs.field(default=None, init=False)
    """The latest exchange with an app in this process; None without one."""
    arrived: float = attrs.field(default=0.0, init=False)
    """Seconds from sending the request to the latest piece of the body: to its sending, if an app in this process sent it."""
    last_event_id: str | None = attrs.field(default=None, init=False)
    """The id behind which the last request asked the service to go on; None for the first request."""
    _response: OpenStream | None = attrs.field(default=None, init=False)
    # Waits for the next piece of the body; None before the body and after its end.
    _receive: Callable[[], Awaitable[bytes | None]] | None = attrs.field(default=None, init=False)
    _request_body: AsyncGenerator[bytes] | None = attrs.field(default=None, init=False)
    _started: float = attrs.field(default=0.0, init=False)
    # The scope of the wait for the head, or for the body.
    _wait_scope: anyio.CancelScope | None = attrs.field(default=None, init=False)
    # The time at which the wait for the body stops, as far as the scope knows it, in seconds since the request was sent.
    _granted: float = attrs.field(default=math.inf, init=False)

    def elapsed(self) -> float:
        """Return the seconds since ``open`` was called; after the release of a held request, the seconds since the release."""
        return anyio.current_time() - self._started

    async def open(self) -> bool:
        """Send the request, check the head, and return True; return False if no head came."""
        self._started = anyio.current_time()
        return await self._connect()

    async def reopen(self, last_event_id: str) -> bool:
        """Send the request again for the events behind this id, check the head, and return True; return False if no head came.

        The first connection is closed before. The checker goes on over the join, and times still count from the first request.
        """
        await self.aclose()
        self.status, self.headers = None, ()
        self.unreachable = self.failure = self.failed_by = None
        self.was_left = False
        self.last_event_id = last_event_id
        self.checker.receive_reconnect(elapsed=self.elapsed())
        return await self._connect()

    def leave(self) -> None:
        """End the check of a stream without an end of its own: it is judged as far as it went."""
        self.was_left = True
        self.checker.receive_leave(elapsed=self.elapsed())

    async def _connect(self) -> bool:
        headers: dict[str, str | bytes] = dict(self.request.headers)
        if self.last_event_id is not None:
            headers = {key: value for key, value in headers.items() if key.lower() != LAST_EVENT_ID}
            # The standard sends the id as UTF-8 (WHATWG HTML 9.2.3), and httpx would encode text as ASCII.
            headers[LAST_EVENT_ID] = self.last_event_id.encode("utf-8", "replace")
        headers["content-length"] = str(len(self.request.body))
        content: bytes | AsyncGenerator[bytes] = self.request.body
        if self.hold is not None:
            content = self._request_body = self._held_body(self.hold)
        try:
            with anyio.CancelScope(deadline=self._started + self._deadline()) as self._wait_scope:
                self._response = await self.client.open(
                    self.request, headers=headers, content=content, on_exchange=self._note_exchange
                )
        except StreamFailure as failure:
            self._record_failure(failure)
            return False
        finally:
            self._wait_scope = None
        if self._response is None:
            self.was_left = give_up(self.checker, self.leave_after, elapsed=self.elapsed())
            return False
        self.status, self.headers = self._response.status, self._response.headers
        self.checker.is_direct = self._response.exchange is not None
        self.checker.receive_head(self.status, self.headers, elapsed=self.elapsed())
        try:
            self._receive = reader_of(self._response)
        except StreamFailure as failure:
            self._record_failure(failure)
        return True

    @contextmanager
    def in_time(self) -> Generator[None]:
        """Hold the calls of `receive` in this block to the deadlines of the contract. At a missed one, the block and the stream end.

        One scope serves all pieces, and its deadline moves seldom: a scope for each piece would cost more than the check. So a silent
        stream is left up to an eighth of the contract's gap late. The finding states the exact time.
        """
        self._granted = math.inf
        with anyio.CancelScope() as self._wait_scope:
            self._move_deadline()
            yield
        was_late, self._wait_scope = self._wait_scope.cancelled_caught, None
        if was_late and self._receive is not None:
            self._receive = None
            self.was_left = give_up(self.checker, self.leave_after, elapsed=self.elapsed())

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body, check it and return it; return None once the stream has ended in any way.

        Call it in a block of `in_time`.
        """
        if self._receive is None:
            return None
        try:
            piece = await self._receive()
        except StreamFailure as failure:
            self._receive = None
            self._record_failure(failure)
            return None
        if piece is None:
            self._receive = None
            self.checker.receive_eof(elapsed=self.elapsed())
            return None
        exchange = self._response.exchange if self._response is not None else None
        arrived = (anyio.current_time() if exchange is None else exchange.sent_at) - self._started
        # What an app sent before a pause of the reader counts as sent at the end of the pause.
        self.arrived = max(arrived, self.arrived)
        self.checker.receive_data(piece if self.gate is None else self.gate(piece), elapsed=self.arrived)
        left, gap = self._granted - self.arrived, self.checker.contract.limits.event_gap
        if left < gap or left > gap + _SLACK * gap:
            self._move_deadline()
        if self.progress is not None:
            self.progress.on_data()
            if not self.progress.first_event.is_set() and self.checker.report().event_count:
                self.progress.first_event.set()
        return piece

    @contextmanager
    def paused(self) -> Generator[None]:
        """Take the time of this block out of the times of the stream: its reader does not read, and the stream has no part in that.

        Use it between two calls of `receive`, in a block of `in_time`.
        """
        began, scope = anyio.current_time(), self._wait_scope
        if scope is not None:
            scope.deadline = math.inf
        try:
            yield
        finally:
            self._started += anyio.current_time() - began
            if scope is not None:
                scope.deadline = self._started + self._granted

    async def settle(self, seconds: float) -> BaseException | None:
        """Wait until an app in this process has ended, at most for so many seconds; return its error, or None without one.

        Only after the whole response is there something to wait for: the app may have background tasks to do. An app whose client
        has left has ended by then, or was cancelled. The error that broke the stream is a finding already.
        """
        if self.exchange is None or self.checker.report().interrupted is not None:
            return None
        if self.exchange.complete:
            with anyio.move_on_after(seconds):
                await self.exchange.finished()
        return self.exchange.error

    async def aclose(self) -> None:
        """Stop receiving and close the connection."""
        self._receive = None
        response, self._response = self._response, None
        content, self._request_body = self._request_body, None
        try:
            if response is not None:
                await response.aclose()
        finally:
            if isinstance(content, AsyncGeneratorType) and not content.ag_running:
                # The client may have stopped reading the body of the request before its end. A task of the client that still
                # reads it was cancelled, and closes it.
                await content.aclose()

    def _note_exchange(self, exchange: Exchange) -> None:
        self.exchange = exchange

    def _deadline(self) -> float:
        """Return the time at which to stop waiting, in seconds since the request was sent. A held request gets its hold time on top."""
        if self.hold is not None and not self.hold.released.is_set():
            return HOLD_SECONDS + (self.checker.next_deadline or math.inf)
        return wait_until(self.checker, self.leave_after)

    def _move_deadline(self) -> None:
        """Give the wait the time that the contract gives: a little more for a gap between events, but never more for the whole."""
        if self._wait_scope is None:
            return
        due, limits = self._deadline(), self.checker.contract.limits
        if due == self._granted:
            return
        if self._granted < due and self._granted < math.inf:
            due = max(due, min(due + _SLACK * limits.event_gap, limits.whole, self.leave_after or math.inf))
        self._granted = due
        self._wait_scope.deadline = self._started + due

    def _record_failure(self, failure: StreamFailure) -> None:
        self.failed_by = failure.__cause__
        if failure.kind is FailureKind.UNREACHABLE:
            self.unreachable = f"{self.request.method} {mask_urls(self.request.url)}: {failure.reason}"
        else:
            self.failure = failure.reason
        self.checker.receive_failure(failure.kind, elapsed=self.elapsed(), detail=failure.reason)

    async def _held_body(self, hold: Hold) -> AsyncGenerator[bytes]:
        """Yield the body of the request without its last byte, and that byte after the release."""
        yield self.request.body[:-1]
        hold.in_flight.set()
        with anyio.move_on_after(HOLD_SECONDS):
            await hold.released.wait()
        hold.released.set()
        self._started = anyio.current_time()
        if self._wait_scope is not None:
            self._granted = self._deadline()
            self._wait_scope.deadline = self._started + self._granted
        yield self.request.body[-1:]
