"""The data of a chunk has the shape that a team has written down already: a type, a model, a schema, a function."""

import dataclasses
import enum
import functools
import json
from typing import Annotated, Any, Literal, NamedTuple, NewType, Optional, TypedDict

import attrs
import msgspec
import pydantic
import pytest

from cutover.contract import ANYTHING, TEXT, Kind, Severity, StreamContract
from cutover.contract.findings import Finding
from tests.support.own_streams import event, report_on


def contract(shape: object, **fields: Any) -> StreamContract:
    """Return a contract in which the events of the kind `k` have this shape."""
    return StreamContract(name="shapes", chunks={"k": shape}, **fields)


def finding(shape: object, data: object, **fields: Any) -> Finding | None:
    """Return the one finding about an object of kind `k`."""
    text = (
        data
        if isinstance(data, str)
        else json.dumps({"type": "k", **data})
        if isinstance(data, dict)
        else json.dumps(data)
    )
    findings = report_on(contract(shape, **fields), event(text)).findings
    assert len(findings) < 2
    return findings[0] if findings else None


def told(shape: object, data: object, **fields: Any) -> tuple[Any, ...] | None:
    """Return the finding as rule, path, keyword and message."""
    one = finding(shape, data, **fields)
    return None if one is None else (one.rule, one.path, one.keyword, one.message)


class Bounded(msgspec.Struct):
    word: Annotated[str, msgspec.Meta(pattern="^a")]


class BoundedModel(pydantic.BaseModel):
    word: Annotated[str, pydantic.Field(pattern="^a")]


class Inner(msgspec.Struct):
    n: int = 0


class AsStruct(msgspec.Struct):
    id: str
    n: Annotated[int, msgspec.Meta(ge=0)] = 0
    mode: Literal["a", "b"] = "a"
    inner: Inner | None = None


@dataclasses.dataclass
class AsDataclass:
    id: str
    n: Annotated[int, msgspec.Meta(ge=0)] = 0
    mode: Literal["a", "b"] = "a"
    inner: Inner | None = None


@attrs.define
class AsAttrs:
    id: str
    n: Annotated[int, msgspec.Meta(ge=0)] = 0
    mode: Literal["a", "b"] = "a"
    inner: Inner | None = None


class AsDict(TypedDict, total=False):
    id: str
    n: Annotated[int, msgspec.Meta(ge=0)]
    mode: Literal["a", "b"]
    inner: Inner | None


class WithId(AsDict):
    pass


class InnerModel(pydantic.BaseModel):
    n: int = 0


class AsModel(pydantic.BaseModel):
    id: str
    n: Annotated[int, pydantic.Field(ge=0)] = 0
    mode: Literal["a", "b"] = "a"
    inner: InnerModel | None = None


SCHEMA = {
    "type": "object",
    "required": ["id"],
    "additionalProperties": False,
    "properties": {
        "type": {"const": "k"},
        "id": {"type": "string"},
        "n": {"type": "integer", "minimum": 0},
        "mode": {"enum": ["a", "b"]},
        "inner": {"type": ["object", "null"], "properties": {"n": {"type": "integer"}}},
    },
}
TYPES = [AsStruct, AsDataclass, AsAttrs, AsDict]
ALL = [*TYPES, AsModel, pydantic.TypeAdapter(AsModel), SCHEMA]


ANY_INTEGER = {"json.unsafe-integer": Severity.IGNORED}
"""The severities of a contract whose clients keep long integers."""


def ids(shape: object) -> str:
    return getattr(shape, "__name__", type(shape).__name__)


@pytest.mark.parametrize("shape", ALL, ids=ids)
@pytest.mark.parametrize(
    "data",
    [
        {"id": "x"},
        {"id": "x", "n": 5, "mode": "b", "inner": {"n": 1}},
        {"id": "", "inner": None},
        {"id": "x", "n": 2**70},
        {"id": "x", "n": 10**30},
        {"id": "\x00\u2028"},
    ],
)
def test_right_data_gives_no_finding(shape: object, data: dict[str, object]) -> None:
    severities = {"schema.unknown-field": Severity.IGNORED, **ANY_INTEGER}
    assert told(shape, data, severities=severities) is None


@pytest.mark.parametrize("shape", ALL, ids=ids)
@pytest.mark.parametrize(
    ("data", "rule", "path", "keyword"),
    [
        ({"id": 1}, "schema.field-type", "/data/id", "type"),
        ({"id": None}, "schema.field-type", "/data/id", "type"),
        ({"id": "x", "n": "5"}, "schema.field-type", "/data/n", "type"),
        ({"id": "x", "n": True}, "schema.field-type", "/data/n", "type"),
        ({"id": "x", "n": 1.5}, "schema.field-type", "/data/n", "type"),
        ({"id": "x", "inner": {"n": "1"}}, "schema.field-type", "/data/inner/n", "type"),
        ({"id": "x", "inner": []}, "schema.field-type", "/data/inner", "type"),
        ({"id": "x", "mode": "c"}, "schema.unknown-value", "/data/mode", "enum"),
    ],
)
def test_wrong_data_gives_the_same_finding_whatever_the_shape_is(
    shape: object, data: dict[str, object], rule: str, path: str, keyword: str
) -> None:
    one = told(shape, data, severities={"schema.unknown-field": Severity.IGNORED})
    assert one is not None
    assert one[:3] == (rule, path, keyword)
    assert one[3].startswith("expected ")
    assert f", got {path} " in one[3]


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [
        (Bounded, "`str` matching regex '^a', got /data/word \"b\""),
        (BoundedModel, "string that should match pattern '^a', got /data/word \"b\""),
        (
            {"properties": {"word": {"pattern": "^a"}}},
            'a value that the keyword pattern allows, got /data/word: "b" does not match "^a"',
        ),
    ],
)
def test_a_bound_is_told_in_words(shape: object, wanted: str) -> None:
    one = told(shape, {"word": "b"})
    assert one is not None
    assert (one[0], one[1], one[3]) == ("schema.value", "/data/word", f"expected {wanted}")


@pytest.mark.parametrize("shape", [each for each in ALL if each is not AsDict], ids=ids)
def test_a_missing_field_is_named(shape: object) -> None:
    expected = ("schema.missing-field", "/data", "required", "expected a field id, got only type, n")
    assert told(shape, {"n": 1}) == expected


@pytest.mark.parametrize("shape", ALL, ids=ids)
def test_a_value_that_a_shape_does_not_allow(shape: object) -> None:
    one = finding(shape, {"id": "x", "n": -1})
    assert one is not None
    assert (one.rule, one.path) == ("schema.value", "/data/n")
    assert "-1" in one.message


@pytest.mark.parametrize("shape", [*TYPES, AsModel], ids=ids)
def test_an_unknown_field_is_a_warning_a_violation_or_nothing(shape: object) -> None:
    data = {"id": "x", "inner": {"n": 1, "more": 2}, "extra": [{"deep": 1}]}
    reports = {
        word: report_on(contract(shape, severities={"schema.unknown-field": word} if word else {}), event({"type": "k", **data}))
        for word in (None, "warning", "violation", "ignored")
    }  # fmt: skip
    for word, report in reports.items():
        fields = ["inner/more", "extra"] if word != "ignored" else []
        assert sorted(each.actual or "" for each in report.findings) == sorted(fields)
        assert {each.rule for each in report.findings} <= {"schema.unknown-field"}
        assert report.ok is (word != "violation")


@pytest.mark.parametrize("forbidding", [
    msgspec.defstruct("F", [("id", str)], forbid_unknown_fields=True),
    pydantic.create_model("P", __config__=pydantic.ConfigDict(extra="forbid"), id=str),
    {"properties": {"id": True, "type": True}, "additionalProperties": False},
    {"properties": {"id": True, "type": True}, "unevaluatedProperties": False},
], ids=["struct", "pydantic", "additional", "unevaluated"])  # fmt: skip
def test_a_shape_that_forbids_other_fields_makes_them_a_violation(forbidding: object) -> None:
    assert told(forbidding, {"id": "x"}) is None
    one = finding(forbidding, {"id": "x", "more": 1})
    assert one is not None
    assert (one.rule, one.severity) == ("schema.unknown-field", Severity.VIOLATION)
    assert one.expected == "only known fields"
    assert "more" in (one.actual or "")
    ignoring = finding(forbidding, {"id": "x", "more": 1}, severities={"schema.unknown-field": "ignored"})
    assert ignoring is None


class Cat(msgspec.Struct, tag="cat", tag_field="sort", forbid_unknown_fields=True):
    lives: int


class Dog(msgspec.Struct, tag="dog", tag_field="sort", forbid_unknown_fields=True):
    name: str


class CatModel(pydantic.BaseModel):
    sort: Literal["cat"]
    lives: int


class DogModel(pydantic.BaseModel):
    sort: Literal["dog"]
    name: str


ANIMAL = Annotated[CatModel | DogModel, pydantic.Field(discriminator="sort")]


class Home(pydantic.BaseModel):
    pet: ANIMAL


class HomeStruct(msgspec.Struct):
    pet: Cat | Dog


@pytest.mark.parametrize("shape", [HomeStruct, Home], ids=ids)
@pytest.mark.parametrize(
    ("pet", "rule"),
    [
        ({"sort": "cat", "lives": 7}, None),
        ({"sort": "dog", "name": "x"}, None),
        ({"sort": "dog", "lives": 7}, "schema.missing-field"),
        ({"sort": "cow"}, "schema.unknown-value"),
        ({"lives": 7}, "schema.missing-field"),
        ({"sort": "cat", "lives": "7"}, "schema.field-type"),
    ],
)
def test_a_nested_union_is_decided_by_its_tag(shape: object, pet: object, rule: str | None) -> None:
    if shape is HomeStruct and isinstance(pet, dict) and pet == {"sort": "dog", "lives": 7}:
        rule = "schema.unknown-field"
    one = told(shape, {"pet": pet})
    assert (None if one is None else one[0]) == rule


def test_a_union_at_the_top_may_forbid_the_field_with_the_kind() -> None:
    assert told(Cat | Dog, {"sort": "cat", "lives": 7}) is None
    assert told(Cat | Dog, {"sort": "cat", "lives": 7, "x": 1}) == (
        "schema.unknown-field", "/data", None, "expected only known fields, got x",
    )  # fmt: skip


def test_a_union_is_decided_by_the_member_that_is_present() -> None:
    schema = {
        "oneOf": [
            {"required": ["cat"], "properties": {"cat": {"type": "integer"}}},
            {"required": ["dog"], "properties": {"dog": {"type": "string"}}},
        ]
    }
    assert told(schema, {"cat": 1}) is None
    assert told(schema, {"dog": "x"}) is None
    both = told(schema, {"cat": 1, "dog": "x"})
    assert both is not None
    assert both[:3] == ("schema.value", "/data", "oneOf")
    inside = StreamContract(
        name="x", kind=Kind.member("cat", "dog"), chunks={"cat": dict[str, int], "dog": dict[str, str]}
    )
    assert [each.rule for each in report_on(inside, event({"cat": 1}), event({"dog": 1})).findings] == [
        "schema.field-type"
    ]


def test_of_a_union_in_a_schema_the_fitting_branch_tells_the_defect() -> None:
    schema = {
        "anyOf": [
            {"properties": {"t": {"const": "a"}, "n": {"type": "integer"}}},
            {"properties": {"t": {"const": "b"}, "n": {"type": "string"}}},
        ]
    }
    assert told(schema, {"t": "a", "n": "x"}) == (
        "schema.field-type",
        "/data/n",
        "type",
        'expected integer, got /data/n "x"',
    )
    none = told(schema, {"t": "c"})
    assert none is not None
    assert none[:3] == ("schema.value", "/data", "anyOf")
    assert none[3].startswith("expected a value that the keyword anyOf allows, got /data: ")


def test_a_schema_may_be_a_bool() -> None:
    assert told(True, {}) is None  # noqa: FBT003
    one = told(False, {})  # noqa: FBT003
    assert one is not None
    assert one[:2] == ("schema.value", "/data")


def test_a_schema_tells_a_constant() -> None:
    assert told({"properties": {"v": {"const": {"a": 1}}}}, {"v": 2}) == (
        "schema.unknown-value", "/data/v", "const", 'expected {"a": 1}, got /data/v 2',
    )  # fmt: skip


@pytest.mark.parametrize(
    "chunks", [{"type": "integer"}, {"properties": {"a": True}}, {"oneOf": [True]}, {"$ref": "#/$defs/x", "$defs": {"x": True}}]
)  # fmt: skip
def test_a_mapping_with_words_of_json_schema_is_one_schema_for_all_events(chunks: Any) -> None:
    own = StreamContract(name="x", kind=Kind.single(), chunks=chunks)
    assert report_on(own, event(1)).findings == ()


def positive(data: Any) -> str | None:
    return None if data["n"] > 0 else "n must be positive"


class Checks:
    def __call__(self, data: Any) -> object:
        return data["n"] > 0

    def method(self, data: Any) -> str | None:
        return positive(data)


@pytest.mark.parametrize(
    ("shape", "wanted", "why"),
    [
        (positive, "data that positive accepts", " (n must be positive)"),
        (lambda data: data["n"] > 0, "data that <lambda> accepts", ""),
        (functools.partial(positive), "data that the function accepts", " (n must be positive)"),
        (Checks(), "data that the function accepts", ""),
        (Checks().method, "data that method accepts", " (n must be positive)"),
    ],
)
def test_a_function_tells_the_defect(shape: object, wanted: str, why: str) -> None:
    assert told(shape, {"n": 1}) is None
    assert told(shape, {"n": 0}) == (
        "schema.value", "/data", None, f'expected {wanted}, got {{"type": "k", "n": 0}}{why}',
    )  # fmt: skip


class WrongError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


def failing(_: object) -> object:
    raise WrongError


class PostInit(msgspec.Struct):
    id: str

    def __post_init__(self) -> None:
        raise ZeroDivisionError


class PostInitValue(msgspec.Struct):
    id: str

    def __post_init__(self) -> None:
        raise ValueError("id is odd")


class Validated(pydantic.BaseModel):
    id: str

    @pydantic.field_validator("id")
    @classmethod
    def check(cls, value: str) -> str:
        if value == "key":
            raise KeyError(value)
        if value == "assert":
            raise AssertionError("no such id")
        if value == "value":
            raise ValueError("bad id")
        return value


@pytest.mark.parametrize(
    ("shape", "data", "message"),
    [
        (failing, {}, 'expected data that failing accepts, got {"type": "k"} (it raised WrongError)'),
        (positive, {}, "expected data that positive accepts, got {\"type\": \"k\"} (it raised KeyError: 'n')"),
        (PostInit, {"id": "x"}, 'expected data that its type accepts, got /data {"type": "k", "id": "x"} (ZeroDivisionError)'),
        (PostInitValue, {"id": "x"}, 'expected id is odd, got /data {"type": "k", "id": "x"}'),
        (Validated, {"id": "key"}, "expected data that its validators accept, got /data {\"type\": \"k\", \"id\": \"key\"} (KeyError: 'key')"),
        (Validated, {"id": "value"}, 'expected bad id, got /data/id "value"'),
        (Validated, {"id": "assert"}, 'expected no such id, got /data/id "assert"'),
    ],
)  # fmt: skip
def test_an_error_of_the_owners_code_is_a_finding(shape: object, data: object, message: str) -> None:
    assert told(shape, data) == (
        "schema.value",
        "/data/id" if "/data/id " in message else "/data",
        None,
        message,
    )


class Loose(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="allow")
    id: str


class Either(pydantic.BaseModel):
    it: InnerModel | Validated


def test_pydantic_tells_no_unknown_fields_of_a_union_or_of_a_model_that_allows_them() -> None:
    assert told(Loose, {"id": "x", "more": 1}) is None
    assert told(Either, {"it": {"n": 1, "more": 1}}) is None
    named = pydantic.TypeAdapter(Validated)
    assert told(named, {"id": "x"}) is None


def test_an_older_pydantic_tells_no_unknown_fields() -> None:
    class Old:
        model_fields = AsModel.model_fields
        model_config = pydantic.ConfigDict()

        @staticmethod
        def model_validate_json(text: str, *, strict: bool) -> object:
            return AsModel.model_validate_json(text, strict=strict)

    assert told(Old, {"id": "x", "more": 1}) is None


def test_a_model_that_raises_another_error_is_a_finding() -> None:
    class Odd:
        @staticmethod
        def validate_json(text: str, **_: object) -> object:
            raise ValueError(text[:7])

    assert told(Odd, {}) == (
        "schema.value",
        "/data",
        None,
        'expected data that its validators accept, got /data {"type": "k"} (ValueError: {"type")',
    )


def test_a_described_type_knows_its_fields() -> None:
    described = Annotated[AsStruct, msgspec.Meta(description="a struct", extra_json_schema={"x": 1})]
    assert told(described, {"id": "x", "inner": None, "more": {}}) == (
        "schema.unknown-field",
        None,
        None,
        "expected only known fields of k, got more",
    )


HOSTILE = [
    '{"type":"k","id":"\\ud83d"}',
    '{"type":"k","\\ud83d":1,"id":"x"}',
    '{"type":"k","mode":"\\ud83d","id":"x"}',
    '{"type":"k","id":"x","n":1e999}',
    '{"type":"k","id":"x","n":-0}',
    '{"type":"k","id":"x","n":' + "9" * 4000 + "}",
    '{"type":"k","id":"x","n":' + "9" * 5000 + "}",
    '{"type":"k","id":' + "[" * 1000 + "]" * 1000 + "}",
    '{"type":"k","inner":' + '{"n":' * 1000 + "1" + "}" * 1000 + ',"id":"x"}',
    '{"type":"k","id":' + "[" * 100_000 + "]" * 100_000 + "}",
    '{"type":' + "[" * 1000 + "]" * 1000 + "}",
    '{"type":"k","id":{"' + "k" * 5000 + '":1}}',
    '{"":1,"type":"k","a/b":2,"c~d":3,"e.f":4,"[0]":5,"`":6,"id":"x"}',
    '{"type":"k","id":"x","type":"k"}',
    "[]", "null", "NaN", "1e999", '"k"', '{"type":"k"}' * 2, "", "{", "\ufeff{}",
]  # fmt: skip


@pytest.mark.parametrize(
    "shape", [*ALL, ANYTHING, failing, positive, PostInit, Validated, Cat | Dog, list[int]], ids=ids
)
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_data_makes_the_checker_raise(shape: object, text: str) -> None:
    # A union of closed types has no field id, and a contract whose path leads nowhere is refused.
    each = () if shape == Cat | Dog else "k by id"
    assert len(report_on(contract(shape, each=each), event(text)).findings) <= 16


def test_data_that_is_very_deep_is_refused_unless_anything_is_right() -> None:
    def nested(levels: int) -> str:
        return '{"type":"k","id":' + "[" * (levels - 1) + "]" * (levels - 1) + "}"

    for shape in (dict[str, Any], {"type": "object"}, lambda data: None):
        assert told(shape, nested(200)) is None
        assert told(shape, nested(201)) == (
            "schema.value", "/data", None, "expected objects and arrays inside each other, at most 200, got more",
        )  # fmt: skip
    for levels in (200, 201, 1000, 100_000):
        assert told(ANYTHING, nested(levels)) is None
    assert told(dict[str, Any], json.dumps({"type": "k", "id": "[" * 1000})) is None


def test_lone_surrogates_are_text() -> None:
    assert told(AsStruct, '{"type":"k","id":"\\ud83d"}') is None
    one = told({"properties": {"id": {"pattern": "^a"}}}, '{"type":"k","id":"\\ud83d"}')
    assert one is not None
    assert one[0] == "schema.value"
    assert "expected data that a JSON Schema can describe" in one[3]


def test_integers_stay_integers() -> None:
    for number in (2**53 + 1, 2**64, -(2**70), 10**3000):
        seen: list[Any] = []
        text = json.dumps({"type": "k", "n": number})
        assert told(lambda data, seen=seen: seen.append(data["n"]), text, severities=ANY_INTEGER) is None
        assert seen == [number]
        assert type(seen[0]) is int


class Point(NamedTuple):
    x: int
    y: int


class Array(msgspec.Struct, array_like=True):
    x: int


class Color(enum.Enum):
    RED = "red"


UserId = NewType("UserId", int)


@pytest.mark.parametrize(
    ("type_", "good", "bad", "path"),
    [
        (int, 1, "1", ""), (Literal[1, "a"], "a", "b", ""), (Color, "red", "blue", ""), (UserId, 1, "x", ""),
        (list[int], [1], [1, "2"], "/1"), (dict[str, list[Inner]], {"a": []}, {"a": [{"n": ""}]}, ""),
        (tuple[int, ...], [1], [""], "/0"), (set[int], [1], [""], "/0"), (Point, [1, 2], [1, "2"], "/1"), (Array, [1], [""], "/0"),
        (Optional[int], None, "x", ""), (int | list[int], 1, [""], "/0"), (Annotated[str, msgspec.Meta(max_length=2)], "ab", "abc", ""),  # noqa: UP045
        (list[Inner], [{"n": 1}], [{"n": 1}, {"n": "1"}], "/1/n"), (None, None, 1, ""), (dict[int, str], {"1": "a"}, {"x": "a"}, ""),
    ],
)  # fmt: skip
def test_each_type_of_msgspec_is_a_shape(type_: object, good: object, bad: object, path: str) -> None:
    own = StreamContract(name="x", kind=Kind.single(), chunks=type_)
    assert report_on(own, event(json.dumps(good))).findings == ()
    (one,) = report_on(own, event(json.dumps(bad))).findings
    assert (one.path, one.severity) == (f"/data{path}", Severity.VIOLATION)
    assert one.rule in {"schema.field-type", "schema.unknown-value", "schema.value"}


class Odd(msgspec.Struct, rename={"dotted": "a.b", "slash": "c/d", "tick": "e`f"}):
    dotted: int = 0
    slash: int = 0
    tick: int = 0


@pytest.mark.parametrize(
    ("name", "path"), [("a.b", "/data/a.b"), ("c/d", "/data/c~1d"), ("e`f", "/data/e`f")]
)
@pytest.mark.parametrize(
    "shape",
    [Odd, {"additionalProperties": {"type": "integer"}, "properties": {"type": True}}],
    ids=["struct", "schema"],
)
def test_a_place_is_a_pointer_whatever_the_names_are(shape: object, name: str, path: str) -> None:
    one = told(shape, {name: "x"})
    assert one is not None
    assert one[1] == path


@pytest.mark.parametrize("text", ["a~b", "", "1", "²"])
def test_pydantic_places_are_pointers_too(text: str) -> None:
    model = pydantic.create_model("M", it=(int, pydantic.Field(alias=text or "x")))
    one = told(model, {text or "x": "a"})
    assert one is not None
    assert one[1] == "/data/" + (text or "x").replace("~", "~0")
    assert told(pydantic.create_model("L", it=list[int]), {"it": ["x"]}) is not None


class Node(msgspec.Struct):
    next: Optional["Node"] = None


def test_a_type_may_contain_itself() -> None:
    deep: dict[str, object] = {}
    for _ in range(20):
        deep = {"next": deep}
    assert told(Node, deep) is None
    assert told(Node, {"next": {"next": {"x": 1}}}) == (
        "schema.unknown-field", None, None, "expected only known fields of k, got next/next/x",
    )  # fmt: skip


def test_at_most_a_few_unknown_fields_of_one_event_are_told() -> None:
    data = {"id": "x", "inner": {}, **{f"f{number}": 1 for number in range(1000)}}
    for shape in (AsStruct, AsModel):
        report = report_on(contract(shape), event({"type": "k", **data}))
        assert len(report.findings) == 16
    listed = report_on(contract(msgspec.defstruct("L", [("items", list[Inner])])), event({"type": "k", "items": [{"x": 1}] * 9}))  # fmt: skip
    assert [each.actual for each in listed.findings] == ["items/*/x"]


def own_shape() -> object:
    return contract(AsStruct).chunks.entries["k"].shape


def test_a_shape_of_the_owner_is_taken_as_it_is() -> None:
    assert told(own_shape(), {"id": 1}) is not None


class Plain:
    pass


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (Plain, "a class whose fields are not declared"),
        (5, "which is no type that msgspec takes"),
        ("AsStruct", "which is no type that msgspec takes"),
        (type, "a class whose fields are not declared"),
        ({"type": "nonsense"}, "the JSON Schema of the kind k cannot be used: "),
        ({"$ref": "https://example.com/x.json"}, "the JSON Schema of the kind k cannot be used: "),
    ],
)
def test_what_is_no_shape_is_an_error_when_the_contract_is_made(shape: object, sentence: str) -> None:
    with pytest.raises(ValueError, match="kind k") as caught:
        contract(shape)
    assert sentence in str(caught.value)


def test_a_schema_needs_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jsonschema_rs", None)
    with pytest.raises(ValueError, match="needs an extra: pip install 'stream-cutover\\[openapi\\]'"):
        contract({"type": "object"})


class Nest(msgspec.Struct):
    it: dict[str, list[Inner]]
    pair: tuple[int, int] = (0, 0)


@pytest.mark.parametrize(
    "shape", [Nest, pydantic.create_model("N", it=dict[str, Any])], ids=["struct", "model"]
)
def test_a_path_must_lead_to_a_field(shape: object) -> None:
    contract(shape, each="k by /data/it/x/0/n")
    contract(shape, each="k by /data")
    contract(shape, each="k by type")
    with pytest.raises(ValueError, match="each: the path id of a k part is in no chunk of the kind k"):
        contract(shape, each="k by id")


def test_a_path_may_lead_into_what_is_not_declared() -> None:
    for shape in (Loose, ANYTHING, SCHEMA, positive, pydantic.TypeAdapter(AsModel)):
        contract(shape, each="k by anything")
    aliased = pydantic.create_model(
        "M", it=(int, pydantic.Field(validation_alias=pydantic.AliasPath("a", 0)))
    )
    contract(aliased, each="k by a")
    contract(AsModel, each="k by id")
    with pytest.raises(ValueError, match="the path x of a k part is in no chunk"):
        StreamContract(name="x", kind="/event", chunks={"k": TEXT}, each="k by x")
    assert repr(ANYTHING) == "ANYTHING"
