"""The log of the events of one stream, with their times. A test reads this log, and the message of a failure shows it.

Each task of a test reads for itself. The log keeps events until every task that reads has read them, within a bound.
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice

import attrs
import msgspec

from cutover.contract import StreamContract
from cutover.contract.joining import JoinJudge
from cutover.contract.reading import Reader
from cutover.protocols import COMPAT_LANE
from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, StreamEvent, Truncated
from cutover.sse.parser import EventStreamParser
from cutover.testing.readers import Cursor, Readers

MAX_UNREAD = 10_000
"""Events that may wait until a test reads them. Beyond this number the session stops reading until the test reads."""
_OPENING = 100
"""Events of the beginning that are kept for the message of a failure."""
_RECENT = 1_000
"""Events that are kept after every task has read them: for the message of a failure, and for a read that is cancelled."""


@attrs.frozen(kw_only=True)
class SeenEvent:
    """One event that the stream sent, with its place and its time."""

    kind: str
    """The ``type`` of the chunk, or the contract's terminator (``[DONE]``), or the event's own type if the data names none.
    In brackets for anything else: ``(comment)``, ``(retry)``, ``(cut off)``, ``(too large)``, ``(no type)``, ``(reconnected)``."""
    index: int | None
    """Number of the event among the message events, from 0; None if no client dispatches it (a comment, a cut-off event)."""
    byte_offset: int
    """Position of its first byte in the body, from 0. Also named ``offset``."""
    elapsed: float
    """Seconds from sending the request to the arrival of the event. Also named ``time``."""
    data: str
    """The data of a message event, the text of a comment, the bytes of a cut-off event as text; else a time or a size."""
    event: str | None = "message"
    """The event's type as a client sees it, ``message`` by default; None if no client dispatches the event."""
    id: str | None = None
    """The value of the event's own ``id`` line; None without one."""
    retry: int | None = None
    """The value of the event's own ``retry`` line, in milliseconds; None without one."""
    last_event_id: str = ""
    """The last event ID as a client sees it at this event: its own, or the last one before it; empty without one."""

    @property
    def offset(self) -> int:
        """Position of its first byte in the body, from 0. After a `StreamSession.resume` it counts over all bodies."""
        return self.byte_offset

    @property
    def time(self) -> float:
        """Seconds from sending the (first) request to the arrival of the event."""
        return self.elapsed

    @property
    def is_dispatched(self) -> bool:
        """True if a client hands the event to its message handler; False for a comment, a cut-off event and so on."""
        return self.index is not None

    def json(self) -> object:
        """Return the data decoded from JSON.

        Raises:
            msgspec.DecodeError: The data is not JSON.
        """
        return msgspec.json.decode(self.data)


@attrs.define(eq=False)
class EventLog:
    """The events of one stream: all that some task has not read yet, and the first and the latest of the others."""

    contract: StreamContract = COMPAT_LANE
    """Contract whose limits and terminator apply, so that this log and the checker count the same events."""
    readers: Readers = attrs.field(factory=Readers, init=False)
    """The places of the tasks that read this log."""
    join: JoinJudge = attrs.field(init=False)
    """The judge of the ids, before and after each reconnection."""
    end: int = attrs.field(default=0, init=False)
    """Number of events that have come."""
    _parser: EventStreamParser = attrs.field(init=False)
    _reader: Reader = attrs.field(init=False)
    _count: int = attrs.field(default=0, init=False)
    _count_at_join: int = attrs.field(default=0, init=False)
    _opening: list[SeenEvent] = attrs.field(factory=list, init=False)
    # The latest events, without a gap. The last of them has the number `end - 1`.
    _window: deque[SeenEvent] = attrs.field(factory=deque, init=False)

    @_parser.default
    def _new_parser(self) -> EventStreamParser:
        return EventStreamParser(max_event_bytes=self.contract.limits.max_event_bytes)

    @_reader.default
    def _new_reader(self) -> Reader:
        return self.contract.new_reader()

    @join.default
    def _new_join(self) -> JoinJudge:
        return JoinJudge(self.contract)

    @property
    def first(self) -> int:
        """Number of the oldest event that can still be read."""
        return self.end - len(self._window)

    @property
    def is_full(self) -> bool:
        """True if too many events wait for the slowest task, and no other task waits for new ones."""
        return self.end - self.readers.slowest > MAX_UNREAD and not self.readers.is_awaited(self.end)

    def receive_data(self, data: bytes, *, elapsed: float) -> None:
        """Add the events that this piece of the body completes. ``elapsed`` is in seconds since the request."""
        self._take(self._parser.receive_data(data), elapsed=elapsed)

    def receive_eof(self, *, elapsed: float) -> None:
        """Add the event that the end of the body cut off, if there is one."""
        self._take(self._parser.receive_eof(), elapsed=elapsed)

    def reconnect(self, *, elapsed: float) -> None:
        """Go on with the next body of the same stream, behind the last event ID. Mark the join in the log."""
        old, self._parser = self._parser, self._new_parser()
        self._parser.received, self._parser.last_event_id = old.received, old.last_event_id
        self.join.reconnect()
        self._count_at_join = self._count
        self._append(
            SeenEvent(
                kind="(reconnected)",
                index=None,
                byte_offset=old.received,
                elapsed=elapsed,
                data=f"Last-Event-ID: {old.last_event_id}",
                event=None,
                last_event_id=old.last_event_id,
            )
        )

    @property
    def has_event_of_connection(self) -> bool:
        """True if a message event has come since the request, or since the last reconnection."""
        return self._count > self._count_at_join

    def skip(self) -> None:
        """Mark all events as read by the current task."""
        self.readers.current().position = self.end
        self.trim()

    def unread_by(self, cursor: Cursor) -> Sequence[SeenEvent]:
        """Return the events that a call has not read yet, oldest first. The caller moves the cursor on.

        Raises:
            RuntimeError: Events were dropped before the task has read them.
        """
        missed = self.first - cursor.position
        if missed > 0:
            cursor.position = self.first
            raise RuntimeError(
                f"this task has not read {missed} events, and they were dropped: at most {MAX_UNREAD} wait for a slow task "
                "while another one waits for new events. Read faster, or in the task that waits"
            )
        return list(islice(self._window, -missed, None))

    def trim(self, *, keep: int | None = None) -> None:
        """Drop events that need not be kept any longer.

        Args:
            keep: The number of unread events that must be kept. None: every unread event.
        """
        unread = self.end - self.readers.slowest
        unread = unread if keep is None else min(unread, keep)
        while len(self._window) > unread + _RECENT:
            self._window.popleft()

    def kept(self) -> Sequence[SeenEvent]:
        """Return the events that a failure can show, in order. In a long stream, events in the middle are missing."""
        return (*self._opening[: self.first], *self._window)

    def _take(self, events: Sequence[StreamEvent], *, elapsed: float) -> None:
        is_awaited = self.readers.is_awaited(self.end)
        for event in events:
            self.join.take(event, index=self._count)
            kind, data = _describe(event, self._reader)
            if isinstance(event, MessageEvent):
                seen = SeenEvent(
                    kind=kind,
                    index=self._count,
                    byte_offset=event.byte_offset,
                    elapsed=elapsed,
                    data=data,
                    event=event.event,
                    id=event.id,
                    retry=event.retry,
                    last_event_id=event.last_event_id,
                )
                self._count += 1
            else:
                seen = SeenEvent(
                    kind=kind,
                    index=None,
                    byte_offset=event.byte_offset,
                    elapsed=elapsed,
                    data=data,
                    event=None,
                    last_event_id=self.join.last_id,
                )
            self._append(seen)
        # A task that waits must get all events of this piece; a task that is far behind it loses its oldest ones.
        self.trim(keep=max(MAX_UNREAD, len(events)) if is_awaited else None)

    def _append(self, event: SeenEvent) -> None:
        if len(self._opening) < _OPENING:
            self._opening.append(event)
        self._window.append(event)
        self.end += 1


def _describe(event: StreamEvent, reader: Reader) -> tuple[str, str]:
    match event:
        case MessageEvent(data=data):
            return reader.kind_of(data, event.name) or event.name or "(no type)", data
        case Comment(text=text):
            return "(comment)", text
        case Retry(milliseconds=milliseconds):
            return "(retry)", f"{milliseconds} ms"
        case Truncated(pending=pending):
            return "(cut off)", pending.decode("utf-8", "replace")
        case Oversized(size=size):
            return "(too large)", f"{size} bytes or more"
