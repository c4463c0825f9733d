"""StreamSession: one stream that a test reads event by event while its contract is checked.

This module is long because reading, leaving and resuming share the state of one connection.
"""

import enum
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
from anyio.abc import TaskGroup

from cutover.checking.checked_stream import LAST_EVENT_ID, CheckedStream
from cutover.checking.probe import MAX_CAPTURE_BYTES
from cutover.contract import ContractReport, FailureKind
from cutover.contract.checker import NO_CONTENT
from cutover.contract.findings import Finding
from cutover.errors import ContractViolation, named
from cutover.http.outbound import CLOSE_SECONDS
from cutover.http.secrets import secrets_of
from cutover.testing.events import MAX_UNREAD, EventLog
from cutover.testing.explanation import FailureContext, explain
from cutover.testing.readers import Cursor
from cutover.testing.recordings import end_of_last_event, save_recording
from cutover.testing.seen_event import SeenEvent
from cutover.text import printable

_SHOWN_KINDS = 5
"""Kinds of the latest events that the message about a missing event shows."""


class _Stop(enum.Enum):
    """The reason why a wait for events stopped."""

    FOUND = enum.auto()
    ENDED = enum.auto()
    LATE = enum.auto()


@attrs.define(eq=False)
class StreamSession:
    """One stream that a test follows event by event while its contract is checked.

    A background task reads the stream, so a slow test does not change the measured times. A missing event and a broken
    contract both raise `ContractViolation`. Its message shows the rule, the events and a curl command.

    Each task of a test reads for itself: `expect`, `take`, `until` and `collect` never take an event away from another task,
    nor from another call that runs at the same time. A task that reads for the first time begins where the task that started
    it is, and when it has ended, that task goes on behind what it has read. The session stops reading the stream while 10,000
    events wait for the slowest task. But if another task waits for new events then, the slow one loses its oldest events, and
    its next read raises RuntimeError. The bound is lower for large events: 16 MiB wait at most.

    A wait that is cancelled from outside reads nothing: the next read finds the same events, if they are among the latest 1,000 (or
    the latest MiB).
    """

    _stream: CheckedStream = attrs.field(repr=False)
    _recordings: Path | None = attrs.field(default=None, kw_only=True, repr=False)
    _tasks: TaskGroup = attrs.field(kw_only=True, repr=False)
    # True if the session itself runs the app in this process, so that the app has no address.
    _in_process: bool = attrs.field(default=False, kw_only=True, repr=False)
    # Seconds for which an app in this process may go on after its response before the verdict.
    _grace: float = attrs.field(default=0.0, kw_only=True, repr=False)
    disconnected: bool = attrs.field(default=False, init=False)
    """True once the test has left the stream before its end with `disconnect`."""
    _ended: bool = attrs.field(default=False, init=False)
    # True once the head of the current connection has come.
    _is_open: bool = attrs.field(default=False, init=False)
    # True while `resume` makes the next connection. A task that waits for events then waits on.
    _is_resuming: bool = attrs.field(default=False, init=False)
    # True once the whole stream was judged, so that leaving the block need not judge it again.
    _is_judged: bool = attrs.field(default=False, init=False, repr=False)
    # The violations that `drain` or `resume` has raised: a test that catches them knows of them.
    _raised: set[Finding] = attrs.field(factory=set, init=False, repr=False)
    # The error that the app raised before the end of its response; None without one.
    _app_error: BaseException | None = attrs.field(default=None, init=False)
    # The error of the check itself, such as one of an own rule of the contract; None without one.
    _check_error: BaseException | None = attrs.field(default=None, init=False)
    _log: EventLog = attrs.field(init=False, repr=False)
    # The beginning of the body; empty unless it is to be saved.
    _captured: bytearray = attrs.field(factory=bytearray, init=False, repr=False)
    # Received bytes that are not among the captured ones, because a cut left an event unfinished.
    _dropped: int = attrs.field(default=0, init=False, repr=False)
    # Wakes the tasks that wait for anything new; None while none waits.
    _progress: anyio.Event | None = attrs.field(default=None, init=False, repr=False)
    # Wakes the tasks that wait for the end of the stream; None while none waits.
    _end: anyio.Event | None = attrs.field(default=None, init=False, repr=False)
    # Wakes the reading of the stream that waits for a task to read; None while it does not wait.
    _space: anyio.Event | None = attrs.field(default=None, init=False, repr=False)
    _reading: anyio.CancelScope = attrs.field(factory=anyio.CancelScope, init=False, repr=False)

    @_log.default
    def _new_log(self) -> EventLog:
        return EventLog(self._stream.checker.contract)

    @property
    def report(self) -> ContractReport:
        """The report of the check so far. Before the stream has ended, its ``ok`` is False."""
        return self._log.join.merged_into(self._stream.checker.report())

    @property
    def status(self) -> int | None:
        """The status of the latest response; None before the head came."""
        return self._stream.status

    @property
    def headers(self) -> httpx.Headers:
        """The headers of the latest response; empty before the head came."""
        return httpx.Headers(list(self._stream.headers))

    async def drain(self) -> ContractReport:
        """Read the stream to its end, check the contract, and return the report.

        The wait is bounded: a stream that does not end fails at the ``deadline`` of `stream_contract`. A stream without an
        end of its own (`StreamContract.endless`) is left at that time, and judged as far as it went.

        Raises:
            ContractViolation: The contract does not hold.
        """
        __tracebackhide__ = True
        cursor = self._log.readers.cursor()
        cursor.skips = True
        cursor.reader.cursors.append(cursor)
        self._make_space()
        try:
            await self._until_end()
        finally:
            cursor.reader.cursors.remove(cursor)
        self._log.skip()
        await self._settle()
        self._verify()
        return self.report

    def expect(self, kind: str, *, within: float | None = None) -> Coroutine[Any, Any, SeenEvent]:
        """Wait for the next event of this kind, and return it. Events before it are skipped and not found again.

        Args:
            kind: The chunk's type, the contract's terminator (``[DONE]``), or the event's own type if the data names none.
            within: Seconds to wait from now. Default: until the stream ends or misses a deadline of the contract.

        Raises:
            ContractViolation: The event did not come in time, or the stream ended without it. A test that catches this error
                still gets the verdict on the contract: leaving the block checks the whole stream.
        """
        return self._expect(self._log.readers.cursor(), kind, within)

    async def _expect(self, cursor: Cursor, kind: str, within: float | None) -> SeenEvent:
        __tracebackhide__ = True
        passed: deque[SeenEvent] = deque(maxlen=_SHOWN_KINDS)

        def is_wanted(event: SeenEvent) -> bool:
            passed.append(event)
            return event.kind == kind

        stop = await self._read_until(cursor, is_wanted, within=within)
        if stop is not _Stop.FOUND:
            raise self._missing("session.expect", f"the event {kind}", within, passed, stop)
        return passed[-1]

    def take(self, n: int, *, within: float | None = None) -> Coroutine[Any, Any, list[SeenEvent]]:
        """Wait for the next ``n`` events, and return them. Comments and all else that no client dispatches is left out.

        Args:
            n: The number of events, at least 1.
            within: Seconds to wait from now for all of them. Default: as for `expect`.

        Raises:
            ContractViolation: Fewer events came, as for `expect`.
            ValueError: ``n`` is less than 1.
        """
        if n < 1:
            raise ValueError(f"take() needs a number of events from 1, not {n}")
        return self._take(self._log.readers.cursor(), n, within)

    async def _take(self, cursor: Cursor, n: int, within: float | None) -> list[SeenEvent]:
        __tracebackhide__ = True
        taken: list[SeenEvent] = []

        def is_last(event: SeenEvent) -> bool:
            taken.extend([event] if event.is_dispatched else [])
            return len(taken) == n

        stop = await self._read_until(cursor, is_last, within=within)
        if stop is not _Stop.FOUND:
            raise self._missing("session.take", f"{n} events", within, taken, stop, count=len(taken))
        return taken

    def until(self, kind: str, *, within: float | None = None) -> Coroutine[Any, Any, list[SeenEvent]]:
        """Wait for the next event of this kind, and return all events up to it and the event itself, which is the last.

        Comments and all else that no client dispatches is left out, unless it is the event itself: ``until("(comment)")``.

        Args:
            kind: As for `expect`.
            within: Seconds to wait from now. Default: as for `expect`.

        Raises:
            ContractViolation: The event did not come, as for `expect`; or more than 10,000 others came before it.
        """
        return self._until(self._log.readers.cursor(), kind, within)

    async def _until(self, cursor: Cursor, kind: str, within: float | None) -> list[SeenEvent]:
        __tracebackhide__ = True
        passed: list[SeenEvent] = []

        def is_last(event: SeenEvent) -> bool:
            passed.extend([event] if event.is_dispatched or event.kind == kind else [])
            return event.kind == kind or len(passed) > MAX_UNREAD

        stop = await self._read_until(cursor, is_last, within=within)
        if stop is not _Stop.FOUND or passed[-1].kind != kind:
            raise self._missing("session.until", f"the event {kind}", within, passed, stop, count=len(passed))
        return passed

    def collect(self, seconds: float) -> Coroutine[Any, Any, list[SeenEvent]]:
        """Read for this many seconds, and return the events that came: those that were not read yet, and the new ones.

        Comments and all else that no client dispatches is left out. No events are no failure. The wait is shorter if the
        stream ends.
        """
        return self._collect(self._log.readers.cursor(), seconds)

    async def _collect(self, cursor: Cursor, seconds: float) -> list[SeenEvent]:
        came: list[SeenEvent] = []

        def keep(event: SeenEvent) -> bool:
            came.extend([event] if event.is_dispatched else [])
            return False

        await self._read_until(cursor, keep, within=seconds)
        return came

    async def disconnect(self) -> None:
        """Leave the stream before its end, and wait until it is closed.

        An app in this process gets its grace period to clean up. A violation found so far still fails the test when it
        leaves the block. The missing end of the stream is no violation. After the end of the stream this only skips the
        unread events.
        """
        await self._leave()
        self._log.skip()
        self._make_space()

    async def resume(self, *, delay: float | None = None) -> None:
        """Reconnect as a client does that lost its connection, and go on with the same stream (WHATWG HTML 9.2.4).

        The request is sent again with the header ``Last-Event-ID``: the id of the last event that came, read or not. An open
        stream is left first; a stream that broke or ended may be resumed too, and that is then no violation (a missed deadline
        stays one). Events
        before the join that were not read are still there; after `disconnect`, they are not. The contract is checked as of one
        stream: order, parts and counts go on over the join; offsets, indexes and times too. Besides:

        - ``resume.no-id``: there is no id to resume from, or the contract demands an id on each event and one has none.
        - ``resume.refused``: the status is wrong, or it is 204 (a client then reconnects no more) before the end of the stream.
        - ``resume.replayed``: an event with an id that has come before comes again.
        - ``resume.lost``: ids that were consecutive numbers (``7`` or ``evt-7``) have a gap behind the join. For other ids a loss
          shows only if it breaks the order of the contract. To find any loss, use ``check_stream(..., resume=True)``.
        - ``resume.reordered``: ids that were rising numbers fall behind the join.

        Findings behind the join are raised like all others: by `drain`, or on leaving the block.

        Args:
            delay: Seconds to wait before the request. Default: the server's ``retry``, at most 5 seconds; without one 0.

        Raises:
            ContractViolation: There is no id, or the service refuses.
        """
        __tracebackhide__ = True
        join, known = self._log.join, self.report.violations
        self._is_resuming = True
        try:
            await self._leave()
            self._log.reconnect(elapsed=self._stream.elapsed())
            if join.last_id:
                await anyio.sleep(join.delay if delay is None else delay)
                self._drop_cut_event()
                self._ended = self._is_open = self.disconnected = False
                self._app_error = None
                self._reading = anyio.CancelScope()
                self._tasks.start_soon(self._run, partial(self._stream.reopen, join.last_id))
                while not (self._is_open or self._ended):
                    await self._wait()
        finally:
            self._is_resuming = False
            self._notify()
        accepted = self._stream.checker.contract.head.statuses
        while join.last_id and not self._ended and (self.status not in accepted or self.status == NO_CONTENT):
            # The body of a refusal may hold the reason.
            await self._wait()
        new = [each for each in self.report.violations if each not in known]
        if not join.last_id or any(self.status is None or _is_about_the_request(each) for each in new):
            self._raised.update(self.report.violations)
            raise self._violation()

    def app_noticed(self, *, within: float) -> bool:
        """Return True if the app saw the disconnect within this many seconds after it.

        An app sees a disconnect when ``receive()`` returns ``http.disconnect``, or when it sends something: that is dropped, as under uvicorn.

        Raises:
            RuntimeError: The test did not disconnect before the end of the stream, or the app does not run in this process.
        """
        exchange = self._stream.exchange
        if not self.disconnected or exchange is None:
            raise RuntimeError(
                "app_noticed() needs a disconnect() before it, and an app in process (an ASGI app and not a URL)"
            )
        if exchange.disconnected_at is None or exchange.noticed_at is None:
            return False
        return exchange.noticed_at - exchange.disconnected_at <= within

    def start(self) -> None:
        """Send the request, and begin to read the stream in the background. The current task reads from the beginning."""
        self._log.readers.current()
        self._tasks.start_soon(self._run, self._stream.open)

    async def finish(self) -> None:
        """Check the contract if that was not done yet: read the rest of the stream first, unless the test has disconnected.

        A stream without an end of its own is left: but not before an event has come, because there is nothing to judge before.
        """
        if self._stream.checker.contract.endless and not self._is_judged:
            while not self._ended and not self._log.has_event_of_connection:
                await self._wait()
            await self._leave()
            self._verify()
        elif self.disconnected:
            await self._settle()
            self._verify()
        elif not self._is_judged:
            await self.drain()

    def stop(self) -> None:
        """Stop reading the stream."""
        self._reading.cancel()

    async def _run(self, connect: Callable[[], Awaitable[bool]]) -> None:
        """Read one body until it ends or the test leaves. An error of the network or of the app is kept and not raised."""
        reading = self._reading
        try:
            with reading:
                await self._receive_all(connect)
        except (KeyboardInterrupt, SystemExit, anyio.get_cancelled_exc_class()):
            raise
        except BaseException as error:  # noqa: BLE001  the app's error, even pytest.fail(), becomes the cause
            exchange = self._stream.exchange
            if exchange is not None and exchange.error is error:
                self._app_error = error
                self._stream.checker.receive_failure(
                    FailureKind.RESET, elapsed=self._stream.elapsed(), detail=f"the app raised {named(error)}"
                )
            else:
                self._check_error = error
        finally:
            # This time limit does not shorten the grace period of an app in this process: the transport shields it.
            with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
                await self._stream.aclose()
            if reading.cancelled_caught and self._stream.checker.contract.endless:
                self._stream.leave()
            self._log.receive_eof(elapsed=self._stream.elapsed())
            self._ended = True
            self._notify()

    async def _receive_all(self, connect: Callable[[], Awaitable[bool]]) -> None:
        if not await connect():
            return
        self._is_open = True
        self._notify()
        stream, log, keeps = self._stream, self._log, self._recordings is not None
        with stream.in_time():
            while (piece := await stream.receive()) is not None:
                log.receive_data(piece, elapsed=stream.arrived)
                if keeps:
                    self._captured += piece[: MAX_CAPTURE_BYTES - len(self._captured)]
                if self._progress is not None:
                    self._notify()
                while log.is_full:
                    self._space = anyio.Event()
                    with stream.paused():
                        await self._space.wait()

    async def _settle(self) -> None:
        """Wait until an app in this process has ended, for its grace period, and note an error after its response."""
        __tracebackhide__ = True
        error = await self._stream.settle(self._grace)
        if error is not None and self._app_error is None:
            self._app_error = error
            self._stream.checker.receive_failure(
                FailureKind.APP_ERROR, elapsed=self._stream.elapsed(), detail=named(error)
            )

    async def _read_until(
        self, cursor: Cursor, is_last: Callable[[SeenEvent], bool], *, within: float | None
    ) -> _Stop:
        """Read event by event from a cursor on, until one is the last, the stream ends, or the time is over.

        The task's place moves on, unless the wait is cancelled from outside.
        """
        reader = cursor.reader
        reader.cursors.append(cursor)
        stop = _Stop.LATE
        try:
            with anyio.move_on_after(within):
                stop = await self._scan(cursor, is_last)
            reader.position = max(reader.position, cursor.position)
        finally:
            reader.cursors.remove(cursor)
            # A long wait that was cancelled has let go of its oldest events.
            reader.position = max(reader.position, min(cursor.position, self._log.first))
            self._make_space()
        return stop

    async def _scan(self, cursor: Cursor, is_last: Callable[[SeenEvent], bool]) -> _Stop:
        while True:
            ended = self._ended and not self._is_resuming
            for event in self._log.unread_by(cursor):
                if is_last(event):
                    return _Stop.FOUND
            if ended:
                self._raise_check_error()
                return _Stop.ENDED
            cursor.is_waiting = True
            self._make_space()
            await self._wait()
            cursor.is_waiting = False

    async def _wait(self) -> None:
        """Wait for anything new: a head, events, the end of the stream."""
        if self._progress is None:
            self._progress = anyio.Event()
        await self._progress.wait()

    async def _until_end(self) -> None:
        """Wait for the end of the stream, without waking up for each event."""
        while not self._ended or self._is_resuming:
            if self._end is None:
                self._end = anyio.Event()
            await self._end.wait()
        self._raise_check_error()

    async def _leave(self) -> None:
        """Stop reading an open stream, and wait until it is closed."""
        if not self._ended:
            self.disconnected = True
            self._reading.cancel()
        while not self._ended:
            await self._wait()

    def _make_space(self) -> None:
        """Wake the reading of the stream if it waits for a task to read."""
        if self._space is not None:
            self._space.set()
            self._space = None

    def _raise_check_error(self) -> None:
        """Raise the error of the check itself, unchanged: neither the stream nor the app has a part in it."""
        __tracebackhide__ = True
        if self._check_error is not None:
            self._is_judged = True
            raise self._check_error

    def _drop_cut_event(self) -> None:
        """Drop the event that the cut left unfinished from the kept bytes, so that a replay is one good stream."""
        if len(self._captured) < MAX_CAPTURE_BYTES:
            whole = end_of_last_event(self._captured)
            self._dropped += len(self._captured) - whole
            del self._captured[whole:]

    def _notify(self) -> None:
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.set()
        if self._ended and self._end is not None:
            self._end.set()
            self._end = None

    def _verify(self) -> None:
        """Raise for violations that no call has raised before."""
        __tracebackhide__ = True
        self._raise_check_error()
        self._is_judged = True
        if not self._raised.issuperset(self.report.violations):
            self._raised.update(self.report.violations)
            raise self._violation()

    def _missing(
        self,
        rule: str,
        wanted: str,
        within: float | None,
        came: Iterable[SeenEvent],
        stop: _Stop,
        *,
        count: int | None = None,
    ) -> ContractViolation:
        """Return the error to raise for events that did not come.

        Args:
            rule: The id of the finding.
            wanted: The events, in words.
            within: The time of the wait in seconds; None without a limit.
            came: The events that came instead. The kinds of the last ones are shown.
            stop: The reason why the wait stopped.
            count: The number of events that came; None to show only their kinds.
        """
        expected = wanted if within is None else f"{wanted} within {within:g} s"
        kinds = [event.kind for event in deque(came, maxlen=_SHOWN_KINDS)]
        actual = ", ".join(kinds) or "none"
        if count is not None and count > len(kinds):
            actual = f"{count} events, at last {actual}"
        if stop is _Stop.ENDED:
            limit = self._stream.leave_after
            left = self._stream.was_left and not self.disconnected and limit is not None
            actual += f", then the deadline of {limit:g} s" if left else ", then the end of the stream"
        message = f"expected {expected}, got {actual}"
        return self._violation(Finding(rule=rule, message=message, expected=expected, actual=actual))

    def _violation(self, *more: Finding) -> ContractViolation:
        """Return the error to raise: for the violations of the contract, then for ``more``, the event that did not come.

        Save the body too, if there is a folder for it.
        """
        report, request, exchange = self.report, self._stream.request, self._stream.exchange
        findings = (*report.violations, *more)
        app_error = self._app_error or (exchange.error if exchange is not None else None)
        headers = dict(request.headers)
        if self._stream.last_event_id is not None:
            headers[LAST_EVENT_ID] = printable(self._stream.last_event_id)
        url = self._stream.client.url_of(request)
        context = FailureContext(
            findings=findings,
            report=report,
            method=request.method,
            url=url,
            in_process=self._in_process,
            request_headers=headers,
            client_headers=self._stream.client.headers,
            request_body=request.body,
            status=self.status,
            unreachable=self._stream.unreachable,
            response_headers=self._stream.headers,
            events=self._log.kept(),
            app_error=app_error,
            replay=self._record(url),
        )
        violation = ContractViolation(explain(context), findings=findings)
        violation.__cause__ = app_error or self._stream.failed_by
        return violation

    def _record(self, url: str) -> str | None:
        """Save the body and return a command or hint to check it again; None without a folder or body, or if saving fails."""
        if self._recordings is None or not self._captured:
            return None
        return save_recording(
            self._recordings,
            bytes(self._captured),
            contract=self._stream.checker.contract,
            secrets=secrets_of({**self._stream.client.headers, **self._stream.request.headers}, url),
            received=self.report.byte_count - self._dropped,
        )


def _is_about_the_request(finding: Finding) -> bool:
    """Return True if a finding says that a request for the rest of a stream was not answered with a stream."""
    return finding.rule in {"resume.refused", "resume.no-id"} or finding.rule.startswith(
        ("head.", "transport.")
    )
