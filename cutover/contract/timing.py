"""The times of one stream, in seconds from sending the request, and the rules about them.

This module has no clock. The caller passes the time of each event.
"""

from collections.abc import Iterator

import attrs

from cutover.contract.definition import Limits
from cutover.contract.findings import Deviation


@attrs.frozen(kw_only=True)
class Timings:
    """The times of one stream, in seconds from sending the request. None: the time is unknown, or has not come."""

    head: float | None = None
    """Seconds to the head of the response."""
    first_byte: float | None = None
    """Seconds to the first byte of the body."""
    first_event: float | None = None
    """Seconds to the first message event."""
    last_event: float | None = None
    """Seconds to the last message event."""
    max_gap: float | None = None
    """Longest time without a message event, in seconds: before the first one, between two, or before the end."""
    end: float | None = None
    """Seconds to the end of the body, or to the failure of the stream."""
    streamed: bool | None = None
    """True if the message events came at different times, False if all came at once; None with fewer than two events."""

    def __str__(self) -> str:
        """Return the known times in words."""
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
    """The watch over the times of one stream. All times are seconds from sending the request.

    Most events come in time and after a gap that is not the longest. For these, `came_in_time` is enough; the checker
    repeats its comparison in line where speed matters. For all other events, `events_came` updates the times and
    reports gaps.
    """

    limits: Limits
    """The longest times that the contract allows."""
    head: float | None = attrs.field(default=None, init=False)
    """Seconds to the head; None before it."""
    first_byte: float | None = attrs.field(default=None, init=False)
    """Seconds to the first byte of the body; None before it."""
    first_event: float | None = attrs.field(default=None, init=False)
    """Seconds to the first message event; None before it."""
    last_event: float = attrs.field(default=0.0, init=False)
    """Seconds to the last message event; zero before the first one, so that the first gap begins with the request."""
    max_gap: float = attrs.field(default=0.0, init=False)
    """The longest gap so far, in seconds."""
    usual_gap: float = attrs.field(default=-1.0, init=False)
    """A gap of up to this many seconds is neither the longest so far nor too long. Negative before the first event."""
    end: float | None = attrs.field(default=None, init=False)
    """Seconds to the end or the failure; None before it."""
    whole: float = attrs.field(init=False)
    """Seconds that the whole stream may take. A copy of the limit, because it is read for each event."""
    length_announced: bool = attrs.field(default=False, init=False)
    """True if the head has a `content-length`."""
    # True once it has been reported that the stream takes too long.
    _late: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.whole = self.limits.whole

    @property
    def next_deadline(self) -> float | None:
        """Return the time at which a caller should stop waiting for the next event; None after the end."""
        if self.end is not None:
            return None
        next_event = (
            self.limits.first_event if self.first_event is None else self.last_event + self.limits.event_gap
        )
        return min(next_event, self.whole)

    def came_in_time(self, elapsed: float) -> bool:
        """Record message events that came in time, with a gap up to `usual_gap` before them, and return True.

        Otherwise record nothing and return False; the caller must then call `events_came`.
        """
        if elapsed - self.last_event > self.usual_gap or elapsed > self.whole:
            return False
        self.last_event = elapsed
        return True

    def events_came(self, elapsed: float) -> Iterator[Deviation]:
        """Record message events, and yield the rules that their time breaks. Nothing is recorded until the caller iterates."""
        gap = elapsed - self.last_event
        self.max_gap = max(gap, self.max_gap)
        self.usual_gap = min(self.max_gap, self.limits.event_gap)
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
        """Record the end of the body, and yield the rules that its time breaks. Nothing is recorded until the caller iterates.

        Args:
            elapsed: The time of the end.
            events: The number of message events in the stream.
        """
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
        """Return the deviation of a stream for which the caller stops waiting now.

        Args:
            elapsed: The time now.
            whole: True if the whole stream took too long, False if the next event did.
        """
        if whole:
            return self._too_long(elapsed)
        return (
            self._first_event_late(elapsed)
            if self.first_event is None
            else self._gap(elapsed - self.last_event)
        )

    @property
    def _came_as_one_answer(self) -> bool:
        """Return True if head and body came together, with the length announced: a slow service may answer in this way."""
        together = (self.first_byte or 0.0) - (self.head or 0.0) <= self.limits.at_once
        return self.length_announced and together

    @property
    def was_held_back(self) -> bool:
        """Return True if all events came at once after a long wait."""
        return (
            self.first_byte is not None
            and self.first_byte >= self.limits.held_back_after
            and self._span <= self.limits.at_once
        )

    def timings(self, events: int) -> Timings:
        """Return the times so far.

        Args:
            events: The number of message events so far.
        """
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
        """Return the seconds from the first to the last message event."""
        return 0.0 if self.first_event is None else self.last_event - self.first_event

    def _first_event_late(self, elapsed: float) -> Deviation:
        """Return the deviation of a first event that is late or missing."""
        return Deviation(
            "timing.first-event",
            f"an event within {self.limits.first_event:g} s",
            f"none for {elapsed:.3f} s",
        )

    def _gap(self, gap: float) -> Deviation:
        """Return the deviation of a gap that is too long."""
        return Deviation(
            "timing.event-gap", f"an event every {self.limits.event_gap:g} s", f"none for {gap:.3f} s"
        )

    def _too_long(self, elapsed: float) -> Deviation:
        """Return the deviation of a stream that takes too long."""
        return Deviation(
            "timing.deadline",
            f"the whole stream within {self.whole:g} s",
            f"not over after {elapsed:.3f} s",
        )
