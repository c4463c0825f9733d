"""Server-Sent Events: bytes in, stream events out, by WHATWG HTML 9.2.5 and 9.2.6, however the bytes are cut.

There is one set of rules and two ways to apply them. `_read_lines` interprets bytes line by line, whatever they are: it is the
standard, spelled out. `_read_tile` applies it wholesale: most streams repeat one shape (`data: `, payload, blank line), so it
splits a tile of the stream on what stands between two payloads. A payload that still holds a line end, or is too long, was not
of that shape after all, and it alone goes line by line.

Nothing is normalised before it is split, so lengths are byte offsets; and text is decoded after it is split, which changes
nothing, since neither LF nor CR can lie inside a UTF-8 sequence.

It is long on purpose: the fast path and the exact path stand side by side, so that a reader sees that they are the same rules.
"""

from collections.abc import Sequence
from itertools import repeat
from typing import Any, TypeAlias

import attrs
import msgspec

_BOM = b"\xef\xbb\xbf"
_LF, _CR, _COLON = 10, 13, 58
_TILE = 128 * 1024
"""Bytes looked at in one go: it bounds what splitting into lines can cost in memory."""
_LARGE = 1024
"""Bytes of an event from which on copying it costs more than looking at it."""
_RETRY_DIGITS = 18
"""A `retry` of this many digits or more counts as the power of ten with as many zeros: for ever, either way."""


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


class _Shape(msgspec.Struct, frozen=True, gc=False):
    """What a regular event looks like, but for its payload."""

    prefix: bytes
    """What stands before the payload."""
    separator: bytes
    """The blank line after it, and the prefix of the next."""
    stride: int
    """Bytes of the separator."""
    event: str
    """The type."""


@attrs.define(eq=False, kw_only=True)
class EventStreamParser:
    """Interprets an event stream incrementally, in bounded memory and linear time.

    Raises:
        ValueError: `max_event_bytes` is not positive.
    """

    max_event_bytes: int = 1 << 20
    """Bytes that the `data` lines of an event, or one line of any kind, may have: an event with more is `Oversized`."""
    last_event_id: str = attrs.field(default="", init=False)
    """The last event ID, as of the last dispatch."""
    received: int = attrs.field(default=0, init=False)
    """Bytes received."""
    last_offset: int = attrs.field(default=0, init=False)
    """Where the event of the last `receive_one` begins."""
    invalid_utf8_offset: int | None = attrs.field(default=None, init=False)
    """Offset of the first byte that is not UTF-8, if any: a client sees U+FFFD in its place (WHATWG HTML 9.2.5)."""

    _started: bool = attrs.field(default=False, init=False)  # whether a leading BOM was looked for
    _shape: _Shape = attrs.field(
        default=_Shape(b"data: ", b"\n\ndata: ", 8, "message"), init=False
    )  # of the last tile
    _on_first_line: bool = attrs.field(
        default=False, init=False
    )  # all that is below is empty, but perhaps the line
    _line: bytearray = attrs.field(factory=bytearray, init=False)  # a line whose end has not come yet
    _after_cr: bool = attrs.field(
        default=False, init=False
    )  # the last line ended in CR: an LF next belongs to it
    _dropping: bool = attrs.field(default=False, init=False)  # inside an oversized event
    _begins: int | None = attrs.field(
        default=None, init=False
    )  # offset of the first field line of the event in progress
    _data: list[bytes] = attrs.field(factory=list, init=False)  # its `data` lines
    _size: int = attrs.field(default=0, init=False)  # their bytes
    _event: bytes = attrs.field(default=b"", init=False)  # its type, if it sets one
    _id: bytes | None = attrs.field(
        default=None, init=False
    )  # the last event ID that its dispatch will set, if any

    def __attrs_post_init__(self) -> None:
        if self.max_event_bytes < 1:
            raise ValueError(f"max_event_bytes must be positive, not {self.max_event_bytes}")

    def receive_data(self, data: bytes) -> Sequence[StreamEvent]:
        """The events that `data` completes, in their order."""
        payload = self.receive_one(data)
        if payload is not None:
            text, offset = payload.decode("utf-8", "replace"), self.received - len(data)
            return (MessageEvent(text, self._shape.event, self.last_event_id, offset),)
        events: list[StreamEvent] = []
        for item in self.receive_runs(data):
            if isinstance(item, Run):
                events.extend(item.messages())
            else:
                events.append(item)
        return events

    def receive_eof(self) -> Sequence[StreamEvent]:
        """The stream ended: the standard discards an event in progress; it is reported here as `Truncated`."""
        line, lost = bytes(self._line), self._data
        begins = self.received - len(line) if self._begins is None else self._begins
        if self._dropping:
            return ()
        self._note_encoding(line, self.received - len(line))
        if line and not line.startswith(b":"):
            lost = [*lost, line]
        return (Truncated(b"\n".join(lost), begins),) if lost else ()

    def receive_runs(self, data: bytes) -> Sequence[Run | StreamEvent]:
        """As `receive_data`, with message events of one shape left together: for a reader in a hurry."""
        items: list[Run | StreamEvent] = []
        if _LF not in data and _CR not in data and self._started:
            if data:
                self._grow_line(data, self.received, items)
                self.received += len(data)
            return items
        if self._on_first_line:
            if self._line:
                self.received -= len(self._line)
                data = bytes(self._line) + data  # put back, it makes the data begin between two events
                self._line.clear()
            end = data.rfind(b"\n\n") + 2 if len(data) <= _LARGE else 0
            payload = self.receive_one(data[:end]) if end else None
            if payload is not None:
                items.append(self._run_of_one(payload))
                data = data[end:]
        for at in range(0, len(data), _TILE):
            tile = data[at : at + _TILE]
            self.received += len(tile)
            self._receive_tile(tile, self.received - len(tile), items)
        return items

    def receive_one(self, data: bytes) -> bytes | None:
        """As `receive_data`, if `data` is one event of the usual shape, the commonest chunk of a live stream: its payload.

        Otherwise nothing is received, and the answer is None.
        """
        if not self._on_first_line or self._line:
            return None
        size, shape = len(data), self._shape
        if size > _LARGE and data.find(_LF) != size - 2:
            return None  # before any of it is copied
        payload = data.removeprefix(shape.prefix).removesuffix(b"\n\n")
        if (
            len(payload) + shape.stride != size
            or _LF in payload
            or _CR in payload
            or size > self.max_event_bytes
        ):
            return None
        self.last_offset = self.received
        self.received += size
        if not payload.isascii():
            self._note_encoding(data, self.received - size)
        return payload

    def _run_of_one(self, payload: bytes) -> Run:
        shape = self._shape
        return Run([payload], self.last_offset, shape.stride, shape.event, self.last_event_id)

    def _receive_tile(self, tile: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Finish the event in progress, then read what follows it."""
        if not self._started:
            tile, offset = self._drop_bom(tile, offset)
        if _LF not in tile and _CR not in tile:
            self._grow_line(tile, offset, items)
        elif self._on_first_line:
            begun = bytes(self._line)  # none, but in a tile that is not the first one of its data
            self._line.clear()
            self._read_tile(begun + tile, offset - len(begun), items)
        else:
            head, blank, rest = tile.partition(b"\r\n\r\n" if _CR in tile else b"\n\n")
            self._read_lines(head + blank, offset, items)
            if rest:
                self._read_tile(rest, offset + len(head) + len(blank), items)

    def _drop_bom(self, tile: bytes, offset: int) -> tuple[bytes, int]:
        """One leading BOM is no part of the stream (WHATWG HTML 9.2.5); a second one is data."""
        begun = bytes(self._line) + tile
        offset -= len(self._line)
        if len(begun) < len(_BOM) and _BOM.startswith(begun):
            return tile, self.received - len(tile)  # it may yet be one
        self._line.clear()
        self._started = self._on_first_line = True
        if begun.startswith(_BOM):
            return begun[len(_BOM) :], offset + len(_BOM)
        return begun, offset

    def _read_tile(self, tile: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Read bytes that begin between two events: wholesale where they repeat one shape, else line by line."""
        eol = b"\r\n" if _CR in tile else b"\n"
        end = tile.rfind(eol + eol, 0, tile.rfind(_LF) + 1)
        if end >= 0:
            end += 2 * len(eol)
            shape = self._shape_of(tile, eol)
            long = _split_long(tile, end, shape) if len(tile) <= self.max_event_bytes else []
            if long:
                items.append(self._run(long, offset, shape))
            else:
                before, payloads = _split(tile, end, shape)
                if before:
                    self._read_lines(tile[:before], offset, items)
                if payloads:
                    self._read_payloads(payloads, tile, before, offset, shape, items)
            tile = tile[end:]
            offset += end
        self._on_first_line = True
        if tile:
            self._read_lines(tile, offset, items)

    def _shape_of(self, tile: bytes, eol: bytes) -> _Shape:
        """The shape of the tile's first event: streams repeat it."""
        prefix, event = b"data: ", "message"
        if tile.startswith(b"event:"):
            line = tile[: tile.find(eol)]
            regular = (
                line.isascii() and _LF not in line and _CR not in line and len(line) <= self.max_event_bytes
            )
            if regular and tile.startswith(line + eol + prefix):
                prefix, event = line + eol + prefix, _value(line).decode() or event
        shape = _Shape(prefix, eol + eol + prefix, len(eol + eol + prefix), event)
        if eol == b"\n":
            self._shape = shape
        return shape

    def _read_payloads(
        self,
        payloads: list[Any],
        tile: bytes,
        at: int,
        offset: int,
        shape: _Shape,
        items: list[Run | StreamEvent],
    ) -> None:
        """Make runs of what was found in `tile` from `at` on; what is not of their shape goes line by line."""
        longest = self.max_event_bytes - len(b"data: ")
        if len(tile) <= longest and not _hold_line_end(payloads):
            items.append(self._run(payloads, offset + at, shape))
            return
        lf, cr = ("\n", "\r") if isinstance(payloads[0], str) else (_LF, _CR)
        first, begins = 0, at
        for index, payload in enumerate(payloads):
            following = at + len(payload) + shape.stride
            if lf in payload or cr in payload or len(payload) > longest:
                if first < index:
                    items.append(self._run(payloads[first:index], offset + begins, shape))
                self._read_lines(tile[at:following], offset + at, items)
                first, begins = index + 1, following
            at = following
        if first < len(payloads):
            items.append(self._run(payloads[first:], offset + begins, shape))

    def _run(self, payloads: list[Any], offset: int, shape: _Shape) -> Run:
        """Dispatch regular events: beside its one `data` line, each has at most a type."""
        if (
            self.invalid_utf8_offset is None
            and isinstance(payloads[0], bytes)
            and not all(map(bytes.isascii, payloads))
        ):
            self._note_encoding(shape.separator.join(payloads), offset + len(shape.prefix))
        return Run(payloads, offset, shape.stride, shape.event, self.last_event_id)

    def _read_lines(self, data: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Interpret bytes line by line; what is left of the last line waits for its end."""
        if self._after_cr and data.startswith(b"\n"):
            data, offset = data[1:], offset + 1
        if self._line:
            offset -= len(self._line)
            data = bytes(self._line) + data
            self._line.clear()
        if _CR in data:
            lines = data.splitlines(keepends=True)  # of bytes: at LF, CR and CRLF, and nowhere else
            rest = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
            for line in lines:
                self._read_line(line.rstrip(b"\r\n"), offset, items)
                offset += len(line)
            self._after_cr = data.endswith(b"\r")
        else:
            *lines, rest = data.split(b"\n")
            for line in lines:
                self._read_line(line, offset, items)
                offset += len(line) + 1
            self._after_cr = False
        self._on_first_line = self._begins is None and not self._after_cr and not self._dropping
        if rest:
            self._grow_line(rest, offset, items)

    def _grow_line(self, data: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Keep the beginning of a line, or more of it, up to the bound."""
        self._after_cr = False
        self._line += data
        if not self._dropping and self._size + len(self._line) > self.max_event_bytes:
            self._drop(offset + len(data) - len(self._line), items)
        if self._dropping:
            del self._line[1:]  # that the line is not empty is all that matters

    def _read_line(self, line: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Process one line: WHATWG HTML 9.2.6. Names are case-sensitive, and a field that is not known is ignored."""
        if not line:
            self._dispatch(items)
            return
        if self._dropping:
            return
        if self._size + len(line) > self.max_event_bytes:
            self._drop(offset, items)
            return
        if not line.isascii():
            self._note_encoding(line, offset)
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not name:
            items.append(Comment(value.decode("utf-8", "replace"), offset))
            return
        if self._begins is None:
            self._begins = offset
        if name == b"data":
            self._data.append(line)
            self._size += len(line)
        elif name == b"event":
            self._event = value
        else:
            self._read_rare_field(name, value, offset, items)

    def _read_rare_field(
        self, name: bytes, value: bytes, offset: int, items: list[Run | StreamEvent]
    ) -> None:
        if name == b"id" and 0 not in value:
            self._id = value
        elif name == b"retry" and value.isdigit():  # for bytes: ASCII digits, at least one
            digits = value.lstrip(b"0") or b"0"
            items.append(Retry(int(digits) if len(digits) < _RETRY_DIGITS else 10**_RETRY_DIGITS, offset))

    def _dispatch(self, items: list[Run | StreamEvent]) -> None:
        """A blank line: dispatch the event, if it has a `data` line, and forget it."""
        if self._id is not None:
            self.last_event_id = self._id.decode("utf-8", "replace")
            self._id = None
        if self._data:
            data = _value(self._data[0]) if len(self._data) == 1 else b"\n".join(map(_value, self._data))
            event = self._event.decode("utf-8", "replace") or "message"
            items.append(
                MessageEvent(data.decode("utf-8", "replace"), event, self.last_event_id, self._begins or 0)
            )
        if self._begins is not None:
            self._forget()
        self._dropping = False

    def _drop(self, line_offset: int, items: list[Run | StreamEvent]) -> None:
        """Give up the event in progress: what is left of it, up to its blank line, is skipped."""
        items.append(
            Oversized(self.max_event_bytes + 1, line_offset if self._begins is None else self._begins)
        )
        self._forget()
        self._dropping, self._on_first_line = True, False

    def _forget(self) -> None:
        self._begins = None
        self._data.clear()
        self._size = 0
        self._event = b""

    def _note_encoding(self, data: bytes, offset: int) -> None:
        if self.invalid_utf8_offset is None and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                self.invalid_utf8_offset = offset + error.start


def _split(tile: bytes, end: int, shape: _Shape) -> tuple[int, list[Any]]:
    """Split what stands before `end`, where a blank line ends: how much is not of this shape, and the payloads of the rest.

    The payloads are text if all of the tile is ASCII.
    """
    blank = len(shape.separator) - len(shape.prefix)
    parts: list[Any] = (
        tile.decode("ascii").split(shape.separator.decode())
        if tile.isascii()
        else tile.split(shape.separator)
    )
    unfinished = len(tile) - end
    if len(parts) > 1 and unfinished >= len(parts[-1]) + len(shape.prefix):
        parts.pop()  # the last blank line was that of the last separator
    else:
        parts[-1] = parts[-1][: len(parts[-1]) - unfinished - blank]
    if tile.startswith(shape.prefix):
        parts[0] = parts[0][len(shape.prefix) :]
        return 0, parts
    return len(parts.pop(0)) + blank, parts


def _split_long(tile: bytes, end: int, shape: _Shape) -> list[bytes]:
    """As `_split`, but line end by line end, which is faster where they are far apart; empty where it does not apply."""
    prefix, blank = shape.prefix, shape.separator.removesuffix(shape.prefix)
    payloads: list[bytes] = []
    at = 0
    if tile.find(_LF, len(prefix)) < _LARGE:
        return []
    while at < end:
        stop = tile.find(blank[0], at + len(prefix))
        payload = tile[at + len(prefix) : stop]
        if not (tile.startswith(prefix, at) and tile.startswith(blank, stop)) or (
            blank[0] == _CR and _LF in payload
        ):
            return []
        payloads.append(payload)
        at = stop + len(blank)
    return payloads


def _hold_line_end(payloads: list[Any]) -> bool:
    """Whether any of these holds CR or LF."""
    joined = payloads[0][:0].join(payloads)
    return ("\n" in joined or "\r" in joined) if isinstance(joined, str) else (_LF in joined or _CR in joined)


def _value(line: bytes) -> bytes:
    """What follows the first colon, less one leading space."""
    return line.partition(b":")[2].removeprefix(b" ")
