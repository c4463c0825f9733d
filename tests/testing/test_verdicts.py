"""A red test says what is wrong, with the cause; a green one means that the stream is whole, and that the app ended well."""

import contextlib
import copy
import gc
import pickle
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import anyio
import attrs
import httpx
import httpx2
import pytest
import requests
from fastapi import BackgroundTasks, Depends, FastAPI
from fastapi.responses import StreamingResponse
from starlette.testclient import TestClient

from cutover import check_recording, check_stream
from cutover.checking.probe import probe_stream
from cutover.contract import ANYTHING, ContractChecker, StreamContract
from cutover.errors import ConfigurationError, ContractViolation, OpenApiError, RefusedError
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.http.connection import StreamRequest
from cutover.protocols import AI_SDK_6, COMPAT_LANE
from cutover.testing import StreamSession, assert_stream, stream_contract

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HUNG = 20.0
"""Seconds after which a test that still waits has failed."""
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
GOOD = [
    '{"type":"start"}',
    '{"type":"start-step"}',
    '{"type":"text-start","id":"1"}',
    '{"type":"text-delta","id":"1","delta":"Hi"}',
    '{"type":"text-end","id":"1"}',
    '{"type":"finish-step"}',
    '{"type":"finish"}',
    "[DONE]",
]
JOB = StreamContract(name="job", chunks={"progress": ANYTHING, "done": ANYTHING}, end="done")


def service(
    events: list[str] = GOOD,
    *,
    after: Callable[[], Awaitable[None]] | None = None,
    teardown: Exception | None = None,
) -> FastAPI:
    """Return an app with one stream. ``after`` runs as a background task; ``teardown`` is raised by a dependency behind the response."""
    app = FastAPI()

    async def resource() -> AsyncIterator[None]:
        yield
        if teardown is not None:
            raise teardown

    @app.post("/", dependencies=[Depends(resource)])
    async def stream(background: BackgroundTasks) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            for event in events:
                yield f"data: {event}\n\n"

        if after is not None:
            background.add_task(after)
        return StreamingResponse(
            body(), media_type="text/event-stream", headers=HEADERS, background=background
        )

    return app


async def fail() -> None:
    raise LookupError("the turn was not saved")


# (a) the final verdict


async def test_a_missing_event_that_a_test_catches_leaves_the_final_verdict_on() -> None:
    with pytest.raises(ContractViolation, match=r"^terminator\.missing"):
        async with stream_contract(service(GOOD[:-1]), "/", contract=AI_SDK_6) as stream:
            with pytest.raises(ContractViolation, match=r"session\.expect"):
                await stream.expect("file", within=HUNG)


async def test_a_missing_event_that_a_test_catches_is_no_break_of_the_contract() -> None:
    async with stream_contract(service(), "/", contract=AI_SDK_6) as stream:
        with pytest.raises(ContractViolation, match=r"session\.take"):
            await stream.take(100, within=HUNG)
        assert (await stream.drain()).ok


async def test_a_verdict_that_a_test_catches_is_not_raised_again() -> None:
    async with stream_contract(service(GOOD[:-1]), "/", contract=AI_SDK_6) as stream:
        with pytest.raises(ContractViolation, match=r"^terminator\.missing"):
            await stream.drain()


# (b) one default for all


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b'data: {"type":"start"}\n\n'])
async def test_every_check_is_strict_unless_the_clients_own_verdict_is_asked_for(body: bytes) -> None:
    def answer(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-type": "text/event-stream", **HEADERS}, content=body)

    assert not check_recording(body, contract=AI_SDK_6).ok
    assert check_recording(body, contract=AI_SDK_6, strict=False).ok
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(answer), base_url="http://chat.example"
    ) as client:
        assert not (await check_stream(client, "/", contract=AI_SDK_6)).ok
        assert (await check_stream(client, "/", contract=AI_SDK_6, strict=False)).ok
        with pytest.raises(ContractViolation):
            async with stream_contract(client, "/", contract=AI_SDK_6) as stream:
                await stream.drain()
        async with stream_contract(client, "/", contract=AI_SDK_6, strict=False) as stream:
            assert (await stream.drain()).ok


# (f) limits


async def slow(_: Any, __: Any, send: Any) -> None:
    """An app whose stream takes 140 s."""
    head = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": head})
    for _ in range(14):
        await send(
            {"type": "http.response.body", "body": b'data: {"type":"progress"}\n\n', "more_body": True}
        )
        await anyio.sleep(10)
    await send({"type": "http.response.body", "body": b'data: {"type":"done"}\n\n'})


@pytest.mark.parametrize(
    ("whole", "deadline", "ok"), [(150.0, None, True), (20.0, None, False), (150.0, 20.0, False)]
)
async def test_the_contracts_own_limit_holds_unless_a_deadline_is_given(
    whole: float, deadline: float | None, *, ok: bool
) -> None:
    contract = attrs.evolve(JOB, limits=attrs.evolve(JOB.limits, whole=whole))
    async with httpx.AsyncClient(transport=StreamingASGITransport(slow), base_url="http://app") as client:
        report = await check_stream(client, "/", contract=contract, deadline=deadline)
    assert report.ok is ok
    if not ok:
        assert [finding.rule for finding in report.violations] == ["timing.deadline"]
    late = contextlib.nullcontext() if ok else pytest.raises(ContractViolation, match=r"^timing\.deadline")
    with late:
        async with stream_contract(slow, "/", contract=contract, deadline=deadline) as stream:
            await stream.drain()


# (h) the app after the last byte


@pytest.mark.parametrize("where", ["background", "teardown"])
async def test_an_error_of_the_app_after_the_last_byte_fails_the_test(where: str) -> None:
    app = service(after=fail) if where == "background" else service(teardown=LookupError("not given back"))
    with pytest.raises(ContractViolation, match=r"^app\.error: .*LookupError: ") as caught:
        async with stream_contract(app, "/", contract=AI_SDK_6) as stream:
            await stream.expect("[DONE]")
    assert isinstance(caught.value.__cause__, LookupError)
    assert [finding.rule for finding in caught.value.findings] == ["app.error"]


async def test_an_error_of_an_app_whose_client_has_left_fails_the_test() -> None:
    async def app(_: Any, receive: Any, send: Any) -> None:
        head = [(b"content-type", b"text/event-stream"), (b"x-vercel-ai-ui-message-stream", b"v1")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b'data: {"type":"start"}\n\n', "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        raise LookupError("not given back")

    with pytest.raises(ContractViolation, match=r"^app\.error: .*LookupError: not given back"):
        async with stream_contract(app, "/", contract=AI_SDK_6) as stream:
            await stream.expect("start")
            await stream.disconnect()


async def test_check_stream_raises_an_error_of_the_app_after_the_last_byte() -> None:
    async with httpx.AsyncClient(
        transport=StreamingASGITransport(service(after=fail)), base_url="http://app"
    ) as client:
        with pytest.raises(LookupError, match="the turn was not saved"):
            await check_stream(client, "/", contract=AI_SDK_6)


async def test_a_background_task_that_ends_well_is_waited_for() -> None:
    done: list[str] = []

    async def save() -> None:
        await anyio.sleep(1)
        done.append("saved")

    async with stream_contract(service(after=save), "/", contract=AI_SDK_6) as stream:
        await stream.drain()
        assert done == ["saved"]


# (j) errors of the check itself


@pytest.mark.parametrize("use", [StreamSession.drain, lambda stream: stream.expect("[DONE]")])
async def test_a_mistake_in_the_checker_is_not_blamed_on_the_app(
    monkeypatch: pytest.MonkeyPatch, use: Callable[[StreamSession], Awaitable[object]]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake in the checker")

    monkeypatch.setattr(ContractChecker, "receive_data", broken)
    with pytest.raises(ZeroDivisionError, match="a mistake in the checker"):
        async with stream_contract(service(), "/", contract=AI_SDK_6) as stream:
            await use(stream)


# (k) synchronous clients


@pytest.mark.parametrize(
    "make", [httpx.Client, requests.Session, httpx2.Client, lambda: TestClient(service())]
)
async def test_a_synchronous_client_is_refused_at_once(make: Callable[[], Any]) -> None:
    client = make()
    with pytest.raises(TypeError, match=r"asynchronous client.*not a synchronous"):
        await check_stream(client, "http://chat.example/")
    with pytest.raises(TypeError, match=r"asynchronous client.*not a synchronous"):
        async with stream_contract(client, "/"):
            pass
    client.close()


async def test_something_that_is_no_peer_is_refused_at_once() -> None:
    with pytest.raises(TypeError, match="an ASGI app, a base URL or an asynchronous client"):
        async with stream_contract(3, "/"):  # type: ignore[arg-type]
            pass
    with pytest.raises(TypeError, match="asynchronous client"):
        await check_stream("http://chat.example", "/")  # type: ignore[arg-type]


# (l) memory


LARGE = 1 << 20
LARGE_JOB = attrs.evolve(JOB, limits=attrs.evolve(JOB.limits, max_event_bytes=2 * LARGE))


def large_service(count: int) -> FastAPI:
    """Return an app that sends so many events of 1 MiB, all from one text."""
    event = f'{{"type":"progress","text":"{"x" * (LARGE - 100)}"}}'
    return service([*[event] * count, '{"type":"done"}'])


@contextlib.contextmanager
def at_most(size: int) -> Iterator[None]:
    """Hold the memory that this block takes at one time to so many bytes."""
    gc.collect()
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size


async def test_a_session_keeps_large_events_by_their_memory() -> None:
    app = large_service(160)
    with at_most(60 * LARGE):
        async with stream_contract(app, "/", contract=LARGE_JOB) as stream:
            await stream.expect("progress")
            # Nobody reads: what waits is bounded.
            await anyio.sleep(1)
            await stream.expect("done")
            assert (await stream.drain()).ok


@pytest.mark.parametrize("paced", [0.0, 5.0])
async def test_a_test_that_reads_late_is_not_blamed_on_the_stream(
    monkeypatch: pytest.MonkeyPatch, paced: float
) -> None:
    monkeypatch.setattr("cutover.testing.events.MAX_UNREAD", 5)

    async def app(_: Any, __: Any, send: Any) -> None:
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for kind in [*["progress"] * 40, "done"]:
            body = b'data: {"type":"%b"}\n\n' % kind.encode()
            await send({"type": "http.response.body", "body": body, "more_body": kind != "done"})
            await anyio.sleep(paced)

    contract = attrs.evolve(JOB, limits=attrs.evolve(JOB.limits, whole=400.0))
    async with stream_contract(app, "/", contract=contract) as stream:
        await stream.expect("progress")
        await anyio.sleep(300)
        await stream.expect("done")
        assert stream.report.timings.max_gap == pytest.approx(paced, abs=5.1)


async def test_a_slow_task_bounds_the_memory_of_large_events_too() -> None:
    app = large_service(120)
    with at_most(70 * LARGE):
        async with (
            stream_contract(app, "/", contract=LARGE_JOB) as stream,
            anyio.create_task_group() as tasks,
        ):
            await stream.expect("progress")

            async def read_on() -> None:
                await stream.expect("done")
                await anyio.sleep_forever()

            tasks.start_soon(read_on)
            await anyio.sleep(1)
            with pytest.raises(RuntimeError, match="has not read"):
                await stream.expect("progress")
            tasks.cancel_scope.cancel()


async def test_a_probe_keeps_a_body_only_if_asked() -> None:
    async with httpx.AsyncClient(
        transport=StreamingASGITransport(service()), base_url="http://app"
    ) as client:
        request = StreamRequest(method="POST", url="/")
        assert (await probe_stream(client, request, contract=AI_SDK_6)).body == b""
        assert b"[DONE]" in (await probe_stream(client, request, contract=AI_SDK_6, capture=True)).body


# (m) copies


@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError(["A is wrong", "B is wrong"]),
        OpenApiError("openapi.version-unknown", "no version", where="/openapi"),
        RefusedError("refused", status=409, retry_after=1.5),
    ],
)
def test_every_error_can_be_pickled_and_copied(error: Exception) -> None:
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301  it loads its own bytes
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


def test_a_violation_can_be_pickled_and_copied() -> None:
    with pytest.raises(ContractViolation) as caught:
        check_recording(b"").raise_for_violations()
    for other in (pickle.loads(pickle.dumps(caught.value)), copy.deepcopy(caught.value)):  # noqa: S301  it loads its own bytes
        assert str(other) == str(caught.value)
        assert other.findings == caught.value.findings
        assert isinstance(other, AssertionError)


# (n) exception groups


async def test_an_error_in_a_group_is_named_itself() -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [ValueError("no model")]), KeyError("turn")])

    with pytest.raises(ContractViolation) as caught:
        async with stream_contract(app, "/") as stream:
            await stream.drain()
    message = str(caught.value)
    assert "the app raised ValueError: no model; KeyError: 'turn'" in message
    assert "sub-exception" not in message.partition("again:")[0]
    assert isinstance(caught.value.__cause__, ExceptionGroup)


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file"), ConnectionRefusedError("no model"), TimeoutError("slow")]
)
async def test_an_error_of_the_app_is_its_own_whatever_its_type(error: Exception) -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        head = [(b"content-type", b"text/event-stream"), (b"x-vercel-ai-ui-message-stream", b"v1")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": b'data: {"type":"start"}\n\n', "more_body": True})
        raise error

    async with httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://app") as client:
        with pytest.raises(type(error)):
            await check_stream(client, "/", contract=AI_SDK_6)
    with pytest.raises(
        ContractViolation, match=rf"^transport\.reset: .*the app raised {type(error).__name__}"
    ):
        async with stream_contract(app, "/", contract=AI_SDK_6) as stream:
            await stream.drain()


@pytest.mark.parametrize(("is_split", "rules"), [(True, []), (False, ["timing.not-streamed"])])
async def test_in_process_the_apps_own_sends_decide_whether_it_streamed(
    is_split: bool, rules: list[str]
) -> None:
    async def app(_: Any, __: Any, send: Any) -> None:
        head = [(b"content-type", b"text/event-stream"), (b"x-vercel-ai-ui-message-stream", b"v1")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await anyio.sleep(1.1)
        delta = '{"type":"text-delta","id":"1","delta":"Hi"}'
        events = [f"data: {each}\n\n".encode() for each in [*GOOD[:4], *[delta] * 40, *GOOD[4:]]]
        for body in events if is_split else [b"".join(events)]:
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async with httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://app") as client:
        report = await check_stream(client, "/", contract=AI_SDK_6)
    assert [finding.rule for finding in report.findings] == rules


# (i) causes


@pytest.mark.parametrize(
    ("error", "rule", "words"),
    [
        (httpx.ReadError("peer is gone"), "transport.reset", "the connection was reset (peer is gone)"),
        (httpx.ConnectError("no such host"), "transport.unreachable", "could not connect (no such host)"),
        (
            httpx.TimeoutException("No response can be found for POST"),
            "transport.no-route",
            "No response can",
        ),
        (httpx.DecodingError("incorrect header check"), "transport.decoding", "incorrect header check"),
    ],
)
async def test_a_failure_is_named_by_its_cause_in_the_clients_words(
    error: Exception, rule: str, words: str
) -> None:
    def raises(_: httpx.Request) -> httpx.Response:
        raise error

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(raises), base_url="http://chat.example"
    ) as client:
        report = await check_stream(client, "/", contract=COMPAT_LANE)
        with pytest.raises(ContractViolation) as caught:
            async with stream_contract(client, "/") as stream:
                await stream.drain()
    assert [finding.rule for finding in report.findings] == [rule]
    assert words in report.findings[0].message
    assert words in str(caught.value).splitlines()[0]
    assert caught.value.__cause__ is error


async def test_a_header_that_cannot_be_sent_is_not_blamed_on_the_network() -> None:
    def raises(_: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError("Illegal header value")

    async with httpx.AsyncClient(
        transport=httpx.MockTransport(raises), base_url="http://x.example"
    ) as client:
        with pytest.raises(httpx.LocalProtocolError, match="Illegal header value"):
            await check_stream(client, "/")


async def test_a_hook_that_refuses_a_status_is_named_with_the_status() -> None:
    async def refuse(response: httpx.Response) -> None:
        response.raise_for_status()

    transport = httpx.MockTransport(lambda _: httpx.Response(401))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://chat.example", event_hooks={"response": [refuse]}
    ) as client:
        report = await check_stream(client, "/")
    assert [finding.rule for finding in report.findings] == ["transport.refused-status"]
    assert "401 Unauthorized" in report.findings[0].message


def test_a_synchronous_test_takes_the_same_options() -> None:
    assert assert_stream(service(GOOD[:-1]), "/", contract=AI_SDK_6, strict=False).ok
