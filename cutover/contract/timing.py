"""When things came, in seconds since the request was sent, and what that breaks."""

from collections.abc import Iterator

import attrs

from cutover.contract.definition import Limits
from cutover.contract.grammar import Deviation


@attrs.frozen(kw_only=True)
class Timings:
    """When things came, in seconds since the request was sent; None where it is not known, or did not come."""

    head: float | None = None
    first_byte: float | None = None
    """First byte of the body."""
    first_event: float | None = None
    """First message event."""
    last_event: float | None = None
    max_gap: float | None = None
    """Longest time without a message event: before the first one, between two, or before the end."""
    end: float | None = None
    """End of the body, or failure."""
    streamed: bool | None = None
    """Whether message events came at more than one time; None where there were not several."""

    def __str__(self) -> str:
        times = [
            f"{name} {seconds * 1000:.0f} ms"
            for name, seconds in (
                ("head", self.head),
                ("first byte", self.first_byte),
                ("first event", self.first_event),
                ("last event", self.last_event),
                ("longest gap", self.max_gap),
                ("end", self.end),
            )
            if seconds is not None
        ]
        how = {None: [], True: ["streamed"], False: ["all at once"]}[self.streamed]
        return ", ".join(times + how) or "no times are known"


@attrs.define(eq=False)
class Watch:
    """Keeps the times of one stream."""

    limits: Limits
    head: float | None = attrs.field(default=None, init=False)
    first_byte: float | None = attrs.field(default=None, init=False)
    first_event: float | None = attrs.field(default=None, init=False)
    last_event: float = attrs.field(default=0.0, init=False)
    max_gap: float = attrs.field(default=0.0, init=False)
    calm_gap: float = attrs.field(default=-1.0, init=False)
    """A gap of up to this is neither the longest nor too long; none is before the first event."""
    end: float | None = attrs.field(default=None, init=False)
    whole: float = attrs.field(init=False)
    """Seconds for the whole stream."""
    length_announced: bool = attrs.field(default=False, init=False)
    """Whether the head said how long the body is."""
    _late: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.whole = self.limits.whole

    @property
    def next_deadline(self) -> float | None:
        """When to give up waiting: for the first event, for the next one, or for the whole."""
        if self.end is not None:
            return None
        patience = (
            self.limits.first_event if self.first_event is None else self.last_event + self.limits.event_gap
        )
        return min(patience, self.whole)

    def came_calmly(self, elapsed: float) -> bool:
        """Message events came, and there is nothing to say of when; if there is, nothing is noted yet."""
        if elapsed - self.last_event > self.calm_gap or elapsed > self.whole:
            return False
        self.last_event = elapsed
        return True

    def events_came(self, elapsed: float) -> Iterator[Deviation]:
        """Message events came."""
        gap = elapsed - self.last_event
        self.max_gap = max(gap, self.max_gap)
        self.calm_gap = min(self.max_gap, self.limits.event_gap)
        if self.first_event is None:
            self.first_event = elapsed
            if elapsed > self.limits.first_event:
                yield self._first_event_late(elapsed)
        elif gap > self.limits.event_gap:
            yield self._gap(gap)
        self.last_event = elapsed
        if elapsed > self.whole and not self._late:
            self._late = True
            yield self._too_long(elapsed)

    def ended(self, elapsed: float, events: int) -> Iterator[Deviation]:
        """The body ended by itself."""
        self.end = elapsed
        gap = elapsed - self.last_event
        self.max_gap = max(gap, self.max_gap)
        if self.first_event is not None and gap > self.limits.event_gap:
            yield self._gap(gap)
        if elapsed > self.whole and not self._late:
            yield self._too_long(elapsed)
        if events > 1 and self.was_held_back:
            yield Deviation(
                "timing.held-back" if self._came_as_one_answer else "timing.not-streamed",
                "events as they happen",
                f"not streamed: nothing for {self.first_byte:.3f} s, then {events} events within {self._span:.3f} s",
            )

    def gave_up(self, elapsed: float, *, whole: bool) -> Deviation:
        """Who waits has lost patience."""
        if whole:
            return self._too_long(elapsed)
        return (
            self._first_event_late(elapsed)
            if self.first_event is None
            else self._gap(elapsed - self.last_event)
        )

    @property
    def _came_as_one_answer(self) -> bool:
        """Whether head and body came together, their length known: a service that is slow to answer in one piece does that."""
        together = (self.first_byte or 0.0) - (self.head or 0.0) <= self.limits.at_once
        return self.length_announced and together

    @property
    def was_held_back(self) -> bool:
        """Whether all events came at once after a long wait."""
        return (
            self.first_byte is not None
            and self.first_byte >= self.limits.held_back_after
            and self._span <= self.limits.at_once
        )

    def timings(self, events: int) -> Timings:
        """What is known so far."""
        came = self.first_event is not None
        return Timings(
            head=self.head,
            first_byte=self.first_byte,
            first_event=self.first_event,
            last_event=self.last_event if came else None,
            max_gap=self.max_gap if came or self.end is not None else None,
            end=self.end,
            streamed=self._span > 0 if events > 1 else None,
        )

    @property
    def _span(self) -> float:
        return 0.0 if self.first_event is None else self.last_event - self.first_event

    def _first_event_late(self, elapsed: float) -> Deviation:
        return Deviation(
            "timing.first-event",
            f"an event within {self.limits.first_event:g} s",
            f"none for {elapsed:.3f} s",
        )

    def _gap(self, gap: float) -> Deviation:
        return Deviation(
            "timing.event-gap", f"an event every {self.limits.event_gap:g} s", f"none for {gap:.3f} s"
        )

    def _too_long(self, elapsed: float) -> Deviation:
        return Deviation(
            "timing.deadline",
            f"the whole stream within {self.whole:g} s",
            f"not over after {elapsed:.3f} s",
        )
