"""How an input says in which pieces its body comes."""

import itertools

SETTINGS = 6
"""Bytes at the beginning of an input: two that the target reads, and the sizes of four pieces, which repeat."""
_TILE = 128 * 1024
"""Bytes that the parser looks at in one go."""
_LARGE = 128
"""A size from here on counts in units of 16 bytes."""


def settings_and_pieces(data: bytes) -> tuple[int, int, list[bytes]]:
    """Return the target's two settings, and the body in its pieces; a body without a size comes in one."""
    first, second, *sizes = data[:SETTINGS].ljust(SETTINGS, b"\0")
    return first, second, _cut(data[SETTINGS:], sizes)


def across_tiles(body: bytes) -> bytes:
    """Return the body twice, so far apart that what the parser looks at in one go ends within the second."""
    between = _TILE - len(body) - len(body) // 2
    return body + b"\n:" + b"x" * (between - 3) + b"\n" + body


def _cut(body: bytes, sizes: list[int]) -> list[bytes]:
    if not body or not any(sizes):
        return [body]
    pieces: list[bytes] = []
    at = 0
    for size in itertools.cycle(sizes):  # an empty piece among others is one too
        if at >= len(body):
            return pieces
        width = size if size < _LARGE else (size - _LARGE + 1) * 16
        pieces.append(body[at : at + width])
        at += width
    raise AssertionError("sizes repeat for ever")
