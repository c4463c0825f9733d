"""The streamed check of one HTTP response. A probe and a test session both use it."""

import contextlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack

import anyio
import attrs
import httpx
from httpx_sse import aconnect_sse

from cutover.contract import ContractChecker, FailureKind, StreamContract
from cutover.http.outbound import CONNECT_TIMEOUT, describe_failure

_SET_BY_SSE = frozenset({"accept", "cache-control"})
"""Headers that httpx-sse sets as the standard requires (WHATWG HTML 9.2.2)."""
LAST_EVENT_ID = "last-event-id"
"""Name of the header with which a client asks for the events behind the one that it saw last, in lower case."""
CANCELLED_CLOSE_SECONDS = 0.5
"""Seconds that closing a cancelled stream may take: whoever cancels it has something urgent to do."""
HOLD_SECONDS = 15.0
"""Longest time in seconds for which a stream keeps back the last byte of a held request."""


@attrs.frozen(kw_only=True)
class StreamRequest:
    """A request that starts a stream."""

    method: str
    url: str
    """Absolute, or relative to the client's base URL."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Headers by name. The standard's ``accept`` and ``cache-control`` replace the caller's; ``content-length`` is added."""
    body: bytes = b""
    label: str = "stream"
    """Name of the request: httpx gives it to the transport as the extension ``label``, so that a test can inject a fault."""


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


def bounded(contract: StreamContract, deadline: float) -> tuple[StreamContract, float | None]:
    """Return the contract to check by, and the seconds after which the stream is left (None: never).

    A stream with an end must end within ``deadline`` seconds. One without an end is left at that time, which breaks no rule.
    """
    whole = math.inf if contract.endless else deadline
    bounded_contract = attrs.evolve(contract, limits=attrs.evolve(contract.limits, whole=whole))
    return bounded_contract, deadline if contract.endless else None


@attrs.define(eq=False)
class CheckedStream:
    """One stream that a checker checks as it arrives: open it, receive it piece by piece, close it.

    A failure of the network is not raised. It becomes a finding of the checker, and the stream ends. Other errors, such as
    a ``ValueError`` of an app in this process, are raised.
    """

    client: httpx.AsyncClient
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
    was_left: bool = False
    """True once a stream without an end of its own was left."""
    response: httpx.Response | None = None
    _resources: AsyncExitStack = attrs.field(factory=AsyncExitStack, init=False)
    _pieces: AsyncIterator[bytes] | None = None
    last_event_id: str | None = attrs.field(default=None, init=False)
    """The id behind which the last request asked the service to go on; None for the first request."""
    _started: float = 0.0
    _wait_scope: anyio.CancelScope | None = None

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
        self.status, self.headers, self.response = None, (), None
        self.unreachable = self.failure = None
        self.was_left = False
        self.last_event_id = last_event_id
        self.checker.receive_reconnect(elapsed=self.elapsed())
        return await self._connect()

    def leave(self) -> None:
        """End the check of a stream without an end of its own: it is judged as far as it went."""
        self.was_left = True
        self.checker.receive_leave(elapsed=self.elapsed())

    async def _connect(self) -> bool:
        headers: dict[str, str | bytes] = {
            key: value for key, value in self.request.headers.items() if key.lower() not in _SET_BY_SSE
        }
        if self.last_event_id is not None:
            headers = {key: value for key, value in headers.items() if key.lower() != LAST_EVENT_ID}
            # The standard sends the id as UTF-8 (WHATWG HTML 9.2.3), and httpx would encode text as ASCII.
            headers[LAST_EVENT_ID] = self.last_event_id.encode("utf-8", "replace")
        content: bytes | AsyncGenerator[bytes] = self.request.body
        if self.hold is not None:
            content = self._held_body(self.hold)
            # The client may stop reading the body of the request before its end.
            self._resources.push_async_callback(content.aclose)
        connection = aconnect_sse(
            self.client,
            self.request.method,
            self.request.url,
            headers={**headers, "content-length": str(len(self.request.body))},
            content=content,
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT, pool=CONNECT_TIMEOUT),
            extensions={"label": self.request.label},
            follow_redirects=False,
        )
        try:
            with anyio.CancelScope(deadline=self._deadline()) as self._wait_scope:
                self.response = (await self._resources.enter_async_context(connection)).response
        except (
            httpx.ConnectError,
            httpx.ConnectTimeout,
            httpx.PoolTimeout,
            httpx.UnsupportedProtocol,
            httpx.InvalidURL,
            UnicodeError,
        ) as error:
            self.unreachable = f"{self.request.method} {self.request.url}: {describe_failure(error)}"
            self.checker.receive_failure(FailureKind.UNREACHABLE, elapsed=self.elapsed())
            return False
        except (httpx.HTTPError, OSError) as error:
            self._record_break(error)
            return False
        if self.response is None:
            self._record_timeout()
            return False
        self.status, self.headers = self.response.status_code, tuple(self.response.headers.raw)
        self.checker.receive_head(self.status, self.headers, elapsed=self.elapsed())
        self._pieces = self.response.aiter_bytes()
        return True

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body, check it and return it; return None once the stream has ended in any way."""
        if self._pieces is None:
            return None
        piece: bytes | None = None
        ended = False
        try:
            with anyio.CancelScope(deadline=self._deadline()):
                try:
                    piece = await anext(self._pieces)
                except StopAsyncIteration:
                    ended = True
        except (httpx.HTTPError, OSError) as error:
            self._pieces = None
            self._record_break(error)
            return None
        if ended:
            self._pieces = None
            self.checker.receive_eof(elapsed=self.elapsed())
        elif piece is None:
            self._pieces = None
            self._record_timeout()
        else:
            seen = piece if self.gate is None else self.gate(piece)
            self.checker.receive_data(seen, elapsed=self.elapsed())
            if self.progress is not None:
                self.progress.on_data()
                if not self.progress.first_event.is_set() and self.checker.report().event_count:
                    self.progress.first_event.set()
        return piece

    async def aclose(self) -> None:
        """Stop receiving and close the connection."""
        pieces, self._pieces = self._pieces, None
        if pieces is not None:
            # The body is a chain of generators. Closing the outer one leaves the inner ones to the garbage collector, of which trio
            # warns. A cancelled read ends all of them. An error of a stream that is left does not matter.
            with anyio.CancelScope() as scope, contextlib.suppress(Exception):
                scope.cancel()
                while True:
                    await anext(pieces)
        await self._resources.aclose()

    def _deadline(self) -> float:
        """Return the event loop's time at which to stop waiting. A held request gets its hold time on top."""
        if self.hold is not None and not self.hold.released.is_set():
            return self._started + HOLD_SECONDS + (self.checker.next_deadline or math.inf)
        deadline = min(self.checker.next_deadline or math.inf, self.leave_after or math.inf)
        return self._started + deadline

    def _record_break(self, error: Exception) -> None:
        self.failure = describe_failure(error)
        self.checker.receive_failure(FailureKind.RESET, elapsed=self.elapsed())

    def _record_timeout(self) -> None:
        # The deadline may be long past: the wait for an app in this process ends only after its grace period.
        elapsed = min(self.elapsed(), self.checker.next_deadline or math.inf)
        # Without an event there is nothing to judge, and that is no pass.
        if self.leave_after is not None and elapsed >= self.leave_after and self.checker.report().event_count:
            self.was_left = True
            self.checker.receive_leave(elapsed=self.leave_after)
            return
        whole = self.checker.contract.limits.whole
        self.checker.receive_failure(
            FailureKind.DEADLINE if elapsed >= whole else FailureKind.STALL, elapsed=elapsed
        )

    async def _held_body(self, hold: Hold) -> AsyncGenerator[bytes]:
        """Yield the body of the request without its last byte, and that byte after the release."""
        yield self.request.body[:-1]
        hold.in_flight.set()
        with anyio.move_on_after(HOLD_SECONDS):
            await hold.released.wait()
        hold.released.set()
        self._started = anyio.current_time()
        if self._wait_scope is not None:
            self._wait_scope.deadline = self._deadline()
        yield self.request.body[-1:]
