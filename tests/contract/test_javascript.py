"""JSON is read as the client reads it: with `JSON.parse`, at any depth, and with the guard against prototypes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.checking.recording import check_recording
from cutover.contract.chunks import Refusal
from cutover.contract.javascript import NotJsonError, _parse_deep, forbidden_key, is_suspect, parse
from cutover.contract.reading import ChunkReader, judge_text
from cutover.protocols import AI_SDK_7

DEEP = 5000
VALUES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["__proto__", "constructor"]), inner)
    ),
)
FRAGMENTS = st.lists(
    st.sampled_from(
        [*'{}[]:,"\\ \n\t/', '"a"', "true", "false", "null", "nul", "-1", "01", "1.", "1e9", "1e999", "-0", "\\u00", "\x00", "NaN", '"\\ud800"', '{"a":', "é"]
    ),
    max_size=12,
).map("".join)  # fmt: skip


def outcome(read: object, text: str) -> object:
    try:
        return json.dumps(read(text))  # type: ignore[operator]
    except NotJsonError:
        return NotJsonError


@pytest.mark.parametrize("text", ["", " ", "NaN", "Infinity", "-Infinity", "{'a':1}", "[1,]", "{,}", '{"a" 1}', '{"a":}', "[1 2]", "01", "+1", "1.", ".5", '"\n"', "\ufeff{}", "]", "}", "[}", '{"a":1', "1 1", "{1:2}", "[,1]"])  # fmt: skip
def test_text_that_is_not_json_is_refused_at_any_depth(text: str) -> None:
    for read in (parse, _parse_deep):
        with pytest.raises(NotJsonError):
            read(text)
    for before, after in (("[" * DEEP, "]" * DEEP), ('{"a":' * DEEP, "}" * DEEP)):
        with pytest.raises(NotJsonError):
            parse(before + (text.strip() or "]") + after)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e999", math.inf),
        ("9" * 5000, math.inf),
        ('"\\ud83d"', "\ud83d"),
        ('{"a":1,"a":"b"}', {"a": "b"}),
        (" \t\r\n[ ] ", []),
        ("-0", -0.0),
    ],
)
def test_text_that_javascript_accepts_is_accepted(text: str, value: object) -> None:
    assert parse(text) == value
    assert _parse_deep(text) == value


def test_any_depth_is_accepted() -> None:
    value = parse("[" * 100_000 + "]" * 100_000)
    for _ in range(99_999):
        (value,) = value
    assert value == []


@pytest.mark.parametrize("count", [1, 3])
def test_an_event_of_any_depth_is_accepted_as_by_the_client(count: int) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    good = f'data: {{"type":"data-x","data":{deep}}}\n\n' * count
    report = check_recording(f'data: {{"type":"start"}}\n\n{good}'.encode(), contract=AI_SDK_7)
    assert [finding.rule for finding in report.findings] == ["stream.truncated"]
    assert report.chunk_counts["data-x"] == count


@given(VALUES)
def test_the_parser_for_deep_json_gives_the_same_value(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert _parse_deep(text) == parse(text) == value


@given(FRAGMENTS)
def test_the_parser_for_deep_json_refuses_the_same_texts(text: str) -> None:
    assert outcome(_parse_deep, text) == outcome(parse, text)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('{"__proto__":1}', "__proto__"),
        ('[[{"a":{"\\u005f_proto\\u005F_":null}}]]', "__proto__"),
        ('{"constructor":{"prototype":1}}', "constructor.prototype"),
        ('{"\\u0063onstructor":{"pr\\u006ftotype":1}}', "constructor.prototype"),
        ('{"constructor":{"x":1},"prototype":1}', None),
        ('{"constructor":"prototype"}', None),
        ('{"a":"__proto__"}', None),
    ],
)
def test_keys_that_reach_a_prototype_are_found_however_they_are_spelled(text: str, key: str | None) -> None:
    assert forbidden_key(parse(text)) == key
    if key is not None:
        assert is_suspect(text)
        assert is_suspect(text.encode())
    for template in (
        '{"type":"data-x","data":%s}',
        '{"type":"start","messageMetadata":%s}',
        '{"type":"start","x":%s}',
    ):
        for repeat in (1, 7):
            body = f"data: {template % text}\n\n".encode() * repeat
            rules = {finding.rule for finding in check_recording(body, contract=AI_SDK_7).violations}
            assert ("json.prototype" in rules) is (key is not None)


CHUNKS = st.fixed_dictionaries(
    {"type": st.sampled_from([*AI_SDK_7.schema.kinds, "data-a", "data-", "odd"])},
    optional={
        name: VALUES | st.sampled_from(["stop", "1"])
        for name in sorted(
            {name for fields in AI_SDK_7.schema.kinds.values() for name in fields}
            | {"data", "transient", "odd"}
        )
    },
)


@pytest.mark.slow
@given(st.lists(CHUNKS | st.just({"type": "text-delta", "id": "1", "delta": "é"}), max_size=8), st.booleans())
def test_the_fast_path_and_the_exact_path_agree(chunks: list[dict[str, object]], ascii_only: bool) -> None:
    texts = [json.dumps(chunk, ensure_ascii=ascii_only) for chunk in chunks]
    payloads = [text.encode("utf-8", "replace") for text in texts]
    if not payloads:
        return
    reader = ChunkReader(schema=AI_SDK_7.schema, terminator="[DONE]")
    reads, structs = reader.read(payloads)
    assert structs == [type(read) for read in reads]
    one_by_one = ChunkReader(schema=AI_SDK_7.schema, terminator="[DONE]")
    assert [one_by_one.read([payload])[1][0].__name__ for payload in payloads] == [
        struct.__name__ for struct in structs
    ]
    for payload, read in zip(payloads, reads, strict=True):
        exact = judge_text(AI_SDK_7.schema, payload.decode())
        assert isinstance(read, Refusal) is isinstance(exact, Refusal)
        if isinstance(exact, Refusal):
            assert read == exact


def test_an_infinite_number_is_json_but_is_refused_in_metadata() -> None:
    taken = b'data: {"type":"data-x","data":1e999}\n\n'
    refused = b'data: {"type":"text-start","id":"1","providerMetadata":{"a":{"b":1e999}}}\n\n'
    nested = (
        b'data: {"type":"tool-input-start","toolCallId":"1","toolName":"t","toolMetadata":{"a":[1e999]}}\n\n'
    )
    assert check_recording(taken, contract=AI_SDK_7, strict=False).violations == ()
    for body in (refused, nested):
        assert [f.rule for f in check_recording(body, contract=AI_SDK_7, strict=False).violations] == [
            "schema.field-type"
        ]
