"""The search for U+FFFD, the replacement character, in the text that a service sent.

A decoder writes U+FFFD for bytes that are not UTF-8. If it is in the text already when it reaches the client, something on the
way lost a character: most often a proxy that decodes each piece of the stream by itself and meets a character that is cut.
Bytes that are not UTF-8 are another fault, `stream.invalid-utf8`, and do not count here.
"""

import re

from cutover.contract.findings import Deviation
from cutover.contract.javascript import NotJsonError, parse

BACKSLASH, FIRST_BYTE = 92, 0xEF
"""Bytes without which a text cannot hold U+FFFD, as an escape or as a character. To find one byte takes next to no time."""
has_escape = re.compile(rb"\\u[fF]{3}[dD]").search
r"""Finds `\ufffd`, also where the backslash is itself escaped."""
has_character = re.compile(rb"\xef\xbf\xbd").search
"""Finds the three bytes of U+FFFD. A pattern finds them faster than `in`."""
_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\u[fF]{3}[dD]")


def may_hold_replacement(data: str | bytes) -> bool:
    """Return True if the text may hold U+FFFD. The search is cheap and misses none; `replacement_in` decides."""
    if isinstance(data, str):
        # A text in place of bytes is ASCII, or holds U+FFFD for bytes that are not UTF-8.
        return "\\" in data and _ESCAPE.search(data) is not None
    return bool(
        (BACKSLASH in data and has_escape(data)) or (FIRST_BYTE in data and has_character(data)),
    )


def replacement_in(payload: str | bytes) -> tuple[Deviation, ...]:
    """Return the deviation of the data of one event that holds U+FFFD, as a character or as an escape in JSON; else nothing."""
    if not may_hold_replacement(payload):
        return ()
    is_character = isinstance(payload, bytes) and has_character(payload)
    text = payload if isinstance(payload, str) else payload.decode("utf-8", "replace")
    if not (is_character or (_ESCAPE.search(text) is not None and _is_json(text))):
        return ()
    return (
        Deviation(
            "json.replacement-character",
            "text without U+FFFD",
            "U+FFFD, which stands for a character that was lost",
        ),
    )


def _is_json(text: str) -> bool:
    try:
        parse(text)
    except NotJsonError:
        return False
    return True
