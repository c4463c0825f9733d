"""Turns the errors of a validator into one problem for a person.

A wrong field inside a union of fifty branches gives an error for each branch. The problem that helps is the one of the
branch that was meant: the branch whose constant equals the event's name or the payload's kind. `_choose` finds it.

The module is long because the error, the branch and the words for them are chosen together.
"""

import json
from collections.abc import Callable, Sequence
from typing import Any, Final

import attrs
import msgspec

from cutover.contract.paths import NULL_IS_NOT_ABSENT, sent_text, without_null
from cutover.protocols.openapi import shape
from cutover.protocols.openapi.conversion import CONTENT, Schema
from cutover.protocols.openapi.json_text import shallow
from cutover.protocols.openapi.validation import Validators, content_value
from cutover.text import escaped_lines, printable

_RANK: Final = (
    "json.syntax",
    "schema.unknown-kind",
    "schema.ambiguous",
    "schema.missing-field",
    "schema.field-type",
    "schema.unknown-field",
    "schema.value",
)
"""The rules, the one that explains most first."""
_RULES: Final = {
    "required": "schema.missing-field",
    "type": "schema.field-type",
    "additionalProperties": "schema.unknown-field",
    "unevaluatedProperties": "schema.unknown-field",
    "contentMediaType": "json.syntax",
    "format": "schema.format",
    "writeOnly": "schema.write-only",
}
"""Keyword -> the rule that its fault breaks. Every other keyword: `schema.value`."""
WARNINGS: Final = frozenset(
    {"json.unsafe-integer", "schema.format", "schema.inherited-id", "schema.write-only"}
)
"""The rules whose findings are warnings."""
_MOST_DEPTH = 30
"""Most unions inside one another that are explained."""
_MOST_ERRORS = 200
"""Most errors of one event that are looked at."""
_MOST_LEVELS = 100
"""Most levels of a value that an error can hold."""
_LONG_DATA = 64 * 1024
"""Characters of an event's data above which its values are shown as they were decoded: to find each in the text takes time."""
_SHOWN_LEVELS = 10
"""Most levels of a value that a message shows."""
_MISSING: Final = object()


class Problem(msgspec.Struct, frozen=True, gc=False):
    """One fault of one event, or one warning about it."""

    rule: str
    """The id of the rule."""
    path: str
    """JSON pointer into the event, or into the payload if the schema is that of the payload."""
    keyword: str
    """The keyword of JSON Schema that does not hold; `false` for a schema that allows nothing."""
    expected: str
    """The content that the schema asks for, in words."""
    actual: str
    """The content that came instead, in words. It holds text from the stream."""


@attrs.define(eq=False, kw_only=True)
class FaultFinder:
    """Finds the problem to report for a value that a schema refuses."""

    validators: Validators
    kind_paths: frozenset[tuple[str, ...]]
    """The places that hold an event's kind: a value that no branch has there is an unknown kind."""
    # Names of the properties that a discriminator names.
    _discriminators: frozenset[str] = attrs.field(init=False)
    # The data of the event, and the path to it in the value that is looked at; None if values cannot be shown as they were sent.
    _sent: tuple[str, tuple[str, ...]] | None = attrs.field(default=None, init=False)

    @_discriminators.default
    def _(self) -> frozenset[str]:
        found: set[str] = set()
        waiting: list[Any] = list(self.validators.converted.defs.values())
        while waiting:
            node = waiting.pop()
            if isinstance(node, list):
                waiting.extend(node)
            elif isinstance(node, dict):
                if isinstance(node.get("discriminator"), dict):
                    found.add(node["discriminator"].get("propertyName", ""))
                waiting.extend(node.values())
        return frozenset(found)

    def look_at(self, data: str | None, path: tuple[str, ...] = ()) -> None:
        """Set the event to which the values of the next problems belong, so that they are shown as they were sent.

        Args:
            data: The data of the event; None for a value that is no single event.
            path: The path to the data in the value that is looked at.
        """
        self._sent = None if data is None or len(data) > _LONG_DATA else (data, path)

    def problems(
        self,
        name: str,
        value: object,
        prefix: tuple[str | int, ...] = (),
        *,
        advisory: bool = False,
        depth: int = 0,
    ) -> list[Problem]:
        """Return one problem for each error of a value, the most telling first."""
        errors = self._errors(name, value, advisory=advisory)
        found = self._resolve_all(errors, prefix, advisory=advisory, depth=depth)
        if not found and not advisory:
            found = [
                Problem(
                    "schema.value",
                    _pointer(prefix),
                    "",
                    "a value that is not nested so deep",
                    self._shown(value, prefix),
                )
            ]
        if found and found[0].rule == "schema.field-type":
            without = without_null(value, found[0].path.removeprefix(_pointer(prefix)))
            others = [] if without is None else self._errors(name, without, advisory=advisory)
            missed = self._resolve_all(others, prefix, advisory=advisory, depth=depth)
            # The field may be absent if nothing misses it.
            if without is not None and all(each.rule != "schema.missing-field" for each in missed):
                actual = found[0].actual + NULL_IS_NOT_ABSENT
                found[0] = msgspec.structs.replace(found[0], actual=actual)
        return found

    def _errors(self, name: str, value: object, *, advisory: bool) -> Any:
        """Return the errors of a value."""
        errors_of = self.validators.of(name, advisory=advisory).iter_errors
        try:
            return errors_of(value)
        except ValueError:
            # An error holds its value, and the validator copies no deep one. The fault may be gone with the depths.
            return errors_of(shallow(value, _MOST_LEVELS))

    def _resolve_all(
        self,
        errors: Any,
        prefix: tuple[str | int, ...],
        *,
        advisory: bool,
        depth: int,
    ) -> list[Problem]:
        """Return the problems of several errors that all count."""
        found: list[Problem] = []
        for error, _ in zip(errors, range(_MOST_ERRORS), strict=False):
            found.extend(self._resolve(error, prefix, advisory=advisory, depth=depth))
        return sorted(
            found, key=lambda problem: _RANK.index(problem.rule) if problem.rule in _RANK else len(_RANK)
        )

    def _resolve(
        self, error: Any, prefix: tuple[str | int, ...], *, advisory: bool, depth: int
    ) -> list[Problem]:
        """Return the problems of one error: several only if it is about the content of a text."""
        location, path = error.schema_path, (*prefix, *error.instance_path)
        keyword = str(location[-1]) if location else "false"
        # Other validators know this fault by the keyword whose count it bounds.
        keyword = "contains" if keyword == "minContains" else keyword
        operand = self._at(location)
        kind = type(error.kind).__name__.rpartition("_")[2]
        if kind == "PropertyNames":
            # Its location is that of the keyword that the name breaks, but its value is the whole object.
            return [
                Problem(
                    "schema.value",
                    _pointer(path),
                    "propertyNames",
                    "other names",
                    self._shown(error.instance, path),
                )
            ]
        if keyword == CONTENT and depth < _MOST_DEPTH:
            return self._resolve_content(operand, error, path, advisory=advisory, depth=depth)
        if keyword in {"oneOf", "anyOf"} and isinstance(operand, list):
            return [self._resolve_union(error, operand, prefix, advisory=advisory, depth=depth)]
        if kind == "FalseSchema" and keyword not in {"additionalProperties", "unevaluatedProperties"}:
            return [
                Problem(
                    "schema.value", _pointer(path), "false", "nothing here", self._shown(error.instance, path)
                )
            ]
        rule = _RULES.get(keyword, "schema.value")
        expected = _expected(keyword, operand)
        if keyword == "required":
            expected = f"the field {error.kind.property}"
        if kind == "FalseSchema":
            # The name of the field is the last token of the path; the fault is that of the object around it.
            expected = "no other field"
        if keyword in {"const", "enum"} and self._is_kind(path):
            rule = "schema.unknown-kind"
        # The value of such a field may be a secret, and findings go into logs.
        actual = (
            f"a value at {_pointer(path)}" if keyword == "writeOnly" else self._shown(error.instance, path)
        )
        return [Problem(rule, _pointer(path), keyword, expected, actual)]

    def _shown(self, value: object, path: Sequence[str | int]) -> str:
        """Return the value at a path in a few words, as it was sent if it stands in the data of one event."""
        if self._sent is not None:
            data, begin = self._sent
            if tuple(path[: len(begin)]) == begin and not (
                isinstance(value, str) and len(path) == len(begin)
            ):
                return _cut(printable(sent_text(data, [str(step) for step in path[len(begin) :]], value)))
        return _shown(value)

    def _is_kind(self, path: Sequence[str | int]) -> bool:
        """Return True if a place holds a kind."""
        return tuple(path) in self.kind_paths or (bool(path) and path[-1] in self._discriminators)

    def _resolve_content(
        self,
        index: Any,
        error: Any,
        path: tuple[str | int, ...],
        *,
        advisory: bool,
        depth: int,
    ) -> list[Problem]:
        """Return the problems of a text's content."""
        content = self.validators.converted.contents[index]
        keyword, value = content_value(content, error.instance)
        if keyword is not None or content.schema is None:
            rule = _RULES.get(str(keyword), "schema.value")
            expected = "base64" if keyword == "contentEncoding" else "JSON"
            # Text that should be JSON is shown as text, so that it is seen as it was sent.
            shown = (
                escaped_lines(error.instance) if rule == "json.syntax" else self._shown(error.instance, path)
            )
            return [Problem(rule, _pointer(path), str(keyword), expected, shown)]
        return self.problems(content.schema, value, path, advisory=advisory, depth=depth + 1)

    def _resolve_union(
        self,
        error: Any,
        branches: list[Schema],
        prefix: tuple[str | int, ...],
        *,
        advisory: bool,
        depth: int,
    ) -> Problem:
        """Return the problem of a union of which no branch holds, or more than one."""
        path, keyword = (*prefix, *error.instance_path), str(error.schema_path[-1])
        if type(error.kind).__name__.endswith("OneOfMultipleValid"):
            return Problem(
                "schema.ambiguous",
                _pointer(path),
                keyword,
                "exactly one branch",
                self._shown(error.instance, path),
            )
        unknown = Problem(
            "schema.unknown-kind",
            _pointer(path),
            keyword,
            "one of the branches",
            self._shown(error.instance, path),
        )
        if advisory:
            return self._resolve_advice(error, prefix, unknown, depth)
        chosen, missing = self._choose(branches, error)
        if not chosen or depth > _MOST_DEPTH:
            return unknown
        found = []
        for index in chosen:
            errors = error.kind.context[index]
            inner = self._resolve_all(errors, prefix, advisory=advisory, depth=depth + 1) or [unknown]
            own_type = inner[0].rule == "schema.field-type" and inner[0].path == _pointer(path)
            if missing is not None:
                named = [p for p in inner if p.keyword == "required" and p.expected == f"the field {missing}"]
                inner = named or inner
            found.append((own_type, len(inner), index, inner[0]))
        best = min(found, key=lambda item: item[:3])[3]
        if len(found) > 1 and path == () and all(item[3].rule == "schema.value" for item in found):
            # No branch is nearer than another: each refuses the value of a field.
            return unknown
        return best

    def _resolve_advice(
        self, error: Any, prefix: tuple[str | int, ...], unknown: Problem, depth: int
    ) -> Problem:
        """Return the warning of a branch that holds without it; the problem `unknown` if there is none."""
        for errors in error.kind.context if depth < _MOST_DEPTH else ():
            inner = self._resolve_all(errors, prefix, advisory=True, depth=depth + 1)
            if inner and all(problem.rule in WARNINGS for problem in inner):
                return inner[0]
        return unknown

    def _choose(self, branches: list[Schema], error: Any) -> tuple[list[int], str | None]:
        """Return the branches that were meant, and the name of the field that would tell and is missing."""
        instance = error.instance
        pins = [_pins(self.validators, branch) for branch in branches]
        owner = self._at(error.schema_path[:-1])
        named = owner.get("discriminator", {}).get("propertyName") if isinstance(owner, dict) else None
        counts: dict[tuple[str, ...], int] = {}
        for own in pins:
            for path in own:
                counts[path] = counts.get(path, 0) + 1
        candidates = [index for index, branch in enumerate(branches) if branch is not False]
        order = sorted(
            counts, key=lambda path: (path != (named,), -counts[path], path != ("event",), len(path))
        )
        for path in order:
            if not any(path in pins[index] for index in candidates):
                continue
            value = _lookup(instance, path)
            if value is _MISSING and all(path in pins[index] for index in candidates):
                return candidates, path[-1]
            matched = [i for i in candidates if path in pins[i] and shape.has(pins[i][path], value)]
            if matched:
                return matched, None
            candidates = [i for i in candidates if path not in pins[i]]
        return [i for i in candidates if not _allows_null_only(branches[i])] or candidates, None

    def _at(self, location: Sequence[str | int]) -> Any:
        """Return the part of the schemas at a location; None if it is elsewhere, such as in a metaschema."""
        node: Any = {"$defs": self.validators.converted.defs}
        for token in location:
            try:
                node = node[token]
            except (KeyError, IndexError, TypeError):
                return None
        return node


def _allows_null_only(schema: Schema) -> bool:
    """Return True if a branch is there for null alone, so that no other value was meant for it."""
    return isinstance(schema, dict) and schema.get("type") == "null"


def _pins(validators: Validators, branch: Schema) -> dict[tuple[str, ...], tuple[Any, ...]]:
    """Return the places at which a branch allows some values only, up to the fields of the JSON in a field."""
    converted = validators.converted
    found: dict[tuple[str, ...], tuple[Any, ...]] = {}
    names = shape.property_names(converted, branch)
    for name in names:
        values = shape.values_at(converted, branch, (name,))
        if values is not None:
            found[name,] = values
    if "data" in names:
        for part in shape.conjuncts(converted, branch):
            data = part.get("properties", {}).get("data", True)
            for inner in shape.conjuncts(converted, data):
                content = inner.get(CONTENT)
                schema = None if content is None else converted.contents[content].schema
                owner = data if schema is None else converted.defs[schema]
                for name in shape.property_names(converted, owner):
                    values = shape.values_at(converted, owner, (name,))
                    if values is not None:
                        found["data", name] = values
    return found


def _lookup(instance: Any, path: tuple[str, ...]) -> Any:
    """Return the value at a place, into the JSON of a text if need be; `_MISSING` if there is none."""
    for name in path:
        if isinstance(instance, str):
            try:
                instance = msgspec.json.decode(instance)
            except (ValueError, RecursionError):
                return _MISSING
        if not isinstance(instance, dict) or name not in instance:
            return _MISSING
        instance = instance[name]
    return instance


def _pointer(path: Sequence[str | int]) -> str:
    """Return a path as a JSON pointer (RFC 6901)."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)


def _shown(value: object) -> str:
    """Return a value in a few words."""
    return _cut(printable(json.dumps(shallow([value], _SHOWN_LEVELS)[0], ensure_ascii=False, default=str)))


def _cut(text: str, most: int = 120) -> str:
    """Return a text, cut if it is long."""
    return text if len(text) <= most else text[: most - 3] + "..."


_WORDS: Final[dict[str, Callable[[Any], str]]] = {
    "type": lambda types: " or ".join(types) if isinstance(types, list) else str(types),
    "enum": lambda values: _cut("one of " + ", ".join(json.dumps(value) for value in values[:8])),
    "additionalProperties": lambda _: "no other field",
    "unevaluatedProperties": lambda _: "no other field",
    "not": lambda _: "an event that the schema under `not` does not hold for",
    "writeOnly": lambda _: "no field that only requests have",
}


def _expected(keyword: str, operand: Any) -> str:
    """Return the content that a keyword asks for, in words."""
    words = _WORDS.get(keyword)
    if words is not None and operand is not None:
        return words(operand)
    return (
        keyword if isinstance(operand, dict | list) else _cut(f"{keyword} {json.dumps(operand, default=str)}")
    )
