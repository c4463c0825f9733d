"""Paths into one event: to its own fields, and into the JSON of its data.

A path is a JSON pointer (RFC 6901) into the event: `/event`, `/id`, `/retry`, `/data`, `/data/item/id`, `/data/choices/0/index`. A name
without a slash is short for one field of the data: `id` stands for `/data/id`.
"""

import copy
import json
import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Final

import msgspec

from cutover.text import escaped, printable

MISSING: Final = msgspec.UNSET
"""The value of a path that leads to nothing."""
_FIELDS = ("data", "event", "id", "retry")

MAX_LEVELS: Final = 200
"""Largest number of objects and arrays inside each other that the checker looks into. Libraries that check types stop there too."""

NULL_IS_NOT_ABSENT: Final = "; optional means absent, not null"
"""The end of a sentence about a field that is null and may be absent. Many services write such fields, and clients refuse them."""

Getter = Callable[[Any], Any]
"""Returns the value of a path in a chunk; `MISSING` if the path leads to nothing."""


def parse_path(path: str) -> tuple[str, ...]:
    """Return the steps of a path: first the field of the event, then the names and indexes in its data.

    Raises:
        ValueError: If the path is empty, or does not begin with a field of an event.
    """
    if not path:
        raise ValueError(
            "a path is empty; write a field of the data, such as `id`, or a pointer, such as `/data/id`"
        )
    if not path.startswith("/"):
        if "/" in path or path.startswith("$"):
            raise ValueError(
                f"the path {path} is no name of a field; a path into the data begins with /data, as in /data/item/id"
            )
        return ("data", path)
    steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/"))
    if "*" in steps:
        raise ValueError(
            f"the path {path} has a *, and a path leads to one value; for lists of several items write a rule of your own"
        )
    if steps[0] not in _FIELDS:
        raise ValueError(f"the path {path} does not begin with /data, /event, /id or /retry")
    if steps[0] != "data" and len(steps) > 1:
        raise ValueError(f"the path {path} goes into /{steps[0]}, which is text or a number")
    return steps


def value_at(value: object, steps: Sequence[str]) -> Any:  # noqa: ANN401  JSON is anything
    """Return the value at these names and indexes inside a JSON value; `MISSING` if they lead to nothing."""
    for step in steps:
        if isinstance(value, Mapping):
            if step not in value:
                return MISSING
            value = value[step]
        elif isinstance(value, list):
            if not (step.isascii() and step.isdigit()) or int(step) >= len(value):
                return MISSING
            value = value[int(step)]
        else:
            return MISSING
    return value


def without_null(value: object, pointer: str) -> object | None:
    """Return a copy of a JSON value without the field at a pointer into it; None if that is no field of an object, or not null."""
    *around, last = (step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/"))
    owner = value_at(value, around[1:])
    if not around or not isinstance(owner, Mapping) or owner.get(last, MISSING) is not None:
        return None
    # Only the objects and arrays on the way are copied, because the value may be large.
    copied: object = copy.copy(value)
    node: Any = copied
    for step in around[1:]:
        key: Any = int(step) if isinstance(node, list) else step
        node[key] = copy.copy(node[key])
        node = node[key]
    del node[last]
    return copied


def value_getter(path: str) -> Getter:
    """Return a function that reads this path in an event that was decoded to a plain value (`EventChunk`)."""
    field, *steps = parse_path(path)
    if field != "data":

        def own_field(chunk: Any) -> Any:  # noqa: ANN401
            value = getattr(chunk, field)
            return MISSING if value is None else value

        return own_field
    if len(steps) == 1:
        # A field of an object at the top is by far the most frequent path.
        step = steps[0]

        def field_of_object(chunk: Any) -> Any:  # noqa: ANN401
            data = chunk.data
            return data.get(step, MISSING) if type(data) is dict else value_at(data, (step,))

        return field_of_object
    return lambda chunk: value_at(chunk.data, steps)


def is_deep(value: object) -> bool:
    """Return True if a JSON value has more than `MAX_LEVELS` objects and arrays inside each other."""
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each if isinstance(each, list) else ())
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def json_text(value: object, *, sort_keys: bool = False) -> str:
    """Return a value that came from JSON as JSON, for a finding or for a comparison. It never raises, whatever an owner's code gives."""
    if value is MISSING:
        return "nothing"
    if is_deep(value):
        return f"more than {MAX_LEVELS} objects and arrays inside each other"
    try:
        return json.dumps(value, ensure_ascii=False, sort_keys=sort_keys)
    except (TypeError, ValueError):
        return str(value)


def value_words(value: object) -> str:
    """Return a value for a finding: a text without quotation marks unless it is empty, anything else as JSON. It is safe to print."""
    return escaped(value) if value and isinstance(value, str) else printable(json_text(value))


_INSIDE = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw])
"""Splits a JSON object or array into the texts of its values."""


_ESCAPES = re.compile(
    r"(?<!\\)((?:\\\\)*)(\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4})"
)
"""Matches one character that is a `\\u` escape, or two, in a string of JSON, and the escaped backslashes before it."""


def _readable(found: re.Match[str]) -> str:
    """Return a matched escape as the character that it stands for, if that is printable and outside ASCII."""
    character: str = json.loads(f'"{found[2]}"')
    return found[1] + character if character.isprintable() and not character.isascii() else found[0]


def sent_text(text: str, steps: Sequence[str], value: object) -> str:
    """Return the value at these names and indexes as it stands in a JSON text, such as `1.0`, `1e3` or `null`.

    Only escapes of printable characters outside ASCII are decoded, because many services escape all of them, and nobody reads them.

    Args:
        text: The JSON text, as it was sent.
        steps: The names and indexes that lead to the value.
        value: The decoded value. It is shown as JSON if the text is too unusual to find the value in it.
    """
    try:
        found: str | msgspec.Raw = text.strip(" \t\r\n")
        for step in steps:
            inside = _INSIDE.decode(found)
            found = inside[step] if isinstance(inside, dict) else inside[int(step)]
        return _ESCAPES.sub(_readable, found if isinstance(found, str) else bytes(found).decode())
    except (msgspec.MsgspecError, ValueError, LookupError, RecursionError):
        return json_text(value)


def identity(value: Any) -> Hashable:  # noqa: ANN401  JSON is anything
    """Return a value of JSON as a part of a key. Values that JSON tells apart stay apart, such as 1, "1" and true."""
    match value:
        case str():
            return value
        case bool() | None:
            return ("constant", value)
        case int():
            return value
        case float() if value.is_integer():
            return int(value)
        case msgspec.UnsetType():
            return ("absent",)
        case _:
            return ("json", json_text(value, sort_keys=True))
