"""Clocks that code takes as an argument: the event loop's clock, and a rehearsal's clock that skips every sleep."""

from datetime import UTC, datetime
from typing import Protocol

import anyio
import anyio.lowlevel
import attrs

from cutover.text import timestamp


class Clock(Protocol):
    """A clock that code can read and wait on. All times are in seconds."""

    def now(self) -> float:
        """Return the time of a monotonic clock, in seconds."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait for this many seconds."""
        ...


@attrs.frozen
class EventLoopClock:
    """The clock of the running event loop: real time in production, virtual time in a test with a virtual loop."""

    def now(self) -> float:
        """Return the event loop's time, in seconds."""
        return anyio.current_time()

    async def sleep(self, seconds: float) -> None:
        """Sleep for this many seconds on the event loop."""
        await anyio.sleep(seconds)


@attrs.define(eq=False)
class SkippingClock:
    """The clock of a rehearsal. A sleep of 30 s ends at once, and ``now`` then returns a time 30 s later."""

    skipped: float = 0.0
    """Seconds of sleep that were skipped so far."""

    def now(self) -> float:
        """Return the event loop's time plus the skipped seconds."""
        return anyio.current_time() + self.skipped

    async def sleep(self, seconds: float) -> None:
        """Skip this many seconds, and let other tasks run once."""
        self.skipped += max(0.0, seconds)
        await anyio.lowlevel.checkpoint()


def utc_now() -> str:
    """Return the wall clock's time in UTC as ISO 8601 with milliseconds."""
    return timestamp(datetime.now(UTC))
