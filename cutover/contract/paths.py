"""Paths into one event: to its own fields, and into the JSON of its data.

A path is a JSON pointer (RFC 6901) into the event: `/event`, `/id`, `/retry`, `/data`, `/data/item/id`, `/data/choices/0/index`. A name
without a slash is short for one field of the data: `id` stands for `/data/id`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

MISSING: Final = msgspec.UNSET
"""The value of a path that leads to nothing."""
_FIELDS = ("data", "event", "id", "retry")

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
        return ("data", path)
    steps = tuple(step.replace("~1", "/").replace("~0", "~") for step in path[1:].split("/"))
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
