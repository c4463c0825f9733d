"""How a stream can fail other than by what is in it."""

import enum


class FailureKind(enum.Enum):
    """Why whoever feeds a checker has no more to feed it."""

    UNREACHABLE = "unreachable"
    """There was no connection."""
    RESET = "reset"
    """The connection broke, or the body ended before the length that was announced."""
    STALL = "stall"
    """No event came in time."""
    DEADLINE = "deadline"
    """The whole stream took too long."""
