"""Changes that are due later. They are made at the next look at the clock, without a task of their own."""

import heapq
import math
from collections.abc import Callable

import attrs


@attrs.define(eq=False)
class Timeline:
    """A clock and the changes that are due by it."""

    _clock: Callable[[], float]
    _moment: float = -math.inf
    """The latest known time in seconds. During a due change it is the time at which that change was due."""
    _due: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    _scheduled: int = 0

    def catch_up(self) -> float:
        """Make every change that is due, in the order of their times; return the time now in seconds.

        Outside an event loop the time is the last known one.
        """
        try:
            now = max(self._moment, self._clock())
        # anyio raises it outside an event loop.
        except RuntimeError:
            now = max(self._moment, 0.0)
        while self._due and self._due[0][0] <= now:
            self._moment, _, change = heapq.heappop(self._due)
            change()
        self._moment = now
        return now

    def after(self, seconds: float, change: Callable[[], None]) -> None:
        """Schedule a change for that many seconds after the current time; infinity means never.

        A change that a due change schedules counts from the time at which that one was due.
        """
        if not math.isinf(seconds):
            self._scheduled += 1
            heapq.heappush(self._due, (self._moment + seconds, self._scheduled, change))
