"""One stream that a checker checks as it comes, read from a gevent socket: no event loop, and no body is kept.

geventhttpclient reads a body in two ways, and neither is enough here: `read(n)` waits until n bytes have come, and
lines come late. So `GeventConnection` reads the socket itself, and takes three things of geventhttpclient that have
no public name. The extra `locust` therefore pins the version, and a test fails if a new version changes one of them.

Each stream has a connection of its own. An idle connection may be closed by the service at the moment at which it is
used again, and that would look like a broken stream.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

import attrs
import gevent
from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPParseError, HTTPResponse

from cutover.checking.waiting import give_up, wait_until
from cutover.contract import ContractChecker, FailureKind
from cutover.http.decoding import Decoder, DecodingError, decoder_for

_NO_CONNECTION: Final = (OSError, RuntimeError, UnicodeError)
"""Errors of a name that cannot be found, of a refused connection, of TLS, and of a proxy that refuses."""
_BROKEN: Final = (OSError, HTTPParseError)
"""Errors of a connection that broke, and of a response that is no HTTP."""
_BLOCK: Final = 64 * 1024
"""Largest number of bytes that one read takes."""
_READS: Final = 32
"""Reads after which the other streams get their turn. A read that finds bytes at once does not wait, and so lets nobody run."""
_FINAL_STATUS: Final = 200
"""The lowest status of a final response. Lower ones are interim responses (RFC 9110 15.2)."""

Result = TypeVar("Result")


class _LateError(Exception):
    """A deadline of the contract passed while the stream was waited for."""


class _ResponseParser(HTTPResponse):
    """geventhttpclient's parser of a response, without a socket. Bytes that come after the response are left alone."""

    is_over = False
    """True once the final response is complete."""

    def _on_message_complete(self) -> None:
        super()._on_message_complete()
        self.is_over = self.get_code() >= _FINAL_STATUS

    def _on_message_begin(self) -> None:
        if self.is_over:
            # The parser would forget the head for the sake of a second response, which nobody asked for.
            raise HTTPParseError("bytes after the response")
        super()._on_message_begin()

    def take_body(self) -> bytes:
        """Return the bytes of the body that have come since the last call."""
        # Private: the public `read` belongs to a class that reads the socket by itself.
        data = bytes(self._body_buffer)
        self._body_buffer.clear()
        return data


@attrs.define(eq=False)
class GeventConnection:
    """A new connection for one request. Its methods wait as gevent waits: other greenlets run meanwhile."""

    client: HTTPClient
    """The client whose address, TLS and proxy are used. Its own connections are left alone."""
    method: str
    target: str
    """The path and query of the request, percent-encoded."""
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    _head: bytes = attrs.field(init=False, repr=False)
    _parser: _ResponseParser = attrs.field(init=False)
    # A socket of gevent, plain or with TLS; None before the connection is made.
    _socket: Any = attrs.field(default=None, init=False)
    # The error of the parser that ends the body once the bytes before it are taken; None without one.
    _error: HTTPParseError | None = attrs.field(default=None, init=False)
    _reads: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = _ResponseParser(method=self.method)
        # Private: the public `request` sends a second time when the service closes the connection without an answer.
        head = self.client._build_request(self.method, self.target, self.body, dict(self.headers))  # noqa: SLF001
        self._head = head.encode("latin-1")

    def connect(self) -> None:
        """Make the connection. It raises one of `_NO_CONNECTION` if there is none."""
        # Private: the public `get_socket` may give an idle connection.
        self._socket = self.client._connection_pool._create_socket()  # noqa: SLF001
        # The deadlines are the contract's. The client's own timeout would end a stream that the contract allows.
        self._socket.settimeout(None)

    def send(self) -> None:
        """Send the request. If the service closes the connection meanwhile, its answer may have come all the same."""
        with suppress(OSError):
            self._socket.sendall(self._head + self.body)

    def receive_head(self) -> tuple[int, Sequence[tuple[bytes, bytes]]]:
        """Wait for the head, and return the status and the headers. It raises one of `_BROKEN` if none comes."""
        parser = self._parser
        while not (parser.headers_complete and parser.get_code() >= _FINAL_STATUS):
            if self._error is not None:
                raise self._error
            self._read()
        return parser.get_code(), [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in parser.info().items()
        ]

    def receive(self) -> bytes | None:
        """Wait for the next bytes of the body and return them; None at its end. It raises one of `_BROKEN` if it breaks."""
        parser = self._parser
        while True:
            if data := parser.take_body():
                return data
            if parser.is_over:
                return None
            if self._error is not None:
                raise self._error
            self._read()

    def _read(self) -> None:
        """Read the socket once, and hand the bytes to the parser, which also learns of the end of the connection."""
        self._reads += 1
        if self._reads % _READS == 0:
            gevent.sleep(0)
        data = self._socket.recv(_BLOCK)
        try:
            self._parser.feed(data)
            if not data and not self._parser.is_over:
                # A connection that closes before its first byte is no error for the parser.
                raise HTTPParseError("connection closed")  # noqa: TRY301
        except HTTPParseError as error:
            self._error = error

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()


@attrs.define(eq=False)
class GeventStream:
    """One stream that is read and checked to its end. A failure of the network becomes a finding, as in `check_stream`."""

    connection: GeventConnection
    checker: ContractChecker
    leave_after: float | None = None
    """Seconds after which a stream without an end of its own is left, and judged as far as it went. None: it is never left."""
    status: int | None = attrs.field(default=None, init=False)
    """The status of the response; None until the head has come."""
    failure: str | None = attrs.field(default=None, init=False)
    """The reason for which the connection failed, in the words of the client; None if it did not fail."""
    _started: float = attrs.field(default=0.0, init=False)
    _decoder: Decoder | None = attrs.field(default=None, init=False)

    def run(self) -> None:
        """Send the request, and check the response until it ends. Whoever kills the greenlet ends it at once."""
        self._started = time.perf_counter()
        try:
            if self._connect():
                self._receive_head()
                while (data := self._wait(self.connection.receive)) is not None:
                    self._check(data)
                if self._decoder is not None:
                    self._decoder.finish()
                self.checker.receive_eof(elapsed=self._elapsed())
        except _LateError:
            give_up(self.checker, self.leave_after, elapsed=self._elapsed())
        except DecodingError as error:
            self._fail(FailureKind.DECODING, error)
        except _BROKEN as error:
            self._fail(FailureKind.RESET, error)
        finally:
            self.connection.close()

    def _connect(self) -> bool:
        """Return True once there is a connection."""
        try:
            self._wait(self.connection.connect)
        except _NO_CONNECTION as error:
            self._fail(FailureKind.UNREACHABLE, error)
            return False
        return True

    def _receive_head(self) -> None:
        """Send the request, and check the head of the response."""
        self._wait(self.connection.send)
        self.status, headers = self._wait(self.connection.receive_head)
        self.checker.receive_head(self.status, headers, elapsed=self._elapsed())
        self._decoder = decoder_for(headers)

    def _check(self, data: bytes) -> None:
        """Check the next bytes of the body."""
        pieces = iter((data,)) if self._decoder is None else self._decoder.decode(data)
        for number, piece in enumerate(pieces):
            if number:
                # A few bytes can become gigabytes: the deadline holds meanwhile, and the other streams get their turn.
                self._wait(gevent.sleep)
            self.checker.receive_data(piece, elapsed=self._elapsed())

    def _elapsed(self) -> float:
        """Return the seconds since the request began, with the time to connect."""
        return time.perf_counter() - self._started

    def _wait(self, action: Callable[[], Result]) -> Result:
        """Return the result of an action that may wait, but not beyond the deadline: then it raises `_LateError`."""
        seconds = wait_until(self.checker, self.leave_after) - self._elapsed()
        if seconds > 0:
            # The loop's clock stands still while code runs. A timer that starts by an old time would end too early.
            gevent.get_hub().loop.update_now()
            with gevent.Timeout(None if seconds == math.inf else seconds, False):  # noqa: FBT003  gevent's own flag
                return action()
        raise _LateError

    def _fail(self, kind: FailureKind, error: Exception) -> None:
        """End the check of a stream whose connection failed."""
        known = error.strerror if isinstance(error, OSError) else None
        # The first argument of the parser's error is its text; the second one is a number.
        self.failure = known or next(map(str, error.args), type(error).__name__)
        self.checker.receive_failure(kind, elapsed=self._elapsed(), detail=self.failure)
