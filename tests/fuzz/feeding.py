"""The settings of an input: they decide the pieces in which its body comes."""

import itertools

SETTINGS = 6
"""Bytes at the beginning of an input: two settings for the target, and the sizes of four pieces, which repeat."""
_TILE = 128 * 1024
"""Bytes that the parser reads in one tile."""
_LARGE = 128
"""A size of this or more counts in units of 16 bytes."""


def settings_and_pieces(data: bytes) -> tuple[int, int, list[bytes]]:
    """Return the target's two settings, and the pieces of the body. Without a size, the body is one piece."""
    first, second, *sizes = data[:SETTINGS].ljust(SETTINGS, b"\0")
    return first, second, _cut(data[SETTINGS:], sizes)


def across_tiles(body: bytes) -> bytes:
    """Return a stream with the body twice, so far apart that the parser's tile ends within the second one."""
    between = _TILE - len(body) - len(body) // 2
    return body + b"\n:" + b"x" * (between - 3) + b"\n" + body


def _cut(body: bytes, sizes: list[int]) -> list[bytes]:
    """Return the pieces of the body, with these sizes in turn."""
    if not body or not any(sizes):
        return [body]
    pieces: list[bytes] = []
    at = 0
    # A size of zero gives an empty piece.
    for size in itertools.cycle(sizes):
        if at >= len(body):
            return pieces
        width = size if size < _LARGE else (size - _LARGE + 1) * 16
        pieces.append(body[at : at + width])
        at += width
    raise AssertionError("sizes repeat for ever")
