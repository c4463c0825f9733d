"""The UI message stream of the AI SDK, as the clients of majors 5, 6 and 7 read it.

The source is measurement of the npm package ``ai`` 5.0.277, 6.0.326 and 7.0.173 with zod 4.6.7. These clients read no
header and ignore ``[DONE]``. They check order only for a chunk that names a part, a call or an approval. Servers keep
the rest of the order and users rely on it, so a break of that order is a warning.

This module is longer than 300 lines because it is data: every field of every kind in three majors, and every transition.
"""

from collections.abc import Mapping
from typing import Any, Final

from cutover.contract.chunks import (
    ANY,
    BOOLEAN,
    OBJECT,
    OBJECT_OF_OBJECTS,
    STRING,
    ChunkSchema,
    Field,
    Fields,
    FieldType,
    list_of,
    one_of,
    optional,
)
from cutover.contract.definition import StreamContract
from cutover.contract.findings import Severity
from cutover.contract.grammar import END, TERMINATOR, Grammar, Scope, ServiceError, Transition, open_scope
from cutover.contract.head_rules import HeadRules
from cutover.contract.rules import RULES

_PM = {"providerMetadata": optional(OBJECT_OF_OBJECTS)}
_CALL = {"toolCallId": Field(STRING)}
_NAMED_CALL = {**_CALL, "toolName": Field(STRING)}
_HOW = {"providerExecuted": optional(BOOLEAN), "dynamic": optional(BOOLEAN)}
_TM = {"toolMetadata": optional(OBJECT)}
_TITLE = {"title": optional(STRING)}

_REASONS = ("stop", "length", "content-filter", "tool-calls", "error", "other")

_KINDS_5: Mapping[str, Fields] = {
    "start": {"messageId": optional(STRING), "messageMetadata": optional(ANY)},
    "start-step": {},
    "finish-step": {},
    "text-start": {"id": Field(STRING), **_PM},
    "text-delta": {"id": Field(STRING), "delta": Field(STRING), **_PM},
    "text-end": {"id": Field(STRING), **_PM},
    "reasoning-start": {"id": Field(STRING), **_PM},
    "reasoning-delta": {"id": Field(STRING), "delta": Field(STRING), **_PM},
    "reasoning-end": {"id": Field(STRING), **_PM},
    "tool-input-start": {**_NAMED_CALL, **_HOW},
    "tool-input-delta": {**_CALL, "inputTextDelta": Field(STRING)},
    "tool-input-available": {**_NAMED_CALL, "input": Field(ANY), **_HOW, **_PM},
    "tool-input-error": {**_NAMED_CALL, "input": Field(ANY), "errorText": Field(STRING), **_HOW, **_PM},
    "tool-output-available": {**_CALL, "output": Field(ANY), **_HOW, "preliminary": optional(BOOLEAN)},
    "tool-output-error": {**_CALL, "errorText": Field(STRING), **_HOW},
    "source-url": {"sourceId": Field(STRING), "url": Field(STRING), **_TITLE, **_PM},
    "source-document": {
        "sourceId": Field(STRING),
        "mediaType": Field(STRING),
        "title": Field(STRING),
        "filename": optional(STRING),
        **_PM,
    },
    "file": {"url": Field(STRING), "mediaType": Field(STRING), **_PM},
    "message-metadata": {"messageMetadata": Field(ANY)},
    "error": {"errorText": Field(STRING)},
    "abort": {},
    "finish": {"finishReason": optional(one_of(*_REASONS, "unknown")), "messageMetadata": optional(ANY)},
}

_KINDS_6: Mapping[str, Fields] = {
    **_KINDS_5,
    "tool-input-start": {
        **_NAMED_CALL,
        "inputEncoding": optional(one_of("json", "text")),
        **_HOW,
        **_TITLE,
        **_TM,
        **_PM,
    },
    "tool-input-available": {**_KINDS_5["tool-input-available"], **_TITLE, **_TM},
    "tool-input-error": {**_KINDS_5["tool-input-error"], **_TITLE, **_TM},
    "tool-output-available": {**_KINDS_5["tool-output-available"], **_TM, **_PM},
    "tool-output-error": {**_KINDS_5["tool-output-error"], **_TM, **_PM},
    "tool-approval-request": {
        "approvalId": Field(STRING),
        **_CALL,
        "approvalDescriptor": optional(ANY),
        "inputSchemaInput": optional(ANY),
        "signature": optional(STRING),
    },
    "tool-output-denied": _CALL,
    "abort": {"reason": optional(STRING)},
    "finish": {"finishReason": optional(one_of(*_REASONS)), "messageMetadata": optional(ANY)},
}


def _holds(value: Any, fields: Fields) -> bool:  # noqa: ANN401
    """Return True if the value is an object with these fields. It may have more fields."""
    return isinstance(value, dict) and all(
        field.type.accepts(value[name]) if name in value else not field.required
        for name, field in fields.items()
    )


def _literal(value: str) -> Field:
    return Field(one_of(value))


_INDEX = FieldType(
    name="an index",
    accepts=lambda value: (
        isinstance(value, float) and value >= 0 and value.is_integer() and value <= 2**53 - 1
    ),
    fast=None,
)
_SOURCES: Mapping[str, Fields] = {
    "url": {"type": _literal("source"), "id": Field(STRING), "url": Field(STRING), **_TITLE, **_PM},
    "document": {
        "type": _literal("source"),
        "id": Field(STRING),
        "mediaType": Field(STRING),
        "title": Field(STRING),
        "filename": optional(STRING),
        **_PM,
    },
}
_CITATION: Fields = {
    "startIndex": optional(_INDEX),
    "endIndex": optional(_INDEX),
    "citedText": optional(STRING),
}
_TEXT_PART: Fields = {"type": _literal("text"), "text": Field(STRING), **_PM}
_FILE_PART: Fields = {
    "type": _literal("file"),
    "mediaType": Field(STRING),
    "url": Field(STRING),
    "filename": optional(STRING),
    "providerReference": optional(
        FieldType(
            name="an object of strings",
            accepts=lambda value: (
                isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
            ),
            fast=None,
        )
    ),
    **_PM,
}


def _is_citation(value: Any) -> bool:  # noqa: ANN401
    source = value.get("source") if isinstance(value, dict) else None
    sort = source.get("sourceType") if isinstance(source, dict) else None
    return (
        isinstance(sort, str)
        and sort in _SOURCES
        and _holds(source, _SOURCES[sort])
        and _holds(value, _CITATION)
    )


def _is_part(value: Any) -> bool:  # noqa: ANN401
    return _holds(value, _TEXT_PART) or _holds(value, _FILE_PART)


_KINDS_7: Mapping[str, Fields] = {
    **_KINDS_6,
    "text-end": {**_KINDS_6["text-end"], "citations": optional(list_of("citations", _is_citation))},
    "tool-approval-request": {
        **_KINDS_6["tool-approval-request"],
        "reason": optional(STRING),
        "isAutomatic": optional(BOOLEAN),
    },
    "tool-approval-response": {
        "approvalId": Field(STRING),
        "approved": Field(BOOLEAN),
        "reason": optional(STRING),
        "providerExecuted": optional(BOOLEAN),
        **_PM,
    },
    "reasoning-file": {"url": Field(STRING), "mediaType": Field(STRING), **_PM},
    "custom": {"kind": Field(STRING), **_PM},
    "steering-message": {"id": Field(STRING), "parts": Field(list_of("message parts", _is_part))},
    "reset-step": {},
    "finish": {"finishReason": optional(one_of(*_REASONS, "interrupted")), "messageMetadata": optional(ANY)},
}

_FAMILIES: Mapping[str, Fields] = {
    "data-": {"data": Field(ANY), "id": optional(STRING), "transient": optional(BOOLEAN)}
}

SCHEMA_5 = ChunkSchema(
    kinds=_KINDS_5,
    families=_FAMILIES,
    unknown_fields="clients before 5.0.217 refuse a field that they do not know",
    skew={("finish", "finishReason", "unknown"): "clients of majors 6 and 7 refuse it"},
)
SCHEMA_6 = ChunkSchema(
    kinds=_KINDS_6,
    families=_FAMILIES,
    unknown_fields="clients before 6.0.231 refuse a field that they do not know",
)
SCHEMA_7 = ChunkSchema(
    kinds=_KINDS_7,
    families=_FAMILIES,
    unknown_fields="clients before 7.0.32 refuse a field that they do not know",
    skew={
        ("steering-message", None, None): "clients before 7.0.163 refuse it",
        ("reset-step", None, None): "clients before 7.0.70 refuse it",
        ("finish", "finishReason", "interrupted"): "clients before 7.0.149 refuse it",
    },
)

_STATES = {
    "begin": "nothing has come",
    "between steps": "the message has started, no step is open",
    "without step": "content has come without a step",
    "in step": "a step is open",
    "finished": "the message has finished",
    "aborted": "the message was aborted",
    "failed": "an error was reported, and the client has stopped reading",
    "closed": "the stream is terminated",
    "failed and closed": "the stream is terminated, and the client had stopped reading before",
}
# Each pair is a rule and the text that a finding shows as "expected".
_ONCE, _BEFORE = ("order.duplicate", "this kind only once"), ("order.start-missing", "start")
_OUTSIDE, _AFTER_FINISH = ("order.outside-step", "start-step"), ("order.after-finish", TERMINATOR)
_TRAILING = ("terminator.trailing", "nothing more")
_CUT, _UNFINISHED = ("stream.truncated", "the rest of the message"), ("order.finish-missing", "finish")
_UNTERMINATED = ("terminator.missing", TERMINATOR)

# "aside" stands for the kinds that may come anywhere in a message: metadata, data parts, the result of an earlier call.
TABLE = {
    "begin": {
        "start": Transition("between steps"),
        "start-step": Transition("in step", *_BEFORE),
        "content": Transition("without step", *_BEFORE),
        "aside": Transition("begin"),
        "finish-step": Transition("between steps", *_BEFORE),
        "finish": Transition("finished", *_BEFORE),
        "abort": Transition("aborted"),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_BEFORE),
        END: Transition("begin", "stream.empty", "events"),
    },
    "between steps": {
        "start": Transition("between steps", *_ONCE),
        "start-step": Transition("in step"),
        "content": Transition("without step", *_OUTSIDE),
        "aside": Transition("between steps"),
        "finish-step": Transition("between steps", "order.step-missing", "start-step"),
        "finish": Transition("finished"),
        "abort": Transition("aborted"),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_UNFINISHED),
        END: Transition("between steps", *_CUT),
    },
    "without step": {
        "start": Transition("without step", *_ONCE),
        "start-step": Transition("in step"),
        "content": Transition("without step"),
        "aside": Transition("without step"),
        "finish-step": Transition("between steps"),
        "finish": Transition("finished"),
        "abort": Transition("aborted"),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_UNFINISHED),
        END: Transition("without step", *_CUT),
    },
    "in step": {
        "start": Transition("in step", *_ONCE),
        "start-step": Transition("in step", "order.step-unfinished", "finish-step"),
        "content": Transition("in step"),
        "aside": Transition("in step"),
        "finish-step": Transition("between steps"),
        "finish": Transition("finished", "order.finish-before-step", "finish-step"),
        "abort": Transition("aborted"),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_UNFINISHED),
        END: Transition("in step", *_CUT),
    },
    "finished": {
        "start": Transition("finished", *_ONCE),
        "finish": Transition("finished", *_ONCE),
        **dict.fromkeys(
            ("start-step", "content", "aside", "finish-step", "abort"), Transition("finished", *_AFTER_FINISH)
        ),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed"),
        END: Transition("finished", *_UNTERMINATED),
    },
    "aborted": {
        **dict.fromkeys(("start", "start-step", "content", "aside"), Transition("aborted", *_AFTER_FINISH)),
        **dict.fromkeys(("finish-step", "finish", "abort"), Transition("aborted")),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed"),
        END: Transition("aborted", *_UNTERMINATED),
    },
    "failed": {
        **dict.fromkeys(("start", "start-step", "content", "aside"), Transition("failed")),
        **dict.fromkeys(("finish-step", "finish", "abort", "error"), Transition("failed")),
        TERMINATOR: Transition("failed and closed"),
        END: Transition("failed", *_UNTERMINATED),
    },
    "closed": {
        **dict.fromkeys(
            ("start", "start-step", "content", "aside", "finish-step", "finish", "abort"),
            Transition("closed", *_TRAILING),
        ),
        "error": Transition("failed and closed", *_TRAILING),
        TERMINATOR: Transition("closed", "terminator.count", "one [DONE]"),
        END: Transition("closed"),
    },
    "failed and closed": {
        **dict.fromkeys(
            ("start", "start-step", "content", "aside", "finish-step", "finish", "abort", "error"),
            Transition("failed and closed", *_TRAILING),
        ),
        TERMINATOR: Transition("failed and closed", "terminator.count", "one [DONE]"),
        END: Transition("failed and closed"),
    },
}

_RESULTS = frozenset(
    {"tool-output-available", "tool-output-error", "tool-output-denied", "tool-approval-response"}
)
_RESET = frozenset({"reset-step"})


def _parts(name: str, *, closed_with_step: bool) -> Scope:
    return open_scope(
        name=f"{name} part",
        key=("id",),
        opened_by={f"{name}-start"},
        named_by={f"{name}-delta", f"{name}-end"},
        closed_by={f"{name}-end"},
        once={f"{name}-start"},
        closed_before=_RESET | ({"finish-step"} if closed_with_step else frozenset()),
        closed_at_end=True,
        rule="order.unopened-part",
    )


def _grammar(call_flags: tuple[str, ...], *, closed_with_step: bool) -> Grammar:
    return Grammar(
        initial="begin",
        symbols={
            **{kind: kind for kind in ("start", "start-step", "finish-step", "finish", "abort", "error")},
            **dict.fromkeys((*_RESULTS, "message-metadata", "data-*"), "aside"),
        },
        other="content",
        transitions={(state, symbol): to for state, row in TABLE.items() for symbol, to in row.items()},
        states=_STATES,
        new_step=frozenset({"start-step"}),
        scopes=(
            _parts("text", closed_with_step=closed_with_step),
            _parts("reasoning", closed_with_step=closed_with_step),
            open_scope(
                name="tool input",
                key=("toolCallId",),
                opened_by={"tool-input-start"},
                named_by={"tool-input-delta"},
                cleared_by=_RESET,
                rule="order.unopened-part",
            ),
            open_scope(
                name="tool call",
                key=("toolCallId",),
                flags=call_flags,
                # What names the call without its whole input completes it too: the client shows the result.
                begun_by={"tool-input-start"},
                opened_by={"tool-input-available", "tool-input-error"},
                once={"tool-input-start"},
                what_ends="tool input",
                closed_at_end=True,
                named_by=(_RESULTS - {"tool-approval-response"}) | {"tool-approval-request"},
                dropped_by=_RESET,
                rule="order.unknown-call",
                known=True,
            ),
            open_scope(
                name="approval",
                key=("approvalId",),
                opened_by={"tool-approval-request"},
                named_by={"tool-approval-response"},
                dropped_by=_RESET,
                rule="order.unknown-approval",
            ),
        ),
        breaks_off=frozenset({"abort", "error"}),
        terminator_alone_is_empty=True,
        unseen=frozenset({"failed", "failed and closed"}),
        closed=frozenset({"closed", "failed and closed"}),
    )


_CONTENT: Mapping[str, str] = {
    "text-delta": "delta",
    "reasoning-delta": "delta",
    "tool-input-delta": "inputTextDelta",
    # It brings the whole input of a call, which may be `{}`.
    "tool-input-available": "toolName",
}
"""Kinds that carry the answer, with the field that must not be empty."""
_VISIBLE = (
    "tool-input-start",
    "tool-input-error",
    "tool-output-available",
    "tool-output-error",
    "tool-output-denied",
    "tool-approval-request",
    "tool-approval-response",
    "source-url",
    "source-document",
    "file",
    "reasoning-file",
    "custom",
    "data-*",
)
"""Other kinds that become a part of the message, or change one, so that a user sees something."""
_REFUSED = frozenset(
    {
        "head.status",
        "head.redirect",
        "transport.unreachable",
        "transport.reset",
        "json.syntax",
        "json.prototype",
        "schema.not-object",
        "schema.unknown-kind",
        "schema.missing-field",
        "schema.field-type",
        "order.unopened-part",
        "order.unknown-call",
        "order.unknown-approval",
    }
)
"""Rules that are violations, because the client refuses a stream that breaks them. Other rules are losses, if a user sees the defect,
or warnings."""


def _contract(major: int, schema: ChunkSchema, grammar: Grammar) -> StreamContract:
    def weight(rule: str) -> Severity:
        # The client reconnects never. Only a test of reconnections applies these rules, and then it means them.
        if rule in _REFUSED or rule.startswith("resume."):
            return Severity.VIOLATION
        return Severity.LOSS if RULES[rule].user_sees else Severity.WARNING

    return StreamContract(
        name=f"ai-sdk-{major}",
        chunks=schema,
        order=grammar,
        terminator=TERMINATOR,
        error=ServiceError(kind="error", code="errorText"),
        content=_CONTENT,
        visible=_VISIBLE,
        head=HeadRules(statuses=tuple(range(200, 300)), required={"x-vercel-ai-ui-message-stream": "v1"}),
        protocol_severities={rule: weight(rule) for rule in RULES},
    )


AI_SDK_5: Final = _contract(5, SCHEMA_5, _grammar(("dynamic",), closed_with_step=True))
"""The contract of the AI SDK's client, major 5 (measured on 5.0.277)."""
AI_SDK_6: Final = _contract(6, SCHEMA_6, _grammar((), closed_with_step=True))
"""The contract of the AI SDK's client, major 6 (measured on 6.0.326)."""
AI_SDK_7: Final = _contract(7, SCHEMA_7, _grammar((), closed_with_step=False))
"""The contract of the AI SDK's client, major 7 (measured on 7.0.173)."""
