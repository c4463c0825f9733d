"""The difference between the texts of two services, without the parts of each that are new in each answer.

A time, a date of HTTP and a UUID are masked wherever they stand. What else differs between two answers of one service is noise: the
words, or the lines, that differ are masked. The rest is the template of a service, and two templates are compared by a unified diff.
"""

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher, unified_diff
from itertools import zip_longest

from cutover.text import printable

MASK = "[varies]"
"""The mark in the place of a part that varies."""
MAX_TEXT = 256 << 10
"""Characters of the longest text that is compared."""
MAX_LINES = 2000
"""Lines, at most, of the part that is compared line by line: between the first line that differs and the last one."""
MAX_DIFF_LINES = 200
"""Lines of the longest diff that is shown."""
_VOLATILE = re.compile(
    r"\b\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    r"|\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT\b"
    r"|\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b"
)
_WORD = re.compile(rf"{re.escape(MASK)}|\w+|\W")


def template(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the lines that all these texts of one service share, with a mask where they differ. HTML also ends a line between tags.

    Raises:
        ValueError: A text is too long to be compared.
    """
    lines = _lines(texts[0])
    for text in texts[1:]:
        lines = _merged(lines, _lines(text))
    return tuple(lines)


def masks_in(lines: Sequence[str]) -> int:
    """Return the number of masks in a template."""
    return sum(line.count(MASK) for line in lines)


def diff(old: Sequence[str], new: Sequence[str]) -> str:
    """Return the unified diff from the legacy service's lines to those of the new service, safe to print; a long one is cut."""
    lines = [printable(line, 400) for line in unified_diff(old, new, "legacy", "new", lineterm="", n=2)]
    cut = len(lines) - MAX_DIFF_LINES
    return "\n".join(lines[:MAX_DIFF_LINES] + ([f"({cut} more lines)"] if cut > 0 else []))


def first_difference(new: Sequence[str], old: Sequence[str]) -> str:
    """Return the first line that differs, in words."""
    for number, (one, other) in enumerate(zip_longest(new, old), 1):
        if one != other:
            shown = [
                "missing" if line is None else f"'{printable(line.strip(), 80)}'" for line in (one, other)
            ]
            return f"line {number} is {shown[0]} in the new service and {shown[1]} in the legacy service"
    return ""


def around_difference(new: Sequence[str], old: Sequence[str]) -> tuple[str, str]:
    """Return the lines of both services around the first one that differs, each with its number, safe to print."""
    first = next(
        (number for number, (one, other) in enumerate(zip_longest(new, old)) if one != other), len(new)
    )
    around = range(max(0, first - 2), first + 3)
    sides = (
        "\n".join(
            f"{number + 1} {printable(side[number].strip(), 80)}" for number in around if number < len(side)
        )
        for side in (new, old)
    )
    return next(sides) or "nothing", next(sides) or "nothing"


def _lines(text: str) -> list[str]:
    if len(text) > MAX_TEXT:
        raise ValueError(f"it has more than {MAX_TEXT} characters, and is not compared")
    return _VOLATILE.sub(MASK, text).replace("><", ">\n<").splitlines()


def _merged(one: list[str], other: list[str]) -> list[str]:
    """Return the lines that two texts share, with a mask where they differ."""
    start = 0
    while start < min(len(one), len(other)) and one[start] == other[start]:
        start += 1
    end = 0
    while end < min(len(one), len(other)) - start and one[-1 - end] == other[-1 - end]:
        end += 1
    middle, others = one[start : len(one) - end], other[start : len(other) - end]
    if max(len(middle), len(others)) > MAX_LINES:
        raise ValueError(
            f"two answers of one service differ in more than {MAX_LINES} lines, and are not compared"
        )
    return [*one[:start], *_merged_middle(middle, others), *one[len(one) - end :]]


def _merged_middle(one: list[str], other: list[str]) -> Iterator[str]:
    for tag, left, right, start, end in SequenceMatcher(None, one, other, autojunk=False).get_opcodes():
        if tag == "equal":
            yield from one[left:right]
        elif right - left == end - start:
            for line, another in zip(one[left:right], other[start:end], strict=True):
                yield _merged_line(line, another)
        else:
            yield MASK


def _merged_line(one: str, other: str) -> str:
    """Return a line with a mask for each word that differs; a mask alone if the words do not stand at the same places."""
    words, others = _WORD.findall(one), _WORD.findall(other)
    if len(words) != len(others):
        return MASK
    return "".join(word if word == another else MASK for word, another in zip(words, others, strict=True))
