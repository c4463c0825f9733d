"""The judgement of a join: a client has reconnected with `Last-Event-ID`, and nothing may be lost or doubled there.

A stream that was resumed is one stream in several bodies. `ContractChecker.receive_reconnect` lets the checker go on over
them, so that order, parts and counters are judged as one stream. This module judges what the checker does not see: ids.

The standard (WHATWG HTML 9.2.4) lets a service name each event. A client that reconnects sends the last name that it saw,
and the service goes on behind that event. A service owner expects three things of it:

- No event comes twice (`resume.replayed`). Known faults: the service ignores the header and begins again; it sends the last
  event once more; the events that it stored overlap with the new ones.
- No event is missing (`resume.lost`). A client cannot know that for ids without an order. Here it is known in two cases. If
  all ids before the join were consecutive numbers, with or without one text before the number (`17`, `evt-17`), a gap behind
  the join is a loss. And a drill knows events that it withheld: the service sent them before the cut, the drill acts as if
  they had not arrived, and so they must come again.
- The order stays (`resume.reordered`). It is known if all ids before the join were rising numbers.

Ids that repeat before the first join are shared by several events. Such ids cannot show that an event is doubled.
"""

import hashlib
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence

import attrs

from cutover.contract.definition import StreamContract
from cutover.contract.findings import Deviation, Finding
from cutover.contract.report import ContractReport
from cutover.sse.events import MessageEvent, Retry, StreamEvent
from cutover.text import escaped

MAX_DELAY = 5.0
"""Largest number of seconds that a reconnection waits because of the server's `retry`."""
_MAX_FINDINGS_OF_RULE = 16
"""Largest number of findings of one rule that are kept. More are only counted."""
_MAX_IDS = 65_536
"""Largest number of ids that are remembered, to recognise one that comes again. The oldest are forgotten first."""
_MAX_WITHHELD = 1_000
"""Largest number of withheld events that are expected again. The first ones count."""
_LONG_ID = 64
"""Characters above which a digest of an id is remembered, and not the id itself."""
_STEPS_TO_TRUST = 2
"""Steps between neighbouring ids that must have been alike before the numbers of ids count as evidence."""
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})", re.DOTALL)


@attrs.define(eq=False)
class _Numbering:
    """The numbers at the end of the ids, as far as they follow a rule."""

    steps: int = 0
    """Steps between neighbouring ids of one connection that have been seen before the first join."""
    is_rising: bool = True
    """True while each number is larger than the one before, and the text before it is the same."""
    is_consecutive: bool = True
    """True while each number is larger by one."""
    last: tuple[str, int] | None = None
    """Text and number of the id with the largest number so far; None before the first id."""

    def learn(self, event_id: str) -> None:
        """Take an id that came before the first join."""
        now, before = _numbered(event_id), self.last
        self.last = now
        if now is None or (before is not None and now[0] != before[0]):
            self.is_rising = self.is_consecutive = False
        elif before is not None:
            self.steps += 1
            self.is_rising &= now[1] > before[1]
            self.is_consecutive &= now[1] == before[1] + 1

    def judge(self, event_id: str) -> Iterator[Deviation]:
        """Take a new id that came after a join, and yield the rules that its number breaks."""
        now, before = _numbered(event_id), self.last
        if now is None or before is None or now[0] != before[0] or self.steps < _STEPS_TO_TRUST:
            # The ids follow another rule from here on, and nothing is known about it.
            self.is_rising = self.is_consecutive = False
            return
        if now[1] < before[1]:
            if self.is_rising:
                yield Deviation(
                    "resume.reordered",
                    f"an id behind {_shown(before)}",
                    f"the id {escaped(event_id)}",
                )
            return
        self.last = now
        if self.is_consecutive and now[1] > before[1] + 1:
            yield Deviation(
                "resume.lost",
                f"the id {_shown((before[0], before[1] + 1))} behind {_shown(before)}",
                f"the id {escaped(event_id)}",
            )


def _numbered(event_id: str) -> tuple[str, int] | None:
    """Return the text of an id and the number at its end; None without a number."""
    found = _NUMBERED.fullmatch(event_id)
    return None if found is None else (found[1], int(found[2]))


def _shown(numbered: tuple[str, int]) -> str:
    return f"{escaped(numbered[0])}{numbered[1]}"


@attrs.define(eq=False)
class JoinJudge:
    """The judge of the joins of one stream. It does no IO and has no clock.

    Call `take` for each event of every body, and `reconnect` when the next body is asked for. After the last body, call `end`.
    `merged_into` adds the findings to the checker's report. As long as nobody reconnects, there are no findings.
    """

    contract: StreamContract
    """The contract of the stream: it sets the severity of the rules."""
    last_id: str = attrs.field(default="", init=False)
    """The last event ID as a client sees it, for the header `Last-Event-ID`; empty without one."""
    retry: int | None = attrs.field(default=None, init=False)
    """The time before a reconnection that the server set last, in milliseconds; None without one."""
    reconnects: int = attrs.field(default=0, init=False)
    """The number of reconnections."""
    findings: list[Finding] = attrs.field(factory=list, init=False)
    """The findings about the joins, in the order in which they were found."""
    # Id of a rule -> the number of its findings, kept or not.
    _found: Counter[str] = attrs.field(factory=Counter, init=False)
    # The ids that came, or digests of them, oldest first. A dict keeps the order.
    _seen: dict[str, None] = attrs.field(factory=dict, init=False)
    # True if several events share an id: it came twice before the first join, or among withheld events.
    _are_shared: bool = attrs.field(default=False, init=False)
    # The ids of the withheld events that must still come again, in order.
    _withheld: deque[str] = attrs.field(factory=deque, init=False)
    # True while one event after the other comes again: that is one fault, and one finding.
    _is_replaying: bool = attrs.field(default=False, init=False)
    _numbering: _Numbering = attrs.field(factory=_Numbering, init=False)

    @property
    def delay(self) -> float:
        """Return the seconds to wait before a reconnection: the server's `retry`, at most `MAX_DELAY`; without one 0."""
        return min((self.retry or 0) / 1000, MAX_DELAY)

    def take(self, event: StreamEvent, *, index: int) -> None:
        """Take the next event of the stream.

        Args:
            event: The event. Only message events and `retry` lines matter. Its offset counts over all bodies.
            index: The number of message events before it, over all bodies.
        """
        if isinstance(event, Retry):
            self.retry = event.milliseconds
        if not isinstance(event, MessageEvent):
            return
        self.last_id = event.last_event_id
        if event.id and not self.reconnects:
            self._are_shared |= _key(event.id) in self._seen
            self._numbering.learn(event.id)
            self._remember(event.id)
        elif event.id:
            for deviation in self._judge(event.id):
                self._add(deviation, index, event.byte_offset)

    def reconnect(self, *, withheld: Sequence[str] = ()) -> None:
        """Note that the client asks for the events behind `last_id`.

        Args:
            withheld: The ids of later events that the service sent before, and that were not given to `take`. They must come
                again, first and in this order. Default: none.
        """
        self.reconnects += 1
        self._is_replaying = False
        expected_again = list(dict.fromkeys(each for each in withheld if _key(each) not in self._seen))
        self._are_shared |= len(expected_again) < len(withheld)
        self._withheld = deque(expected_again[:_MAX_WITHHELD])
        if not self.last_id:
            expected_id = "an event with an id before the reconnection"
            self._add(Deviation("resume.no-id", expected_id, "no id to resume from"))

    def end(self) -> None:
        """Note that the last body ended. Withheld events that have not come again are lost."""
        if self._withheld:
            self._add(self._lost("the end of the body"))
            self._withheld.clear()

    def merged_into(self, report: ContractReport) -> ContractReport:
        """Return the report with the findings about the joins, in the order of the stream."""
        known = {finding.rule for finding in report.findings}
        # A contract that wants an id on each event has said already that there is none.
        more_findings = [
            each for each in self.findings if each.rule != "resume.no-id" or each.rule not in known
        ]
        if not more_findings:
            return report
        findings = sorted((*more_findings, *report.findings), key=_offset)
        more = {rule: n - _MAX_FINDINGS_OF_RULE for rule, n in self._found.items()}
        suppressed = {rule: n for rule, n in more.items() if n > 0}
        return attrs.evolve(report, findings=tuple(findings), suppressed={**report.suppressed, **suppressed})

    def _judge(self, event_id: str) -> Iterator[Deviation]:
        """Take an id that came after a join, and yield the rules that it breaks."""
        if _key(event_id) in self._seen:
            if not self._are_shared and not self._is_replaying:
                self._is_replaying = True
                yield Deviation("resume.replayed", "only events that have not come before", _again(event_id))
            return
        self._is_replaying = False
        if event_id in self._withheld:
            if event_id != self._withheld[0]:
                yield self._lost(f"the id {escaped(event_id)}")
            while self._withheld.popleft() != event_id:
                pass
            # The loss is reported already: the numbers must not report it once more.
            self._numbering.last = _numbered(event_id)
        elif self._withheld:
            yield self._lost(f"the id {escaped(event_id)}")
            self._withheld.clear()
            self._numbering.last = _numbered(event_id)
        else:
            yield from self._numbering.judge(event_id)
        self._remember(event_id)

    def _lost(self, actual: str) -> Deviation:
        """Return the deviation of a withheld event that did not come again."""
        expected = f"the id {escaped(self._withheld[0])}, which the service had sent before the cut"
        return Deviation("resume.lost", expected, actual)

    def _remember(self, event_id: str) -> None:
        self._seen[_key(event_id)] = None
        if len(self._seen) > _MAX_IDS:
            del self._seen[next(iter(self._seen))]

    def _add(self, deviation: Deviation, index: int | None = None, offset: int | None = None) -> None:
        """Turn a deviation into a finding, unless enough findings of its rule are kept already."""
        rule = deviation.rule
        self._found[rule] += 1
        if self._found[rule] <= _MAX_FINDINGS_OF_RULE:
            self.findings.append(
                Finding(
                    rule=rule,
                    severity=self.contract.severity(rule),
                    message=f"expected {deviation.expected}, got {deviation.actual}",
                    event_index=index,
                    byte_offset=offset,
                    expected=deviation.expected,
                    actual=deviation.actual,
                )
            )


def _offset(finding: Finding) -> int:
    return -1 if finding.byte_offset is None else finding.byte_offset


def _key(event_id: str) -> str:
    """Return the text under which an id is remembered: the id, or the digest of a long one."""
    if len(event_id) <= _LONG_ID:
        return event_id
    return "long:" + hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def _again(event_id: str) -> str:
    return f"the id {escaped(event_id)} again"
