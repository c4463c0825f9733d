"""JSON as the clients of a chat stream read it: `JSON.parse`, and the AI SDK's guard against prototype pollution.

This is the exact path. `JSON.parse` differs from Python's `json` and from msgspec:

- NaN and Infinity are not JSON.
- Lone surrogates, 1e999, integers of any length, and any depth are accepted.
- If a key comes twice, the last value counts.

The fast path (msgspec) decides only where msgspec and `JSON.parse` agree.
"""

import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final, NoReturn

import msgspec

_TOKEN = re.compile(
    r"""[ \t\n\r]*+(?:
        (?P<mark>[\[\]{},:])
      | (?P<string>"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+")
      | (?P<scalar>-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?|true|false|null)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_BACKSLASH = 92
_SUSPECT = re.compile(rb"\\(?=u00[567])")
"""Matches the escape of a letter. Every spelling of `__proto__` and `prototype` has one, or the letters `proto`."""

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer up to which JavaScript keeps every integer exactly (`Number.MAX_SAFE_INTEGER`, ECMA-262 21.1.2.8)."""
_SAFE_DIGITS = 15
"""Digits up to which every integer is safe."""
_WITH_EXPONENT = 1e21
"""Number from which on JavaScript writes an exponent."""
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
"""Translates each digit to `0`."""
_SAMPLE = 5
"""Every fifth byte of more than 15 digits is looked at: at least three of them follow each other, and all are digits."""
_LONG_INTEGER = re.compile(
    rb"0{16}(?:(?<=[\s,:\[-]0{16})|(?<=\A0{16}))0*+(?=[\s,\]}]|\Z)".replace(
        b"0{16}", b"0" * (_SAFE_DIGITS + 1)
    )
)
"""Matches a long integer in translated JSON: outside quotation marks, and without a fraction and an exponent.

The sixteen digits stand in full, because a search for known bytes is fast.
"""


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
    # To find one character takes next to no time; most data has no backslash.
    if isinstance(data, str):
        return "proto" in data or (
            "\\" in data and _SUSPECT.search(data.encode("utf-8", "replace")) is not None
        )
    return b"proto" in data or (_BACKSLASH in data and _SUSPECT.search(data) is not None)


def _plain_values(levels: int) -> Any:  # noqa: ANN401  a type made at run time
    """Return the type of JSON values with at most so many objects and arrays inside each other, and with safe integers alone."""
    safe = Annotated[int, msgspec.Meta(ge=-MAX_SAFE_INTEGER, le=MAX_SAFE_INTEGER)]
    kinds: Any = safe | float | str | bool | None
    inner = _plain_values(levels - 1) if levels else None
    return kinds if inner is None else dict[str, inner] | list[inner] | kinds  # type: ignore[valid-type]


decode_plain: Final[Callable[[str | bytes], Any]] = msgspec.json.Decoder(_plain_values(6)).decode
"""Decodes most JSON as fast as msgspec does. It refuses JSON with an unsafe integer, and deep JSON, which may hold one."""


def may_hold_unsafe_integer(data: str | bytes) -> bool:
    """Return True if this JSON may hold an integer beyond `MAX_SAFE_INTEGER`. The search is cheap and misses none.

    `unsafe_integer` decides.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    if b"000" not in raw[::_SAMPLE].translate(_ZEROS):
        return False
    return any(
        found.end() - found.start() > _SAFE_DIGITS + 1
        or int(raw[found.start() : found.end()]) > MAX_SAFE_INTEGER
        for found in _LONG_INTEGER.finditer(raw.translate(_ZEROS))
    )


def unsafe_integer(text: str) -> tuple[str, str] | None:
    """Return the first integer of a JSON text that JavaScript may round, as it was sent and as JavaScript writes it; None without one."""
    found: list[str] = []

    def look_at(digits: str) -> float:
        if len(digits) > _SAFE_DIGITS and abs(float(digits)) > MAX_SAFE_INTEGER:
            found.append(digits)
        return 0.0

    try:
        parse(text, parse_int=look_at)
    except NotJsonError:
        return None
    return (found[0], _written(float(found[0]))) if found else None


def _written(number: float) -> str:
    """Return a large number as JavaScript writes it (ECMA-262 6.1.6.1.20): with all digits below 1e21."""
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return str(int(Decimal(repr(number)))) if abs(number) < _WITH_EXPONENT else repr(number)


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
