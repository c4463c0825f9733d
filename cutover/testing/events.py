"""The log of the events of one stream, with their times. A test reads this log, and the message of a failure shows it.

Each task of a test reads for itself. The log keeps events until every task that reads has read them, within a bound.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from sys import getsizeof
from typing import TypeAlias

import attrs

from cutover.contract import StreamContract
from cutover.contract.joining import JoinJudge
from cutover.contract.reading import Reader
from cutover.protocols import COMPAT_LANE
from cutover.sse.events import Comment, MessageEvent, StreamEvent, Truncated
from cutover.sse.parser import EventStreamParser
from cutover.testing.readers import Cursor, Readers
from cutover.testing.seen_event import SeenEvent, seen

MAX_UNREAD = 10_000
"""Events that may wait until a test reads them. Beyond this number the session stops reading until the test reads."""
MAX_UNREAD_BYTES = 16 << 20
"""Rough memory of the events that may wait, in bytes; one event more may be larger."""
_OPENING = 100
"""Events of the beginning that are kept for the message of a failure."""
_RECENT = 1_000
"""Events that are kept after every task has read them: for the message of a failure, and for a read that is cancelled."""
_KEPT_BYTES = 1 << 20
"""Rough memory in bytes of the events of the beginning, and of those that are kept after every task has read them."""
_ENTRY_BYTES = 300
"""Rough memory of one event beside its text, in bytes."""


_Came: TypeAlias = tuple[StreamEvent | SeenEvent, int, float, str, int]
"""An event as the log keeps it: the event, the number of message events before it, its time, the last event ID at it, its memory.

A `SeenEvent` is made of it when somebody looks at it, because most events are never looked at."""


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
    # The first events, as far as they find room.
    _opening: list[_Came] = attrs.field(factory=list, init=False)
    _opening_bytes: int = attrs.field(default=0, init=False)
    # The latest events, without a gap. The last of them has the number `end - 1`.
    _window: deque[_Came] = attrs.field(factory=deque, init=False)
    _window_bytes: int = attrs.field(default=0, init=False)
    # The length and the memory of the window from which on it is trimmed again. To ask all tasks for each event would take time.
    _trim_at: int = attrs.field(default=0, init=False)
    _trim_at_bytes: int = attrs.field(default=0, init=False)

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
        if len(self._window) <= MAX_UNREAD and self._window_bytes <= MAX_UNREAD_BYTES:
            return False
        unread = self.end - self.readers.slowest
        if unread <= MAX_UNREAD and self._window_bytes > MAX_UNREAD_BYTES:
            # Events that were read do not count. The next trim stays due, because it may have to drop unread ones.
            due = self._trim_at, self._trim_at_bytes
            self.trim()
            self._trim_at, self._trim_at_bytes = due
            if unread <= 1 or self._window_bytes <= MAX_UNREAD_BYTES:
                return False
        elif unread <= MAX_UNREAD:
            return False
        return not self.readers.is_awaited(self.end)

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
        join = SeenEvent(
            kind="(reconnected)",
            index=None,
            byte_offset=old.received,
            elapsed=elapsed,
            data=f"Last-Event-ID: {old.last_event_id}",
            event=None,
            last_event_id=old.last_event_id,
        )
        self._window.append((join, self._count, elapsed, old.last_event_id, _ENTRY_BYTES))
        self._window_bytes += _ENTRY_BYTES
        self.end += 1

    @property
    def has_event_of_connection(self) -> bool:
        """True if a message event has come since the request, or since the last reconnection."""
        return self._count > self._count_at_join

    def skip(self) -> None:
        """Mark all events as read by the current task."""
        self.readers.current().position = self.end
        self.trim()

    def unread_by(self, cursor: Cursor) -> Iterator[SeenEvent]:
        """Yield the events that a call has not read yet, oldest first, and move its cursor on with each.

        Raises:
            RuntimeError: Events were dropped before the task has read them.
        """
        missed = self.first - cursor.position
        if missed > 0:
            cursor.position = self.first
            raise RuntimeError(
                f"this task has not read {missed} events, and they were dropped: at most {MAX_UNREAD} events "
                f"and {MAX_UNREAD_BYTES >> 20} MiB wait for a slow task while another one waits for new events. "
                "Read faster, or in the task that waits"
            )
        while cursor.position < self.end:
            # From the end on, because a deque finds its latest entries at once.
            came = self._window[cursor.position - self.end]
            cursor.position += 1
            yield seen(*came[:4], reader=self._reader)

    def trim(self, *, keep: int | None = None) -> None:
        """Drop events that need not be kept any longer.

        Args:
            keep: The number of unread events that must be kept. None: every unread event.
        """
        window = self._window
        unread = max(self.end - self.readers.slowest, 0)
        unread = unread if keep is None else min(unread, keep)
        while len(window) > unread and (len(window) > unread + _RECENT or self._window_bytes > _KEPT_BYTES):
            self._window_bytes -= window.popleft()[4]
        self._trim_at = len(window) + _RECENT
        self._trim_at_bytes = self._window_bytes + _KEPT_BYTES

    def kept(self) -> Sequence[SeenEvent]:
        """Return the events that a failure can show, in order. In a long stream, events in the middle are missing."""
        return [
            seen(*came[:4], reader=self._reader) for came in (*self._opening[: self.first], *self._window)
        ]

    def _take(self, events: Sequence[StreamEvent], *, elapsed: float) -> None:
        join, window = self.join, self._window
        for event in events:
            if type(event) is MessageEvent:
                size = getsizeof(event.data) + _ENTRY_BYTES
                came: _Came = (event, self._count, elapsed, event.last_event_id, size)
                if event.id is None:
                    # The most frequent event. The judge of ids would look at it for nothing else.
                    join.last_id = event.last_event_id
                else:
                    join.take(event, index=self._count)
                self._count += 1
            else:
                join.take(event, index=self._count)
                size = _bytes_of(event)
                came = (event, self._count, elapsed, join.last_id, size)
            if self.end < _OPENING:
                self._keep_opening(came)
            window.append(came)
            self._window_bytes += size
            self.end += 1
        if len(window) > self._trim_at or self._window_bytes > self._trim_at_bytes:
            # A task that waits must get all events of this piece; a task that is far behind it loses its oldest ones.
            is_awaited = self.readers.is_awaited(self.end - len(events))
            is_much = len(window) > MAX_UNREAD or self._window_bytes > MAX_UNREAD_BYTES
            keep = min(MAX_UNREAD, len(window))
            if self._window_bytes > MAX_UNREAD_BYTES:
                keep = self._count_of_latest(MAX_UNREAD_BYTES)
            self.trim(keep=max(keep, len(events)) if is_awaited and is_much else None)

    def _count_of_latest(self, room: int) -> int:
        """Return the number of the latest events that find room in so many bytes."""
        count = 0
        for came in reversed(self._window):
            room -= came[4]
            if room < 0:
                break
            count += 1
        return count

    def _keep_opening(self, came: _Came) -> None:
        """Keep an event of the beginning if there is room, and none before it was left out."""
        if self.end == len(self._opening) and self._opening_bytes + came[4] <= _KEPT_BYTES:
            self._opening.append(came)
            self._opening_bytes += came[4]


def _bytes_of(event: StreamEvent) -> int:
    """Return the rough memory of an event that is kept and is no message event, in bytes."""
    match event:
        case Comment(text=text):
            return getsizeof(text) + _ENTRY_BYTES
        case Truncated(pending=pending):
            return getsizeof(pending) + _ENTRY_BYTES
        case _:
            return _ENTRY_BYTES
