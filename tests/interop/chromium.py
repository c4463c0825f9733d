"""A headless Chromium that opens one page and says what happened in it, by the DevTools protocol."""

import base64
import contextlib
import itertools
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import attrs

from tests.interop import requirements

_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)
_START_SECONDS = 30
_LARGEST_MESSAGE = 64 << 20


@attrs.define(eq=False)
class Tab:
    """One page of the browser."""

    socket: aiohttp.ClientWebSocketResponse
    events: list[dict[str, Any]] = attrs.field(factory=list)
    """Everything that the browser has told so far and nobody asked for."""
    _numbers: "itertools.count[int]" = attrs.field(factory=lambda: itertools.count(1))

    async def ask(self, method: str, **parameters: object) -> dict[str, Any]:
        """Send one command; return its result."""
        number = next(self._numbers)
        await self.socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message: dict[str, Any] = await self.socket.receive_json()
            if message.get("id") == number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    async def open(self, path: Path) -> None:
        """Open a file, and wait until it is loaded."""
        for domain in ("Page", "Runtime", "Log", "Network", "Security"):
            await self.ask(f"{domain}.enable")
        await self.ask("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(await self.socket.receive_json())

    async def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        result = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def shown(self, *, width: int, dark: bool = False, media: str = "") -> None:
        """Show the page at a width, in the light or in the dark, on the screen or on paper (``media="print"``)."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.ask("Emulation.setEmulatedMedia", media=media, features=[scheme])

    async def picture(self) -> bytes:
        """Return a picture of the whole page."""
        result = await self.ask("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(result["data"])

    def complaints(self) -> list[object]:
        """Return what went wrong in the page: messages in its console, errors, violations of its policy."""
        return [
            event["params"]
            for event in self.events
            if event["method"] in {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
        ]

    def requested(self) -> list[str]:
        """Return the addresses that the page asked for."""
        return [
            event["params"]["request"]["url"]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent"
        ]


@asynccontextmanager
async def tab() -> AsyncIterator[Tab]:
    """Start a private browser and give its page. Without Chromium, skip or fail the test."""
    program = requirements.program("chromium", of="chromium")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [str(program), *_OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        with _started(command) as process:
            try:
                port = await _port(Path(profile), process)
                async with aiohttp.ClientSession() as session:
                    async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                        pages = [each for each in await reply.json() if each["type"] == "page"]
                    address = pages[0]["webSocketDebuggerUrl"]
                    async with session.ws_connect(address, max_msg_size=_LARGEST_MESSAGE) as socket:
                        yield Tab(socket=socket)
            finally:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()


def _started(command: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


async def _port(profile: Path, process: "subprocess.Popen[bytes]") -> int:
    """Return the port that the browser listens on; it writes it to its profile."""
    file = profile / "DevToolsActivePort"
    with anyio.fail_after(_START_SECONDS):
        while True:
            assert process.poll() is None, "chromium ended before it listened"
            if file.exists() and (found := re.match(r"(\d+)\n", file.read_text())):
                return int(found[1])
            await anyio.sleep(0.05)
