"""One stream as it comes, under a checker: what a probe and a session are both made of."""

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack

import anyio
import attrs
import httpx
from httpx_sse import aconnect_sse

from cutover.contract import ContractChecker, FailureKind
from cutover.http.outbound import CONNECT_TIMEOUT, describe_failure

_SET_BY_SSE = frozenset({"accept", "cache-control"})
"""Headers that httpx-sse sets as the standard wants them (WHATWG HTML 9.2.2)."""
CLOSE_SECONDS = 5.0
"""How long closing a connection may take before it is left to the client."""
HOLD_SECONDS = 15.0
"""How long the last byte of a held request is kept back at most."""


@attrs.frozen(kw_only=True)
class StreamRequest:
    """A request that starts a stream."""

    method: str
    url: str
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    body: bytes = b""
    label: str = "stream"
    """Name of the request, for fault injection and logs."""


@attrs.define(eq=False)
class Hold:
    """Keeps a request in flight: its head and body are sent, but for the last byte, until it is released."""

    in_flight: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when everything but the last byte is on its way."""
    released: anyio.Event = attrs.field(factory=anyio.Event)


@attrs.define(eq=False)
class CheckedStream:
    """One stream as it comes, under a checker: open it, receive it piece by piece, close it.

    Nothing of the network is raised: what fails becomes a finding of the checker, and the stream is over.
    """

    client: httpx.AsyncClient
    request: StreamRequest
    checker: ContractChecker
    hold: Hold | None = None
    status: int | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()
    unreachable: str | None = None
    """Why there was no connection."""
    failure: str | None = None
    """How the connection broke, in the words of the client."""
    response: httpx.Response | None = None
    _opened: AsyncExitStack = attrs.field(factory=AsyncExitStack, init=False)
    _pieces: AsyncIterator[bytes] | None = None
    _started: float = 0.0
    _waiting: anyio.CancelScope | None = None

    def elapsed(self) -> float:
        """Return the seconds since the request was sent, its last byte included."""
        return anyio.current_time() - self._started

    async def open(self) -> bool:
        """Send the request and check the head; return whether there is a body to receive."""
        self._started = anyio.current_time()
        headers = {
            key: value for key, value in self.request.headers.items() if key.lower() not in _SET_BY_SSE
        }
        content: bytes | AsyncGenerator[bytes] = self.request.body
        if self.hold is not None:
            content = self._held_back(self.hold)
            self._opened.push_async_callback(content.aclose)  # it may not be read to its end
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
            with anyio.CancelScope(deadline=self._deadline()) as self._waiting:
                self.response = (await self._opened.enter_async_context(connection)).response
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
            self._broke(error)
            return False
        if self.response is None:
            self._late()
            return False
        self.status, self.headers = self.response.status_code, tuple(self.response.headers.raw)
        self.checker.receive_head(self.status, self.headers, elapsed=self.elapsed())
        self._pieces = self.response.aiter_bytes()
        return True

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body and check it; None when the stream is over, however it ended."""
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
            self._broke(error)
            return None
        if ended:
            self._pieces = None
            self.checker.receive_eof(elapsed=self.elapsed())
        elif piece is None:
            self._pieces = None
            self._late()
        else:
            self.checker.receive_data(piece, elapsed=self.elapsed())
        return piece

    async def aclose(self) -> None:
        """Close the connection."""
        self._pieces = None
        await self._opened.aclose()

    def _deadline(self) -> float:
        """Return when to give up waiting, on the event loop's clock; a held request is given its hold on top."""
        if self.hold is not None and not self.hold.released.is_set():
            return self._started + HOLD_SECONDS + (self.checker.next_deadline or math.inf)
        return self._started + (self.checker.next_deadline or math.inf)

    def _broke(self, error: Exception) -> None:
        self.failure = describe_failure(error)
        self.checker.receive_failure(FailureKind.RESET, elapsed=self.elapsed())

    def _late(self) -> None:
        # Not the time now: to cancel the wait may have taken an app in process its grace period.
        elapsed = min(self.elapsed(), self.checker.next_deadline or math.inf)
        whole = self.checker.contract.limits.whole
        self.checker.receive_failure(
            FailureKind.DEADLINE if elapsed >= whole else FailureKind.STALL, elapsed=elapsed
        )

    async def _held_back(self, hold: Hold) -> AsyncGenerator[bytes]:
        """Give the body, its last byte when it is let go."""
        yield self.request.body[:-1]
        hold.in_flight.set()
        with anyio.move_on_after(HOLD_SECONDS):
            await hold.released.wait()
        hold.released.set()
        self._started = anyio.current_time()
        if self._waiting is not None:
            self._waiting.deadline = self._deadline()
        yield self.request.body[-1:]
