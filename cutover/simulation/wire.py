"""ASGI messages in, ASGI messages out: where a request becomes a value, and a reply takes its course."""

import enum
import urllib.parse
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from starlette.types import Message, Receive, Scope, Send

from cutover.simulation.exchange import Event, Halt, Pause, Reply, Request
from cutover.simulation.streams import event_bytes

Sleep = Callable[[float], Awaitable[None]]

MAX_BODY_BYTES = 1 << 20


class ConnectionBroken(Exception):  # noqa: N818  what happened to the connection, on purpose
    """The simulation breaks this connection; an ASGI server closes it, an in-process reader sees this."""


class Disconnected(Exception):  # noqa: N818  what the client did
    """The client went away before its request was complete."""


class Ending(enum.Enum):
    """How an exchange ended."""

    COMPLETE = "complete"
    BROKEN = "broken"
    """The simulation broke the connection."""
    DISCONNECTED = "disconnected"
    """The client went away."""


def request_head(scope: Scope) -> Request:
    """A request without its body, which may not have come yet."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(urllib.parse.parse_qsl(scope.get("query_string", b"").decode("latin-1")))
    path = scope["path"]
    if path.startswith("http://"):  # what a proxy is asked (RFC 9112 3.2.2); some servers hand it on whole
        path = "/" + path.removeprefix("http://").partition("/")[2]
    client = ":".join(map(str, scope.get("client") or ()))
    return Request(method=scope["method"], path=path, query=query, headers=headers, body=b"", client=client)


async def read_body(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        Disconnected: the client went away first.
        ConnectionBroken: it is larger than ``MAX_BODY_BYTES``.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise ConnectionBroken("the request body is too large")
        if not message.get("more_body", False):
            return bytes(body)


async def send_reply(
    reply: Reply, *, receive: Receive, send: Send, sleep: Sleep, chunk_seconds: float
) -> Ending:
    """Send a reply until it ends or the client goes away, whichever is first."""
    ending = Ending.COMPLETE
    if reply.streamed or reply.status is None or reply.held:
        ending = Ending.DISCONNECTED
        async with anyio.create_task_group() as tasks:

            async def leave_with_the_client() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave_with_the_client)
            with suppress(OSError):  # the server's word for a client that is gone
                await sleep(reply.held)
                ending = await _take_course(reply, send, sleep, chunk_seconds)
            tasks.cancel_scope.cancel()
    if ending is not Ending.COMPLETE:
        return ending
    try:
        # The end of it stands outside: a client that leaves when it has everything has not gone away.
        if reply.streamed:
            await send({"type": "http.response.body", "body": b""})
        else:
            await _send_whole(reply, send)
    except OSError:
        return Ending.DISCONNECTED
    return Ending.COMPLETE


async def _take_course(reply: Reply, send: Send, sleep: Sleep, chunk_seconds: float) -> Ending:
    """Send head and pieces, but for the end; nothing of a reply that goes out as one body."""
    if reply.status is not None and not reply.streamed:
        return Ending.COMPLETE
    if reply.status is not None:
        await send(_head(reply.status, reply.headers))
    for piece in reply.body:
        match piece:
            case Pause(seconds):
                await sleep(seconds)
            case Halt.RESET:
                return Ending.BROKEN
            case Halt.STALL:
                await anyio.Event().wait()
            case _:
                await send({"type": "http.response.body", "body": _written(piece), "more_body": True})
                await sleep(chunk_seconds)
    return Ending.COMPLETE


async def _send_whole(reply: Reply, send: Send) -> None:
    body = b"".join(_written(piece) for piece in reply.body if isinstance(piece, Event | bytes))
    await send(_head(reply.status, (*reply.headers, ("content-length", str(len(body))))))
    await send({"type": "http.response.body", "body": body})


def _head(status: int | None, headers: tuple[tuple[str, str], ...]) -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": encoded}


def _written(piece: Event | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else event_bytes(piece)
