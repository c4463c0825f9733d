"""The AI SDK in Node, majors 5, 6 and 7: its servers, which stream from mock models, and its chat clients."""

import base64
import fcntl
import functools
import json
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx

from cutover import AI_SDK_5, AI_SDK_6, AI_SDK_7, ContractReport, StreamContract, check_stream
from cutover.contract import Limits
from tests.interop import requirements

_PATIENT = Limits(first_event=60.0, event_gap=60.0, held_back_after=60.0)
CONTRACTS: Mapping[int, StreamContract] = {
    major: attrs.evolve(contract, limits=_PATIENT)
    for major, contract in ((5, AI_SDK_5), (6, AI_SDK_6), (7, AI_SDK_7))
}
"""Major version -> its contract, with long time limits because a machine is slow while it runs tests."""
HERE = Path(__file__).parent
_INSTALL = ("ci", "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1", "--fetch-timeout=20000")
_INSTALL_SECONDS = 90
_START_SECONDS = 30
_STOP_SECONDS = 10
_READ_SECONDS = 60


@functools.cache
def _node() -> Path | str:
    """Install the packages, once per session. Return the path of Node, or the reason why it cannot run."""
    node, npm = requirements.program("node", of="node"), requirements.program("npm", of="node")
    wanted = json.loads((HERE / "package-lock.json").read_text())["packages"]
    with (HERE / "package-lock.json").open() as lock:
        # sessions side by side share the packages
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _installed() == {name: each["version"] for name, each in wanted.items() if name}:
            return node
        try:
            done = subprocess.run(
                [npm, *_INSTALL],
                cwd=HERE,
                capture_output=True,
                text=True,
                check=False,
                timeout=_INSTALL_SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"npm did not finish within {_INSTALL_SECONDS} s"
    return node if done.returncode == 0 else f"npm failed: {' '.join(done.stderr.split())[:300]}"


def _installed() -> dict[str, str]:
    found = HERE / "node_modules" / ".package-lock.json"
    packages = json.loads(found.read_text())["packages"] if found.is_file() else {}
    return {name: each["version"] for name, each in packages.items()}


def node() -> Path:
    """Return the path of Node, with the packages installed in this folder. Without Node, skip or fail the test."""
    found = _node()
    if isinstance(found, str):
        requirements.missing("node", found)
    return found


@contextmanager
def mock_server() -> Iterator[str]:
    """Serve the streams of all three majors at ``/<major>/<scenario>``. The server ends when its standard input closes."""
    with subprocess.Popen(
        [node(), "mock_server.mjs"], cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        late = threading.Timer(_START_SECONDS, process.kill)
        late.start()
        try:
            assert process.stdout is not None
            port = process.stdout.readline().strip()
            late.cancel()
            assert port, "the mock server did not start; see its messages in the captured output"
            yield f"http://127.0.0.1:{port}"
        finally:
            late.cancel()
            _stop(process)


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop a server by closing its standard input, because a signal may reach only a program that started Node."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    finally:
        process.kill()


@attrs.frozen(kw_only=True)
class Reading:
    """The result of one real client that read one stream."""

    stage: str | None
    """Stage at which the client refused the stream: head, transport, json, schema or order. None: it did not refuse."""
    error: str | None
    """The error that the client shows its user. An error that the service reports is shown too, but is no refusal."""
    kinds: tuple[str, ...]
    """Kinds of the chunks that passed the client's schema."""
    text: str
    """The text of the answer."""


def recorded(body: bytes) -> Mapping[str, Any]:
    """Return a task for a client: read a recorded body."""
    return {"body": base64.b64encode(body).decode()}


def asking(url: str, *, headers: Mapping[str, str] | None = None, body: object = None) -> Mapping[str, Any]:
    """Return a task for a client: request a stream. Without ``body`` the client sends its own."""
    return {"url": url, "headers": dict(headers or {}), "request": body}


def read(major: int, tasks: Sequence[Mapping[str, Any]]) -> list[Reading]:
    """Run the chat client of one major on these tasks, one after the other. Return its readings."""
    done = subprocess.run(
        [node(), "chat_client.mjs", str(major)],
        cwd=HERE,
        input="".join(json.dumps(task) + "\n" for task in tasks).encode(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=_READ_SECONDS,
    )
    readings = [json.loads(line) for line in done.stdout.split(b"\n") if line]
    assert len(readings) == len(tasks)
    return [Reading(**{**each, "kinds": tuple(each["kinds"])}) for each in readings]


def stage(report: ContractReport) -> str | None:
    """Return the stage at which a client must refuse the stream, from the first violation of a report."""
    return report.violations[0].rule.partition(".")[0] if report.violations else None


async def check_all(streams: Iterable[tuple[str, StreamContract]], *, json: object) -> list[ContractReport]:
    """Check streams side by side, each against its contract. Every request has the same body."""
    reports: dict[int, ContractReport] = {}

    async def check(number: int, url: str, contract: StreamContract) -> None:
        reports[number] = await check_stream(client, url, contract=contract, strict=False, json=json)

    async with httpx.AsyncClient() as client, anyio.create_task_group() as tasks:
        for number, (url, contract) in enumerate(streams):
            tasks.start_soon(check, number, url, contract)
    return [reports[number] for number in sorted(reports)]
