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

    def catch_up(self) -> float:
        """Make all changes that are due, in the order of their times, and return the current time in seconds.

        Outside an event loop time stands still: then the current time is the latest known time.
        """
        try:
            now = max(self._moment, self._clock())
        except RuntimeError:
            # anyio raises a RuntimeError when no event loop runs.
            now = max(self._moment, 0.0)
        while self._due and self._due[0][0] <= now:
            self._moment, _, change = heapq.heappop(self._due)
            change()
        self._moment = now
        return now

    def after(self, seconds: float, change: Callable[[], None]) -> None:
        """Schedule a change for ``seconds`` seconds after the last ``catch_up``; infinity means never. Call ``catch_up`` first.

        When a due change schedules another change, the seconds count from the due time of the first change, even if
        ``catch_up`` was called later.
        """
        if not math.isinf(seconds):
            self._scheduled += 1
            heapq.heappush(self._due, (self._moment + seconds, self._scheduled, change))
