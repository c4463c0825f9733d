"""The two reactions to a refused change."""

import enum


class OnRefusal(enum.Enum):
    """The reaction to a refused change, for instance after a stale etag."""

    STOP = "stop"
    """Stop. A forward change uses it: somebody else may be changing production."""
    TRY_AGAIN = "try again"
    """Read the state again and write again, until the deadline. A rollback and an undo use it."""
