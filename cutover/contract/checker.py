"""One stream held against its contract, in one pass, as it comes.

It is long because whatever came (a head, data, an end, a failure) becomes findings by the same few counters and offsets.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import attrs

from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.failure import FailureKind
from cutover.contract.findings import Finding, Severity
from cutover.contract.grammar import END, Deviation
from cutover.contract.head import Head, error_in, judge_head, judge_status
from cutover.contract.judge import EventJudge
from cutover.contract.report import ContractReport
from cutover.contract.timing import Watch
from cutover.sse.events import Comment, MessageEvent, Oversized, Run, StreamEvent, Truncated
from cutover.sse.parser import EventStreamParser
from cutover.text import printable

_FINDINGS_A_RULE = 16
"""Findings of one rule that are kept; more are only counted."""
_BEGINNING = 1024
"""Bytes of the body's beginning that are kept to show what came instead of a stream."""
_ERROR_BODY = 64 * 1024
"""Bytes of a refusal's body that are looked at."""
_PIECE = 1 << 20
"""Bytes that are checked in one go, so that the events of a whole recording are never all in memory."""


@attrs.define(eq=False)
class ContractChecker:
    """Takes a response as it comes and says what is wrong with it; it does no IO and knows no clock.

    Feed it `receive_head`, `receive_data` as often as data comes, and `receive_eof` or `receive_failure` once. Each returns
    what it found; `elapsed` is the time since the request was sent, in seconds. A recording without a head leaves
    `receive_head` out: then no rule about the head is judged.
    """

    contract: StreamContract
    """What the stream must be."""
    context: StreamContext | None = attrs.field(default=None, kw_only=True)
    """The request that it answers."""
    _parser: EventStreamParser = attrs.field(init=False)
    _judge: EventJudge = attrs.field(init=False)
    _watch: Watch = attrs.field(init=False)
    _findings: list[Finding] = attrs.field(factory=list, init=False)
    _found: Counter[str] = attrs.field(factory=Counter, init=False)
    _comments: int = attrs.field(default=0, init=False)
    _unread: int = attrs.field(default=0, init=False)  # bytes of a body that is no stream
    _beginning: bytes = attrs.field(default=b"", init=False)
    _flows: bool = attrs.field(default=False, init=False)  # events have come, and more may
    _head: Head | None = attrs.field(default=None, init=False)
    _is_stream: bool = attrs.field(default=True, init=False)  # the head did not say otherwise
    _refusal: Deviation | None = attrs.field(
        default=None, init=False
    )  # a wrong status: its body will say why
    _refusal_code: str | None = attrs.field(default=None, init=False)
    _interrupted: FailureKind | None = attrs.field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._parser = EventStreamParser(max_event_bytes=self.contract.limits.max_event_bytes)
        self._judge = EventJudge(self.contract, self.context or StreamContext())
        self._watch = Watch(self.contract.limits)

    @property
    def next_deadline(self) -> float | None:
        """When to give up waiting and call `receive_failure`, in seconds since the request was sent; None after the end."""
        return self._watch.next_deadline

    def receive_head(
        self, status: int, headers: Sequence[tuple[bytes, bytes]], *, elapsed: float
    ) -> Sequence[Finding]:
        """The response's head came."""
        before = len(self._findings)
        self._watch.head = elapsed
        self._head = Head.of(status, headers)
        self._watch.length_announced = self._head.first("content-length") is not None
        wrong = judge_status(self.contract.head, self._head)
        if wrong is None:
            self._note(judge_head(self.contract.head, self._head))
            no_stream = [each for each in self._findings if each.rule == "head.content-type"]
            self._is_stream = all(each.severity is Severity.WARNING for each in no_stream)
        else:
            self._is_stream = False
            if wrong.rule == "head.redirect":
                self._note([wrong])
            else:
                self._refusal = wrong
        return self._findings[before:]

    def receive_data(self, data: bytes, *, elapsed: float) -> Sequence[Finding]:
        """Part of the body came.

        Raises:
            RuntimeError: The stream was said to be over.
        """
        if self._flows:  # one calm event, in time, is the commonest chunk of a live stream
            payload = self._parser.receive_one(data)
            if payload is not None:
                deviations = self._judge.take_one(payload)
                watch = self._watch
                if deviations or elapsed - watch.last_event > watch.calm_gap or elapsed > watch.whole:
                    return self._note_one(deviations, elapsed)
                watch.last_event = elapsed
                return ()
        if self._watch.end is not None:
            raise RuntimeError("the stream is over")
        before = len(self._findings)
        if self._watch.first_byte is None and data:
            self._watch.first_byte = elapsed
        if not self._flows:
            limit = _BEGINNING if self._is_stream else _ERROR_BODY
            self._beginning += data[: limit - len(self._beginning)]
        if self._is_stream:
            offset, count = self._take(data) if len(data) <= _PIECE else self._take_pieces(data)
            if count:
                self._flows = True
                if not self._watch.came_calmly(elapsed):
                    self._note(self._watch.events_came(elapsed), self._events - count, offset)
        else:
            self._unread += len(data)
        return self._findings[before:]

    def receive_eof(self, *, elapsed: float) -> Sequence[Finding]:
        """The body ended by itself."""
        before = len(self._findings)
        if self._is_stream:
            self._take_end(self._parser.receive_eof())
        self._note_refusal()
        self._note(self._watch.ended(elapsed, self._events))
        self._flows = False
        return self._findings[before:]

    def receive_failure(self, kind: FailureKind, *, elapsed: float) -> Sequence[Finding]:
        """The stream broke off, or whoever reads it has lost patience: it fails, whatever the contract says of gaps."""
        before = len(self._findings)
        self._interrupted = kind
        if self._refusal is not None:
            self._note_refusal()
        elif kind is FailureKind.UNREACHABLE:
            self._add(Deviation("transport.unreachable", "a connection", "none"), severity=Severity.VIOLATION)
        elif kind is FailureKind.RESET:
            where = f"the connection broke after {self._bytes} bytes: {self._state}"
            self._add(
                Deviation("transport.reset", "the body's end", where),
                offset=self._bytes,
                severity=Severity.VIOLATION,
            )
        else:
            late = self._watch.gave_up(elapsed, whole=kind is FailureKind.DEADLINE)
            self._add(late, offset=self._bytes, severity=Severity.VIOLATION)
        self._note_encoding()
        self._watch.end = elapsed
        self._flows = False
        return self._findings[before:]

    def report(self) -> ContractReport:
        """What is known so far."""
        return ContractReport(
            contract=self.contract.name,
            findings=tuple(sorted(self._findings, key=_place)),
            suppressed={
                rule: n - _FINDINGS_A_RULE for rule, n in self._found.items() if n > _FINDINGS_A_RULE
            },
            complete=self._watch.end is not None and self._interrupted is None,
            interrupted=self._interrupted,
            timings=self._watch.timings(self._events),
            chunk_counts=self._judge.chunk_counts(),
            event_count=self._events,
            comment_count=self._comments,
            byte_count=self._bytes,
            state=self._state,
            service_error=self._refusal_code or self._judge.walk.service_error,
        )

    @property
    def _events(self) -> int:
        return self._judge.event_count

    @property
    def _bytes(self) -> int:
        return self._parser.received + self._unread

    @property
    def _state(self) -> str:
        walk = self._judge.walk
        return self.contract.grammar.states[walk.state] if self._is_stream else "the response is no stream"

    def _take_pieces(self, data: bytes) -> tuple[int, int]:
        pieces = [self._take(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)]
        return next((offset for offset, count in pieces if count), 0), sum(count for _, count in pieces)

    def _take(self, data: bytes) -> tuple[int, int]:
        """Judge what is in the data: where its first message event begins, and how many there are."""
        first, count = 0, 0
        for item in self._parser.receive_runs(data):
            if isinstance(item, Run):
                first = first if count else item.byte_offset
                count += len(item.payloads)
                deviations = self._judge.take(item.payloads)
                if deviations or item.event != "message":
                    self._note_run(item, deviations)
            elif isinstance(item, MessageEvent):
                first = first if count else item.byte_offset
                count += 1
                one = self._judge.take_one(item.data)
                if one or item.event != "message":
                    run = Run([item.data], item.byte_offset, 0, item.event, item.last_event_id)
                    self._note_run(run, [(0, each) for each in one])
            elif isinstance(item, Comment):
                self._comments += 1
            elif isinstance(item, Oversized):
                limit = f"at most {self.contract.limits.max_event_bytes} bytes of data"
                self._add(Deviation("stream.oversized", limit, "an event with more"), offset=item.byte_offset)
                self._judge.walk.excuse()
        if self._parser.invalid_utf8_offset is not None:
            self._note_encoding()
        return first, count

    def _note_run(self, run: Run, deviations: Iterable[tuple[int, Deviation]]) -> None:
        begins = self._events - len(run.payloads)
        if run.event != "message" and "stream.event-type" not in self._found:
            self._add(
                Deviation("stream.event-type", "message", printable(run.event)), begins, run.byte_offset
            )
        for index, deviation in deviations:
            is_kept = self._found[deviation.rule] < _FINDINGS_A_RULE  # else nobody asks where it was
            self._add(deviation, begins + index, run.offset_of(index) if is_kept else None)

    def _take_end(self, events: Sequence[StreamEvent]) -> None:
        """The body ended: was the turn over?"""
        self._note_encoding()
        walk = self._judge.walk
        cut = next((event for event in events if isinstance(event, Truncated)), None)
        if cut is None:
            self._note(self._nothing_more(walk.end()), offset=self._bytes)
        elif walk.is_over:
            within = f"the end within {printable(cut.pending)}"
            self._add(Deviation("terminator.trailing", "nothing more", within), offset=cut.byte_offset)
        elif self._events == 0:
            self._add(Deviation("stream.empty", "events", self._instead), offset=self._bytes)
        else:
            within = f"the end within {printable(cut.pending)}"
            self._add(Deviation("stream.truncated", walk.expectation, within), offset=cut.byte_offset)

    def _nothing_more(self, deviations: Iterable[Deviation]) -> Iterator[Deviation]:
        """What is wrong with an end here; where no event came, what came instead."""
        for each in deviations:
            if each.rule != "stream.empty":
                yield each
            elif self._events == 0:
                yield Deviation(each.rule, each.expected, self._instead)
            elif not self._judge.has_unreadable:
                yield Deviation("stream.truncated", "the start", END)

    @property
    def _instead(self) -> str:
        return f"none, but {printable(self._beginning)}" if self._beginning else "an empty body"

    def _note_one(self, deviations: Sequence[Deviation], elapsed: float) -> Sequence[Finding]:
        """Say what is wrong with an event that came by itself, or with when it came."""
        before, index, offset = len(self._findings), self._events - 1, self._parser.last_offset
        self._note(deviations, index, offset)
        if not self._watch.came_calmly(elapsed):
            self._note(self._watch.events_came(elapsed), index, offset)
        self._note_encoding()
        return self._findings[before:]

    def _note_encoding(self) -> None:
        bad = self._parser.invalid_utf8_offset
        if bad is not None and "stream.invalid-utf8" not in self._found:
            self._add(Deviation("stream.invalid-utf8", "UTF-8", "other bytes"), offset=bad)

    def _note_refusal(self) -> None:
        """A status that is none of a stream's: its body says why."""
        if self._refusal is not None and self._head is not None:
            self._refusal_code, said = error_in(self._head, self._beginning)
            actual = f"{self._refusal.actual} {said}".strip()
            self._add(Deviation(self._refusal.rule, self._refusal.expected, actual))
            self._refusal = None

    def _note(
        self, deviations: Iterable[Deviation], index: int | None = None, offset: int | None = None
    ) -> None:
        for deviation in deviations:
            self._add(deviation, index, offset)

    def _add(
        self,
        deviation: Deviation,
        index: int | None = None,
        offset: int | None = None,
        *,
        severity: Severity | None = None,
    ) -> None:
        """Make a finding of it; of one rule only so many are kept."""
        rule = deviation.rule
        self._found[rule] += 1
        if self._found[rule] > _FINDINGS_A_RULE:
            return
        if severity is None:
            severity = Severity.WARNING if deviation.is_unseen else self.contract.severity(rule)
        self._findings.append(
            Finding(
                rule=rule,
                severity=severity,
                message=f"expected {deviation.expected}, came {deviation.actual}",
                event_index=index,
                byte_offset=offset,
                expected=deviation.expected,
                actual=deviation.actual,
            )
        )


def _place(finding: Finding) -> tuple[int, int, str]:
    """Findings are told in the order of the stream, however its bytes were cut."""
    return (
        -1 if finding.byte_offset is None else finding.byte_offset,
        -1 if finding.event_index is None else finding.event_index,
        finding.rule if finding.event_index is None else "",
    )
