"""A finding: one place in a stream where one rule does not hold."""

import enum

import attrs


class Severity(enum.Enum):
    """The weight of a finding: a violation or a warning."""

    VIOLATION = "violation"
    """The contract does not hold."""
    WARNING = "warning"
    """The contract still holds, but a person should know of it."""


@attrs.frozen(kw_only=True)
class Finding:
    """One place where one rule does not hold."""

    rule: str
    """The id of the rule, such as ``terminator.count``. Ids are stable."""
    severity: Severity = Severity.VIOLATION
    """`VIOLATION` if the finding fails the contract, `WARNING` if it does not."""
    message: str
    """One sentence for a person. It may hold text from the stream, so escape it before you show it."""
    event_index: int | None = None
    """Index of the message event, from zero; None if the finding is not about one event."""
    byte_offset: int | None = None
    """Position in bytes of the body: of the event, of the first bad byte, or of the body's end. None if unknown."""
    expected: str | None = None
    """The content that the rule asks for at this place, in words."""
    actual: str | None = None
    """The content that came instead, in words."""
