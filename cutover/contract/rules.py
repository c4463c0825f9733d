"""All rules that a stream can break. Each has a stable id and an explanation.

This table holds the texts and the default severities. The checks are in the other modules of ``contract/``; rules about the order of
events, such as one [DONE], are in the tables of ``protocols/``. A contract may give a rule another severity.

This module is long because it is one table.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from cutover.contract.findings import Severity

_VIOLATION, _WARNING = Severity.VIOLATION, Severity.WARNING


@attrs.frozen
class Rule:
    """One rule: its id, its explanation and its default severity."""

    id: str
    """The rule's name in reports, fixtures and `cutover check --explain`. It never changes."""
    why: str
    """One or two sentences: the defect, and its effect on a user."""
    severity: Severity = attrs.field(default=_VIOLATION, kw_only=True)
    """The severity in a contract that sets no other one."""
    is_gathered: bool = attrs.field(default=False, kw_only=True)
    """True if one finding, at the end of the stream, names all events that break the rule. It stands at the first one."""
    user_sees: bool = attrs.field(default=False, kw_only=True)
    """True if a user sees the defect. `StreamContract.strict()` makes such a rule a violation."""


_ALL = (
    Rule(
        "head.status",
        "The contract does not allow this status: the response is not a stream, and a client shows an error.",
    ),
    Rule(
        "head.redirect",
        "The response is a redirect: it would take the request, and the token in it, to another address.",
    ),
    Rule(
        "head.content-type",
        "The content type is not an event stream's: browsers and proxies may buffer, cache or save the response.",
    ),
    Rule(
        "head.charset",
        "The charset is missing or wrong: an old client guesses one and garbles letters outside ASCII.",
    ),
    Rule(
        "head.header-missing",
        "A required header is missing: clients recognise this stream protocol by that header.",
    ),
    Rule(
        "head.header-value",
        "A required header has another value: clients take the stream for another version of the protocol.",
    ),
    Rule(
        "head.header-refused",
        "The response has a header that only the old implementation sends: the old service answered the request.",
    ),
    Rule(
        "head.header-conflict",
        "A header comes twice with different values: each client may use another one of them.",
    ),
    Rule(
        "head.compressed",
        "The stream is compressed: compression collects data into blocks, so text arrives late and in jumps.",
        severity=_WARNING,
    ),
    Rule(
        "head.length-and-chunked",
        "The response has a content-length and is chunked too: proxies disagree on where such a body ends, and some refuse it.",
        severity=_WARNING,
    ),
    Rule(
        "head.sunset",
        "The date on which the service ends, as it announces itself, has passed: it may stop answering on any day.",
        severity=_WARNING,
    ),
    Rule(
        "transport.unreachable", "No connection to the service could be made, so there is no stream to check."
    ),
    Rule(
        "transport.reset",
        "The connection broke before the end of the body: the rest of the answer is lost.",
        user_sees=True,
    ),
    Rule(
        "transport.decoding",
        "The body could not be decompressed: it is not what its content-encoding says, or no decoder for it is installed here.",
    ),
    Rule(
        "transport.refused-status",
        "The caller's own client raised an error because of the status, so the body was not read.",
    ),
    Rule(
        "transport.no-route",
        "The caller's client is a mock that has no answer for this request: the test lacks a route, and the stream was not checked.",
    ),
    Rule(
        "app.error",
        "The app raised an error after its stream was over: users see nothing of it, and the work behind the answer was not finished.",
    ),
    Rule(
        "timing.first-event",
        "No event came within the first_event limit of this check: users, and some proxies, give up before the first event.",
        user_sees=True,
    ),
    Rule(
        "timing.event-gap",
        "No event came within the event_gap limit of this check: the answer looks frozen, although comments may come. Or the turn was over, and the connection stayed open.",
        user_sees=True,
    ),
    Rule(
        "timing.deadline",
        "The stream was not over within the limit of this check for a whole turn: the turn took too long, or the connection stayed open after it.",
        user_sees=True,
    ),
    Rule(
        "timing.not-streamed",
        "After a long wait, more events came at once than a model sends within that time: something held the stream back.",
        user_sees=True,
    ),
    Rule(
        "timing.held-back",
        "The answer came late and all at once. It is short, or one piece with a content-length: the service is slow, or something held it back.",
        severity=_WARNING,
    ),
    Rule(
        "timing.bursts",
        "Many events came together, again and again with a pause between: a proxy collects the stream in blocks, and text jumps.",
        severity=_WARNING,
    ),
    Rule("stream.empty", "No event came: a client shows an empty answer and no error.", user_sees=True),
    Rule(
        "stream.no-content",
        "The turn came to its end, and nothing in it is for a user to see: a client shows an empty answer and no error.",
        severity=Severity.LOSS,
        user_sees=True,
    ),
    Rule(
        "stream.unframed",
        "The body has lines that are no field of an event stream, such as an error in JSON or a traceback: clients ignore them.",
        severity=_WARNING,
    ),
    Rule(
        "stream.truncated",
        "The body ended before the turn ended: a client shows half an answer and no error.",
        user_sees=True,
    ),
    Rule(
        "stream.oversized",
        "An event is larger than this check reads, so its content was not checked. The client may take it: give the check a larger limit.",
        user_sees=True,
    ),
    Rule(
        "stream.invalid-utf8",
        "The stream holds bytes that are not UTF-8: a user sees replacement characters in the answer.",
        user_sees=True,
    ),
    Rule(
        "stream.event-type",
        "An event has a type other than `message`: a browser's EventSource does not pass it to its message handler.",
        severity=_WARNING,
    ),
    Rule(
        "stream.service-error",
        "The service reported an error in the stream: the turn failed, and a user gets no full answer.",
        user_sees=True,
    ),
    Rule("json.syntax", "The data of an event is not JSON: the client stops reading the stream there."),
    Rule(
        "json.prototype",
        "The data of an event has a key that could change JavaScript's prototypes: the client's parser refuses such data.",
    ),
    Rule(
        "json.replacement-character",
        "The text holds U+FFFD already when it arrives: something decoded the stream piece by piece and lost a character there.",
        severity=_WARNING,
        is_gathered=True,
    ),
    Rule(
        "json.unsafe-integer",
        "The data holds an integer beyond 2^53: JavaScript rounds it, so a client may see another number or another id.",
        severity=_WARNING,
        is_gathered=True,
    ),
    Rule("schema.not-object", "The data of an event is not a JSON object: the client refuses it."),
    Rule(
        "schema.unknown-kind",
        "A chunk has a type that the client does not know: the client stops reading the stream there.",
    ),
    Rule("schema.missing-field", "A chunk lacks a field that its type requires: the client refuses it."),
    Rule(
        "schema.field-type", "A field of a chunk has a value of the wrong type: the client refuses the chunk."
    ),
    Rule(
        "schema.unknown-field",
        "A chunk has a field that the contract does not list: older clients refuse such a chunk.",
        severity=_WARNING,
    ),
    Rule(
        "schema.version-skew",
        "This client accepts the chunk, but other client versions in use refuse it.",
        severity=_WARNING,
    ),
    Rule(
        "schema.value",
        "A field of a chunk has the right type and a value that its schema does not allow: a client may refuse it or show it wrongly.",
    ),
    Rule(
        "schema.unknown-value",
        "A field has a value that is not in the list of the contract: a client does not know what to do with it.",
    ),
    Rule(
        "schema.event-name",
        "An event's name is missing, is not wanted, or differs from the kind in its data: a client that goes by the name loses the event.",
    ),
    Rule(
        "schema.ambiguous",
        "An event matches several branches of a schema that allows exactly one: a generated client may decode it as another kind.",
    ),
    Rule(
        "schema.stream",
        "The events of the stream together do not match the schema of the whole stream.",
    ),
    Rule(
        "schema.format",
        "A value does not have the format that its schema names. A format is a hint in JSON Schema, so most clients accept the value.",
        severity=_WARNING,
    ),
    Rule(
        "schema.inherited-id",
        "An event holds to its schema only with the ID of an earlier event. The document does not say whether that counts.",
        severity=_WARNING,
    ),
    Rule(
        "schema.write-only",
        "A chunk has a field that its document marks as write-only: such a field is meant for requests, and may be a secret.",
        severity=_WARNING,
    ),
    Rule(
        "order.unexpected",
        "An event came where the order does not allow its kind: an event before it was lost, or this one is one too many.",
    ),
    Rule(
        "order.part-field",
        "A chunk of a part repeats a field of the part's first chunk with another value: chunks of two parts may be mixed.",
    ),
    Rule(
        "order.index-gap",
        "The number of a new part is not the next one: a part was lost or doubled, and a client that counts puts text in the wrong place.",
    ),
    Rule(
        "order.start-missing",
        "The turn does not begin with its start event: the beginning of the answer may be lost.",
    ),
    Rule(
        "order.step-missing",
        "Content came before a step was started: the step's start was lost, or never sent.",
    ),
    Rule(
        "order.step-unfinished",
        "A new step was started while another was open: the end of that step was lost, or never sent.",
    ),
    Rule(
        "order.finish-before-step",
        "The turn was finished while a step was open: the end of that step was lost, or never sent.",
    ),
    Rule(
        "order.finish-missing",
        "The turn has no finish event: a client cannot tell a whole answer from half of one.",
        user_sees=True,
    ),
    Rule(
        "order.finish-status",
        "The status of the finish event does not match the turn: it must report a failure after an error, and only then.",
    ),
    Rule(
        "order.duplicate",
        "An event that may come once in a turn came again: something replayed the stream, or merged two streams.",
    ),
    Rule(
        "order.outside-step",
        "Content came outside a step: it must come between the step's start and its finish.",
    ),
    Rule("order.after-finish", "Content came after the turn was finished: it may belong to another turn."),
    Rule(
        "order.unopened-part",
        "A delta or an end names a part that is not open: a client refuses it or loses its text.",
    ),
    Rule(
        "order.part-reopened",
        "A part or a call was opened again while it was open: a client shows its first half as if it were still being written.",
        severity=_WARNING,
    ),
    Rule(
        "order.empty-id",
        "A part or a call has an empty id: a client cannot tell it from the next one without an id, and mixes them.",
        severity=_WARNING,
    ),
    Rule(
        "order.part-left-open",
        "A part was never ended: a client shows it as if it were still being written.",
        severity=_WARNING,
    ),
    Rule(
        "order.unknown-call",
        "A chunk names a tool call that was never made: a client cannot match it to a call.",
    ),
    Rule(
        "order.unknown-approval",
        "An answer names an approval that was never requested: a client cannot match it to a question.",
    ),
    Rule(
        "order.too-many-open",
        "More parts and calls are open at once than this check follows: give the check a larger max_open_bytes limit.",
        severity=_WARNING,
    ),
    Rule(
        "sequence.gap",
        "A number that grows by one with each event left one out, or came again: an event was lost or doubled.",
    ),
    Rule(
        "sequence.fell",
        "A figure that can only grow became smaller: events came in the wrong order, or two streams were mixed.",
    ),
    Rule(
        "sequence.changed", "A field that names the whole stream changed within it: two streams may be mixed."
    ),
    Rule(
        "sequence.json",
        "The pieces of a text that must be JSON do not make JSON together: a piece was lost, doubled or cut.",
    ),
    Rule(
        "framing.line-end",
        "A line does not end with LF alone: the standard allows it, but this client splits lines at LF only.",
    ),
    Rule(
        "framing.event-line",
        "An event has no `event` line: the standard allows it, but this client drops an event without a name.",
    ),
    Rule(
        "framing.comment",
        "The stream has a comment: the standard ignores it, but this client takes it for data or stops there.",
    ),
    Rule(
        "framing.bom",
        "The stream begins with a byte order mark: the standard drops it, but this client loses its first line.",
    ),
    Rule(
        "framing.blank-line",
        "The body does not end with a blank line: the standard forgives lines without data there, but this client does not.",
    ),
    Rule(
        "identity.thread",
        "The stream belongs to another thread than the request: one user could see the answer to another user.",
    ),
    Rule(
        "identity.turn", "The events of this stream belong to more than one turn: two answers may be mixed."
    ),
    Rule(
        "terminator.missing",
        "The stream ends without its last event, [DONE]: a stream that was cut between two events looks the same.",
        user_sees=True,
    ),
    Rule("terminator.count", "A second [DONE] came: two streams were joined, or one was replayed."),
    Rule("terminator.trailing", "Data came after [DONE]: some clients read it, and others lose it."),
    Rule(
        "openapi.no-item-schema",
        "The document says nothing about the events of this stream: no event can break it.",
        severity=_WARNING,
    ),
    Rule(
        "openapi.item-is-payload",
        "The item schema has none of the fields of an event, so it is read as the schema of the data. Other tools may read it otherwise.",
        severity=_WARNING,
    ),
    Rule(
        "openapi.nullable",
        "The document uses `nullable` where its version gives it no meaning. Null is allowed here; other tools refuse it.",
        severity=_WARNING,
    ),
    Rule(
        "openapi.overlapping",
        "A branch of `oneOf` pins neither a name nor a payload: events of other branches match it too, and then break `oneOf`.",
        severity=_WARNING,
    ),
    Rule(
        "openapi.terminal-unpinned",
        "A branch is marked as the last event and pins nothing that tells it from other events, so the mark is not used.",
        severity=_WARNING,
    ),
    Rule(
        "openapi.unsatisfiable",
        "No event can match a schema of this stream: every stream breaks it.",
        severity=_WARNING,
    ),
    Rule(
        "openapi.version-unknown",
        "The document has a version of OpenAPI that this package does not know. It is read as the newest known one.",
        severity=_WARNING,
    ),
    Rule(
        "resume.refused",
        "The service refused a reconnection before the stream had ended: a client that lost its connection gets no rest.",
    ),
    Rule(
        "resume.no-id",
        "An event has no id, so a client that lost its connection cannot say where the service must go on.",
    ),
    Rule(
        "resume.replayed",
        "After a reconnection an event came again: a client handles it twice, and a user sees its text doubled.",
    ),
    Rule(
        "resume.lost",
        "After a reconnection an event is missing: it was sent while nobody was connected, and no client gets it.",
    ),
    Rule(
        "resume.reordered",
        "After a reconnection events came in another order: a client puts their content together wrongly.",
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in _ALL})
"""Id of a rule -> the rule."""

GATHERED: Final = frozenset(rule.id for rule in _ALL if rule.is_gathered)
"""Ids of the rules of which one finding names all events."""
