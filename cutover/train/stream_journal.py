"""The streams of a run in its journal, so that a report can show each of them, also after a kill.

Each line of the journal costs an fsync, and a soak may send thousands of streams. So

- good streams are recorded ``BATCH`` at a time, and a stream that is not good at once, with those before it;
- of each change at most ``MOST_STREAMS`` streams are recorded, of which ``MOST_IN_FULL`` with findings and with many times; the others
  are counted.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta

import attrs

from cutover.checking.event_times import MOST_TIMES, spread
from cutover.checking.excerpt import Excerpt
from cutover.checking.probe import Probe
from cutover.http.statuses import TOKEN_REFUSED
from cutover.model.seen_stream import QuotedFinding, SeenStream
from cutover.model.train_events import StreamsSeen
from cutover.production.lane_prober import LaneProber
from cutover.record.journal import Journal
from cutover.text import printable, timestamp

BATCH = 32
"""Number of streams after which they are recorded."""
MOST_STREAMS = 100
"""Largest number of streams of one change that are recorded. Of the streams that are not good, as many more are."""
MOST_IN_FULL = 20
"""Largest number of streams of one change that are recorded with their findings and up to ``MOST_TIMES`` times."""
_FEW_TIMES = 16
"""Largest number of times of any other stream."""
_LONGEST = 400
_SENTINEL = "sentinel"
_WAYS_BACK = frozenset({"undo", "recover"})


@attrs.define(eq=False)
class StreamJournal:
    """The recorder of the streams of one run. ``take`` is called for each stream at its end."""

    journal: Journal
    front_door: str
    """The address of the front door, BASE_URL."""
    _waiting: list[SeenStream] = attrs.field(factory=list, init=False)
    _recorded: Counter[tuple[str, bool]] = attrs.field(factory=Counter, init=False)
    """(change, True for a good stream) -> number of recorded streams."""
    _in_full: Counter[str] = attrs.field(factory=Counter, init=False)
    _left_out: Counter[str] = attrs.field(factory=Counter, init=False)

    def take(self, prober: LaneProber, label: str, alias: str, probe: Probe, seconds: float) -> None:
        """Take one stream that has ended.

        Args:
            prober: Its prober.
            label: The label of its request, without the alias: ``drill.traffic-25...``, ``sentinel.traffic-25.held-0``, ``stream-smoke-pre``.
            alias: The name of its alias.
            probe: The stream.
            seconds: Seconds since the request began.
        """
        change, kind = _role(label)
        good = probe.ok and not probe.excerpts
        if self._recorded[change, good] == MOST_STREAMS:
            self._left_out[change] += 1
            return
        self._recorded[change, good] += 1
        in_full = not good and self._in_full[change] < MOST_IN_FULL
        self._in_full[change] += in_full
        self._waiting.append(
            SeenStream(
                change=change,
                kind=kind,
                alias=alias,
                place="" if prober.base_url == self.front_door else printable(prober.base_url),
                thread="" if probe.ok else probe.thread_id,
                revision=prober.revision(probe),
                status=probe.status,
                began=timestamp(datetime.now(UTC) - timedelta(seconds=seconds)),
                held=_milliseconds(max(0.0, seconds - probe.elapsed)) if kind == "held" else 0.0,
                ended=_milliseconds(probe.elapsed),
                count=probe.report.event_count,
                times=tuple(
                    map(_milliseconds, spread(probe.event_times, MOST_TIMES if in_full else _FEW_TIMES))
                ),
                ok=probe.ok,
                reason="" if probe.ok else printable(prober.secrets.mask_text(probe.describe()), _LONGEST),
                findings=tuple(map(_quoted, probe.excerpts)) if in_full else (),
            )
        )
        if not probe.ok or len(self._waiting) == BATCH:
            self.flush()

    def take_unless_refused(
        self, prober: LaneProber, label: str, alias: str, probe: Probe, seconds: float
    ) -> None:
        """Take one stream of a recovery, which needs no AUTH_TOKEN: a refusal of the token says nothing about a stream."""
        if probe.status not in TOKEN_REFUSED:
            self.take(prober, label, alias, probe, seconds)

    def flush(self) -> None:
        """Record the streams that wait; do nothing if there are none."""
        waiting, self._waiting = self._waiting, []
        left_out, self._left_out = self._left_out, Counter()
        if waiting or left_out:
            self.journal.record(StreamsSeen(streams=tuple(waiting), left_out=tuple(sorted(left_out.items()))))


def _role(label: str) -> tuple[str, str]:
    """Return the change and the kind of the stream with this label."""
    first, *rest = label.split(".")
    if first == _SENTINEL and len(rest) > 1:
        return rest[0], rest[1].partition("-")[0]
    if first in _WAYS_BACK:
        # The rest of the label names the part, and the streams are those of the whole way back.
        return first, "probe"
    return (rest[0] if rest else first), "probe"


def _quoted(excerpt: Excerpt) -> QuotedFinding:
    finding = excerpt.finding
    return QuotedFinding(
        rule=finding.rule,
        severity=finding.severity.value,
        message=printable(finding.message, _LONGEST),
        event_index=finding.event_index,
        byte_offset=finding.byte_offset,
        before=excerpt.before,
        after=excerpt.after,
    )


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
