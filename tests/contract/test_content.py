"""Content is the answer itself: a contract says which kinds carry it, and the report says when it began and whether any came."""

import json
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from cutover.contract import ANYTHING, ContractChecker, ContractReport, FailureKind, StreamContract
from cutover.contract.findings import Severity
from cutover.protocols import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE
from tests.support.own_streams import DONE, chunk, event, piecewise, report_on, rules_of
from tests.support.paths import FIXTURES

REPORTED = FIXTURES / "reported"
SDK = (AI_SDK_5, AI_SDK_6, AI_SDK_7)
START, STEP = chunk("start"), chunk("start-step")
OPEN, CLOSE = chunk("text-start", id="1"), chunk("text-end", id="1")
END = [chunk("finish-step"), chunk("finish"), DONE]
CALL = {"toolCallId": "c", "toolName": "t"}


def delta(text: str) -> str:
    return chunk("text-delta", id="1", delta=text)


def at_once_and_one_by_one(
    contract: StreamContract, moments: Sequence[tuple[float, str]]
) -> list[ContractReport]:
    """Return the reports on events with their times: each in its own data, and cut after each byte."""
    reports = []
    for size in (1 << 20, 1):
        checker = ContractChecker(contract)
        for elapsed, text in moments:
            data = text.encode()
            for at in range(0, len(data), size):
                checker.receive_data(data[at : at + size], elapsed=elapsed)
        checker.receive_eof(elapsed=moments[-1][0])
        reports.append(checker.report())
    return reports


@pytest.mark.parametrize("contract", SDK, ids=lambda each: each.name)
@pytest.mark.parametrize("name", ["done-only", "unframed-error-done"])
def test_a_terminator_alone_is_an_empty_stream(name: str, contract: StreamContract) -> None:
    body = (REPORTED / f"{name}.sse").read_bytes()
    for size in (1, 5, len(body)):
        report = piecewise(contract.strict(), [body[at : at + size] for at in range(0, len(body), size)])
        (finding,) = report.findings
        assert (finding.rule, finding.severity) == ("stream.empty", Severity.VIOLATION)
        assert str(finding.actual).startswith("nothing but the terminator [DONE]")
        is_shown = '{"error":{"code":500,"message":"context size exceeded"}}' in str(finding.actual)
        assert is_shown is (name == "unframed-error-done")
    assert [each.severity for each in piecewise(contract, [body]).findings] == [Severity.LOSS]


def test_a_terminator_before_a_turn_is_no_empty_stream() -> None:
    turn = [START, STEP, OPEN, delta("a"), CLOSE, *END]
    found = rules_of(AI_SDK_7.strict(), DONE, *turn)
    assert set(found) == {"terminator.trailing", "terminator.count"}
    assert rules_of(AI_SDK_7.strict(), DONE, DONE) == ["terminator.count", "stream.empty"]
    assert rules_of(AI_SDK_7.strict(), event("{"), DONE) == ["json.syntax"]
    assert rules_of(AI_SDK_7.strict(), chunk("data-x", data=1), DONE) == ["order.start-missing"]
    assert rules_of(COMPAT_LANE, DONE) == ["order.start-missing"]


@pytest.mark.parametrize("contract", SDK, ids=lambda each: each.name)
@pytest.mark.parametrize(
    "inside",
    [
        [], [STEP, END[0]], [STEP, OPEN, CLOSE, END[0]], [STEP, OPEN, delta(""), delta(""), CLOSE, END[0]],
        [chunk("message-metadata", messageMetadata={})],
    ],
)  # fmt: skip
def test_a_turn_in_which_a_user_sees_nothing_is_a_loss(inside: list[str], contract: StreamContract) -> None:
    body = [START, *inside, *END[1:]]
    report = report_on(contract, *body)
    assert [(each.rule, each.severity) for each in report.findings] == [("stream.no-content", Severity.LOSS)]
    assert report.content_count == 0
    assert not report_on(contract.strict(), *body).ok


@pytest.mark.parametrize(
    "shown",
    [
        [OPEN, delta(""), delta("a"), CLOSE],
        [chunk("reasoning-start", id="1"), chunk("reasoning-delta", id="1", delta="x"), chunk("reasoning-end", id="1")],
        [chunk("tool-input-available", **CALL, input={})],
        [chunk("tool-input-start", **CALL), chunk("tool-input-error", **CALL, input=1, errorText="e")],
        [chunk("file", url="u", mediaType="m")],
        [chunk("source-url", sourceId="s", url="u")],
        [chunk("data-weather", data=1)],
    ],
)  # fmt: skip
@pytest.mark.parametrize("contract", SDK, ids=lambda each: each.name)
def test_a_turn_in_which_a_user_sees_something_is_not_empty(
    shown: list[str], contract: StreamContract
) -> None:
    assert rules_of(contract.strict(), START, STEP, *shown, *END) == []


def test_a_turn_that_broke_off_is_not_empty() -> None:
    for contract in SDK:
        assert rules_of(contract.strict(), START, chunk("abort"), DONE) == []
        assert rules_of(contract.strict(), START, chunk("error", errorText="e"), DONE) == [
            "stream.service-error"
        ]


@pytest.mark.parametrize(
    ("events", "rule"),
    [
        ([START, DONE], "order.finish-missing"),
        ([START, *END[1:2]], "terminator.missing"),
        ([START], "stream.truncated"),
        ([START, event("{"), *END[1:]], "json.syntax"),
    ],
)
def test_a_graver_fault_is_the_one_finding(events: list[str], rule: str) -> None:
    assert rules_of(AI_SDK_7.strict(), *events) == [rule]


def test_a_tolerated_fault_does_not_hide_that_nothing_came() -> None:
    calm = attrs.evolve(AI_SDK_7, severities={"json.syntax": "ignored"})
    assert rules_of(calm.strict(), START, event("{"), *END[1:]) == ["stream.no-content"]


def test_a_turn_of_nothing_that_is_known_is_told_so() -> None:
    calm = attrs.evolve(OWN, severities={"schema.unknown-kind": "ignored"})
    (finding,) = report_on(calm, chunk("x")).findings
    assert finding.message == "expected something that a user sees, got only events of no known kind"


def test_the_lanes_preview_is_a_whole_turn() -> None:
    for contract in (COMPAT_LANE, COMPAT_LANE.strict()):
        assert rules_of(contract, START, STEP, *END) == []


@pytest.mark.parametrize("contract", [*SDK, COMPAT_LANE], ids=lambda each: each.name)
def test_the_first_content_is_the_first_that_is_not_empty(contract: StreamContract) -> None:
    more = {"channel": "assistant"} if contract is COMPAT_LANE else {}
    opening = chunk("text-start", id="1", turnId="t") if contract is COMPAT_LANE else OPEN
    texts = ["", "", "a", "", "b"]
    deltas = [chunk("text-delta", id="1", delta=text, **more) for text in texts]
    events = [START, STEP, opening, *deltas, *([] if contract is COMPAT_LANE else [CLOSE]), *END]
    for report in at_once_and_one_by_one(contract, list(enumerate(events, 1))):
        assert report.timings.first_event == 1
        assert report.timings.first_content == 6
        assert report.content_count == 3, "an empty one behind the first content counts"
        assert report.ok
    assert "first content 6000 ms" in str(report.timings)


def test_content_with_a_field_too_many_is_content() -> None:
    odd = chunk("text-delta", id="1", delta="a", seq=1)
    for report in at_once_and_one_by_one(
        AI_SDK_7, [(1, START + STEP + OPEN), (2, odd), (3, CLOSE + "".join(END))]
    ):
        assert report.timings.first_content == 2
        assert report.content_count == 1


def test_content_behind_an_error_is_not_seen() -> None:
    body = [(1, START), (2, chunk("error", errorText="e")), (3, OPEN + delta("a")), (4, DONE)]
    for report in at_once_and_one_by_one(AI_SDK_7, body):
        assert report.timings.first_content is None
        assert report.content_count == 0


def test_many_events_of_content_are_counted_however_they_came() -> None:
    body = [START, STEP, OPEN, *[delta("a")] * 500, CLOSE, *END]
    whole = report_on(AI_SDK_7, *body)
    assert whole.content_count == 500
    assert piecewise(AI_SDK_7, [each.encode() for each in body]).content_count == 500


OWN = StreamContract(
    name="own",
    chunks={"a": ANYTHING, "b": ANYTHING, "c*": ANYTHING},
    content={"a": "/data/x/y", "b": "n"},
    visible="c*",
)


@pytest.mark.parametrize(
    ("events", "count"),
    [
        ([chunk("a", x={"y": "z"})], 1),
        ([chunk("a", x={}), chunk("a", x={"y": None}), chunk("b", n=0)], 1),
        ([chunk("a"), chunk("b", n=[]), chunk("b", n={}), chunk("b", n="")], 0),
    ],
)
def test_an_own_contract_says_what_content_is(events: list[str], count: int) -> None:
    report = report_on(OWN, *events)
    assert report.content_count == count
    assert [each.rule for each in report.findings] == ([] if count else ["stream.no-content"])
    assert rules_of(OWN, *events, chunk("c1")) == []
    unknown = attrs.evolve(OWN, content={}, visible=())
    assert rules_of(unknown, *events) == []
    assert report_on(unknown, *events).content_count == 0


@attrs.frozen
class Named:
    m: int


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"content": {"x": "n"}}, "content names the kind x, which no chunk declares"),
        ({"content": {"a": "a/b"}}, "the path a/b is no name of a field"),
        ({"visible": "x"}, "visible names the kind x, which no chunk declares"),
        ({"chunks": {"a": dict[str, int], "b": Named}, "visible": ()}, "content: the path n of b is in no chunk"),
    ],
)  # fmt: skip
def test_a_slip_is_a_sentence(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        attrs.evolve(OWN, **fields)


UNFRAMED = 'Traceback (most recent call last):\n  File "a.py", line 1\nValueError: "no"\n\n'


def test_lines_that_are_no_field_are_a_warning_with_the_first_one() -> None:
    body = [START, STEP, OPEN, delta("a"), UNFRAMED, CLOSE, *END]
    for size in (1, 7, 1 << 20):
        sent = "".join(body).encode()
        report = piecewise(AI_SDK_7.strict(), [sent[at : at + size] for at in range(0, len(sent), size)])
        (finding,) = report.findings
        assert (finding.rule, finding.severity) == ("stream.unframed", Severity.WARNING)
        assert finding.byte_offset == sent.index(b"Traceback")
        assert (
            finding.actual
            == "2 lines that are no fields of an event stream, first Traceback (most recent call last):"
        )


def test_the_line_is_shown_as_the_cause_of_an_early_end() -> None:
    error = '{"error": "out of memory"}\n\n'
    for body in (
        [START, error],
        [START, error, 'data: {"type":'],
        [START, STEP, OPEN, delta("a"), CLOSE, *END[:2], error],
    ):
        (finding,) = report_on(AI_SDK_7.strict(), *body).findings
        assert finding.rule in {"stream.truncated", "terminator.missing"}
        assert (
            '; the body holds a line that is no field of an event stream: {"error": "out of memory"}'
            in finding.message
        )


def test_fields_that_the_standard_ignores_are_no_such_lines() -> None:
    ignored = "x-trace: 1\nunknown\nid: \0\nretry: soon\n: {\n"
    assert rules_of(AI_SDK_7.strict(), START, STEP, OPEN, delta("a"), ignored + CLOSE, *END) == []


def test_a_broken_connection_shows_the_line_too() -> None:
    for leave in (False, True):
        checker = ContractChecker(attrs.evolve(OWN, content={}, visible=(), endless=True))
        checker.receive_data(b"<html>\n" + chunk("a").encode(), elapsed=0.1)
        if leave:
            checker.receive_leave(elapsed=0.2)
        else:
            checker.receive_failure(FailureKind.RESET, elapsed=0.2)
        assert "stream.unframed" in {each.rule for each in checker.report().findings}


def test_a_line_of_the_first_body_is_told_once_after_a_reconnection() -> None:
    checker = ContractChecker(attrs.evolve(OWN, content={}, visible=(), resume="id"))
    checker.receive_data(b"<html>\n" + event({"type": "a"}, None, 1).encode(), elapsed=0.1)
    checker.receive_eof(elapsed=0.2)
    checker.receive_reconnect(elapsed=0.3)
    checker.receive_data(event({"type": "a"}, None, 2).encode(), elapsed=0.4)
    checker.receive_eof(elapsed=0.5)
    assert [each.rule for each in checker.report().findings] == ["stream.unframed"]
    assert json.dumps([each.byte_offset for each in checker.report().findings]) == "[0]"


def test_a_gap_behind_the_first_content_has_its_place() -> None:
    checker = ContractChecker(AI_SDK_7)
    for elapsed, text in (
        (1.0, START),
        (1.1, STEP),
        (1.2, OPEN),
        (1.3, delta("a")),
        (1.4, delta("b")),
        (30.0, delta("c")),
    ):
        checker.receive_data(text.encode(), elapsed=elapsed)
    (finding,) = checker.report().findings
    assert (finding.rule, finding.event_index) == ("timing.event-gap", 5)
    assert checker.report().timings.first_content == 1.3
    assert checker.report().content_count == 3


def test_a_piece_of_deltas_for_a_part_that_is_not_open_is_reported_behind_the_first_content() -> None:
    checker = ContractChecker(AI_SDK_7)
    checker.receive_data("".join((START, STEP, OPEN, delta("a"))).encode(), elapsed=0.1)
    lost = 'data: {"type":"text-delta","id":"other","delta":"b"}\n\n' * 30
    found = checker.receive_data(lost.encode(), elapsed=0.2)
    assert [(each.rule, each.event_index) for each in found][:1] == [("order.unopened-part", 4)]
