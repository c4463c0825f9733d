"""The events of a chat turn, and their bytes on the wire."""

import json
from collections.abc import Iterable, Mapping

from cutover.simulation.exchange import Event, Piece, Reply

DONE = Event("[DONE]")
MODEL = "gpt-5.2-codex"
STREAM_HEADERS = (
    ("content-type", "text/event-stream; charset=utf-8"),
    ("cache-control", "no-cache"),
    ("x-accel-buffering", "no"),
    ("x-vercel-ai-ui-message-stream", "v1"),
)


def turn_events(*, thread_id: str, turn_id: str, text: str) -> tuple[Event, ...]:
    """Return the events of a turn that repeats the first words of the user's text. The text ``tool`` adds a tool call."""
    middle: list[dict[str, object]] = []
    if "tool" in text.lower():
        call = f"call_{turn_id}"
        middle += [
            {
                "toolCallId": call,
                "toolName": "workspace.search",
                "input": {"query": text},
                "type": "tool-input",
            },
            {"toolCallId": call, "delta": "1 match", "type": "tool-output"},
            {"toolCallId": call, "status": "completed", "type": "tool-output"},
        ]
    answer = f"text_{turn_id}"
    middle.append({"id": answer, "turnId": turn_id, "type": "text-start"})
    for word in ("You ", "said: ", *(f"{word} " for word in text.split()[:8])):
        middle.append({"id": answer, "delta": word, "channel": "assistant", "type": "text-delta"})
    return _turn(thread_id=thread_id, turn_id=turn_id, middle=middle)


def preview_events(*, thread_id: str, turn_id: str) -> tuple[Event, ...]:
    """Return the events of the lane's short preview: an accepted turn without its text."""
    return _turn(thread_id=thread_id, turn_id=turn_id, middle=())


def _turn(*, thread_id: str, turn_id: str, middle: Iterable[Mapping[str, object]]) -> tuple[Event, ...]:
    chunks: tuple[Mapping[str, object], ...] = (
        {"source": "codex", "threadId": thread_id, "type": "start"},
        {"model": MODEL, "threadId": thread_id, "turnId": turn_id, "type": "start-step"},
        *middle,
        {"status": "accepted", "turnId": turn_id, "type": "finish-step"},
        {"status": "accepted", "type": "finish"},
    )
    return (*map(Event, chunks), DONE)


def stream_reply(events: tuple[Event, ...], *, one_body: bool) -> Reply:
    """Return the reply for a turn: events sent one by one, or with ``one_body`` one body with a content-length."""
    return Reply(headers=STREAM_HEADERS, body=events, streamed=not one_body, started_turn=True)


def event_bytes(event: Event, *, line_end: str = "\n", spaced: bool = False, shuffled: bool = False) -> bytes:
    """Return the bytes of an event: a data line and an empty line (WHATWG HTML 9.2.5).

    Args:
        event: the event.
        line_end: the end of each line: LF, CR or CRLF.
        spaced: True for JSON with spaces after its colons and commas.
        shuffled: True for the keys of the JSON object in reverse alphabetical order.
    """
    data = event.data
    if not isinstance(data, str):
        ordered = dict(sorted(data.items(), reverse=True)) if shuffled else data
        data = json.dumps(ordered, separators=(", ", ": ") if spaced else (",", ":"), ensure_ascii=False)
    return f"data: {data}{line_end}{line_end}".encode()


def event_type(piece: Piece) -> str | None:
    """Return the kind of an event's chunk; the data of an event without chunk (``[DONE]``); None for another piece."""
    if not isinstance(piece, Event):
        return None
    return piece.data if isinstance(piece.data, str) else str(piece.data.get("type"))
