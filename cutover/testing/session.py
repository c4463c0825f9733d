"""StreamSession: one stream that a test reads event by event while its contract is checked."""

import shlex
from collections import deque
from pathlib import Path

import anyio
import attrs
import httpx

from cutover.checking.checked_stream import CheckedStream
from cutover.checking.probe import MAX_CAPTURE_BYTES
from cutover.contract import ContractReport, FailureKind
from cutover.contract.findings import Finding
from cutover.errors import ContractViolation
from cutover.http.asgi.exchange import Exchange
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.http.outbound import CLOSE_SECONDS
from cutover.http.secrets import secrets_of
from cutover.protocols import SHIPPED
from cutover.testing.events import MAX_UNREAD, EventLog, SeenEvent
from cutover.testing.explanation import FailureContext, explain
from cutover.text import printable


@attrs.define(eq=False)
class StreamSession:
    """One stream that a test follows event by event while its contract is checked.

    A background task reads the stream, so a slow test does not change the measured times. A missing event and a broken
    contract both raise `ContractViolation`. Its message shows the rule, the events and a curl command.
    """

    _stream: CheckedStream = attrs.field(repr=False)
    _app: StreamingASGITransport | None = attrs.field(default=None, kw_only=True, repr=False)
    _recordings: Path | None = attrs.field(default=None, kw_only=True, repr=False)
    disconnected: bool = attrs.field(default=False, init=False)
    """True once the test has left the stream before its end with `disconnect`."""
    _ended: bool = attrs.field(default=False, init=False)
    _verified: bool = attrs.field(default=False, init=False, repr=False)
    _app_error: BaseException | None = attrs.field(default=None, init=False)
    _log: EventLog = attrs.field(init=False, repr=False)
    _captured: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _progress: anyio.Event = attrs.field(factory=anyio.Event, init=False, repr=False)
    _space: anyio.Event = attrs.field(factory=anyio.Event, init=False, repr=False)
    _reading: anyio.CancelScope = attrs.field(factory=anyio.CancelScope, init=False, repr=False)

    @_log.default
    def _new_log(self) -> EventLog:
        return EventLog(self._stream.checker.contract)

    @property
    def report(self) -> ContractReport:
        """The report of the check so far. Before the stream has ended, its ``ok`` is False."""
        return self._stream.checker.report()

    @property
    def status(self) -> int | None:
        """The response's status; None before the head came."""
        return self._stream.status

    @property
    def headers(self) -> httpx.Headers:
        """The response's headers; empty before the head came."""
        return httpx.Headers(list(self._stream.headers))

    async def drain(self) -> ContractReport:
        """Read the stream to its end, check the contract, and return the report.

        The wait is bounded: a stream that does not end fails at the ``deadline`` of `stream_contract`.

        Raises:
            ContractViolation: The contract does not hold.
        """
        __tracebackhide__ = True
        while not self._ended:
            self._read_all()
            await self._progress.wait()
        self._read_all()
        self._verify()
        return self.report

    async def expect(self, kind: str, *, within: float | None = None) -> SeenEvent:
        """Wait for the next event of this kind, and return it. Events before it are skipped and not found again.

        Args:
            kind: The chunk's type, the contract's terminator (``[DONE]``), or the event's own type if the data names none.
            within: Seconds to wait from now. Default: until the stream ends or misses a deadline of the contract.

        Raises:
            ContractViolation: The event did not come in time, or the stream ended without it. If the test catches
                this error, leaving the block does not check the contract again.
        """
        __tracebackhide__ = True
        skipped: deque[str] = deque(maxlen=5)
        ended = False
        with anyio.move_on_after(within):
            while not ended:
                ended = self._ended
                for event in self._log.read():
                    if event.kind == kind:
                        self._space.set()
                        return event
                    skipped.append(event.kind)
                self._space.set()
                if not ended:
                    await self._progress.wait()
        expected = f"the event {kind}" if within is None else f"the event {kind} within {within:g} s"
        actual = (", ".join(skipped) or "none") + (", then the end of the stream" if ended else "")
        message = f"expected {expected}, got {actual}"
        raise self._violation(
            Finding(rule="session.expect", message=message, expected=expected, actual=actual)
        )

    async def disconnect(self) -> None:
        """Leave the stream before its end, and wait until it is closed.

        An app in this process gets its grace period to clean up. A violation found so far still fails the test when it
        leaves the block. The missing end of the stream is no violation. After the end of the stream this only skips the
        unread events.
        """
        if not self._ended:
            self.disconnected = True
            self._reading.cancel()
        while not self._ended:
            await self._progress.wait()
        self._read_all()

    def app_noticed(self, *, within: float) -> bool:
        """Return True if the app saw the disconnect within this many seconds after it.

        An app sees a disconnect when ``receive()`` returns ``http.disconnect`` or ``send()`` raises OSError.

        Raises:
            RuntimeError: The test did not disconnect before the end of the stream, or the app does not run in this process.
        """
        exchange = self._exchange
        if not self.disconnected or exchange is None:
            raise RuntimeError(
                "app_noticed() needs a disconnect() before it, and an app in process (an ASGI app and not a URL)"
            )
        if exchange.disconnected_at is None or exchange.noticed_at is None:
            return False
        return exchange.noticed_at - exchange.disconnected_at <= within

    async def run(self) -> None:
        """Read the stream until it ends or the test leaves. An error of the network or of the app is kept and not raised."""
        try:
            with self._reading:
                await self._receive_all()
        except (KeyboardInterrupt, SystemExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:  # noqa: BLE001  the app's error, even pytest.fail(), becomes the cause
            self._app_error = error
            self._stream.checker.receive_failure(FailureKind.RESET, elapsed=self._stream.elapsed())
        finally:
            # This time limit does not shorten the grace period of an app in this process: the transport shields it.
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
                await self._stream.aclose()
            self._log.receive_eof(elapsed=self._stream.elapsed())
            self._ended = True
            self._notify()

    async def finish(self) -> None:
        """Check the contract if that was not done yet: read the rest of the stream first, unless the test has disconnected."""
        if self.disconnected:
            self._verify()
        elif not self._verified:
            await self.drain()

    def stop(self) -> None:
        """Stop reading the stream."""
        self._reading.cancel()

    async def _receive_all(self) -> None:
        if not await self._stream.open():
            return
        self._notify()
        while (piece := await self._stream.receive()) is not None:
            self._log.receive_data(piece, elapsed=self._stream.elapsed())
            self._captured += piece[: MAX_CAPTURE_BYTES - len(self._captured)]
            self._notify()
            while len(self._log.unread) > MAX_UNREAD:
                self._space = anyio.Event()
                await self._space.wait()

    def _notify(self) -> None:
        progress, self._progress = self._progress, anyio.Event()
        progress.set()

    def _read_all(self) -> None:
        for _ in self._log.read():
            pass
        self._space.set()

    @property
    def _exchange(self) -> Exchange | None:
        if self._app is not None:
            return self._app.latest
        response = self._stream.response
        return None if response is None else response.extensions.get("asgi_exchange")

    def _verify(self) -> None:
        __tracebackhide__ = True
        if self.report.violations and not self._verified:
            raise self._violation()
        self._verified = True

    def _violation(self, *more: Finding) -> ContractViolation:
        """Return the error to raise: for the violations of the contract, then for ``more``, the event that did not come.

        Save the body too, and mark the contract as checked, so that leaving the block raises no second error.
        """
        self._verified = True
        report, request, exchange = self.report, self._stream.request, self._exchange
        findings = (*report.violations, *more)
        app_error = self._app_error or (exchange.error if exchange is not None else None)
        url = self._stream.client.build_request(request.method, request.url).url
        context = FailureContext(
            findings=findings,
            report=report,
            method=request.method,
            url=str(url.copy_with(userinfo=b"")),
            in_process=self._app is not None,
            request_headers=request.headers,
            request_body=request.body,
            status=self.status,
            unreachable=self._stream.unreachable,
            response_headers=self._stream.headers,
            events=self._log.kept(),
            app_error=app_error,
            replay=self._record(),
        )
        violation = ContractViolation(explain(context), findings=findings)
        violation.__cause__ = app_error
        return violation

    def _record(self) -> str | None:
        """Save the body and return a command or hint to check it again; None without a folder or body, or if saving fails."""
        if self._recordings is None or not self._captured:
            return None
        try:
            self._recordings.mkdir(parents=True, exist_ok=True)
            path = self._recordings / f"stream-{len(list(self._recordings.iterdir()))}.sse"
            path.write_bytes(secrets_of(self._stream.request.headers).mask(bytes(self._captured)))
        except OSError:
            return None
        contract, kept, received = self._stream.checker.contract, len(self._captured), self.report.byte_count
        part = "" if kept == received else f"  # the first {kept} of {received} bytes"
        shipped = SHIPPED.get(contract.name)
        if shipped is None or attrs.evolve(shipped.strict(), limits=contract.limits) != contract:
            return f"run check_recording on {path} with the contract {printable(contract.name)}{part}"
        return shlex.join(["cutover", "check", "--contract", contract.name, str(path)]) + part
