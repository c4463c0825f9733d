r"""Findings show each value as it was sent: JSON text, numbers with their own spelling, and a line end that no `\n` can be taken for."""

from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from cutover.contract import (
    Contiguous,
    ContractChecker,
    ContractReport,
    Each,
    Kind,
    NeverFalls,
    ServiceError,
    StreamContract,
    StreamRule,
    Unchanged,
)
from cutover.contract.paths import sent_text, value_words, without_null
from cutover.protocols import AI_SDK_6
from cutover.text import escaped, escaped_lines, printable
from tests.support.paths import FIXTURES

REPORTED = FIXTURES / "reports"


def report_on(body: bytes | str, contract: Any) -> ContractReport:
    checker = ContractChecker(contract)
    checker.receive_data(body.encode() if isinstance(body, str) else body, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    return checker.report()


def first(data: str, contract: Any) -> str:
    """Return what the first finding about one event shows."""
    finding = report_on(f"data: {data}\n\n", contract).findings[0]
    return finding.actual or ""


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("a\nb", r"a\nb"),
        (r"a\nb", r"a\\nb"),
        ("\x1b[31m\t\u2028\u202e", r"\x1b[31m\t\u2028\u202e"),
        (r"\x1b[31m", r"\\x1b[31m"),
        (b"\xff\\n\n", r"\xff\\n\n"),
        ("é 日本 😀", "é 日本 😀"),
        ("x" * 201, "x" * 200 + "…"),
    ],
)
def test_a_text_is_escaped_so_that_no_two_texts_look_alike(sent: str | bytes, shown: str) -> None:
    assert escaped(sent) == shown
    assert printable(shown, 1000) == shown, "what is safe stays as it is"


@pytest.mark.parametrize(
    ("sent", "is_noted"),
    [
        (r'data: {"a":1}\n\n', True),
        (rb'data: {"a":1}\n\n', True),
        (r"data: 1\ndata: 2", True),
        (r"data: 1\r\n\r\n", True),
        (r'data: {"a":1}\n' + "\n", True),
        ("data: 1\n", False),
        (r'data: {"a":"x\ny"}', False),
        (r"C:\new", False),
    ],
)
def test_a_line_end_that_was_sent_as_two_characters_is_noted(sent: str | bytes, is_noted: bool) -> None:
    note = r" (\\n is the two characters backslash and n, not a line end)"
    assert escaped_lines(sent) == escaped(sent) + note * is_noted


def test_a_stream_whose_line_ends_are_two_characters_each_says_so() -> None:
    body = (REPORTED / "lit.sse").read_bytes()
    (finding,) = report_on(body, AI_SDK_6.strict()).findings
    assert finding.actual == (
        r'no event, only data: {"type":"start"}\\n\\n (\\n is the two characters backslash and n, not a line end)'
    )
    (other,) = report_on(body.replace(rb"\n", b"\n")[:-1], AI_SDK_6.strict()).findings
    assert other.actual == r'no event, only data: {"type":"start"}\n'
    started = report_on(b'data: {"type":"start"}\n\n' + body, AI_SDK_6.strict()).findings
    assert r'within data: {"type":"start"}\\n\\n (\\n is the two' in started[-1].message
    assert r'{"type":"start"}\\n\\n (\\n is the two' in first(r'{"type":"start"}\n\n', AI_SDK_6)


def test_a_null_is_told_as_null_and_not_as_absent() -> None:
    report = report_on((REPORTED / "nulls.sse").read_bytes(), AI_SDK_6)
    assert [each.actual for each in report.findings] == [
        "messageId: null; optional means absent, not null",
        *["providerMetadata: null; optional means absent, not null"] * 3,
        "finishReason: null; optional means absent, not null",
    ]
    assert first('{"type":"text-start","id":null}', AI_SDK_6) == "id: null"


class Price(msgspec.Struct):
    name: str
    size: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class PriceModel(BaseModel):
    name: str
    size: int
    note: str = ""


SCHEMA = {
    "type": "object",
    "required": ["name", "size"],
    "properties": {
        "name": {"type": "string"},
        "size": {"type": "integer", "maximum": 9},
        "note": {"type": "string"},
    },
}
OWN = [StreamContract(name="own", kind=Kind.single(), chunks=shape) for shape in (Price, PriceModel, SCHEMA)]


@pytest.mark.parametrize("contract", OWN, ids=["a type", "a model", "a schema"])
def test_a_null_in_an_own_contract_says_so_only_if_the_field_may_be_absent(contract: StreamContract) -> None:
    optional = "/data/note null; optional means absent, not null"
    assert first('{"name":"a","size":1,"note":null}', contract) == optional
    assert first('{"name":null,"size":1}', contract) == "/data/name null"


@pytest.mark.parametrize(
    "sent",
    [
        "1.0",
        "0",
        "-0",
        "1E3",
        "1230000000000000000",
        "12345678901234567890123",
        "true",
        "false",
        "null",
        "[1, 2.0]",
        '{"a":"b"}',
    ],
)
def test_a_value_of_a_wrong_type_is_shown_as_it_was_sent(sent: str) -> None:
    assert first(f'{{"type":"text-start","id": {sent} }}', AI_SDK_6) == f"id: {sent}"
    assert first(f'{{"type":{sent}}}', AI_SDK_6) == f"type: {sent}"
    for contract in OWN:
        assert first(f'{{"size":1,"name": {sent} }}', contract) == f"/data/name {sent}"
    of_field = StreamContract(name="own", chunks={"a": Price})
    assert first(f'{{"type":{sent}}}', of_field) in {f"type: {sent}", f"a text at /data/type: {sent}"}


def test_a_number_beyond_a_schema_keeps_its_spelling() -> None:
    assert first('{"name":"a","size":1.0e1}', OWN[2]) == "/data/size: 1.0e1 is greater than the maximum of 9"


@pytest.mark.parametrize("text", ["'a'", "True", "None", "it's"])
def test_a_text_is_shown_as_json_and_not_as_python(text: str) -> None:
    assert first(f'{{"type":"text-start","id":["{text}"]}}', AI_SDK_6) == f'id: ["{text}"]'


@pytest.mark.parametrize(
    ("text", "steps", "shown"),
    [
        (' {"a": [ 1.50, {"b~/c": "x" } ]} ', ("a", "0"), "1.50"),
        ('{"a":[1.50,{"b~/c":"x"}]}', ("a", "1", "b~/c"), '"x"'),
        (" 1e2\n", (), "1e2"),
        ('{"a":1,"a":2}', ("a",), "2"),
        ('"\\u00e9\\ud83d\\ude00"', (), '"é😀"'),
        ('"\\\\u00e9\\n\\u000a\\u2028\\ud83d"', (), '"\\\\u00e9\\n\\u000a\\u2028\\ud83d"'),
        ('{"a":1}', ("b",), "7"),
        ('{"a":1}', ("a", "b"), "7"),
        ("[1]", ("x",), "7"),
        ("[1]", ("3",), "7"),
        ("no json", ("a",), "7"),
    ],
)
def test_a_value_is_found_in_the_text_that_was_sent(text: str, steps: tuple[str, ...], shown: str) -> None:
    assert sent_text(text, steps, 7) == shown


@pytest.mark.parametrize(
    ("value", "pointer", "without"),
    [
        ({"a": None, "b": 1}, "/a", {"b": 1}),
        ({"x": [0, {"a": None}]}, "/x/1/a", {"x": [0, {}]}),
        ({"a/b": None}, "/a~1b", {}),
        ({"a": 1}, "/a", None),
        ({"b": 1}, "/a", None),
        ([None], "/0", None),
        (None, "", None),
    ],
)
def test_a_null_field_is_left_out_of_a_copy(value: Any, pointer: str, without: Any) -> None:
    before = repr(value)
    assert without_null(value, pointer) == without
    assert repr(value) == before


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("x", "x"),
        ("", '""'),
        (r"\n", r"\\n"),
        (1.0, "1.0"),
        (None, "null"),
        (True, "true"),
        ({1}, "{1}"),
        ({"a": "\x1b"}, r'{"a": "\u001b"}'),
    ],
)
def test_a_value_in_words(value: object, words: str) -> None:
    assert value_words(value) == words


class Yields(StreamRule):
    id = "own.yields"

    def event(self, event: Any) -> Any:
        yield event.data["wanted"], event.data["got"]


@pytest.mark.parametrize(
    ("rule", "events", "message"),
    [
        (Yields(), ['{"wanted":null,"got":1.0}'], "expected null, got 1.0"),
        (Yields(), ['{"wanted":"\\u001b","got":true}'], r"expected \x1b, got true"),
        (Contiguous("n"), ['{"n":1}', '{"n":"007"}'], 'expected n 2, got "007"'),
        (Contiguous("n"), ['{"n":1e0}'], "expected an integer at n, got 1e0"),
        (NeverFalls("n"), ['{"n":1E3}', '{"n":9.50}'], "expected n 1E3 or more, got 9.50"),
        (NeverFalls("n"), ['{"n":10}', '{"n":9}'], "expected n 10 or more, got 9"),
        (Unchanged("n"), ['{"n":1E3}', '{"n":null}'], "expected n 1E3, got null"),
        (Unchanged("n"), ['{"n":"a\\nb"}', '{"n":"a\\\\nb"}'], r"expected n a\nb, got a\\nb"),
    ],
)
def test_an_own_rule_shows_values_as_they_were_sent(
    rule: StreamRule, events: list[str], message: str
) -> None:
    contract = StreamContract(name="own", kind=Kind.single(), rules=(rule,))
    body = "".join(f"data: {data}\n\n" for data in events)
    assert [each.message for each in report_on(body, contract).findings] == [message]


def test_an_id_of_an_event_keeps_its_spelling() -> None:
    contract = StreamContract(name="own", kind=Kind.single(), rules=(Contiguous("/id"),))
    report = report_on("id: 1\ndata: 1\n\nid: 007\ndata: 1\n\n", contract)
    assert [each.message for each in report.findings] == ["expected /id 2, got 007"]


def test_two_values_of_a_part_that_look_the_same_are_told_apart() -> None:
    contract = StreamContract(
        name="own", each=Each("a b* c by id", repeats="n"), chunks=dict.fromkeys("abc", dict)
    )
    body = 'data: {"type":"a","id":1,"n":1}\n\ndata: {"type":"c","id":1,"n":"1"}\n\n'
    assert [each.message for each in report_on(body, contract).findings] == ['expected n 1, got c with "1"']


def test_an_unopened_part_with_an_empty_id_or_a_line_end_in_it_is_named() -> None:
    ends = [f'data: {{"type":"text-end","id":{name}}}\n\n' for name in ('""', r'"a\n"', r'"a\\n"')]
    report = report_on('data: {"type":"start-step"}\n\n' + "".join(ends), AI_SDK_6)
    assert [each.actual for each in report.findings if each.rule == "order.unopened-part"] == [
        'text-end for ""',
        r"text-end for a\n",
        r"text-end for a\\n",
    ]


def test_the_status_of_a_finish_is_json() -> None:
    contract = StreamContract(
        name="own",
        error=ServiceError(kind="error", code="code", finish="finish", status="status", failed="error"),
    )
    body = 'data: {"type":"error","code":null}\n\ndata: {"type":"finish","status":null}\n\n'
    found = report_on(body, contract).findings
    assert [each.actual for each in found] == ["null", "null"]


def openapi(**data: Any) -> StreamContract:
    """Return the contract of a document whose events have JSON of this schema in their data."""
    item = {
        "type": "object",
        "required": ["data"],
        "properties": {
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": data}
        },
    }
    answer = {"description": "prices", "content": {"text/event-stream": {"itemSchema": item}}}
    paths = {"/prices": {"get": {"responses": {"200": answer}}}}
    document = {"openapi": "3.2.0", "info": {"title": "Prices", "version": "1"}, "paths": paths}
    return StreamContract.from_openapi(document, "/prices")


@pytest.mark.parametrize(
    ("data", "actual"),
    [
        ('{"name": 1.0,"size":1}', "/data/name 1.0"),
        ('{"name":"a","size": 1.0e1}', "/data/size 1.0e1"),
        ('{"name":"a","size":12345678901234567890123}', "/data/size 12345678901234567890123"),
        ('{"name":["é\\u00e9\\u001b"],"size":1}', r'/data/name ["éé\u001b"]'),
        ('{"name":"a","size":1,"note":null}', "/data/note null; optional means absent, not null"),
        ('{"name":null,"size":1}', "/data/name null"),
        ("{'name'", "/data {'name'"),
        (r"{}\n\n", r"/data {}\\n\\n (\\n is the two characters backslash and n, not a line end)"),
    ],
)
def test_a_contract_from_openapi_shows_values_as_they_were_sent(data: str, actual: str) -> None:
    assert first(data, openapi(**SCHEMA)) == actual


def test_a_value_of_a_very_long_event_is_shown_as_json() -> None:
    assert first(f'{{"name":1.50,"size":1,"more":"{"x" * 70_000}"}}', openapi(**SCHEMA)) == "/data/name 1.5"


def test_an_inherited_id_is_shown_as_text() -> None:
    item = {
        "type": "object",
        "required": ["id"],
        "properties": {"data": {"type": "string"}, "id": {"type": "string"}},
    }
    answer = {"description": "prices", "content": {"text/event-stream": {"itemSchema": item}}}
    paths = {"/prices": {"get": {"responses": {"200": answer}}}}
    document = {"openapi": "3.2.0", "info": {"title": "Prices", "version": "1"}, "paths": paths}
    contract = StreamContract.from_openapi(document, "/prices")
    (finding,) = report_on("id: it's \\n\ndata: 1\n\ndata: 2\n\n", contract).findings
    assert finding.actual == r"none; the id it's \\n is inherited"
