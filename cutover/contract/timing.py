"""The times of one stream, in seconds from sending the request, and the rules about them.

This module has no clock. The caller passes the time of each event.

Three rules ask whether the events came as they happened:

- `timing.not-streamed`: nothing came for a while, and then more events at once than a model sends within that time.
- `timing.held-back`: the same with an answer that an honest service may send so: a short one, or one body of announced length.
- `timing.bursts`: the events came in a few groups, with a pause before each.

This module is long because these rules, the gaps and the deadlines are told from the same few times.
"""

from collections.abc import Iterator, Sequence

import attrs

from cutover.contract.definition import Limits
from cutover.contract.findings import Deviation

_MODEL_BURST = 20
"""Largest number of content events that a model sends within `Limits.at_once`. Something on the way collected more of them."""
_BURST_EVENTS = 20
"""Smallest average number of events in a group that counts as a burst."""
_BURST_LENGTH = 0.01
"""Largest average time from the first to the last event of a burst, in seconds. No model sends `_BURST_EVENTS` in it."""
_PAUSE = 0.1
"""Seconds without an event above which the next event begins a new group."""


@attrs.frozen(kw_only=True)
class Timings:
    """The times of one stream, in seconds from sending the request. None: the time is unknown, or has not come."""

    head: float | None = None
    """Seconds to the head of the response."""
    first_byte: float | None = None
    """Seconds to the first byte of the body."""
    first_event: float | None = None
    """Seconds to the first message event."""
    first_content: float | None = None
    """Seconds to the first message event with content (`StreamContract.content`); None if the contract does not say what content is."""
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
                ("first content", self.first_content),
                ("last event", self.last_event),
                ("longest gap", self.max_gap),
                ("end", self.end),
            )
            if seconds is not None
        ]
        how = {None: [], True: ["streamed"], False: ["all at once"]}[self.streamed]
        return ", ".join(times + how) or "no times are known"


@attrs.frozen(kw_only=True)
class Course:
    """The facts about a stream that the rules of its end need beside the times."""

    events: int
    """The number of message events."""
    content_events: int
    """The number of message events that carry content."""
    came_in_one_call: bool
    """True if the checker got all message events in one call."""
    comments: int
    """The number of comments since the last message event."""
    is_over: bool
    """True if the last event of the turn has come."""
    is_direct: bool
    """True if each call of the checker was one `send` of an app in this process, so that nothing can have collected events."""


@attrs.define(eq=False)
class Watch:
    """The watch over the times of one stream. All times are seconds from sending the request.

    Most events come in time, after a gap that is neither the longest nor a pause. For these, `came_in_time` is enough; the
    checker repeats its comparison in line where speed matters. For all other events, `events_came` updates the times and
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
    first_content: float | None = attrs.field(default=None, init=False)
    """Seconds to the first message event with content; None before it."""
    last_event: float = attrs.field(default=0.0, init=False)
    """Seconds to the last message event; zero before the first one, so that the first gap begins with the request."""
    usual_gap: float = attrs.field(default=-1.0, init=False)
    """A gap of up to this many seconds is not the longest so far, not too long and no pause. Negative before the first event."""
    end: float | None = attrs.field(default=None, init=False)
    """Seconds to the end or the failure; None before it."""
    whole: float = attrs.field(init=False)
    """Seconds that the whole stream may take. A copy of the limit, because it is read for each event."""
    length_announced: bool = attrs.field(default=False, init=False)
    """True if the head has a `content-length`."""
    # The longest gap so far, in seconds; None before the first gap is over.
    _max_gap: float | None = attrs.field(default=None, init=False)
    # The number of pauses between two events, and their sum in seconds.
    _pauses: int = attrs.field(default=0, init=False)
    _paused: float = attrs.field(default=0.0, init=False)
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

    def events_came(self, elapsed: float, comments: int) -> Sequence[Deviation]:
        """Record message events, and return the rules that their time breaks.

        Args:
            elapsed: The time of the events.
            comments: The number of comments since the message event before them.
        """
        found: list[Deviation] = []
        gap = self._note_gap(elapsed)
        self.usual_gap = min(self._max_gap or 0.0, self.limits.event_gap, _PAUSE)
        if self.first_event is None:
            self.first_event = elapsed
            if elapsed > self.limits.first_event:
                found.append(self._first_event_late(elapsed, comments))
        else:
            if gap > _PAUSE:
                self._pauses += 1
                self._paused += gap
            if gap > self.limits.event_gap:
                found.append(self._gap(gap, comments))
        self.last_event = elapsed
        if elapsed > self.whole and not self._late:
            self._late = True
            found.append(self._too_long(elapsed))
        return found

    def ended(self, elapsed: float, course: Course) -> Iterator[Deviation]:
        """Record the end of the body, and yield the rules that its time breaks. Nothing is recorded until the caller iterates.

        Args:
            elapsed: The time of the end.
            course: The other facts about the stream.
        """
        gap = self.stopped(elapsed)
        has_gap = self.first_event is not None and gap > self.limits.event_gap
        if has_gap:
            yield (
                self._open_still("timing.event-gap", elapsed)
                if course.is_over
                else self._gap(gap, course.comments)
            )
        if elapsed > self.whole and not self._late and not (has_gap and course.is_over):
            yield self._open_still("timing.deadline", elapsed) if course.is_over else self._too_long(elapsed)
        yield from self._judge_course(course)

    def _judge_course(self, course: Course) -> Iterator[Deviation]:
        """Yield the rule that the stream breaks if its events did not come as they happened."""
        groups = self._pauses + 1
        if course.events > 1 and self._was_held_back(course):
            is_honest = not course.is_direct and course.content_events <= _MODEL_BURST
            yield Deviation(
                "timing.held-back" if is_honest or self._came_as_one_answer else "timing.not-streamed",
                "events as they happen",
                f"not streamed: nothing for {self.first_byte:.3f} s, then {course.events} events within {self._span:.3f} s",
            )
        elif (
            not course.is_direct
            and self._pauses
            and course.events >= groups * _BURST_EVENTS
            and self._span - self._paused <= groups * _BURST_LENGTH
        ):
            pause = self._paused / self._pauses
            yield Deviation(
                "timing.bursts",
                "events as they happen",
                f"{course.events} events in {groups} instants, with a pause of {pause:.3f} s between two on average",
            )

    def gave_up(self, elapsed: float, course: Course, *, whole: bool) -> Deviation:
        """Record that the caller stops waiting now, and return the deviation of the stream.

        Args:
            elapsed: The time now.
            course: The other facts about the stream.
            whole: True if the whole stream took too long, False if the next event did.
        """
        gap = self.stopped(elapsed)
        if course.is_over:
            return self._open_still("timing.deadline" if whole else "timing.event-gap", elapsed)
        if whole:
            return self._too_long(elapsed)
        return (
            self._first_event_late(elapsed, course.comments)
            if self.first_event is None
            else self._gap(gap, course.comments)
        )

    def stopped(self, elapsed: float) -> float:
        """Record the time of the end or the failure, and return the gap before it, in seconds."""
        self.end = elapsed
        return self._note_gap(elapsed)

    def _note_gap(self, elapsed: float) -> float:
        """Return the gap that is over now, in seconds, and keep it if it is the longest so far."""
        gap = elapsed - self.last_event
        self._max_gap = max(gap, self._max_gap or 0.0)
        return gap

    @property
    def _came_as_one_answer(self) -> bool:
        """Return True if head and body came together, with the length announced: a slow service may answer in this way."""
        together = (self.first_byte or 0.0) - (self.head or 0.0) <= self.limits.at_once
        return self.length_announced and together

    def _was_held_back(self, course: Course) -> bool:
        """Return True if all events came at once after a long wait."""
        at_once = course.came_in_one_call if course.is_direct else self._span <= self.limits.at_once
        return at_once and self.first_byte is not None and self.first_byte >= self.limits.held_back_after

    def timings(self, events: int) -> Timings:
        """Return the times so far.

        Args:
            events: The number of message events so far.
        """
        return Timings(
            head=self.head,
            first_byte=self.first_byte,
            first_event=self.first_event,
            first_content=self.first_content,
            last_event=None if self.first_event is None else self.last_event,
            max_gap=self._max_gap,
            end=self.end,
            streamed=self._span > 0 if events > 1 else None,
        )

    @property
    def _span(self) -> float:
        """Return the seconds from the first to the last message event."""
        return 0.0 if self.first_event is None else self.last_event - self.first_event

    def _first_event_late(self, elapsed: float, comments: int) -> Deviation:
        """Return the deviation of a first event that is late or missing."""
        return Deviation(
            "timing.first-event",
            f"an event within {self.limits.first_event:g} s",
            f"none for {elapsed:.3f} s{_kept_alive(comments)}",
        )

    def _gap(self, gap: float, comments: int) -> Deviation:
        """Return the deviation of a gap that is too long."""
        return Deviation(
            "timing.event-gap",
            f"an event every {self.limits.event_gap:g} s",
            f"none for {gap:.3f} s{_kept_alive(comments)}",
        )

    def _open_still(self, rule: str, elapsed: float) -> Deviation:
        """Return the deviation of a turn that is over while its connection stays open."""
        return Deviation(
            rule,
            "the end of the body after the last event",
            f"a connection that was still open after {elapsed:.3f} s, although the turn was over after {self.last_event:.3f} s",
        )

    def _too_long(self, elapsed: float) -> Deviation:
        """Return the deviation of a stream that takes too long."""
        return Deviation(
            "timing.deadline",
            f"the whole stream within {self.whole:g} s",
            f"not over after {elapsed:.3f} s",
        )


def _kept_alive(comments: int) -> str:
    """Return the end of the sentence about a gap: the comments show that the service works and the connection is open."""
    if not comments:
        return ""
    return f"; the service kept the connection alive with {comments} comment{'s' if comments > 1 else ''}"
