"""A stream's contract, as data: rules for the head, the chunks, their order, the end and the times."""

from collections.abc import Mapping
from datetime import datetime

import attrs

from cutover.contract.chunks import ChunkSchema
from cutover.contract.findings import Severity
from cutover.contract.grammar import TERMINATOR, Grammar
from cutover.contract.rules import RULES


@attrs.frozen(kw_only=True)
class HeadRules:
    """The rules for the head of the response: status and headers."""

    statuses: tuple[int, ...] = (200,)
    """The HTTP statuses that are allowed for a stream."""
    content_type: str = "text/event-stream"
    """The media type, in lower case. It is compared without case and parameters (RFC 9110 8.3.1)."""
    charset: str | None = None
    """The required charset parameter of the media type, in lower case; None if any charset is allowed."""
    required: Mapping[str, str] = attrs.field(factory=dict)
    """Name of a required header, in lower case -> its exact value."""
    refused: tuple[str, ...] = ()
    """Names of headers, in lower case, that must not be there."""
    sunset: tuple[str, ...] = ()
    """Names of headers, in lower case, with the date on which the service ends (RFC 8594)."""


@attrs.frozen(kw_only=True)
class Limits:
    """The largest sizes and the longest times that a contract allows. Sizes are in bytes, times in seconds."""

    max_event_bytes: int = 1 << 20
    """Largest size of an event's `data` lines, and of any line. The parser drops a larger event. Default: 1 MiB."""
    max_open_bytes: int = 16 << 20
    """Rough memory for the ids of open parts and calls. Above it, the checker follows no new part or call. Default: 16 MiB."""
    first_event: float = 5.0
    """Seconds from sending the request to the first message event. Default: 5."""
    event_gap: float = 15.0
    """Seconds between two message events, or between the last one and the end. Comments do not count. Default: 15."""
    whole: float = 120.0
    """Seconds from sending the request to the end of the body. Default: 120."""
    held_back_after: float = 1.0
    """Least time to the first byte of a body that counts as held back if its events come all at once. Default: 1."""
    at_once: float = 0.1
    """Seconds within which several events count as having come all at once. Default: 0.1."""


@attrs.frozen(kw_only=True)
class StreamContract:
    """All that a stream must satisfy. Make a variant of a contract with `attrs.evolve`.

    Raises:
        ValueError: If `severities` names a rule that does not exist.
    """

    name: str
    """The contract's name on the command line and in reports."""
    schema: ChunkSchema
    """The kinds of chunk and their fields."""
    grammar: Grammar
    """The order in which chunks may come."""
    head: HeadRules = HeadRules()
    """The rules for status and headers."""
    terminator: str = TERMINATOR
    """The exact data of the event that ends the stream."""
    endless: bool = False
    """True if the stream has no end of its own: the end of the body, wherever it comes, is then no fault."""
    method: str = "POST"
    """The method of the request that starts the stream: POST or GET."""
    resume: str | None = None
    """`id` if each event has an id, and a request with `Last-Event-ID` goes on behind it (WHATWG HTML 9.2.4); else None."""
    limits: Limits = Limits()
    """The largest sizes and the longest times."""
    severities: Mapping[str, Severity] = attrs.field(factory=dict)
    """Rule id -> its severity in this contract, for rules whose default severity this contract changes."""

    @severities.validator
    def _known(self, _: object, severities: Mapping[str, Severity]) -> None:
        """Refuse a severity for a rule that does not exist."""
        unknown = sorted(severities.keys() - RULES.keys())
        if unknown:
            raise ValueError(f"severities: no such rule: {', '.join(unknown)}")

    def severity(self, rule: str) -> Severity:
        """Return the severity of a rule in this contract.

        Raises:
            KeyError: If there is no rule with this id.
        """
        return self.severities.get(rule, RULES[rule].severity)

    def strict(self) -> "StreamContract":
        """Return a copy of this contract in which every defect that a user would see is a violation."""
        seen = {rule.id: Severity.VIOLATION for rule in RULES.values() if rule.user_sees}
        return attrs.evolve(self, severities={**self.severities, **seen})


@attrs.frozen(kw_only=True)
class StreamContext:
    """The facts about the request that the stream answers. A contract cannot know them by itself."""

    thread_id: str | None = None
    """The id of the request's thread; None if unknown, and then any one thread is accepted."""
    known_tool_calls: frozenset[str] = frozenset()
    """Ids of the tool calls in the message that this stream continues. The stream may refer to them."""
    asked_at: datetime | None = None
    """The time of the request, with a time zone; None if unknown, and then no date in a header counts as passed."""

    def expected(self) -> Mapping[str, str]:
        """Return the field values that this request fixes: name of a chunk's field -> value."""
        return {} if self.thread_id is None else {"threadId": self.thread_id}
