"""Asks converted schemas what they say about an event: its fields, its branches, the values that tell the branches apart.

Every function follows references and `allOf`. The conversion has refused loops, so each comes to an end.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from cutover.protocols.openapi.conversion import CONTENT, Converted, Schema

FIELDS: Final = ("data", "event", "id", "retry")
"""The fields of an event."""
_UNIONS = ("oneOf", "anyOf")
_OBJECT_KEYS = frozenset({"properties", "required", "additionalProperties", "items", "prefixItems"})

MAX_DEPTH: Final = 20
"""Most unions inside one another that are looked at."""
TEXT: Final = "text"
PARSED: Final = "parsed"


def conjuncts(converted: Converted, schema: Schema) -> Iterator[dict[str, Any]]:
    """Yield the schema and all schemas that apply together with it, through `$ref` and `allOf`."""
    waiting: list[Schema] = [schema]
    followed: set[str] = set()
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            yield part
            target = converted.target(part)
            waiting.extend(reversed(part.get("allOf", ())))
            if target is not None and part["$ref"] not in followed:
                followed.add(part["$ref"])
                waiting.append(target)


def unions(converted: Converted, schema: Schema) -> list[list[Schema]]:
    """Return the alternatives of each `oneOf` and `anyOf` that applies."""
    return [
        part[key]
        for part in conjuncts(converted, schema)
        for key in _UNIONS
        if isinstance(part.get(key), list)
    ]


def alternatives(converted: Converted, schema: Schema, depth: int = 0) -> list[Schema]:
    """Return the branches of a schema, without those that only allow null; the schema itself if it has no branch."""
    found: list[Schema] = []
    if depth < MAX_DEPTH:
        for union in unions(converted, schema):
            for branch in union:
                if not _is_null(converted, branch):
                    found += alternatives(converted, branch, depth + 1)
    return found or [schema]


def _is_null(converted: Converted, schema: Schema) -> bool:
    """Return True if a schema allows nothing but null."""
    return any(part.get("type") in ("null", ["null"]) for part in conjuncts(converted, schema))


def property_names(converted: Converted, schema: Schema, depth: int = 0) -> frozenset[str]:
    """Return the names of all properties that the schema or one of its branches lists."""
    names: set[str] = set()
    for part in conjuncts(converted, schema):
        names.update(part.get("properties", ()))
        for key in ("then", "else"):
            if key in part and depth < MAX_DEPTH:
                names |= property_names(converted, part[key], depth + 1)
    if depth < MAX_DEPTH:
        for union in unions(converted, schema):
            for branch in union:
                names |= property_names(converted, branch, depth + 1)
    return frozenset(names)


def required_names(converted: Converted, schema: Schema) -> frozenset[str]:
    """Return the names of the properties that the schema requires, whatever its branches say."""
    return frozenset(
        name
        for part in conjuncts(converted, schema)
        for name in _list(part.get("required"))
        if isinstance(name, str)
    )


def types_of(converted: Converted, schema: Schema) -> frozenset[str] | None:
    """Return the types that the schema allows by `type`, whatever its branches say; None if any."""
    found: frozenset[str] | None = None
    for part in conjuncts(converted, schema):
        types = part.get("type")
        if types is not None:
            own = frozenset([types] if isinstance(types, str) else _list(types))
            found = own if found is None else found & own
    return found


def values_at(
    converted: Converted, schema: Schema, path: Sequence[str], depth: int = 0
) -> tuple[Any, ...] | None:
    """Return the values that `const` and `enum` allow at a place of the value; None if they allow any.

    Args:
        converted: All schemas.
        schema: The schema of the value.
        path: The names of the properties that lead to the place. It may lead into the JSON in a text.
        depth: The number of unions around this one.
    """
    found: tuple[Any, ...] | None = None
    for part in conjuncts(converted, schema):
        sets = [_own_values(part)] if not path else _values_below(converted, part, path, depth)
        for key in _UNIONS:
            if isinstance(part.get(key), list) and depth < MAX_DEPTH:
                sets.append(_joined(converted, part[key], path, depth + 1))
        for own in sets:
            if own is not None:
                found = own if found is None else _common(found, own)
    return found


def _common(one: tuple[Any, ...], other: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the values that are in both."""
    keys = set(map(_key, other))
    return tuple(value for value in one if _key(value) in keys)


def _own_values(part: Mapping[str, Any]) -> tuple[Any, ...] | None:
    """Return the values that one schema lists; None if it allows any."""
    if "const" in part:
        return (part["const"],)
    values = part.get("enum")
    return tuple(values) if isinstance(values, list) else None


def _values_below(
    converted: Converted, part: Mapping[str, Any], path: Sequence[str], depth: int
) -> list[tuple[Any, ...] | None]:
    """Return the values that one schema lists at a place, by its properties and by the content of a text."""
    sets = []
    inner = part.get("properties", {}).get(path[0])
    if inner is not None:
        sets.append(values_at(converted, inner, path[1:], depth))
    content = part.get(CONTENT)
    name = None if content is None else converted.contents[content].schema
    if name is not None:
        sets.append(values_at(converted, converted.defs[name], path, depth))
    return sets


def _joined(
    converted: Converted, branches: Sequence[Schema], path: Sequence[str], depth: int
) -> tuple[Any, ...] | None:
    """Return the values that at least one branch allows; None if a branch allows any."""
    joined: dict[tuple[bool, Any], Any] = {}
    for branch in branches:
        if _is_null(converted, branch) and path:
            continue
        own = () if branch is False else values_at(converted, branch, path, depth)
        if own is None:
            return None
        for value in own:
            joined.setdefault(_key(value), value)
    return tuple(joined.values())


def _key(value: object) -> tuple[bool, Any]:
    """Return a key that is equal for values that JSON counts as equal: 1 and 1.0, but not 1 and true."""
    if isinstance(value, dict | list):
        return False, ("json", json.dumps(value, sort_keys=True))
    return isinstance(value, bool), value


def has(values: Sequence[Any], value: object) -> bool:
    """Return True if JSON counts one of the values as equal."""
    key = _key(value)
    return any(_key(other) == key for other in values)


def data_modes(converted: Converted, schema: Schema, depth: int = 0) -> frozenset[str]:
    """Return how the schema of an event reads `data`: `TEXT`, `PARSED`, both by branch, or neither if it says nothing."""
    found: frozenset[str] = frozenset()
    for part in conjuncts(converted, schema):
        inner = part.get("properties", {}).get("data")
        if inner is not None:
            found = _both(found, value_modes(converted, inner))
    if found or depth > MAX_DEPTH:
        return found
    for union in unions(converted, schema):
        for branch in union:
            found |= data_modes(converted, branch, depth + 1)
    return found


def value_modes(converted: Converted, schema: Schema, depth: int = 0) -> frozenset[str]:
    """Return the modes in which a value can hold: as a text, as another JSON value, or none if anything holds."""
    found: frozenset[str] = frozenset()
    for part in conjuncts(converted, schema):
        found = _both(found, _own_modes(part))
        for key in _UNIONS:
            if isinstance(part.get(key), list) and depth < MAX_DEPTH:
                joined: frozenset[str] = frozenset()
                for branch in part[key]:
                    joined |= value_modes(converted, branch, depth + 1)
                found = _both(found, joined)
    return found


def _own_modes(part: Mapping[str, Any]) -> frozenset[str]:
    """Return the modes that one schema names by itself."""
    types = part.get("type")
    if CONTENT in part:
        return frozenset({TEXT})
    if types is not None:
        names = {types} if isinstance(types, str) else set(_list(types))
        modes = {TEXT if name == "string" else PARSED for name in names - {"null"}}
        return frozenset(modes or {PARSED})
    values = [part["const"]] if "const" in part else _list(part.get("enum"))
    modes = {TEXT if isinstance(value, str) else PARSED for value in values if value is not None}
    if not modes and _OBJECT_KEYS & part.keys():
        modes = {PARSED}
    return frozenset(modes)


def _both(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return the modes that two schemas leave together. The first decides if they exclude each other."""
    return (one & other or one) if one and other else one or other


def _list(value: object) -> Sequence[Any]:
    """Return a value if it is a list, else nothing."""
    return value if isinstance(value, list) else ()
