"""An nginx in front of a stream. A contract check reports that nginx buffers or compresses it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from cutover import AI_SDK_7, COMPAT_LANE, ContractReport, ContractViolation, check_stream, stream_contract
from tests.interop.serving import nginx, served

pytestmark = pytest.mark.anyio

TURN = (
    '{"type":"start","threadId":"t1"}',
    '{"type":"start-step","threadId":"t1","turnId":"u","model":"m"}',
    '{"type":"text-start","id":"1","turnId":"u"}',
    *(
        f'{{"type":"text-delta","id":"1","delta":"{word} ","channel":"assistant"}}'
        for word in ("It", "takes", "its", "time") * 6
    ),
    '{"type":"finish-step","status":"accepted","turnId":"u"}',
    '{"type":"finish","status":"accepted"}',
    "[DONE]",
)
GAP = 0.06
"""Seconds between two events. The whole stream lasts longer than the check lets a proxy hold it back."""
HEADERS = {"x-vercel-ai-ui-message-stream": "v1", "cache-control": "no-cache"}
STREAMED = ("proxy_buffering off", "proxy_http_version 1.1", 'proxy_set_header Connection ""')
BUFFERED = ("proxy_buffering on",)
COMPRESSED = (*STREAMED, "gzip on", "gzip_types text/event-stream", "gzip_proxied any", "gzip_min_length 0")
BODY = {"id": "t1", "messages": [{"role": "user", "content": "hello"}]}


async def _turn(request: Request) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for data in TURN:
            yield f"data: {data}\n\n"
            await anyio.sleep(GAP)

    more: Mapping[str, str] = {"x-accel-buffering": "no"} if request.url.path == "/unbuffered" else {}
    return StreamingResponse(events(), media_type="text/event-stream", headers={**HEADERS, **more})


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    routes = [Route(path, _turn, methods=["POST"]) for path in ("/chat", "/unbuffered")]
    with served(lambda _: Starlette(routes=routes)) as url:
        yield url


@pytest.fixture
def front(request: pytest.FixtureRequest, app: str, tmp_path: Path) -> Iterator[str]:
    """Serve the app behind an nginx with the directives of the parameter."""
    with nginx(tmp_path, app, *request.param) as url:
        yield url


async def _check(url: str) -> ContractReport:
    async with httpx.AsyncClient() as client:
        return await check_stream(client, url, contract=COMPAT_LANE.strict(), json=BODY)


@pytest.mark.parametrize(
    ("front", "path"),
    [(STREAMED, "/chat"), (BUFFERED, "/unbuffered")],
    indirect=["front"],
    ids=["buffering-off", "the-app-forbids-buffering"],
)
async def test_the_contract_holds_behind_an_nginx_that_does_not_buffer(front: str, path: str) -> None:
    report = await _check(front + path)
    assert (report.ok, report.findings) == (True, ())
    assert report.event_count == len(TURN)
    assert report.timings.streamed


@pytest.mark.parametrize("front", [BUFFERED], indirect=True)
async def test_a_stream_that_nginx_buffers_is_reported_as_not_streamed(front: str) -> None:
    report = await _check(f"{front}/chat")
    (finding,) = report.findings
    assert (finding.rule, report.ok, report.event_count) == ("timing.not-streamed", False, len(TURN))
    assert "not streamed: nothing for " in finding.message
    assert "all at once" in str(report.timings)


# the test is about nginx, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("front", [BUFFERED], indirect=True)
async def test_a_test_of_a_buffered_stream_fails_with_that_finding_first(front: str) -> None:
    with pytest.raises(ContractViolation, match=r"^timing\.not-streamed[\s\S]*not streamed: nothing for "):
        async with stream_contract(front, "/chat", json=BODY) as stream:
            await stream.drain()


@pytest.mark.parametrize("front", [COMPRESSED], indirect=True)
async def test_a_stream_that_nginx_compresses_is_reported_as_compressed(front: str) -> None:
    report = await _check(f"{front}/chat")
    (finding,) = report.findings
    assert (finding.rule, report.event_count) == ("head.compressed", len(TURN))
    assert "a stream compressed with gzip" in finding.message


# the test is about nginx, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("front", [(*COMPRESSED[1:], *BUFFERED)], indirect=True)
async def test_a_buffered_and_compressed_stream_has_both_findings(front: str) -> None:
    report = await _check(f"{front}/chat")
    assert {finding.rule for finding in report.findings} == {"head.compressed", "timing.not-streamed"}


# the test is about nginx, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("front", "code", "words"),
    [
        (STREAMED, 0, ": ok "),
        (BUFFERED, 1, "not streamed"),
        (COMPRESSED, 0, "a stream compressed with gzip"),
    ],
    indirect=["front"],
    ids=["streamed", "buffered", "compressed"],
)
async def test_the_check_command_reports_the_same(front: str, code: int, words: str) -> None:
    command = [sys.executable, "-m", "cutover", "check", "--contract", "ai-sdk-7", f"{front}/chat"]
    done = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    )
    assert (done.returncode, words in done.stdout) == (code, True), done.stdout + done.stderr


async def test_an_nginx_without_a_server_behind_it_is_a_wrong_status(tmp_path: Path) -> None:
    with (
        nginx(tmp_path, "http://127.0.0.1:1") as url,
        pytest.raises(ContractViolation, match=r"^head\.status[\s\S]*502"),
    ):
        async with stream_contract(url, "/chat", contract=AI_SDK_7, json=BODY) as stream:
            await stream.drain()
