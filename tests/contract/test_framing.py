"""A client that reads less than the standard allows: rules about the bytes, beside the standard's parser."""

import pytest

from cutover.contract import ContractChecker, Framing, Kind, Limits, StreamContract
from tests.support.own_streams import piecewise

BOM = "\ufeff"


def contract(**rules: bool) -> StreamContract:
    return StreamContract(name="framing", kind=Kind.single(), framing=Framing(**rules))


def findings(body: str | bytes, cut: int = 10_000, **rules: bool) -> list[tuple[str, int | None, int | None]]:
    sent = body.encode() if isinstance(body, str) else body
    pieces = (sent[at : at + cut] for at in range(0, len(sent), cut))
    report = piecewise(contract(**rules), pieces)
    return [(each.rule, each.event_index, each.byte_offset) for each in report.findings]


CASES = [
    ("only_lf", "data: 1\n\n", []),
    ("only_lf", "data: 1\r\n\r\n", [("framing.line-end", None, 7)]),
    ("only_lf", "data: 1\r\rdata: 2\r\r", [("framing.line-end", None, 7)]),
    ("only_lf", "data: 1\n\ndata: 2\n\r\n", [("framing.line-end", None, 17)]),
    ("only_lf", "id: 1\ndata: 1\n\n: \r\n", [("framing.line-end", None, 17)]),
    ("event_line", "event: x\ndata: 1\n\n", []),
    ("event_line", "event: message\ndata: 1\n\n", []),
    ("event_line", "data: 1\n\nevent: x\ndata: 2\n\ndata: 3\n\n", [("framing.event-line", 0, 0), ("framing.event-line", 2, 27)]),
    ("event_line", "event:\ndata: 1\n\n", [("framing.event-line", 0, 0)]),
    ("event_line", "event: x\n\ndata: 1\n\n", [("framing.event-line", 0, 10)]),
    ("no_comments", "data: 1\n\n: hi\n\n", [("framing.comment", None, 9)]),
    ("no_comments", ":\ndata: 1\n\n:\n", [("framing.comment", None, 0), ("framing.comment", None, 11)]),
    ("no_bom", "data: 1\n\n", []),
    ("no_bom", f"{BOM}data: 1\n\n", [("framing.bom", None, 0)]),
    ("no_bom", f"data: 1\n\n{BOM}data: 2\n\n", []),
    ("blank_line_at_end", "data: 1\n\n", []),
    ("blank_line_at_end", "data: 1\r\n\r\n", []),
    ("blank_line_at_end", "data: 1\r\r", []),
    ("blank_line_at_end", "data: 1\n\r\n", []),
    ("blank_line_at_end", "data: 1\n\n:\n", [("framing.blank-line", None, 11)]),
    ("blank_line_at_end", "data: 1\n\nid: 5", [("stream.truncated", None, 9)]),
    ("blank_line_at_end", "data: 1\n\nid: 5\n", [("framing.blank-line", None, 15)]),
    ("blank_line_at_end", "data: 1\n\ndata: 2\n", [("stream.truncated", None, 9)]),
    ("blank_line_at_end", "\n", [("stream.empty", None, 1)]),
    ("blank_line_at_end", "", [("stream.empty", None, 0)]),
]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 2, 5, 10_000])
@pytest.mark.parametrize(("rule", "body", "expected"), CASES, ids=range(len(CASES)))
def test_a_rule_about_the_bytes(rule: str, body: str, expected: list[object], cut: int) -> None:
    assert findings(body, cut, **{rule: True}) == expected


@pytest.mark.parametrize(
    "body", [body for _, body, expected in CASES if body and "truncated" not in str(expected)]
)
def test_the_standard_alone_wants_none_of_it(body: str) -> None:
    assert {rule for rule, _, _ in findings(body)} <= {"stream.event-type", "stream.empty"}


def test_findings_about_lines_are_few() -> None:
    body = "data: 1\r\n\r\n" * 1000
    assert findings(body, 7, only_lf=True) == [("framing.line-end", None, 7)]
    report = piecewise(contract(event_line=True, no_comments=True), [b"data: 1\n\n:\n" * 1000])
    assert report.suppressed == {"framing.event-line": 984, "framing.comment": 984}
    assert {each.byte_offset for each in report.findings if each.event_index == 15} == {15 * 11}


def test_bytes_of_a_dropped_event_count() -> None:
    own = StreamContract(
        name="x", kind=Kind.single(), framing=Framing(only_lf=True), limits=Limits(max_event_bytes=10)
    )
    report = piecewise(own, [b"data: " + b"1" * 50 + b"\r\n\r\n"])
    assert {each.rule for each in report.findings} >= {"framing.line-end", "stream.oversized"}


def test_a_name_that_the_framing_wants_is_no_surprise() -> None:
    assert findings("event: x\ndata: 1\n\n", event_line=True) == []
    assert findings("event: x\ndata: 1\n\n") == [("stream.event-type", 0, 0)]


def test_each_body_of_a_resumed_stream_is_looked_at() -> None:
    checker = ContractChecker(contract(no_bom=True, blank_line_at_end=True))
    checker.receive_data(b"data: 1\n\n", elapsed=0.0)
    checker.receive_eof(elapsed=0.1)
    checker.receive_reconnect(elapsed=0.2)
    checker.receive_data(b"\xef\xbb\xbfdata: 2\n\n: bye", elapsed=0.3)
    checker.receive_eof(elapsed=0.4)
    found = [(each.rule, each.byte_offset) for each in checker.report().findings]
    assert found == [("framing.bom", 9), ("framing.blank-line", 26)]
