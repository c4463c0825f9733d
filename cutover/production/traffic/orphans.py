"""What a killed train may have left running: a gcloud that still moves traffic after its parent has died."""

import os
from collections.abc import Iterable
from contextlib import suppress

from cutover.model.train_events import CommandStarted, TrainEvent
from cutover.production.traffic.processes import GRACE_SECONDS, arguments, end_group, identity, members


async def end_orphans(events: Iterable[TrainEvent], *, grace: float = GRACE_SECONDS) -> str:
    """End what still runs of the commands that these events tell of.

    A process is ended only if it is beyond doubt the one that the journal names.

    Returns:
        Why one could not be ended; empty where nothing is left.
    """
    for event in events:
        if isinstance(event, CommandStarted) and _runs(event) and not await end_group(event.pid, grace=grace):
            return (
                f"process {event.pid} of the interrupted run still runs `{' '.join(event.argv[:4])}` and could not be "
                "ended: end it, then recover again"
            )
    return ""


def _runs(event: CommandStarted) -> bool:
    """Return whether the command's process runs, or what it started, in the group that was made for it."""
    with suppress(ProcessLookupError):
        if event.identity and identity(event.pid) == event.identity:
            return os.getpgid(event.pid) == event.pid
    return any(arguments(pid)[-len(event.argv) + 1 :] == event.argv[1:] for pid in members(event.pid))
