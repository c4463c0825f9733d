"""The parser of Server-Sent Events: bytes in, stream events out (WHATWG HTML 9.2.5 and 9.2.6).

The result does not depend on how the caller cuts the bytes into pieces.

The parser applies one set of rules in three ways:

- `_read_lines` is the exact path. It follows the standard line by line and accepts any bytes.
- `_read_tile` is the fast path for large pieces. Most streams repeat one shape: `data: `, a payload, a blank line. The path
  splits a tile (up to 128 KiB of the stream) at the bytes between two payloads, in one call of `split`. A payload that still
  holds a line end, or that is too long, does not have this shape: the parser reads it again by the exact path.
- `receive_one` is the fast path for a live stream, where a piece is usually one whole event of that shape.

The state between two calls is a few flags and buffers. Each has a sentence above it in `EventStreamParser`. The most
important one is `_on_first_line`: while it is set, no complete line of an event is stored, so the fast paths may start.

Two facts keep byte offsets exact. The parser changes no byte before it splits, so a length is a distance in the body.
And it decodes only ASCII before it splits, where a character is a byte. Other text is split first: this is safe because no
byte of a longer UTF-8 sequence equals LF or CR.

This module is long because the fast paths and the exact path stand side by side: a reader can compare their rules.
"""

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import attrs
import msgspec

from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, Run, StreamEvent, Truncated, Unframed

_BOM = b"\xef\xbb\xbf"
_REPLACEMENT = "\ufffd".encode()
_LF, _CR, _COLON = 10, 13, 58
_TILE = 128 * 1024
"""Bytes that are split in one call. It bounds the memory that a list of lines can take."""
_SMALL = 256
"""Bytes up to which the exact path is faster than the search for a repeated shape."""
_LARGE = 1024
"""Bytes above which an event is searched in place, since a copy would cost more."""
_MAX_SHAPES = 64
"""Number of shapes with an `event` line that a parser remembers. Most streams have a few dozen names."""
_UNFRAMED = 1024
"""Bytes that are kept of the first line that is no field."""
_NO_NAME = re.compile(rb"[^\w.\x80-\xff-]")
"""A byte that is in no name of a field, such as a space, a quotation mark, a brace or an angle bracket."""
_NAMES = frozenset({b"data", b"event", b"id", b"retry"})
"""The names of the fields of an event stream (WHATWG HTML 9.2.6)."""
_RETRY_DIGITS = 18
"""A `retry` value of this many digits or more counts as 10 to this power: longer than any client waits, and cheap to parse."""


class _Shape(msgspec.Struct, frozen=True, gc=False):
    """The bytes around the payload of a regular event: one optional `event` line, one `data` line, a blank line."""

    prefix: bytes
    """The bytes before the payload: the `event` line if there is one, then `data: `."""
    separator: bytes
    """The bytes between two payloads: the line end, the blank line, and the prefix of the next event."""
    stride: int
    """Length of the separator, in bytes."""
    event: str
    """The type of the event."""
    name: str | None
    """The value of the `event` line; None without one, or with an empty one."""


def _shape(prefix: bytes, eol: bytes, name: str | None = None) -> _Shape:
    """Return the shape with this prefix and line end, and this value of the `event` line."""
    separator = eol + eol + prefix
    return _Shape(prefix, separator, len(separator), name or "message", name)


_PLAIN = {eol: _shape(b"data: ", eol) for eol in (b"\n", b"\r\n")}
"""Line end -> the shape of events without an `event` line."""


def _is_lost(name: bytes, value: bytes) -> bool:
    """Return True if a line that the standard ignores was meant for the reader: it has no field name, a misspelt one, JSON or an error."""
    if name in _NAMES:
        return False
    is_meant = name.lower() in _NAMES or name == b"error" or value.startswith((b"{", b"["))
    return is_meant or _NO_NAME.search(name) is not None


@attrs.define(eq=False, kw_only=True)
class EventStreamParser:
    """An incremental parser of one event stream, with bounded memory and linear time.

    Call `receive_data` for each piece of the body and `receive_eof` at its end.

    Raises:
        ValueError: If `max_event_bytes` is not positive.
    """

    max_event_bytes: int = 1 << 20
    """Largest size of an event's `data` lines so far plus its current line of any sort, in bytes. Above it: `Oversized`."""
    last_event_id: str = attrs.field(default="", init=False)
    """The stream's last event ID, as of the last blank line."""
    received: int = attrs.field(default=0, init=False)
    """Bytes of the body received so far."""
    last_offset: int = attrs.field(default=0, init=False)
    """Position of the first byte of the event that the last `receive_one` returned, in bytes of the body."""
    last_name: str | None = attrs.field(default=None, init=False)
    """The value of the `event` line of the event that the last `receive_one` returned; None without one."""
    invalid_utf8_offset: int | None = attrs.field(default=None, init=False)
    """Position of the first byte that is not UTF-8; None without one. A client sees U+FFFD there (WHATWG HTML 9.2.5).

    The parser does not look into the dropped lines of an oversized event.
    """
    unframed: Unframed | None = attrs.field(default=None, init=False)
    """The complete lines that are neither a field nor a comment, such as an error in JSON; None without one.

    The standard ignores a field with any other name, and so these lines too: they are what does not begin with a name.
    The parser does not look into the dropped lines of an oversized event.
    """

    # Bytes up to which one event is small: it fits the bound, and to copy it costs little.
    _small: int = attrs.field(init=False)
    # True once the parser has decided whether the stream begins with a BOM. Until then no line is read.
    _started: bool = attrs.field(default=False, init=False)
    # The shape that the parser expects of the next event: the shape of the last event that `_shape_of` saw, if it ended in LF.
    _shape: _Shape = attrs.field(default=_PLAIN[b"\n"], init=False)
    # The bytes before the payload -> the shape, for shapes with an `event` line and LF that have come.
    _shapes: dict[bytes, _Shape] = attrs.field(factory=dict, init=False)
    # True while the parser stands between two events or inside the first line of one. All fields below are then
    # empty, except that `_line` may hold the beginning of that first line. The fast paths need this.
    _on_first_line: bool = attrs.field(default=False, init=False)
    # The beginning of a line whose line end has not come yet.
    _line: bytearray = attrs.field(factory=bytearray, init=False)
    # True if the last byte read was a CR. The CR ended its line; an LF that comes next belongs to the same line end.
    _after_cr: bool = attrs.field(default=False, init=False)
    # True inside an oversized event. All lines are skipped until the blank line that ends the event.
    _dropping: bool = attrs.field(default=False, init=False)
    # Position of the first field line of the event in progress, in bytes of the body; None before its first field line.
    _begins: int | None = attrs.field(default=None, init=False)
    # The `data` lines of the event in progress, with their field name. Only `Truncated` shows them.
    _lines: list[bytes] = attrs.field(factory=list, init=False)
    # The values of those `data` lines. The dispatch joins them.
    _data: list[bytes] = attrs.field(factory=list, init=False)
    # The total length of those `data` lines, in bytes. With the current line, it must not exceed `max_event_bytes`.
    _size: int = attrs.field(default=0, init=False)
    # The type that the event in progress sets; empty if it sets none.
    _event: bytes = attrs.field(default=b"", init=False)
    # The ID that the event in progress sets; None if it sets none. The next blank line makes it the last event ID.
    _id: bytes | None = attrs.field(default=None, init=False)
    # The last valid `retry` of the event in progress, in milliseconds; None if it sets none.
    _retry: int | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        if self.max_event_bytes < 1:
            raise ValueError(f"max_event_bytes must be positive, not {self.max_event_bytes}")
        self._small = min(_LARGE, self.max_event_bytes)

    def receive_data(self, data: bytes) -> Sequence[StreamEvent]:
        """Return the events that `data` completes, in the order of the stream.

        Args:
            data: The next bytes of the body, of any length.
        """
        payload = self.receive_one(data)
        if payload is not None:
            text = payload.decode("utf-8", "replace")
            shape = self._shape
            return (MessageEvent(text, shape.event, self.last_event_id, self.last_offset, shape.name),)
        events: list[StreamEvent] = []
        for item in self.receive_runs(data):
            if isinstance(item, Run):
                events.extend(item.messages())
            else:
                events.append(item)
        return events

    def receive_eof(self) -> Sequence[StreamEvent]:
        """Return the event that the end of the stream cuts off, if any: as `Truncated`, or `Oversized` above the bound.

        A client discards such an event (WHATWG HTML 9.2.6), but it is evidence. A cut comment, complete lines without a
        `data` line, and an event that was reported as `Oversized` before give nothing.
        """
        line, pending = bytes(self._line), self._lines
        begins = self.received - len(line) if self._begins is None else self._begins
        if self._dropping:
            return ()
        # The parser keeps a piece of a possible BOM without a check of the bound, so this piece may be above the bound.
        if len(line) > self.max_event_bytes:
            return (Oversized(self.max_event_bytes + 1, begins),)
        self._note_encoding(line, self.received - len(line))
        if line and not line.startswith(b":"):
            pending = [*pending, line]
        return (Truncated(b"\n".join(pending), begins),) if pending else ()

    def receive_runs(self, data: bytes) -> Sequence[Run | StreamEvent]:
        """Parse data as `receive_data` does, but group neighbouring message events of one shape into a `Run`.

        A caller that handles whole runs is faster than one that handles each event.
        """
        items: list[Run | StreamEvent] = []
        if _LF not in data and _CR not in data and self._started:
            if data:
                self._grow_line(data, self.received, items)
                self.received += len(data)
            return items
        if len(data) <= _SMALL and self._started:
            if self._on_first_line and not self._line and _CR not in data:
                self._shape_of(data, b"\n")
            self._read_lines(data, self.received, items)
            self.received += len(data)
            return items
        if self._line and self._on_first_line:
            self.received -= len(self._line)
            # With the beginning of the first line put back, the data begins between two events, as `_read_tile` needs.
            data = b"".join((self._line, data))
            self._line.clear()
        for at in range(0, len(data), _TILE):
            tile = data[at : at + _TILE]
            self.received += len(tile)
            self._receive_tile(tile, self.received - len(tile), items)
        return items

    def receive_one(self, data: bytes) -> bytes | None:
        """Return the payload of the one event that `data` completes, if the event has the expected shape; otherwise None.

        This is the most frequent case in a live stream. If the result is None, the parser has received nothing, and the
        caller must call `receive_data` or `receive_runs` with the same data. An event that holds U+FFFD gives None.
        """
        if not self._on_first_line:
            return None
        size, shape = len(data), self._shape
        if size > self._small:
            return None if self._line else self._receive_one_large(data)
        if self._line:
            return self._receive_rest(data) if _LF in data else None
        payload = data.removeprefix(shape.prefix).removesuffix(b"\n\n")
        if len(payload) + shape.stride != size:
            # Events of several names may alternate.
            shape = self._shapes.get(data[: data.find(b"\ndata: ") + 7], shape) if self._shapes else shape
            payload = data.removeprefix(shape.prefix).removesuffix(b"\n\n")
            if len(payload) + shape.stride != size:
                return None
        if _LF in payload or _CR in payload or not (payload.isascii() or self._note_whole(data)):
            return None
        if shape is not self._shape:
            self._shape, self.last_name = shape, shape.name
        self.last_offset = self.received
        self.received += size
        return payload

    def _receive_one_large(self, data: bytes) -> bytes | None:
        """Parse as `receive_one` does, for an event of more than `_LARGE` bytes. Only the payload is copied."""
        size, prefix = len(data), self._shape.prefix
        if (
            data.find(_LF, len(prefix)) != size - 2
            or not (data.startswith(prefix) and data.endswith(b"\n\n"))
            or _CR in data
            or size > self.max_event_bytes
        ):
            return None
        if not data.isascii() and not self._note_whole(data):
            return None
        self.last_offset = self.received
        self.received += size
        return data[len(prefix) : -2]

    def _note_whole(self, data: bytes) -> bool:
        """Note the first byte of one whole event that is not UTF-8, and return True.

        If the event holds U+FFFD, note nothing and return False: such events are rare, and `receive_runs` passes them on as bytes.
        """
        if _REPLACEMENT[0] in data and _REPLACEMENT in data:
            return False
        self._note_encoding(data, self.received)
        return True

    def _receive_rest(self, data: bytes) -> bytes | None:
        """Parse as `receive_one` does, for an event whose beginning is in `_line`.

        The data may also hold the beginning of the next event's first line, which is then kept in `_line`.
        """
        if data.endswith(b"\n\n"):
            return self._receive_with_beginning(data)
        end, size = data.find(_LF) + 2, len(data)
        if (
            not data.startswith(b"\n\n", end - 2)
            or data.find(_LF, end) >= 0
            or data.find(_CR, end) >= 0
            or size - end > self.max_event_bytes
        ):
            return None
        payload = self._receive_with_beginning(data[:end])
        if payload is not None:
            self._line += data[end:]
            self.received += size - end
        return payload

    def _receive_with_beginning(self, rest: bytes) -> bytes | None:
        """Parse as `receive_one` does, for `_line` and `rest` together. On None, `_line` is as before."""
        beginning = bytes(self._line)
        self._line.clear()
        self.received -= len(beginning)
        whole = beginning + rest
        payload = self.receive_one(whole) if len(whole) <= _LARGE else self._receive_one_large(whole)
        if payload is None:
            self._line += beginning
            self.received += len(beginning)
        return payload

    def _receive_tile(self, tile: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Read one tile: by the exact path to the end of the event in progress, then by the fast path."""
        if not self._started:
            tile, offset = self._drop_bom(tile, offset)
        if not self._started:
            self._line += tile
        elif _LF not in tile and _CR not in tile:
            self._grow_line(tile, offset, items)
        elif self._on_first_line:
            # `_line` is empty for the first tile of the data. For a later tile it may hold the beginning of a line.
            beginning = bytes(self._line)
            self._line.clear()
            self._read_tile(beginning + tile, offset - len(beginning), items)
        else:
            head, blank, rest = tile.partition(b"\r\n\r\n" if _CR in tile else b"\n\n")
            self._read_lines(head + blank, offset, items)
            if rest:
                self._read_tile(rest, offset + len(head) + len(blank), items)

    def _drop_bom(self, tile: bytes, offset: int) -> tuple[bytes, int]:
        """Return the stream's first bytes without one leading BOM, and their position in the body.

        The standard removes one BOM at the beginning of the stream (WHATWG HTML 9.2.5). A second one is data.
        If the bytes so far may still become a BOM, `_started` stays False and the tile is returned unchanged.
        """
        beginning = bytes(self._line) + tile
        offset -= len(self._line)
        if len(beginning) < len(_BOM) and _BOM.startswith(beginning):
            return tile, self.received - len(tile)
        self._line.clear()
        self._started = self._on_first_line = True
        if beginning.startswith(_BOM):
            return beginning[len(_BOM) :], offset + len(_BOM)
        return beginning, offset

    def _read_tile(self, tile: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Read bytes that begin between two events: whole events by the fast path, the rest by the exact path."""
        eol = b"\r\n" if _CR in tile else b"\n"
        end = tile.rfind(eol + eol, 0, tile.rfind(_LF) + 1)
        if end >= 0:
            end += 2 * len(eol)
            shape = self._shape_of(tile, eol)
            long = _split_long(tile, end, shape) if len(tile) <= self.max_event_bytes else []
            if long:
                items.append(self._run(long, offset, shape))
            else:
                self._read_block(tile[:end], offset, shape, items)
            tile = tile[end:]
            offset += end
        self._on_first_line = True
        if _LF in tile or _CR in tile:
            self._read_lines(tile, offset, items)
        elif tile:
            self._grow_line(tile, offset, items)

    def _shape_of(self, tile: bytes, eol: bytes) -> _Shape:
        """Return the shape of the tile's first event, or the plain shape if that event is irregular.

        If the line end is LF, also store the shape in `_shape`.
        """
        if eol == b"\n" and tile.startswith(self._shape.prefix):
            return self._shape
        shape = _PLAIN[eol]
        if tile.startswith(b"event:"):
            shape = self._named_shape(tile, eol) or shape
        if eol == b"\n":
            self._shape, self.last_name = shape, shape.name
        return shape

    def _named_shape(self, data: bytes, eol: bytes) -> _Shape | None:
        """Return the shape of an event that begins with `event:`; None if the event is irregular."""
        line = data[: data.find(eol)]
        prefix = line + eol + b"data: "
        if not (data.startswith(prefix) and line.startswith(b"event:")):
            return None
        known = self._shapes.get(prefix)
        if known is not None:
            return known
        if not line.isascii() or _LF in line or _CR in line or len(line) > self.max_event_bytes:
            return None
        shape = _shape(prefix, eol, _value(line).decode() or None)
        if eol == b"\n" and len(self._shapes) < _MAX_SHAPES:
            self._shapes[prefix] = shape
        return shape

    def _read_irregular(self, data: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Read whole events that do not have the expected shape.

        If they have names, each may have a shape of its own, which a look at its beginning tells. The exact path reads the others.
        """
        if b"event:" not in data or _CR in data:
            self._read_lines(data, offset, items)
            return
        shapes, longest = self._shapes, self.max_event_bytes
        for event in data.removesuffix(b"\n\n").split(b"\n\n"):
            shape = shapes.get(event[: event.find(b"\ndata: ") + 7]) or self._named_shape(event, b"\n")
            payload = b"" if shape is None else event[len(shape.prefix) :]
            if shape is None or _LF in payload or len(event) > longest:
                self._read_lines(event + b"\n\n", offset, items)
            elif payload.isascii():
                run = Run([payload], offset, shape.stride, shape.event, self.last_event_id, shape.name)
                items.append(run)
            else:
                items.append(self._run([payload], offset, shape))
            offset += len(event) + 2

    def _read_block(self, block: bytes, offset: int, shape: _Shape, items: list[Run | StreamEvent]) -> None:
        """Turn a block of whole events into runs. Events of another shape go to the exact path."""
        at, payloads = _split(block, shape)
        if at:
            self._read_irregular(block[:at], offset, items)
        longest = self.max_event_bytes - len(b"data: ")
        if len(block) <= longest and payloads and not _hold_line_end(payloads):
            items.append(self._run(payloads, offset + at, shape))
            return
        lf, cr = ("\n", "\r") if block.isascii() else (_LF, _CR)
        irregular = [lf in each or cr in each or len(each) > longest for each in payloads]
        first = 0
        for is_irregular, group in groupby(irregular):
            alike = payloads[first : first + len(list(group))]
            end = at + sum(map(len, alike)) + len(alike) * shape.stride
            if is_irregular:
                self._read_irregular(block[at:end], offset + at, items)
            else:
                items.append(self._run(alike, offset + at, shape))
            first, at = first + len(alike), end

    def _run(self, payloads: list[Any], offset: int, shape: _Shape) -> Run:
        """Return the run of these events. They set no ID, so the last event ID stays the same."""
        if (
            self.invalid_utf8_offset is None
            and isinstance(payloads[0], bytes)
            and not all(map(bytes.isascii, payloads))
        ):
            self._note_encoding(shape.separator.join(payloads), offset + len(shape.prefix))
        return Run(payloads, offset, shape.stride, shape.event, self.last_event_id, shape.name)

    def _read_lines(self, data: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Read bytes line by line. A last line without its line end is kept in `_line`."""
        if self._after_cr and data.startswith(b"\n"):
            data, offset = data[1:], offset + 1
        if self._line:
            offset -= len(self._line)
            data = bytes(self._line) + data
            self._line.clear()
        if _CR in data:
            # For bytes, `splitlines` splits at LF, CR and CRLF only: the line ends of WHATWG HTML 9.2.5.
            lines = data.splitlines(keepends=True)
            rest = b"" if data.endswith((b"\n", b"\r")) else lines.pop()
            for ended in lines:
                line = ended.rstrip(b"\r\n")
                if line:
                    self._read_line(line, offset, items)
                else:
                    self._dispatch(items)
                offset += len(ended)
            self._after_cr = data.endswith(b"\r")
        else:
            *lines, rest = data.split(b"\n")
            for line in lines:
                if line:
                    self._read_line(line, offset, items)
                else:
                    self._dispatch(items)
                offset += len(line) + 1
            self._after_cr = False
        self._on_first_line = self._begins is None and not self._after_cr and not self._dropping
        if rest:
            self._grow_line(rest, offset, items)

    def _grow_line(self, data: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Add bytes to the unfinished line. An event that becomes too large is dropped."""
        self._after_cr = False
        self._line += data
        if self._size + len(self._line) > self.max_event_bytes and not self._dropping:
            self._drop(offset + len(data) - len(self._line), items)
        if self._dropping:
            # One byte is enough to remember that the line is not blank.
            del self._line[1:]

    def _read_line(self, line: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Process one line that is not blank (WHATWG HTML 9.2.6). Names of fields are case-sensitive."""
        if self._dropping:
            return
        size = self._size + len(line)
        if size > self.max_event_bytes:
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
            self._lines.append(line)
            self._data.append(value)
            self._size = size
        elif name == b"event":
            self._event = value
        else:
            self._read_rare_field(name, value, line, offset, items)

    def _read_rare_field(
        self, name: bytes, value: bytes, line: bytes, offset: int, items: list[Run | StreamEvent]
    ) -> None:
        """Process an `id` or a `retry` field (WHATWG HTML 9.2.6). Ignore a bad value; ignore any other field, but count what is none."""
        # The standard ignores an ID that holds NUL.
        if name == b"id" and 0 not in value:
            self._id = value
        # For bytes, `isdigit` is True for one or more ASCII digits, which is the rule of the standard.
        elif name == b"retry" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            self._retry = int(digits) if len(digits) < _RETRY_DIGITS else 10**_RETRY_DIGITS
            items.append(Retry(self._retry, offset))
        elif _is_lost(name, value):
            if self.unframed is None:
                self.unframed = Unframed(line[:_UNFRAMED], offset)
            else:
                self.unframed.count += 1

    def _dispatch(self, items: list[Run | StreamEvent]) -> None:
        """Process a blank line: set the last event ID; dispatch the event if it has data (WHATWG HTML 9.2.6)."""
        self._dropping = False
        own_id = None
        if self._id is not None:
            own_id = self.last_event_id = self._id.decode("utf-8", "replace")
            self._id = None
        if self._begins is None:
            return
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            name = self._event.decode("utf-8", "replace") if self._event else None
            fields = (name or "message", self.last_event_id)
            if _REPLACEMENT[0] in data and _REPLACEMENT in data:
                # A text would not say whether U+FFFD was sent, or stands for bytes that are not UTF-8.
                items.append(Run([data], self._begins, 0, *fields, name, own_id, self._retry))
            else:
                text = data.decode("utf-8", "replace")
                items.append(MessageEvent(text, *fields, self._begins, name, own_id, self._retry))
        self._clear_event()

    def _drop(self, line_offset: int, items: list[Run | StreamEvent]) -> None:
        """Report the event in progress as `Oversized`, and skip its lines up to the blank line."""
        items.append(
            Oversized(self.max_event_bytes + 1, line_offset if self._begins is None else self._begins)
        )
        self._clear_event()
        self._dropping, self._on_first_line = True, False

    def _clear_event(self) -> None:
        """Reset the state of the event in progress, except for its ID: the next blank line makes it the last event ID."""
        self._begins = None
        self._lines.clear()
        self._data.clear()
        self._size = 0
        self._event = b""
        self._retry = None

    def _note_encoding(self, data: bytes, offset: int) -> None:
        """Set `invalid_utf8_offset` if `data`, which begins at `offset`, holds the stream's first byte that is not UTF-8."""
        if self.invalid_utf8_offset is None and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                self.invalid_utf8_offset = offset + error.start


def _split(block: bytes, shape: _Shape) -> tuple[int, list[Any]]:
    """Return the number of leading bytes that do not have this shape, and the payloads of the events after them.

    The payloads are text if the whole block is ASCII, and bytes otherwise. A payload may still hold a line end;
    the caller must check.
    """
    blank = len(shape.separator) - len(shape.prefix)
    parts: list[Any] = (
        block.decode("ascii").split(shape.separator.decode())
        if block.isascii()
        else block.split(shape.separator)
    )
    parts[-1] = parts[-1][:-blank]
    if block.startswith(shape.prefix):
        parts[0] = parts[0][len(shape.prefix) :]
        return 0, parts
    return len(parts.pop(0)) + blank, parts


def _split_long(tile: bytes, end: int, shape: _Shape) -> list[Any]:
    """Return the payloads in `tile[:end]`, by a search for one line end after another; faster than `_split` for long events.

    The result is empty if the first event is short (below `_LARGE` bytes), or if any event has another shape.
    """
    prefix, blank = shape.prefix, shape.separator.removesuffix(shape.prefix)
    at = 0
    if tile.find(_LF, len(prefix)) < _LARGE:
        return []
    view, payloads = memoryview(tile), []
    while at < end:
        stop = tile.find(blank[0], at + len(prefix))
        if not (tile.startswith(prefix, at) and tile.startswith(blank, stop)) or (
            blank[0] == _CR and tile.find(_LF, at + len(prefix), stop) >= 0
        ):
            return []
        payloads.append(view[at + len(prefix) : stop])
        at = stop + len(blank)
    try:
        return [str(payload, "ascii") for payload in payloads]
    except UnicodeDecodeError:
        return [bytes(payload) for payload in payloads]


def _hold_line_end(payloads: list[Any]) -> bool:
    """Return True if any of these payloads holds CR or LF."""
    joined = payloads[0][:0].join(payloads)
    return ("\n" in joined or "\r" in joined) if isinstance(joined, str) else (_LF in joined or _CR in joined)


def _value(line: bytes) -> bytes:
    """Return the value of a field line: the bytes after the first colon, without one leading space."""
    return line.partition(b":")[2].removeprefix(b" ")
