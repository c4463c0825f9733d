"""One stream of a run as the journal keeps it: its times, the end of it, and the findings with the bytes around them."""

import attrs


@attrs.frozen(kw_only=True)
class QuotedFinding:
    """One finding, and the bytes around its place. Every text is escaped, and secrets are masked."""

    rule: str
    severity: str
    message: str
    event_index: int | None = None
    byte_offset: int | None = None
    """Position in bytes of the body; None if the finding is not about one place. The bytes are then the first ones of the body."""
    before: str = ""
    """The bytes before that position."""
    after: str = ""
    """The bytes from that position on; empty at the end of the body."""


@attrs.frozen(kw_only=True)
class SeenStream:
    """One stream that a step or a sentinel read to its end. Times are milliseconds since the request was sent, with one decimal."""

    change: str
    """The change that the stream ran across or after, such as ``traffic-25``; for a stream before any change, the step or its part."""
    kind: str
    """``probe``, or the kind of a sentinel: ``held`` (a held request), ``response`` (a held response), ``paced``."""
    alias: str
    place: str = ""
    """The address at which it was asked for, if that is not the front door: a tag URL."""
    thread: str = ""
    """The thread id of the request, to look for in the logs of the service; empty for a good stream, and where the request had none."""
    revision: str | None = None
    """The revision that answered, if a header names it."""
    status: int | None = None
    """The status of the response; None without one."""
    began: str
    """Time at which the request began: UTC, ISO 8601."""
    held: float = 0.0
    """Milliseconds from the beginning of the request to its release; 0 if it was not held. The other times count from the release."""
    ended: float
    """Time of the end."""
    count: int
    """Number of events."""
    times: tuple[float, ...] = ()
    """Times at which events came: all of them, or a part spread over the stream."""
    ok: bool
    """True if the stream kept the contract to its end."""
    reason: str = ""
    """The reason why it is not good; empty if it is."""
    findings: tuple[QuotedFinding, ...] = ()
