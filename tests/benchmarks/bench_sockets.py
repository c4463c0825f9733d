"""Measure what many open streams cost over loopback: `check_stream` on httpx and on aiohttp, beside readers that check nothing.

Each row is a process of its own, and so is the server. It opens all streams slowly, then the server sends the events, one in each HTTP
chunk. The cells show the CPU time of an event in microseconds, the memory of a stream in kilobytes, the CPU time to open a stream in
microseconds, and the 99th percentile of the lateness of the row's event loop in milliseconds.

Trust ratios within one table. Run it small with `--loads 200:0.1 --seconds 5`. It needs one file descriptor for each stream.
"""

import argparse
import asyncio
import contextlib
import gc
import importlib.util
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import attrs
import httpx
from httpx_sse import aconnect_sse

from cutover import check_stream
from cutover.contract import Limits
from cutover.protocols import AI_SDK_7

LOADS = ("200:0.1", "1000:0.4", "3000:1")
TICK = 0.02
"""Seconds between two rounds of the server, and of the clock that measures the lateness of a loop."""
OPENING = b'data: {"type":"start"}\n\ndata: {"type":"start-step"}\n\ndata: {"type":"text-start","id":"1"}\n\n'
DELTA = b'data: {"type":"text-delta","id":"1","delta":"another word "}\n\n'
CONTRACT = attrs.evolve(AI_SDK_7, limits=Limits(first_event=600.0, event_gap=600.0, whole=3600.0))
Read = Callable[[str], Awaitable[object]]


# ---------------------------------------------------------------- the server


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@attrs.define(eq=False)
class Server:
    """A server of streams that all begin at once and send nothing until the command to send comes."""

    streams: list[asyncio.StreamWriter] = attrs.field(factory=list)
    sent: int = 0
    sending: asyncio.Task[None] | None = None

    async def stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-vercel-ai-ui-message-stream: v1\r\n"
            )
            writer.write(head + b"transfer-encoding: chunked\r\n\r\n" + _chunk(OPENING))
            self.streams.append(writer)
            await reader.read()

    async def send(self, interval: float) -> None:
        """Send each stream an event in each interval. Each round serves its share of the streams, so that the load is even."""
        rounds = max(1, round(interval / TICK))
        begins, number, event = time.monotonic(), 0, _chunk(DELTA)
        while True:
            number += 1
            for writer in self.streams[number % rounds :: rounds]:
                if not writer.is_closing():
                    writer.write(event)
                    self.sent += 1
            await asyncio.sleep(max(0.0, begins + number * TICK - time.monotonic()))

    async def command(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer `count` and `send SECONDS` with the numbers of streams and of events that were sent."""
        while line := await reader.readline():
            name, *seconds = line.split()
            if name == b"send":
                self.sending = asyncio.create_task(self.send(float(seconds[0])))
            writer.write(json.dumps([len(self.streams), self.sent]).encode() + b"\n")


async def serve() -> None:
    """Serve streams on one port and commands on another one, and print both."""
    server = Server()
    ports = [
        (await asyncio.start_server(handle, "127.0.0.1", 0, backlog=4096)).sockets[0].getsockname()[1]
        for handle in (server.stream, server.command)
    ]
    print(*ports, flush=True)
    await asyncio.sleep(24 * 3600)


# ---------------------------------------------------------------- the readers


@asynccontextmanager
async def _httpx() -> AsyncGenerator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None, trust_env=False) as client:  # noqa: S113  streams are long
        yield client


@asynccontextmanager
async def _aiohttp() -> AsyncGenerator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


@asynccontextmanager
async def httpx_sse() -> AsyncGenerator[Read]:
    async with _httpx() as client:

        async def read(url: str) -> None:
            async with aconnect_sse(client, "POST", url) as source:
                async for event in source.aiter_sse():
                    json.loads(event.data)

        yield read


@asynccontextmanager
async def aiohttp_alone() -> AsyncGenerator[Read]:
    async with _aiohttp() as session:

        async def read(url: str) -> int:
            lines = 0
            async with session.post(url, timeout=aiohttp.ClientTimeout(total=None)) as response:
                while data := await response.content.readany():
                    lines += data.count(b"\n")
            return lines

        yield read


@asynccontextmanager
async def check_on_httpx() -> AsyncGenerator[Read]:
    async with _httpx() as client:
        yield lambda url: check_stream(client, url, contract=CONTRACT)


@asynccontextmanager
async def check_on_aiohttp() -> AsyncGenerator[Read]:
    async with _aiohttp() as session:
        yield lambda url: check_stream(session, url, contract=CONTRACT)


READERS: dict[str, Callable[[], Any]] = {
    "httpx-sse + json.loads": httpx_sse,
    "check_stream on httpx": check_on_httpx,
    "aiohttp alone": aiohttp_alone,
    "check_stream on aiohttp": check_on_aiohttp,
}
WITH_UVLOOP = ("aiohttp alone", "check_stream on aiohttp")


# ---------------------------------------------------------------- one row


def _kilobytes() -> int:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def measure(reader: str, ports: Sequence[int], load: str, seconds: float, ramp: float) -> None:
    """Print the figures of one row as JSON."""
    streams, _, pause = load.partition(":")
    count, interval = int(streams), float(pause)
    url = f"http://127.0.0.1:{ports[0]}/api/chat/stream"
    answers, commands = await asyncio.open_connection("127.0.0.1", ports[1])

    async def ask(command: str) -> tuple[int, int]:
        commands.write(command.encode() + b"\n")
        opened, sent = json.loads(await answers.readline())
        return opened, sent

    async def until_open(wanted: int) -> None:
        while (await ask("count"))[0] < wanted:  # noqa: ASYNC110  the server counts in its own process
            await anyio.sleep(0.05)

    late: list[float] = []

    async def tick() -> None:
        while True:
            began = time.monotonic()
            await anyio.sleep(TICK)
            late.append(time.monotonic() - began - TICK)

    async with READERS[reader]() as read, anyio.create_task_group() as tasks:
        tasks.start_soon(read, url)
        await until_open(1)
        gc.collect()
        held, used, began = _kilobytes(), time.process_time(), time.monotonic()
        for number in range(1, count):
            tasks.start_soon(read, url)
            await anyio.sleep(max(0.0, began + number / ramp - time.monotonic()))
        await until_open(count)
        opening = time.process_time() - used
        gc.collect()
        gc.freeze()
        await ask(f"send {interval}")
        await anyio.sleep(interval + 0.5)
        tasks.start_soon(tick)
        sent, used = (await ask("count"))[1], time.process_time()
        await anyio.sleep(seconds)
        events, spent = (await ask("count"))[1] - sent, time.process_time() - used
        figures = {
            "event": spent / events * 1e6,
            "memory": (_kilobytes() - held) / (count - 1),
            "open": opening / (count - 1) * 1e6,
            "late": sorted(late)[int(len(late) * 0.99)] * 1e3,
        }
        print(json.dumps(figures), flush=True)
        # Leaving in order would take longer than the measurement.
        os._exit(0)


def _row(reader: str, load: str, options: argparse.Namespace, *, uvloop: bool) -> str:
    """Return the cell of one row for one load."""
    own = [sys.executable, __file__]
    with subprocess.Popen([*own, "--serve"], stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            ports = server.stdout.readline().split()
            more = ["--uvloop"] if uvloop else []
            command = [*own, "--measure", reader, "--ports", *ports, "--loads", load, *more]
            command += ["--seconds", str(options.seconds), "--ramp", str(options.ramp)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        finally:
            server.terminate()
    if done.returncode:
        return "failed"
    figures = json.loads(done.stdout)
    return (
        f"{figures['event']:.0f} / {figures['memory']:.0f} / {figures['open']:,.0f} / {figures['late']:.1f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", nargs="+", default=LOADS, metavar="STREAMS:SECONDS_BETWEEN_EVENTS")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long each cell is measured")
    parser.add_argument("--ramp", type=float, default=400.0, help="streams opened in a second")
    parser.add_argument("--readers", nargs="+", default=list(READERS), choices=list(READERS))
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--ports", nargs=2, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--uvloop", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve())
        return
    if options.measure:
        how = (options.measure, options.ports, options.loads[0], options.seconds, options.ramp)
        anyio.run(measure, *how, backend_options={"use_uvloop": options.uvloop})
        return
    print("| µs an event / KB a stream / µs to open / ms late |", " | ".join(options.loads), "|")
    print("|---|" + "---|" * len(options.loads))
    loops = (False, True) if importlib.util.find_spec("uvloop") else (False,)
    for reader in options.readers:
        for uvloop in loops if reader in WITH_UVLOOP else (False,):
            cells = [_row(reader, load, options, uvloop=uvloop) for load in options.loads]
            print(f"| {reader}{', uvloop' * uvloop} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
