"""An event in the form in which a test, and the message of a failure, see it."""

import attrs
import msgspec

from cutover.contract.reading import Reader
from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, StreamEvent, Truncated


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


def seen(
    event: StreamEvent | SeenEvent, index: int, elapsed: float, last_event_id: str, *, reader: Reader
) -> SeenEvent:
    """Return an event in the form in which a test sees it.

    Args:
        event: The event. One that has this form already is returned as it is.
        index: The number of message events before it.
        elapsed: Seconds from sending the request to its arrival.
        last_event_id: The last event ID as a client sees it at this event.
        reader: Says the kind of a message event.
    """
    if isinstance(event, SeenEvent):
        return event
    kind, data = _describe(event, reader)
    message = event if isinstance(event, MessageEvent) else None
    return SeenEvent(
        kind=kind,
        index=None if message is None else index,
        byte_offset=event.byte_offset,
        elapsed=elapsed,
        data=data,
        event=None if message is None else message.event,
        id=None if message is None else message.id,
        retry=None if message is None else message.retry,
        last_event_id=last_event_id,
    )


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
