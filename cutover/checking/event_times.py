"""The times at which the events of one stream came, in bounded memory."""

import attrs

MOST_TIMES = 64
"""Largest number of times that are given of one stream."""


def spread(times: tuple[float, ...], most: int) -> tuple[float, ...]:
    """Return at most ``most`` of these times, spread over all of them; the first and the last one stay. ``most`` is at least 2."""
    if len(times) <= most:
        return times
    last = len(times) - 1
    return tuple(times[round(number * last / (most - 1))] for number in range(most))


@attrs.define(eq=False)
class EventTimes:
    """The times at which the events of one stream came. Of a long stream every second, then every fourth time is kept, and so on."""

    _times: list[float] = attrs.field(factory=list, init=False)
    _count: int = attrs.field(default=0, init=False)
    """Number of events so far."""
    _arrivals: int = attrs.field(default=0, init=False)
    """Number of the times so far, with those that were not kept."""
    _every: int = attrs.field(default=1, init=False)
    """Number of times of which one is kept."""
    _last: float | None = attrs.field(default=None, init=False)

    def note(self, elapsed: float, *, count: int) -> None:
        """Note a time, in seconds since the request was sent, if the number of events has grown since the last one."""
        if count == self._count:
            return
        self._count, self._last = count, elapsed
        if self._arrivals % self._every == 0:
            self._times.append(elapsed)
            if len(self._times) == 2 * MOST_TIMES:
                del self._times[1::2]
                self._every *= 2
        self._arrivals += 1

    def times(self) -> tuple[float, ...]:
        """Return at most ``MOST_TIMES`` times, with the first and the last one."""
        last = () if self._last is None or self._last == self._times[-1] else (self._last,)
        return spread((*self._times, *last), MOST_TIMES)
