"""A server of event streams for load tests: a program that prints its port, and serves until its input ends.

    python tests/support/load_server.py [--deltas N] [--pause SECONDS]

Each path is one stream of the compatibility lane: a good one, or one that breaks one rule. The pieces of a body end
inside characters: a reader that decodes piece by piece breaks every one of them.
"""

import argparse
import asyncio
import contextlib
import gzip
import json
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

WORDS = "Größe, naïveté, 日本語, смысл, 😀👩‍👩‍👧"
BROKEN = {
    "/no-done": "terminator.missing",
    "/cut": "stream.truncated",
    "/two-starts": "order.duplicate",
    "/bad-json": "json.syntax",
    "/bad-utf8": "stream.invalid-utf8",
    "/unopened": "order.unopened-part",
    "/reset": "transport.reset",
    "/stall": "timing.event-gap",
    "/html": "head.content-type",
    "/failed": "head.status",
}
"""Path of a stream that breaks its contract -> the rule."""
_TYPES = b"content-type: text/event-stream; charset=utf-8\r\nx-vercel-ai-ui-message-stream: v1\r\n"


class Ending(Enum):
    """The last thing that the server does with a connection."""

    CLOSE = "close it"
    RESET = "break it: the peer reads a reset"
    HOLD = "leave it open until the peer closes it"


class Wire(NamedTuple):
    """The bytes of one response, piece by piece, and its ending."""

    pieces: list[bytes]
    ending: Ending = Ending.CLOSE


def event(chunk: object) -> bytes:
    data = chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False)
    return f"data: {data}\n\n".encode()


def turn(deltas: int) -> list[bytes]:
    """Return the events of a whole turn."""
    opening = ({"type": "start"}, {"type": "start-step"}, {"type": "text-start", "id": "1", "turnId": "t"})
    delta = {"type": "text-delta", "id": "1", "delta": WORDS, "channel": "assistant"}
    return [
        *map(event, (*opening, *[delta] * deltas, {"type": "finish-step"}, {"type": "finish"})),
        event("[DONE]"),
    ]


def cut_inside_characters(body: bytes) -> Iterator[bytes]:
    """Yield the body in pieces: each ends behind the first byte of a character that has more."""
    begin = 0
    for at, byte in enumerate(body, 1):
        # The first byte of a sequence of UTF-8 (RFC 3629).
        if byte >= 0xC0:
            yield body[begin:at]
            begin = at
    yield body[begin:]


def cut_once_in_each_event(events: Iterable[bytes]) -> Iterator[bytes]:
    """Yield as many pieces as there are events, and one more: each ends in the last character outside ASCII of its event."""
    kept = b""
    for each in events:
        at = max((at for at, byte in enumerate(each, 1) if byte >= 0xC0), default=len(each))
        yield kept + each[:at]
        kept = each[at:]
    yield kept


def head(*fields: bytes, status: bytes = b"200 OK", types: bytes = _TYPES) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n" + types + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def chunked(pieces: Iterable[bytes]) -> list[bytes]:
    """Return the pieces as chunks (RFC 9112 7.1), without the last chunk."""
    return [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]


def streams(deltas: int) -> dict[str, Wire]:
    """Return the response for each path."""
    events = turn(deltas)
    whole, middle = b"".join(events), len(events) // 2
    start, end = head(b"transfer-encoding: chunked"), b"0\r\n\r\n"
    packed = gzip.compress(whole[:200]) + gzip.compress(whole[200:])
    sorry = json.dumps({"error": {"code": "overloaded", "message": "no room"}}).encode()
    bodies = {
        "/good": events,
        "/no-done": events[:-1],
        "/cut": [*events[:middle], events[middle][:60]],
        "/two-starts": [events[0], *events],
        "/bad-json": [*events[:4], b'data: {"type":"text-delta",\n\n', *events[4:]],
        "/bad-utf8": [*events[:4], events[4].replace("é".encode(), b"\xe9"), *events[5:]],
        "/unopened": [*events[:2], *events[3:]],
    }
    compressed = head(b"transfer-encoding: chunked", b"content-encoding: gzip")
    length = b"content-length: %d" % len(whole)
    return {
        **{path: Wire([start, *chunked(cut_once_in_each_event(each)), end]) for path, each in bodies.items()},
        "/reset": Wire([start, *chunked(events[:4])], Ending.RESET),
        "/stall": Wire([start, *chunked(events[:4])], Ending.HOLD),
        "/html": Wire([head(b"content-length: 13", types=b"content-type: text/html\r\n"), b"<html></html>"]),
        "/failed": Wire(
            [
                head(
                    b"content-length: %d" % len(sorry),
                    status=b"503 Service Unavailable",
                    types=b"content-type: application/json\r\n",
                ),
                sorry,
            ]
        ),
        "/redirect": Wire([head(b"location: /good", b"content-length: 0", status=b"302 Found", types=b"")]),
        "/small-pieces": Wire([start, *chunked(whole[at : at + 7] for at in range(0, len(whole), 7)), end]),
        "/length": Wire([head(length), *cut_inside_characters(whole)]),
        "/close": Wire([head(), *cut_inside_characters(whole)]),
        "/beyond": Wire([head(length) + whole + b"bytes that nobody announced"]),
        "/interim": Wire([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" + head(length) + whole]),
        "/short": Wire([head(b"content-length: %d" % (len(whole) + 7)), whole]),
        "/half-chunk": Wire([start, *chunked(events[:4]), b"99\r\ndata: {"]),
        "/no-chunk": Wire([start, *chunked(events[:4]), b"no length\r\n"]),
        "/gzip": Wire([compressed, *chunked((packed[:33], packed[33:])), end]),
        "/no-gzip": Wire([compressed, *chunked([whole]), end]),
        "/bomb": Wire([compressed, *chunked([gzip.compress(whole) + gzip.compress(bytes(64 << 20))]), end]),
        "/unknown-coding": Wire([head(length, b"content-encoding: compress"), whole]),
        "/none": Wire([head(length, b"content-encoding: none"), whole]),
        "/no-answer": Wire([], Ending.CLOSE),
        "/no-http": Wire([b"\x15\x03\x03\x00\x02\x02\x46"]),
        "/half-head": Wire([head(length)[:30]]),
        "/silent": Wire([], Ending.HOLD),
        "/comments": Wire([start, *chunked([events[0], *[b": still here\n\n"] * 300])], Ending.HOLD),
        "/endless": Wire([start, *chunked(events[:3] + events[3:4] * 100)], Ending.HOLD),
    }


class Server:
    """Answers each request by its path."""

    def __init__(self, deltas: int, pause: float) -> None:
        self._wires, self._pause = streams(deltas), pause

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request, and end the connection."""
        # A client may leave at any time.
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        lengths = [line[15:] for line in request.lower().split("\r\n") if line.startswith("content-length:")]
        await reader.readexactly(int(lengths[0]) if lengths else 0)
        path = request.split(" ", 2)[1].partition("?")[0]
        wire = self._wires[path]
        for piece in wire.pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(self._pause)
        if wire.ending is Ending.HOLD:
            await reader.read()
        if wire.ending is Ending.RESET:
            peer: socket.socket = writer.get_extra_info("socket")
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def main(deltas: int, pause: float) -> None:
    """Serve on a free port of the loopback interface until the standard input ends."""
    server = await asyncio.start_server(Server(deltas, pause).serve, "127.0.0.1", 0, backlog=4096)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    ended = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(ended), sys.stdin)
    await ended.read()


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--deltas", type=int, default=8)
    options.add_argument("--pause", type=float, default=0.002)
    given = options.parse_args()
    asyncio.run(main(given.deltas, given.pause))
