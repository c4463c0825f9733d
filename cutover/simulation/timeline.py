"""Changes that happen later, such as a late update.

They need no task: each reader of the state first calls `Timeline.catch_up`, which makes all changes that are due.
"""

import heapq
import math
from collections.abc import Callable

import attrs


@attrs.define(eq=False)
class Timeline:
    """A clock, and the changes that are due at later times of this clock."""

    _clock: Callable[[], float]
    _moment: float = -math.inf
    """Latest known time; during a due change, the time at which this change was due."""
    _due: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    """Heap of pending changes: due time, order of scheduling, change."""
    _scheduled: int = 0
    _changing: bool = False
    """True while ``catch_up`` makes a due change."""

    def catch_up(self) -> float:
        """Make all changes that are due, in the order of their times, and return the current time in seconds.

        Outside an event loop time stands still: then the current time is the latest known time.
        """
        now = self._now()
        self._changing = True
        try:
            while self._due and self._due[0][0] <= now:
                self._moment, _, change = heapq.heappop(self._due)
                change()
        finally:
            self._changing = False
        self._moment = now
        return now

    def after(self, seconds: float, change: Callable[[], None]) -> None:
        """Schedule a change for ``seconds`` seconds from now; infinity means never.

        When a due change schedules another change, the seconds count from the due time of the first change, even if
        ``catch_up`` was called later.
        """
        if not math.isinf(seconds):
            self._scheduled += 1
            start = self._moment if self._changing else self._now()
            heapq.heappush(self._due, (start + seconds, self._scheduled, change))

    def _now(self) -> float:
        """Return the time of the clock, and never less than the latest known time."""
        try:
            return max(self._moment, self._clock())
        except RuntimeError:
            # anyio raises a RuntimeError when no event loop runs.
            return max(self._moment, 0.0)
