"""Sentinels: streams that run before, across and after a change, and show a break that the change causes.

One stream runs before each change, some are held open across the change, and up to ten follow the change, at most one a
second.

A stream of this lane lasts milliseconds and may cost a chat turn. So that a stream is in flight for certain, its sender
holds back the last byte of its request during the change, for at most fifteen seconds. A proxy that buffers requests
routes such a stream only when the request is complete. So a held stream proves that its connection survived, and its
revision header names the revision that answered.
"""

import math
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
import attrs

from cutover.checking.checked_stream import Hold
from cutover.checking.probe import Probe
from cutover.model.results import SentinelTally
from cutover.production.lane_prober import LaneProber
from cutover.text import printable

PACED = 10
"""Largest number of streams that follow a change, at most one a second."""
PROBE_EVERY = 10.0
"""Least number of seconds between two ticks that probe every alias; the first and the last tick of a window always do."""

T = TypeVar("T")


@attrs.frozen(kw_only=True)
class Tick:
    """One moment of a watched window."""

    pause: float
    """Seconds to sleep before this moment."""
    probe: bool
    """True: the drill probes every alias as well. False: it only sends a sentinel. The flip ignores this field."""


def ticks(window: float) -> tuple[Tick, ...]:
    """Return one to eleven ticks for a window of this many seconds, at most one a second."""
    paces = min(PACED, math.floor(window))
    if not paces:
        return (Tick(pause=window, probe=True),)
    pause, since, result = window / paces, 0.0, [Tick(pause=0.0, probe=True)]
    for number in range(1, paces + 1):
        since += pause
        probe = since >= PROBE_EVERY or number == paces
        since = 0.0 if probe else since
        result.append(Tick(pause=pause, probe=probe))
    return tuple(result)


@attrs.define(eq=False)
class Sentinels:
    """The sentinel streams of a train."""

    prober: LaneProber
    held: int
    """Number of streams held across each change; 0 turns all sentinels off."""

    def around(self, change: str) -> "Watch":
        """Return a watch of one change."""
        return Watch(sentinels=self, change=change)


@attrs.define(eq=False)
class Watch:
    """The sentinel streams of one change."""

    sentinels: Sentinels
    change: str
    probes: list[Probe] = attrs.field(factory=list)

    async def across(self, move: Callable[[], Awaitable[T]]) -> T:
        """Send one stream, hold others in flight, make the change, release them; return the result of the change.

        The held streams are released however the change ends. If ``held`` is 0, only the change is made.
        """
        if not self.sentinels.held:
            return await move()
        await self._send("before")
        holds = [Hold() for _ in range(self.sentinels.held)]
        async with anyio.create_task_group() as flights:
            for number, hold in enumerate(holds):
                flights.start_soon(self._send, f"held-{number}", hold)
            for hold in holds:
                await hold.in_flight.wait()
            try:
                result = await move()
            finally:
                for hold in holds:
                    hold.released.set()
        return result

    async def pace(self) -> None:
        """Send one of the streams that follow the change; do nothing if ``held`` is 0."""
        if self.sentinels.held:
            await self._send("paced")

    def tally(self) -> SentinelTally:
        """Return the tally of all streams of this change."""
        prober = self.sentinels.prober
        broken = [probe for probe in self.probes if not probe.ok]
        revisions = Counter(name for probe in self.probes if (name := prober.revision(probe)))
        return SentinelTally(
            change=self.change,
            streams=len(self.probes),
            broken=len(broken),
            revisions=tuple(sorted(revisions.items())),
            details=tuple(printable(prober.secrets.mask_text(probe.describe()), 400) for probe in broken[:3]),
        )

    async def _send(self, moment: str, hold: Hold | None = None) -> None:
        prober = self.sentinels.prober
        alias = prober.aliases[len(self.probes) % len(prober.aliases)]
        self.probes.append(await prober.probe(alias, label=f"sentinel.{self.change}.{moment}", hold=hold))
