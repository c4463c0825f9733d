"""Times placed on a line: from ISO 8601 to a place between 0 and 1000, and the marks of an axis."""

from collections.abc import Iterable
from datetime import datetime

import attrs

WIDTH = 1000
"""Width of every drawing in its own units; a drawing is as wide as its place on the page."""
_STEPS = (
    0.001,
    0.002,
    0.005,
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1,
    2,
    5,
    10,
    15,
    30,
    60,
    120,
    300,
    600,
    1800,
    3600,
    7200,
    21600,
    86400,
)
"""Seconds between two marks of an axis."""
_MOST_MARKS = 6


def seconds_of(at: str) -> float | None:
    """Return a time in seconds since 1970; None if the text is not a time."""
    try:
        return datetime.fromisoformat(at).timestamp()
    except ValueError:
        return None


@attrs.frozen(kw_only=True)
class Scale:
    """A range of seconds, drawn from 0 to ``WIDTH``."""

    start: float
    end: float

    @classmethod
    def over(cls, moments: Iterable[float]) -> "Scale":
        """Return the scale that holds all of these moments; one millisecond at least."""
        known = sorted(moments) or [0.0]
        return cls(start=known[0], end=max(known[-1], known[0] + 0.001))

    def x(self, moment: float) -> int:
        """Return the place of a moment; a moment outside the range is at its nearest end."""
        share = (moment - self.start) / (self.end - self.start)
        return round(WIDTH * min(1.0, max(0.0, share)))

    def marks(self) -> tuple[tuple[float, str], ...]:
        """Return the marks of the axis: (place in percent, time since the start in words), a few at round times."""
        length = self.end - self.start
        step = next(
            (step for step in _STEPS if length / step <= _MOST_MARKS),
            _STEPS[-1] * max(1, round(length / _STEPS[-1] / _MOST_MARKS)),
        )
        count = int(length / step)
        # A mark near the end would stand outside the drawing, which is narrow on a phone.
        return tuple(
            (round(100 * number * step / length, 2), since(number * step))
            for number in range(count + 1)
            if number * step <= 0.9 * length
        )


def since(seconds: float) -> str:
    """Return a duration in words: ``0``, ``250 ms``, ``1.5 s``, ``2:30``, ``1:02:30``."""
    if seconds == 0:
        return "0"
    if seconds < 1:
        return f"{seconds * 1000:.3g} ms"
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds:.3g} s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
