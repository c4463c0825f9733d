"""Decodes the text of a field: JSON as RFC 8259 defines it, and base64.

msgspec decides fast where it agrees with the RFC. It refuses some JSON: a lone surrogate escape, a number such as 1e999, and
deep nesting. `decode_json` looks at such text again.
"""

import base64
import binascii
import copy
import json
import math
import re
from typing import Any, Final, NoReturn

import msgspec

from cutover.contract import javascript

fast_decode = javascript.decode_plain
"""Decodes most JSON. It raises a ValueError or a RecursionError for some JSON that `decode_json` accepts."""
_decode_any = msgspec.json.Decoder().decode
MAX_DEPTH: Final = 1500
"""Levels of a value that a schema is applied to. What is deeper is taken as null, so that no schema recurses without end."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_HUGE = 10**400


class NotJsonError(ValueError):
    """The text is not JSON."""


def decode_json(text: str) -> Any:  # noqa: ANN401  JSON is anything
    """Return the value of a JSON text. A lone surrogate becomes U+FFFD, and a number beyond all floats a huge integer.

    Raises:
        NotJsonError: If the text is not JSON by RFC 8259. NaN and Infinity are not.
    """
    try:
        return _decode_any(text)
    except (ValueError, RecursionError):
        pass
    try:
        value = json.loads(text, parse_constant=_refuse, parse_int=_integer)
    except RecursionError:
        try:
            value = javascript.parse(text)
        except ValueError as error:
            raise NotJsonError(str(error)) from None
    except ValueError as error:
        raise NotJsonError(str(error)) from None
    return _clean(value)


def decode_base64(text: str) -> str | None:
    """Return the text that a base64 text holds (RFC 4648 4); None if it is no base64. Bytes that are no UTF-8 become U+FFFD."""
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None


def _refuse(constant: str) -> NoReturn:
    """Raise the error for a constant that Python accepts and JSON does not have."""
    raise NotJsonError(f"{constant} is not JSON")


def _integer(digits: str) -> int | float:
    """Return an integer. One with so many digits that Python refuses it becomes a huge one."""
    try:
        return int(digits)
    except ValueError:
        return -_HUGE if digits.startswith("-") else _HUGE


def _clean(value: Any) -> Any:  # noqa: ANN401
    """Return a value that a schema can be applied to: no lone surrogate, no infinity, no bottomless nesting."""
    top: list[Any] = [value]
    waiting: list[tuple[Any, int]] = [(top, 0)]
    while waiting:
        node, depth = waiting.pop()
        if isinstance(node, dict):
            for key in [key for key in node if _SURROGATE.search(key)]:
                node[_SURROGATE.sub("\ufffd", key)] = node.pop(key)
        for key, member in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(member, dict | list):
                if depth < MAX_DEPTH:
                    waiting.append((member, depth + 1))
                else:
                    node[key] = None
            elif isinstance(member, str):
                if _SURROGATE.search(member):
                    node[key] = _SURROGATE.sub("\ufffd", member)
            elif isinstance(member, float) and math.isinf(member):
                node[key] = _HUGE if member > 0 else -_HUGE
    return top[0]


def shallow(value: Any, levels: int) -> Any:  # noqa: ANN401
    """Return a copy of a value in which every array and object below so many levels is empty."""
    top: list[Any] = [value]
    waiting: list[tuple[Any, int]] = [(top, 0)]
    while waiting:
        node, depth = waiting.pop()
        for key, member in list(node.items() if isinstance(node, dict) else enumerate(node)):
            if isinstance(member, dict | list):
                node[key] = copy.copy(member) if depth < levels else type(member)()
                waiting.append((node[key], depth + 1))
    return top[0]
