"""The checker: it holds one stream to its contract, in one pass, while the stream comes.

The parser turns bytes into events, the judge checks their data and order, the watch checks times, and the functions of
`head` check the head. The judge, the watch and `head` report deviations. The checker turns each deviation into a finding,
with a severity and a place.

A few flags decide the path of the bytes. Each has a sentence above it in `ContractChecker`. The most important one is
`_flows`: while it is set, data that is one whole event, in order and in time, costs one call of the parser, one call of
the judge and one comparison of times.

This module is long because a head, data, an end and a failure all become findings with the same counters and offsets.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice
from typing import Any

import attrs
import msgspec

from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.failure import FailureKind
from cutover.contract.findings import Deviation, Finding, Severity
from cutover.contract.framing import FramingWatch
from cutover.contract.grammar import END
from cutover.contract.head import Head, error_in, judge_head, judge_status
from cutover.contract.judge import EventJudge
from cutover.contract.replacement import (
    BACKSLASH,
    has_escape,
    may_hold_replacement,
    replacement_in,
)
from cutover.contract.report import ContractReport
from cutover.contract.rules import GATHERED
from cutover.contract.timing import Course, Watch
from cutover.sse.events import Comment, MessageEvent, Oversized, Run, StreamEvent, Truncated, Unframed
from cutover.sse.parser import EventStreamParser
from cutover.text import escaped, escaped_lines, printable

NO_CONTENT = 204
"""The status that tells a client to reconnect no more (WHATWG HTML 9.2.3)."""
_MAX_FINDINGS_OF_RULE = 16
"""Largest number of findings of one rule that are kept. More are only counted."""
_NAMED_EVENTS = 5
"""Largest number of events that one finding about several events names."""
_MISSED_DEADLINES = frozenset({FailureKind.STALL, FailureKind.DEADLINE})
"""Failures that users have noticed, whatever comes after a reconnection."""
_BROKEN = {
    FailureKind.UNREACHABLE: ("transport.unreachable", "a connection", "none"),
    FailureKind.RESET: (
        "transport.reset",
        "the end of the body",
        "a broken connection after {bytes} bytes ({state})",
    ),
    FailureKind.DECODING: ("transport.decoding", "a body that can be decompressed", "a body that cannot be"),
    FailureKind.REFUSED_STATUS: (
        "transport.refused-status",
        "a response",
        "an error that the caller's own client raised",
    ),
    FailureKind.NO_ROUTE: (
        "transport.no-route",
        "a response",
        "none, because the mocked client has no route for this request",
    ),
    FailureKind.APP_ERROR: (
        "app.error",
        "an app that ends without an error",
        "an error after the stream was over",
    ),
}
"""Each failure that is not about a deadline -> its rule, and the expected and the actual content in words."""
_WITHOUT_BODY = frozenset({FailureKind.UNREACHABLE, FailureKind.REFUSED_STATUS, FailureKind.NO_ROUTE})
"""Failures before the body."""
_MAX_DETAIL = 300
"""Characters of the cause of a failure that its finding shows."""
_BEGINNING = 1024
"""Bytes of the beginning of the body that are kept, to show them if the body holds no event."""
_ERROR_BODY = 64 * 1024
"""Bytes of the body of a refused request that are kept, to find the error in them."""
_NOT_CHECKED = (
    "a larger one, which was not checked; give the check a larger limit: Limits(max_event_bytes=...), or "
    "cutover check --max-event-bytes"
)
_GRAVE = (Severity.VIOLATION, Severity.LOSS)
_ABOUT_EVENTS = ("json.", "schema.", "order.", "stream.", "terminator.")
"""The beginnings of the rules about events that are missing, or that a client cannot read."""
_PIECE = 1 << 20
"""Bytes that are parsed in one call, so that the events of a long recording are never all in memory."""


@attrs.define(eq=False)
class _Gathered:
    """The events that break a rule of which one finding names all events."""

    first: Deviation
    """The deviation of the first event."""
    offset: int | None
    """Position of the first event in bytes of the body."""
    indexes: list[int] = attrs.field(factory=list)
    """The indexes of the first events, at most `_NAMED_EVENTS`."""
    count: int = 0
    """The number of events."""

    @property
    def deviation(self) -> Deviation:
        """Return the one deviation that names all events."""
        *named, last = map(str, self.indexes)
        if self.count > len(self.indexes):
            named, last = [*named, last], f"{self.count - len(self.indexes)} more"
        events = f"events {', '.join(named)} and {last}" if named else f"event {last}"
        return msgspec.structs.replace(self.first, actual=f"{self.first.actual}, in {events}")


@attrs.define(eq=False)
class ContractChecker:
    """A checker of one response. It does no IO and has no clock.

    Call `receive_head` once, `receive_data` for each piece of the body, and then `receive_eof` or `receive_failure` once.
    Each call returns its new findings. A stream without an end of its own ends with `receive_leave`, and a client that
    reconnects goes on with `receive_reconnect` and the next head. `elapsed` is the time since the request was sent, in seconds. For a recording without a
    head, leave out `receive_head`: then no rule about the head is checked.
    """

    contract: StreamContract
    """The contract that the stream must keep."""
    context: StreamContext | None = attrs.field(default=None, kw_only=True)
    """The facts about the request that the stream answers; None if nothing is known about it."""
    is_direct: bool = attrs.field(default=False, kw_only=True)
    """True if each call of `receive_data` is one `send` of an app in this process, with the time of that `send`.

    Nothing stands between the app and the checker then, so events that came in several calls were streamed, however fast.
    """
    _parser: EventStreamParser = attrs.field(init=False)
    _judge: EventJudge = attrs.field(init=False)
    # A copy of the judge's attribute, because it is read for each event.
    _reads_fields: bool = attrs.field(init=False)
    # True if each event must have an ID of its own.
    _needs_ids: bool = attrs.field(init=False)
    # True if an event with a name is worth a warning: the contract says nothing about names.
    _tells_names: bool = attrs.field(init=False)
    _watch: Watch = attrs.field(init=False)
    # The watch over the bytes; None if the contract wants nothing beyond the standard.
    _framing: FramingWatch | None = attrs.field(init=False)
    # True once a message event has come.
    _has_events: bool = attrs.field(default=False, init=False)
    # The findings that are kept, in the order in which they were found.
    _findings: list[Finding] = attrs.field(factory=list, init=False)
    # Id of a rule -> the number of its findings, kept or not.
    _found: Counter[str] = attrs.field(factory=Counter, init=False)
    # The number of message events of the first call that brought some.
    _first_events: int = attrs.field(default=0, init=False)
    # Id of a rule of which one finding names all events -> the events that break it.
    _gathered: dict[str, _Gathered] = attrs.field(factory=dict, init=False)
    # The number of comments.
    _comments: int = attrs.field(default=0, init=False)
    # The number of comments since the message event at the time `_gap_began`. If a later event has come, it counts for nothing.
    _gap_comments: int = attrs.field(default=0, init=False)
    _gap_began: float = attrs.field(default=0.0, init=False)
    # The number of comments in the gap before the first message event of the data of this call; negative before that event.
    _comments_before: int = attrs.field(default=-1, init=False)
    # True once a finding has shown a line that is no field.
    _tells_unframed: bool = attrs.field(default=False, init=False)
    # The number of bytes of a body that is not a stream. The parser does not see them.
    _unread: int = attrs.field(default=0, init=False)
    # The first bytes of the body, up to the data that completes the first event: at most `_BEGINNING` bytes, or
    # `_ERROR_BODY` bytes of a body that is not a stream.
    _beginning: bytes = attrs.field(default=b"", init=False)
    # True from the first event to the end or the failure. Data may then take the fast path for one event.
    _flows: bool = attrs.field(default=False, init=False)
    # The head; None before it, and for a recording without one.
    _head: Head | None = attrs.field(default=None, init=False)
    # False if the status or the content type shows that the body is not a stream. The body is then not parsed.
    _is_stream: bool = attrs.field(default=True, init=False)
    # The deviation of a wrong status that waits for the body, because the body may hold the reason; else None.
    _refusal: Deviation | None = attrs.field(default=None, init=False)
    # The error code of a refused request, from the body or a header; None without one.
    _refusal_code: str | None = attrs.field(default=None, init=False)
    # The failure that ended the stream early; None without one.
    _interrupted: FailureKind | None = attrs.field(default=None, init=False)
    # True once the caller has reconnected: the next head then answers a request for the rest of the stream.
    _is_resumed: bool = attrs.field(default=False, init=False)
    # The number of kept findings, the counts by rule and the state of the walk before the end of the body; None before it.
    _before_end: tuple[int, Counter[str], str] | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = EventStreamParser(max_event_bytes=self.contract.limits.max_event_bytes)
        self._judge = EventJudge(self.contract, self.context or StreamContext())
        self._reads_fields = self._judge.reads_fields
        self._needs_ids = self.contract.resume == "id"
        self._tells_names = not self.contract.wants_names
        self._watch = Watch(self.contract.limits)
        framing = self.contract.framing
        self._framing = None if framing.is_standard else FramingWatch(framing)
        self._note(self.contract.remarks)

    @property
    def next_deadline(self) -> float | None:
        """Return the time at which the caller should stop waiting and call `receive_failure`; None after the end.

        The time is in seconds since the request was sent.
        """
        return self._watch.next_deadline

    def receive_head(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], *, elapsed: float
    ) -> Sequence[Finding]:
        """Check the head of the response, and return the new findings.

        The finding about a wrong status comes only at the end or the failure of the body, which may hold the reason. A
        redirect is reported at once.

        Args:
            status: The HTTP status code.
            headers: Raw names and values, in the order of the response.
            elapsed: Seconds since the request was sent.
        """
        before = len(self._findings)
        self._watch.head = elapsed
        self._head = Head.of(status, headers)
        self._watch.length_announced = self._head.first("content-length") is not None
        wrong = judge_status(self.contract.head, self._head)
        if self._is_resumed:
            if self._head.status == NO_CONTENT and self._may_end:
                return ()
            wrong = self._judge_reconnection(wrong)
        if wrong is None:
            asked_at = None if self.context is None else self.context.asked_at
            self._note(judge_head(self.contract.head, self._head, asked_at=asked_at))
            no_stream = [each for each in self._findings if each.rule == "head.content-type"]
            self._is_stream = all(each.severity is Severity.WARNING for each in no_stream)
        else:
            self._is_stream = False
            if wrong.rule == "head.redirect":
                self._note([wrong])
            else:
                self._refusal = wrong
        return self._findings[before:]

    def receive_data(  # noqa: C901, PLR0912  the way of one event stands in line, because a call takes time
        self, data: bytes, *, elapsed: float
    ) -> Sequence[Finding]:
        """Check the next bytes of the body, and return the new findings.

        If the head showed that the body is not a stream, count the bytes, keep the first ones, and return no findings.

        Args:
            data: The bytes, of any length.
            elapsed: Seconds since the request was sent.

        Raises:
            RuntimeError: If `receive_eof` or `receive_failure` was called before.
        """
        # The most frequent data of a live stream is one whole event that is in order and in time.
        if self._flows:
            payload = self._parser.receive_one(data)
            if payload is not None:
                if self._reads_fields:
                    parser = self._parser
                    self._judge.set_fields(parser.last_name, None, None, parser.last_event_id)
                deviations = self._judge.take_one(payload)
                # The parser passes no event with the character U+FFFD here.
                if BACKSLASH in payload and has_escape(payload):
                    deviations = [*deviations, *replacement_in(payload)]
                watch = self._watch
                if deviations or elapsed - watch.last_event > watch.usual_gap or elapsed > watch.whole:
                    return self._note_one(deviations, elapsed)
                watch.last_event = elapsed
                return ()
        if self._watch.end is not None:
            raise RuntimeError("the stream is over: receive_eof or receive_failure was called before")
        before = len(self._findings)
        if self._watch.first_byte is None and data:
            self._watch.first_byte = elapsed
        if not (self._has_events and self._is_stream):
            limit = _BEGINNING if self._is_stream else _ERROR_BODY
            self._beginning += data[: limit - len(self._beginning)]
        if self._is_stream:
            self._comments_before = -1
            offset, count = self._take(data) if len(data) <= _PIECE else self._take_pieces(data)
            if count:
                if not self._has_events:
                    self._has_events, self._first_events = True, count
                # Rules about the bytes must see all of them, rules about IDs all events, and the time of the first content is
                # the time of its data.
                awaits_content = self._judge.awaits_content
                self._flows = self._framing is None and not self._needs_ids and not awaits_content
                if self._watch.first_content is None and self.contract.content and not awaits_content:
                    self._watch.first_content = elapsed
                if not self._watch.came_in_time(elapsed):
                    late = self._watch.events_came(elapsed, self._comments_before)
                    self._note(late, self.event_count - count, offset)
                # The comments behind the last event of the data belong to the gap that begins now.
                self._gap_began = elapsed
        else:
            self._unread += len(data)
        return self._findings[before:]

    def receive_eof(self, *, elapsed: float) -> Sequence[Finding]:
        """Check a body that came to its end, and return the new findings.

        Args:
            elapsed: Seconds since the request was sent.
        """
        before = self._note_end()
        if self._is_stream:
            self._take_end(self._parser.receive_eof())
        self._note_refusal()
        self._note(self._watch.ended(elapsed, self._course))
        self._flows = False
        return self._findings[before:]

    def receive_failure(self, kind: FailureKind, *, elapsed: float, detail: str = "") -> Sequence[Finding]:
        """End the check of a stream that failed, and return the new findings. The report is then never `ok`.

        After a wrong status, the finding is about the status and not about the failure.

        Args:
            kind: The reason: the connection failed, or the caller stopped waiting.
            elapsed: Seconds since the request was sent.
            detail: The cause in the words of the client or of the app, for the finding. It may hold text from the network.
        """
        before = self._note_end()
        self._interrupted = kind
        if kind is FailureKind.DECODING:
            # One cause, one finding: this one says that the body is compressed.
            self._findings = [each for each in self._findings if each.rule != "head.compressed"]
            before = min(before, len(self._findings))
        if self._refusal is not None:
            self._watch.stopped(elapsed)
            self._note_refusal()
        elif kind is FailureKind.DECODING and not self._is_stream:
            # The finding about the head says already that this is no stream.
            self._watch.stopped(elapsed)
        elif kind in _BROKEN:
            if kind in _WITHOUT_BODY:
                # A stream that never began has no gap.
                self._watch.end = elapsed
            elif kind is not FailureKind.APP_ERROR:
                self._watch.stopped(elapsed)
            rule, expected, actual = _BROKEN[kind]
            actual = actual.format(bytes=self._bytes, state=self._state)
            actual = f"{actual}: {printable(detail, _MAX_DETAIL)}" if detail else actual
            offset = None if kind in _WITHOUT_BODY else self._bytes
            self._add(Deviation(rule, expected, actual), offset=offset, severity=Severity.VIOLATION)
        else:
            late = self._watch.gave_up(elapsed, self._course, whole=kind is FailureKind.DEADLINE)
            self._add(late, offset=self._bytes, severity=Severity.VIOLATION)
        self._note_encoding()
        self._note_unframed()
        self._flows = False
        return self._findings[before:]

    def receive_leave(self, *, elapsed: float) -> Sequence[Finding]:
        """End the check of a stream without an end of its own, and return the new findings. What has not come is no fault.

        The stream is judged as far as it went, and the report is then complete.

        Args:
            elapsed: Seconds from sending the first request to leaving.
        """
        before = self._note_end()
        self._note_encoding()
        self._note_unframed()
        self._note_refusal()
        self._watch.stopped(elapsed)
        self._flows = False
        return self._findings[before:]

    def receive_reconnect(self, *, elapsed: float) -> None:
        """Go on with the next body of the same stream: the client reconnects, and asks for the rest (WHATWG HTML 9.2.4).

        Call `receive_head`, `receive_data` and so on for the new response. Order, parts and counts go on as in one stream, and
        so do indexes and offsets. An event that the cut left unfinished is dropped, as a client drops it. If the first
        body had ended, or its connection broke, the findings about that end are taken back: the stream goes on. A missed
        deadline stays a fault. The time without a connection is no gap between events.

        Args:
            elapsed: Seconds from sending the first request to sending this one. All later times count from the first one too.
        """
        if self._before_end is not None and self._interrupted not in _MISSED_DEADLINES:
            kept, self._found, self._judge.walk.state = self._before_end
            del self._findings[kept:]
        received, unframed = self._parser.received, self._parser.unframed
        self._parser = EventStreamParser(max_event_bytes=self.contract.limits.max_event_bytes)
        self._parser.received, self._parser.unframed = received, unframed
        if self._framing is not None:
            self._framing = FramingWatch(self.contract.framing, received)
        self._is_resumed, self._is_stream, self._flows = True, True, False
        self._before_end = self._interrupted = self._refusal = None
        self._tells_unframed = False
        self._beginning = b""
        self._watch.end, self._watch.last_event = None, elapsed

    def report(self) -> ContractReport:
        """Return the report on the stream so far."""
        return ContractReport(
            contract=self.contract.name,
            findings=tuple(sorted(self._findings, key=_place)),
            suppressed={
                rule: n - _MAX_FINDINGS_OF_RULE
                for rule, n in self._found.items()
                if n > _MAX_FINDINGS_OF_RULE
            },
            complete=self._watch.end is not None and self._interrupted is None,
            interrupted=self._interrupted,
            timings=self._watch.timings(self.event_count),
            chunk_counts=self._judge.chunk_counts(),
            event_count=self.event_count,
            content_count=self._judge.content_count,
            comment_count=self._comments,
            byte_count=self._bytes,
            state=self._state,
            own_reasons={rule.id: rule.why for rule in self.contract.rules},
            service_error=self._refusal_code or self._judge.walk.service_error,
        )

    @property
    def event_count(self) -> int:
        """Return the number of message events so far."""
        return self._judge.event_count

    @property
    def _content_events(self) -> int:
        """Return the number of message events so far that may carry content: all of them if the contract does not say which do."""
        return self._judge.content_count if self.contract.content else self.event_count

    @property
    def _comments_in_gap(self) -> int:
        """Return the number of comments since the last message event."""
        return self._gap_comments if self._gap_began == self._watch.last_event else 0

    @property
    def _course(self) -> Course:
        """Return the facts about the stream so far that the rules about its times need."""
        events = self.event_count
        return Course(
            events=events,
            content_events=self._content_events,
            came_in_one_call=events == self._first_events,
            comments=self._comments_in_gap,
            is_over=self._judge.walk.is_over,
            is_direct=self.is_direct,
        )

    @property
    def _bytes(self) -> int:
        """Return the number of body bytes received so far, parsed or not."""
        return self._parser.received + self._unread

    @property
    def _state(self) -> str:
        """Return the state of the turn in words; for a response that is not a stream, a text that says so."""
        walk = self._judge.walk
        return self.contract.grammar.states[walk.state] if self._is_stream else "the response is not a stream"

    @property
    def _may_end(self) -> bool:
        """Return True if the stream has come to an end that the contract allows, so that nothing is left to send."""
        end = self.contract.grammar.transitions[self._judge.walk.state, END]
        return not self.contract.endless and end.rule is None

    def _judge_reconnection(self, wrong: Deviation | None) -> Deviation | None:
        """Return the deviation of the status that answers a reconnection; None if the status is allowed.

        Args:
            wrong: The deviation of the same status in the answer to a first request.
        """
        if self._head is not None and self._head.status == NO_CONTENT:
            return Deviation(
                "resume.refused", "the rest of the stream", "204, after which a client reconnects no more"
            )
        if wrong is not None and wrong.rule == "head.status":
            return Deviation("resume.refused", wrong.expected, wrong.actual)
        return wrong

    def _note_end(self) -> int:
        """Keep the findings and the state from before the end, in case the client reconnects. Return the number of findings."""
        before = len(self._findings)
        self._before_end = (before, Counter(self._found), self._judge.walk.state)
        for rule, gathered in self._gathered.items():
            # A stream that was resumed after a missed deadline has kept the finding.
            if rule not in self._found:
                self._keep(
                    gathered.deviation,
                    gathered.indexes[0],
                    gathered.offset,
                    self.contract.severity_of(gathered.first),
                )
        return before

    def _take_pieces(self, data: bytes) -> tuple[int, int]:
        """Take long data piece by piece. The return values are those of `_take`."""
        pieces = [self._take(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)]
        return next((offset for offset, count in pieces if count), 0), sum(count for _, count in pieces)

    def _take(self, data: bytes) -> tuple[int, int]:  # noqa: C901  in line, because a call takes time
        """Check the events that the data completes, and return the place and the number of the message events.

        The place is the byte offset of the first message event; 0 if the data completes none.
        """
        first, count = 0, 0
        begins, is_suspect = self._parser.received, None
        if self._framing is not None:
            self._note_framing(self._framing.receive_data(data))
        for item in self._parser.receive_runs(data):
            if isinstance(item, MessageEvent):
                item = _run_of(item)  # noqa: PLW2901  the same event in another form
            if isinstance(item, Run):
                first = first if count else item.byte_offset
                count += len(item.payloads)
                if self._comments_before < 0:
                    self._comments_before = self._comments_in_gap
                self._gap_comments = 0
                deviations = self._judge.take(item)
                if is_suspect is None:
                    # All events but the first one begin in this data.
                    is_suspect = may_hold_replacement(data) or (
                        first < begins and may_hold_replacement(item.payloads[0])
                    )
                if is_suspect:
                    deviations = [*deviations, *_replaced(item)]
                if (
                    deviations
                    or (item.event != "message" and self._tells_names)
                    or self._framing
                    or self._needs_ids
                ):
                    self._note_run(item, deviations)
            elif isinstance(item, Comment):
                self._take_comment(item)
            elif isinstance(item, Oversized):
                self._take_oversized(item)
        if self._parser.invalid_utf8_offset is not None:
            self._note_encoding()
        return first, count

    def _note_framing(self, deviations: Iterable[tuple[int, Deviation]]) -> None:
        """Add a finding for each deviation of the bytes, at its offset."""
        for offset, deviation in deviations:
            self._add(deviation, offset=offset)

    def _take_comment(self, comment: Comment) -> None:
        """Count a comment, and report it if the client does not take comments."""
        self._comments += 1
        if self._gap_began != self._watch.last_event:
            self._gap_comments, self._gap_began = 0, self._watch.last_event
        self._gap_comments += 1
        if self.contract.framing.no_comments:
            actual = f"the comment {escaped(comment.text)}"
            self._add(Deviation("framing.comment", "no comment", actual), offset=comment.byte_offset)

    def _take_oversized(self, event: Oversized) -> None:
        """Report an event that the check does not read. It may be one that seems to be missing later."""
        limit = f"events of at most {self.contract.limits.max_event_bytes} bytes, which this check reads"
        self._add(Deviation("stream.oversized", limit, _NOT_CHECKED), offset=event.byte_offset)
        self._judge.note_unreadable(self.event_count)

    def _note_run(self, run: Run, deviations: Sequence[tuple[int, Deviation]]) -> None:
        """Add the findings about the events of a run: their type (once in a stream), and the deviations by index in the run."""
        begins = self.event_count - len(run.payloads)
        if run.name is None and self.contract.framing.event_line:
            self._note_each(run, Deviation("framing.event-line", "an event line", "an event without one"))
        if self._needs_ids and run.id is None and "resume.no-id" not in self._found:
            # An event that breaks another rule has its finding, and the schema may ask for the ID too.
            told = {index for index, _ in deviations}
            no_id = Deviation("resume.no-id", "an id on each event", "an event without one")
            self._note_each(run, no_id, without=told, most=1)
        if (
            self._tells_names
            and run.event != "message"
            and run.event not in self.contract.kind.overrides
            and "stream.event-type" not in self._found
        ):
            actual = f"the event type {escaped(run.event)}"
            self._add(
                Deviation("stream.event-type", "the event type message", actual), begins, run.byte_offset
            )
        for index, deviation in deviations:
            # Computing an offset takes time, and a finding that is not kept needs none.
            is_kept = (
                self._found[deviation.rule] < _MAX_FINDINGS_OF_RULE and deviation.rule not in self._gathered
            )
            self._add(deviation, begins + index, run.offset_of(index) if is_kept else None)

    def _note_each(
        self,
        run: Run,
        deviation: Deviation,
        *,
        without: AbstractSet[int] = frozenset(),
        most: int | None = None,
    ) -> None:
        """Add the same finding about the events of a run, except for the terminator.

        Args:
            run: The run.
            deviation: The broken rule.
            without: Indexes in the run of events that are left out.
            most: The largest number of findings; None for one about each event.
        """
        begins, terminator = self.event_count - len(run.payloads), self.contract.terminator
        ends = {terminator, None if terminator is None else terminator.encode()}
        about = (
            index for index, each in enumerate(run.payloads) if each not in ends and index not in without
        )
        for index in islice(about, most):
            is_kept = self._found[deviation.rule] < _MAX_FINDINGS_OF_RULE
            self._add(deviation, begins + index, run.offset_of(index) if is_kept else None)

    def _take_end(self, events: Sequence[StreamEvent]) -> None:
        """Check that the turn is over at the end of the body.

        Args:
            events: The events that the end of the body cut off.
        """
        self._note_encoding()
        walk = self._judge.walk
        cut = next((event for event in events if isinstance(event, Truncated)), None)
        if cut is None:
            self._note_framing(() if self._framing is None else self._framing.ended())
            self._note(self._explain_end(self._judge.end()), offset=self._bytes)
        elif walk.is_over:
            within = f"the end of the body within {escaped_lines(cut.pending)}"
            self._add(Deviation("terminator.trailing", "nothing more", within), offset=cut.byte_offset)
        elif self.event_count == 0:
            self._add(Deviation("stream.empty", "events", self._tell_instead()), offset=self._bytes)
        else:
            within = f"the end of the body within {escaped_lines(cut.pending)}"
            wanted = "the rest of the event" if walk.may_end else walk.expectation
            truncated = Deviation("stream.truncated", wanted, f"{within}{self._tell_cause()}")
            self._add(truncated, offset=cut.byte_offset)
        self._note_unframed()

    def _explain_end(self, deviations: Iterable[Deviation]) -> Iterator[Deviation]:
        """Yield the deviations of the end. `stream.empty` shows the body that came instead, or becomes `stream.truncated`.

        If events came and the kind of one was unreadable or unknown, drop `stream.empty`: that event may be the start. A body
        without events lacks everything else too, so that is said only if an empty body is no violation by itself.
        """
        is_alone = self._judge.is_terminator_alone
        is_no_fault = self.contract.may_be_empty and (not self._beginning or self._comments > 0)
        if is_alone or (self.event_count == 0 and not is_no_fault):
            yield Deviation("stream.empty", "events", self._tell_instead())
            if self.contract.severity("stream.empty") is Severity.VIOLATION:
                return
            deviations = [each for each in deviations if each.rule != "stream.empty"]
        for each in deviations:
            if each.rule == "stream.empty":
                if not self._judge.has_unreadable:
                    yield Deviation("stream.truncated", "the start", f"{END}{self._tell_cause()}")
            elif each.actual == END and self._parser.unframed is not None:
                yield msgspec.structs.replace(each, actual=f"{END}{self._tell_cause()}")
            else:
                yield each
        if self._judge.shows_nothing and not is_alone and self.event_count and not self._explains_no_content:
            came = ", ".join(
                kind for kind in sorted(self._judge.chunk_counts()) if kind != self.contract.terminator
            )
            yield Deviation(
                "stream.no-content",
                "something that a user sees",
                printable(f"only {came or 'events of no known kind'}"),
            )

    @property
    def _explains_no_content(self) -> bool:
        """Return True if a graver finding says already why a user sees nothing: events are missing, or could not be read."""
        return any(each.severity in _GRAVE and each.rule.startswith(_ABOUT_EVENTS) for each in self._findings)

    def _tell_cause(self) -> str:
        """Return the words about lines that are no field, which may be the reason for the end of the body; empty without one."""
        if self._parser.unframed is None:
            return ""
        self._tells_unframed = True
        return f"; the body holds {_in_words(self._parser.unframed)}"

    def _tell_instead(self) -> str:
        """Return what came instead of events, for a finding."""
        if self.event_count:
            return f"nothing but the terminator {escaped(str(self.contract.terminator))}{self._tell_cause()}"
        # The beginning shows such lines too.
        self._tells_unframed = True
        return f"no event, only {escaped_lines(self._beginning)}" if self._beginning else "an empty body"

    def _note_one(self, deviations: Sequence[Deviation], elapsed: float) -> Sequence[Finding]:
        """Add the findings about the one event of the fast path, and about its time, and return them."""
        watch = self._watch
        late = () if watch.came_in_time(elapsed) else watch.events_came(elapsed, self._comments_in_gap)
        if not (deviations or late):
            return ()
        before, index, offset = len(self._findings), self.event_count - 1, self._parser.last_offset
        self._note(deviations, index, offset)
        self._note(late, index, offset)
        self._note_encoding()
        return self._findings[before:]

    def _note_encoding(self) -> None:
        """Add a finding about the first byte that is not UTF-8, once."""
        bad = self._parser.invalid_utf8_offset
        if bad is not None and "stream.invalid-utf8" not in self._found:
            self._add(Deviation("stream.invalid-utf8", "UTF-8", "bytes that are not UTF-8"), offset=bad)

    def _note_unframed(self) -> None:
        """Add a finding about lines that are no field, unless another finding has shown them as the cause."""
        unframed = self._parser.unframed
        if unframed is not None and not self._tells_unframed and "stream.unframed" not in self._found:
            wanted = "only fields and comments"
            deviation = Deviation("stream.unframed", wanted, _in_words(unframed))
            self._add(deviation, offset=unframed.byte_offset)

    def _note_refusal(self) -> None:
        """Add the finding about a wrong status, with the reason that the body gives, once."""
        if self._refusal is not None and self._head is not None:
            self._refusal_code, message = error_in(self.contract.head, self._head, self._beginning)
            if not message and self._interrupted is None:
                message = "(an empty body)"
            actual = f"{self._refusal.actual} {message}".strip()
            self._add(Deviation(self._refusal.rule, self._refusal.expected, actual))
            self._refusal = None

    def _note(
        self, deviations: Iterable[Deviation], index: int | None = None, offset: int | None = None
    ) -> None:
        """Add a finding for each deviation, all at the same place."""
        for deviation in deviations:
            self._add(deviation, index, offset)

    def _gather(self, deviation: Deviation, index: int, offset: int | None) -> None:
        """Keep an event for the one finding about its rule."""
        gathered = self._gathered.setdefault(deviation.rule, _Gathered(deviation, offset))
        gathered.count += 1
        if len(gathered.indexes) < _NAMED_EVENTS:
            gathered.indexes.append(index)

    def _add(
        self,
        deviation: Deviation,
        index: int | None = None,
        offset: int | None = None,
        *,
        severity: Severity | None = None,
    ) -> None:
        """Turn a deviation into a finding, unless enough findings of its rule are kept already.

        Args:
            deviation: The broken rule.
            index: Index of the message event; None if the finding is not about one event.
            offset: Position in bytes of the body; None if unknown.
            severity: The severity; None for a warning if the client had stopped reading before, else for the rule's severity in
                the contract.
        """
        rule = deviation.rule
        if severity is None:
            severity = self.contract.severity_of(deviation)
        if severity is Severity.IGNORED:
            return
        if rule in GATHERED and index is not None:
            self._gather(deviation, index, offset)
            return
        self._keep(deviation, index, offset, severity)

    def _keep(self, deviation: Deviation, index: int | None, offset: int | None, severity: Severity) -> None:
        """Count a finding, and keep it unless enough findings of its rule are kept already."""
        rule = deviation.rule
        self._found[rule] += 1
        if self._found[rule] > _MAX_FINDINGS_OF_RULE:
            return
        self._findings.append(
            Finding(
                rule=rule,
                severity=severity,
                message=_message(deviation),
                event_index=index,
                byte_offset=offset,
                expected=deviation.expected or None,
                actual=deviation.actual,
                path=deviation.path,
                keyword=deviation.keyword,
            )
        )


def _replaced(run: Run) -> Sequence[tuple[int, Deviation]]:
    """Return the deviations of the events of a run that hold U+FFFD, by index in the run."""
    payloads: Sequence[Any] = run.payloads
    return [(index, each) for index, payload in enumerate(payloads) for each in replacement_in(payload)]


def _run_of(event: MessageEvent) -> Run:
    """Return an event as a run of one event."""
    return Run(
        [event.data],
        event.byte_offset,
        0,
        event.event,
        event.last_event_id,
        event.name,
        event.id,
        event.retry,
    )


def _in_words(unframed: Unframed) -> str:
    """Return the first line that is no field, and the number of such lines, for a finding."""
    if unframed.count == 1:
        return f"a line that is no field of an event stream: {escaped(unframed.line)}"
    return f"{unframed.count} lines that are no fields of an event stream, first {escaped(unframed.line)}"


def _message(deviation: Deviation) -> str:
    """Return the sentence about a deviation. A weakness of the contract itself expects nothing, and says all by itself."""
    return (
        f"expected {deviation.expected}, got {deviation.actual}" if deviation.expected else deviation.actual
    )


def _place(finding: Finding) -> tuple[int, int, str]:
    """Return the sort key of a finding: byte offset, then event; without an event, then the rule.

    Findings without an offset come first. Findings about the same event keep the order in which they were found.
    """
    return (
        -1 if finding.byte_offset is None else finding.byte_offset,
        -1 if finding.event_index is None else finding.event_index,
        finding.rule if finding.event_index is None else "",
    )
