"""The values that the parser returns: one class for each thing that an event stream can hold."""

from itertools import repeat
from typing import Any, TypeAlias

import msgspec


class MessageEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event (WHATWG HTML 9.2.6): a client hands it to its message handler."""

    data: str
    """The values of the `data` lines, joined by LF."""
    event: str = "message"
    """The event's type; `message` if the event sets none."""
    last_event_id: str = ""
    """The stream's last event ID at the dispatch. An ID stays in force for all later events until one sets another."""
    byte_offset: int = 0
    """Position of the first byte of the event's first field line, in bytes of the body."""
    name: str | None = None
    """The value of the event's own `event` line; None without such a line, or with an empty one. A client sees `event` alone."""
    id: str | None = None
    """The value of the event's own `id` line, which may be empty; None without one. A client sees `last_event_id` alone."""
    retry: int | None = None
    """The value of the event's own last valid `retry` line, in milliseconds; None without one."""


class Comment(msgspec.Struct, frozen=True, gc=False):
    """One comment line. Clients ignore comments; servers send them to keep a connection alive."""

    text: str
    """The text after the colon, without one leading space."""
    byte_offset: int = 0
    """Position of the first byte of the line, in bytes of the body."""


class Retry(msgspec.Struct, frozen=True, gc=False):
    """One `retry` line with a valid number: the server sets the time that a client waits before it reconnects."""

    milliseconds: int
    """The new reconnection time, in milliseconds; at most 10 to the power of 18."""
    byte_offset: int = 0
    """Position of the first byte of the line, in bytes of the body."""


class Truncated(msgspec.Struct, frozen=True, gc=False):
    """An event without its blank line when the stream ended. A client discards it; the parser keeps it as evidence."""

    pending: bytes
    """The complete `data` lines with their field name, and the unfinished line unless it is a comment, joined by LF."""
    byte_offset: int = 0
    """Position of the first byte of the event's first field line, in bytes of the body."""


class Oversized(msgspec.Struct, frozen=True, gc=False):
    """An event, or a line of any sort, above `max_event_bytes`. The parser drops all lines up to the next blank line."""

    size: int
    """The bound plus one byte. The true size is unknown, because the parser stops counting there."""
    byte_offset: int = 0
    """Position of the first byte of the event's first field line, in bytes of the body."""


class Unframed(msgspec.Struct, gc=False):
    """Lines that are neither a field nor a comment. A client ignores them; they are evidence of a body that is no event stream."""

    line: bytes
    """The beginning of the first such line."""
    byte_offset: int
    """Position of the first byte of that line, in bytes of the body."""
    count: int = 1
    """The number of such lines."""


StreamEvent: TypeAlias = MessageEvent | Comment | Retry | Truncated | Oversized


class Run(msgspec.Struct, frozen=True, gc=False):
    """Consecutive message events that have the same type, the same line ends and one `data` line each."""

    payloads: list[str] | list[bytes]
    """The value of each event's `data` line: ASCII text, or bytes that may be invalid UTF-8. `len` counts bytes either way."""
    byte_offset: int
    """Position of the first byte of the first event, in bytes of the body."""
    stride: int
    """Bytes from the end of one payload to the beginning of the next: the blank line and the field names."""
    event: str
    """The type of every event."""
    last_event_id: str
    """The stream's last event ID at the dispatch of every event."""
    name: str | None = None
    """The value of every event's own `event` line; None without such a line."""
    id: str | None = None
    """The value of the one event's own `id` line; None without one. Events that set an ID stand in no run with others."""
    retry: int | None = None
    """The value of the one event's own `retry` line, in milliseconds; None without one."""

    def offset_of(self, index: int) -> int:
        """Return the position of the first byte of the event at `index` of this run, in bytes of the body."""
        return self.byte_offset + sum(map(len, self.payloads[:index])) + index * self.stride

    def messages(self) -> list[MessageEvent]:
        """Return each event of this run as a `MessageEvent`. Bytes that are not UTF-8 become U+FFFD."""
        texts: list[Any] = self.payloads
        name = self.name
        if isinstance(texts[0], bytes):
            # A run of one event is the most frequent one in a live stream.
            if len(texts) == 1:
                return [
                    MessageEvent(
                        texts[0].decode("utf-8", "replace"),
                        self.event,
                        self.last_event_id,
                        self.byte_offset,
                        name,
                        self.id,
                        self.retry,
                    )
                ]
            texts = [payload.decode("utf-8", "replace") for payload in texts]
        offset, stride, offsets = self.byte_offset, self.stride, []
        for payload in self.payloads:
            offsets.append(offset)
            offset += len(payload) + stride
        columns = (texts, repeat(self.event), repeat(self.last_event_id), offsets)
        # A column more for each event takes time, and most streams have no `event` lines.
        return list(
            map(MessageEvent, *columns) if name is None else map(MessageEvent, *columns, repeat(name))
        )
