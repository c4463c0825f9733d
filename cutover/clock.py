"""Time as a peer: the event loop's clock, or a rehearsal's, on which a soak of thirty seconds is over at once."""

from datetime import UTC, datetime
from typing import Protocol

import anyio
import anyio.lowlevel
import attrs

from cutover.text import timestamp


class Clock(Protocol):
    """What may be waited on; all times in seconds."""

    def now(self) -> float:
        """Return a monotonic time."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return when so much time has passed."""
        ...


@attrs.frozen
class EventLoopClock:
    """The clock of the running event loop: real time in production, virtual time where a test's loop is virtual."""

    def now(self) -> float:
        """Return the event loop's time."""
        return anyio.current_time()

    async def sleep(self, seconds: float) -> None:
        """Sleep on the event loop."""
        await anyio.sleep(seconds)


@attrs.define(eq=False)
class SkippingClock:
    """A rehearsal's clock: each sleep is skipped, and counted, so that time still passes by what was slept."""

    skipped: float = 0.0
    """Seconds that were not waited for."""

    def now(self) -> float:
        """Return the event loop's time, and what was skipped on top of it."""
        return anyio.current_time() + self.skipped

    async def sleep(self, seconds: float) -> None:
        """Skip so much time, and let other tasks run once."""
        self.skipped += max(0.0, seconds)
        await anyio.lowlevel.checkpoint()


def utc_now() -> str:
    """Return the wall clock's time: UTC, ISO 8601, to the millisecond."""
    return timestamp(datetime.now(UTC))
