"""Every rule a stream can break: one rule, one stable id, one explanation.

Where a rule holds is a matter of code; how much it weighs is a matter of the contract, which may differ from what stands here.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from cutover.contract.findings import Severity

_VIOLATION, _WARNING = Severity.VIOLATION, Severity.WARNING


@attrs.frozen
class Rule:
    """A rule, by what a reader needs to know of it."""

    id: str
    """Stable: reports, fixtures and `cutover check --explain` go by it."""
    why: str
    """One sentence: what goes wrong where it does not hold."""
    severity: Severity = attrs.field(default=_VIOLATION, kw_only=True)
    """Its weight where a contract does not say otherwise."""
    user_sees: bool = attrs.field(default=False, kw_only=True)
    """A user would see it as broken: `StreamContract.strict()` makes it a violation."""


_ALL = (
    Rule(
        "head.status", "A status other than the contract's is no stream: clients show its body as an error."
    ),
    Rule("head.redirect", "A redirect takes a request, and the token in it, to where nobody meant it to go."),
    Rule(
        "head.content-type",
        "What is not an event stream by its content type is cached, buffered or saved, not streamed.",
    ),
    Rule(
        "head.charset",
        "Without the charset it promises, an old client guesses, and other scripts come out garbled.",
    ),
    Rule("head.header-missing", "Clients tell this protocol from others by this header."),
    Rule("head.header-value", "Another value of this header is another version of the protocol."),
    Rule("head.header-refused", "This header says that the old implementation answered."),
    Rule(
        "head.header-conflict",
        "A header that comes twice with two values means whichever the reader happens to take.",
    ),
    Rule(
        "head.compressed",
        "A compressed stream is held back until a block is full: chunks no longer come as they are sent.",
        severity=_WARNING,
    ),
    Rule("transport.unreachable", "There was no connection, so there was no stream."),
    Rule(
        "transport.reset",
        "The connection broke before the body's end: the rest of the answer is lost.",
        user_sees=True,
    ),
    Rule("timing.first-event", "Nothing came for so long that a user, or a proxy, gives up.", user_sees=True),
    Rule(
        "timing.event-gap",
        "No event came for so long that the stream looks dead; comments keep a connection, not a user.",
        user_sees=True,
    ),
    Rule("timing.deadline", "The stream went on past the time a whole turn may take.", user_sees=True),
    Rule(
        "timing.not-streamed",
        "Everything came at once after a long wait: something on the way held the stream back.",
        user_sees=True,
    ),
    Rule(
        "timing.held-back",
        "An answer of announced length that comes late and in one piece: the service is slow, or a proxy held it back.",
        severity=_WARNING,
    ),
    Rule("stream.empty", "Not one event came: a client shows an empty answer and no error.", user_sees=True),
    Rule(
        "stream.truncated",
        "The body ended before the turn did: a client shows half an answer and no error.",
        user_sees=True,
    ),
    Rule("stream.oversized", "An event outgrew the bound, so that it was dropped unread.", user_sees=True),
    Rule(
        "stream.invalid-utf8",
        "Bytes that are not UTF-8 turn into replacement characters in the answer.",
        user_sees=True,
    ),
    Rule(
        "stream.event-type",
        "A browser's EventSource hands out no event of another type to its message handler.",
        severity=_WARNING,
    ),
    Rule("stream.service-error", "The service itself reported that the turn failed.", user_sees=True),
    Rule("json.syntax", "Data that is not JSON ends the stream in the client."),
    Rule(
        "json.prototype", "A key that would reach JavaScript's prototypes is refused by the client's parser."
    ),
    Rule("schema.not-object", "Every event's data is one JSON object."),
    Rule("schema.unknown-kind", "A chunk of a kind that the client does not know ends the stream."),
    Rule("schema.missing-field", "A chunk without a field that its kind requires is refused."),
    Rule("schema.field-type", "A chunk with a field of another type is refused."),
    Rule(
        "schema.unknown-field",
        "Older clients refuse a chunk with a field that they do not know.",
        severity=_WARNING,
    ),
    Rule(
        "schema.version-skew",
        "This client takes it; others of the versions in use refuse it.",
        severity=_WARNING,
    ),
    Rule("order.start-missing", "The turn's first event is its start."),
    Rule("order.step-missing", "A step's content comes after the step was started."),
    Rule("order.step-unfinished", "A step is finished before the next one starts."),
    Rule("order.finish-before-step", "The turn finishes after its step was finished."),
    Rule(
        "order.finish-missing",
        "Without a finish a client cannot tell a whole answer from half of one.",
        user_sees=True,
    ),
    Rule("order.finish-status", "After an error, and only then, the turn's finish says that it failed."),
    Rule("order.duplicate", "An event that comes once a turn came again: something was replayed or merged."),
    Rule("order.outside-step", "Content belongs to a step, between its start and its finish."),
    Rule("order.after-finish", "Content that comes when the turn is over was meant for another."),
    Rule("order.unopened-part", "A delta or an end must name a part that was started and is still open."),
    Rule(
        "order.part-left-open",
        "A part that is never ended looks as if it were still being written.",
        severity=_WARNING,
    ),
    Rule("order.unknown-call", "What follows a tool call must name one that was made."),
    Rule("order.unknown-approval", "An approval's answer must name an approval that was asked for."),
    Rule(
        "order.too-many-open",
        "So many parts and calls are open at once that they are no longer followed.",
        severity=_WARNING,
    ),
    Rule(
        "identity.thread",
        "The stream belongs to another thread than the request: users would see each other's turns.",
    ),
    Rule("identity.turn", "Events of one stream belong to one turn."),
    Rule(
        "terminator.missing",
        "Without [DONE] a stream that was cut at an event's end looks whole.",
        user_sees=True,
    ),
    Rule("terminator.count", "A second [DONE] means that two streams were joined, or one was replayed."),
    Rule(
        "terminator.trailing", "Nothing follows [DONE]: what does is read by some clients and lost by others."
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in _ALL})
"""Every rule, by its id."""
