"""Compiles the schema of an event to lanes: short ways to see that an event is good.

Most streams say one thing: an event with this name holds JSON of that schema. Then it is enough to look up the name, decode
the data once and apply one schema to the value. A lane exists only where its yes is a yes of the whole schema, without a
warning: each other branch of `oneOf` is pinned to other names or texts. A lane never says no: what it does not accept, the
exact check judges.

In the same way a union of payloads becomes a table by the field that each branch pins to other values.

The module is long because each lane rests on the same few proofs, which a reader must see side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import attrs
import msgspec

from cutover.protocols.openapi import shape
from cutover.protocols.openapi.conversion import CONTENT, TERMINAL, Schema
from cutover.protocols.openapi.validation import Validators

Test: TypeAlias = Callable[[Any], bool]

_EVENT_KEYS = frozenset(
    {"type", "required", "properties", "$ref", "allOf", "oneOf", "anyOf", "discriminator", TERMINAL}
)
_FOLLOWED = frozenset({"$ref", "allOf", "discriminator", TERMINAL})


class Lane(msgspec.Struct, frozen=True, gc=False):
    """One short way."""

    is_plain: bool
    """True if the lane asks nothing of the id and the retry, refuses no text and decodes the data."""
    needs_id: bool
    """True if the event must have an id line."""
    needs_retry: bool
    """True if the event must have a retry line."""
    any_retry: bool
    """True if every retry line is good."""
    not_texts: frozenset[str]
    """Data for which another branch could hold, too."""
    of_id: Test | None
    """The test of the id; None if every id is good."""
    of_text: Test | None
    """The test of the data as text; None if every text is good."""
    decodes: bool
    """True if the data must be JSON."""
    field: str | None
    """The field of the value that chooses a test from `table`; None if `of_value` is the test."""
    table: dict[str, Test]
    """Value of that field -> the test of the value."""
    of_value: Test | None
    """The test of the decoded value; None if every value is good."""

    def admits(self, data: str, identity: str | None, retry: int | None) -> bool:
        """Return True if this lane may judge an event with this data, id and retry."""
        return (
            (retry is not None or not self.needs_retry)
            and (retry is None or self.any_retry)
            and (identity is not None or not self.needs_id)
            and (identity is None or self.of_id is None or self.of_id(identity))
            and data not in self.not_texts
        )


@attrs.frozen(kw_only=True)
class Lanes:
    """The lanes of one stream."""

    by_name: dict[str | None, Lane | None]
    """The event's name, or None without one -> its lane."""
    other: Lane | None
    """The lane of all other names."""


OPEN = Lane(
    is_plain=False,
    needs_id=False,
    needs_retry=False,
    any_retry=True,
    not_texts=frozenset(),
    of_id=None,
    of_text=None,
    decodes=False,
    field=None,
    table={},
    of_value=None,
)
"""The lane on which every event is good."""


@attrs.frozen(kw_only=True, eq=False)
class _Case:
    """The demands of one branch of the schema on an event."""

    names: frozenset[str] | None
    """The names that the branch allows; None if any."""
    texts: frozenset[str] | None
    """The data that the branch allows; None if it is not a list of texts."""
    lane: Lane
    """The lane of an event that only this branch can accept."""


@attrs.define(eq=False, kw_only=True)
class LaneCompiler:
    """Compiles the lanes of one stream."""

    validators: Validators
    modes: Sequence[str]
    """The ways to hold an event to the schema."""

    def compile(self, item: str) -> Lanes:
        """Return the lanes of an item schema; none if the schema is not of a known shape."""
        if "payload" in self.modes and "text" not in self.modes and "parsed" not in self.modes:
            lane = self._value_lane(OPEN, [{"$ref": f"#/$defs/{item}"}])
            return Lanes(by_name={}, other=_marked_plain(lane))
        return self._compile_event(item) or Lanes(by_name={}, other=None)

    def _compile_event(self, item: str) -> Lanes | None:
        """Return the lanes of the schema of an event; None if the schema is not of a known shape."""
        converted = self.validators.converted
        base = list(shape.conjuncts(converted, converted.defs[item]))
        if not all(part.keys() <= _EVENT_KEYS for part in base) or converted.defs[item] is False:
            return None
        keys = [(key, part[key]) for part in base for key in ("oneOf", "anyOf") if key in part]
        if len(keys) > 1:
            return None
        keyword, branches = keys[0] if keys else ("anyOf", [True])
        cases = []
        for branch in branches:
            parts = list(shape.conjuncts(converted, branch))
            if branch is False:
                continue
            if not all(part.keys() <= _EVENT_KEYS - {"oneOf", "anyOf"} for part in parts):
                return None
            case = self._case([*base, *parts])
            if case is None:
                return None
            cases.append(case)
        return _arranged(cases, is_one_of=keyword == "oneOf")

    def _case(self, parts: Sequence[dict[str, Any]]) -> _Case | None:
        """Return what some schemas together ask of an event; None if it is more than a lane can test."""
        converted = self.validators.converted
        required: set[str] = set()
        fields: dict[str, list[Schema]] = {name: [] for name in shape.FIELDS}
        for part in parts:
            types = part.get("type", "object")
            if types != "object" and "object" not in types:
                return None
            required.update(part.get("required", ()))
            for name, own in fields.items():
                if name in part.get("properties", {}):
                    own.append(part["properties"][name])
        if not required <= set(shape.FIELDS):
            return None
        names = self._names(fields["event"])
        if names == frozenset():
            return None
        of_id = None if all(map(self._is_any_text, fields["id"])) else self._test(fields["id"])
        lane = msgspec.structs.replace(
            OPEN,
            needs_id="id" in required,
            needs_retry="retry" in required,
            any_retry=all(map(_is_any_count, fields["retry"])),
            of_id=of_id,
        )
        filled = self._data_lane(lane, fields["data"])
        texts = shape.values_at(converted, {"allOf": fields["data"]}, ())
        known = None
        if texts is not None and "parsed" not in self.modes:
            known = frozenset(text for text in texts if isinstance(text, str))
        return None if filled is None else _Case(names=names, texts=known, lane=filled)

    def _names(self, schemas: Sequence[Schema]) -> frozenset[str] | None:
        """Return the names that some schemas allow, None for any, and nothing if they say more than a list."""
        converted = self.validators.converted
        for schema in schemas:
            for part in shape.conjuncts(converted, schema):
                if part.keys() - {"type", "const", "enum", *_FOLLOWED} or "string" not in part.get(
                    "type", "string"
                ):
                    return frozenset()
            if schema is False:
                return frozenset()
        values = shape.values_at(converted, {"allOf": list(schemas)}, ())
        return None if values is None else frozenset(value for value in values if isinstance(value, str))

    def _is_any_text(self, schema: Schema) -> bool:
        """Return True if every text satisfies a schema."""
        return schema is not False and all(
            part.keys() <= {"type", *_FOLLOWED} and "string" in part.get("type", "string")
            for part in shape.conjuncts(self.validators.converted, schema)
        )

    def _data_lane(self, lane: Lane, schemas: list[Schema]) -> Lane | None:
        """Return a lane with the test of the data; None if it may be text or JSON."""
        converted = self.validators.converted
        if "text" not in self.modes:
            return self._value_lane(lane, schemas)
        if all(map(self._is_any_text, schemas)):
            return lane
        if "parsed" in self.modes and shape.value_modes(converted, {"allOf": schemas}) == {shape.PARSED}:
            return self._value_lane(lane, schemas)
        contents = []
        for schema in schemas:
            for part in shape.conjuncts(converted, schema):
                others = {
                    key: value for key, value in part.items() if key != CONTENT and key not in _FOLLOWED
                }
                if not self._is_any_text(others) or schema is False:
                    return msgspec.structs.replace(lane, of_text=self._test(schemas))
                if CONTENT in part:
                    contents.append(converted.contents[part[CONTENT]])
        if len(contents) != 1 or contents[0].is_base64 or contents[0].kind != "json":
            return msgspec.structs.replace(lane, of_text=self._test(schemas))
        name = contents[0].schema
        return self._value_lane(lane, [] if name is None else [{"$ref": f"#/$defs/{name}"}])

    def _value_lane(self, lane: Lane, schemas: Sequence[Schema]) -> Lane:
        """Return a lane that decodes the data and tests its value."""
        converted = self.validators.converted
        if all(
            part.keys() <= _FOLLOWED for schema in schemas for part in shape.conjuncts(converted, schema)
        ) and (False not in schemas and not any(self._leads_to_false(schema) for schema in schemas)):
            return msgspec.structs.replace(lane, decodes=True)
        table = self._table({"allOf": list(schemas)})
        if table is not None:
            return msgspec.structs.replace(lane, decodes=True, field=table[0], table=table[1])
        return msgspec.structs.replace(lane, decodes=True, of_value=self._test(schemas))

    def _leads_to_false(self, schema: Schema) -> bool:
        """Return True if a reference of a schema leads to the schema that allows nothing."""
        converted = self.validators.converted
        return any(
            converted.target(part) is False
            or False in part.get("allOf", ())
            or ("$ref" in part and converted.target(part) is None)
            for part in shape.conjuncts(converted, schema)
        )

    def _table(self, schema: Schema) -> tuple[str, dict[str, Test]] | None:
        """Return the field that tells the branches of a union apart, and the test for each of its values."""
        converted = self.validators.converted
        parts = list(shape.conjuncts(converted, schema))
        if any(part.keys() & {"unevaluatedProperties", "unevaluatedItems"} for part in parts):
            return None
        if any(self._leads_to_false(part) for part in parts):
            return None
        owner, keyword = next(
            ((part, key) for part in parts for key in ("oneOf", "anyOf") if key in part), (None, "")
        )
        if owner is None or len(owner[keyword]) == 1:
            return None
        branches = owner[keyword]
        fields = [owner.get("discriminator", {}).get("propertyName")]
        fields.extend(sorted(shape.property_names(converted, branches[0])))
        for field in fields:
            values = (
                [shape.values_at(converted, branch, (field,)) for branch in branches] if field else [None]
            )
            if any(own is None or not all(isinstance(value, str) for value in own) for own in values):
                continue
            every = [value for own in values if own is not None for value in own]
            if len(set(every)) != len(every):
                continue
            rest = [
                {
                    key: value
                    for key, value in part.items()
                    if key not in _FOLLOWED and (part is not owner or key != keyword)
                }
                for part in parts
            ]
            rest = [part for part in rest if part and part != {"type": "object"}]
            tests = [self._test([*rest, branch]) for branch in branches]
            return field, {
                value: test
                for own, test in zip(values, tests, strict=True)
                if own is not None
                for value in own
            }
        return None

    def _test(self, schemas: Sequence[Schema]) -> Test:
        """Return the test whether a value satisfies some schemas without a warning."""
        schema = (
            schemas[0]
            if len(schemas) == 1 and isinstance(schemas[0], dict)
            else {"allOf": list(schemas) or [True]}
        )
        test: Test = self.validators.build(schema, "of the event").is_valid
        if not self.validators.has_advice(schema):
            return test
        advice: Test = self.validators.build(schema, "of the event", advisory=True).is_valid
        return lambda value: test(value) and advice(value)


def _marked_plain(lane: Lane | None) -> Lane | None:
    """Return a lane with `is_plain` set if it holds."""
    if lane is None:
        return None
    free = lane.any_retry and not (lane.needs_id or lane.needs_retry or lane.of_id or lane.not_texts)
    return msgspec.structs.replace(lane, is_plain=free and lane.decodes)


def _arranged(cases: Sequence[_Case], *, is_one_of: bool) -> Lanes:
    """Return the lanes of the cases: for each name the lane of the one case that can hold."""
    names = {name for case in cases if case.names is not None for name in case.names}

    def lane_of(name: str | None) -> Lane | None:
        fitting = [case for case in cases if case.names is None or name in case.names]
        if not fitting:
            return None
        if not is_one_of:
            return fitting[0].lane
        # A case that allows some texts only is out of the question for all other data.
        decisive = [case for case in fitting if case.texts is None] or fitting
        if len(decisive) > 1:
            return None
        texts = frozenset(
            text for case in fitting if case.texts and case is not decisive[0] for text in case.texts
        )
        return msgspec.structs.replace(decisive[0].lane, not_texts=texts)

    by_name = {name: _marked_plain(lane_of(name)) for name in (*names, None)}
    other = by_name[None]
    # An event without a name holds if it holds with the default name.
    by_name[None] = by_name.get("message", other)
    by_name[""] = by_name[None]
    return Lanes(by_name=by_name, other=other)


def _is_any_count(schema: Schema) -> bool:
    """Return True if every `retry` that can come over the wire satisfies a schema."""
    if not isinstance(schema, dict):
        return schema
    minimum = schema.get("minimum", 0)
    return (
        schema.keys() <= {"type", "minimum", "format"}
        and {"integer", "number"}
        & set([schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", ["integer"]))
        != set()
        and isinstance(minimum, int | float)
        and minimum <= 0
    )
