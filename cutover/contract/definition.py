"""A stream's contract, as data: what the head, the chunks, their order, the end and the times must be."""

from collections.abc import Mapping

import attrs

from cutover.contract.chunks import ChunkSchema
from cutover.contract.findings import Severity
from cutover.contract.grammar import TERMINATOR, Grammar
from cutover.contract.rules import RULES


@attrs.frozen(kw_only=True)
class HeadRules:
    """What the response's head must be."""

    statuses: tuple[int, ...] = (200,)
    """Statuses that a stream comes with."""
    content_type: str = "text/event-stream"
    """Media type, compared by meaning (RFC 9110 8.3.1)."""
    charset: str | None = None
    """Charset parameter that must be there; None where it does not matter."""
    required: Mapping[str, str] = attrs.field(factory=dict)
    """Header, in lower case -> its value, to the letter."""
    refused: tuple[str, ...] = ()
    """Headers, in lower case, that must not be there."""


@attrs.frozen(kw_only=True)
class Limits:
    """How much and how long; times in seconds since the request was sent."""

    max_event_bytes: int = 1 << 20
    """Bytes of one event's data; a longer one is dropped unread."""
    max_open_bytes: int = 16 << 20
    """Bytes, about, that the names of open parts and calls may take; of more, order is no longer followed."""
    first_event: float = 5.0
    """Seconds to the first message event."""
    event_gap: float = 15.0
    """Seconds between two message events; comments do not count."""
    whole: float = 120.0
    """Seconds for the whole stream."""
    held_back_after: float = 1.0
    """A body whose first byte took this many seconds may not come all at once."""
    at_once: float = 0.1
    """Seconds within which several events count as all at once."""


@attrs.frozen(kw_only=True)
class StreamContract:
    """What a stream must be. Derive one with `attrs.evolve`."""

    name: str
    """What the command line calls it."""
    schema: ChunkSchema
    """What the chunks look like."""
    grammar: Grammar
    """In which order they come."""
    head: HeadRules = HeadRules()
    """What the head must be."""
    terminator: str = TERMINATOR
    """Data of the event that ends the stream, to the letter."""
    limits: Limits = Limits()
    """How much and how long."""
    severities: Mapping[str, Severity] = attrs.field(factory=dict)
    """Rule -> its weight in this contract, where that is not the rule's own."""

    @severities.validator
    def _known(self, _: object, severities: Mapping[str, Severity]) -> None:
        unknown = sorted(severities.keys() - RULES.keys())
        if unknown:
            raise ValueError(f"no such rule: {', '.join(unknown)}")

    def severity(self, rule: str) -> Severity:
        """How much a rule weighs in this contract."""
        return self.severities.get(rule, RULES[rule].severity)

    def strict(self) -> "StreamContract":
        """The same contract, where all that a user would see as broken is a violation."""
        seen = {rule.id: Severity.VIOLATION for rule in RULES.values() if rule.user_sees}
        return attrs.evolve(self, severities={**self.severities, **seen})


@attrs.frozen(kw_only=True)
class StreamContext:
    """What a contract cannot know by itself: the request that the stream answers."""

    thread_id: str | None = None
    """The thread that the request is for."""
    known_tool_calls: frozenset[str] = frozenset()
    """Ids of the tool calls of the message that this stream continues."""

    def expected(self) -> Mapping[str, str]:
        """Field of a chunk -> the value that this request decides."""
        return {} if self.thread_id is None else {"threadId": self.thread_id}
