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
from itertools import groupby
from typing import Any

import attrs
import msgspec

from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, Run, StreamEvent, Truncated

_BOM = b"\xef\xbb\xbf"
_LF, _CR, _COLON = 10, 13, 58
_TILE = 128 * 1024
"""Bytes looked at in one go: it bounds what splitting into lines can cost in memory."""
_SMALL = 256
"""Bytes up to which reading line by line is faster than looking for what repeats."""
_LARGE = 1024
"""Bytes of an event from which on copying it costs more than looking at it."""
_RETRY_DIGITS = 18
"""A `retry` of this many digits or more counts as the power of ten with as many zeros: for ever, either way."""


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


def _shape(prefix: bytes, eol: bytes, event: str) -> _Shape:
    separator = eol + eol + prefix
    return _Shape(prefix, separator, len(separator), event)


_PLAIN = {eol: _shape(b"data: ", eol, "message") for eol in (b"\n", b"\r\n")}
"""Line end -> the shape of events that have no type."""


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
    _shape: _Shape = attrs.field(default=_PLAIN[b"\n"], init=False)  # of the last tile with LF
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
    _lines: list[bytes] = attrs.field(factory=list, init=False)  # its `data` lines, as they came
    _data: list[bytes] = attrs.field(factory=list, init=False)  # their values
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
            text = payload.decode("utf-8", "replace")
            return (MessageEvent(text, self._shape.event, self.last_event_id, self.last_offset),)
        events: list[StreamEvent] = []
        for item in self.receive_runs(data):
            if isinstance(item, Run):
                events.extend(item.messages())
            else:
                events.append(item)
        return events

    def receive_eof(self) -> Sequence[StreamEvent]:
        """The stream ended: the standard discards an event in progress; it is reported here as `Truncated`."""
        line, lost = bytes(self._line), self._lines
        begins = self.received - len(line) if self._begins is None else self._begins
        if self._dropping:
            return ()
        if len(line) > self.max_event_bytes:  # it was not dropped, since it might have been a BOM
            return (Oversized(self.max_event_bytes + 1, begins),)
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
        if len(data) <= _SMALL and self._started:
            if self._on_first_line and not self._line and _CR not in data:
                self._shape_of(data, b"\n")
            self._read_lines(data, self.received, items)
            self.received += len(data)
            return items
        if self._line and self._on_first_line:
            self.received -= len(self._line)
            data = b"".join((self._line, data))  # put back, it makes the data begin between two events
            self._line.clear()
        for at in range(0, len(data), _TILE):
            tile = data[at : at + _TILE]
            self.received += len(tile)
            self._receive_tile(tile, self.received - len(tile), items)
        return items

    def receive_one(self, data: bytes) -> bytes | None:
        """As `receive_data`, if `data` ends one event of the usual shape, the commonest chunk of a live stream: its payload.

        Otherwise nothing is received, and the answer is None.
        """
        if not self._on_first_line:
            return None
        size, shape = len(data), self._shape
        if size > _LARGE:
            return None if self._line else self._receive_one_large(data)
        if self._line:
            return self._receive_rest(data) if _LF in data else None
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
            self._note_encoding(data, self.last_offset)
        return payload

    def _receive_one_large(self, data: bytes) -> bytes | None:
        """As `receive_one`, but nothing is copied before it is known that it need be."""
        size, prefix = len(data), self._shape.prefix
        if (
            data.find(_LF, len(prefix)) != size - 2
            or not (data.startswith(prefix) and data.endswith(b"\n\n"))
            or _CR in data
            or size > self.max_event_bytes
        ):
            return None
        self.last_offset = self.received
        self.received += size
        if not data.isascii():
            self._note_encoding(data, self.last_offset)
        return data[len(prefix) : -2]

    def _receive_rest(self, data: bytes) -> bytes | None:
        """As `receive_one`, for an event whose beginning has come already; the beginning of the next line may follow it."""
        if data.endswith(b"\n\n"):
            return self._finish(data)
        end, size = data.find(_LF) + 2, len(data)
        if (
            not data.startswith(b"\n\n", end - 2)
            or data.find(_LF, end) >= 0
            or data.find(_CR, end) >= 0
            or size - end > self.max_event_bytes
        ):
            return None
        payload = self._finish(data[:end])
        if payload is not None:
            self._line += data[end:]
            self.received += size - end
        return payload

    def _finish(self, rest: bytes) -> bytes | None:
        """Put what has come of an event before the rest of it."""
        begun = bytes(self._line)
        self._line.clear()
        self.received -= len(begun)
        whole = begun + rest
        payload = self.receive_one(whole) if len(whole) <= _LARGE else self._receive_one_large(whole)
        if payload is None:
            self._line += begun
            self.received += len(begun)
        return payload

    def _receive_tile(self, tile: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Finish the event in progress, then read what follows it."""
        if not self._started:
            tile, offset = self._drop_bom(tile, offset)
        if not self._started:
            self._line += tile
        elif _LF not in tile and _CR not in tile:
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
                self._read_block(tile[:end], offset, shape, items)
            tile = tile[end:]
            offset += end
        self._on_first_line = True
        if _LF in tile or _CR in tile:
            self._read_lines(tile, offset, items)
        elif tile:
            self._grow_line(tile, offset, items)

    def _shape_of(self, tile: bytes, eol: bytes) -> _Shape:
        """The shape of the tile's first event: streams repeat it."""
        if eol == b"\n" and tile.startswith(self._shape.prefix):
            return self._shape
        shape = _PLAIN[eol]
        if tile.startswith(b"event:"):
            line = tile[: tile.find(eol)]
            regular = (
                line.isascii() and _LF not in line and _CR not in line and len(line) <= self.max_event_bytes
            )
            if regular and tile.startswith(line + eol + b"data: "):
                shape = _shape(line + eol + b"data: ", eol, _value(line).decode() or "message")
        if eol == b"\n":
            self._shape = shape
        return shape

    def _read_block(self, block: bytes, offset: int, shape: _Shape, items: list[Run | StreamEvent]) -> None:
        """Make runs of whole events; what is not of their shape goes line by line."""
        at, payloads = _split(block, shape)
        if at:
            self._read_lines(block[:at], offset, items)
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
                self._read_lines(block[at:end], offset + at, items)
            else:
                items.append(self._run(alike, offset + at, shape))
            first, at = first + len(alike), end

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
        """Keep the beginning of a line, or more of it, up to the bound."""
        self._after_cr = False
        self._line += data
        if self._size + len(self._line) > self.max_event_bytes and not self._dropping:
            self._drop(offset + len(data) - len(self._line), items)
        if self._dropping:
            del self._line[1:]  # that the line is not empty is all that matters

    def _read_line(self, line: bytes, offset: int, items: list[Run | StreamEvent]) -> None:
        """Process one line: WHATWG HTML 9.2.6. Names are case-sensitive, and a field that is not known is ignored."""
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
        self._dropping = False
        if self._id is not None:
            self.last_event_id = self._id.decode("utf-8", "replace")
            self._id = None
        if self._begins is None:
            return
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            event = self._event.decode("utf-8", "replace") if self._event else "message"
            text = data.decode("utf-8", "replace")
            items.append(MessageEvent(text, event, self.last_event_id, self._begins))
        self._forget()

    def _drop(self, line_offset: int, items: list[Run | StreamEvent]) -> None:
        """Give up the event in progress: what is left of it, up to its blank line, is skipped."""
        items.append(
            Oversized(self.max_event_bytes + 1, line_offset if self._begins is None else self._begins)
        )
        self._forget()
        self._dropping, self._on_first_line = True, False

    def _forget(self) -> None:
        self._begins = None
        self._lines.clear()
        self._data.clear()
        self._size = 0
        self._event = b""

    def _note_encoding(self, data: bytes, offset: int) -> None:
        if self.invalid_utf8_offset is None and not data.isascii():
            try:
                data.decode()
            except UnicodeDecodeError as error:
                self.invalid_utf8_offset = offset + error.start


def _split(block: bytes, shape: _Shape) -> tuple[int, list[Any]]:
    """Split whole events: how much is not of this shape, and the payloads of the rest; text, if all of it is ASCII."""
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
    """As `_split`, but line end by line end, which is faster where they are far apart; empty where it does not apply."""
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
    """Whether any of these holds CR or LF."""
    joined = payloads[0][:0].join(payloads)
    return ("\n" in joined or "\r" in joined) if isinstance(joined, str) else (_LF in joined or _CR in joined)


def _value(line: bytes) -> bytes:
    """What follows the first colon, less one leading space."""
    return line.partition(b":")[2].removeprefix(b" ")
