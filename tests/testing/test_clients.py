"""A check gives the same findings whichever client sends the request: httpx, or aiohttp, also on uvloop."""

import asyncio
import gc
import socket
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import aiohttp
import anyio
import attrs
import httpx
import pytest

from cutover import ContractReport, ContractViolation, check_stream, stream_contract
from cutover.checking.checked_stream import Hold
from cutover.checking.probe import probe_stream
from cutover.checking.waiting import give_up
from cutover.contract import ContractChecker, FailureKind, Limits
from cutover.http.connection import StreamRequest
from cutover.production.lane import COMPAT
from cutover.production.lane_prober import LaneProber
from cutover.protocols import AI_SDK_7
from tests.support.raw_server import RESET, WAIT, answering

pytestmark = pytest.mark.anyio

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nx-vercel-ai-ui-message-stream: v1\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"type": "start"}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
HUNG = 10.0
Client = httpx.AsyncClient | aiohttp.ClientSession


def new_client(library: str, **options: Any) -> Client:
    return httpx.AsyncClient(**options) if library == "httpx" else aiohttp.ClientSession(**options)


@pytest.fixture(params=["httpx", "aiohttp", "aiohttp on uvloop"])
def library(request: pytest.FixtureRequest) -> str:
    if "uvloop" in request.param:
        pytest.importorskip("uvloop")
    return str(request.param)


@pytest.fixture
def anyio_backend(library: str) -> object:
    return ("asyncio", {"use_uvloop": "uvloop" in library})


@asynccontextmanager
async def opened(library: str, **options: Any) -> AsyncGenerator[Client]:
    async with new_client(library.partition(" ")[0], **options) as client:
        yield client


async def report_of(library: str, url: str, **options: Any) -> ContractReport:
    with anyio.fail_after(HUNG):
        async with opened(library, **options) as client:
            return await check_stream(client, url, contract=AI_SDK_7)


def actual_of(report: ContractReport, rule: str) -> str:
    (finding,) = report.violations
    assert finding.rule == rule
    return finding.actual or ""


BROKEN = {
    "no response": ([], "0 bytes", "the connection was closed without a reply", "disconnected"),
    "half a head": ([HEAD], "0 bytes", "the connection was closed without a reply", "disconnected"),
    "reset before the head": ([RESET], "0 bytes", "the connection was reset", ""),
    "an illegal header line": (
        [HEAD + b"no colon\r\n\r\n"],
        "0 bytes",
        "the reply breaks the rules",
        "header",
    ),
    "two lengths": (
        [HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello"],
        "0 bytes",
        "the reply breaks the rules of HTTP",
        "Content-Length",
    ),
    "an illegal chunk size": (
        [CHUNKED, CHUNK, b"zz\r\n"],
        f"{len(EVENT)} bytes",
        "the reply breaks the rules of HTTP",
        "zz",
    ),
    "closed before the last chunk": (
        [CHUNKED, CHUNK],
        f"{len(EVENT)} bytes",
        "the reply was cut short",
        "complet",
    ),
    "closed before its length": (
        [HEAD + b"content-length: 100\r\n\r\n" + EVENT],
        f"{len(EVENT)} bytes",
        "the reply was cut short",
        "complet",
    ),
    "reset within chunks": ([CHUNKED + CHUNK, RESET], f"{len(EVENT)} bytes", "the connection was reset", ""),
    "reset of a body that ends with the connection": (
        [HEAD + b"\r\n" + EVENT, RESET],
        f"{len(EVENT)} bytes",
        "the connection was reset",
        "",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_broken_connection_is_told_by_its_cause(library: str, case: str) -> None:
    pieces, received, plain, words = BROKEN[case]
    async with answering(*pieces) as server:
        report = await report_of(library, server.url())
    actual = actual_of(report, "transport.reset")
    assert report.interrupted is FailureKind.RESET
    assert f"after {received}" in actual
    assert plain in actual
    assert words in actual
    assert "sub-exception" not in actual


async def test_bytes_that_came_with_the_break_count(library: str) -> None:
    async with answering(CHUNKED + CHUNK + b"5\r\nda") as server:
        report = await report_of(library, server.url())
    assert f"after {len(EVENT) + 2} bytes" in actual_of(report, "transport.reset")
    assert report.event_count == 1


async def test_a_port_that_nobody_serves_is_unreachable(library: str) -> None:
    with socket.socket() as unserved:
        unserved.bind(("127.0.0.1", 0))
        report = await report_of(library, f"http://127.0.0.1:{unserved.getsockname()[1]}/")
    assert "could not connect" in actual_of(report, "transport.unreachable")


async def test_a_name_that_does_not_resolve_is_unreachable(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = await report_of(library, "http://no-such-host.invalid/")
    assert "could not connect" in actual_of(report, "transport.unreachable")


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http:///stream", "http://" + "a" * 70 + "..b/"])
async def test_a_url_that_cannot_be_asked_is_unreachable(library: str, url: str) -> None:
    assert actual_of(await report_of(library, url), "transport.unreachable")


async def test_plain_http_to_a_tls_port_is_a_connection_without_a_reply(library: str) -> None:
    async with answering(tls=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as server:
        report = await report_of(library, server.url())
    assert "closed without a reply" in actual_of(report, "transport.reset")


async def test_tls_to_a_plain_port_is_unreachable(library: str) -> None:
    async with answering() as server:
        report = await report_of(library, server.url().replace("http:", "https:"))
    assert actual_of(report, "transport.unreachable")


async def test_a_gzip_header_that_lies_is_no_reset(library: str) -> None:
    async with answering(HEAD + b"content-encoding: gzip\r\n\r\n" + EVENT) as server:
        report = await report_of(library, server.url())
    assert "content-encoding is gzip" in actual_of(report, "transport.decoding")
    assert [each.rule for each in report.findings] == ["transport.decoding"]


async def test_a_client_that_raises_for_the_status_is_named(library: str) -> None:
    async def refuse(response: httpx.Response) -> None:
        response.raise_for_status()

    own: dict[str, Any] = (
        {"event_hooks": {"response": [refuse]}} if library == "httpx" else {"raise_for_status": True}
    )
    async with answering(b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno") as server:
        report = await report_of(library, server.url(), **own)
    assert "401" in actual_of(report, "transport.refused-status")


async def test_a_mock_without_a_route_is_named(library: str) -> None:
    class AllMockedAssertionError(AssertionError):
        """The error of respx."""

    errors: list[Exception] = (
        [AllMockedAssertionError("RESPX: not mocked!"), httpx.TimeoutException("No response can be found")]
        if library == "httpx"
        else [aiohttp.ClientConnectionError("Connection refused: POST http://chat.example/")]
    )
    for error in errors:

        async def raise_it(*_: Any, error: Exception = error, **__: Any) -> Any:
            raise error

        own: dict[str, Any] = (
            {"transport": httpx.MockTransport(raise_it)}
            if library == "httpx"
            else {"middlewares": (raise_it,)}
        )
        report = await report_of(library, "http://chat.example/", **own)
        assert str(error) in actual_of(report, "transport.no-route")


async def test_an_error_of_the_callers_own_code_is_raised_as_it_is(library: str) -> None:
    async def fail(*_: Any) -> Any:
        raise LookupError("a fault of the test's own")

    own: dict[str, Any] = (
        {"event_hooks": {"request": [fail]}} if library == "httpx" else {"middlewares": (fail,)}
    )
    with pytest.raises(LookupError, match="own") as caught:
        await report_of(library, "http://127.0.0.1:9/", **own)
    assert caught.value.__cause__ is not caught.value


# ---------------------------------------------------------------- deadlines


@pytest.mark.parametrize(
    ("limits", "rule", "kind"),
    [
        (Limits(first_event=0.05), "timing.first-event", FailureKind.STALL),
        (Limits(first_event=5.0, whole=0.05), "timing.deadline", FailureKind.DEADLINE),
    ],
)
@pytest.mark.parametrize("head", [b"", CHUNKED])
async def test_a_missed_deadline_is_no_fault_of_the_connection(
    library: str, limits: Limits, rule: str, kind: FailureKind, head: bytes
) -> None:
    contract = attrs.evolve(AI_SDK_7, limits=limits)
    async with answering(*([head] if head else []), WAIT) as server, opened(library) as client:
        report = await check_stream(client, server.url(), contract=contract)
        await server.until_closed(1)
    actual_of(report, rule)
    assert report.interrupted is kind


@pytest.mark.parametrize("early", [0.0, 0.0009])
@pytest.mark.parametrize(
    ("limits", "rule", "kind"),
    [
        (Limits(first_event=0.05), "timing.first-event", FailureKind.STALL),
        (Limits(first_event=5.0, whole=0.05), "timing.deadline", FailureKind.DEADLINE),
    ],
)
def test_a_timer_that_is_a_little_early_blames_no_other_limit(
    early: float, limits: Limits, rule: str, kind: FailureKind
) -> None:
    """The clock of uvloop counts whole milliseconds."""
    checker = ContractChecker(attrs.evolve(AI_SDK_7, limits=limits))
    assert not give_up(checker, None, elapsed=0.05 - early)
    actual_of(checker.report(), rule)
    assert checker.report().interrupted is kind


# ---------------------------------------------------------------- the request


async def test_the_request_is_the_same_on_both(library: str) -> None:
    headers = {"Accept": "text/event-stream;v=2", "x-name": "own"}
    async with answering(CHUNKED + CHUNK + b"0\r\n\r\n") as server:
        async with opened(library, headers={"x-client": "yes"}, cookies={"who": "me"}) as client:
            await check_stream(
                client, server.url("/a?b=%20c"), contract=AI_SDK_7, json={"id": "t"}, headers=headers
            )
        async with opened(library, base_url=f"http://127.0.0.1:{server.port}/") as client:
            await check_stream(client, "stream", contract=AI_SDK_7, method="GET")
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = sorted(line.lower() for line in lines)
    assert first == "POST /a?b=%20c HTTP/1.1"
    assert body == b'{"id":"t"}'
    assert [
        line for line in fields if line.startswith(("accept:", "cache-control", "content", "transfer"))
    ] == [
        "accept: text/event-stream;v=2",
        "cache-control: no-store",
        "content-length: 10",
        "content-type: application/json",
    ]
    assert {"x-name: own", "x-client: yes", "cookie: who=me"} <= set(fields)
    assert b"GET /stream HTTP/1.1" in server.requests[1]
    assert b"content-type" not in server.requests[1].lower()


async def test_a_long_request_is_sent_whole(library: str) -> None:
    text = "x" * (3 << 20)
    async with answering(CHUNKED + CHUNK + b"0\r\n\r\n") as server, opened(library) as client:
        await check_stream(client, server.url(), contract=AI_SDK_7, json=text)
    assert len(server.requests[0].partition(b"\r\n\r\n")[2]) == len(text) + 2
    assert b"chunked" not in server.requests[0]


async def test_a_held_request_keeps_its_last_byte_back(library: str) -> None:
    hold, request = Hold(), StreamRequest(method="POST", url="", body=b"0123456789")
    async with answering(CHUNKED + CHUNK + b"0\r\n\r\n") as server, opened(library) as client:
        request = attrs.evolve(request, url=server.url())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(probe_stream, client, request, contract=AI_SDK_7, hold=hold))
            with anyio.fail_after(HUNG):
                await hold.in_flight.wait()
                await anyio.sleep(0.05)
                assert server.requests == []
                hold.released.set()
    (received,) = server.requests
    assert received.endswith(b"\r\n\r\n0123456789")
    assert b"content-length: 10" in received.lower()
    assert b"transfer-encoding" not in received.lower()


@pytest.mark.parametrize("answer", [(WAIT,), (CHUNKED, CHUNK, b"0\r\n\r\n"), ()])
async def test_a_held_request_can_be_given_up(library: str, answer: tuple[bytes, ...]) -> None:
    """Nothing hangs, warns or stays behind: the service answers early, closes, or is left by the check."""
    hold, request = Hold(), StreamRequest(method="POST", url="", body=b"0123456789")
    async with (
        answering(*answer, waits_for_body=False) as server,
        opened(library) as client,
        anyio.create_task_group() as tasks,
    ):
        request = attrs.evolve(request, url=server.url())
        tasks.start_soon(partial(probe_stream, client, request, contract=AI_SDK_7, hold=hold))
        with anyio.fail_after(HUNG):
            await hold.in_flight.wait()
            await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    gc.collect()


async def test_the_last_event_id_is_sent_as_utf_8(library: str) -> None:
    event = 'id: grüße-%d\ndata: {"type": "start"}\n\n'
    data = "".join(event % number for number in range(6)).encode()
    pieces = (CHUNKED + b"%x\r\n%s\r\n" % (len(data), data), b"0\r\n\r\n")
    async with answering(*pieces) as server, opened(library) as client:
        await check_stream(client, server.url(), contract=AI_SDK_7, resume=True)
    assert "last-event-id: grüße-".encode() in server.requests[1].replace(b"Last-Event-Id", b"last-event-id")


async def test_redirects_are_reported_and_not_followed(library: str) -> None:
    async with answering(b"HTTP/1.1 307 Moved\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n") as server:
        report = await report_of(library, server.url())
    actual_of(report, "head.redirect")
    assert len(server.requests) == 1


async def test_the_probes_of_a_train_take_either_client(library: str) -> None:
    async with answering(CHUNKED + CHUNK, b"0\r\n\r\n") as server, opened(library) as client:
        prober = LaneProber(
            client=client,
            base_url=server.url(""),
            lane=COMPAT,
            headers={"x-build": "7"},
            contract=AI_SDK_7,
            thread_prefix="probe",
            token="marked-token",
        )
        probe = await prober.probe(COMPAT.aliases[0], label="smoke")
    assert (probe.status, probe.body, probe.unreachable) == (200, EVENT, None)
    assert b"POST /api/chat/stream HTTP/1.1" in server.requests[0]
    assert b"authorization: bearer marked-token" in server.requests[0].lower()


# ---------------------------------------------------------------- the response


async def test_a_character_is_whole_wherever_it_is_cut(library: str) -> None:
    event = 'data: {"type": "start", "messageId": "Grüße 🎉"}\n\n'.encode()
    cuts = [event[:35], event[35:40], event[40:44], event[44:]]
    async with answering(
        CHUNKED, *(b"%x\r\n%s\r\n" % (len(cut), cut) for cut in cuts), b"0\r\n\r\n"
    ) as server:
        report = await report_of(library, server.url())
    assert report.event_count == 1
    assert "stream.invalid-utf8" not in {finding.rule for finding in report.findings}


async def test_headers_come_in_their_order_and_with_every_value(library: str) -> None:
    async with (
        answering(HEAD + b"X-Two: 1\r\nx-two: 2\r\ncontent-length: 0\r\n\r\n") as server,
        opened(library) as client,
    ):
        probe = await probe_stream(client, StreamRequest(method="POST", url=server.url()), contract=AI_SDK_7)
    assert [(name.lower(), value) for name, value in probe.headers][-3:] == [
        (b"x-two", b"1"),
        (b"x-two", b"2"),
        (b"content-length", b"0"),
    ]


async def test_a_body_that_a_hook_has_read_is_checked_all_the_same(library: str) -> None:
    async def read_first(response: httpx.Response) -> None:
        await response.aread()

    async def read_first_too(request: Any, handler: Any) -> aiohttp.ClientResponse:
        response: aiohttp.ClientResponse = await handler(request)
        await response.read()
        return response

    own: dict[str, Any] = (
        {"event_hooks": {"response": [read_first]}}
        if library == "httpx"
        else {"middlewares": (read_first_too,)}
    )
    body = zlib.compress(EVENT, wbits=31)
    head = HEAD + b"content-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(body)
    async with answering(head + body) as server:
        report = await report_of(library, server.url(), **own)
    assert report.event_count == 1


@pytest.mark.parametrize("ends", [True, False])
async def test_a_client_stays_open_and_its_connections_in_order(library: str, ends: bool) -> None:
    pieces = (CHUNKED + CHUNK, b"0\r\n\r\n" if ends else WAIT)
    contract = attrs.evolve(AI_SDK_7, limits=Limits(event_gap=0.05))
    async with answering(*pieces, keeps_alive=ends) as server, opened(library) as client:
        for _ in range(2):
            report = await check_stream(client, server.url(), contract=contract)
            assert report.event_count == 1
        await server.until_closed(0 if ends else 2)
        assert client.is_closed is False if isinstance(client, httpx.AsyncClient) else not client.closed
    gc.collect()


async def test_a_check_can_be_cancelled(library: str) -> None:
    async with answering(CHUNKED + CHUNK, WAIT) as server, opened(library) as client:
        with anyio.move_on_after(0.05):
            await check_stream(client, server.url(), contract=AI_SDK_7)
        await server.until_closed(1)
    gc.collect()


async def test_a_session_reads_event_by_event_and_leaves(library: str) -> None:
    async with answering(CHUNKED, CHUNK, WAIT) as server:
        async with (
            opened(library, base_url=f"http://user:secret@127.0.0.1:{server.port}/") as client,
            stream_contract(client, "stream", contract=AI_SDK_7) as stream,
        ):
            assert (await stream.expect("start", within=HUNG)).json() == {"type": "start"}
            await stream.disconnect()
        await server.until_closed(1)


async def test_a_client_that_is_closed_while_it_reads_ends_the_check(library: str) -> None:
    reports: list[ContractReport] = []

    async def check(client: Client, url: str) -> None:
        reports.append(await check_stream(client, url, contract=AI_SDK_7))

    async with answering(CHUNKED + CHUNK, WAIT) as server:
        with anyio.fail_after(HUNG):
            async with anyio.create_task_group() as tasks, opened(library) as client:
                tasks.start_soon(check, client, server.url())
                await anyio.sleep(0.05)
    assert actual_of(reports[0], "transport.reset")


@pytest.mark.parametrize("reader", ["check", "session"])
async def test_nothing_keeps_a_body_that_nobody_asked_for(library: str, reader: str) -> None:
    delta = b'data: {"type": "text-delta", "id": "1", "delta": "%s"}\n\n' % (b"x" * 4000)
    opening = EVENT + b'data: {"type": "text-start", "id": "1"}\n\n'
    pieces = [b"%x\r\n%s\r\n" % (len(each), each) for each in (opening, *[delta * 25] * 200)]
    async with answering(CHUNKED, *pieces, b"0\r\n\r\n", pause=0) as server, opened(library) as client:
        tracemalloc.start()
        try:
            if reader == "check":
                report = await check_stream(client, server.url(), contract=AI_SDK_7)
            else:
                async with stream_contract(client, server.url(), contract=AI_SDK_7) as stream:
                    with pytest.raises(ContractViolation):
                        await stream.drain()
                    report = stream.report
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert report.chunk_counts["text-delta"] == 5000
    assert report.byte_count > 20_000_000
    # A session keeps events up to a bound, for a test that reads them.
    assert most < (2_000_000 if reader == "check" else 6_000_000)


def test_a_session_of_aiohttp_on_trio_is_refused_in_one_sentence() -> None:
    pytest.importorskip("trio")

    loop = asyncio.new_event_loop()
    session = loop.run_until_complete(_session())
    try:
        with pytest.raises(RuntimeError, match="works with asyncio only"):
            anyio.run(check_stream, session, "http://127.0.0.1:9/", backend="trio")
    finally:
        loop.run_until_complete(session.close())
        loop.close()


async def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession()
