"""The fuzz target for the parser: it agrees with the naive reference, in bounded memory."""

from collections.abc import Iterable

import attrs
import msgspec

from cutover.sse.events import StreamEvent
from cutover.sse.parser import EventStreamParser
from tests.fuzz.feeding import across_tiles, settings_and_pieces
from tests.support.reference_parser import interpret

_ATTRIBUTES = [field.name for field in attrs.fields(EventStreamParser)]
BOUNDS = (1 << 20, 5, 8, 9, 12, 100, 1510, 3000)


def check_parser(data: bytes) -> None:
    """Check that any bytes, cut in any way, give the events of the reference, and that memory stays bounded."""
    bound, long, pieces = settings_and_pieces(data)
    body = b"".join(pieces)
    if long % 64 == 1:
        body = across_tiles(body)
        pieces = [body[: len(pieces[0])], body[len(pieces[0]) :]]
    max_event_bytes = BOUNDS[bound % len(BOUNDS)]
    expected = interpret(body, max_event_bytes=max_event_bytes)
    for cut in (pieces, [body]):
        assert _parsed(cut, max_event_bytes) == expected


def _parsed(pieces: Iterable[bytes], max_event_bytes: int) -> tuple[list[StreamEvent], str, int | None]:
    """Return the results of the parser. Check after each piece that it keeps a bounded number of bytes."""
    parser = EventStreamParser(max_event_bytes=max_event_bytes)
    events: list[StreamEvent] = []
    for piece in pieces:
        events += parser.receive_data(piece)
        # The parser keeps up to eight strings of the bound: line, data (twice), type, two IDs, and the shape (twice).
        assert _held(parser) <= 8 * max_event_bytes + 64
    events += parser.receive_eof()
    return events, parser.last_event_id, parser.invalid_utf8_offset


def _held(parser: EventStreamParser) -> int:
    """Return the number of bytes that the parser keeps in all its attributes."""
    return sum(_size(getattr(parser, name)) for name in _ATTRIBUTES)


def _size(value: object) -> int:
    """Return the number of bytes in a value and in the values inside it."""
    if isinstance(value, bytes | bytearray | str):
        return len(value)
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.astuple(value)
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0
