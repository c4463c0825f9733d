"""What both versions of the Cloud Run API write alike, read with care: a field may be missing, or odd."""

import re
from collections.abc import Mapping

from cutover.errors import UnusableReplyError
from cutover.text import printable

_ALL = 100
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")


def rows(value: object) -> list[dict[str, object]]:
    """Return the objects of a list; none where it is no list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def text(value: object) -> str | None:
    """Return a text that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None


def percent(row: Mapping[str, object]) -> int:
    """Return the share of a traffic target; proto3 leaves out one of 0.

    Raises:
        UnusableReplyError: It is none.
    """
    share = row.get("percent") or 0
    if isinstance(share, str) and re.fullmatch(r"[0-9]{1,3}", share):
        share = int(share)
    if not isinstance(share, int) or not 0 <= share <= _ALL:
        raise UnusableReplyError(f"a traffic target has the percentage {printable(str(share))}")
    return share


def is_name(value: str) -> bool:
    """Return whether a text is what Cloud Run takes for the name of a revision or a tag."""
    return _NAME.fullmatch(value) is not None
