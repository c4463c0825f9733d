"""Readers of the fields that both versions of the Cloud Run API have. A field may be missing or malformed."""

import re
from collections.abc import Mapping

from cutover.errors import UnusableReplyError
from cutover.text import printable

_ALL = 100
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def rows(value: object) -> list[dict[str, object]]:
    """Return the objects of a list; an empty list for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def text(value: object) -> str | None:
    """Return the value if it is a text and not empty; None otherwise."""
    return value if isinstance(value, str) and value else None


def percent(row: Mapping[str, object]) -> int:
    """Return the percent of a traffic target; 0 if the field is missing, because proto3 omits 0.

    Raises:
        UnusableReplyError: The value is not a percentage.
    """
    share = row.get("percent") or 0
    if isinstance(share, str) and re.fullmatch(r"[0-9]{1,3}", share):
        share = int(share)
    if not isinstance(share, int) or not 0 <= share <= _ALL:
        raise UnusableReplyError(f"a traffic target has the percentage {printable(str(share))}")
    return share


def is_name(value: str) -> bool:
    """Return True if Cloud Run accepts a text as the name of a revision or a tag."""
    return _NAME.fullmatch(value) is not None
