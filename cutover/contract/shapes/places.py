"""Places inside a chunk that does not have its shape, in words for a finding."""

import re
from collections.abc import Sequence
from typing import Any

from cutover.contract.paths import parse_path, sent_text
from cutover.text import escaped, printable

_INDEX = re.compile(r"\[(\d+)\]")
_NAME_ENDS = re.compile(r"$|[.\[]")
MAX_UNKNOWN = 16
"""Largest number of unknown fields that are reported for one event."""


def without(value: Any, tag: str | None) -> Any:  # noqa: ANN401
    """Return an object without the field that says its kind; any other value as it is."""
    return {name: each for name, each in value.items() if name != tag} if isinstance(value, dict) else value


def path_of(place: str, value: Any) -> tuple[str, Any]:  # noqa: ANN401
    """Return a place in msgspec's notation as a JSON pointer into the event, and the value that is there.

    The notation shows `[...]` for any element of a mapping or a set. The pointer ends before it. A name may hold a dot, so the
    longest name that fits is taken.
    """
    steps: list[str] = []
    rest = place[1:]
    while rest:
        index = _INDEX.match(rest)
        names = [
            name
            for name in (value if isinstance(value, dict) and rest[0] == "." else ())
            if rest.startswith(name, 1) and _NAME_ENDS.match(rest, len(name) + 1) is not None
        ]
        if names:
            step = max(names, key=len)
            rest, value = rest[len(step) + 1 :], value[step]
        elif isinstance(value, list) and index is not None and int(index[1]) < len(value):
            step = index[1]
            rest, value = rest[index.end() :], value[int(step)]
        else:
            break
        steps.append(step)
    return _pointer(steps), value


def _pointer(steps: Sequence[str]) -> str:
    """Return a pointer into the data of an event (RFC 6901)."""
    return "/".join(("/data", *(step.replace("~", "~0").replace("/", "~1") for step in steps)))


def pointer_to(names: Sequence[str], value: Any) -> tuple[str, Any]:  # noqa: ANN401
    """Return a JSON pointer into the event along these names and indexes, as far as the value has them, and the value there."""
    steps: list[str] = []
    for step in names:
        if isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            break
        steps.append(step)
    return _pointer(steps), value


def shown(path: str, value: object, text: str) -> str:
    """Return a pointer into an event and the value that is there, as it was sent.

    Args:
        path: The pointer. It leads into the data.
        value: The value.
        text: The data.
    """
    return f"{path} {printable(sent_text(text, parse_path(path)[1:], value))}"


def names_of(value: object) -> str:
    """Return the names of an object's fields, for a finding about one that is missing."""
    return f"only {escaped(', '.join(value))}" if isinstance(value, dict) and value else "no fields"
