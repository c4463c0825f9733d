"""The findings of a run with the bytes around them: the same finding of many streams is shown once."""

from collections.abc import Sequence

import attrs

from cutover.contract.rules import RULES
from cutover.model.seen_stream import QuotedFinding, SeenStream
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import TrainEvent
from cutover.report.page.spans import streams_of
from cutover.report.page.what_broke import describe_stream

MOST_QUOTES = 20
"""Largest number of findings on the page."""


@attrs.frozen(kw_only=True)
class Quote:
    """One finding, as the first stream shows it."""

    rule: str
    severity: str
    message: str
    why: str
    """The effect on a user; empty if nobody knows the rule."""
    where: str
    """The stream in words; for a finding without a recorded stream, its step and check."""
    change: str
    place: str
    """The event and the byte, in words."""
    before: tuple[str, ...]
    after: tuple[str, ...]
    has_bytes: bool
    has_place: bool
    """False if the bytes are the first ones of the body."""
    streams: int
    """Number of recorded streams with this finding."""


def quotes(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[tuple[Quote, ...], int]:
    """Return the findings, violations first, and the number of those that are left out."""
    found: dict[tuple[str, str], tuple[QuotedFinding, SeenStream, int]] = {}
    for stream in streams_of(events):
        for finding in stream.findings:
            key = (finding.rule, finding.message)
            first, by, count = found.get(key, (finding, stream, 0))
            found[key] = (first, by, count + 1)
    shown = [
        _quote(finding, where=describe_stream(stream), change=stream.change, streams=count)
        for finding, stream, count in found.values()
    ]
    shown += _without_stream(summary, set(found))
    shown.sort(key=lambda quote: quote.severity != "violation")
    return tuple(shown[:MOST_QUOTES]), max(0, len(shown) - MOST_QUOTES)


def _without_stream(summary: CutoverSummary, known: set[tuple[str, str]]) -> list[Quote]:
    """Return the findings of checks that no recorded stream has, as those of an older journal."""
    quoted: dict[tuple[str, str], Quote] = {}
    for step in summary.steps:
        for check in step.checks:
            for finding in check.findings:
                key = (finding.rule, finding.message)
                if key in known or key in quoted:
                    continue
                bare = QuotedFinding(
                    rule=finding.rule,
                    severity=finding.severity.value,
                    message=finding.message,
                    event_index=finding.event_index,
                    byte_offset=finding.byte_offset,
                )
                quoted[key] = _quote(bare, where=check.check_id, change=step.step_id, streams=0)
    return list(quoted.values())


def _quote(finding: QuotedFinding, *, where: str, change: str, streams: int) -> Quote:
    rule = RULES.get(finding.rule)
    places = [
        *([f"event {finding.event_index}"] if finding.event_index is not None else []),
        *([f"byte {finding.byte_offset}"] if finding.byte_offset is not None else []),
    ]
    return Quote(
        rule=finding.rule,
        severity=finding.severity,
        message=finding.message,
        why="" if rule is None else rule.why,
        where=where,
        change=change,
        place=", ".join(places),
        before=_lines(finding.before),
        after=_lines(finding.after),
        has_bytes=streams > 0 and bool(finding.before or finding.after),
        has_place=finding.byte_offset is not None,
        streams=streams,
    )


def _lines(text: str) -> tuple[str, ...]:
    r"""Return an excerpt in lines: each event of the stream ends one. The escapes of the ends stay, for they are the bytes."""
    *whole, rest = text.split(r"\n\n")
    return tuple(line for line in (*(rf"{line}\n\n" for line in whole), rest) if line)
