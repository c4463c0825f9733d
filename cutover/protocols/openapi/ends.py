"""Finds how a stream ends, and the branches that tell nothing apart.

Three extensions exist. `x-speakeasy-sse-sentinel` stands beside the schema, `x-fern-streaming.terminator` on the operation:
both name the text of the last event. `x-ms-sse-terminal-event: true` marks one branch of the schema. The branch says which
event is the last one only if it pins the event's name, its data, or a field of its payload.
"""

from typing import Any

import attrs

from cutover.errors import OpenApiError
from cutover.protocols.openapi import shape
from cutover.protocols.openapi.conversion import CONTENT, TERMINAL, Converted, Schema
from cutover.protocols.openapi.operation import StreamResponse

_SPEAKEASY = "x-speakeasy-sse-sentinel"
_PAYLOAD_KEYS = frozenset({"const", "enum", "pattern", "properties", "required", "items"})


@attrs.frozen(kw_only=True)
class TerminalEvent:
    """An event that ends the stream and that the schema covers like any other."""

    pointer: str
    """JSON pointer into the event: `/event`, or `/data/...` into its payload."""
    value: str
    """The value at that place."""


@attrs.frozen(kw_only=True)
class TerminalEnds:
    """The ends of a stream, by the marked branches of its schema."""

    events: tuple[TerminalEvent, ...] = ()
    """The events that end the stream."""
    text: str | None = None
    """The data of the last event, if a marked branch pins it; else None."""
    unpinned: bool = False
    """True if a marked branch pins nothing. It is not used as the end."""


def declared_terminator(response: StreamResponse) -> str | None:
    """Return the text of the last event that an extension beside the schema declares; None without one.

    Raises:
        OpenApiError: If it is no text.
    """
    media = response.media.value if isinstance(response.media.value, dict) else {}
    for owner, key in ((media, _SPEAKEASY), (response.fern or {}, "terminator")):
        text = owner.get(key)
        if text is not None and not isinstance(text, str):
            raise OpenApiError("openapi.bad-promise", f"{key} is a text", where=response.media.where)
        if text:
            return str(text)
    return None


def terminal_ends(converted: Converted, item: str | None, reading: str) -> TerminalEnds:
    """Return what the marked branches of an item schema say about the end."""
    if item is None:
        return TerminalEnds()
    events: list[TerminalEvent] = []
    text, unpinned = None, False
    for branch, others in _marked(converted, converted.defs[item], 0):
        pins = _pins(converted, branch, others, reading)
        if pins is None:
            unpinned = True
            continue
        pointer, values = pins
        if pointer == "/data":
            text = values[0]
        else:
            events.extend(TerminalEvent(pointer=pointer, value=value) for value in values)
    return TerminalEnds(events=tuple(dict.fromkeys(events)), text=text, unpinned=unpinned)


def _marked(converted: Converted, schema: Schema, depth: int) -> list[tuple[Schema, list[Schema]]]:
    """Return the marked branches of a schema, each with the branches beside it."""
    found: list[tuple[Schema, list[Schema]]] = []
    for union in shape.unions(converted, schema) if depth < shape.MAX_DEPTH else ():
        for branch in union:
            if any(part.get(TERMINAL) for part in shape.conjuncts(converted, branch)):
                found.append((branch, [other for other in union if other is not branch]))
            else:
                found.extend(_marked(converted, branch, depth + 1))
    return found


def _pins(
    converted: Converted, branch: Schema, others: list[Schema], reading: str
) -> tuple[str, list[str]] | None:
    """Return the pointer and the values by which a branch is known; None if there are none."""
    paths: list[tuple[str, ...]] = [("event",), ("data",)] if reading == "event" else []
    prefix = ("data",) if reading == "event" else ()
    paths.extend((*prefix, name) for name in _payload_names(converted, branch, prefix))
    for path in paths:
        values = _texts(shape.values_at(converted, branch, path))
        if values is None:
            continue
        beside = [_texts(shape.values_at(converted, other, path)) for other in others]
        # A field of the payload tells the end only if the other branches pin it to other values.
        apart = all(other is not None and not set(other) & set(values) for other in beside)
        if path in {("event",), ("data",)} or apart:
            pointer = path if reading == "event" else ("data", *path)
            return "".join(f"/{token.replace('~', '~0').replace('/', '~1')}" for token in pointer), values
    return None


def _payload_names(converted: Converted, branch: Schema, path: tuple[str, ...]) -> list[str]:
    """Return the names of the payload's fields in a branch, in the order of the document."""
    names: dict[str, None] = {}
    parts: list[Schema] = [branch]
    for token in path:
        parts = [
            part["properties"][token]
            for schema in parts
            for part in shape.conjuncts(converted, schema)
            if token in part.get("properties", {})
        ]
    for schema in parts:
        for part in shape.conjuncts(converted, schema):
            content = part.get(CONTENT)
            inner = None if content is None else converted.contents[content].schema
            for owner in shape.conjuncts(converted, True if inner is None else converted.defs[inner]):
                names.update(dict.fromkeys(owner.get("properties", ())))
            names.update(dict.fromkeys(part.get("properties", ())))
    return list(names)


def _texts(values: tuple[Any, ...] | None) -> list[str] | None:
    """Return the values if there are some and all are texts; else None."""
    if not values or not all(isinstance(value, str) for value in values):
        return None
    return list(values)


def overlapping_branches(converted: Converted, item: str, reading: str) -> bool:
    """Return True if a branch of `oneOf` pins neither the name nor the payload, so that it matches every event."""
    for part in shape.conjuncts(converted, converted.defs[item]):
        branches = part.get("oneOf", ())
        if len(branches) > 1 and any(_is_open(converted, branch, reading) for branch in branches):
            return True
    return False


def _is_open(converted: Converted, branch: Schema, reading: str) -> bool:
    """Return True if a branch pins neither name nor payload."""
    if branch is False:
        return False
    if shape.unions(converted, branch):
        return any(_is_open(converted, inner, reading) for inner in shape.alternatives(converted, branch))
    if reading == "payload":
        return not any(_pins_payload(converted, part) for part in shape.conjuncts(converted, branch))
    if shape.values_at(converted, branch, ("event",)) is not None:
        return False
    data = [
        inner
        for part in shape.conjuncts(converted, branch)
        for inner in shape.conjuncts(converted, part.get("properties", {}).get("data", True))
    ]
    return not any(_pins_payload(converted, part) for part in data)


def _pins_payload(converted: Converted, part: dict[str, Any]) -> bool:
    """Return True if one schema says more of a payload than that it is JSON or text."""
    content = part.get(CONTENT)
    name = None if content is None else converted.contents[content].schema
    if name is not None and converted.defs[name] not in (True, {}):
        return True
    types = part.get("type", "string")
    return bool(_PAYLOAD_KEYS & part.keys()) or types not in ("string", "object") or "$ref" in part
