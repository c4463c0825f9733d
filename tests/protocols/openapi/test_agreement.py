"""The verdict equals that of another validator, for any schema and any value."""

import json
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cutover.protocols.openapi import EventValidator, describe_stream
from cutover.protocols.openapi.faults import WARNINGS
from tests.support.openapi_events import (
    WireEvent,
    document,
    holds_in_some_way,
    json_text,
    reference_validator,
)

NAMES = st.sampled_from(["a", "b", "type"])
SCALARS = st.sampled_from([None, True, False, 0, 1, 2, 1.0, 2.5, -1, "", "x", "y", "xyz"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(["string", "integer", "number", "boolean", "null", "object", "array"])
REFERENCES = st.sampled_from([{"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/B"}])


def schemas(*, references: bool = True) -> st.SearchStrategy[Any]:
    def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries(
            {},
            optional={
                "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
                "properties": st.dictionaries(NAMES, inner, max_size=3),
                "required": st.lists(NAMES, max_size=2, unique=True),
                "additionalProperties": inner,
                "unevaluatedProperties": inner,
                "items": inner,
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "anyOf": st.lists(inner, min_size=1, max_size=3),
                "oneOf": st.lists(inner, min_size=1, max_size=3),
                "allOf": st.lists(inner, min_size=1, max_size=2),
                "not": inner,
                "if": inner,
                "then": inner,
                "else": inner,
                "contains": inner,
                "enum": st.lists(SCALARS, min_size=1, max_size=3),
                "const": SCALARS,
                "minimum": st.integers(-1, 2),
                "exclusiveMaximum": st.integers(0, 3),
                "multipleOf": st.sampled_from([1, 2]),
                "minLength": st.integers(0, 2),
                "maxLength": st.integers(0, 3),
                "pattern": st.sampled_from(["^x", "y$"]),
                "minItems": st.integers(0, 2),
                "maxProperties": st.integers(0, 2),
                "dependentRequired": st.dictionaries(NAMES, st.lists(NAMES, max_size=1), max_size=1),
                "propertyNames": inner,
            },
        )

    leaves: st.SearchStrategy[Any] = st.booleans() | st.fixed_dictionaries(
        {}, optional={"type": TYPES, "const": SCALARS}
    )
    if references:
        leaves |= REFERENCES
    return st.recursive(leaves, lambda inner: few(keywords(inner)), max_leaves=8)


def few(whole: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Keep at most four keywords: with more of them, almost nothing holds."""
    return st.tuples(whole, st.randoms(use_true_random=False)).map(
        lambda pair: {key: pair[0][key] for key in pair[1].sample(sorted(pair[0]), min(4, len(pair[0])))}
    )


COMPONENTS = st.fixed_dictionaries({"A": schemas(references=False), "B": schemas(references=False)})


def faulty(validator: EventValidator, event: WireEvent) -> bool:
    problems = validator.check(*event)
    faults = [problem for problem in problems if problem.rule not in WARNINGS]
    assert len(faults) <= 1
    return bool(faults)


def event(data: str, name: str | None = None, **more: Any) -> WireEvent:
    return WireEvent(name, data, more.get("id"), more.get("retry"), more.get("last_event_id", ""))


@settings(max_examples=300, deadline=None)
@given(schemas(), COMPONENTS, st.lists(VALUES, min_size=1, max_size=4))
def test_content_and_payload_get_the_verdict_of_jsonschema(
    schema: Any, components: Any, values: list[Any]
) -> None:
    item = {"type": "object", "required": ["data"], "properties": {"data": json_text(schema)}}
    more: dict[str, Any] = {"components": {"schemas": components}}
    by_event = EventValidator(describe_stream(document({"itemSchema": item}, **more), "/x", "get"))
    by_payload = EventValidator(
        describe_stream(document({"itemSchema": schema}, **more), "/x", "get", reading="payload")
    )
    reference = reference_validator(schema, components)
    for value in values:
        text = json.dumps(value)
        expected = not reference.is_valid(value)
        assert faulty(by_event, event(text)) == expected, (schema, value)
        if by_payload.description.modes == ("payload",):
            assert faulty(by_payload, event(text)) == expected, (schema, value)


KINDS = st.sampled_from(["x", "y", "z", "message"])
PARSED = st.sampled_from(
    [{"type": "integer"}, {"const": 1}, {"enum": [1, "x"]}, {"type": ["string", "object"]}, {}]
)
FIELD_OF_DATA = st.one_of(
    st.just({"type": "string"}),
    st.just({"contentMediaType": "application/json"}),
    st.just({"contentMediaType": "text/plain", "const": "[DONE]"}),
    st.just({"const": "1"}),
    st.just({"minLength": 2}),
    PARSED,
    schemas(references=False).map(json_text),
    st.lists(
        st.tuples(KINDS, schemas(references=False)), min_size=1, max_size=3, unique_by=lambda pair: pair[0]
    ).map(
        lambda pairs: json_text(
            {
                "oneOf": [
                    {
                        "type": "object",
                        "required": ["type"],
                        "properties": {"type": {"const": kind}, "a": schema},
                    }
                    for kind, schema in pairs
                ]
            }
        )
    ),
)
BRANCHES = st.fixed_dictionaries(
    {},
    optional={
        "event": st.one_of(
            KINDS.map(lambda kind: {"const": kind}),
            st.lists(KINDS, min_size=1).map(lambda all_: {"enum": all_}),
        ),
        "data": FIELD_OF_DATA,
        "id": st.sampled_from([{"type": "string"}, {"pattern": "^[0-9]+$"}]),
        "retry": st.sampled_from([{"type": "integer", "minimum": 0}, {"maximum": 5}]),
    },
).map(lambda properties: {"properties": properties})
ITEMS = st.builds(
    lambda base, required, keyword, branches, closed: {
        **base,
        "type": "object",
        "required": required,
        **({keyword: branches} if branches else {}),
        **closed,
    },
    BRANCHES,
    st.lists(st.sampled_from(["data", "event", "id"]), max_size=2, unique=True),
    st.sampled_from(["oneOf", "anyOf"]),
    st.lists(BRANCHES | st.sampled_from([False]), max_size=4),
    st.sampled_from([{}, {}, {}, {"additionalProperties": False}, {"not": {"required": ["retry"]}}]),
)
EVENTS = st.builds(
    WireEvent,
    st.none() | KINDS | st.just(""),
    st.one_of(
        VALUES.map(json.dumps),
        st.sampled_from(["[DONE]", "1", "", "{", "NaN", "x"]),
        st.tuples(KINDS, VALUES).map(lambda pair: json.dumps({"type": pair[0], "a": pair[1]})),
    ),
    st.none() | st.sampled_from(["", "7", "x"]),
    st.none() | st.sampled_from([0, 9]),
    st.sampled_from(["", "5", "y"]),
)


@settings(max_examples=400, deadline=None)
@given(ITEMS, st.lists(EVENTS, min_size=1, max_size=6))
def test_events_get_the_verdict_of_jsonschema_by_every_lane(item: Any, events: list[WireEvent]) -> None:
    description = describe_stream(document({"itemSchema": item}), "/x", "get")
    assume(description.reading == "event" and description.modes == ("text",))
    validator, reference = EventValidator(description), reference_validator(item)
    for one in events:
        assert faulty(validator, one) == (not holds_in_some_way(reference, one)), (item, one)


@settings(max_examples=300, deadline=None)
@given(ITEMS, st.lists(EVENTS, min_size=1, max_size=6))
def test_a_lane_and_the_exact_check_find_the_same(item: Any, events: list[WireEvent]) -> None:
    description = describe_stream(document({"itemSchema": item}), "/x", "get", reading="event")
    validator = EventValidator(description)
    for one in events:
        found = tuple(validator.check(*one))
        assert found == tuple(validator._judge(one.event or None, *one[1:])), (item, one)
