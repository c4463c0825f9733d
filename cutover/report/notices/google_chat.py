"""A notice as a message to an incoming webhook of Google Chat."""

from cutover.report.notices.notice import Notice

MOST_CHARACTERS = 4000
"""Characters of the longest text. A message may have 32,000 bytes, and a character takes 4 at most."""
_HARMLESS = str.maketrans(
    {
        "<": "\N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK}",
        ">": "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}",
    }
)
"""Replacements for the two characters with which Chat marks links and mentions such as ``<users/all>``. Chat knows no escape for them."""


def payload(notice: Notice) -> dict[str, object]:
    """Return the message of a notice."""
    return {"text": notice.text[:MOST_CHARACTERS].translate(_HARMLESS)}
