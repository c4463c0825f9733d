"""The writes of a run with their outcomes: a write that is sent again and again with the same outcome is one row."""

from collections.abc import Iterable, Sequence
from itertools import groupby

import attrs

from cutover.model import step_ids
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import describe_shares, shares
from cutover.model.train_events import (
    TRAFFIC,
    Answered,
    RouteIntended,
    RoutesRead,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
)
from cutover.report.page.scale import Scale, seconds_of, since


@attrs.frozen(kw_only=True)
class Write:
    """One write of the split or of an override, or several equal ones that follow one another."""

    places: tuple[int, ...]
    """The place of each on the axis."""
    at: str
    """Time of day of the first, in UTC."""
    until: str
    """Time of day of the last; empty for one write."""
    since: str
    """Time since the start of the run."""
    is_route: bool
    is_way_back: bool
    """True for a write of the drill's rollback or of the undo."""
    wanted: str
    outcome: str


@attrs.frozen(kw_only=True)
class _Sent:
    key: str
    at: str
    wanted: str
    is_way_back: bool
    answer: str = "no answer recorded"
    as_asked: bool | None = None
    """Result of the next read; None if nobody read it."""

    @property
    def alike(self) -> tuple[object, ...]:
        return self.key, self.wanted, self.is_way_back, self.answer, self.as_asked


def writes_of(events: Sequence[TrainEvent], summary: CutoverSummary, scale: Scale) -> list[Write]:
    """Return the writes in the order in which they were sent."""
    canary = str(summary.facts.get("canary_revision"))
    rows = [tuple(row) for _, row in groupby(_sent(events, canary), key=lambda sent: sent.alike)]
    return [_write(row, rows[number + 1 :], scale) for number, row in enumerate(rows)]


def refused_ways_back(events: Sequence[TrainEvent], summary: CutoverSummary, *, of_traffic: bool) -> int:
    """Return how many writes that lead back production refused: of the split, or of the overrides."""
    sent = _sent(events, str(summary.facts.get("canary_revision")))
    ways_back = (write for write in sent if write.is_way_back and (write.key == TRAFFIC) is of_traffic)
    return sum(write.answer.startswith("refused") for write in ways_back)


def _sent(events: Iterable[TrainEvent], canary: str) -> list[_Sent]:
    """Return each write. An answer belongs to the last write of its key; the read after it says if it is as asked."""
    sent: list[_Sent] = []
    last: dict[str, int] = {}
    share = 0
    for event in events:
        match event:
            case TrafficIntended():
                last[TRAFFIC] = len(sent)
                before, share = share, shares(event.wanted, latest=event.captured.latest_ready).get(canary, 0)
                first = not any(write.key == TRAFFIC for write in sent)
                back = event.step_id == step_ids.UNDO or share < before
                back |= not first and event.captured.splits_as(event.wanted)
                words = describe_shares(shares(event.wanted, latest=event.captured.latest_ready))
                sent.append(_Sent(key=TRAFFIC, at=event.at, wanted=words, is_way_back=back))
            case RouteIntended():
                last[event.key] = len(sent)
                words = f"{event.key} = {event.wanted or 'clear'}"
                back = event.step_id == step_ids.UNDO
                if not back and event.wanted == dict(event.captured.overrides).get(event.key):
                    words += " (as it was)"
                sent.append(_Sent(key=event.key, at=event.at, wanted=words, is_way_back=back))
            case Answered() if event.key in last:
                detail = f" ({event.detail})" if event.detail else ""
                place = last[event.key]
                sent[place] = attrs.evolve(sent[place], answer=f"{event.outcome}{detail}")
            case TrafficRead() if TRAFFIC in last:
                place = last.pop(TRAFFIC)
                sent[place] = attrs.evolve(sent[place], as_asked=event.proven)
            case RoutesRead():
                for key in [key for key in last if key != TRAFFIC]:
                    place = last.pop(key)
                    sent[place] = attrs.evolve(sent[place], as_asked=event.proven)
            case _:
                pass
    return sent


def _write(row: Sequence[_Sent], later: Iterable[Sequence[_Sent]], scale: Scale) -> Write:
    first, last = row[0], row[-1]
    moments = [scale.start if (moment := seconds_of(sent.at)) is None else moment for sent in row]
    again = next(
        (each[0] for each in later if (each[0].key, each[0].wanted) == (first.key, first.wanted)), None
    )
    read = {None: "", True: ", read back as asked", False: ", NOT as asked when it was read back"}[
        first.as_asked
    ]
    if first.as_asked is False and again is not None:
        read = f", not yet as asked when it was read back; sent again at {again.at[11:19]}"
    return Write(
        places=tuple(scale.x(moment) for moment in moments),
        at=first.at[11:23],
        until=last.at[11:23] if len(row) > 1 else "",
        since=since(round(moments[0] - scale.start, 3)),
        is_route=first.key != TRAFFIC,
        is_way_back=first.is_way_back,
        wanted=first.wanted,
        outcome=f"{first.answer}{read}",
    )
