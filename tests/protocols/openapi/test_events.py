"""What an event must be: one test for each rule about fields, content, branches and readings."""

import json
from typing import Any

import pytest

from cutover.errors import OpenApiError
from cutover.protocols.openapi import EventValidator, Problem, describe_stream
from tests.support.openapi_events import document, json_text, wire_events

TEXT = {"type": "string"}
DATA = {"type": "object", "required": ["data"]}
TICK = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}


def validator(media: Any, version: str = "3.2.0", **more: Any) -> EventValidator:
    components = more.pop("components", {})
    return EventValidator(
        describe_stream(document(media, version, components={"schemas": components}), "/x", "get", **more)
    )


def item(schema: Any, **more: Any) -> EventValidator:
    return validator({"itemSchema": schema}, **more)


def found(checked: EventValidator, body: str) -> list[tuple[str, str, str]]:
    return [
        (problem.rule, problem.path, problem.keyword)
        for event in wire_events(body.encode())
        for problem in checked.check(*event)
    ]


def of_data(schema: Any, body: str, **more: Any) -> list[tuple[str, str, str]]:
    return found(item({**DATA, "properties": {"data": schema}}, **more), body)


GOOD: list[Any] = []


def test_an_id_that_was_inherited_holds_with_a_warning() -> None:
    needs_id = item({**DATA, "required": ["data", "id"], "properties": {"data": TEXT, "id": TEXT}})
    assert found(needs_id, "id: 1\ndata: x\n\ndata: y\n\n") == [("schema.inherited-id", "/id", "required")]
    assert found(needs_id, "id\ndata: x\n\n") == GOOD
    assert found(needs_id, "id: 1\ndata: x\n\nid\ndata: y\n\ndata: z\n\n") == [
        ("schema.missing-field", "", "required")
    ]


def test_a_fault_beside_an_inherited_id_is_the_fault_alone() -> None:
    needs_id = item({**DATA, "required": ["data", "id"], "properties": {"data": json_text(TICK), "id": TEXT}})
    assert found(needs_id, 'id: 1\ndata: {"n":1}\n\ndata: {"n":"x"}\n\n') == [
        ("schema.field-type", "/data/n", "type")
    ]


def test_an_empty_event_line_counts_as_absent() -> None:
    named = item({**DATA, "properties": {"event": {"const": "message"}}})
    assert found(named, "event:\ndata: x\n\n") == GOOD
    assert found(named, "event: other\ndata: x\n\n") == [("schema.unknown-kind", "/event", "const")]
    closed = item({**DATA, "additionalProperties": False, "properties": {"data": json_text(TICK)}})
    assert found(closed, 'event:\ndata: {"n":1}\n\n') == GOOD
    assert found(closed, 'data: {"n":"x"}\n\n') == [("schema.field-type", "/data/n", "type")]


def test_an_event_need_not_be_named_and_a_forbidden_name_is_told() -> None:
    unnamed = item({**DATA, "not": {"required": ["event"]}, "properties": {"data": TEXT}})
    assert found(unnamed, "data: x\n\n") == GOOD
    assert found(unnamed, "event: y\ndata: x\n\n") == [("schema.value", "", "not")]


def test_nothing_on_the_wire_is_null() -> None:
    nullable = item(
        {**DATA, "properties": {"id": {"type": ["string", "null"]}, "data": {"type": ["string", "null"]}}}
    )
    assert found(nullable, "data: null\n\nid: null\ndata: x\n\n") == GOOD
    assert nullable.description.modes == ("text",)


def test_digits_stay_a_text() -> None:
    assert of_data({"type": "string", "format": "int64"}, "data: 1234.5\n\n") == GOOD
    assert of_data({"type": ["string", "integer"]}, "data: 42\n\n") == GOOD


def test_a_retry_has_the_bounds_of_its_schema() -> None:
    bounded = item({**DATA, "properties": {"data": TEXT, "retry": {"type": "integer", "minimum": 10}}})
    assert found(bounded, "retry: 5\ndata: x\n\n") == [("schema.value", "/retry", "minimum")]
    assert found(bounded, "retry: 10\ndata: x\n\nretry: -1\ndata: x\n\n") == GOOD
    needs_retry = item(
        {**DATA, "required": ["retry"], "properties": {"data": TEXT, "retry": {"type": "integer"}}}
    )
    assert found(needs_retry, "data: x\n\n") == [("schema.missing-field", "", "required")]
    assert found(needs_retry, "retry: 1\ndata: x\n\n") == GOOD


@pytest.mark.parametrize(
    ("data", "problems"),
    [
        ("NaN", [("json.syntax", "/data", "contentMediaType")]),
        ("-Infinity", [("json.syntax", "/data", "contentMediaType")]),
        ("", [("json.syntax", "/data", "contentMediaType")]),
        ("{'a': 1}", [("json.syntax", "/data", "contentMediaType")]),
        ("[1,]", [("json.syntax", "/data", "contentMediaType")]),
        ("01", [("json.syntax", "/data", "contentMediaType")]),
        ("1e999", GOOD),
        ("-1e999", GOOD),
        ("1" * 5000, [("json.unsafe-integer", "", "")]),
        ("-" + "1" * 5000, [("json.unsafe-integer", "", "")]),
        ('"\\ud800"', GOOD),
        ('{"\\ud800": ["\\udfff"]}', GOOD),
        ("[" * 1000 + "]" * 1000, GOOD),
        ('{"a":' * 3000 + "null" + "}" * 3000, GOOD),
        ("[" * 100_000 + "]" * 100_000, GOOD),
        ("[" * 100_000, [("json.syntax", "/data", "contentMediaType")]),
    ],
)
def test_json_is_what_rfc_8259_says(data: str, problems: list[Any]) -> None:
    assert of_data({"contentMediaType": "application/json"}, f"data: {data}\n\n") == problems


def test_a_schema_applies_to_deep_and_odd_values() -> None:
    tree = {"type": "object", "properties": {"a": {"$ref": "#/components/schemas/Tree"}}}
    components = {"Tree": tree}
    schema = json_text({"$ref": "#/components/schemas/Tree"})
    for depth in (10, 1400):
        assert (
            of_data(schema, "data: " + '{"a":' * depth + "{}" + "}" * depth + "\n\n", components=components)
            == GOOD
        )
        assert of_data(
            schema, "data: " + '{"a":' * depth + "1" + "}" * depth + "\n\n", components=components
        ) == [("schema.field-type", "/data" + "/a" * depth, "type")]
    assert of_data(json_text({"type": "object"}), "data: " + "[" * 1200 + "]" * 1200 + "\n\n") == [
        ("schema.field-type", "/data", "type")
    ]
    assert of_data(json_text({"type": "integer", "minimum": 5}), "data: 1e999\n\n") == GOOD
    assert of_data(json_text({"type": "string", "maxLength": 1}), 'data: "\\ud800"\n\n') == GOOD


def test_content_keywords() -> None:
    base64 = {"contentEncoding": "BASE64", "contentMediaType": "application/json", "contentSchema": TICK}
    assert of_data(base64, "data: eyJuIjoxfQ==\n\n") == GOOD
    assert of_data(base64, "data: ???\n\n") == [("schema.value", "/data", "contentEncoding")]
    assert of_data(base64, "data: eHg=\n\n") == [("json.syntax", "/data", "contentMediaType")]
    text = {"contentMediaType": "text/plain", "contentSchema": {"enum": ["a"]}}
    assert of_data(text, "data: a\n\n") == GOOD
    assert of_data(text, "data: b\n\n") == [("schema.value", "/data", "enum")]
    for unjudged in (
        {"contentSchema": False},
        {"contentMediaType": "application/xml", "contentSchema": False},
        {"contentMediaType": 5},
        {"contentEncoding": "base64"},
        {"contentEncoding": "gzip", "contentMediaType": "application/json"},
        {"contentMediaType": "text/html"},
    ):
        assert of_data({"type": "string", **unjudged}, "data: x\n\n") == GOOD
    assert of_data({"contentMediaType": "Application/Vnd.X+JSON;v=1"}, "data: x\n\n")[0][0] == "json.syntax"


def test_content_inside_content_is_asserted_too() -> None:
    call = {"type": "object", "properties": {"arguments": json_text(TICK)}}
    body = "data: " + json.dumps({"arguments": '{"n":"1"}'}) + "\n\n"
    assert of_data(json_text(call), body) == [("schema.field-type", "/data/arguments/n", "type")]
    assert of_data(json_text(call), 'data: {"arguments":5}\n\n') == [
        ("schema.field-type", "/data/arguments", "type")
    ]


def test_the_content_counts_inside_one_of() -> None:
    two = {
        **DATA,
        "oneOf": [{"properties": {"data": json_text(TICK)}}, {"properties": {"data": {"const": "[DONE]"}}}],
    }
    assert found(item(two), 'data: {"n":1}\n\ndata: [DONE]\n\n') == GOOD
    assert found(item(two), 'data: {"n":"1"}\n\n') == [("schema.field-type", "/data/n", "type")]


def union(*kinds: str, keyword: str = "oneOf", **more: Any) -> dict[str, Any]:
    return {
        keyword: [
            {
                "type": "object",
                "required": ["type"],
                "properties": {"type": {"const": kind}, kind: {"type": "integer"}},
            }
            for kind in kinds
        ],
        **more,
    }


@pytest.mark.parametrize("keyword", ["oneOf", "anyOf"])
def test_a_kind_in_the_payload_chooses_the_branch(keyword: str) -> None:
    schema = json_text(union("a", "b", keyword=keyword))
    assert of_data(schema, 'data: {"type":"a","a":1}\n\n') == GOOD
    assert of_data(schema, 'data: {"type":"b","b":"x"}\n\n') == [("schema.field-type", "/data/b", "type")]
    assert of_data(schema, 'data: {"type":"c"}\n\n') == [("schema.unknown-kind", "/data", keyword)]
    assert of_data(schema, "data: {}\n\n") == [("schema.missing-field", "/data", "required")]


def test_what_stands_beside_a_union_counts() -> None:
    schema = json_text(union("a", "b", required=["id"], properties={"id": TEXT}))
    assert of_data(schema, 'data: {"type":"a","id":"1"}\n\n') == GOOD
    assert of_data(schema, 'data: {"type":"a","id":1}\n\n') == [("schema.field-type", "/data/id", "type")]
    assert of_data(schema, 'data: {"type":"a"}\n\n') == [("schema.missing-field", "/data", "required")]
    closed = json_text(union("a", "b", unevaluatedProperties=False))
    assert of_data(closed, 'data: {"type":"a","x":1}\n\n') == [
        ("schema.unknown-field", "/data", "unevaluatedProperties")
    ]


def test_a_discriminator_does_not_change_the_outcome() -> None:
    schema = union("a", "b", discriminator={"propertyName": "kind", "mapping": {"a": "http://x.test/a"}})
    assert of_data(json_text(schema), 'data: {"type":"a"}\n\n') == GOOD
    parent = {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": ["a"]}},
        "discriminator": {"propertyName": "kind"},
    }
    assert of_data(json_text(parent), 'data: {"kind":"b"}\n\n') == [
        ("schema.unknown-kind", "/data/kind", "enum")
    ]


def test_a_null_branch_is_not_the_one_that_was_meant() -> None:
    maybe = {"type": "object", "properties": {"note": {"anyOf": [{"type": "null"}, TICK]}}}
    assert of_data(json_text(maybe), 'data: {"note":{"n":"x"}}\n\n') == [
        ("schema.field-type", "/data/note/n", "type")
    ]
    assert of_data(json_text(maybe), 'data: {"note":null}\n\n') == GOOD


def test_false_allows_nothing() -> None:
    assert of_data(json_text({"properties": {"a": False}}), 'data: {"a":1}\n\n') == [
        ("schema.value", "/data/a", "false")
    ]
    assert of_data(json_text({"items": False}), "data: [1]\n\n") == [("schema.value", "/data/0", "false")]
    assert of_data(json_text({"additionalProperties": False}), 'data: {"a":1}\n\n') == [
        ("schema.unknown-field", "/data", "additionalProperties")
    ]
    assert of_data(json_text(schema=False), "data: 1\n\n") == [("schema.value", "/data", "false")]
    assert found(item(schema=False), "data: x\n\n") == [("schema.value", "", "false")]
    assert found(item({**DATA, "oneOf": [False, {"properties": {"data": TEXT}}]}), "data: x\n\n") == GOOD
    assert of_data(json_text({"oneOf": [False, False]}), "data: 1\n\n")[0][2] == "oneOf"
    assert of_data(
        json_text({"$ref": "#/components/schemas/No"}), "data: 1\n\n", components={"No": False}
    ) == [("schema.value", "/data", "false")]


def test_formats_warn_at_most() -> None:
    dated = json_text({"type": "object", "properties": {"t": {"type": "string", "format": "date-time"}}})
    assert of_data(dated, 'data: {"t":"2026-01-01T00:00:00Z"}\n\n') == GOOD
    assert of_data(dated, 'data: {"t":"x"}\n\ndata: {"t":5}\n\n') == [
        ("schema.format", "/data/t", "format"),
        ("schema.field-type", "/data/t", "type"),
    ]
    for name, value in (
        ("uri", "no uri"),
        ("email", "x"),
        ("uuid", "x"),
        ("ipv4", "1"),
        ("date", "x"),
        ("ipv6", "g"),
    ):
        assert of_data(json_text({"type": "string", "format": name}), f'data: "{value}"\n\n') == [
            ("schema.format", "/data", "format")
        ]
    assert of_data({"type": "string", "format": "uuid"}, "data: x\n\n") == [
        ("schema.format", "/data", "format")
    ]
    assert found(item({**DATA, "properties": {"id": {"format": "uuid"}}}), "id: x\ndata: x\n\n") == [
        ("schema.format", "/id", "format")
    ]
    either = json_text({"anyOf": [{"type": "string", "format": "date"}, {"type": "integer"}]})
    assert of_data(either, 'data: "x"\n\n') == [("schema.format", "/data", "format")]


def test_write_only_is_not_asked_for_and_read_only_is() -> None:
    schema = {
        "type": "object",
        "required": ["password", "id", "token"],
        "properties": {
            "password": {"type": "string", "writeOnly": True},
            "token": {"$ref": "#/components/schemas/Token"},
            "id": {"type": "string", "readOnly": True},
        },
    }
    more = {"components": {"Token": {"type": "string", "writeOnly": True}}}
    assert of_data(json_text(schema), 'data: {"id":"1"}\n\n', **more) == GOOD
    assert of_data(json_text(schema), 'data: {"id":"1","password":"x"}\n\n', **more) == [
        ("schema.write-only", "/data/password", "writeOnly")
    ]
    assert of_data(json_text(schema), "data: {}\n\n", **more) == [
        ("schema.missing-field", "/data", "required")
    ]
    joined = {"allOf": [{"$ref": "#/components/schemas/Base"}], "required": ["secret"]}
    base = {"properties": {"secret": {"writeOnly": True}}, "allOf": [True, {"properties": {"other": True}}]}
    assert of_data(json_text(joined), "data: {}\n\n", components={"Base": base}) == GOOD


def test_integers_booleans_and_numbers() -> None:
    assert of_data(json_text({"type": "integer"}), "data: 2.0\n\n") == GOOD
    assert of_data(json_text({"const": 1}), "data: 1.0\n\n") == GOOD
    assert of_data(json_text({"const": 1}), "data: true\n\n") == [("schema.value", "/data", "const")]
    assert of_data(json_text({"type": "integer"}), "data: true\n\n") == [
        ("schema.field-type", "/data", "type")
    ]


def test_openapi_3_0_schemas_are_converted() -> None:
    def check(schema: Any, data: str, version: str = "3.0.3") -> list[Any]:
        checked = validator(
            {"schema": {"type": "object", "properties": {"v": schema}}},
            version,
            components={"S": {"type": "string"}},
        )
        return found(checked, f'data: {{"v": {data}}}\n\n') + [w.rule for w in checked.description.warnings]

    sibling = {"$ref": "#/components/schemas/S", "maxLength": 1}
    assert check(sibling, '"long"') == GOOD
    assert check(sibling, '"long"', "3.1.0") == [("schema.value", "/v", "maxLength")]
    assert check({"type": "integer", "minimum": 1, "exclusiveMinimum": True}, "1") == [
        ("schema.value", "/v", "exclusiveMinimum")
    ]
    assert check({"type": "integer", "maximum": 1, "exclusiveMaximum": False}, "1") == GOOD
    assert check({"type": "string", "nullable": True}, "null") == GOOD
    assert check({"type": "string", "nullable": True, "enum": ["a", None]}, "null") == GOOD
    assert check({"type": "string", "nullable": True, "enum": ["a"]}, "null") == ["openapi.nullable"]
    assert check({"nullable": True}, "null") == GOOD
    assert check({"nullable": False, "type": "string"}, "null") == [("schema.field-type", "/v", "type")]
    assert check({"nullable": True, "allOf": [{"$ref": "#/components/schemas/S"}]}, "null") == [
        "openapi.nullable"
    ]
    assert check({"type": "string", "nullable": True}, "null", "3.1.0") == ["openapi.nullable"]
    assert check({"type": ["string", "null"], "nullable": True}, "null", "3.1.0") == GOOD
    assert check({"type": "string", "const": "a", "nullable": True}, "null", "3.1.0") == ["openapi.nullable"]


def test_a_schema_with_id_is_a_scope_of_its_own() -> None:
    own = {
        "$id": "https://x.test/own",
        "type": "object",
        "properties": {"a": {"$ref": "#/$defs/n"}, "b": {"$ref": "#anchored"}, "c": {"$ref": "own#/$defs/n"}},
        "$defs": {"n": {"type": "integer"}, "s": {"$anchor": "anchored", "type": "string"}},
    }
    ref = json_text({"$ref": "#/components/schemas/Own"})
    assert of_data(ref, 'data: {"a":1,"b":"x","c":2}\n\n', components={"Own": own}) == GOOD
    for field, value in (("a", '"x"'), ("b", "1"), ("c", '"x"')):
        assert of_data(ref, f'data: {{"{field}":{value}}}\n\n', components={"Own": own}) == [
            ("schema.field-type", f"/data/{field}", "type")
        ]
    by_id = json_text({"$ref": "https://x.test/own#/$defs/n"})
    assert of_data(by_id, "data: x1\n\n", components={"Own": own})[0][0] == "json.syntax"
    lost = {"$id": "https://x.test/lost", "$ref": "#/components/schemas/Own"}
    with pytest.raises(OpenApiError, match="unresolved-ref"):
        of_data(json_text({"$ref": "#/components/schemas/Lost"}), "", components={"Own": own, "Lost": lost})


def test_a_dynamic_reference_goes_to_the_outermost_anchor() -> None:
    tree = {
        "$id": "https://x.test/tree",
        "$dynamicAnchor": "node",
        "type": "object",
        "properties": {"v": True, "c": {"type": "array", "items": {"$dynamicRef": "#node"}}},
    }
    strict = {
        "$id": "https://x.test/strict",
        "$dynamicAnchor": "node",
        "$ref": "tree",
        "unevaluatedProperties": False,
    }
    components = {"Tree": tree, "Strict": strict}
    body = 'data: {"c":[{"v":1,"typo":1}]}\n\n'
    assert of_data(json_text({"$ref": "#/components/schemas/Tree"}), body, components=components) == GOOD
    assert of_data(json_text({"$ref": "#/components/schemas/Strict"}), body, components=components) == [
        ("schema.unknown-field", "/data/c/0", "unevaluatedProperties")
    ]
    plain = {"$anchor": "n", "type": "integer"}
    assert of_data(json_text({"$dynamicRef": "#n"}), "data: 1.5\n\n", components={"N": plain}) == [
        ("schema.field-type", "/data", "type")
    ]
    both = json_text({"$ref": "#/components/schemas/N", "$dynamicRef": "#n"})
    assert of_data(both, "data: 1.5\n\n", components={"N": plain})[0][0] == "schema.field-type"


def test_data_parsed_by_its_schema() -> None:
    parsed = item({**DATA, "properties": {"data": TICK, "event": {"type": "string", "enum": ["a"]}}})
    assert parsed.description.modes == ("parsed",)
    assert found(parsed, 'data: {"n":1}\n\nevent: a\ndata: {"n":1}\n\n') == GOOD
    assert found(parsed, "data: x\n\n") == [("json.syntax", "/data", "contentMediaType")]
    assert found(parsed, 'event: b\ndata: {"n":1}\n\n') == [("schema.unknown-kind", "/event", "enum")]
    assert parsed.value == {"n": 1}


def test_data_that_may_be_text_or_json_holds_if_either_does() -> None:
    either = item(
        {**DATA, "properties": {"data": {"type": ["string", "integer"], "minimum": 5, "maxLength": 3}}}
    )
    assert either.description.modes == ("text", "parsed")
    assert found(either, "data: abc\n\ndata: 5\n\ndata: 50000\n\n") == GOOD
    assert found(either, "data: abcdef\n\n") == [("schema.value", "/data", "maxLength")]
    branches = validator(
        {
            "schema": {
                "oneOf": [
                    {"properties": {"event": {"const": "a"}, "data": TICK}, "required": ["event", "data"]},
                    {"properties": {"event": {"const": "b"}, "data": {"type": "string", "const": "x"}}},
                    {
                        "properties": {
                            "event": {"const": "c"},
                            "data": {"type": ["string", "object"], "minLength": 9, "required": ["n"]},
                        }
                    },
                ]
            }
        }
    )
    assert branches.description.dialect == "schema of the event"
    assert found(branches, 'event: a\ndata: {"n":1}\n\nevent: b\ndata: x\n\n') == GOOD
    assert found(branches, "event: a\ndata: x\n\n") == [("json.syntax", "/data", "contentMediaType")]
    assert found(branches, 'event: a\ndata: {"n":"1"}\n\n') == [("schema.field-type", "/data/n", "type")]
    assert found(branches, "event: b\ndata: y\n\n") == [("schema.value", "/data", "const")]
    assert found(branches, "event: c\ndata: {}\n\n") in (
        [("schema.value", "/data", "minLength")],
        [("schema.missing-field", "/data", "required")],
    )


def test_a_payload_that_looks_like_an_event_is_accepted() -> None:
    schema = {
        "type": "object",
        "required": ["data"],
        "properties": {"data": {"type": "object", "required": ["a"]}},
    }
    looks = validator({"schema": schema})
    assert found(looks, 'data: {"a":1}\n\ndata: {"data":{"a":1}}\n\n') == GOOD
    assert found(looks, 'data: {"b":1}\n\n') == [("schema.missing-field", "/data", "required")]
    as_payload = validator({"schema": schema}, reading="payload")
    assert found(as_payload, 'data: {"data":{"a":1}}\n\n') == GOOD
    assert found(as_payload, 'data: {"a":1}\n\n') == [("schema.missing-field", "", "required")]


def test_the_reading_can_be_said() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    assert found(item(schema), 'data: {"n":"x"}\n\n') == [("schema.field-type", "/n", "type")]
    as_event = item(schema, reading="event")
    assert found(as_event, 'data: {"n":"x"}\n\n') == GOOD
    assert as_event.description.warnings == ()


def test_an_array_of_payloads_or_of_events() -> None:
    payloads = validator({"schema": {"type": "array", "items": TICK}})
    assert found(payloads, 'data: {"n":1}\n\ndata: {"n":"x"}\n\n') == [("schema.field-type", "/n", "type")]
    assert payloads.description.whole is None
    texts = validator({"schema": {"type": "array", "items": {"type": "string"}}})
    assert found(texts, "data: hello\n\n") == GOOD
    events = validator(
        {"schema": {"type": "array", "items": {**DATA, "properties": {"data": json_text(TICK)}}}}
    )
    assert found(events, 'data: {"n":"x"}\n\n') == [("schema.field-type", "/data/n", "type")]


def whole(checked: EventValidator, body: str) -> list[tuple[str, str, str]]:
    kept = []
    for event in wire_events(body.encode()):
        assert checked.check(*event) == ()
        kept.append(checked.item(*event[:4]))
    return [(problem.rule, problem.path, problem.keyword) for problem in checked.check_whole(kept)]


def test_the_whole_stream_is_an_array_of_events() -> None:
    first = {"prefixItems": [{"properties": {"event": {"const": "start"}}}], "minItems": 2}
    both = validator({"itemSchema": {**DATA, "properties": {"data": TEXT}}, "schema": first})
    assert whole(both, "event: start\ndata: x\n\ndata: y\n\n") == GOOD
    assert whole(both, "event: other\ndata: x\n\ndata: y\n\n") == [("schema.stream", "/0/event", "const")]
    assert whole(both, "event: start\ndata: x\n\n") == [("schema.stream", "", "minItems")]
    named = validator(
        {
            "schema": {
                "type": "array",
                "contains": {"properties": {"event": {"const": "message"}}, "required": ["event"]},
            }
        }
    )
    assert named.description.item is None
    assert whole(named, "data: x\n\n") == GOOD
    assert whole(named, "") == [("schema.stream", "", "contains")]
    payloads = validator({"schema": {"type": "array", "maxItems": 1, "items": TICK}})
    assert whole(payloads, 'data: {"n":1}\n\n') == GOOD
    assert whole(payloads, 'data: {"n":1}\n\ndata: {"n":2}\n\n') == [("schema.stream", "", "maxItems")]
    assert payloads.check_whole([{"data": "no JSON"}]) == ()
    items = validator({"itemSchema": DATA, "schema": {"type": "array", "items": {"required": ["id"]}}})
    assert whole(items, "data: x\n\n") == [("schema.stream", "/0", "required")]
    texts = validator({"schema": {"type": "array", "minItems": 2, "items": {"type": "string"}}})
    assert whole(texts, "data: x\n\ndata: y\n\n") == GOOD
    said = validator({"itemSchema": DATA, "schema": {"type": "string"}})
    assert said.description.whole is None
    assert said.check_whole([]) == ()


def test_the_terminator_is_exempt_under_any_name() -> None:
    ended = item({**DATA, "properties": {"data": json_text(TICK)}}, terminator="[DONE]")
    assert found(ended, "event: x\ndata: [DONE]\n\ndata:[DONE]\n\n") == GOOD
    assert found(ended, "data: [DONE] \n\n")[0][0] == "json.syntax"


def test_the_decoded_value_is_kept() -> None:
    promised = validator(
        {"itemSchema": {**DATA, "properties": {"data": TEXT}}, "x-sse-stream": {"kind": "/data/type"}}
    )
    assert promised.check(None, '{"type":"a"}') == ()
    assert promised.value == {"type": "a"}
    assert promised.check(None, "no JSON") == ()
    assert promised.value is None
    plain = item({**DATA, "properties": {"data": TEXT}})
    assert plain.check(None, "1") == ()
    assert plain.value is None
    by_content = item({**DATA, "properties": {"data": json_text(TICK)}})
    assert by_content.check(None, '{"n":"x"}') != ()
    assert by_content.value == {"n": "x"}
    assert by_content.check(None, "null") != ()
    kind = validator(
        {
            "itemSchema": {
                **DATA,
                "properties": {
                    "data": json_text({"type": "object", "properties": {"type": {"enum": ["a"]}}})
                },
            },
            "x-sse-stream": {"kind": "/data/type"},
        }
    )
    assert found(kind, 'data: {"type":"b"}\n\n') == [("schema.unknown-kind", "/data/type", "enum")]


def test_a_problem_says_what_was_expected_and_what_came() -> None:
    checked = item({**DATA, "properties": {"data": json_text({**TICK, "additionalProperties": False})}})
    assert checked.check(None, '{"n":"x"}') == (
        Problem("schema.field-type", "/data/n", "type", "integer", '"x"'),
    )
    assert checked.check(None, '{"m":1}')[0].expected == "the field n"
    assert checked.check(None, '{"n":1,"m":1}')[0].expected == "no other field"
    limited = item({**DATA, "properties": {"data": json_text({"maximum": 3, "type": ["integer", "null"]})}})
    assert limited.check(None, "7")[0].expected == "maximum 3"
    assert limited.check(None, '"7"')[0].expected == "integer or null"
    odd = item(
        {
            **DATA,
            "properties": {"data": json_text({"contains": {"const": 1}, "dependentRequired": {"a": ["b"]}})},
        }
    )
    assert odd.check(None, "[" + "2," * 200 + "2]")[0].actual.endswith("...")
    assert odd.check(None, '{"a":1}')[0].keyword == "dependentRequired"
    pointer = item({**DATA, "properties": {"data": json_text({"properties": {"a/b~c": {"type": "null"}}})}})
    assert pointer.check(None, '{"a/b~c":1}')[0].path == "/data/a~1b~0c"


def test_what_no_lane_can_take_is_judged_exactly() -> None:
    two = {"oneOf": [{"properties": {"event": {"const": "a"}}}], "anyOf": [{"properties": {"data": TEXT}}]}
    assert found(item({"type": "object", **two}), "event: a\ndata: x\n\n") == GOOD
    nested = {"type": "object", "oneOf": [{"anyOf": [{"properties": {"event": {"const": "a"}}}]}]}
    assert found(item(nested), "event: a\ndata: x\n\n") == GOOD
    assert found(item({"type": ["array"], "properties": {"data": TEXT}}), "data: x\n\n") == [
        ("schema.field-type", "", "type")
    ]
    assert found(item({**DATA, "required": ["more"]}), "data: x\n\n") == [
        ("schema.missing-field", "", "required")
    ]
    assert (
        found(item({**DATA, "properties": {"event": {"minLength": 2}}}), "event: a\ndata: x\n\n")[0][1]
        == "/event"
    )
    assert found(item({**DATA, "properties": {"event": False}}), "data: x\n\n") == GOOD
    assert found(item({**DATA, "properties": {"event": False}}), "event: a\ndata: x\n\n") == [
        ("schema.value", "/event", "false")
    ]
    for retry in (True, {"type": ["integer", "null"]}, {}, {"minimum": -1}):
        assert found(item({**DATA, "properties": {"retry": retry}}), "retry: 1\ndata: x\n\n") == GOOD


def test_kinds_that_two_branches_share_are_judged_exactly() -> None:
    schema = union("a", "b")
    schema["oneOf"].append(
        {"type": "object", "required": ["type"], "properties": {"type": {"enum": ["a", "c"]}, "more": {}}}
    )
    assert of_data(json_text(schema), 'data: {"type":"c"}\n\n') == GOOD
    assert of_data(json_text(schema), 'data: {"type":"a"}\n\n') == [("schema.ambiguous", "/data", "oneOf")]
    inner = {
        "oneOf": [{"$ref": "#/components/schemas/No"}, {"type": "integer"}],
        "$ref": "#/components/schemas/Yes",
    }
    assert of_data(json_text(inner), "data: 1\n\n", components={"No": False, "Yes": True}) == GOOD
    assert (
        of_data(
            json_text({**inner, "$ref": "#/components/schemas/No"}),
            "data: 1\n\n",
            components={"No": False, "Yes": True},
        )
        != GOOD
    )


def test_a_text_that_parses_as_a_constant_of_another_branch_is_ambiguous() -> None:
    schema = {
        "type": "object",
        "oneOf": [{"properties": {"data": {"const": 5}}}, {"properties": {"data": {"type": "integer"}}}],
    }
    assert found(item(schema), "data: 5\n\n") == [("schema.ambiguous", "", "oneOf")]
    assert found(item(schema), "data: 6\n\n") == GOOD


def test_a_fault_of_a_deep_value_is_told_in_short() -> None:
    deep = "[" * 1200 + "]" * 1200
    assert of_data(json_text({"contains": {"type": "null"}, "type": "array"}), f"data: {deep}\n\n") == [
        ("schema.value", "/data", "contains")
    ]
    tree = {
        "type": "array",
        "items": {"anyOf": [{"$ref": "#/components/schemas/T"}, {"type": "null"}]},
        "maxItems": 1,
    }
    broken = "[" * 300 + "1" + "]" * 300
    assert (
        len(
            of_data(
                json_text({"$ref": "#/components/schemas/T"}), f"data: {broken}\n\n", components={"T": tree}
            )
        )
        == 1
    )
    dated = {"type": "array", "prefixItems": [{"format": "date"}, {"writeOnly": True}]}
    assert of_data(json_text(dated), f'data: ["x", {deep}]\n\n') != GOOD


def test_the_branch_without_a_name_is_chosen_by_its_payload() -> None:
    unnamed = {
        **DATA,
        "oneOf": [
            {
                "properties": {
                    "data": json_text(
                        {"type": "object", "required": ["t"], "properties": {"t": {"const": kind}, "n": TEXT}}
                    )
                }
            }
            for kind in ("a", "b")
        ],
    }
    assert found(item(unnamed), 'data: {"t":"b","n":1}\n\n') == [("schema.field-type", "/data/n", "type")]
    assert found(item(unnamed), "data: {}\n\n") == [("schema.missing-field", "/data", "required")]
    assert found(item(unnamed), "data: x\n\n") == [("json.syntax", "/data", "contentMediaType")]


def test_a_payload_that_may_be_a_bare_text_holds_as_either() -> None:
    either = validator({"schema": {"anyOf": [TICK, {"type": "string", "enum": ["[DONE]"]}]}})
    assert found(either, 'data: {"n":1}\n\ndata: [DONE]\n\ndata: "[DONE]"\n\n') == GOOD
    assert found(either, 'data: {"n":"x"}\n\n') == [("schema.field-type", "/n", "type")]
    assert found(either, "data: [END]\n\n") == [("json.syntax", "", "contentMediaType")]


def test_an_inline_schema_with_id_is_a_scope_too() -> None:
    inline = {
        "properties": {
            "a": {"$id": "https://x.test/in", "$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n"}
        }
    }
    assert of_data(json_text(inline), 'data: {"a":"x"}\n\n') == [("schema.field-type", "/data/a", "type")]


def test_a_warning_of_one_branch_is_no_fault_of_another() -> None:
    schema = {
        "anyOf": [
            {
                "type": "object",
                "properties": {"k": {"const": "a"}, "v": {"type": "string", "format": "date"}},
            },
            {"type": "object", "properties": {"k": {"const": "b"}, "v": {"type": "integer"}}},
            {"type": "array"},
        ]
    }
    assert of_data(json_text(schema), 'data: {"v":"x"}\n\n') == [("schema.format", "/data/v", "format")]
    assert of_data(json_text(schema), 'data: {"k":"a","v":"x"}\n\n') == [
        ("schema.format", "/data/v", "format")
    ]
    flipped = {"oneOf": [{"type": "string"}, {"type": "string", "format": "date", "minLength": 9}]}
    assert of_data(json_text(flipped), 'data: "x"\n\n') == GOOD
    no_date = {
        "not": {"type": "string", "format": "date", "maxLength": 3},
        "if": {"format": "date"},
        "then": {"minLength": 20},
    }
    assert of_data(json_text(no_date), 'data: "2026-01-01"\n\n') == [("schema.value", "/data", "minLength")]
    twice_not = {"anyOf": [{"not": {"not": {"format": "date"}}}]}
    assert of_data(json_text(twice_not), 'data: "x"\n\n') == GOOD


def test_too_few_matches_are_told_by_contains() -> None:
    few = {"contains": {"const": 1}, "minContains": 2}
    assert of_data(json_text(few), "data: [1]\n\n") == [("schema.value", "/data", "contains")]


@pytest.mark.parametrize(
    "names",
    [
        {"anyOf": [{"const": "b"}]},
        {"maxLength": 0},
        {"contentMediaType": "application/json"},
        {"required": ["x"], "type": "null"},
    ],
)
def test_a_wrong_name_of_a_field_is_the_fault_of_the_object(names: Any) -> None:
    assert of_data(json_text({"propertyNames": names}), 'data: {"a":1}\n\n') == [
        ("schema.value", "/data", "propertyNames")
    ]
