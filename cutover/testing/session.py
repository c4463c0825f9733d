"""StreamSession: one stream under contract, followed event by event."""

import shlex
from collections import deque
from pathlib import Path

import anyio
import attrs
import httpx

from cutover.checking.checked_stream import CLOSE_SECONDS, CheckedStream
from cutover.checking.probe import MAX_CAPTURE_BYTES
from cutover.contract import ContractReport, FailureKind
from cutover.contract.findings import Finding
from cutover.errors import ContractViolation
from cutover.http.asgi.exchange import Exchange
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.protocols import SHIPPED
from cutover.testing.events import MAX_UNREAD, EventLog, SeenEvent
from cutover.testing.explanation import Told, explain, secrets_of
from cutover.text import printable


@attrs.define(eq=False)
class StreamSession:
    """One stream, read in the background as it comes, so that its times are its own and not the test's.

    A failed wait and a broken contract both raise `ContractViolation`, whose message explains itself.
    """

    _stream: CheckedStream = attrs.field(repr=False)
    _app: StreamingASGITransport | None = attrs.field(default=None, kw_only=True, repr=False)
    _recordings: Path | None = attrs.field(default=None, kw_only=True, repr=False)
    disconnected: bool = attrs.field(default=False, init=False)
    """The test has left the stream before its end."""
    _over: bool = attrs.field(default=False, init=False)
    _judged: bool = attrs.field(default=False, init=False, repr=False)
    _app_error: BaseException | None = attrs.field(default=None, init=False)
    _log: EventLog = attrs.field(init=False, repr=False)
    _captured: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    _news: anyio.Event = attrs.field(factory=anyio.Event, init=False, repr=False)
    _room: anyio.Event = attrs.field(factory=anyio.Event, init=False, repr=False)
    _reading: anyio.CancelScope = attrs.field(factory=anyio.CancelScope, init=False, repr=False)

    @_log.default
    def _new_log(self) -> EventLog:
        return EventLog(self._stream.checker.contract)

    @property
    def report(self) -> ContractReport:
        """What the contract says of the stream so far; not ok before its end."""
        return self._stream.checker.report()

    @property
    def status(self) -> int | None:
        """The response's status; None before it came."""
        return self._stream.status

    @property
    def headers(self) -> httpx.Headers:
        """The response's headers; empty before they came."""
        return httpx.Headers(list(self._stream.headers))

    async def drain(self) -> ContractReport:
        """Read the stream to its end, and hold it to its contract.

        An endless stream ends here at the deadline.

        Raises:
            ContractViolation: The contract does not hold.
        """
        __tracebackhide__ = True
        while not self._over:
            self._read_all()
            await self._news.wait()
        self._read_all()
        self._verify()
        return self.report

    async def expect(self, kind: str, *, within: float | None = None) -> SeenEvent:
        """Wait for an event of this kind, from the first one not looked at yet; those before it are passed over.

        Args:
            kind: The chunk's type, the contract's terminator (``[DONE]``), or the event's own type where its data names none.
            within: Seconds from now; without it the contract's own deadlines end the wait.

        Raises:
            ContractViolation: It did not come.
        """
        __tracebackhide__ = True
        passed: deque[str] = deque(maxlen=5)
        over = False
        with anyio.move_on_after(within):
            while not over:
                over = self._over
                for event in self._log.read():
                    if event.kind == kind:
                        self._room.set()
                        return event
                    passed.append(event.kind)
                self._room.set()
                if not over:
                    await self._news.wait()
        expected = f"the event {kind}" if within is None else f"the event {kind} within {within:g} s"
        actual = (", ".join(passed) or "none") + (", and then the end" if over else "")
        message = f"expected {expected}, came {actual}"
        raise self._violation(
            Finding(rule="session.expect", message=message, expected=expected, actual=actual)
        )

    async def disconnect(self) -> None:
        """Leave the stream before its end; an app in process has its grace period to clean up.

        What was found until then still counts, that there was no end does not.
        """
        if not self._over:
            self.disconnected = True
            self._reading.cancel()
        while not self._over:
            await self._news.wait()
        self._read_all()

    def app_noticed(self, *, within: float) -> bool:
        """Whether the app saw the disconnect within so many seconds of it: by ``receive()``, or by ``send()`` failing.

        Raises:
            RuntimeError: There was no disconnect, or the app does not run in this process.
        """
        exchange = self._exchange
        if not self.disconnected or exchange is None:
            raise RuntimeError(
                "only after disconnect(), and only of an app in process, is it known what the app noticed"
            )
        if exchange.disconnected_at is None or exchange.noticed_at is None:
            return False
        return exchange.noticed_at - exchange.disconnected_at <= within

    async def run(self) -> None:
        """Read the stream to its end or to a disconnect; raises nothing of the network or of the app."""
        try:
            with self._reading:
                await self._receive_all()
        except (KeyboardInterrupt, SystemExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:  # noqa: BLE001  what an app in process raises, pytest's own outcomes too, is told as the cause
            self._app_error = error
            self._stream.checker.receive_failure(FailureKind.RESET, elapsed=self._stream.elapsed())
        finally:
            # An app in process is given its grace period whatever this says: the transport shields it.
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
                await self._stream.aclose()
            self._log.receive_eof(elapsed=self._stream.elapsed())
            self._over = True
            self._tell()

    async def finish(self) -> None:
        """Hold the stream to its contract, unless that was done: what the test left unread counts, too."""
        if self.disconnected:
            self._verify()
        elif not self._judged:
            await self.drain()

    def stop(self) -> None:
        """Read no more."""
        self._reading.cancel()

    async def _receive_all(self) -> None:
        if not await self._stream.open():
            return
        self._tell()
        while (piece := await self._stream.receive()) is not None:
            self._log.receive_data(piece, elapsed=self._stream.elapsed())
            self._captured += piece[: MAX_CAPTURE_BYTES - len(self._captured)]
            self._tell()
            while len(self._log.unread) > MAX_UNREAD:
                self._room = anyio.Event()
                await self._room.wait()

    def _tell(self) -> None:
        news, self._news = self._news, anyio.Event()
        news.set()

    def _read_all(self) -> None:
        for _ in self._log.read():
            pass
        self._room.set()

    @property
    def _exchange(self) -> Exchange | None:
        if self._app is not None:
            return self._app.latest
        response = self._stream.response
        return None if response is None else response.extensions.get("asgi_exchange")

    def _verify(self) -> None:
        __tracebackhide__ = True
        if self.report.violations and not self._judged:
            raise self._violation()
        self._judged = True

    def _violation(self, *more: Finding) -> ContractViolation:
        """Make the error; what already broke the contract stands before what was waited for in vain."""
        self._judged = True
        report, request, exchange = self.report, self._stream.request, self._exchange
        findings = (*report.violations, *more)
        app_error = self._app_error or (exchange.error if exchange is not None else None)
        asked = self._stream.client.build_request(request.method, request.url).url
        told = Told(
            findings=findings,
            report=report,
            method=request.method,
            url=str(asked.copy_with(userinfo=b"")),
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
        violation = ContractViolation(explain(told), findings=findings)
        violation.__cause__ = app_error
        return violation

    def _record(self) -> str | None:
        """Keep what came, for another look; where that cannot be done, the failure is told without."""
        if self._recordings is None or not self._captured:
            return None
        try:
            self._recordings.mkdir(parents=True, exist_ok=True)
            path = self._recordings / f"stream-{len(list(self._recordings.iterdir()))}.sse"
            path.write_bytes(secrets_of(self._stream.request.headers).mask(bytes(self._captured)))
        except OSError:
            return None
        contract, kept, came = self._stream.checker.contract, len(self._captured), self.report.byte_count
        part = "" if kept == came else f"  # the first {kept} of {came} bytes"
        shipped = SHIPPED.get(contract.name)
        if shipped is None or attrs.evolve(shipped.strict(), limits=contract.limits) != contract:
            return f"check_recording of {path}, with the contract {printable(contract.name)}{part}"
        return shlex.join(["cutover", "check", "--contract", contract.name, str(path)]) + part
