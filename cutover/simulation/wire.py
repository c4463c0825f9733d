"""The ASGI side of the simulation: makes a request value from ASGI messages, and sends a reply as ASGI messages."""

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
"""Largest request body that the simulation accepts."""


class ConnectionBroken(Exception):  # noqa: N818  the name states the event; it is not an error here
    """A connection that the simulation breaks. An ASGI server then closes it; a caller in this process gets this exception."""


class Disconnected(Exception):  # noqa: N818  the name states the event; it is not an error here
    """The client closed the connection before its request was complete."""


class Ending(enum.Enum):
    """The end of an exchange."""

    COMPLETE = "complete"
    """The whole reply was sent."""
    BROKEN = "broken"
    """The simulation broke the connection."""
    DISCONNECTED = "disconnected"
    """The client closed the connection."""


def request_head(scope: Scope) -> Request:
    """Return the request of an ASGI scope, without its body, which may not have come yet."""
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    query = dict(urllib.parse.parse_qsl(scope.get("query_string", b"").decode("latin-1")))
    path = scope["path"]
    # A client of a proxy sends the whole URL as target (RFC 9112 3.2.2). Some servers pass it on as the path.
    if path.startswith("http://"):
        path = "/" + path.removeprefix("http://").partition("/")[2]
    client = ":".join(map(str, scope.get("client") or ()))
    return Request(method=scope["method"], path=path, query=query, headers=headers, body=b"", client=client)


async def read_body(receive: Receive) -> bytes:
    """Return the whole body of a request.

    Raises:
        Disconnected: the client closed the connection before the end of the body.
        ConnectionBroken: the body is larger than ``MAX_BODY_BYTES``.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise ConnectionBroken(f"the request body is larger than {MAX_BODY_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)


async def send_reply(
    reply: Reply, *, receive: Receive, send: Send, sleep: Sleep, chunk_seconds: float
) -> Ending:
    """Send a reply until it ends or the client closes the connection, and return the end of the exchange.

    Args:
        reply: the reply.
        receive: the ASGI receive function.
        send: the ASGI send function.
        sleep: the function that waits, in seconds of the production's clock.
        chunk_seconds: seconds of pause after each sent piece of a streamed body.
    """
    ending = Ending.COMPLETE
    if reply.streamed or reply.status is None or reply.held:
        ending = Ending.DISCONNECTED
        async with anyio.create_task_group() as tasks:

            async def cancel_on_disconnect() -> None:
                while (await receive())["type"] != "http.disconnect":
                    pass
                tasks.cancel_scope.cancel()

            tasks.start_soon(cancel_on_disconnect)
            # An ASGI server raises OSError from `send` when the client has closed the connection.
            with suppress(OSError):
                await sleep(reply.held)
                ending = await _send_pieces(reply, send, sleep, chunk_seconds)
            tasks.cancel_scope.cancel()
    if ending is not Ending.COMPLETE:
        return ending
    try:
        # The last message is sent outside the task group: a client that closes after the whole reply did not disconnect.
        if reply.streamed:
            await send({"type": "http.response.body", "body": b""})
        else:
            await _send_whole(reply, send)
    except OSError:
        return Ending.DISCONNECTED
    return Ending.COMPLETE


async def _send_pieces(reply: Reply, send: Send, sleep: Sleep, chunk_seconds: float) -> Ending:
    """Send the head and the pieces of a streamed reply, without the last message. A reply with one body is not sent here."""
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
                await send({"type": "http.response.body", "body": _piece_bytes(piece), "more_body": True})
                if chunk_seconds:
                    await sleep(chunk_seconds)
    return Ending.COMPLETE


async def _send_whole(reply: Reply, send: Send) -> None:
    body = b"".join(_piece_bytes(piece) for piece in reply.body if isinstance(piece, Event | bytes))
    await send(_head(reply.status, (*reply.headers, ("content-length", str(len(body))))))
    await send({"type": "http.response.body", "body": body})


def _head(status: int | None, headers: tuple[tuple[str, str], ...]) -> Message:
    encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    return {"type": "http.response.start", "status": status, "headers": encoded}


def _piece_bytes(piece: Event | bytes) -> bytes:
    return piece if isinstance(piece, bytes) else event_bytes(piece)
