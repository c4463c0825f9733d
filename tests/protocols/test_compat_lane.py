"""The compatibility lane's contract: one cause gives one finding, which names the place and the expected kind."""

import json
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from cutover.checking.recording import check_recording
from cutover.contract import ContractChecker, FailureKind, StreamContext
from cutover.contract.findings import Finding, Severity
from cutover.protocols import COMPAT_LANE

START = {"threadId": "t1", "type": "start"}
STEP = {"model": "m", "threadId": "t1", "turnId": "u1", "type": "start-step"}
TEXT = {"type": "text-start", "id": "m1", "turnId": "u1"}
DELTA = {"type": "text-delta", "id": "m1", "delta": "Hello", "channel": "assistant"}
INPUT = {"type": "tool-input", "toolCallId": "c1", "toolName": "shell", "input": {"command": "ls"}}
OUTPUT = {"type": "tool-output", "toolCallId": "c1", "delta": "x", "status": "completed"}
END_STEP = {"status": "accepted", "turnId": "u1", "type": "finish-step"}
FINISH = {"status": "accepted", "type": "finish"}
ERROR = {"type": "error", "code": "codex_error", "message": "it broke", "retryable": True}
FAILED = {"type": "finish", "status": "error"}
DONE = "[DONE]"
WHOLE: list[Any] = [START, STEP, TEXT, DELTA, DELTA, INPUT, OUTPUT, END_STEP, FINISH, DONE]
HEAD = {"content-type": "text/event-stream; charset=utf-8", "x-vercel-ai-ui-message-stream": "v1"}


def sse(*chunks: object) -> bytes:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


def rules(*chunks: object) -> list[str]:
    return [finding.rule for finding in check_recording(sse(*chunks)).findings]


def test_a_finding_names_the_event_its_offset_and_what_was_expected() -> None:
    body = sse(START, STEP, FINISH, END_STEP, DONE)
    assert check_recording(body).findings == (
        Finding(
            rule="order.finish-before-step",
            severity=Severity.VIOLATION,
            message="expected finish-step, got finish",
            event_index=2,
            byte_offset=len(sse(START, STEP)),
            expected="finish-step",
            actual="finish",
        ),
    )


@pytest.mark.parametrize(
    ("dropped", "rule"),
    [
        (0, "order.start-missing"),
        (1, "order.step-missing"),
        (2, "order.unopened-part"),
        (5, "order.unknown-call"),
        (7, "order.finish-before-step"),
        (8, "order.finish-missing"),
        (9, "terminator.missing"),
    ],
)
def test_one_event_dropped_is_one_finding(dropped: int, rule: str) -> None:
    assert rules(*WHOLE[:dropped], *WHOLE[dropped + 1 :]) == [rule]


@pytest.mark.parametrize("dropped", [3, 4, 6])
def test_deltas_and_outputs_may_be_missing(dropped: int) -> None:
    assert rules(*WHOLE[:dropped], *WHOLE[dropped + 1 :]) == []


@pytest.mark.parametrize("broken", range(len(WHOLE)))
@pytest.mark.parametrize("junk", ["not JSON", '{"type":"strange"}'])
def test_one_event_that_cannot_be_read_is_one_finding(broken: int, junk: str) -> None:
    rule = "json.syntax" if junk == "not JSON" else "schema.unknown-kind"
    assert rules(*WHOLE[:broken], junk, *WHOLE[broken + 1 :]) == [rule]


@pytest.mark.parametrize("broken", range(len(WHOLE)))
def test_one_event_that_is_too_large_is_one_finding(broken: int) -> None:
    small = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, max_event_bytes=200))
    body = sse(*WHOLE[:broken], "x" * 300, *WHOLE[broken + 1 :])
    assert [finding.rule for finding in check_recording(body, contract=small).findings] == [
        "stream.oversized"
    ]


@pytest.mark.parametrize(
    ("at", "changed"),
    [
        (0, {"threadId": 1}),
        (1, {"turnId": None}),
        (2, {"turnId": 1}),
        (5, {"toolName": None}),
        (7, {"status": 1}),
        (8, {"status": False}),
    ],
)
def test_one_event_with_a_bad_field_is_one_finding(at: int, changed: dict[str, object]) -> None:
    chunks = [*WHOLE]
    chunks[at] = {**WHOLE[at], **changed}
    assert rules(*chunks) == ["schema.field-type"]


@pytest.mark.parametrize("twice", [0, 1, 7, 8, 9])
def test_one_event_doubled_is_one_finding(twice: int) -> None:
    rule = "terminator.count" if WHOLE[twice] == DONE else "order.duplicate"
    assert rules(*WHOLE[: twice + 1], *WHOLE[twice:]) == [rule]


@pytest.mark.parametrize("first", range(1, 10))
def test_the_first_finding_of_a_stream_without_its_beginning_is_the_missing_start(first: int) -> None:
    assert rules(*WHOLE[first:])[0] == "order.start-missing"


def test_events_in_reverse_order_break_the_contract() -> None:
    found = rules(*reversed(WHOLE))
    assert found[0] == "order.start-missing"
    assert "terminator.trailing" in found


def test_the_service_reporting_an_error_is_one_finding_with_its_code() -> None:
    for chunks in ([START, STEP, ERROR, FAILED, DONE], [START, ERROR, FAILED, DONE], [ERROR, FAILED, DONE]):
        report = check_recording(sse(*chunks))
        assert [(finding.rule, finding.actual) for finding in report.findings] == [
            ("stream.service-error", "codex_error")
        ]
        assert report.service_error == "codex_error"
        assert not report.ok


def test_after_an_error_a_finish_with_status_error_must_come() -> None:
    assert rules(START, STEP, ERROR, FINISH, DONE) == ["stream.service-error", "order.finish-status"]
    assert rules(START, STEP, ERROR, {"type": "finish"}, DONE) == ["stream.service-error"]
    assert rules(START, STEP, ERROR, DONE) == ["stream.service-error", "order.finish-missing"]
    assert rules(START, STEP, ERROR) == ["stream.service-error", "stream.truncated"]


def test_thread_and_turn_agree_with_the_request_and_with_each_other() -> None:
    context = StreamContext(thread_id="t2")
    found = check_recording(sse(*WHOLE), context=context).findings
    assert [(each.rule, each.event_index, each.expected, each.actual) for each in found] == [
        ("identity.thread", 0, "threadId t2", "t1")
    ]
    assert rules(START, {**STEP, "threadId": "t3"}, END_STEP, FINISH, DONE) == ["identity.thread"]
    assert rules(START, STEP, {**TEXT, "turnId": "u2"}, END_STEP, FINISH, DONE) == [
        "identity.turn",
        "identity.turn",
    ]
    bare = [{"type": "start"}, {"type": "start-step"}, {"type": "finish-step"}, {"type": "finish"}, DONE]
    assert check_recording(sse(*bare), context=context).ok, "ids are compared only if the stream has them"


@pytest.mark.parametrize(
    "value",
    [
        "text/event-stream;charset=utf-8",
        'TEXT/Event-Stream ; CharSet="UTF-8"',
        'text/event-stream; x="a;\\"b"; charset=utf-8',
    ],
)
def test_a_content_type_is_compared_by_meaning(value: str) -> None:
    assert check_recording(sse(*WHOLE), headers={**HEAD, "Content-Type": value, "content-type": value}).ok


@pytest.mark.parametrize(
    ("changed", "rule", "actual"),
    [
        ({"content-type": "text/event-stream"}, "head.charset", "text/event-stream"),
        (
            {"content-type": "text/event-stream; charset=latin-1"},
            "head.charset",
            "text/event-stream; charset=latin-1",
        ),
        ({"content-type": "text/html"}, "head.content-type", "text/html"),
        ({"x-vercel-ai-ui-message-stream": "v10"}, "head.header-value", "x-vercel-ai-ui-message-stream: v10"),
        ({"x-vercel-ai-ui-message-stream": "V1"}, "head.header-value", "x-vercel-ai-ui-message-stream: V1"),
        ({"x-oa-legacy-chat-retired": "1"}, "head.header-refused", "x-oa-legacy-chat-retired: 1"),
        ({"content-encoding": "br"}, "head.compressed", "a stream compressed with br"),
    ],
)
def test_a_wrong_header_is_one_finding(changed: dict[str, str], rule: str, actual: str) -> None:
    found = check_recording(sse(*WHOLE), headers={**HEAD, **changed}).findings
    assert [(each.rule, each.actual) for each in found] == [(rule, actual)]


def test_a_missing_content_type_is_one_finding() -> None:
    found = check_recording(sse(*WHOLE), headers={"x-vercel-ai-ui-message-stream": "v1"}).findings
    assert [(each.rule, each.actual) for each in found] == [("head.content-type", "no content-type")]


@pytest.mark.parametrize(
    ("status", "headers", "body", "actual", "code"),
    [
        (
            401,
            {},
            {"message": "unauthorized", "error": {"code": "unauthorized", "message": "no such token"}},
            "401 unauthorized: no such token",
            "unauthorized",
        ),
        (
            422,
            {},
            {"message": "no text", "error": {"code": "invalid_request"}},
            "422 invalid_request: no text",
            "invalid_request",
        ),
        (
            426,
            {"x-oa-compatibility-code": "upgrade_required"},
            {"error": {}, "compatibility": {}},
            "426 upgrade_required",
            "upgrade_required",
        ),
        (500, {}, ["no", "object"], '500 ["no", "object"]', None),
        (503, {}, {"error": "down"}, '503 {"error": "down"}', None),
    ],
)
def test_a_wrong_status_quotes_the_error_of_the_service(
    status: int, headers: dict[str, str], body: object, actual: str, code: str | None
) -> None:
    report = check_recording(json.dumps(body).encode(), status=status, headers=headers)
    assert [(each.rule, each.expected, each.actual) for each in report.findings] == [
        ("head.status", "200", actual)
    ]
    assert report.service_error == code
    without_head = check_recording(json.dumps(body).encode(), status=status)
    assert [each.rule for each in without_head.findings] == ["head.status"]


def test_the_quoted_error_of_a_service_is_bounded_and_escaped() -> None:
    report = check_recording(b"\x1b[31m" + b"x" * 100_000, status=502)
    (finding,) = report.findings
    assert "\x1b" not in finding.message
    assert len(finding.message) < 400
    assert check_recording(b"[" * 50_000, status=502).findings[0].rule == "head.status"
    assert check_recording(b"", status=502).findings[0].actual == "502 (an empty body)"


def test_a_refusal_in_plain_text_is_quoted() -> None:
    body = b"Failed to parse the request body as JSON: expected value at line 1 column 1"
    report = check_recording(body, status=400, headers={"content-type": "text/plain; charset=utf-8"})
    assert [each.actual for each in report.findings] == [f"400 {body.decode()}"]
    assert report.service_error is None


def test_a_refusal_whose_body_did_not_come_is_not_said_to_be_empty() -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_head(502, [], elapsed=0.1)
    (finding,) = checker.receive_failure(FailureKind.RESET, elapsed=0.2)
    assert finding.actual == "502"


@pytest.mark.parametrize("source", ["codex", None])
def test_the_start_may_name_the_source_of_the_turn(source: str | None) -> None:
    start = START if source is None else {**START, "source": source}
    assert check_recording(sse(start, *WHOLE[1:]), headers=HEAD).findings == ()


LATER = StreamContext(asked_at=datetime(2026, 7, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("headers", "actual"),
    [
        ({"sunset": "Tue, 30 Jun 2026 00:00:00 GMT"}, "sunset: Tue, 30 Jun 2026 00:00:00 GMT"),
        ({"x-oa-compat-sunset-date": "2026-06-30"}, "x-oa-compat-sunset-date: 2026-06-30"),
        (
            {"sunset": "Tue, 30 Jun 2026 00:00:00 GMT", "x-oa-compat-sunset-date": "2026-06-30"},
            "sunset: Tue, 30 Jun 2026 00:00:00 GMT",
        ),
        ({"sunset": "2026-07-01T02:00:00+02:00"}, "sunset: 2026-07-01T02:00:00+02:00"),
    ],
)
def test_an_end_of_the_service_that_has_passed_is_one_warning(headers: dict[str, str], actual: str) -> None:
    report = check_recording(sse(*WHOLE), headers={**HEAD, **headers}, context=LATER)
    assert [(each.rule, each.actual) for each in report.warnings] == [("head.sunset", actual)]
    assert report.ok
    assert check_recording(
        sse(*WHOLE), headers={**HEAD, **headers}, context=LATER, contract=COMPAT_LANE.strict()
    ).ok


@pytest.mark.parametrize(
    "headers",
    [
        {"sunset": "Wed, 01 Jul 2026 00:00:01 GMT", "x-oa-compat-sunset-date": "2026-07-02"},
        {"sunset": "soon"},
        {"sunset": "Tue, 31 Feb 2026 00:00:00 GMT"},
        {"x-oa-compat-migration-doc": "docs/2026-02-25.md"},
    ],
)
def test_an_end_of_the_service_that_has_not_passed_is_no_finding(headers: dict[str, str]) -> None:
    assert check_recording(sse(*WHOLE), headers={**HEAD, **headers}, context=LATER).findings == ()


def test_without_the_time_of_the_request_no_date_has_passed() -> None:
    headers = {**HEAD, "sunset": "Tue, 30 Jun 1998 00:00:00 GMT"}
    assert check_recording(sse(*WHOLE), headers=headers).findings == ()


def test_a_redirect_names_its_target() -> None:
    found = check_recording(b"", status=307, headers={"location": "https://elsewhere.example/x"}).findings
    assert [(each.rule, each.actual) for each in found] == [
        ("head.redirect", "307 to https://elsewhere.example/x")
    ]
    assert check_recording(b"", status=304).findings[0].actual == "304 without a location"


def test_an_owner_derives_a_contract() -> None:
    kinds = {**COMPAT_LANE.chunks.kinds, "usage": {}}
    ours = attrs.evolve(
        COMPAT_LANE,
        name="ours",
        chunks=attrs.evolve(COMPAT_LANE.chunks, kinds=kinds),
        severities={"order.duplicate": Severity.WARNING},
        terminator="[END]",
    )
    body = sse(START, START, STEP, {"type": "usage"}, END_STEP, FINISH, "[END]")
    report = check_recording(body, contract=ours)
    assert report.ok
    assert [each.rule for each in report.warnings] == ["order.duplicate"]
    assert report.chunk_counts == {
        "[END]": 1,
        "start": 2,
        "start-step": 1,
        "usage": 1,
        "finish-step": 1,
        "finish": 1,
    }
    assert not check_recording(body).ok


def test_findings_of_one_rule_are_bounded() -> None:
    report = check_recording(sse(START, STEP, *["junk"] * 500, END_STEP, FINISH, DONE))
    assert len(report.findings) == 16
    assert report.suppressed == {"json.syntax": 484}
