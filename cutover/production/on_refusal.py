"""The two ways to go on when a change cannot be made."""

import enum


class OnRefusal(enum.Enum):
    """The way to go on after a refused change (for instance with a stale etag), or with a journal that cannot be written."""

    STOP = "stop"
    """Stop, and send nothing that is not journaled. A forward change uses it: somebody else may be changing production."""
    TRY_AGAIN = "try again"
    """Read the state and write again until the deadline, journaled or not. A rollback, a restore and an undo use it."""
