"""The ways in which a stream can fail for a reason outside its bytes."""

import enum


class FailureKind(enum.Enum):
    """The reason why the caller of a checker has no more bytes for it."""

    UNREACHABLE = "unreachable"
    """No connection could be made."""
    RESET = "reset"
    """The connection broke, or the body ended before the length that `content-length` announced."""
    STALL = "stall"
    """No message event came in time: `Limits.first_event` or `Limits.event_gap` passed."""
    DEADLINE = "deadline"
    """The whole stream took longer than `Limits.whole`."""
