"""Contracts that an owner could write: a job, a ticker, a chat with tools, and one for each rule that the shipped ones cannot break.

Stories of fixtures name them (`"own": "job"`), and so do the tests of `tests/contract` and the fuzz target for the checker.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from cutover.contract import (
    ANYTHING,
    TEXT,
    Contiguous,
    Each,
    Framing,
    JoinedJson,
    Kind,
    NeverFalls,
    StreamContract,
    Unchanged,
)


class Progress(msgspec.Struct):
    percent: int


class Done(msgspec.Struct):
    url: str


class Failed(msgspec.Struct):
    message: str


class Price(msgspec.Struct):
    symbol: Literal["A", "B"]
    price: float
    seq: int


class Part(msgspec.Struct):
    id: str


class TextDelta(msgspec.Struct):
    id: str
    text: str


class ToolStart(msgspec.Struct):
    id: str
    name: str


class ToolDelta(msgspec.Struct):
    id: str
    arguments: str


class Item(msgspec.Struct):
    index: int
    role: str | None = None


JOB: Final = StreamContract(
    name="job",
    method="GET",
    kind="/event",
    chunks={"queued": TEXT, "progress": Progress, "done": Done, "failed": Failed},
    order="queued? progress* (done | failed)",
    error="failed",
    rules=(NeverFalls("percent"),),
    resume="id",
)
TICKER: Final = StreamContract(
    name="ticker",
    method="GET",
    kind=Kind.single(),
    chunks=Price,
    endless=True,
    resume="id",
    rules=(Contiguous("seq"),),
)
CHAT: Final = StreamContract(
    name="chat",
    chunks={
        "start": ANYTHING,
        "text-start": Part,
        "text-delta": TextDelta,
        "text-end": Part,
        "tool-start": ToolStart,
        "tool-delta": ToolDelta,
        "tool-call": Part,
        "tool-result": Part,
        "ping": ANYTHING,
        "finish": ANYTHING,
    },
    order="start .* finish",
    each=(
        "text-start text-delta* text-end by id",
        "tool-start tool-delta* tool-call tool-result? by id",
    ),
    anywhere="ping",
    terminator="[DONE]",
    error="error",
    rules=(
        JoinedJson("arguments", by="id", kinds=("tool-delta",), until="tool-call"),
        Unchanged("thread", request="thread_id"),
    ),
)
NAMED: Final = StreamContract(
    name="named",
    kind=Kind.both("type"),
    chunks={
        "open": dict[str, str],
        "close": {"properties": {"code": {"type": "integer", "minimum": 1}}},
    },
    order="open* close",
)
ITEMS: Final = StreamContract(
    name="items",
    chunks={"item": Item, "text": Item, "item-done": Item},
    each=Each("item text* item-done by index", repeats="role", counts_from=0),
)
FRAMED: Final = StreamContract(
    name="framed",
    kind=Kind.single(),
    chunks=int,
    framing=Framing(only_lf=True, event_line=True, no_comments=True, no_bom=True, blank_line_at_end=True),
)


def _described(item: Mapping[str, Any], *, version: str = "3.2.0", **more: Any) -> StreamContract:
    """Return the contract of a document whose one stream has this schema for each event, or more keys beside it."""
    media = {"itemSchema": item, **more}
    response = {"200": {"description": "", "content": {"text/event-stream": media}}}
    return StreamContract.from_openapi(
        {"openapi": version, "paths": {"/x": {"get": {"responses": response}}}}, "/x", name="document"
    )


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema of an event whose data is JSON of this schema."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": schema}
    return {"type": "object", "required": ["data"], "properties": {"data": data}}


_NAMED_A = {"properties": {"event": {"const": "a"}}}
_EVENT: dict[str, Any] = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
DESCRIBED: Final[Mapping[str, StreamContract]] = {
    "schema.ambiguous": _described(
        {
            **_EVENT,
            "oneOf": [
                {**_NAMED_A, "required": ["event"]},
                {"properties": {"data": {"const": "x"}}},
            ],
        }
    ),
    "schema.stream": _described(_EVENT, schema={"type": "array", "minItems": 2}),
    "schema.format": _described(_json({"properties": {"at": {"type": "string", "format": "date-time"}}})),
    "schema.inherited-id": _described({**_EVENT, "required": ["data", "id"]}),
    "schema.write-only": _described(_json({"properties": {"secret": {"writeOnly": True}}})),
    "openapi.no-item-schema": StreamContract.from_openapi(
        {
            "openapi": "3.1.0",
            "paths": {
                "/x": {"get": {"responses": {"200": {"content": {"text/event-stream": {"schema": {}}}}}}}
            },
        },
        "/x",
    ),
    "openapi.item-is-payload": _described({"type": "object", "properties": {"price": {"type": "number"}}}),
    "openapi.nullable": _described(_json({"properties": {"note": {"type": "string", "nullable": True}}})),
    "openapi.overlapping": _described(
        {
            **_EVENT,
            "required": ["event"],
            "oneOf": [
                {
                    "properties": {
                        "event": {"const": "a"},
                        "data": {"contentMediaType": "application/json", "contentSchema": {"type": "object"}},
                    }
                },
                {"properties": {"data": {"contentMediaType": "application/json"}}},
            ],
        }
    ),
    "openapi.terminal-unpinned": _described(
        {
            **_EVENT,
            "anyOf": [_NAMED_A, {"properties": {"data": {"minLength": 1}}, "x-ms-sse-terminal-event": True}],
        }
    ),
    "openapi.unsatisfiable": _described({"type": "string"}, **{"x-speakeasy-sse-sentinel": "[DONE]"}),
    "openapi.version-unknown": _described(_EVENT, version="3.9.0"),
}
"""Id of a rule that only the contract of a document can break -> a contract."""

OWN: Final[Mapping[str, StreamContract]] = {
    **{each.name: each for each in (JOB, TICKER, CHAT, NAMED, ITEMS, FRAMED)},
    **DESCRIBED,
}
"""Name of a contract -> the contract."""
