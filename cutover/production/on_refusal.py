"""Two ways to take the refusal of a change."""

import enum


class OnRefusal(enum.Enum):
    """What it means that a change was refused, by a stale etag for instance."""

    STOP = "stop"
    """While going forward: somebody else may be at work."""
    TRY_AGAIN = "try again"
    """While going back: read the state again, and write again, up to the deadline."""
