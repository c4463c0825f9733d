"""The checker gives the same findings however bytes are cut, watches times and failures, and reports both."""

import itertools
import json
import tracemalloc
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.checking.recording import check_recording
from cutover.contract import ContractChecker, ContractReport, FailureKind
from cutover.contract.findings import Severity
from cutover.errors import ContractViolation
from cutover.protocols import AI_SDK_7, COMPAT_LANE, SHIPPED

START, STEP = {"type": "start"}, {"type": "start-step"}
END_STEP, FINISH, DONE = {"type": "finish-step"}, {"type": "finish"}, "[DONE]"
HEAD = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-vercel-ai-ui-message-stream", b"v1")]


def sse(*chunks: object) -> bytes:
    return "".join(
        f"data: {chunk if isinstance(chunk, str) else json.dumps(chunk)}\n\n" for chunk in chunks
    ).encode()


EVENTS = [
    sse(START), sse(STEP), sse(END_STEP), sse(FINISH), sse(DONE), sse({"type": "abort"}),
    sse({"type": "text-start", "id": "1", "turnId": "u"}), sse({"type": "text-end", "id": "1"}),
    sse({"type": "text-delta", "id": "1", "delta": "a", "channel": "assistant"}),
    sse({"type": "text-delta", "id": "1", "delta": "a"}) * 3, sse({"type": "text-delta", "id": "2", "delta": "b"}) * 2,
    sse({"type": "text-delta", "id": "1", "delta": "a", "seq": 1}), sse({"type": "text-delta", "id": 1, "delta": "a"}),
    sse({"type": "reasoning-start", "id": "1"}), sse({"type": "reasoning-delta", "id": "1", "delta": "x" * 1500}) * 2,
    sse({"type": "tool-input", "toolCallId": "c", "toolName": "t", "input": {"a": [1]}}),
    sse({"type": "tool-input-start", "toolCallId": "c", "toolName": "t"}),
    sse({"type": "tool-input-available", "toolCallId": "c", "toolName": "t", "input": {"__proto__": 1}}),
    sse({"type": "tool-input-available", "toolCallId": "c", "toolName": "t", "input": {"prototype": 1}}),
    sse({"type": "tool-output-available", "toolCallId": "c", "output": None}),
    sse({"type": "data-x", "data": 1}), sse({"type": "data-y", "data": {}, "id": "z"}) * 2, sse({"type": "data-x"}),
    sse({"type": "finish-step", "turnId": "v"}), sse({"type": "error", "errorText": "e"}),
    sse({"type": "error", "code": "c", "message": "m", "retryable": False}), sse({"type": "finish", "status": "error"}),
    sse("{"), sse("[]"), sse({"type": "odd"}), sse("NaN"), sse('{"type":"start","messageId":"\\ud83d"}'),
    b'data: {\ndata: "type":"start"}\n\n', b'event: x\ndata: {"type":"start"}\n\n', b": comment\n\n", b"\xff\n\n",
    b'data: {"type":"text-delta","id":"1","delta":"\xff"}\n\n', b"id: 1\n\n", b"retry: 1\n\n", b'data: {"ty', b"\r\n",
    b"data: " + b"y" * 3000 + b"\n\n",
]  # fmt: skip


def report_on(chunks: list[bytes], contract: Any) -> ContractReport:
    checker = ContractChecker(contract)
    for chunk in chunks:
        checker.receive_data(chunk, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    return checker.report()


@given(
    chosen=st.lists(st.integers(min_value=0, max_value=len(EVENTS) - 1), max_size=14),
    places=st.lists(st.integers(min_value=0, max_value=20_000), max_size=5),
    name=st.sampled_from(sorted(SHIPPED)),
    crlf=st.booleans(),
)
def test_findings_do_not_depend_on_how_the_bytes_are_cut(
    chosen: list[int],
    places: list[int],
    name: str,
    crlf: bool,
) -> None:
    contract = SHIPPED[name]
    bounded = attrs.evolve(contract, limits=attrs.evolve(contract.limits, max_event_bytes=2000))
    pieces = [EVENTS[at].replace(b"\n", b"\r\n") if crlf else EVENTS[at] for at in chosen]
    body = b"".join(pieces)
    whole = report_on([body], bounded)
    assert report_on(pieces, bounded) == whole
    assert report_on([body[at : at + 1] for at in range(len(body))], bounded) == whole
    bounds = [0, *sorted(place % (len(body) + 1) for place in places), len(body)]
    assert report_on([body[start:end] for start, end in itertools.pairwise(bounds)], bounded) == whole


def test_all_events_of_a_recording_longer_than_a_piece_are_checked() -> None:
    deltas = sse({"type": "text-delta", "id": "1", "delta": "x" * 100}) * 20_000
    body = sse(START, STEP, {"type": "text-start", "id": "1"}) + deltas
    report = check_recording(
        body + sse({"type": "text-end", "id": "1"}, END_STEP, FINISH, DONE), contract=AI_SDK_7
    )
    assert report.ok
    assert report.event_count == 20_007
    assert report.chunk_counts["text-delta"] == 20_000
    assert report.byte_count > 2 << 20


def test_the_events_of_a_long_recording_are_never_in_memory_together() -> None:
    """The memory stays below a few times the bound of one event, however long the recording is."""
    body = (
        sse({"type": "text-start", "id": "1"}) + sse({"type": "text-delta", "id": "1", "delta": "x"}) * 80_000
    )
    # The first check makes the decoders, which are kept and do not count here.
    check_recording(body[:10_000], contract=AI_SDK_7)
    tracemalloc.start()
    try:
        report = check_recording(body, contract=AI_SDK_7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.event_count == 80_001
    assert peak < 6 * AI_SDK_7.limits.max_event_bytes


def timed(*moments: tuple[float, bytes], contract: Any = COMPAT_LANE, end: float) -> ContractReport:
    checker = ContractChecker(contract)
    checker.receive_head(200, HEAD, elapsed=0.01)
    for elapsed, data in moments:
        checker.receive_data(data, elapsed=elapsed)
    checker.receive_eof(elapsed=end)
    return checker.report()


def test_the_report_has_the_times_of_the_stream() -> None:
    report = timed(
        (0.5, b": hi\n\n"), (1.0, sse(START)), (1.5, sse(STEP)), (4.0, sse(END_STEP, FINISH, DONE)), end=4.5
    )
    assert report.ok
    times = report.timings
    assert (times.head, times.first_byte, times.first_event, times.last_event) == (0.01, 0.5, 1.0, 4.0)
    assert (times.max_gap, times.end, times.streamed) == (2.5, 4.5, True)
    assert report.comment_count == 1
    assert str(times) == (
        "head 10 ms, first byte 500 ms, first event 1000 ms, last event 4000 ms, longest gap 2500 ms, end 4500 ms, streamed"
    )


def test_the_report_on_a_recording_has_no_times() -> None:
    report = check_recording(sse(START, STEP, END_STEP, FINISH, DONE))
    assert set(attrs.asdict(report.timings).values()) == {None}
    assert str(report.timings) == "no times are known"


def test_a_gap_is_found_when_its_event_comes_and_comments_do_not_shorten_it() -> None:
    keepalive = [(float(second), b": ping\n\n") for second in range(1, 20)]
    report = timed(
        (0.1, sse(START)), *keepalive, (20.0, sse(STEP)), (20.1, sse(END_STEP, FINISH, DONE)), end=20.2
    )
    (finding,) = report.findings
    assert (finding.rule, finding.event_index, finding.byte_offset) == (
        "timing.event-gap",
        1,
        len(sse(START)) + 19 * 8,
    )
    assert "19.900 s" in finding.message


def test_every_gap_that_is_too_long_is_found_even_at_the_end() -> None:
    report = timed((0.1, sse(START)), (30.0, sse(STEP)), (50.0, sse(END_STEP, FINISH, DONE)), end=90.0)
    assert [finding.rule for finding in report.findings] == ["timing.event-gap"] * 3


def test_a_stream_that_ends_too_late_gives_one_finding() -> None:
    contract = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, whole=10.0))
    report = timed((0.1, sse(START, STEP)), (9.0, sse(END_STEP, FINISH, DONE)), contract=contract, end=11.0)
    assert [finding.rule for finding in report.findings] == ["timing.deadline"]
    report = timed(
        (0.1, sse(START, STEP)), (10.5, sse(END_STEP)), (11.0, sse(FINISH, DONE)), contract=contract, end=11.0
    )
    assert [finding.rule for finding in report.findings] == ["timing.deadline"]


@pytest.mark.parametrize(
    ("first", "last", "held_back"),
    [(0.9, 0.9, False), (1.0, 1.0, True), (1.0, 1.09, True), (1.0, 1.2, False), (9.0, 9.0, True)],
)
def test_events_that_come_all_at_once_after_a_wait_were_not_streamed(
    first: float, last: float, held_back: bool
) -> None:
    contract = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, first_event=10.0))
    report = timed(
        (first, sse(START, STEP)), (last, sse(END_STEP, FINISH, DONE)), contract=contract, end=last
    )
    assert ("timing.not-streamed" in {finding.rule for finding in report.findings}) is held_back
    assert report.timings.streamed is (last > first)
    if held_back:
        assert "not streamed" in report.findings[0].message


@pytest.mark.parametrize(
    ("head_at", "length", "rule"),
    [
        (1.5, True, "timing.held-back"),
        (1.5, False, "timing.not-streamed"),
        (0.1, True, "timing.not-streamed"),
    ],
)
def test_a_late_answer_in_one_piece_of_announced_length_counts_as_held_back(
    head_at: float, length: bool, rule: str
) -> None:
    body = sse(START, STEP, END_STEP, FINISH, DONE)
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_head(200, [*HEAD, *[(b"content-length", b"%d" % len(body))] * length], elapsed=head_at)
    checker.receive_data(body, elapsed=1.5)
    assert [finding.rule for finding in checker.receive_eof(elapsed=1.5)] == [rule]


def test_the_next_deadline_follows_the_events() -> None:
    checker = ContractChecker(COMPAT_LANE)
    assert checker.next_deadline == 5.0
    checker.receive_head(200, HEAD, elapsed=1.0)
    checker.receive_data(b": ping\n\n", elapsed=3.0)
    assert checker.next_deadline == 5.0, "a comment is no event"
    checker.receive_data(sse(START), elapsed=4.0)
    assert checker.next_deadline == 19.0
    checker.receive_data(sse(STEP), elapsed=110.0)
    assert checker.next_deadline == 120.0
    checker.receive_eof(elapsed=111.0)
    assert checker.next_deadline is None


@pytest.mark.parametrize(
    ("kind", "sent", "rule"),
    [
        (FailureKind.UNREACHABLE, b"", "transport.unreachable"),
        (FailureKind.RESET, sse(START), "transport.reset"),
        (FailureKind.STALL, b": ping\n\n", "timing.first-event"),
        (FailureKind.STALL, sse(START), "timing.event-gap"),
        (FailureKind.DEADLINE, sse(START), "timing.deadline"),
    ],
)
@pytest.mark.parametrize("contract", [COMPAT_LANE, AI_SDK_7], ids=lambda contract: contract.name)
def test_a_stream_that_fails_gives_one_violation(
    kind: FailureKind, sent: bytes, rule: str, contract: Any
) -> None:
    checker = ContractChecker(contract)
    checker.receive_data(sent, elapsed=0.1)
    found = checker.receive_failure(kind, elapsed=7.0)
    assert [(finding.rule, finding.severity) for finding in found] == [(rule, Severity.VIOLATION)]
    report = checker.report()
    assert report.interrupted is kind
    assert not report.complete
    assert not report.ok


def test_bad_utf8_is_reported_even_if_the_stream_breaks_off_after_it() -> None:
    checker = ContractChecker(AI_SDK_7)
    checker.receive_data(sse(START, STEP, {"type": "text-start", "id": "1"}), elapsed=0.1)
    checker.receive_data(b'data: {"type":"text-delta","id":"1","delta":"\xff"}\n\n', elapsed=0.2)
    checker.receive_failure(FailureKind.RESET, elapsed=0.3)
    assert [finding.rule for finding in checker.report().findings] == [
        "stream.invalid-utf8",
        "transport.reset",
    ]


def test_a_refused_request_is_reported_even_if_its_body_breaks_off() -> None:
    checker = ContractChecker(COMPAT_LANE)
    assert checker.receive_head(503, [], elapsed=0.1) == []
    assert checker.receive_data(b"down for maint", elapsed=0.2) == []
    (finding,) = checker.receive_failure(FailureKind.RESET, elapsed=0.3)
    assert (finding.rule, finding.actual) == ("head.status", "503 down for maint")
    assert checker.report().byte_count == 14


def test_each_call_returns_its_new_findings() -> None:
    checker = ContractChecker(COMPAT_LANE)
    assert [f.rule for f in checker.receive_head(200, HEAD[:1], elapsed=0.0)] == ["head.header-missing"]
    assert list(checker.receive_data(b"", elapsed=0.0)) == []
    assert list(checker.receive_data(sse(START), elapsed=0.0)) == []
    assert [f.rule for f in checker.receive_data(sse(FINISH), elapsed=0.0)] == ["order.step-missing"]
    assert [f.rule for f in checker.receive_data(b"data: {\xff}\n\n", elapsed=0.0)] == [
        "json.syntax",
        "stream.invalid-utf8",
    ]
    assert [f.rule for f in checker.receive_data(sse(START, "x"), elapsed=0.0)] == [
        "order.duplicate",
        "json.syntax",
    ]
    assert checker.report().state == "the turn has finished"
    assert [f.rule for f in checker.receive_eof(elapsed=0.0)] == []
    with pytest.raises(RuntimeError, match="over"):
        checker.receive_data(b"x", elapsed=0.0)


def test_before_its_end_a_stream_is_not_ok() -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_data(sse(START, STEP), elapsed=0.0)
    report = checker.report()
    assert report.violations == ()
    assert not report.ok
    with pytest.raises(ContractViolation, match=r"stream\.unfinished: .*a step is open"):
        report.raise_for_violations()


def test_a_raised_violation_begins_with_the_rule_and_escapes_all_text() -> None:
    body = sse(START, STEP, "\x1b[2J\u202e", *["y"] * 30, END_STEP, FINISH)
    report = check_recording(body)
    with pytest.raises(ContractViolation) as caught:
        report.raise_for_violations()
    text = str(caught.value)
    assert text.startswith("json.syntax: ")
    assert "\x1b" not in text
    assert "\\x1b[2J\\u202e" in text
    assert "at event 2, byte" in text
    assert "contract: compat-lane" in text
    assert caught.value.findings == report.violations
    check_recording(sse(START, STEP, END_STEP, FINISH, DONE)).raise_for_violations()


def test_violations_beyond_those_shown_are_counted() -> None:
    checker = ContractChecker(COMPAT_LANE)
    odd: list[object] = ["x"] * 16 + [[]] * 16
    checker.receive_data(sse(*odd), elapsed=0.0)
    checker.receive_failure(FailureKind.RESET, elapsed=0.0)
    with pytest.raises(ContractViolation, match="… and 13 more"):
        checker.report().raise_for_violations()


def test_the_number_of_warnings_about_unknown_fields_is_bounded() -> None:
    chunks = [{"type": "start", f"x{number}": 1} for number in range(1000)]
    report = check_recording(sse(*chunks), contract=AI_SDK_7)
    assert len(report.findings) < 64
    many = check_recording(
        sse({"type": "start", **{f"x{number}": 1 for number in range(1000)}}), contract=AI_SDK_7
    )
    assert many.suppressed["schema.unknown-field"] == 256 - 16


def test_open_parts_are_bounded_and_beyond_the_bound_not_judged() -> None:
    small = attrs.evolve(AI_SDK_7, limits=attrs.evolve(AI_SDK_7.limits, max_open_bytes=10_000))
    opened = [{"type": "text-start", "id": str(number)} for number in range(1000)]
    closed = [{"type": "text-end", "id": str(number)} for number in range(1000)]
    report = check_recording(sse(START, STEP, *opened, *closed, END_STEP, FINISH, DONE), contract=small)
    assert [finding.rule for finding in report.findings] == ["order.too-many-open"]
    assert report.ok
