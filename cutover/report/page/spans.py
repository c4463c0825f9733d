"""The recorded streams of a run, their times, and the times of the change that they were in flight for."""

from collections.abc import Iterable, Sequence

from cutover.model.seen_stream import SeenStream
from cutover.model.train_events import (
    RouteIntended,
    RoutesRead,
    StreamsSeen,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    UndoStarted,
)
from cutover.report.page.scale import seconds_of

KINDS = {
    "held": "held request",
    "response": "held response",
    "paced": "sentinel after the change",
    "probe": "probe",
}
"""The kinds of recorded streams, in words."""


def streams_of(events: Iterable[TrainEvent]) -> list[SeenStream]:
    """Return the recorded streams, in the order of their ends."""
    return [stream for event in events if isinstance(event, StreamsSeen) for stream in event.streams]


def span_of(stream: SeenStream) -> tuple[float, float, float]:
    """Return the times at which a stream began, was released and ended."""
    began = seconds_of(stream.began) or 0.0
    released = began + stream.held / 1000
    return began, released, released + stream.ended / 1000


def writes_of_change(change: str, events: Sequence[TrainEvent]) -> list[float]:
    """Return the times of a change's first write and of the read-back that proved it, else of its last one; empty if it wrote nothing.

    A sentinel of the change is in flight at its write, so the first write after a stream of it began, and before its last one ended, is it.
    """
    streams = [
        stream
        for stream in streams_of(events)
        if stream.change == change and stream.kind in {"held", "response"}
    ]
    if not streams:
        return []
    first = min(span_of(stream)[0] for stream in streams)
    last = max(span_of(stream)[2] for stream in streams)
    moments: list[float] = []
    asked: object = None
    for event in events:
        moment = seconds_of(event.at)
        if moment is None or moment < first:
            continue
        match event:
            case UndoStarted():
                break
            case TrafficIntended() if moments and event.wanted != asked:
                # The next change: the way back, or another share.
                break
            case TrafficIntended() | RouteIntended() if moments or moment <= last + 1:
                asked = event.wanted if isinstance(event, TrafficIntended) else None
                moments.append(moment)
            case TrafficRead() | RoutesRead() if moments:
                moments[1:] = [moment]
                if event.proven:
                    break
            case _:
                pass
    return moments
