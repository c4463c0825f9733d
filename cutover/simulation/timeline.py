"""Changes that are due later: made when somebody next looks, with no task of their own."""

import heapq
import math
from collections.abc import Callable

import attrs


@attrs.define(eq=False)
class Timeline:
    """A clock, and what is due by it."""

    _clock: Callable[[], float]
    _moment: float = -math.inf
    """The latest time known; while a due change is made, the time that it was due."""
    _due: list[tuple[float, int, Callable[[], None]]] = attrs.field(factory=list)
    _scheduled: int = 0

    def catch_up(self) -> float:
        """Make every change that is due by now, in the order of their times, and return now in seconds.

        Outside an event loop, where nothing moves, now is the last time known.
        """
        try:
            now = max(self._moment, self._clock())
        except RuntimeError:  # what anyio raises where no event loop runs
            now = max(self._moment, 0.0)
        while self._due and self._due[0][0] <= now:
            self._moment, _, change = heapq.heappop(self._due)
            change()
        self._moment = now
        return now

    def after(self, seconds: float, change: Callable[[], None]) -> None:
        """Have a change made so many seconds after the moment that is being handled: never for infinity.

        A change that follows from a due one counts from when that was due, however late anybody looked.
        """
        if not math.isinf(seconds):
            self._scheduled += 1
            heapq.heappush(self._due, (self._moment + seconds, self._scheduled, change))
