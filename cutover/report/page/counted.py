"""The two counts of the page in words: the checks of the run, and the streams that the journal keeps."""

from collections.abc import Sequence

from cutover.model.summary import CutoverSummary
from cutover.model.train_events import StreamsSeen, TrainEvent
from cutover.report.page.spans import streams_of


def counted(events: Sequence[TrainEvent], summary: CutoverSummary) -> str:
    """Return what the checks and the recorded streams of this run are, with their numbers."""
    checks = [check for step in summary.steps for check in step.checks]
    streams = streams_of(events)
    left_out = sum(count for event in events if isinstance(event, StreamsSeen) for _, count in event.left_out)
    failed = sum(check.status.failed for check in checks)
    broken = sum(not stream.ok for stream in streams)
    only_counted = f", and {left_out} more of which it keeps only the number" if left_out else ""
    return (
        f"Streams and checks are counted apart. A recorded stream is one stream that this run started itself, and whose course the journal keeps: "
        f"{len(streams)}{only_counted}; {broken} of them broke. A check is one named result of a step: {len(checks)}; {failed} of them failed. "
        "One check may look at many streams, or at none, so the two numbers differ."
    )
