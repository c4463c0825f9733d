"""Sentinels: streams that run across and after a change, and show a break that the change causes.

Three kinds surround each change:

- A **held request** begins before the change. Its sender holds back the last byte of the request during the change, for at
  most fifteen seconds. So its connection is in flight for certain, however short a turn is. A proxy that buffers requests
  routes such a stream only when the request is complete. So a held request proves that its connection survived, and its
  revision header names the revision that answered.
- A **held response** begins before the change too. The change waits for its first event, for a few seconds at most, and
  the stream is then read to its end. It shows a front door that cuts responses at a change. It proves something only if
  the turn lasts until the change; the tally counts those that did.
- A **paced** stream begins after the change, during the window in which the change is watched.

HELD_STREAMS is the number of held requests. There are as many held responses, but at most ten and at least one for each
alias. A change never waits for the end of a sentinel: what still runs after the change is read beside the watched window.

A sentinel that breaks the contract counts as broken at once. One that fails on its way is weighed, because a healthy service loses a stream now
and then: it counts when more of its kind fail than chance explains, at this change or over the whole train.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import TypeVar

import anyio
import anyio.abc
import attrs

from cutover.checking.checked_stream import Hold, Progress
from cutover.checking.probe import Probe
from cutover.model.e_values import Bet
from cutover.model.losses import BEFORE, ChangeLosses
from cutover.model.results import SentinelTally
from cutover.model.train_events import changes
from cutover.production.lane import Alias
from cutover.production.lane_prober import LaneProber
from cutover.record.journal import Journal
from cutover.text import printable
from cutover.train.canary_turns import weighed_turn

MOST_RESPONSES = 10
"""Largest number of held responses of one change, unless the lane has more aliases."""
START_SECONDS = 5.0
"""Longest time for which a change waits until its sentinels are in flight. A shorter MAX_FIRST_EVENT_SECONDS replaces it."""
_DETAILS = 3

T = TypeVar("T")


def response_count(held: int, aliases: int) -> int:
    """Return the number of held responses of one change, for this number of held requests and of aliases."""
    return max(aliases, min(held, MOST_RESPONSES)) if held else 0


@attrs.define(eq=False)
class Sentinels:
    """The sentinel streams of a train."""

    prober: LaneProber
    held: int
    """Number of requests held across each change; 0 turns all sentinels off."""
    journal: Journal
    """The journal of the train. An intended change in it shows that a write was sent."""
    most_failed: float
    """The part of the sentinels that chance explains if they fail on their way, between 0 and 1."""
    max_broken: int = 0
    """Largest number of broken sentinels, over all changes, that the train tolerates."""
    broken: int = 0
    """Number of sentinels so far, over all changes, that count as broken."""
    bets: dict[str, Bet] = attrs.field(factory=dict)
    """Kind of sentinel -> the bet that more of them fail on their way than may, over all changes."""
    _aliases: dict[str, Iterator[Alias]] = attrs.field(factory=dict)
    """Kind of sentinel -> the aliases, in turn. Each kind takes its own turns, so that none stays with one alias."""

    def around(self, change: str, *, on_fault: Callable[[], None] = lambda: None) -> "Watch":
        """Return a watch of one change. ``on_fault`` is called for each broken stream that is one too many."""
        return Watch(sentinels=self, change=change, on_fault=on_fault)

    def next_alias(self, kind: str) -> Alias:
        """Return the alias of the next sentinel of this kind."""
        return next(self._aliases.setdefault(kind, cycle(self.prober.aliases)))


@attrs.define(eq=False)
class Watch:
    """The sentinel streams of one change. It counts its streams and keeps none of them."""

    sentinels: Sentinels
    change: str
    on_fault: Callable[[], None]
    too_many: anyio.Event = attrs.field(factory=anyio.Event)
    """Set when a stream of this change broke, and the train has more broken sentinels than it tolerates."""
    take_paced: Callable[[Probe], bool] | None = None
    """Weighs a paced stream in place of this watch; returns False for one that is not weighed, so that a bad one counts as broken at once."""
    _streams: int = 0
    _broken: int = 0
    _losses: ChangeLosses = attrs.field(init=False)
    _weighed_elsewhere: int = 0
    """Number of broken streams that ``take_paced`` has weighed."""
    _revisions: Counter[str] = attrs.field(factory=Counter)
    _details: list[str] = attrs.field(factory=list)
    _responses: int = 0
    _in_flight: int = 0
    _flights: anyio.abc.TaskGroup | None = None
    """The tasks of the held streams; None unless the watch is open."""
    _ends: list[anyio.Event] = attrs.field(factory=list)
    """One event for each held stream, set at its end."""

    def __attrs_post_init__(self) -> None:
        """Begin the count of the streams that fail on their way."""
        self._losses = ChangeLosses(most=self.sentinels.most_failed, over_all=self.sentinels.bets)

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[None]:
        """Give the held streams a place to run in. Those that still run at the end of the block are cancelled."""
        async with anyio.create_task_group() as self._flights:
            try:
                yield
            finally:
                self._flights.cancel_scope.cancel()
        self._flights = None

    async def across(self, move: Callable[[], Awaitable[T]]) -> T:
        """Hold streams in flight, make the change, release them; return the result of the change.

        The held requests are released however the change ends. If ``held`` is 0, only the change is made. A watch that is
        not open waits, after the change, for the ends of its streams.
        """
        if not self.sentinels.held:
            return await move()
        flights = self._flights
        if flights is None:
            async with self.open():
                result = await self.across(move)
                await self.ended()
                return result
        holds = [Hold() for _ in range(self.sentinels.held)]
        count = response_count(self.sentinels.held, len(self.sentinels.prober.aliases))
        responses = [_Response() for _ in range(count)]
        self._responses = count
        for number, hold in enumerate(holds):
            alias = self.sentinels.next_alias("held")
            self._start(flights, partial(self._hold_request, alias, f"held-{number}", hold))
        for number, response in enumerate(responses):
            alias = self.sentinels.next_alias("response")
            self._start(flights, partial(self._read_across, alias, f"response-{number}", response))
        limit = self.sentinels.prober.contract.limits.first_event
        with anyio.move_on_after(min(START_SECONDS, limit)):
            for waiting in (
                *(hold.in_flight for hold in holds),
                *(each.progress.first_event for each in responses),
            ):
                await waiting.wait()
        sent_before = self._changes_sent()
        for response in responses:
            response.sent_before = sent_before if response.runs else None
        try:
            return await move()
        finally:
            for hold in holds:
                hold.released.set()

    async def ended(self) -> None:
        """Wait for the end of every held stream. The contract's limit for a whole stream bounds the wait."""
        for end in self._ends:
            await end.wait()

    async def pace(self) -> None:
        """Send one of the streams that follow the change; do nothing if ``held`` is 0."""
        if self.sentinels.held:
            self._count(await self._probe(self.sentinels.next_alias("paced"), "paced"), kind="paced")

    def tally(self) -> SentinelTally:
        """Return the tally of this change: all streams that have come to an end."""
        return SentinelTally(
            change=self.change,
            streams=self._streams,
            broken=self._broken,
            by_chance=self._losses.by_chance + self._weighed_elsewhere,
            revisions=tuple(sorted(self._revisions.items())),
            details=tuple(self._details),
            responses=self._responses,
            in_flight=self._in_flight,
        )

    def _start(self, flights: anyio.abc.TaskGroup, send: Callable[[], Awaitable[object]]) -> None:
        end = anyio.Event()
        self._ends.append(end)

        async def fly() -> None:
            try:
                await send()
            finally:
                end.set()

        flights.start_soon(fly)

    async def _read_across(self, alias: Alias, moment: str, response: "_Response") -> None:
        def on_data() -> None:
            response.crossed = response.crossed or self._met_a_change(response)

        response.progress.on_data = on_data
        try:
            probe = await self._probe(alias, moment, progress=response.progress)
        except BaseException:
            # A stream that is cut off here after the change was sent was in flight too.
            self._in_flight += response.crossed or self._met_a_change(response)
            raise
        finally:
            response.ended = True
        in_flight = response.crossed or (not probe.ok and self._met_a_change(response))
        self._in_flight += in_flight
        # A response that ended before the change says nothing about the change.
        self._count(probe, kind="response" if in_flight else BEFORE)

    def _met_a_change(self, response: "_Response") -> bool:
        """Return True if the stream had begun before the change, and the change has been sent."""
        return response.sent_before is not None and self._changes_sent() > response.sent_before

    def _changes_sent(self) -> int:
        """Return the number of changes that the train has intended so far. A write is sent right after its intent."""
        return len(changes(self.sentinels.journal.events))

    async def _hold_request(self, alias: Alias, moment: str, hold: Hold) -> None:
        self._count(await self._probe(alias, moment, hold=hold), kind="held")

    async def _probe(
        self, alias: Alias, moment: str, *, hold: Hold | None = None, progress: Progress | None = None
    ) -> Probe:
        """Send one sentinel; return its probe."""
        label = f"sentinel.{self.change}.{moment}"
        return await self.sentinels.prober.probe(
            alias, label=label, capture=False, hold=hold, progress=progress
        )

    def _count(self, probe: Probe, *, kind: str) -> None:
        prober = self.sentinels.prober
        self._streams += 1
        if name := prober.revision(probe):
            self._revisions[name] += 1
        counted = self._weigh(probe, kind=kind)
        if not probe.ok:
            self._broken += 1
            if len(self._details) < _DETAILS:
                self._details.append(printable(prober.secrets.mask_text(probe.describe()), 400))
        if counted:
            self.sentinels.broken += counted
            if self.sentinels.broken > self.sentinels.max_broken:
                self.too_many.set()
                self.on_fault()

    def _weigh(self, probe: Probe, *, kind: str) -> int:
        """Weigh one sentinel; return the number of streams of this change that count as broken from now on."""
        if kind == "paced" and self.take_paced is not None:
            weighed = self.take_paced(probe)
            self._weighed_elsewhere += weighed and not probe.ok
            return not weighed and not probe.ok
        turn = weighed_turn(probe)
        return 1 if turn is None else self._losses.add(kind, failed=turn.failed)


@attrs.define(eq=False, kw_only=True)
class _Response:
    """One held response."""

    progress: Progress = attrs.field(factory=Progress)
    ended: bool = False
    sent_before: int | None = None
    """Number of changes sent before the change that it is held across; None if it was not in flight then."""
    crossed: bool = False
    """True if a part of the body came after the change was sent."""

    @property
    def runs(self) -> bool:
        """True between the first event and the end."""
        return self.progress.first_event.is_set() and not self.ended
