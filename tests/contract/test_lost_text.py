"""Characters and digits that are lost on the way or in a client are told once in a stream, with the events that held them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.contract import ANYTHING, TEXT, ContractChecker, FailureKind, Kind, Severity, StreamContract
from cutover.contract.javascript import MAX_SAFE_INTEGER, may_hold_unsafe_integer, unsafe_integer
from cutover.contract.replacement import replacement_in
from cutover.protocols import AI_SDK_6, AI_SDK_7
from tests.contract.test_shown_values import openapi
from tests.support.own_streams import piecewise
from tests.support.paths import FIXTURES

OWN = StreamContract(name="own", kind=Kind.single(), chunks=ANYTHING)
LOST = "U+FFFD, which stands for a character that was lost, in "
OPEN = 'data: {"type":"start-step"}\n\ndata: {"type":"text-start","id":"1"}\n\n'


def delta(text: str) -> str:
    return f'data: {{"type":"text-delta","id":"1","delta":"{text}"}}\n\n'


def found(
    body: str | bytes, contract: Any, rule: str, size: int | None = None
) -> list[tuple[int | None, int | None, str | None]]:
    """Return event, offset and text of the findings of a rule. All cuts must give the same: whole, each byte, each event, some bytes."""
    raw = body.encode() if isinstance(body, str) else body
    events = [event + b"\n\n" for event in raw.split(b"\n\n")[:-1]]
    cuts = [
        [raw],
        [raw[at : at + 1] for at in range(len(raw))],
        events,
        [raw[at : at + 11] for at in range(0, len(raw), 11)],
    ]
    reports = [piecewise(contract, pieces).findings for pieces in cuts]
    assert reports == [reports[0]] * 4
    assert size is None or len(reports[0]) == size
    return [(each.event_index, each.byte_offset, each.actual) for each in reports[0] if each.rule == rule]


def test_a_stream_whose_proxy_decoded_each_piece_by_itself_is_told_once_with_its_events() -> None:
    body = (FIXTURES / "reports" / "fffd.sse").read_bytes()
    finding = (3, body.index(b'data: {"type": "text-delta"'), LOST + "events 3 and 4")
    assert found(body, AI_SDK_6, "json.replacement-character", 1) == [finding]
    for contract in (AI_SDK_6, AI_SDK_6.strict()):
        report = piecewise(contract, [body])
        assert report.ok
        assert [each.severity for each in report.findings] == [Severity.WARNING]


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("\ufffd", True),
        (r"\ufffd", True),
        (r"\uFfFD", True),
        (r"\\\ufffd", True),
        (r"\\ufffd", False),
        (r"\n\ufffe", False),
        ("ufffd", False),
        ("\uff0c\uff01é", False),
        ("x" * 2000 + "\ufffd", True),
        ("x" * 2000 + "\uff0c", False),
    ],
)
@pytest.mark.parametrize("contract", [AI_SDK_7, OWN], ids=lambda contract: contract.name)
def test_a_character_that_is_lost_is_found_as_a_character_and_as_an_escape(
    text: str, is_lost: bool, contract: StreamContract
) -> None:
    body = OPEN + delta("a") + delta(text)
    offset = len((OPEN + delta("a")).encode())
    assert found(body, contract, "json.replacement-character") == [(3, offset, LOST + "event 3")] * is_lost


def test_an_event_that_is_no_json_holds_no_escape() -> None:
    text = StreamContract(name="text", kind=Kind.single(), chunks=TEXT)
    assert found("data: C:\\ufffd\n\n", text, "json.replacement-character") == []
    assert found("data: C:\ufffd\n\n", text, "json.replacement-character") == [(0, 0, LOST + "event 0")]
    assert found("id: 1\nretry: 5\ndata: a\ndata: \ufffd\n\n", text, "json.replacement-character") == [
        (0, 0, LOST + "event 0")
    ]


def test_bytes_that_are_no_utf8_are_another_fault() -> None:
    body = (OPEN + delta("a")).encode() + delta("é").encode("latin-1") * 2
    assert found(body, AI_SDK_7, "json.replacement-character") == []
    both = (
        body
        + delta("\ufffd").encode()
        + delta("\ufffd").encode().replace(b"\xef\xbf\xbd", b"\xef\xbf\xbd\xff")
    )
    assert found(both, AI_SDK_7, "json.replacement-character")[0][2] == LOST + "events 5 and 6"


def test_of_many_events_the_first_are_named_and_all_are_counted() -> None:
    body = OPEN + delta("\ufffd") * 3000
    ((index, offset, _),) = found(body[: len(OPEN) + 40 * 60], AI_SDK_7, "json.replacement-character")
    assert (index, offset) == (2, len(OPEN))
    checker = ContractChecker(AI_SDK_7)
    checker.receive_data(body.encode(), elapsed=0.0)
    assert [each for each in checker.report().findings if each.rule.startswith("json")] == []
    found_at_end = checker.receive_eof(elapsed=0.0)
    lost = [each.actual for each in found_at_end if each.rule == "json.replacement-character"]
    assert lost == [LOST + "events 2, 3, 4, 5, 6 and 2995 more"]
    assert checker.report().suppressed == {}


@pytest.mark.parametrize("contract", [AI_SDK_7, OWN, openapi()], ids=["sdk", "own", "openapi"])
@pytest.mark.parametrize(
    ("sent", "written"),
    [
        ("9007199254740993", "9007199254740992"),
        ("-12345678901234567890", "-12345678901234567000"),
        ("1000000000000000000001", "1e+21"),
        ("1" * 400, "Infinity"),
        ("-" + "1" * 400, "-Infinity"),
        ("9007199254740992", None),
        ("1000000000000000000", None),
    ],
)
def test_an_integer_that_javascript_rounds_is_told_with_what_it_becomes(
    contract: StreamContract, sent: str, written: str | None
) -> None:
    shown = sent if len(sent) < 200 else sent[:200] + "…"
    kind = "data-x" if contract is AI_SDK_7 else "tool-output-available"
    event = f'data: {{"type":"{kind}","toolCallId":"c","data": {{"id":[ {sent} ]}},"output":{sent}}}\n\n'
    body = 'data: {"type":"start"}\n\n' + event * 2
    read_as = f", which JavaScript reads as {written}" if written else ""
    actual = f"{shown}{read_as}, in events 1 and 2"
    assert found(body, contract, "json.unsafe-integer") == [(1, len('data: {"type":"start"}\n\n'), actual)]


@pytest.mark.parametrize(
    "value",
    [
        "9007199254740991", "-9007199254740991", "1764366365123456", "0.12345678901234567", "12345678901234567.5", "12345678901234567e3",
        '"12345678901234567890"', '"a: 12345678901234567890,"', "[1,2,3]", '"0000000000000000000000"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("contract", [AI_SDK_7, OWN, openapi()], ids=["sdk", "own", "openapi"])
def test_a_number_that_javascript_keeps_and_a_text_of_digits_are_no_finding(
    contract: StreamContract, value: str
) -> None:
    assert found(f'data: {{"type":"data-x","data":{value}}}\n\n', contract, "json.unsafe-integer") == []


def test_an_integer_in_an_unknown_field_is_found_in_each_event() -> None:
    body = OPEN + 'data: {"type":"text-delta","id":"1","delta":"a","seq":12345678901234567890}\n\n' * 7
    ((index, _, actual),) = found(body, AI_SDK_7, "json.unsafe-integer")
    assert index == 2
    assert actual is not None
    assert actual.endswith(", in events 2, 3, 4, 5, 6 and 2 more")


def test_a_text_of_digits_that_is_no_json_is_no_number() -> None:
    text = StreamContract(name="text", kind=Kind.single(), chunks=TEXT)
    assert found("data: 12345678901234567890\n\n", text, "json.unsafe-integer") == []


def test_a_rule_that_is_switched_off_gathers_nothing() -> None:
    contract = StreamContract(
        name="own",
        kind=Kind.single(),
        severities={"json.unsafe-integer": "ignored", "json.replacement-character": "violation"},
    )
    report = piecewise(contract, ['data: [12345678901234567890,"\ufffd"]\n\n'.encode()])
    assert [(each.rule, each.severity) for each in report.findings] == [
        ("json.replacement-character", Severity.VIOLATION)
    ]


@pytest.mark.parametrize("kind", [FailureKind.RESET, FailureKind.STALL, None])
def test_a_stream_that_fails_or_is_left_names_its_events_too_and_once(kind: FailureKind | None) -> None:
    contract = StreamContract(name="own", kind=Kind.single())
    checker = ContractChecker(contract)
    for elapsed in (0.1, 0.3):
        checker.receive_data('data: "\ufffd"\n\n'.encode(), elapsed=elapsed)
        if kind is None:
            checker.receive_leave(elapsed=elapsed)
        else:
            checker.receive_failure(kind, elapsed=elapsed)
        if elapsed < 0.3:
            checker.receive_reconnect(elapsed=elapsed + 0.1)
    lost = [each.actual for each in checker.report().findings if each.rule == "json.replacement-character"]
    # After a missed deadline the findings of the first connection stay as they are.
    assert lost == [LOST + ("event 0" if kind is FailureKind.STALL else "events 0 and 1")]


NUMBERS = (
    st.integers()
    | st.integers(min_value=2**50, max_value=2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet="0123456789:,.[ -", max_size=30)
)


@given(
    value=st.recursive(
        NUMBERS,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
        max_leaves=12,
    ),
    indent=st.sampled_from([None, 1]),
)
def test_the_cheap_search_misses_no_integer(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    numbers: list[int] = []
    json.loads(text, parse_int=lambda digits: numbers.append(int(digits)))
    is_unsafe = any(abs(number) > MAX_SAFE_INTEGER for number in numbers)
    assert (unsafe_integer(text) is not None) is is_unsafe
    assert may_hold_unsafe_integer(text) >= is_unsafe
    assert may_hold_unsafe_integer(text.encode()) == may_hold_unsafe_integer(text)


def test_a_text_that_is_not_json_has_no_unsafe_integer() -> None:
    assert unsafe_integer("12345678901234567890 points") is None
    assert replacement_in(r"\ufffd points") == ()
