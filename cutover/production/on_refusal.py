"""The two ways to go on when a change cannot be made, and what each asks of the journal before a change is sent."""

import enum

from cutover.record.journal import Journal

CANCELLED = "cancelled before it was sent"
"""The detail of a change that was intended, but cancelled before it was sent."""


class OnRefusal(enum.Enum):
    """The way to go on after a refused change (for instance with a stale etag), or with a journal that cannot be written."""

    STOP = "stop"
    """Stop, and send nothing that is not journaled. A forward change uses it: somebody else may be changing production."""
    TRY_AGAIN = "try again"
    """Read the state and write again until the deadline, journaled or not. A rollback, a restore and an undo use it."""


async def until_recorded(journal: Journal, on_refusal: OnRefusal) -> None:
    """Wait until the journal holds an intent, in STATE_URL too; a way back waits only for a moment."""
    if on_refusal is OnRefusal.STOP:
        await journal.durable()
    else:
        await journal.durable_if_soon()


def reason_not_to_send(journal: Journal, on_refusal: OnRefusal) -> str:
    """Return the reason why an intended change is not sent; empty if it is.

    A forward change is sent only if its intent is recorded. A way back is sent even so, unless another process has taken the run over.
    """
    return (journal.stopped if on_refusal is OnRefusal.STOP else journal.taken_over) or ""
