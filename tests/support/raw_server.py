"""A server on the loopback interface that sends the bytes it is given, whatever they are, and keeps what it received."""

import socket
import ssl
import struct
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import attrs
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.tls import TLSListener

PAUSE = 0.01
"""Seconds between two pieces, so that they arrive one by one."""
WAIT = b"wait"
"""Stands for a pause without an end: the connection stays open."""
RESET = b"reset"
"""Stands for a reset of the connection."""


@attrs.define(eq=False)
class RawServer:
    """A server that gives the same answer to every connection."""

    pieces: Sequence[bytes]
    """The pieces that it sends; `WAIT` and `RESET` are no bytes but actions. After the last one it closes the connection."""
    waits_for_body: bool = True
    """False to answer as soon as the head of the request has come."""
    keeps_alive: bool = False
    """True to wait for another request after the answer, instead of closing the connection."""
    pause: float = PAUSE
    port: int = 0
    requests: list[bytes] = attrs.field(factory=list)
    """The bytes that came before the answer, one for each connection."""
    closed: int = 0
    """The number of connections that the client has closed while the server waited."""

    def url(self, path: str = "/stream") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    async def until_closed(self, count: int) -> None:
        """Wait until the client has closed so many connections."""
        with anyio.fail_after(5):
            while self.closed < count:  # noqa: ASYNC110  a server that only counts is the simpler one
                await anyio.sleep(0.005)

    async def answer(self, connection: SocketStream) -> None:
        async with connection:
            await self._answer_one(connection)
            while self.keeps_alive:
                await self._answer_one(connection)

    async def _answer_one(self, connection: SocketStream) -> None:
        request = b""
        while not (_is_whole(request) if self.waits_for_body else b"\r\n\r\n" in request):
            try:
                request += await connection.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                self.keeps_alive = False
                return
        self.requests.append(request)
        for number, piece in enumerate(self.pieces):
            await anyio.sleep(self.pause if number else 0)
            if piece is WAIT:
                with suppress(anyio.EndOfStream, anyio.BrokenResourceError):
                    while True:
                        await connection.receive()
                self.closed += 1
            elif piece is RESET:
                connection.extra(SocketAttribute.raw_socket).setsockopt(  # noqa: S610  this is not Django's extra()
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            else:
                await connection.send(piece)


def _is_whole(request: bytes) -> bool:
    """Return True if the request has come with its body, or if it is no request but the beginning of TLS."""
    if request.startswith(b"\x16\x03"):
        return True
    head, end, body = request.partition(b"\r\n\r\n")
    length = next(
        (
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ),
        0,
    )
    return bool(end) and len(body) >= length


@asynccontextmanager
async def answering(
    *pieces: bytes,
    tls: ssl.SSLContext | None = None,
    waits_for_body: bool = True,
    keeps_alive: bool = False,
    pause: float = PAUSE,
) -> AsyncGenerator[RawServer]:
    """Serve these pieces on a free port."""
    server = RawServer(pieces, waits_for_body, keeps_alive, pause)
    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        server.port = listener.extra(SocketAttribute.local_port)  # noqa: S610  this is not Django's extra()
        # Under TLS, only a handshake can succeed, and no test here makes one.
        serve: Any = listener.serve if tls is None else TLSListener(listener, tls).serve
        tasks.start_soon(serve, server.answer)
        yield server
        tasks.cancel_scope.cancel()
