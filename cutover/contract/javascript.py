"""JSON as the clients of a chat stream read it: `JSON.parse` behind the AI SDK's guard of prototypes.

It differs from Python's json and from msgspec: no NaN; lone surrogates, 1e999, integers of any length and any depth are fine;
of duplicate keys the last one counts. This is the exact path: the fast one (msgspec) is believed only where the two agree.
"""

import json
import re
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
"""What any spelling of the key `__proto__`, or of `prototype`, holds: the word, or an escape of one of its letters."""


class NotJsonError(ValueError):
    """`JSON.parse` would throw a SyntaxError."""


def _refuse(constant: str) -> NoReturn:
    raise NotJsonError(f"{constant} is not JSON")


def parse(text: str) -> Any:  # noqa: ANN401  JSON is anything
    """The value of `text`, every number a float.

    Raises:
        NotJsonError: `JSON.parse` would throw.
    """
    try:
        return json.loads(text, parse_int=float, parse_constant=_refuse)
    except RecursionError:
        return _parse_deep(text)
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
"""Where the reader is, and the token that comes -> what to do; anything else is not JSON."""


def _parse_deep(text: str) -> Any:  # noqa: ANN401
    """As `parse`, with a stack of its own instead of Python's."""
    around: list[
        tuple[Any, str]
    ] = []  # the containers around this one, and the key that each was to be put at
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
                value = json.loads(token[sort], parse_int=float)
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
    """Put a finished value where it belongs, and say where the reader then is."""
    if container is None:
        return "end"
    if isinstance(container, list):
        container.append(value)
        return "in array"
    container[name] = value
    return "in object"


def is_suspect(data: str | bytes) -> bool:
    """Whether this JSON might hold a forbidden key; most streams never do, and this is cheap to say."""
    if isinstance(data, str):
        return "proto" in data or (
            "\\u00" in data and _SUSPECT.search(data.encode("utf-8", "replace")) is not None
        )
    return b"proto" in data or (b"\\u00" in data and _SUSPECT.search(data) is not None)


def forbidden_key(value: object) -> str | None:
    """The key for which the client's secure-json-parse throws, if there is one: `__proto__`, or `constructor.prototype`."""
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
