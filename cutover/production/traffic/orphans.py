"""Orphans: a gcloud that still moves traffic after its train was killed."""

import os
from collections.abc import Iterable
from contextlib import suppress

from cutover.model.train_events import CommandStarted, TrainEvent
from cutover.production.traffic.processes import GRACE_SECONDS, arguments, end_group, identity, members


async def end_orphans(events: Iterable[TrainEvent], *, grace: float = GRACE_SECONDS) -> str:
    """End the commands of these events that still run.

    A process is ended only if it is certainly the one that the journal names.

    Returns:
        The commands that could not be ended, and what to do; an empty text if no command is left. Each command is tried.
    """
    left = [
        f"process {event.pid} of the interrupted run still runs `{' '.join(event.argv[:4])}` and could not be ended"
        for event in events
        if isinstance(event, CommandStarted) and _runs(event) and not await end_group(event.pid, grace=grace)
    ]
    if not left:
        return ""
    it = "it" if len(left) == 1 else "them"
    return f"{'; '.join(left)}: end {it}, then recover again"


def _runs(event: CommandStarted) -> bool:
    """Return True if the process of a command, or one that it started, still runs in its process group."""
    with suppress(ProcessLookupError):
        if event.identity and identity(event.pid) == event.identity:
            return os.getpgid(event.pid) == event.pid
    return any(arguments(pid)[-len(event.argv) + 1 :] == event.argv[1:] for pid in members(event.pid))
