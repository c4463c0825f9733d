"""The causes of a missing or unfinished reply, in plain words that are the same whichever client the caller uses."""

import enum

import httpx

from cutover.text import printable

CONNECT_TIMEOUT = 10.0
"""Seconds to connect to a host."""
_NOT_HTTP = ("illegal", "bad", "malformed", "conflicting", "multiple", "Receive buffer too long")
"""The first words of h11, the parser of httpx, about a reply that breaks the rules."""


class Cause(enum.Enum):
    """A cause of a missing or unfinished reply. The value is its name in plain words."""

    NOT_IN_TIME = f"no connection within {CONNECT_TIMEOUT:g} s"
    NO_CONNECTION = "could not connect"
    TIMED_OUT = "timed out"
    NO_REPLY = "the connection was closed without a reply"
    NOT_HTTP = "the reply breaks the rules of HTTP"
    CUT_SHORT = "the reply was cut short"
    RESET = "the connection was reset"
    DECODING = "the reply's content-encoding is broken"
    OTHER = "failed"

    def described(self, words: str) -> str:
        """Return the cause in plain words, then in the words of the client."""
        return f"{self.value} ({printable(words)})"


def describe_failure(error: BaseException) -> str:
    """Return the reason for a missing reply, in plain words and then in those of httpx."""
    text, cause = str(error), Cause.OTHER
    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            cause = Cause.NOT_IN_TIME
        case httpx.ConnectError():
            cause = Cause.NO_CONNECTION
        case httpx.TimeoutException():
            cause = Cause.TIMED_OUT
        case httpx.RemoteProtocolError() if "without sending a response" in text:
            cause = Cause.NO_REPLY
        case httpx.RemoteProtocolError() if text.startswith(_NOT_HTTP):
            cause = Cause.NOT_HTTP
        case httpx.RemoteProtocolError():
            cause = Cause.CUT_SHORT
        case httpx.ReadError():
            cause = Cause.RESET
        case httpx.DecodingError():
            cause = Cause.DECODING
    return cause.described(text or type(error).__name__)
