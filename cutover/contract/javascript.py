"""JSON as the clients of a chat stream read it: `JSON.parse`, and the AI SDK's guard against prototype pollution.

This is the exact path. `JSON.parse` differs from Python's `json` and from msgspec:

- NaN and Infinity are not JSON.
- Lone surrogates, 1e999, integers of any length, and any depth are accepted.
- If a key comes twice, the last value counts.

The fast path (msgspec) decides only where msgspec and `JSON.parse` agree.
"""

import json
import re
from collections.abc import Callable
from typing import Any, NoReturn

_TOKEN = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<mark>[\[\]{},:])
      | (?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")
      | (?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_SUSPECT = re.compile(rb"proto|\\u00[567]")
"""Matches any spelling of the keys `__proto__` and `prototype`: the letters `proto`, or an escape of a letter."""


class NotJsonError(ValueError):
    """The text is not JSON: `JSON.parse` would throw a SyntaxError."""


def _refuse(constant: str) -> NoReturn:
    """Raise the error for a constant that Python accepts and JavaScript does not."""
    raise NotJsonError(f"{constant} is not JSON")


_INTEGER_DIGITS = 4000
"""Digits up to which an integer stays one. Python refuses to make an integer of a much longer text."""


def whole_number(text: str) -> int | float:
    """Return the integer in a JSON text; an absurdly long one becomes a float, as in JavaScript."""
    return int(text) if len(text) <= _INTEGER_DIGITS else float(text)


def parse(text: str, *, parse_int: Callable[[str], Any] = float) -> Any:  # noqa: ANN401  JSON is anything
    """Return the value of a JSON text.

    Args:
        text: The text.
        parse_int: Makes a value of the text of an integer. Default: a float, as in JavaScript. `whole_number` keeps integers.

    Raises:
        NotJsonError: If `JSON.parse` would throw.
    """
    try:
        return json.loads(text, parse_int=parse_int, parse_constant=_refuse)
    except RecursionError:
        return _parse_deep(text, parse_int)
    except NotJsonError:
        raise
    except ValueError as error:
        raise NotJsonError(str(error)) from None


_GRAMMAR = {
    **{(place, token): "put" for place in ("value", "first value") for token in ("string", "scalar")},
    **{(place, token): "open" for place in ("value", "first value") for token in "{["},
    ("first value", "]"): "close",
    ("first key", "string"): "name",
    ("first key", "}"): "close",
    ("key", "string"): "name",
    ("colon", ":"): "value",
    ("in object", ","): "key",
    ("in object", "}"): "close",
    ("in array", ","): "value",
    ("in array", "]"): "close",
    ("end", "end"): "end",
}
"""(the place in the text, the next token) -> the action or the next place. A pair that is not here is not JSON."""


def _parse_deep(text: str, parse_int: Callable[[str], Any] = float) -> Any:  # noqa: ANN401
    """Return what `parse` returns, for any depth: this function keeps its own stack instead of recursing."""
    # The open containers around the current one, each with the key of its inner container.
    around: list[tuple[Any, str]] = []
    container: Any = None
    value: Any = None
    name, place, at = "", "value", 0
    while True:
        token = _TOKEN.match(text, at)
        if token is None:
            raise NotJsonError(f"no JSON token at character {at}")
        sort = token["mark"] or str(token.lastgroup)
        act = _GRAMMAR.get((place, sort))
        at = token.end()
        if act == "open":
            around.append((container, name))
            container, place = ({}, "first key") if sort == "{" else ([], "first value")
        elif act == "name":
            name, place = json.loads(token["string"]), "colon"
        elif act in {"put", "close"}:
            if act == "put":
                value = json.loads(token[sort], parse_int=parse_int)
            else:
                value = container
                container, name = around.pop()
            place = _put(container, name, value)
        elif act == "end":
            return value
        elif act is None:
            raise NotJsonError(f"unexpected {sort} before character {at}")
        else:
            place = act


def _put(container: Any, name: str, value: object) -> str:  # noqa: ANN401
    """Add a finished value to its container, and return the next place in the text."""
    if container is None:
        return "end"
    if isinstance(container, list):
        container.append(value)
        return "in array"
    container[name] = value
    return "in object"


def is_suspect(data: str | bytes) -> bool:
    """Return True if this JSON may hold a forbidden key. The search is cheap and misses no key; ``forbidden_key`` decides."""
    if isinstance(data, str):
        return "proto" in data or (
            "\\u00" in data and _SUSPECT.search(data.encode("utf-8", "replace")) is not None
        )
    return b"proto" in data or (b"\\u00" in data and _SUSPECT.search(data) is not None)


def forbidden_key(value: object) -> str | None:
    """Return the key for which the client's parser (secure-json-parse) throws: `__proto__` or `constructor.prototype`.

    Return None if the value holds neither.
    """
    waiting = [value]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "__proto__" in node:
                return "__proto__"
            constructor = node.get("constructor")
            if isinstance(constructor, dict) and "prototype" in constructor:
                return "constructor.prototype"
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
    return None
