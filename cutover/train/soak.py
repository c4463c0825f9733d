"""A soak: a window of seconds after a change, watched by looks and by sentinels until its end or the first sign of a fault.

A look probes every alias at every place: at the front door, and at each revision's own URL. Looks begin on time, also while
earlier ones still run. A soak ends at once with the first probe that breaks the contract, or with a broken sentinel that is one too many:
what still runs then is cancelled, because every further second costs users.
"""

import heapq
import math
from collections.abc import Awaitable, Callable, Iterator, Mapping

import anyio
import attrs

from cutover.checking.probe import Probe
from cutover.clock import Clock
from cutover.production.lane import Alias
from cutover.production.lane_prober import LaneProber
from cutover.train.probe_log import ProbeLog
from cutover.train.sentinels import Watch

FRONT_DOOR = "the front door"
"""The place of a look at BASE_URL; the other places are the revisions with a URL of their own."""
PACED = 10
"""Largest number of sentinels that follow a change, at most one a second and spread over its window."""
MOST_AT_ONCE = 8
"""Largest number of looks, and of paced sentinels, that run at once. Turns that last longer than this many pauses delay the next."""
BLAME_SECONDS = 0.25
"""Seconds that the other probes of a look have after the one that ends the soak, to show whether stable breaks the contract too."""
_ROUNDING = 1e-9


def pauses(window: float, every: float) -> int:
    """Return the number of pauses of at most ``every`` seconds that a window divides into; 0 for a window of no length."""
    return max(1, math.ceil(window / every - _ROUNDING)) if window > 0 else 0


def look_count(window: float, every: float) -> int:
    """Return the number of looks in a window: one at its start, one at its end, and one at least every ``every`` seconds."""
    return pauses(window, every) + 1


def paced_count(window: float) -> int:
    """Return the number of sentinels in the soak of a canary step; the looks show the rest."""
    return min(PACED, max(1, math.floor(window))) if window > 0 else 0


def confirm_count(window: float, every: float) -> int:
    """Return the number of sentinels in the confirm window of the flip: at least one every ``every`` seconds, for no looks run there."""
    return max(paced_count(window), pauses(window, every))


@attrs.define(eq=False)
class Seen:
    """Everything that the looks of one soak saw, in bounded memory."""

    log: ProbeLog = attrs.field(factory=ProbeLog)
    failing: set[str] = attrs.field(factory=set)
    """The places and revisions whose streams ended the soak, because they broke the contract."""


async def look(probers: Mapping[str, LaneProber], *, label: str, take: Callable[[str, Probe], bool]) -> bool:
    """Probe every alias at every place, side by side; return True if no probe ends the soak.

    After the first probe that does, the others have ``BLAME_SECONDS``; then they are cancelled.

    Args:
        probers: Place -> its prober.
        label: Label of the requests, before the place and the alias.
        take: Called with the place and the probe for each probe that comes to its end, in the order of the ends. It returns False if the
            probe ends the soak.
    """
    good = True
    async with anyio.create_task_group() as group:

        async def probe(where: str, prober: LaneProber, alias: Alias) -> None:
            nonlocal good
            found = await prober.probe(alias, label=f"{label}.{where}")
            if not take(where, found) and good:
                good = False
                group.cancel_scope.deadline = anyio.current_time() + BLAME_SECONDS

        for where, prober in probers.items():
            for alias in prober.aliases:
                group.start_soon(probe, where, prober, alias)
    return good


async def soak(
    window: float,
    *,
    clock: Clock,
    watch: Watch,
    paced: int,
    looks: int = 0,
    take_look: Callable[[], Awaitable[bool]] | None = None,
    ends: anyio.Event | None = None,
) -> bool:
    """Watch a window; return True at its end, and False at once when a look is bad or too many sentinels broke.

    The end of the window waits for the looks and the held sentinels that still run.

    Args:
        window: Seconds.
        clock: The clock of the train.
        watch: The sentinels around the change. Too many broken ones end the window.
        paced: Number of sentinels to send, spread over the window.
        looks: Number of looks, the first at the start and the last at the end; 0 for none.
        take_look: Takes one look, and returns True if it was good.
        ends: Ends the window before its time: no look or sentinel begins after it is set.
    """
    begun = clock.now()
    whole = False
    slots = {"look": anyio.Semaphore(MOST_AT_ONCE), "sentinel": anyio.Semaphore(MOST_AT_ONCE)}
    async with anyio.create_task_group() as tasks:
        stop = tasks.cancel_scope.cancel

        async def run(kind: str) -> None:
            try:
                if kind == "sentinel":
                    await watch.pace()
                elif take_look is not None and not await take_look():
                    stop()
            finally:
                slots[kind].release()

        async def stop_on_broken_sentinels() -> None:
            await watch.too_many.wait()
            stop()

        async with anyio.create_task_group() as work:
            tasks.start_soon(stop_on_broken_sentinels)
            with anyio.CancelScope() as beginnings:
                if ends is not None:
                    tasks.start_soon(_cancel_after, ends, beginnings)
                for at, kind in _moments(window, paced=paced, looks=looks):
                    await _sleep_until(begun + at, clock)
                    await slots[kind].acquire()
                    work.start_soon(run, kind)
                await _sleep_until(begun + window, clock)
            await watch.ended()
        # A fault would have left this block before here. Only the watcher of the sentinels is left.
        whole = True
        stop()
    return whole


def _moments(window: float, *, paced: int, looks: int) -> Iterator[tuple[float, str]]:
    """Yield the moments of a window in the order of time; a sentinel comes before a look at the same moment."""
    sentinels = ((window * number / paced, 1, "sentinel") for number in range(1, paced + 1))
    last = max(1, looks - 1)
    at_looks = ((window * number / last, 2, "look") for number in range(looks))
    for at, _, kind in heapq.merge(sentinels, at_looks):
        yield at, kind


async def _cancel_after(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


async def _sleep_until(moment: float, clock: Clock) -> None:
    left = moment - clock.now()
    if left > 0:
        await clock.sleep(left)
