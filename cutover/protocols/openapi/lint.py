"""Looks at a document without a stream: what each event stream promises, what it leaves open, and what no event can satisfy.

Whether a schema can be satisfied is tried with witnesses: events built from the schema itself, a few for each branch. A
branch that holds for none of its own witnesses deserves a look, and so do two branches of `oneOf` that hold for the same
witnesses: `oneOf` then refuses these events.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi import shape
from cutover.protocols.openapi.contract import contract_of
from cutover.protocols.openapi.conversion import CONTENT, Converted, Schema
from cutover.protocols.openapi.description import (
    DocumentWarning,
    StreamDescription,
    check_version,
    describe_stream,
)
from cutover.protocols.openapi.event_validator import EventValidator
from cutover.protocols.openapi.faults import Problem
from cutover.protocols.openapi.operation import find_response, operations
from cutover.protocols.openapi.references import Documents

_MOST_WITNESSES = 60
"""Most events that are tried for one stream."""
_MOST_DEPTH = 12
"""Most levels of a witness."""


@attrs.frozen(kw_only=True, eq=False)
class StreamLint:
    """The result for one operation with an event stream."""

    path: str
    """The path as the document has it."""
    method: str
    """The method, in capitals."""
    description: StreamDescription | None
    """The facts that the document states; None if no contract can be derived."""
    error: OpenApiError | None
    """The reason why no contract can be derived; None if one can."""
    warnings: tuple[DocumentWarning, ...]
    """The weaknesses of the document that concern this stream, with those that the witnesses show."""
    open_points: tuple[str, ...]
    """The points that the document leaves open, in sentences: no end, no kinds, no order, no ids, no times."""
    witnesses: tuple[str, ...]
    """Some events that hold, as the wire has them."""


def lint_document(
    document: Mapping[str, Any],
    *,
    path: str | None = None,
    method: str | None = None,
    remote: Mapping[str, Mapping[str, Any]] | None = None,
) -> Sequence[StreamLint]:
    """Return what there is to say about each operation whose success response is an event stream.

    An operation that names only `text/*` or `*/*` is left out, because most of them stream nothing. If `path` or `method`
    is given, only the operations that have it are looked at.

    Raises:
        OpenApiError: If the document is no OpenAPI 3 document.
    """
    check_version(document)
    documents = Documents.of(document, remote or {})
    found = []
    for operation in operations(documents):
        if (
            path not in {None, operation.path}
            or (method or operation.method).upper() != operation.method.upper()
        ):
            continue
        try:
            if not find_response(documents, operation).explicit:
                continue
        except OpenApiError as error:
            if error.rule != "openapi.no-event-stream":
                found.append(_failed(operation.path, operation.method, error))
            continue
        try:
            described = describe_stream(document, operation.path, operation.method, remote=remote)
            # An order may have a slip.
            contract_of(described)
            found.append(_linted(described))
        except OpenApiError as error:
            found.append(_failed(operation.path, operation.method, error))
    return found


def _failed(path: str, method: str, error: OpenApiError) -> StreamLint:
    """Return the result for an operation without a contract."""
    return StreamLint(
        path=path, method=method, description=None, error=error, warnings=(), open_points=(), witnesses=()
    )


def _linted(described: StreamDescription) -> StreamLint:
    """Return the result for an operation with a contract."""
    validator = EventValidator(described)
    tried = [(event, _check(validator, event)) for event in make_witnesses(described)]
    good = [event for event, problems in tried if not problems]
    warnings = list(described.warnings)
    known = {warning.rule for warning in warnings}
    ambiguous = [event for event, problems in tried if any(p.rule == "schema.ambiguous" for p in problems)]
    if ambiguous and not good and "openapi.unsatisfiable" not in known:
        message = "no event was found that holds: the branches of oneOf hold for the same events"
        warnings.append(_warning(described, "openapi.unsatisfiable", message))
    elif ambiguous and "openapi.overlapping" not in known:
        message = (
            f"more than one branch of oneOf holds for this event, so it is refused: {_shown(ambiguous[0])}"
        )
        warnings.append(_warning(described, "openapi.overlapping", message))
    return StreamLint(
        path=described.path,
        method=described.method,
        description=described,
        error=None,
        warnings=tuple(warnings),
        open_points=tuple(_open_points(described, found_one=bool(good))),
        witnesses=tuple(_shown(event) for event in good[:5]),
    )


def _warning(described: StreamDescription, rule: str, message: str) -> DocumentWarning:
    """Return a warning about the item schema of an operation."""
    where = f"/paths/{described.path.replace('~', '~0').replace('/', '~1')}/{described.method.lower()}"
    return DocumentWarning(rule=rule, message=message, where=where)


def _open_points(described: StreamDescription, *, found_one: bool) -> list[str]:
    """Return what the document leaves open, in sentences."""
    promises, points = described.promises, []
    if described.item is None:
        points.append("No schema of an event: any data passes.")
    elif not found_one:
        points.append("No event that holds was found by trying; look whether one exists.")
    if (
        described.terminator is None
        and not described.terminal
        and promises.order is None
        and not promises.endless
    ):
        points.append("No end mark and no order: a stream that was cut between two events passes.")
    if described.kinds is None:
        points.append(f"No list of kinds at {promises.kind}: an unknown kind is not recognised.")
    if promises.order is None and not promises.each:
        points.append("No order: events may come in any order.")
    if promises.first is None and promises.gap is None and promises.total is None:
        points.append("No times: a stream that stands still is not recognised.")
    if promises.resume is None:
        points.append("No resumption: events need no id.")
    return points


_Event = dict[str, Any]


def _check(validator: EventValidator, event: _Event) -> Sequence[Problem]:
    """Return the faults of a witness."""
    return validator.check(event.get("event"), event["data"], event.get("id"), event.get("retry"))


def _shown(event: _Event) -> str:
    """Return an event as the wire has it, on one line."""
    names = [name for name in ("event", "id", "retry", "data") if name in event]
    return " | ".join(f"{name}: {event[name]}" for name in names)[:300]


def make_witnesses(described: StreamDescription) -> list[_Event]:
    """Return events that the schema of a stream suggests: one for each branch, and each constant in turn."""
    if described.item is None:
        return []
    converted, found = described.converted, []
    for value in _Maker(converted).values(converted.defs[described.item], 0):
        if described.reading == "payload":
            found.append({"data": json.dumps(value)})
            continue
        if not isinstance(value, dict):
            continue
        event = {name: _text(value[name]) for name in ("event", "id", "data") if name in value}
        if isinstance(value.get("retry"), int):
            event["retry"] = value["retry"]
        found.append({"data": "x", **event})
    return found


def _text(value: object) -> str:
    """Return the text of a field whose schema may be that of its decoded value."""
    return value if isinstance(value, str) else json.dumps(value)


class _Maker:
    """Makes values that a schema may hold for. Whether it does is for the validator to say."""

    def __init__(self, converted: Converted) -> None:
        self.converted = converted

    def values(self, schema: Schema, depth: int) -> list[Any]:
        """Return some values for a schema: those of each combination of branches, up to a bound."""
        parts = list(shape.conjuncts(self.converted, schema))
        choices: list[list[Schema]] = [[]]
        for union in shape.unions(self.converted, schema) if depth < _MOST_DEPTH else ():
            choices = [[*chosen, branch] for chosen in choices for branch in union][:_MOST_WITNESSES]
        found: list[Any] = []
        for chosen in choices:
            joined: Schema = {"allOf": [*[_without_unions(part) for part in parts], *chosen]}
            if chosen and shape.unions(self.converted, joined):
                found.extend(self.values(joined, depth + 1))
            else:
                found.extend(self._plain(joined, depth))
        return found[:_MOST_WITNESSES]

    def _plain(self, schema: Schema, depth: int) -> list[Any]:
        """Return some values for a schema without unions."""
        parts = list(shape.conjuncts(self.converted, schema))
        listed = shape.values_at(self.converted, schema, ())
        if listed is not None:
            return list(listed[:5])
        content = next((part[CONTENT] for part in parts if CONTENT in part), None)
        if content is not None and self.converted.contents[content].kind == "json":
            name = self.converted.contents[content].schema
            inner = self.values({} if name is None else self.converted.defs[name], depth + 1)
            texts = [json.dumps(value) for value in inner]
            if self.converted.contents[content].is_base64:
                texts = [base64.b64encode(text.encode()).decode() for text in texts]
            return texts
        merged: dict[str, Any] = {}
        for part in parts:
            merged.update(part)
        properties: dict[str, list[Schema]] = {}
        for part in parts:
            for name, inner in part.get("properties", {}).items():
                properties.setdefault(name, []).append(inner)
        types = shape.types_of(self.converted, schema)
        if (
            depth < _MOST_DEPTH
            and (properties or "required" in merged)
            and (types is None or "object" in types)
        ):
            return self._objects(properties, shape.required_names(self.converted, schema), depth)
        if depth < _MOST_DEPTH and (types == frozenset({"array"}) or "prefixItems" in merged):
            return self._arrays(merged, depth)
        return _scalars(merged, types)

    def _objects(
        self, properties: dict[str, list[Schema]], required: frozenset[str], depth: int
    ) -> list[Any]:
        """Return some objects: the first has the first value of each field, the others one other value each."""
        options = {name: self.values({"allOf": inner}, depth + 1) for name, inner in properties.items()}
        options |= {name: ["x"] for name in required - options.keys()}
        first = {name: values[0] for name, values in options.items() if values}
        others = [
            first | {name: value} for name, values in options.items() for value in values[1:_MOST_WITNESSES]
        ]
        return [first, {name: first[name] for name in first if name in required}, *others]

    def _arrays(self, keywords: Mapping[str, Any], depth: int) -> list[Any]:
        """Return an array of the least length, and one with one element more."""
        schemas = list(keywords.get("prefixItems", ()))
        least = min(keywords.get("minItems", 0), _MOST_WITNESSES)
        rest = keywords.get("items", True)
        if rest is not False:
            schemas.extend([rest] * max(least - len(schemas), 1))
        elements = [next(iter(self.values(schema, depth + 1)), None) for schema in schemas]
        return [elements[: max(least, 0)], elements]


def _without_unions(part: dict[str, Any]) -> dict[str, Any]:
    """Return one schema by itself: without its branches and what it refers to, which stand beside it."""
    return {key: value for key, value in part.items() if key not in {"oneOf", "anyOf", "allOf", "$ref"}}


def _scalars(keywords: Mapping[str, Any], types: frozenset[str] | None) -> list[Any]:
    """Return some values of the first type that fits."""
    least = keywords.get("minimum", keywords.get("exclusiveMinimum", 0))
    least = least + 1 if isinstance(least, int | float) else 1
    length = keywords.get("minLength", 1)
    text = "1" * min(length if isinstance(length, int) else 1, 1000)
    by_type: dict[str, list[Any]] = {
        "string": [text or "1", "", "x"],
        "integer": [int(least), 0],
        "number": [least, 0.5],
        "boolean": [True, False],
        "object": [{}],
        "array": [[]],
        "null": [None],
    }
    return next((values for name, values in by_type.items() if types is None or name in types), [])
