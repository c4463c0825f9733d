"""The time for which users had the canary, or the flipped routes, by the times of the journal alone.

A time in which a write was under way counts with the larger share, because nobody knows when the write took effect. So each figure is the
longest time that the journal allows.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import attrs

from cutover.model import step_ids
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import shares
from cutover.model.train_events import (
    NOT_SENT,
    TRAFFIC,
    Answered,
    RouteIntended,
    RoutesRead,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    UndoFinished,
)
from cutover.model.undo_plan import UndoPlan
from cutover.report.page.scale import seconds_of, since
from cutover.report.page.spans import streams_of


@attrs.frozen(kw_only=True)
class _Level:
    """The share of the canary from one time on."""

    at: str
    share: int


def had_by_users(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> tuple[str, ...]:
    """Return how long users had the canary, and how long the flipped routes, in sentences."""
    return (*_canary(events, summary, plan), *_routes(events, summary, plan))


def _canary(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> Iterator[str]:
    levels = _levels(events, str(summary.facts.get("canary_revision")))
    had = [level for level in levels if level.share]
    if not had:
        yield "No user was sent to the canary."
        return
    last = levels[-1]
    is_over = not last.share and plan.traffic is None
    ends = [*levels, _Level(at=events[-1].at, share=0)]
    seconds: dict[int, float] = {}
    for level, later in pairwise(ends):
        if level.share:
            seconds[level.share] = seconds.get(level.share, 0.0) + _between(level.at, later.at)
    # The sum is that of the figures that are shown.
    seconds = {share: round(took, 1) for share, took in seconds.items()}
    parts = ", ".join(f"{share} % for {_seconds(took)}" for share, took in seconds.items())
    first = f"At most, the canary had {parts} of the traffic of all users: {_seconds(sum(seconds.values()))} in all"
    start = f"from {_clock(had[0].at)}, when the first write was sent"
    if is_over:
        yield f"{first}, {start}, until {_clock(last.at)}, when the split was read back without it."
    elif summary.passed:
        yield f"{first} until the verdict, {start}. It keeps {last.share} %."
    else:
        yield f"{first}, {start}, until the journal ends at {_clock(events[-1].at)}. {_open_end(plan.traffic)}"
    if is_over and (stray := _last_answer(events, summary, after=last.at)):
        yield f"But the front door still sent a stream of this run to the canary after that, at {_clock(stray)}."


def _levels(events: Sequence[TrainEvent], canary: str) -> list[_Level]:
    """Return the share of the canary over time, each change of it once. A write that was certainly refused changes nothing."""
    levels: list[_Level] = []
    before = 0
    for event in events:
        now = levels[-1].share if levels else 0
        match event:
            case TrafficIntended():
                before = len(levels)
                now = max(now, shares(event.wanted, latest=event.captured.latest_ready).get(canary, 0))
            case Answered() if event.key == TRAFFIC and event.outcome in {"refused", NOT_SENT}:
                del levels[before:]
                continue
            case TrafficRead():
                now = event.found.served().get(canary, 0)
            case _:
                continue
        if now != (levels[-1].share if levels else 0):
            levels.append(_Level(at=event.at, share=now))
    return levels


def _last_answer(events: Sequence[TrainEvent], summary: CutoverSummary, *, after: str) -> str:
    """Return the beginning of the last stream that was sent to the front door after a time and that the canary answered; empty if there is none."""
    canary = summary.facts.get("canary_revision")
    found = [
        stream.began
        for stream in streams_of(events)
        if stream.revision == canary and not stream.place and stream.began > after
    ]
    return max(found, default="")


def _routes(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> Iterator[str]:
    forward = _flipped(events)
    if not forward:
        return
    keys = ", ".join(dict.fromkeys(event.key for event in forward))
    targets = " and ".join(dict.fromkeys(event.wanted or "clear" for event in forward))
    start = f"from {_clock(forward[0].at)}, when the first write was sent"
    back = _routes_were_back(events)
    if summary.passed and not back:
        yield f"Users of the flipped routes ({keys}) have {targets} {start}; that stays."
        return
    is_over = bool(back) and plan.routes is None
    end = back if is_over else events[-1].at
    took = _seconds(_between(forward[0].at, end))
    first = f"Users of the flipped routes ({keys}) had {targets} for {took} at most, {start}"
    if is_over:
        yield f"{first}, until {_clock(end)}, when all of them were proven to be as before the run."
    else:
        yield f"{first}, until the journal ends at {_clock(end)}. {_open_end(plan.routes)}"


def _open_end(still_open: object) -> str:
    return (
        "An operator accepted that state."
        if still_open is None
        else "It may have gone on after that: nothing proves that it was taken back."
    )


def _flipped(events: Sequence[TrainEvent]) -> list[RouteIntended]:
    """Return the writes that gave a route another value than the captured one and that were not certainly refused."""
    found: dict[int, RouteIntended] = {}
    last: dict[str, int] = {}
    for number, event in enumerate(events):
        match event:
            case RouteIntended():
                last[event.key] = number
                if event.step_id != step_ids.UNDO and event.wanted != _captured(event):
                    found[number] = event
            case Answered() if event.key in last and event.outcome in {"refused", NOT_SENT}:
                found.pop(last[event.key], None)
            case _:
                pass
    return list(found.values())


def _captured(event: RouteIntended) -> str | None:
    return dict(event.captured.overrides).get(event.key)


def _routes_were_back(events: Sequence[TrainEvent]) -> str:
    """Return the time at which the overrides were proven to be as captured, by a read after the way back or by its end; else an empty text."""
    back, is_way_back = "", False
    for event in events:
        match event:
            case RouteIntended():
                back, is_way_back = "", event.step_id == step_ids.UNDO
            case RoutesRead() if event.proven and is_way_back:
                back = event.at
            case UndoFinished() if event.proven and not back:
                # An override that was back by itself is not written.
                back = event.at
            case _:
                pass
    return back


def _between(begun: str, ended: str) -> float:
    one, other = seconds_of(begun), seconds_of(ended)
    return 0.0 if one is None or other is None else max(0.0, round(other - one, 3))


def _seconds(took: float) -> str:
    """Return a duration in seconds; from two minutes on also in minutes."""
    words = f"{took:.1f} s"
    return words if took < 120 else f"{words} ({since(took)})"  # noqa: PLR2004  two minutes


def _clock(at: str) -> str:
    return f"{at[11:21]} UTC" if len(at) > 20 else at  # noqa: PLR2004  2026-11-28T12:00:00.000Z
