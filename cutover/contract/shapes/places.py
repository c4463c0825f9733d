"""Places inside a chunk that does not have its shape, in words for a finding."""

import re
from typing import Any

import msgspec

from cutover.text import printable

_STEP = re.compile(r"\.\.\.|\[\.\.\.\]|\[(\d+)\]|\.([^.\[]+)")
MAX_UNKNOWN = 16
"""Largest number of unknown fields that are reported for one event."""


def without(value: Any, tag: str | None) -> Any:  # noqa: ANN401
    """Return an object without the field that says its kind; any other value as it is."""
    return {name: each for name, each in value.items() if name != tag} if isinstance(value, dict) else value


def _can_encode(value: object) -> bool:
    """Return True if the value can be shown as JSON."""
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


def path_of(place: str, value: Any) -> tuple[str, Any]:  # noqa: ANN401
    """Return a place in msgspec's notation as a JSON pointer into the event, and the value that is there.

    The notation shows `[...]` for any element of a mapping or a set. The pointer ends before it.
    """
    steps: list[str] = []
    for index, name in _STEP.findall(place[1:]):
        step = index or name
        if not step:
            break
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, dict) and step in value:
            value = value[step]
        else:
            break
        steps.append(step.replace("~", "~0").replace("/", "~1"))
    return "/".join(("/data", *steps)), value


def shown(path: str, value: object) -> str:
    """Return a path and the value that is there."""
    return f"{path} {printable(msgspec.json.encode(value).decode())}" if _can_encode(value) else path


def names_of(value: object) -> str:
    """Return the names of an object's fields, for a finding about one that is missing."""
    return f"only {printable(', '.join(value))}" if isinstance(value, dict) and value else "no fields"
