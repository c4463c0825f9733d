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
    'data: {"type":"text-delta","id":"1","delta":"\ufffd"}\n\n'.encode() * 2, sse({"type": "text-delta", "id": "1", "delta": "\ufffd"}),
    sse('{"type":"text-delta","id":"1","delta":"\\\\ufffd"}'), b'data: {"type":"text-delta","id":"1","delta":"\xef\xbf\xbd\xef"}\n\n',
    'data: {"type":"data-x",\ndata: "data":"\ufffd"}\n\n'.encode(), "event: \ufffd\ndata: \ufffd\n\n: \ufffd\n\n".encode(),
    sse({"type": "data-x", "data": 2**53}) * 2, sse({"type": "text-delta", "id": "1", "delta": "a", "seq": 2**70}) * 2,
    sse({"type": "tool-output-available", "toolCallId": "c", "output": [0.1234567890123456789, "1" * 20, -(2**60)]}),
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


WORDS = (
    sse({"type": "text-start", "id": "1", "turnId": "u"})
    + sse({"type": "text-delta", "id": "1", "delta": "a", "channel": "assistant"}) * 21
)
"""More content events than a model sends at once."""


@pytest.mark.parametrize(
    ("first", "last", "held_back"),
    [(0.9, 0.9, False), (1.0, 1.0, True), (1.0, 1.09, True), (1.0, 1.2, False), (9.0, 9.0, True)],
)
def test_many_events_that_come_all_at_once_after_a_wait_were_not_streamed(
    first: float, last: float, held_back: bool
) -> None:
    contract = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, first_event=10.0))
    report = timed(
        (first, sse(START, STEP)), (last, WORDS + sse(END_STEP, FINISH, DONE)), contract=contract, end=last
    )
    assert ("timing.not-streamed" in {finding.rule for finding in report.findings}) is held_back
    assert report.timings.streamed is (last > first)
    if held_back:
        assert "not streamed" in report.findings[0].message


def test_a_model_that_thinks_and_then_answers_shortly_gives_a_warning_alone() -> None:
    report = timed((1.1, sse(START, STEP)), (1.15, sse(END_STEP, FINISH, DONE)), end=1.15)
    assert [(each.rule, each.severity) for each in report.findings] == [
        ("timing.held-back", Severity.WARNING)
    ]
    assert report.findings[0].actual == "not streamed: nothing for 1.100 s, then 5 events within 0.050 s"
    assert report.ok


@pytest.mark.parametrize(
    ("sends", "rules"),
    [
        ([sse(START, STEP, END_STEP, FINISH, DONE)], ["timing.not-streamed"]),
        ([sse(START), sse(STEP, END_STEP, FINISH, DONE)], []),
        ([sse(START, STEP) + WORDS + sse(END_STEP, FINISH, DONE)], ["timing.not-streamed"]),
        ([sse(START, STEP), WORDS, sse(END_STEP), sse(FINISH), sse(DONE)], []),
        ([b": hi\n\n", sse(START, STEP, END_STEP, FINISH, DONE)], ["timing.not-streamed"]),
    ],
)
def test_of_an_app_in_this_process_its_own_sends_decide_whether_it_streams(
    sends: list[bytes], rules: list[str]
) -> None:
    checker = ContractChecker(COMPAT_LANE, is_direct=True)
    checker.receive_head(200, HEAD, elapsed=0.1)
    for send in sends:
        checker.receive_data(send, elapsed=1.5)
    checker.receive_eof(elapsed=1.5)
    assert [finding.rule for finding in checker.report().findings] == rules


def test_an_app_that_sends_in_bursts_itself_streams() -> None:
    report = timed(*bursts(3), end=3.0)
    assert [finding.rule for finding in report.findings] == ["timing.bursts"]
    checker = ContractChecker(COMPAT_LANE, is_direct=True)
    for elapsed, data in bursts(3):
        checker.receive_data(data, elapsed=elapsed)
    assert list(checker.receive_eof(elapsed=3.0)) == []


def bursts(
    count: int, *, pause: float = 0.5, words: int = 30, within: float = 0.0
) -> list[tuple[float, bytes]]:
    """Return a turn whose words come in `count` groups, each spread over `within` seconds, with a pause between two."""
    word = sse({"type": "text-delta", "id": "1", "delta": "a", "channel": "assistant"})
    moments = [(0.1, sse(START, STEP, {"type": "text-start", "id": "1", "turnId": "u"}))]
    at = 0.1
    for _ in range(count):
        moments += [(at + within * number / words, word) for number in range(words)]
        at += within + pause
    return [*moments, (moments[-1][0], sse(END_STEP, FINISH, DONE))]


@pytest.mark.parametrize(
    ("moments", "found"),
    [
        (bursts(2), True),
        (bursts(6), True),
        (bursts(6, within=0.005), True),
        (bursts(1), False),
        (bursts(6, pause=0.09), False),
        (bursts(6, words=15), False),
        (bursts(6, within=0.4), False),
    ],
    ids=["two", "six", "short", "one", "no pauses", "few words", "a model that thinks now and then"],
)
def test_events_that_a_proxy_releases_in_blocks_give_a_warning(
    moments: list[tuple[float, bytes]], found: bool
) -> None:
    report = timed(*moments, end=moments[-1][0])
    assert [finding.rule for finding in report.findings] == ["timing.bursts"] * found
    assert report.ok


def test_the_warning_about_bursts_has_both_figures() -> None:
    (finding,) = timed(*bursts(6, words=60), end=3.0).findings
    assert finding.actual == ("366 events in 6 instants, with a pause of 0.500 s between two on average")


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
    body = sse(START, STEP) + WORDS + sse(END_STEP, FINISH, DONE)
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_head(200, [*HEAD, *[(b"content-length", b"%d" % len(body))] * length], elapsed=head_at)
    checker.receive_data(body, elapsed=1.5)
    assert [finding.rule for finding in checker.receive_eof(elapsed=1.5)] == [rule]


@pytest.mark.parametrize("kind", [FailureKind.RESET, FailureKind.STALL, FailureKind.DEADLINE, None])
def test_the_wait_before_a_failure_or_the_leave_is_a_gap(kind: FailureKind | None) -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_head(200, HEAD, elapsed=0.1)
    checker.receive_data(sse(START), elapsed=0.5)
    checker.receive_data(sse(STEP), elapsed=1.0)
    if kind is None:
        checker.receive_leave(elapsed=16.0)
    else:
        checker.receive_failure(kind, elapsed=16.0)
    assert checker.report().timings.max_gap == 15.0
    assert "longest gap 15000 ms" in str(checker.report().timings)


def test_the_wait_for_a_refusal_that_breaks_off_is_a_gap_and_a_stream_that_never_began_has_none() -> None:
    refused, unreachable = ContractChecker(COMPAT_LANE), ContractChecker(COMPAT_LANE)
    refused.receive_head(503, [], elapsed=0.1)
    refused.receive_failure(FailureKind.STALL, elapsed=5.0)
    assert refused.report().timings.max_gap == 5.0
    unreachable.receive_failure(FailureKind.UNREACHABLE, elapsed=5.0)
    assert (unreachable.report().timings.max_gap, unreachable.report().timings.end) == (None, 5.0)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (FailureKind.STALL, "timing.event-gap"),
        (FailureKind.DEADLINE, "timing.deadline"),
        (None, "timing.event-gap"),
    ],
)
@pytest.mark.parametrize("contract", [COMPAT_LANE, AI_SDK_7], ids=lambda contract: contract.name)
def test_a_turn_that_is_over_while_its_connection_stays_open_says_so(
    kind: FailureKind | None, rule: str, contract: Any
) -> None:
    checker = ContractChecker(contract)
    text = WORDS + sse({"type": "text-end", "id": "1", "turnId": "u"})
    checker.receive_data(sse(START, STEP) + text + sse(END_STEP, FINISH, DONE), elapsed=0.4)
    if kind is None:
        found = checker.receive_eof(elapsed=125.0)
    else:
        found = checker.receive_failure(kind, elapsed=125.0)
    (finding,) = found
    assert finding.rule == rule
    assert finding.message == (
        "expected the end of the body after the last event, got a connection that was still open after 125.000 s, "
        "although the turn was over after 0.400 s"
    )


def test_a_connection_that_closes_after_the_deadline_of_the_turn_gives_one_finding() -> None:
    contract = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, whole=10.0))
    (finding,) = timed((0.4, sse(START, STEP, END_STEP, FINISH, DONE)), contract=contract, end=11.0).findings
    assert (finding.rule, finding.expected) == (
        "timing.deadline",
        "the end of the body after the last event",
    )


PINGS = [(float(second), b": ping\n\n") for second in range(2, 20, 2)]
KEPT = "none for {} s; the service kept the connection alive with {}"


def test_a_gap_tells_the_comments_within_it_alone() -> None:
    end = (18.4, b": ping\n\n" + sse(STEP) + b": ping\n\n" * 2)
    later = [(36.0, sse(END_STEP)), (52.0, b": ping\n\n"), (52.0, sse(FINISH, DONE))]
    found = timed((0.4, b": hi\n\n" + sse(START)), *PINGS, end, *later, end=52.0).findings
    assert [each.actual for each in found] == [
        KEPT.format("18.000", "10 comments"),
        KEPT.format("17.600", "2 comments"),
        KEPT.format("16.000", "1 comment"),
    ]


def test_a_gap_of_an_event_that_comes_alone_tells_its_comments() -> None:
    one_by_one = [(0.1, sse(START)), (0.2, sse(STEP)), (2.0, b": ping\n\n"), (0.3 + 18, sse(END_STEP))]
    (finding,) = timed(*one_by_one, (18.4, sse(FINISH, DONE)), end=18.5).findings
    assert finding.actual == KEPT.format("18.100", "1 comment")


def test_a_service_that_only_sends_comments_is_told_with_their_number() -> None:
    checker = ContractChecker(COMPAT_LANE)
    for elapsed, data in PINGS[:2]:
        checker.receive_data(data, elapsed=elapsed)
    (finding,) = checker.receive_failure(FailureKind.STALL, elapsed=5.0)
    assert (finding.rule, finding.actual) == ("timing.first-event", KEPT.format("5.000", "2 comments"))
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_data(sse(START), elapsed=0.0)
    for elapsed, data in PINGS:
        checker.receive_data(data, elapsed=elapsed)
    (finding,) = checker.receive_failure(FailureKind.STALL, elapsed=18.0)
    assert (finding.rule, finding.actual) == ("timing.event-gap", KEPT.format("18.000", "9 comments"))


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
    delta = {"type": "text-delta", "id": "0", "delta": "x"}
    closed = [{"type": "text-end", "id": str(number)} for number in range(1000)]
    report = check_recording(
        sse(START, STEP, *opened, delta, *closed, END_STEP, FINISH, DONE), contract=small
    )
    assert [finding.rule for finding in report.findings] == ["order.too-many-open"]
    assert report.ok


def rules_after_failed_decoding(status: int, content_type: str) -> list[str]:
    headers = [
        (b"content-encoding", b"br"),
        (b"content-type", content_type.encode()),
        (b"x-vercel-ai-ui-message-stream", b"v1"),
    ]
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_head(status, headers, elapsed=0.0)
    returned = checker.receive_failure(FailureKind.DECODING, elapsed=0.0, detail="no decoder")
    rules = [finding.rule for finding in checker.report().findings]
    assert {finding.rule for finding in returned} <= set(rules)
    assert not checker.report().ok
    return [rule for rule in rules if rule not in {"head.header-missing", "head.charset"}]


@pytest.mark.parametrize(
    ("status", "content_type", "rule"),
    [
        (200, "text/event-stream", "transport.decoding"),
        (200, "text/html", "head.content-type"),
        (307, "text/html", "head.redirect"),
        (503, "text/event-stream", "head.status"),
    ],
)
def test_a_body_that_cannot_be_decoded_is_one_finding(status: int, content_type: str, rule: str) -> None:
    assert rules_after_failed_decoding(status, content_type) == [rule]


@pytest.mark.parametrize("coding", [b"none", b"None", b"identity", b""])
def test_a_coding_that_changes_nothing_is_no_compression(coding: bytes) -> None:
    checker = ContractChecker(AI_SDK_7)
    checker.receive_head(200, [(b"content-encoding", coding)], elapsed=0.0)
    assert "head.compressed" not in {finding.rule for finding in checker.report().findings}
