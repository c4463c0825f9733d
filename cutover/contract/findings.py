"""A finding: one place in a stream where one rule does not hold."""

import enum

import attrs
import msgspec


class Severity(enum.Enum):
    """The weight of a finding."""

    VIOLATION = "violation"
    """The contract does not hold: the client raises an error, or the owner of the contract says so."""
    LOSS = "loss"
    """The client raises nothing, and the user gets less than was sent, or something else. `StreamContract.strict()` makes it a violation."""
    WARNING = "warning"
    """The contract still holds, but a person should know of it."""
    IGNORED = "ignored"
    """The rule is switched off in this contract: it gives no finding."""


@attrs.frozen(kw_only=True)
class Finding:
    """One place where one rule does not hold."""

    rule: str
    """The id of the rule, such as ``terminator.count``. Ids are stable."""
    severity: Severity = Severity.VIOLATION
    """`VIOLATION` if the finding fails the contract; else `LOSS` or `WARNING`."""
    message: str
    """One sentence for a person. It may hold text from the stream, so escape it before you show it."""
    event_index: int | None = None
    """Index of the message event, from zero; None if the finding is not about one event."""
    byte_offset: int | None = None
    """Position in bytes of the body: of the event, of the first bad byte, or of the body's end. None if unknown."""
    expected: str | None = None
    """The content that the rule asks for at this place, in words; None if the message says all."""
    actual: str | None = None
    """The content that came instead, in words."""
    path: str | None = None
    """JSON pointer to the faulty value in the event, such as ``/data/price``; None if the finding is not about one value."""
    keyword: str | None = None
    """The keyword of JSON Schema that does not hold, such as ``required``; None without one."""


class Deviation(msgspec.Struct, frozen=True, gc=False):
    """One broken rule, before the checker turns it into a `Finding`: it has no place yet."""

    rule: str
    """Id of the broken rule."""
    expected: str
    """The content that the rule asks for, in words; empty if `actual` is a sentence that says all."""
    actual: str
    """The content that came instead, in words."""
    is_unseen: bool = False
    """True if the client had stopped reading before. It does not refuse the chunk, so the finding is a warning."""
    severity: Severity | None = None
    """The severity if the contract sets none for the rule; None for the rule's own."""
    path: str | None = None
    """JSON pointer to the faulty value in the event; None if the rule is not about one value."""
    keyword: str | None = None
    """The keyword of JSON Schema that does not hold; None without one."""
