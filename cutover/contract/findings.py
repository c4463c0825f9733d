"""What a check found: the value that every layer above speaks in."""

import enum

import attrs


class Severity(enum.Enum):
    """How much a finding weighs."""

    VIOLATION = "violation"
    """The contract does not hold."""
    WARNING = "warning"
    """The contract holds, and somebody should know."""


@attrs.frozen(kw_only=True)
class Finding:
    """One rule and one place where it did not hold."""

    rule: str
    """Stable id of the rule, such as ``terminator.count``."""
    severity: Severity = Severity.VIOLATION
    """Whether it fails the contract."""
    message: str
    """One sentence for a reader; may hold text off the wire, so escape it where it is shown."""
    event_index: int | None = None
    """Zero-based index of the message event it is about; None where it is about no one event."""
    byte_offset: int | None = None
    """Offset, in bytes of the body, at which that event began."""
    expected: str | None = None
    """What the rule wanted there."""
    actual: str | None = None
    """What came."""
