"""The features of an event stream that a dual run compares: its grammar, not its text."""

import msgspec

from cutover.sse.events import MessageEvent, Truncated
from cutover.sse.parser import EventStreamParser
from cutover.text import printable

_DONE = "[DONE]"
_ENDS = frozenset({"finish", "finish-step", "abort"})
"""Kinds that end a part of the turn or all of it."""


def stream_features(body: bytes, *, with_text: bool) -> dict[str, object]:
    """Return the features of a stream, as a JSON object.

    Args:
        body: The whole body.
        with_text: True to include the joined text of the turn.

    Returns:
        ``order``: the kinds in order, one on each line; a run of the same delta counts once, because the same text can come in any
        number of deltas. ``tools``: the tools that were called, in order, with input and outcome. ``errors``: the code and the fields
        of each error. ``finish``: the status and the reason of each finish. ``end``: the end of the body. ``text``: the joined text.
    """
    order: list[str] = []
    tools: dict[str, dict[str, object]] = {}
    errors: list[object] = []
    finish: list[object] = []
    texts: list[str] = []
    truncated = False
    parser = EventStreamParser()
    for event in (*parser.receive_data(body), *parser.receive_eof()):
        truncated = truncated or isinstance(event, Truncated)
        if not isinstance(event, MessageEvent):
            continue
        kind, chunk = _read(event.data)
        if not (order and order[-1] == kind and "delta" in kind):
            order.append(kind)
        _note_tool(tools, chunk)
        if kind == "error":
            errors.append({"code": chunk.get("code"), "fields": " ".join(sorted(chunk))})
        if kind in _ENDS:
            finish.append({"kind": kind, **_picked(chunk, "status", "finishReason")})
        if kind.endswith("text-delta"):
            texts.append(str(chunk.get("delta", "")))
    features: dict[str, object] = {
        "order": "\n".join(order),
        "tools": list(tools.values()),
        "errors": errors,
        "finish": finish,
        "end": _end(order, truncated=truncated),
    }
    return {**features, "text": "".join(texts)} if with_text else features


def _read(data: str) -> tuple[str, dict[str, object]]:
    """Return the kind of an event, and its chunk; an empty chunk for data that is no JSON object."""
    if data == _DONE:
        return _DONE, {}
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return "(not JSON)", {}
    if not isinstance(chunk, dict):
        return "(not an object)", {}
    kind = printable(str(chunk.get("type")), 60)
    # Some tools stream their output under the same kind that ends it.
    partial = "delta" in chunk and "delta" not in kind
    return f"{kind} (delta)" if partial else kind, chunk


def _note_tool(tools: dict[str, dict[str, object]], chunk: dict[str, object]) -> None:
    """Note what a chunk says about a tool call: its name, its input, and its outcome."""
    call = chunk.get("toolCallId")
    if not isinstance(call, str):
        return
    tool = tools.setdefault(call, {})
    tool.update(_picked(chunk, "toolName", "input"))
    kind = str(chunk.get("type"))
    if "output" in kind and "delta" not in chunk:
        tool["outcome"] = chunk.get("status", kind)


def _picked(chunk: dict[str, object], *names: str) -> dict[str, object]:
    return {name: chunk[name] for name in names if name in chunk}


def _end(order: list[str], *, truncated: bool) -> str:
    if truncated:
        return "in the middle of an event"
    if not order or order[-1] != _DONE:
        return "without [DONE]"
    return "after [DONE]" if order.count(_DONE) == 1 else "after more than one [DONE]"
