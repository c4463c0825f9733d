"""The parser follows the standard, however the bytes are cut: vectors, a naive reference, hostile streams."""

import base64
import codecs
import itertools
import json
import sys
import tracemalloc
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pytest
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from hypothesis import example, given
from hypothesis import strategies as st

from cutover.sse import parser as parser_module
from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, Run, StreamEvent, Truncated
from cutover.sse.parser import EventStreamParser
from tests.support.paths import FIXTURES
from tests.support.reference_parser import interpret

VECTORS = json.loads((FIXTURES / "event-stream/vectors.json").read_bytes())

FRAGMENTS = [
    b"data: ", b"data:", b"data", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"x", b"event: a", b"event: b", b"event:",
    b"id: 1", b"id: \0", b"id", b"retry: 5", b"retry: 5x", b": c", b":", b"\xef\xbb\xbf", b"\xff", b"\xe2\x80", b"\xa8", b" ",
    b"data: yy\n\n", b"data: yy\n\n" * 3, b"data: yy\r\n\r\n", b"event: a\ndata: zz\n\n", "data: é\n\n".encode(),
    b"event: a\ndata: zz\n\n" * 3, b"data: " + b"L" * 1500 + b"\n\n", b"event: a\ndata: " + b"M" * 1500 + b"\n\n",
    b"data: " + b"N" * 1500 + b"\r\n\r\n",
]  # fmt: skip
BODIES = st.lists(st.sampled_from(FRAGMENTS) | st.binary(max_size=3), max_size=16).map(b"".join)
BOUNDS = st.sampled_from([1 << 20, 1 << 20, 1510, 5, 8, 9, 12])

Outcome = tuple[list[StreamEvent], str, int | None]


def parse(chunks: Iterable[bytes], *, max_event_bytes: int = 1 << 20) -> Outcome:
    parser = EventStreamParser(max_event_bytes=max_event_bytes)
    events = [event for chunk in chunks for event in parser.receive_data(chunk)]
    events += parser.receive_eof()
    return events, parser.last_event_id, parser.invalid_utf8_offset


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(bounds)]


def splits(body: bytes) -> Iterator[Sequence[bytes]]:
    yield [body]
    yield [body[at : at + 1] for at in range(len(body))]
    for size in (2, 3, 7):
        yield [body[at : at + size] for at in range(0, len(body), size)]
    for at in range(len(body) + 1):
        yield [body[:at], body[at:]]


def messages(events: Iterable[StreamEvent]) -> list[dict[str, str]]:
    return [
        {"event": e.event, "data": e.data, "id": e.last_event_id}
        for e in events
        if isinstance(e, MessageEvent)
    ]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_a_vector_gives_its_events_at_every_split(vector: dict[str, Any]) -> None:
    body = base64.b64decode(vector["bytes_base64"])
    whole = parse([body])
    for chunks in splits(body):
        events, last_event_id, bad = parse(chunks)
        assert (events, last_event_id, bad) == whole
    events, last_event_id, _ = whole
    assert messages(events) == vector["expected_events"]
    assert last_event_id == vector["expected_last_event_id"]
    retries = [event.milliseconds for event in events if isinstance(event, Retry)]
    assert (retries[-1] if retries else None) == vector["expected_retry"]


@given(body=BODIES, places=st.lists(st.integers(min_value=0, max_value=10_000), max_size=6), bound=BOUNDS)
@example(body=b"event: a\ndata: zz\n\n\r\ndata: yy\r\n\r\n", places=[], bound=1 << 20)
@example(body=b"data: x\n\n\ndata: y\n\n", places=[8], bound=1 << 20)
@example(body=b"\xef\xbb\xbf\n", places=[2], bound=1)
@example(body=b"\xef\xbb", places=[1], bound=1)
def test_every_split_gives_the_events_of_the_naive_reference(
    body: bytes, places: list[int], bound: int
) -> None:
    expected = interpret(body, max_event_bytes=bound)
    assert parse([body], max_event_bytes=bound) == expected
    assert parse(cut(body, places), max_event_bytes=bound) == expected
    assert parse((body[at : at + 1] for at in range(len(body))), max_event_bytes=bound) == expected


@given(
    texts=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0"), min_size=1),
        max_size=30,
    ),
    shape=st.sampled_from(["data: {}", "event: delta\ndata: {}", ": note\ndata: {}"]),
    eol=st.sampled_from(["\n", "\r\n"]),
    size=st.integers(min_value=1, max_value=64),
)
def test_regular_streams_agree_with_httpx_sse(texts: list[str], shape: str, eol: str, size: int) -> None:
    """The streams stay where httpx-sse follows the standard: no BOM, no id, no event without data."""
    text = "".join((shape.format(each) + "\n\n").replace("\n", eol) for each in texts)
    lines, decoder, theirs = SSELineDecoder(), SSEDecoder(), []
    for line in [*lines.decode(text), *lines.flush()]:
        event = decoder.decode(line)
        if event is not None:
            theirs.append((event.event, event.data))
    body = text.encode()
    events, _, _ = parse(body[at : at + size] for at in range(0, len(body), size))
    assert [(each.event, each.data) for each in events if isinstance(each, MessageEvent)] == theirs


def test_an_event_is_returned_as_soon_as_its_blank_line_has_come() -> None:
    parser = EventStreamParser()
    assert parser.receive_data(b"data: a\n") == []
    assert list(parser.receive_data(b"\n")) == [MessageEvent("a", byte_offset=0)]
    assert list(parser.receive_data(b"data: b\r\n\r")) == [MessageEvent("b", byte_offset=9)]
    assert list(parser.receive_data(b"\n")) == []


def test_offsets_count_bytes_and_not_characters() -> None:
    events, _, _ = parse(["data: é\n\n: ok\n\ndata: ü\n\n".encode()])
    assert events == [MessageEvent("é", byte_offset=0), Comment("ok", 10), MessageEvent("ü", byte_offset=16)]


def test_an_event_that_the_end_cuts_off_is_kept_as_evidence() -> None:
    events, _, _ = parse([b"id: 1\ndata: a\ndata: b"])
    assert events == [Truncated(b"data: a\ndata: b", 0)]
    assert parse([b"data: a\n\n: half a comm"])[0] == [MessageEvent("a")]


@pytest.mark.parametrize(
    "chunks", [[b"id: 7\n\nid: 8\0\ndata: x\n\n"], [b"id: 7\n\nid: 8\0\n", b"data: x\n\n"]]
)
def test_an_id_with_nul_leaves_the_id_as_it_was(chunks: list[bytes]) -> None:
    events, last_event_id, _ = parse(chunks)
    assert messages(events) == [{"event": "message", "data": "x", "id": "7"}]
    assert last_event_id == "7"


def test_a_huge_retry_is_capped() -> None:
    assert parse([b"retry: " + b"9" * 5000 + b"\n"])[0] == [Retry(10**18, 0)]
    assert parse([b"retry: 000\n"])[0] == [Retry(0, 0)]


def test_a_bound_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="max_event_bytes"):
        EventStreamParser(max_event_bytes=0)


HOSTILE = {
    "one line that never ends": [b"x" * 8192] * 64,
    "a comment that never ends": [b": "] + [b"x" * 8192] * 64,
    "data lines without a blank line": [b"data: x\n" * 512] * 16,
    "data lines, each cut": [b"data: x", b"\n"] * 1024,
    "blank lines": [b"\n" * 4096] * 4,
    "lone CR at each end": [b"data: x\r"] * 1024,
    "a byte at a time": [b"d"] * 4096,
    "bad UTF-8": [b"data: \xff\xfe\n\n" * 512] * 4,
    "NUL": [b"\0" * 8192] * 32,
}


@pytest.mark.parametrize("chunks", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_stream_costs_a_bounded_amount_of_work_for_each_byte(chunks: list[bytes]) -> None:
    """Twice the stream runs at most twice as many lines of code. The test counts work and not time, so it is stable."""
    once, twice = work(chunks), work(chunks * 2)
    assert twice <= 2.2 * once + 1000


def work(chunks: list[bytes]) -> int:
    """Return the work for these chunks: lines of the parser that ran, and 64 kept bytes read again count as one."""
    parser = EventStreamParser(max_event_bytes=20_000)
    lines = again = 0

    def trace(frame: Any, event: str, _: object) -> Any:
        nonlocal lines
        lines += event == "line" and frame.f_code.co_filename == parser_module.__file__
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        for chunk in chunks:
            again += len(parser._line) if b"\n" in chunk or b"\r" in chunk else 0
            parser.receive_data(chunk)
    finally:
        sys.settrace(before)
    assert lines
    return lines + again // 64


def held(parser: EventStreamParser) -> int:
    """Return the number of bytes that the parser keeps."""
    return len(parser._line) + sum(map(len, parser._data))


@pytest.mark.parametrize("chunks", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_stream_makes_the_parser_keep_no_more_than_twice_the_bound(chunks: list[bytes]) -> None:
    parser = EventStreamParser(max_event_bytes=20_000)
    for chunk in chunks * 4:
        parser.receive_data(chunk)
        assert held(parser) <= 2 * 20_000


@pytest.mark.parametrize("line", [b"\n", b"data: x\n"])
def test_a_chunk_of_many_lines_is_split_tile_by_tile(line: bytes) -> None:
    chunk = line * ((1 << 20) // len(line))
    parser = EventStreamParser(max_event_bytes=20_000)
    parser.receive_data(line)
    tracemalloc.start()
    try:
        parser.receive_data(chunk)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * len(chunk)


@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
def test_an_event_past_the_bound_is_reported_once_and_the_next_is_read(size: int) -> None:
    body = b"data: a\n\ndata: " + b"x" * 500 + b"\ndata: more\n: and more\n\ndata: b\n\n"
    events, _, _ = parse((body[at : at + size] for at in range(0, len(body), size)), max_event_bytes=100)
    assert events == [MessageEvent("a"), Oversized(101, 9), MessageEvent("b", byte_offset=len(body) - 9)]


@pytest.mark.parametrize("size", [8, 64, 1 << 20])
def test_many_short_data_lines_exceed_the_bound_together(size: int) -> None:
    body = b"data: x\n" * 100 + b"\ndata: b\n\n"
    events, _, _ = parse((body[at : at + size] for at in range(0, len(body), size)), max_event_bytes=100)
    assert events == [Oversized(101, 0), MessageEvent("b", byte_offset=len(body) - 9)]


def test_an_endless_event_is_reported_once_it_exceeds_the_bound() -> None:
    parser = EventStreamParser(max_event_bytes=100)
    assert parser.receive_data(b"data: " + b"x" * 90) == []
    assert list(parser.receive_data(b"x" * 10)) == [Oversized(101, 0)]
    assert list(parser.receive_data(b"x" * 1000)) == []
    assert parser.receive_eof() == ()


def test_text_is_decoded_as_the_standard_says_wherever_it_is_cut() -> None:
    body = b"data: \xf0\x9f\x98\x80 \xe2\x80 \xff\n\n"
    expected = codecs.decode(body, "utf-8", "replace")[6:-2]
    for at in range(len(body)):
        events, _, bad = parse([body[:at], body[at:]])
        assert events == [MessageEvent(expected)]
        assert bad == 11


@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
@pytest.mark.parametrize("between", [b"", b"event: kind", b": a comment", b"data: more"])
def test_large_events_are_read_correctly_whatever_lies_between_them(eol: bytes, between: bytes) -> None:
    large = b"x" * 20_000
    second = between + eol + b"data: " + large if between else b"data: " + large
    body = b"data: " + large + eol + eol + second + eol + eol + b"data: last" + eol + eol
    parser = EventStreamParser()
    events = [event for event in parser.receive_data(body) if isinstance(event, MessageEvent)]
    more = "more\n" if between == b"data: more" else ""
    assert [event.data for event in events] == [large.decode(), more + large.decode(), "last"]
    assert [event.event for event in events][1] == ("kind" if between == b"event: kind" else "message")
    assert events[0].byte_offset == 0
    assert events[2].byte_offset == body.rindex(b"data: last")


def test_a_bom_may_be_cut_anywhere() -> None:
    body = b"\xef\xbb\xbfdata: a\r\n\r\n"
    for size in range(1, len(body) + 1):
        parser = EventStreamParser()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        events = [event for piece in pieces for event in parser.receive_data(piece)]
        assert [(event.data, event.byte_offset) for event in events if isinstance(event, MessageEvent)] == [
            ("a", 3)
        ]


@pytest.mark.parametrize("size", [1, 3, 1 << 20])
def test_a_second_bom_is_data(size: int) -> None:
    body = b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n"
    events, _, _ = parse(body[at : at + size] for at in range(0, len(body), size))
    assert events == [MessageEvent("b", byte_offset=15)], "no field is called \ufeffdata"


@pytest.mark.parametrize("size", [500, 5000])
def test_the_offset_of_bad_utf8_is_right_when_each_event_comes_by_itself(size: int) -> None:
    first, second = b"data: a\n\n", b"data: " + b"x" * size + b"\xff\n\n"
    _, _, bad = parse([first, first, second])
    assert bad == 2 * len(first) + 6 + size


def test_events_whose_names_alternate_are_read_as_if_each_came_by_itself() -> None:
    names = ("a", "b", "message", "", "é", "a b")
    shapes = (
        "event: {0}\ndata: {1}\n\n",
        "event:{0}\ndata:{1}\n\n",
        "id: {1}\nevent: {0}\ndata: {1}\n\n",
        ": {0}\n\n",
    )
    texts = ("x", "äöü", "x\ndata: y", "")
    events = [
        shapes[number % len(shapes)].format(names[number % len(names)], texts[number // 3 % len(texts)])
        for number in range(400)
    ]
    events += [f"event: {names[number % 2]}\ndata: {texts[number // 2 % 2]}\n\n" for number in range(400)]
    body = "".join(events).encode()
    expected, identifier, _ = interpret(body)
    for size in (1 << 20, 5000, 300, 41):
        parser = EventStreamParser()
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        assert [event for piece in pieces for event in parser.receive_data(piece)] == expected
        assert parser.last_event_id == identifier
    parser = EventStreamParser()
    whole = (event for each in events for event in parser.receive_data(each.encode()))
    assert list(whole) == expected


def test_long_events_that_are_not_ascii_come_as_bytes_in_one_run() -> None:
    payload = ("é" * 2000).encode()
    parser = EventStreamParser()
    parser.receive_data(b"\n")
    (run,) = parser.receive_runs(b"data: %b\n\n" % payload * 3)
    assert isinstance(run, Run)
    assert run.payloads == [payload] * 3
