"""The log of the events of one stream, with their times. A test waits on this log, and the message of a failure shows it."""

from collections import deque
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from cutover.contract import StreamContract
from cutover.protocols import COMPAT_LANE
from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, StreamEvent, Truncated
from cutover.sse.parser import EventStreamParser

MAX_UNREAD = 10_000
"""Events that may wait until a test reads them. Beyond this number the session stops reading until the test reads."""
_OPENING = 100
_RECENT = 1_000


class _Typed(msgspec.Struct):
    type: str


@attrs.frozen(kw_only=True)
class SeenEvent:
    """One event that the stream sent, with its place and its time."""

    kind: str
    """The ``type`` of the chunk, or the contract's terminator (``[DONE]``), or the event's own type if the data names none.
    In brackets for anything else: ``(comment)``, ``(retry)``, ``(cut off)``, ``(too large)``, ``(no type)``."""
    index: int | None
    """Number of the event among the message events, from 0; None if no client dispatches it (a comment, a cut-off event)."""
    byte_offset: int
    """Position of its first byte in the body, from 0."""
    elapsed: float
    """Seconds from sending the request to the arrival of the event."""
    data: str
    """The data of a message event, the text of a comment, the bytes of a cut-off event as text; else a time or a size."""

    def json(self) -> object:
        """Return the data decoded from JSON.

        Raises:
            msgspec.DecodeError: The data is not JSON.
        """
        return msgspec.json.decode(self.data)


@attrs.define(eq=False)
class EventLog:
    """The events of one stream: all that the test has not read yet, and the first and the latest of the others."""

    contract: StreamContract = COMPAT_LANE
    """Contract whose limits and terminator apply, so that this log and the checker count the same events."""
    unread: deque[SeenEvent] = attrs.field(factory=deque, init=False)
    """Events that the test has not read yet, oldest first."""
    _parser: EventStreamParser = attrs.field(init=False)
    _count: int = attrs.field(default=0, init=False)
    _opening: list[SeenEvent] = attrs.field(factory=list, init=False)
    _recent: deque[SeenEvent] = attrs.field(factory=lambda: deque(maxlen=_RECENT), init=False)

    @_parser.default
    def _new_parser(self) -> EventStreamParser:
        return EventStreamParser(max_event_bytes=self.contract.limits.max_event_bytes)

    def receive_data(self, data: bytes, *, elapsed: float) -> None:
        """Add the events that this piece of the body completes. ``elapsed`` is in seconds since the request."""
        self._take(self._parser.receive_data(data), elapsed=elapsed)

    def receive_eof(self, *, elapsed: float) -> None:
        """Add the event that the end of the body cut off, if there is one."""
        self._take(self._parser.receive_eof(), elapsed=elapsed)

    def read(self) -> Iterator[SeenEvent]:
        """Give each unread event, oldest first, and mark it as read."""
        while self.unread:
            event = self.unread.popleft()
            if len(self._opening) < _OPENING:
                self._opening.append(event)
            else:
                self._recent.append(event)
            yield event

    def kept(self) -> Sequence[SeenEvent]:
        """Return the events that a failure can show, in order. In a long stream, events in the middle are missing."""
        return (*self._opening, *self._recent, *self.unread)

    def _take(self, events: Sequence[StreamEvent], *, elapsed: float) -> None:
        for event in events:
            kind, data = _describe(event, self.contract.terminator)
            index = self._count if isinstance(event, MessageEvent) else None
            self._count += isinstance(event, MessageEvent)
            seen = SeenEvent(
                kind=kind, index=index, byte_offset=event.byte_offset, elapsed=elapsed, data=data
            )
            self.unread.append(seen)


def _describe(event: StreamEvent, terminator: str) -> tuple[str, str]:
    match event:
        case MessageEvent(data=data):
            return terminator if data == terminator else _kind_of(event), data
        case Comment(text=text):
            return "(comment)", text
        case Retry(milliseconds=milliseconds):
            return "(retry)", f"{milliseconds} ms"
        case Truncated(pending=pending):
            return "(cut off)", pending.decode("utf-8", "replace")
        case Oversized(size=size):
            return "(too large)", f"{size} bytes or more"


def _kind_of(event: MessageEvent) -> str:
    try:
        return msgspec.json.decode(event.data, type=_Typed).type
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return event.event if event.event != "message" else "(no type)"
