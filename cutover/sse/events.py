"""The events of an event stream, as the parser gives them."""

from itertools import repeat
from typing import Any, TypeAlias

import msgspec


class MessageEvent(msgspec.Struct, frozen=True, gc=False):
    """An event that a client dispatches."""

    data: str
    """The `data` lines, joined by LF."""
    event: str = "message"
    """The event's type."""
    last_event_id: str = ""
    """The last event ID of the stream when it was dispatched; it outlives the event that set it."""
    byte_offset: int = 0
    """Where the event's first field line begins, in bytes of the body."""


class Comment(msgspec.Struct, frozen=True, gc=False):
    """A comment line: clients ignore it; it keeps a connection alive."""

    text: str
    """What follows the colon, less one leading space."""
    byte_offset: int = 0
    """Where the line begins, in bytes of the body."""


class Retry(msgspec.Struct, frozen=True, gc=False):
    """The server set the reconnection time."""

    milliseconds: int
    """The new reconnection time."""
    byte_offset: int = 0
    """Where the line begins, in bytes of the body."""


class Truncated(msgspec.Struct, frozen=True, gc=False):
    """An event that the end of the stream cut off: evidence, since a client never dispatches it."""

    pending: bytes
    """Its `data` lines and the unfinished line, LF between them."""
    byte_offset: int = 0
    """Where its first field line begins, in bytes of the body."""


class Oversized(msgspec.Struct, frozen=True, gc=False):
    """An event that outgrew the bound: its bytes are dropped, and parsing goes on after the next blank line."""

    size: int
    """Bytes that it had when it was given up: the first count past the bound, whatever was still to come."""
    byte_offset: int = 0
    """Where its first field line begins, in bytes of the body."""


StreamEvent: TypeAlias = MessageEvent | Comment | Retry | Truncated | Oversized


class Run(msgspec.Struct, frozen=True, gc=False):
    """Consecutive message events of one shape."""

    payloads: list[str] | list[bytes]
    """The value of each event's one `data` line; bytes are UTF-8, and text is ASCII, so either has the length it had."""
    byte_offset: int
    """Where the first event begins."""
    stride: int
    """Bytes from the end of one payload to the beginning of the next: blank line and field names."""
    event: str
    """The type of all of them."""
    last_event_id: str
    """The last event ID of the stream when they were dispatched."""

    def offset_of(self, index: int) -> int:
        """Where the event at `index` of this run begins, in bytes of the body."""
        return self.byte_offset + sum(map(len, self.payloads[:index])) + index * self.stride

    def messages(self) -> list[MessageEvent]:
        """The events, decoded."""
        texts: list[Any] = self.payloads
        if isinstance(texts[0], bytes):
            if len(texts) == 1:  # the commonest run of a live stream
                return [
                    MessageEvent(
                        texts[0].decode("utf-8", "replace"), self.event, self.last_event_id, self.byte_offset
                    )
                ]
            texts = [payload.decode("utf-8", "replace") for payload in texts]
        offset, stride, offsets = self.byte_offset, self.stride, []
        for payload in self.payloads:
            offsets.append(offset)
            offset += len(payload) + stride
        return list(map(MessageEvent, texts, repeat(self.event), repeat(self.last_event_id), offsets))
