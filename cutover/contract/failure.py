"""The ways in which a stream can fail for a reason outside its bytes."""

import enum


class FailureKind(enum.Enum):
    """The reason why a checker gets no more bytes of a stream that has not ended."""

    UNREACHABLE = "unreachable"
    """No connection could be made."""
    RESET = "reset"
    """The connection broke, the body was shorter than its `content-length`, or an app under test raised an error."""
    DECODING = "decoding"
    """The body could not be decompressed: it is not what its `content-encoding` says, or no decoder for it is here."""
    REFUSED_STATUS = "refused status"
    """The caller's own client raised an error because of the status, such as an event hook that calls `raise_for_status`."""
    NO_ROUTE = "no route"
    """The caller's client is a mock that has no answer for this request, so nothing was sent."""
    APP_ERROR = "app error"
    """The app under test raised an error after the last byte of its response, or after its client had left, such as in a background task."""
    STALL = "stall"
    """No message event came in time: `Limits.first_event` or `Limits.event_gap` passed."""
    DEADLINE = "deadline"
    """The whole stream took longer than `Limits.whole`."""
