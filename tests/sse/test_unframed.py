"""Lines that are neither a field nor a comment, or misspell a field, are counted, however the bytes are cut; the first one is kept, with its place."""

import pytest

from cutover.sse.parser import EventStreamParser


def unframed(body: bytes, size: int) -> tuple[bytes, int, int] | None:
    parser = EventStreamParser()
    for at in range(0, len(body), size):
        parser.receive_data(body[at : at + size])
    parser.receive_eof()
    found = parser.unframed
    return None if found is None else (found.line, found.byte_offset, found.count)


GOOD = b"data: 1\n\n"


@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize(
    ("line", "count"),
    [
        (b'{"error": 1}', 1),
        (b"<html>", 1),
        (b" data: 1", 1),
        (b"Traceback (most recent call last):", 1),
        (b'"', 1),
        (b"x-trace: 1", 0),
        (b"unknown", 0),
        ("größe: 1".encode(), 0),
        (b"Data: {}", 1),
        (b"DATA: x", 1),
        (b"dat: {}", 1),
        (b"payload: [1]", 1),
        (b"error: upstream 500", 1),
        (b"id: \0", 0),
        (b"retry: {}", 0),
        (b": {}", 0),
        (b"event: {}", 0),
    ],
)
def test_a_line_that_does_not_begin_with_a_name_is_counted(
    line: bytes, count: int, eol: bytes, size: int
) -> None:
    body = (
        GOOD.replace(b"\n", eol) * 300
        + line
        + eol
        + eol
        + (b"data: " + b"x" * 400 + eol + eol) * 3
        + line
        + eol
        + GOOD
    )
    expected = (line, body.index(line), 2) if count else None
    assert unframed(body, size) == expected


def test_only_the_beginning_of_the_line_is_kept() -> None:
    assert unframed(b"{" * 5000 + b"\n", 3) == (b"{" * 1024, 0, 1)


def test_a_line_without_its_end_does_not_count() -> None:
    assert unframed(GOOD + b"{", 3) is None
