"""The ASGI side: a request is read into a value, and a reply is sent with its pauses and breaks."""

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
    """The simulation breaks this connection. An ASGI server closes it; a reader in process gets this exception."""


class Disconnected(Exception):  # noqa: N818  what the client did
    """The client left before its request was complete."""


class Ending(enum.Enum):
    """The end of an exchange."""

    COMPLETE = "complete"
    BROKEN = "broken"
    """The simulation broke the connection."""
    DISCONNECTED = "disconnected"
    """The client left early."""


def request_head(scope: Scope) -> Request:
    """Return a request without its body, which may still be on its way."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(urllib.parse.parse_qsl(scope.get("query_string", b"").decode("latin-1")))
    path = scope["path"]
    # A request to a proxy has an absolute URL (RFC 9112 3.2.2); some servers pass it on whole.
    if path.startswith("http://"):
        path = "/" + path.removeprefix("http://").partition("/")[2]
    client = ":".join(map(str, scope.get("client") or ()))
    return Request(method=scope["method"], path=path, query=query, headers=headers, body=b"", client=client)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        Disconnected: the client left first.
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
    """Send a reply until it ends or the client leaves."""
    ending = Ending.COMPLETE
    if reply.streamed or reply.status is None or reply.held:
        ending = Ending.DISCONNECTED
        async with anyio.create_task_group() as tasks:

            async def leave_with_the_client() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(leave_with_the_client)
            # A server raises OSError for a client that has left.
            with suppress(OSError):
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
    """Send the head and the pieces without the end; nothing of a reply that is sent as one body."""
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
