"""Reads `x-sse-stream`: the order, the end and the times that an author promises for a stream.

OpenAPI leaves these out on purpose. The object stands beside `itemSchema` or on the operation.
"""

import re
from collections.abc import Mapping
from typing import Any

import attrs

from cutover.errors import OpenApiError

KEY = "x-sse-stream"
_RULE = "openapi.bad-promise"
_KEYS = ("order", "each", "kind", "terminator", "endless", "within", "resume")
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)+")


@attrs.frozen(kw_only=True)
class StreamPromises:
    """The content of one `x-sse-stream` object."""

    order: str | None = None
    """The kinds of all events, as a regular expression over names; None if any order is allowed."""
    each: tuple[str, ...] = ()
    """Expressions `ORDER by POINTER`, for the events that share a value."""
    kind: str = "/event"
    """JSON pointer into the event to its kind. Default: the event's name."""
    terminator: str | None = None
    """The data of the last event, which is outside the order and the schema; None if there is no such event."""
    endless: bool = False
    """True if the end of the body is no fault."""
    first: float | None = None
    """Seconds to the first event; None if not promised."""
    gap: float | None = None
    """Seconds between two events, of which comments are none; None if not promised."""
    total: float | None = None
    """Seconds of the whole stream; None if not promised."""
    resume: str | None = None
    """`id` if each event has an id and a request with `Last-Event-ID` goes on behind it; else None."""


def read_promises(value: object, where: str) -> StreamPromises:
    """Return the promises of one object.

    Raises:
        OpenApiError: If a key is unknown or a value is malformed: a slip must not pass as "not promised".
    """
    if not isinstance(value, Mapping):
        raise _bad("it must be an object", where)
    unknown = sorted(value.keys() - set(_KEYS))
    if unknown:
        raise _bad(
            f"there is no key {unknown[0]!r}; the keys are {', '.join(_KEYS)}", f"{where}/{unknown[0]}"
        )
    each = value.get("each", [])
    if not isinstance(each, list) or not all(_is_each(item) for item in each):
        raise _bad(
            "`each` is a list of texts `ORDER by POINTER`, such as `a b* c by /data/id`", f"{where}/each"
        )
    kind = value.get("kind", "/event")
    if not isinstance(kind, str) or not _POINTER.fullmatch(kind):
        raise _bad("`kind` is a JSON pointer into the event, such as /event or /data/type", f"{where}/kind")
    if kind.split("/")[1] not in {"event", "data", "id", "retry"}:
        raise _bad(
            f"`kind` begins with /event, /data, /id or /retry, the fields of an event, not {kind!r}",
            f"{where}/kind",
        )
    if not isinstance(value.get("endless", False), bool):
        raise _bad("`endless` is true or false", f"{where}/endless")
    if value.get("resume", "id") != "id":
        raise _bad("`resume` has one value: id", f"{where}/resume")
    order = _text(value, "order", where)
    if order is not None and not order.strip():
        raise _bad("`order` names no kind; leave it out if any order is allowed", f"{where}/order")
    return StreamPromises(
        order=order,
        each=tuple(each),
        kind=kind,
        terminator=_text(value, "terminator", where),
        endless=value.get("endless", False),
        resume=value.get("resume"),
        **_times(value.get("within", {}), f"{where}/within"),
    )


def _bad(message: str, where: str) -> OpenApiError:
    """Return the error about a malformed promise."""
    return OpenApiError(_RULE, f"{KEY}: {message}", where=where)


def _is_each(item: object) -> bool:
    """Return True if an item of `each` is an order and a pointer."""
    if not isinstance(item, str):
        return False
    order, _, pointer = item.rpartition(" by ")
    return bool(order.strip()) and _POINTER.fullmatch(pointer.strip()) is not None


def _text(value: Mapping[str, Any], key: str, where: str) -> str | None:
    """Return a text, or None if the key is absent."""
    text = value.get(key)
    if key in value and not isinstance(text, str):
        raise _bad(f"`{key}` is a text", f"{where}/{key}")
    return text


def _times(within: object, where: str) -> dict[str, float]:
    """Return the promised times, in seconds."""
    if not isinstance(within, Mapping):
        raise _bad("`within` is an object with first, gap or total", where)
    times = {}
    for key, text in within.items():
        if key not in {"first", "gap", "total"}:
            raise _bad(f"`within` has no key {key!r}; the keys are first, gap, total", f"{where}/{key}")
        match = _DURATION.fullmatch(text) if isinstance(text, str) else None
        seconds = 0.0 if match is None else float(match[1]) * _SECONDS[match[2]]
        if seconds <= 0:
            raise _bad(
                f"`{key}` is a time above zero, such as 500ms, 3s or 10m, not {text!r}", f"{where}/{key}"
            )
        times[key] = seconds
    return times
