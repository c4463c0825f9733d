"""The ways in which a stream can fail for a reason outside its bytes."""

import enum


class FailureKind(enum.Enum):
    """The reason why a checker gets no more bytes of a stream that has not ended."""

    UNREACHABLE = "unreachable"
    """No connection could be made."""
    RESET = "reset"
    """The connection broke, the body was shorter than its `content-length`, or an app under test raised an error."""
    STALL = "stall"
    """No message event came in time: `Limits.first_event` or `Limits.event_gap` passed."""
    DEADLINE = "deadline"
    """The whole stream took longer than `Limits.whole`."""
