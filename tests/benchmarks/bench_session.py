"""Measure what a check costs beside what a test pays anyway: in this process, and over loopback. Run it by hand; it is no test.

    python tests/benchmarks/bench_session.py [--events N] [--rounds N] [--only TEXT]

In process, an ASGI app sends one event a chunk: in "flood" it only sends, and in "paced" it lets other tasks run after each send. Over
loopback, a server in its own process sends the events, each as a chunk, and the CPU time is the client's alone. A figure is CPU time in
microseconds per event, the median of interleaved rounds. The figure with an x is that row's time divided by the time of the peer: in
process httpx.ASGITransport with httpx-sse and json.loads, which buffers the whole body; over loopback httpx with the same two. The
peers check nothing. "ok" means that the wanted ratio holds: check_stream at most 2x and drain at most 2.5x in flood, both at most 3x
paced.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

import aiohttp
import anyio
import anyio.lowlevel
import httpx
import sniffio
import trio
from aiohttp_sse_client2.client import EventSource
from httpx_sse import aconnect_sse
from starlette.testclient import TestClient

from cutover.checking.probe import check_stream
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.protocols import AI_SDK_7
from cutover.testing import stream_contract

Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[
    [Any, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
Way: TypeAlias = Callable[[App, int], Awaitable[None]]

HEADERS = [(b"content-type", b"text/event-stream"), (b"x-vercel-ai-ui-message-stream", b"v1")]
OPENING = [
    b'data: {"type":"start"}\n\n',
    b'data: {"type":"start-step"}\n\n',
    b'data: {"type":"text-start","id":"1"}\n\n',
]
CLOSING = [
    b'data: {"type":"text-end","id":"1"}\n\n',
    b'data: {"type":"finish-step"}\n\n',
    b'data: {"type":"finish"}\n\n',
    b"data: [DONE]\n\n",
]
DELTA = b'data: {"type":"text-delta","id":"1","delta":"Hello wo"}\n\n'
LAST = "[DONE]"
HTTPX_PEER = "httpx, httpx-sse, json.loads"
PEER = "httpx.ASGITransport, httpx-sse, json.loads"
TARGETS = {
    ("check_stream", "flood"): 2.0,
    ("drain", "flood"): 2.5,
    ("check_stream", "paced"): 3.0,
    ("drain", "paced"): 3.0,
}


def app_of(events: int, *, paced: bool) -> App:
    chunks = [*OPENING, *[DELTA] * events, *CLOSING]

    async def app(scope: Any, receive: Any, send: Callable[[Message], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if paced:
                await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app


async def channel(app: App, events: int) -> None:
    """Hand the chunks over by the event loop's own queue, without HTTP."""
    put: Callable[[bytes], Awaitable[None]]
    get: Callable[[], Awaitable[bytes]]
    if sniffio.current_async_library() == "trio":
        sender, receiver = trio.open_memory_channel[bytes](16)
        put, get = sender.send, receiver.receive
    else:
        queue = asyncio.Queue[bytes](16)
        put, get = queue.put, queue.get

    async def produce() -> None:
        async def send(message: Message) -> None:
            if "body" in message:
                await put(message["body"])

        await app({}, None, send)  # type: ignore[arg-type]  # this app receives nothing

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(produce)
        while await get():
            pass


async def transport(app: App, events: int, *, read: float | None = None) -> None:
    limits = httpx.Timeout(None, read=read)
    async with (
        httpx.AsyncClient(
            transport=StreamingASGITransport(app), base_url="http://app", timeout=limits
        ) as client,
        client.stream("POST", "/") as response,
    ):
        async for _ in response.aiter_raw():
            pass


async def transport_with_timeout(app: App, events: int) -> None:
    await transport(app, events, read=30.0)


async def checked(app: App, events: int) -> None:
    async with httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://app") as client:
        report = await check_stream(client, "/", contract=AI_SDK_7)
    assert report.ok, report
    assert report.event_count == events + len(OPENING) + len(CLOSING)


async def drained(app: App, events: int) -> None:
    async with stream_contract(app, "/", contract=AI_SDK_7) as stream:
        await stream.drain()


async def expected_last(app: App, events: int) -> None:
    async with stream_contract(app, "/", contract=AI_SDK_7) as stream:
        await stream.expect(LAST)


async def peer(app: App, events: int) -> None:
    seen = 0
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app")
    async with client, aconnect_sse(client, "POST", "/") as source:
        async for event in source.aiter_sse():
            seen += 1
            if event.data != LAST:
                json.loads(event.data)
    assert seen == events + len(OPENING) + len(CLOSING)


def test_client(app: App, backend: str) -> None:
    with TestClient(app, backend=backend) as client:  # type: ignore[arg-type]
        body = client.post("/").text
    for event in body.split("\n\n"):
        if event and not event.endswith(LAST):
            json.loads(event.removeprefix("data: "))


WAYS: dict[str, Way] = {
    "the event loop's own queue": channel,
    "transport": transport,
    "transport with a read timeout": transport_with_timeout,
    "check_stream": checked,
    "drain": drained,
    "expect(last)": expected_last,
    PEER: peer,
}
TEST_CLIENT = "Starlette TestClient, json.loads"
COLUMNS = [(backend, pace) for backend in ("asyncio", "trio") for pace in ("flood", "paced")]


SERVED_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-vercel-ai-ui-message-stream: v1\r\n"
    b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
)


def serve(events: int) -> None:
    """Print a free port, and answer each request there with the stream, until this process is stopped."""
    chunks = [*OPENING, *[DELTA] * events, *CLOSING]
    framed = [b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SERVED_HEAD)
        for chunk in framed:
            writer.write(chunk)
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    asyncio.run(run())


async def httpx_checked(url: str, events: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client:
        report = await check_stream(client, url, contract=AI_SDK_7)
    assert report.ok, report


async def httpx_drained(url: str, events: int) -> None:
    async with (
        httpx.AsyncClient(trust_env=False, base_url=url) as client,
        stream_contract(client, "/", contract=AI_SDK_7) as stream,
    ):
        await stream.drain()


async def aiohttp_checked(url: str, events: int) -> None:
    async with aiohttp.ClientSession() as session:
        report = await check_stream(session, url, contract=AI_SDK_7)
    assert report.ok, report


async def aiohttp_drained(url: str, events: int) -> None:
    async with (
        aiohttp.ClientSession(url) as session,
        stream_contract(session, "/", contract=AI_SDK_7) as stream,
    ):
        await stream.drain()


async def httpx_peer(url: str, events: int) -> None:
    async with httpx.AsyncClient(trust_env=False) as client, aconnect_sse(client, "POST", url) as source:
        async for event in source.aiter_sse():
            if event.data != LAST:
                json.loads(event.data)


async def aiohttp_peer(url: str, events: int) -> None:
    async with EventSource(url, option={"method": "POST"}) as source:
        async for event in source:
            if event.data == LAST:
                break
            json.loads(event.data)


LOOPBACK: dict[str, Callable[[str, int], Awaitable[None]]] = {
    "check_stream, httpx": httpx_checked,
    "drain, httpx": httpx_drained,
    "check_stream, aiohttp": aiohttp_checked,
    "drain, aiohttp": aiohttp_drained,
    HTTPX_PEER: httpx_peer,
    "aiohttp, aiohttp-sse-client2, json.loads": aiohttp_peer,
}


def loopback(events: int, rounds: int) -> None:
    """Print the table of the ways over loopback."""
    command = [sys.executable, __file__, "--serve", str(events)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
            figures: dict[str, list[float]] = {name: [] for name in LOOPBACK}
            for _ in range(rounds):
                for name, way in LOOPBACK.items():
                    began = time.process_time()
                    anyio.run(way, url, events)
                    figures[name].append((time.process_time() - began) / events * 1e6)
        finally:
            server.terminate()
    print(f"\n{'CPU µs an event over loopback, asyncio':<46}")
    for name, taken in figures.items():
        here, other = statistics.median(taken), statistics.median(figures[HTTPX_PEER])
        print(f"{name:<46}{here:>8.1f} {here / other:>5.1f}x")


def cost(way: Way, backend: str, pace: str, events: int) -> float:
    app = app_of(events, paced=pace == "paced")
    began = time.process_time()
    anyio.run(way, app, events, backend=backend)
    return (time.process_time() - began) / events * 1e6


def cost_of_test_client(backend: str, pace: str, events: int) -> float:
    app = app_of(events, paced=pace == "paced")

    async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for message in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{message}.complete"})
        else:
            await app(scope, receive, send)

    began = time.process_time()
    test_client(with_lifespan, backend)
    return (time.process_time() - began) / events * 1e6


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--events", type=int, default=20_000)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--only", default="", help="rows whose name holds this text; the peer is always measured"
    )
    options.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return
    names = [name for name in (*WAYS, TEST_CLIENT) if given.only in name or name == PEER]
    figures: dict[tuple[str, str, str], list[float]] = {}
    for _ in range(given.rounds):
        for backend, pace in COLUMNS:
            for name in names:
                one = (
                    cost_of_test_client(backend, pace, given.events // 10)
                    if name == TEST_CLIENT
                    else cost(WAYS[name], backend, pace, given.events)
                )
                figures.setdefault((name, backend, pace), []).append(one)
    print(f"{'CPU µs an event, one event a chunk':<46}" + "".join(f"{f'{b} {p}':>18}" for b, p in COLUMNS))
    missed = 0
    for name in names:
        row = f"{name:<46}"
        for backend, pace in COLUMNS:
            here = statistics.median(figures[name, backend, pace])
            ratio = here / statistics.median(figures[PEER, backend, pace])
            wanted = TARGETS.get((name, pace))
            mark = "" if wanted is None else " ok" if ratio <= wanted else "  >"
            missed += mark == "  >"
            row += f"{here:>8.1f} {ratio:>5.1f}x{mark:<3}"
        print(row)
    print(
        f"{missed} of {len(TARGETS) * 2} ratios are above the wanted ones"
        if missed
        else "all wanted ratios hold"
    )
    loopback(given.events, given.rounds)


if __name__ == "__main__":
    main()
