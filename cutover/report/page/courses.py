"""The streams of a run, change by change: each sentinel as a line across the change, each probe as a waterfall of its events."""

from collections import Counter
from collections.abc import Iterable, Sequence

import attrs

from cutover.model.seen_stream import SeenStream
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    RouteIntended,
    StreamsSeen,
    TrainEvent,
    changes,
)
from cutover.report.page.scale import Scale, since
from cutover.report.page.spans import KINDS, span_of, streams_of, writes_of_change
from cutover.report.page.to_do import was_moved_by_others
from cutover.report.page.what_broke import change_in_words

MOST_ROWS = 24
"""Largest number of rows of one table. Streams that are not good come before good ones where not all have a row."""
MOST_CHANGES = 24
"""Largest number of changes with tables of their own."""


@attrs.frozen(kw_only=True)
class Row:
    """One stream."""

    kind: str
    alias: str
    place: str
    revision: str
    status: str
    count: int
    first: str
    """Time to the first event."""
    took: str
    """Time to the end."""
    ok: bool
    reason: str
    thread: str
    line: str
    """The path of the line, from the beginning or the release to the end."""
    held: str
    """The path of the time in which the request was held; empty if it was not."""
    events: str
    """The path of the events."""
    end: float
    """Place of the end, in percent."""


@attrs.frozen(kw_only=True)
class Table:
    """The rows of one kind."""

    is_sentinels: bool
    rows: tuple[Row, ...]
    left_out: int
    """Number of further streams, which have no row."""
    length: str
    """The length of the axis."""
    change: tuple[float, float] | None
    """The time of the change's writes, from and to, in percent; None for probes, or without a write."""


@attrs.frozen(kw_only=True)
class Course:
    """The streams of one change."""

    change: str
    title: str
    count: int
    broken: int
    tables: tuple[Table, ...]
    not_recorded: int
    """Number of streams of which the journal keeps nothing but this number."""


def courses(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[Course, ...]:
    """Return the streams of each change, in the order of the changes."""
    canary = str(summary.facts.get("canary_revision", "the canary"))
    flipped = any(isinstance(event, RouteIntended) for event in changes(events))
    by_change: dict[str, list[SeenStream]] = {}
    for stream in streams_of(events):
        by_change.setdefault(stream.change, []).append(stream)
    left_out = Counter[str]()
    for event in events:
        if isinstance(event, StreamsSeen):
            for change, count in event.left_out:
                left_out[change] += count
    rollback = _title_of_the_rollback(events, summary)
    shown = dict(list(by_change.items())[:MOST_CHANGES])
    return tuple(
        Course(
            change=change,
            title=rollback
            if change == "rollback"
            else change_in_words(change, canary=canary, flipped=flipped).removesuffix(","),
            count=len(streams) + left_out[change],
            broken=sum(not stream.ok for stream in streams),
            tables=tuple(_tables(streams, writes_of_change(change, events))),
            not_recorded=left_out[change],
        )
        for change, streams in shown.items()
    )


def _title_of_the_rollback(events: Sequence[TrainEvent], summary: CutoverSummary) -> str:
    if was_moved_by_others(events):
        return "After somebody else had moved the traffic"
    failed = any(
        check.check_id == "rollback" and check.status.failed
        for step in summary.steps
        for check in step.checks
    )
    return "While the rollback to stable was tried" if failed else "The rollback to stable"


def _tables(streams: Sequence[SeenStream], writes: Sequence[float]) -> Iterable[Table]:
    sentinels = [stream for stream in streams if stream.kind != "probe"]
    probes = [stream for stream in streams if stream.kind == "probe"]
    if sentinels:
        spans = [span_of(stream) for stream in sentinels]
        scale = Scale.over([moment for span in spans for moment in (span[0], span[2])] + list(writes))
        shown = _shown(sentinels)
        band = (_percent(scale, writes[0]), _percent(scale, writes[-1])) if writes else None
        yield Table(
            is_sentinels=True,
            rows=tuple(_row(stream, scale, *span_of(stream)) for stream in shown),
            left_out=len(sentinels) - len(shown),
            length=since(scale.end - scale.start),
            change=band,
        )
    if probes:
        scale = Scale(start=0.0, end=max(0.001, *(stream.ended / 1000 for stream in probes)))
        shown = _shown(probes)
        yield Table(
            is_sentinels=False,
            rows=tuple(_row(stream, scale, 0.0, 0.0, stream.ended / 1000) for stream in shown),
            left_out=len(probes) - len(shown),
            length=since(scale.end - scale.start),
            change=None,
        )


def _shown(streams: Sequence[SeenStream]) -> list[SeenStream]:
    """Return the streams that have a row, in their order: all if there is room, else those that are not good first."""
    if len(streams) <= MOST_ROWS:
        return sorted(streams, key=lambda stream: stream.began)
    ranked = sorted(streams, key=lambda stream: stream.ok)
    return sorted(ranked[:MOST_ROWS], key=lambda stream: stream.began)


def _row(stream: SeenStream, scale: Scale, began: float, released: float, ended: float) -> Row:
    ticks = dict.fromkeys(scale.x(released + time / 1000) for time in stream.times)
    return Row(
        kind=KINDS.get(stream.kind, stream.kind),
        alias=stream.alias,
        place=stream.place,
        revision=stream.revision or "",
        status=str(stream.status or "none"),
        count=stream.count,
        first=since(stream.times[0] / 1000) if stream.times else "",
        took=since(stream.ended / 1000),
        ok=stream.ok,
        reason=stream.reason,
        thread=stream.thread,
        line=f"M{scale.x(released)} 8H{max(scale.x(ended), scale.x(released) + 2)}",
        held=f"M{scale.x(began)} 8H{scale.x(released)}" if stream.held else "",
        events="".join(f"M{x} 3v10" for x in ticks),
        end=_percent(scale, ended),
    )


def _percent(scale: Scale, moment: float) -> float:
    return round(scale.x(moment) / 10, 1)
