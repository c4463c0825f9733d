"""What came over the stream, event by event, with the time it came: for the test to wait on, and for a failure to show."""

from collections import deque
from collections.abc import Iterator, Sequence

import attrs
import msgspec

from cutover.contract import StreamContract
from cutover.protocols import COMPAT_LANE
from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, StreamEvent, Truncated
from cutover.sse.parser import EventStreamParser

MAX_UNREAD = 10_000
"""Events that may wait for a test to look at them; past it the stream is not read on."""
_OPENING = 100
_RECENT = 1_000


class _Typed(msgspec.Struct):
    type: str


@attrs.frozen(kw_only=True)
class SeenEvent:
    """One event as it came."""

    kind: str
    """``type`` of a chunk; the contract's terminator (``[DONE]``); the event's own type where its data names none; else what it is, in brackets."""
    index: int | None
    """Its number among the message events, from 0; None for what no client dispatches (a comment, a cut-off event)."""
    byte_offset: int
    """Where it begins, in bytes of the body."""
    elapsed: float
    """Seconds from sending the request to its arrival."""
    data: str

    def json(self) -> object:
        """Decode the data.

        Raises:
            msgspec.DecodeError: It is not JSON.
        """
        return msgspec.json.decode(self.data)


@attrs.define(eq=False)
class EventLog:
    """The events of one stream: those not looked at yet, the first ones and the latest."""

    contract: StreamContract = COMPAT_LANE
    """Says how large an event may be, and which one ends the stream: what the checker counts as an event is one here, too."""
    unread: deque[SeenEvent] = attrs.field(factory=deque, init=False)
    _parser: EventStreamParser = attrs.field(init=False)
    _count: int = attrs.field(default=0, init=False)
    _opening: list[SeenEvent] = attrs.field(factory=list, init=False)
    _recent: deque[SeenEvent] = attrs.field(factory=lambda: deque(maxlen=_RECENT), init=False)

    @_parser.default
    def _new_parser(self) -> EventStreamParser:
        return EventStreamParser(max_event_bytes=self.contract.limits.max_event_bytes)

    def receive_data(self, data: bytes, *, elapsed: float) -> None:
        """Take in a piece of the body."""
        self._take(self._parser.receive_data(data), elapsed=elapsed)

    def receive_eof(self, *, elapsed: float) -> None:
        """Take in the end: an event that it cut off is shown, too."""
        self._take(self._parser.receive_eof(), elapsed=elapsed)

    def read(self) -> Iterator[SeenEvent]:
        """Give the events that were not looked at yet, and take them as looked at."""
        while self.unread:
            event = self.unread.popleft()
            if len(self._opening) < _OPENING:
                self._opening.append(event)
            else:
                self._recent.append(event)
            yield event

    def kept(self) -> Sequence[SeenEvent]:
        """Return what a failure can show: in order, with a gap where a long stream was let go."""
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
