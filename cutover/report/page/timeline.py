"""The timeline of a run: the split as a stepped area, the writes, the steps and the undo on one axis."""

from collections.abc import Sequence

import attrs

from cutover.model import step_ids
from cutover.model.results import StepStatus
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import describe_shares
from cutover.model.train_events import (
    StepFinished,
    StepStarted,
    TrafficIntended,
    TrainEvent,
    UndoFinished,
    UndoStarted,
)
from cutover.report.page.production_state import split_points
from cutover.report.page.scale import Scale, seconds_of, since
from cutover.report.page.writes import Write, writes_of

_ALL = 100
_LABEL = 60
"""Smallest width of a part of the split that has its percentage written in it."""
_MOST_WRITES = 60


@attrs.frozen(kw_only=True)
class SplitPart:
    """A time in which the split stayed the same."""

    x: int
    width: int
    canary: int
    """The canary's share in percent."""
    others: int
    """The share of revisions that are neither stable nor the canary."""
    label: str
    """The canary's share, where there is room for it."""
    proven: bool
    is_unsure: bool
    """True if somebody else ended it, at a time within it that nobody knows."""
    words: str
    at: str


@attrs.frozen(kw_only=True)
class Span:
    """A step, or the undo, from its start to its end."""

    name: str
    x: int
    width: int
    status: str
    took: str
    is_undo: bool = False


@attrs.frozen(kw_only=True)
class Timeline:
    """Everything that is drawn on the axis of the run."""

    started: str
    marks: tuple[tuple[float, str], ...]
    split: tuple[SplitPart, ...]
    writes: tuple[Write, ...]
    more_writes: int
    """Number of writes that are not shown."""
    spans: tuple[Span, ...]
    length: str


def timeline(events: Sequence[TrainEvent], summary: CutoverSummary) -> Timeline:
    """Return the timeline of a run."""
    moments = [moment for event in events if (moment := seconds_of(event.at)) is not None]
    scale = Scale.over(moments)
    writes = writes_of(events, summary, scale)
    return Timeline(
        started=events[0].at if events else "",
        marks=scale.marks(),
        split=_split(events, summary, scale),
        writes=tuple(writes[:_MOST_WRITES]),
        more_writes=max(0, len(writes) - _MOST_WRITES),
        spans=_spans(events, summary, scale),
        length=since(scale.end - scale.start),
    )


def _split(events: Sequence[TrainEvent], summary: CutoverSummary, scale: Scale) -> tuple[SplitPart, ...]:
    stable, canary = (str(summary.facts.get(f"{role}_revision")) for role in ("stable", "canary"))
    points = split_points(events)
    asked = [event.at for event in events if isinstance(event, TrafficIntended)]
    ends = [at for at, _, _ in points[1:]]
    edges = [scale.x(seconds_of(at) or scale.start) for at, _, _ in points] + [scale.x(scale.end)]
    parts = []
    for number, ((at, state, proven), x, end) in enumerate(zip(points, edges, edges[1:], strict=False)):
        served = state.served()
        share = served.get(canary, 0)
        parts.append(
            SplitPart(
                x=x,
                width=max(0, end - x),
                canary=share,
                others=max(0, _ALL - share - served.get(stable, 0)),
                # The last part has room to its left.
                label=f"{share} %" if end - x >= _LABEL or number == len(points) - 1 else "",
                proven=proven,
                is_unsure=number < len(ends) and not any(at < each <= ends[number] for each in asked),
                words=describe_shares(served),
                at=at[11:19],
            )
        )
    return tuple(parts)


def _spans(events: Sequence[TrainEvent], summary: CutoverSummary, scale: Scale) -> tuple[Span, ...]:
    begun: dict[str, float] = {}
    spans: dict[str, Span] = {}
    undo: float | None = None
    for event in events:
        moment = seconds_of(event.at)
        moment = scale.start if moment is None else moment
        match event:
            case StepStarted():
                begun[event.step_id] = moment
                spans[event.step_id] = _span(event.step_id, moment, scale.end, scale, status="cut off")
            case StepFinished() if event.result.step_id in begun:
                name = event.result.step_id
                spans[name] = _span(name, begun[name], moment, scale, status=event.result.status.value)
            case StepFinished():
                name, status = event.result.step_id, event.result.status
                left_out = "left out" if event.result.by_configuration else "not run"
                spans[name] = Span(
                    name=name,
                    x=0,
                    width=0,
                    took="",
                    status=left_out if status is StepStatus.SKIP else status.value,
                )
            case UndoStarted():
                undo = moment
                spans[step_ids.UNDO] = attrs.evolve(
                    _span(step_ids.UNDO, moment, scale.end, scale, status="cut off"), is_undo=True
                )
            case UndoFinished():
                begun_undo = moment if undo is None else undo
                proven = "proven" if event.proven else "NOT PROVEN"
                spans[step_ids.UNDO] = attrs.evolve(
                    _span(step_ids.UNDO, begun_undo, moment, scale, status=proven), is_undo=True
                )
            case _:
                pass
    del summary
    return tuple(spans.values())


def _span(name: str, begun: float, ended: float, scale: Scale, *, status: str) -> Span:
    x = scale.x(begun)
    took = since(round(ended - begun, 3))
    return Span(name=name, x=x, width=max(0, scale.x(ended) - x), status=status, took=took)
