"""The chunks of the compatibility lane's stream aliases, and the order in which they come.

The AI SDK's clients can read a turn without tools and errors. They refuse this lane's own forms of `tool-input`,
`tool-output` and `error`. If such a client reads the stream, check the stream against `AI_SDK_5`, `AI_SDK_6` or `AI_SDK_7`.
"""

from typing import Final

from cutover.contract.chunks import ANY, BOOLEAN, STRING, ChunkSchema, Field, one_of, optional
from cutover.contract.definition import StreamContract
from cutover.contract.findings import Severity
from cutover.contract.grammar import END, TERMINATOR, Grammar, ServiceError, Transition, open_scope
from cutover.contract.head_rules import HeadRules
from cutover.contract.own_rules import Unchanged

SCHEMA = ChunkSchema(
    kinds={
        "start": {"threadId": optional(STRING), "source": optional(STRING)},
        "start-step": {"threadId": optional(STRING), "turnId": optional(STRING), "model": optional(STRING)},
        "text-start": {"id": Field(STRING), "turnId": Field(STRING)},
        "text-delta": {
            "id": Field(STRING),
            "delta": Field(STRING),
            "channel": Field(one_of("assistant", "reasoning")),
        },
        "tool-input": {"toolCallId": Field(STRING), "toolName": Field(STRING), "input": Field(ANY)},
        "tool-output": {"toolCallId": Field(STRING), "delta": optional(ANY), "status": optional(STRING)},
        "finish-step": {"turnId": optional(STRING), "status": optional(STRING)},
        "error": {"code": Field(STRING), "message": Field(STRING), "retryable": Field(BOOLEAN)},
        "finish": {"status": optional(STRING)},
    }
)
"""The kinds and their fields. A field that is not listed may have any value."""


def _kinds_with(field: str) -> tuple[str, ...]:
    """Return the kinds that have a field of this name."""
    return tuple(kind for kind, fields in SCHEMA.kinds.items() if field in fields)


_STATES = {
    "begin": "nothing has come",
    "started": "the turn has started",
    "in step": "a step is open",
    "step done": "the step has finished",
    "finished": "the turn has finished",
    "failed": "the service has reported an error",
    "closed": "the stream is terminated",
}

# Each pair is a rule and the text that a finding shows as "expected".
_START, _STEP = ("order.start-missing", "start"), ("order.step-missing", "start-step")
_FINISH_STEP, _FINISH = ("order.finish-before-step", "finish-step"), ("order.finish-missing", "finish")
_TWICE, _OUTSIDE = (
    ("order.duplicate", "this kind only once"),
    ("order.outside-step", "this kind between start-step and finish-step"),
)
_TRAILING, _CUT = ("terminator.trailing", "nothing more"), ("stream.truncated", "the rest of the turn")

TABLE = {
    "begin": {
        "start": Transition("started"),
        "start-step": Transition("in step", *_START),
        "content": Transition("in step", *_START),
        "finish-step": Transition("step done", *_START),
        "finish": Transition("finished", *_START),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_START),
        END: Transition("begin", "stream.empty", "events"),
    },
    "started": {
        "start": Transition("started", *_TWICE),
        "start-step": Transition("in step"),
        "content": Transition("in step", *_STEP),
        "finish-step": Transition("step done", *_STEP),
        "finish": Transition("finished", *_STEP),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_FINISH),
        END: Transition("started", *_CUT),
    },
    "in step": {
        "start": Transition("in step", *_TWICE),
        "start-step": Transition("in step", *_TWICE),
        "content": Transition("in step"),
        "finish-step": Transition("step done"),
        "finish": Transition("finished", *_FINISH_STEP),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_FINISH),
        END: Transition("in step", *_CUT),
    },
    "step done": {
        "start": Transition("step done", *_TWICE),
        "start-step": Transition("step done", *_TWICE),
        "content": Transition("step done", *_OUTSIDE),
        "finish-step": Transition("step done", *_TWICE),
        "finish": Transition("finished"),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_FINISH),
        END: Transition("step done", *_CUT),
    },
    "finished": {
        "start": Transition("finished", *_TWICE),
        "start-step": Transition("finished", *_TWICE),
        "content": Transition("finished", "order.after-finish", TERMINATOR),
        "finish-step": Transition("finished", *_TWICE),
        "finish": Transition("finished", *_TWICE),
        "error": Transition("finished"),
        TERMINATOR: Transition("closed"),
        END: Transition("finished", "terminator.missing", TERMINATOR),
    },
    "failed": {
        "start": Transition("failed"),
        "start-step": Transition("failed"),
        "content": Transition("failed"),
        "finish-step": Transition("failed"),
        "finish": Transition("finished"),
        "error": Transition("failed"),
        TERMINATOR: Transition("closed", *_FINISH),
        END: Transition("failed", *_CUT),
    },
    "closed": {
        **dict.fromkeys(
            ("start", "start-step", "content", "finish-step", "finish", "error"),
            Transition("closed", *_TRAILING),
        ),
        TERMINATOR: Transition("closed", "terminator.count", "one [DONE]"),
        END: Transition("closed"),
    },
}

GRAMMAR = Grammar(
    initial="begin",
    symbols={kind: kind for kind in ("start", "start-step", "finish-step", "finish", "error")},
    other="content",
    transitions={(state, symbol): to for state, row in TABLE.items() for symbol, to in row.items()},
    states=_STATES,
    new_step=frozenset({"start-step"}),
    scopes=(
        open_scope(
            name="text part",
            key=("id",),
            opened_by={"text-start"},
            named_by={"text-delta"},
            rule="order.unopened-part",
        ),
        open_scope(
            name="tool call",
            key=("toolCallId",),
            opened_by={"tool-input"},
            named_by={"tool-output"},
            rule="order.unknown-call",
            known=True,
        ),
    ),
    closed=frozenset({"closed"}),
)

COMPAT_LANE: Final = StreamContract(
    name="compat-lane",
    chunks=SCHEMA,
    order=GRAMMAR,
    terminator=TERMINATOR,
    error=ServiceError(kind="error", code="code", finish="finish", status="status", failed="error"),
    content={"text-delta": "delta", "tool-input": "toolName"},
    # The lane's preview is a whole turn without any content.
    protocol_severities={"stream.no-content": Severity.IGNORED},
    rules=(
        Unchanged("threadId", id="identity.thread", kinds=_kinds_with("threadId"), request="thread_id"),
        Unchanged("turnId", id="identity.turn", kinds=_kinds_with("turnId")),
    ),
    head=HeadRules(
        charset="utf-8",
        required={"x-vercel-ai-ui-message-stream": "v1"},
        refused=("x-oa-legacy-chat-retired",),
        sunset=("sunset", "x-oa-compat-sunset-date"),
        error_code="x-oa-compatibility-code",
    ),
)
"""The contract of the compatibility lane's stream aliases."""
