"""stream_contract in a service's own tests: with an app in process, over a URL, and its failures."""

import asyncio
import gc
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import attrs
import httpx
import httpx2
import pytest
import trio
from anyio.abc import SocketAttribute, SocketStream
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from cutover.contract import StreamContext, StreamContract
from cutover.errors import ContractViolation
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.protocols import COMPAT_LANE
from cutover.testing.opening import assert_stream, stream_contract
from cutover.testing.peers import Peer
from cutover.testing.session import StreamSession
from tests.support.loopback_server import served

pytestmark = pytest.mark.anyio

HUNG = 20.0
"""Seconds after which a test that still waits has failed."""
PATH = "/api/chat/stream"
REQUEST = {"id": "t1", "messages": [{"role": "user", "content": "hello"}]}
CHUNKS: tuple[dict[str, Any], ...] = (
    {"threadId": "t1", "type": "start"},
    {"model": "gpt-5.2-codex", "threadId": "t1", "turnId": "turn_1", "type": "start-step"},
    {"id": "x", "turnId": "turn_1", "type": "text-start"},
    *({"id": "x", "delta": f"{n} ", "channel": "assistant", "type": "text-delta"} for n in range(9)),
    {"status": "accepted", "turnId": "turn_1", "type": "finish-step"},
    {"status": "accepted", "type": "finish"},
)
HEADERS = {"x-vercel-ai-ui-message-stream": "v1"}
EVENTS = (*(f"data: {json.dumps(chunk)}\n\n" for chunk in CHUNKS), "data: [DONE]\n\n")

Body = Callable[[], AsyncIterator[str]]


class Closing(StreamingResponse):
    """A response that closes its body. Starlette leaves an interrupted body to the garbage collector, and trio warns."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.body_iterator.aclose)  # type: ignore[attr-defined]  # this body is a generator
            await super().__call__(scope, receive, send)


def service(body: Body, **options: Any) -> FastAPI:
    """Return a FastAPI app with one stream, as a service owner writes it."""
    app = FastAPI()

    @app.post(PATH)
    async def stream() -> StreamingResponse:
        return Closing(body(), media_type="text/event-stream", **{"headers": HEADERS, **options})

    return app


async def good() -> AsyncIterator[str]:
    for event in EVENTS:
        yield event
        await anyio.lowlevel.checkpoint()


async def never_answers(scope: Message, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


async def failure_of(peer: Peer, **options: Any) -> ContractViolation:
    """Drain a stream that must break its contract, and return the violation."""
    with anyio.fail_after(HUNG), pytest.raises(ContractViolation) as caught:
        async with stream_contract(peer, PATH, json=REQUEST, **options) as stream:
            await stream.drain()
    return caught.value


# ---------------------------------------------------------------- a good stream


async def test_a_good_stream_passes_and_is_reported() -> None:
    async with stream_contract(service(good), PATH, json=REQUEST) as stream:
        report = await stream.drain()
    assert report.ok
    assert stream.status == 200
    assert stream.headers["x-vercel-ai-ui-message-stream"] == "v1"


async def test_expect_waits_for_events_one_by_one() -> None:
    """Each event arrives before the next is sent: the app waits until the test has seen it."""
    seen = anyio.Event()

    async def paced() -> AsyncIterator[str]:
        nonlocal seen
        for event in EVENTS:
            seen = anyio.Event()
            yield event
            await seen.wait()

    with anyio.fail_after(HUNG):
        async with stream_contract(service(paced), PATH, json=REQUEST) as stream:
            kinds = []
            for chunk in (*CHUNKS, {"type": "[DONE]"}):
                event = await stream.expect(chunk["type"], within=HUNG)
                kinds.append(event.kind)
                if event.kind == "start":
                    assert event.json() == CHUNKS[0]
                seen.set()
    assert kinds == [*(chunk["type"] for chunk in CHUNKS), "[DONE]"]


async def test_expect_skips_earlier_events() -> None:
    async with stream_contract(service(good), PATH, json=REQUEST) as stream:
        finish = await stream.expect("finish", within=HUNG)
        assert finish.index == len(CHUNKS) - 1
        assert finish.byte_offset == len("".join(EVENTS[:-2]).encode())


async def test_leaving_the_block_checks_the_unread_rest() -> None:
    async def open_ended() -> AsyncIterator[str]:
        for event in EVENTS[:-1]:
            yield event

    async def look_at_the_start_alone() -> None:
        async with stream_contract(service(open_ended), PATH, json=REQUEST) as stream:
            await stream.expect("start", within=HUNG)

    with anyio.fail_after(HUNG), pytest.raises(ContractViolation):
        await look_at_the_start_alone()


async def test_the_app_gets_the_request_as_it_was_given() -> None:
    received = []

    async def endpoint(request: Request) -> Response:
        received.append(
            (request.method, request.url.path, request.url.query, await request.json(), request.headers)
        )
        return StreamingResponse(good(), media_type="text/event-stream", headers=HEADERS)

    app = Starlette(routes=[Route(PATH, endpoint, methods=["PUT"])])
    async with stream_contract(
        app, f"{PATH}?a=1", method="PUT", json=REQUEST, headers={"authorization": "Bearer s3cret"}
    ) as stream:
        await stream.drain()
    [(method, path, query, body, headers)] = received
    assert (method, path, query, body) == ("PUT", PATH, "a=1", REQUEST)
    assert headers["authorization"] == "Bearer s3cret"
    assert headers["content-type"] == "application/json"


async def test_the_stream_must_belong_to_the_thread_of_the_request() -> None:
    async def ask(**options: Any) -> None:
        async with stream_contract(service(good), PATH, json={"id": "t2"}, **options) as stream:
            await stream.drain()

    with pytest.raises(ContractViolation, match=r"^identity\.thread: expected threadId t2, got t1"):
        await ask()
    await ask(context=StreamContext(thread_id="t1"))


async def test_the_apps_lifespan_runs_on_demand() -> None:
    started = []

    @asynccontextmanager
    async def lifespan(app: object) -> AsyncGenerator[None]:
        started.append(True)
        yield
        started.append(False)

    app = service(good)
    app.router.lifespan_context = lifespan
    async with stream_contract(app, PATH, json=REQUEST, lifespan=True) as stream:
        await stream.drain()
    assert started == [True, False]


# ---------------------------------------------------------------- apps, URLs and clients


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("kind", ["url", "httpx", "httpx2"])
async def test_a_real_url_can_be_requested_with_any_client(kind: str) -> None:
    with anyio.fail_after(HUNG):
        async with (
            served(service(good)) as url,
            httpx.AsyncClient(base_url=url) as client,
            httpx2.AsyncClient(base_url=url) as client2,
        ):
            peers: dict[str, Peer] = {"url": url, "httpx": client, "httpx2": client2}
            peer = peers[kind]
            async with stream_contract(peer, PATH, json=REQUEST) as stream:
                await stream.expect("start", within=HUNG)
                report = await stream.drain()
            assert report.ok
            with pytest.raises(ContractViolation):
                async with stream_contract(peer, "/nowhere", json=REQUEST) as stream:
                    await stream.drain()


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_clients_own_headers_are_sent(library: Any) -> None:
    got = []

    def answer(request: Any) -> Any:
        got.append(request.headers)
        head = {"content-type": "text/event-stream; charset=utf-8", **HEADERS}
        return library.Response(200, headers=head, content="".join(EVENTS).encode())

    transport = library.MockTransport(answer)
    mine = {"base_url": "http://chat.example", "headers": {"x-mine": "1"}, "auth": ("me", "pw")}
    async with (
        library.AsyncClient(transport=transport, **mine) as client,
        stream_contract(client, PATH, json=REQUEST, headers={"x-more": "2"}) as stream,
    ):
        await stream.drain()
    assert got[0]["x-mine"] == "1"
    assert got[0]["x-more"] == "2"
    assert got[0]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_failing_client_is_a_failed_contract(library: Any) -> None:
    def refuse(request: Any) -> Any:
        raise library.ConnectError("connection refused")

    async with library.AsyncClient(
        transport=library.MockTransport(refuse), base_url="http://chat.example"
    ) as client:
        failure = await failure_of(client)
    assert "connection refused" in str(failure)


@pytest.mark.parametrize("library", [httpx, httpx2])
async def test_a_redirect_is_reported_and_never_followed(library: Any) -> None:
    asked = []

    def redirect(request: Any) -> Any:
        asked.append(request.url.path)
        return library.Response(307, headers={"location": "https://elsewhere.example/"})

    async with library.AsyncClient(
        transport=library.MockTransport(redirect), base_url="http://chat.example", follow_redirects=True
    ) as client:
        failure = await failure_of(client, headers={"authorization": "Bearer s3cret"})
    assert [finding.rule for finding in failure.findings] == ["head.redirect"]
    assert "307 to https://elsewhere.example/" in str(failure)
    assert asked == [PATH]


async def test_a_client_with_its_own_app_streams_and_shows_the_disconnect() -> None:
    async with httpx.AsyncClient(
        transport=StreamingASGITransport(service(endless)), base_url="http://mine.example"
    ) as client:
        async with stream_contract(client, PATH, json=REQUEST) as stream:
            await stream.expect("text-delta", within=HUNG)
            await stream.disconnect()
        assert stream.app_noticed(within=HUNG)


@asynccontextmanager
async def raw_server(*, then: Callable[[], Awaitable[None]]) -> AsyncGenerator[str]:
    """Serve a head and three events in HTTP chunks from a plain socket, and then run ``then``. Give the URL."""

    async def handle(connection: SocketStream) -> None:
        async with connection:
            await connection.receive()
            head = [
                "HTTP/1.1 200 OK",
                "content-type: text/event-stream; charset=utf-8",
                "transfer-encoding: chunked",
            ]
            await connection.send(
                "\r\n".join([*head, *(f"{k}: {v}" for k, v in HEADERS.items()), "", ""]).encode()
            )
            for event in EVENTS[:3]:
                await connection.send(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
            await then()

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, handle)
        yield f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610  this is not Django's extra()
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("library", [None, httpx, httpx2])
async def test_a_url_can_be_left_early(library: Any) -> None:
    """Nothing stays open after the disconnect. On trio, an open generator would be an error."""
    with anyio.fail_after(HUNG):
        async with raw_server(then=anyio.sleep_forever) as url:
            async with AsyncExitStack() as stack:
                client = (
                    await stack.enter_async_context(library.AsyncClient(base_url=url)) if library else url
                )
                async with stream_contract(client, PATH, json=REQUEST) as stream:
                    await stream.expect("start-step", within=HUNG)
                    await stream.disconnect()
                    with pytest.raises(RuntimeError, match="in process"):
                        stream.app_noticed(within=1.0)
            gc.collect()


@pytest.mark.parametrize("library", [None, httpx, httpx2])
async def test_a_connection_that_breaks_is_a_failed_contract(library: Any) -> None:
    with anyio.fail_after(HUNG):
        async with raw_server(then=anyio.lowlevel.checkpoint) as url, AsyncExitStack() as stack:
            client = await stack.enter_async_context(library.AsyncClient(base_url=url)) if library else url
            failure = await failure_of(client)
    assert [finding.rule for finding in failure.findings] == ["transport.reset"]
    assert "the app raised" not in str(failure)
    assert "text-start" in str(failure)
    assert f"{url}{PATH}" in str(failure)


async def test_a_url_that_nobody_serves_is_a_failed_contract() -> None:
    with socket.socket() as unserved:
        unserved.bind(("127.0.0.1", 0))
        failure = await failure_of(f"http://127.0.0.1:{unserved.getsockname()[1]}")
    assert failure.findings


# ---------------------------------------------------------------- leaving early


async def endless() -> AsyncIterator[str]:
    for event in EVENTS[:4]:
        yield event
    while True:
        await anyio.sleep(0.001)
        yield EVENTS[3]


async def test_a_disconnect_is_noticed_and_cleaned_up_after() -> None:
    cleaned = anyio.Event()

    async def careful() -> AsyncIterator[str]:
        try:
            yield EVENTS[0]
            await anyio.sleep_forever()
        finally:
            cleaned.set()

    with anyio.fail_after(HUNG):
        async with stream_contract(service(careful), PATH, json=REQUEST, grace=HUNG) as stream:
            await stream.expect("start", within=HUNG)
            await stream.disconnect()
            assert cleaned.is_set()
            assert stream.app_noticed(within=HUNG)
            assert not stream.app_noticed(within=-1)


async def test_an_app_that_does_not_notice_the_disconnect_is_recognised() -> None:
    async def deaf(scope: Message, receive: Receive, send: Send) -> None:
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-vercel-ai-ui-message-stream", b"v1"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": EVENTS[0].encode(), "more_body": True})
        await anyio.sleep_forever()

    with anyio.fail_after(HUNG):
        async with stream_contract(deaf, PATH, json=REQUEST, grace=0.05) as stream:
            await stream.expect("start", within=HUNG)
            await stream.disconnect()
    assert not stream.app_noticed(within=HUNG)


async def test_a_disconnect_before_the_head_is_noticed_too() -> None:
    reached = anyio.Event()

    async def slow(scope: Message, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            reached.set()

    with anyio.fail_after(HUNG):
        async with stream_contract(slow, PATH, json=REQUEST) as stream:
            await reached.wait()
            await stream.disconnect()
    assert stream.app_noticed(within=HUNG)


async def test_a_violation_before_the_disconnect_still_counts() -> None:
    async def doubled() -> AsyncIterator[str]:
        yield EVENTS[0]
        yield EVENTS[0]
        await anyio.sleep_forever()

    async def leave() -> None:
        async with stream_contract(service(doubled), PATH, json=REQUEST) as stream:
            await stream.expect("start", within=HUNG)
            await stream.expect("start", within=HUNG)
            await stream.disconnect()

    with anyio.fail_after(HUNG), pytest.raises(ContractViolation):
        await leave()


async def test_app_noticed_is_an_error_without_a_disconnect() -> None:
    async with stream_contract(service(good), PATH, json=REQUEST) as stream:
        await stream.drain()
        with pytest.raises(RuntimeError, match="disconnect"):
            stream.app_noticed(within=1.0)


# ---------------------------------------------------------------- every wait ends


async def test_an_endless_stream_fails_at_the_deadline() -> None:
    failure = await failure_of(service(endless), deadline=0.3)
    assert failure.findings


async def test_an_app_that_never_answers_fails_at_the_deadline() -> None:
    failure = await failure_of(never_answers, deadline=0.2, grace=0.05)
    assert failure.findings
    assert "no response" in str(failure)


async def test_the_clean_up_time_of_an_app_is_not_time_of_the_stream() -> None:
    async def cleans_up(scope: Message, receive: Receive, send: Send) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.4)

    impatient = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, first_event=0.1))
    failure = await failure_of(cleans_up, contract=impatient, deadline=0.3, grace=0.05)
    assert [finding.rule for finding in failure.findings] == ["timing.first-event"]
    assert "none for 0.100 s" in str(failure)


# On trio, an app cannot raise a cancellation itself.
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_app_that_raises_a_cancellation_has_crashed() -> None:
    async def cancelled(scope: Message, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise asyncio.CancelledError("the model's task")

    failure = await failure_of(cancelled)
    assert "the app raised RuntimeError: the app awaited a task that was cancelled" in str(failure)
    assert "the model's task" in str(failure)


async def test_an_event_that_does_not_come_fails_in_time() -> None:
    async def wait_for_it() -> None:
        async with stream_contract(service(endless), PATH, json=REQUEST) as stream:
            await stream.expect("finish", within=0.1)

    with (
        anyio.fail_after(HUNG),
        pytest.raises(ContractViolation, match=r"session\.expect: expected the event finish within 0\.1 s"),
    ):
        await wait_for_it()


async def test_an_event_that_cannot_come_any_more_fails_at_once() -> None:
    async def wait_for_it() -> None:
        async with stream_contract(service(good), PATH, json=REQUEST) as stream:
            await stream.expect("tool-input")

    with (
        anyio.fail_after(HUNG),
        pytest.raises(ContractViolation, match=r"\[DONE\], then the end of the stream"),
    ):
        await wait_for_it()


@pytest.mark.parametrize("sent", [0, 3])
async def test_an_apps_crash_is_the_cause_of_the_failure(sent: int) -> None:
    async def crashing() -> AsyncIterator[str]:
        for event in EVENTS[:sent]:
            yield event
        raise ZeroDivisionError("the model is gone")

    failure = await failure_of(service(crashing))
    assert isinstance(failure.__cause__, ZeroDivisionError)
    assert "the app raised ZeroDivisionError: the model is gone" in str(failure)


async def test_a_test_failure_inside_the_app_is_the_cause() -> None:
    async def stream() -> AsyncIterator[str]:
        yield EVENTS[0]
        pytest.fail("the model was asked twice")

    failure = await failure_of(service(stream))
    assert isinstance(failure.__cause__, pytest.fail.Exception)
    assert "the model was asked twice" in str(failure)


async def test_a_crash_before_the_head_is_the_cause_of_the_failure() -> None:
    async def crash(request: Request) -> Response:
        raise ZeroDivisionError("no model")

    failure = await failure_of(Starlette(routes=[Route(PATH, crash, methods=["POST"])]))
    assert isinstance(failure.__cause__, ZeroDivisionError)


async def test_an_app_waits_while_too_many_events_are_unread() -> None:
    """If a test reads no events, the session stops collecting, and goes on when the test reads again."""
    sent = 0

    async def flood(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        head = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"x-vercel-ai-ui-message-stream", b"v1"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for event in EVENTS[:3]:
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        while sent < 30:
            await send({"type": "http.response.body", "body": EVENTS[3].encode() * 1000, "more_body": True})
            sent += 1
        await send({"type": "http.response.body", "body": "".join(EVENTS[-3:]).encode()})

    with anyio.fail_after(HUNG):
        async with stream_contract(flood, PATH, json=REQUEST) as stream:
            await anyio.sleep(0.1)
            await anyio.wait_all_tasks_blocked()
            assert sent < 30
            await stream.drain()
    assert sent == 30


# ---------------------------------------------------------------- the message of a failure


async def test_a_dropped_event_is_explained() -> None:
    async def incomplete() -> AsyncIterator[str]:
        for event in EVENTS[:-1]:
            yield event

    failure = await failure_of(
        service(incomplete),
        headers={"authorization": "Bearer s3cret-token", "x-api-key": "k3y-of-mine", "x-plain": "it's"},
    )
    first, *rest = str(failure).splitlines()
    text = "\n".join(rest)
    assert first.startswith(failure.findings[0].rule + ": ")
    assert f"POST http://app{PATH}" in text
    assert "HTTP 200; " in text
    assert "x-vercel-ai-ui-message-stream: v1" in text
    assert "… 7 more text-delta" in text
    assert f"{len(''.join(EVENTS[:-2]).encode())}" in text
    curl = next(line for line in rest if line.strip().startswith("again:"))
    assert "-H 'authorization: Bearer '\"$AUTH_TOKEN\"" in curl
    assert "-H 'x-api-key: '\"$X_API_KEY\"" in curl
    assert "-H 'x-plain: it'\"'\"'s'" in curl
    assert f'"$BASE_URL"{PATH}' in curl
    assert "s3cret" not in text
    assert "k3y" not in text


async def test_a_wrong_header_is_explained() -> None:
    failure = await failure_of(service(good, headers={"x-vercel-ai-ui-message-stream": "v10"}))
    assert failure.findings[0].rule.startswith("head.")
    assert "v10" in str(failure)


async def test_an_html_page_is_explained() -> None:
    async def page(request: Request) -> Response:
        return HTMLResponse("<h1>Not here</h1>")

    failure = await failure_of(Starlette(routes=[Route(PATH, page, methods=["POST"])]))
    assert "text/html" in str(failure)
    assert "<h1>Not here</h1>" in str(failure)


async def test_control_characters_from_the_wire_are_escaped() -> None:
    async def hostile() -> AsyncIterator[str]:
        yield 'data: {"type":"\x1b[31mred\x1b[0m","a":"\u202e"}\n\n'

    text = str(await failure_of(service(hostile, headers={**HEADERS, "x-odd": "\x9b31m"})))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert "\u202e" not in text
    assert r"\x1b[31mred" in text


async def test_the_bytes_of_a_failed_stream_are_kept_for_a_replay(tmp_path: Path) -> None:
    async def incomplete() -> AsyncIterator[str]:
        for event in EVENTS[:-1]:
            yield event

    failure = await failure_of(service(incomplete), recordings=tmp_path / "streams")
    [kept] = (tmp_path / "streams").iterdir()
    assert kept.read_bytes() == "".join(EVENTS[:-1]).encode()
    assert str(failure).endswith(f"cutover check --contract {COMPAT_LANE.name} {kept}")


async def test_a_long_stream_keeps_its_beginning_and_the_replay_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cutover.testing.session.MAX_CAPTURE_BYTES", 100)
    failure = await failure_of(service(good, headers={}), recordings=tmp_path / "streams")
    [kept] = (tmp_path / "streams").iterdir()
    body = "".join(EVENTS).encode()
    assert kept.read_bytes() == body[:100]
    assert str(failure).endswith(f"{kept}  # the first 100 of {len(body)} bytes")


@pytest.mark.parametrize(
    "own",
    [attrs.evolve(COMPAT_LANE, name="our lane"), attrs.evolve(COMPAT_LANE, terminator="[END]")],
    ids=["by name", "by what it says"],
)
async def test_the_replay_of_an_owners_own_contract_is_not_a_command(
    tmp_path: Path, own: StreamContract
) -> None:
    failure = await failure_of(service(good, status_code=500), contract=own, recordings=tmp_path / "streams")
    [kept] = (tmp_path / "streams").iterdir()
    assert str(failure).endswith(f"replay: run check_recording on {kept} with the contract {own.name}")


async def test_the_requested_url_is_shown_without_its_password() -> None:
    transport = httpx.MockTransport(
        lambda request: httpx.Response(404, text=f"nothing at {request.url.path}")
    )
    async with httpx.AsyncClient(
        transport=transport, base_url="http://me:pa55word@chat.example/v2/"
    ) as client:
        failure = await failure_of(client)
    assert f"POST http://chat.example/v2{PATH}" in str(failure)
    assert f"nothing at /v2{PATH}" in str(failure)
    assert "pa55word" not in str(failure)
    assert 'http://"$LOGIN"@chat.example/v2' in str(failure)


async def test_secrets_of_the_query_and_of_the_client_are_in_no_message_and_no_recording(
    tmp_path: Path,
) -> None:
    def echo(request: httpx.Request) -> httpx.Response:
        head = {"content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"}
        said = f"{request.url} {request.headers['x-api-key']} {request.url.params['key']}"
        return httpx.Response(200, headers=head, text=f'data: {{"type":"start","messageId":"{said}"}}\n\n')

    headers, params = {"x-api-key": "h3ader-value"}, {"key": "k3y value"}
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(echo), base_url="http://chat.example", headers=headers, params=params
    ) as client:
        failure = await failure_of(client, recordings=tmp_path / "streams")
    [kept] = (tmp_path / "streams").iterdir()
    assert "$KEY" in str(failure)
    for text in (str(failure), kept.read_text()):
        assert "start" in text
        assert not any(secret in text for secret in ("h3ader-value", "k3y"))


async def test_a_recording_holds_no_token_and_may_fail_to_be_written(tmp_path: Path) -> None:
    async def echo() -> AsyncIterator[str]:
        yield 'data: {"type":"start","said":"s3cret-token"}\n\n'

    headers = {"authorization": "Bearer s3cret-token"}
    await failure_of(service(echo), headers=headers, recordings=tmp_path / "streams")
    [kept] = (tmp_path / "streams").iterdir()
    assert b"s3cret" not in kept.read_bytes()
    assert b"start" in kept.read_bytes()
    assert "replay:" not in str(
        await failure_of(service(echo), headers=headers, recordings=kept / "below-a-file")
    )


async def test_a_violation_comes_before_the_event_that_did_not_come() -> None:
    async def wait_for_it() -> None:
        async with stream_contract(service(good, status_code=500), PATH, json=REQUEST) as stream:
            await stream.expect("tool-input", within=HUNG)

    with anyio.fail_after(HUNG), pytest.raises(ContractViolation) as caught:
        await wait_for_it()
    rules = [finding.rule for finding in caught.value.findings]
    assert rules[0].startswith("head.")
    assert rules[-1] == "session.expect"


# ---------------------------------------------------------------- under any runner


async def drain_good() -> StreamSession:
    async with stream_contract(service(good), PATH, json=REQUEST) as stream:
        await stream.drain()
    return stream


@pytest.mark.parametrize("run", [asyncio.run, lambda coroutine: trio.run(lambda: coroutine)])
def test_a_session_runs_without_a_test_framework(run: Callable[..., StreamSession]) -> None:
    assert run(drain_good()).report.ok


def test_a_test_that_is_not_async_reads_a_stream() -> None:
    assert assert_stream(service(good), PATH, json=REQUEST).ok
    with pytest.raises(ContractViolation):
        assert_stream(service(endless), PATH, json=REQUEST, deadline=0.2)


async def test_the_tests_own_error_is_raised_unchanged() -> None:
    async def fail() -> None:
        async with stream_contract(service(endless), PATH, json=REQUEST):
            raise ZeroDivisionError

    with anyio.fail_after(HUNG), pytest.raises(ZeroDivisionError):
        await fail()


async def test_a_cancelled_test_leaves_cleanly() -> None:
    with anyio.move_on_after(0.05) as scope:
        async with stream_contract(service(endless), PATH, json=REQUEST):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_an_owners_own_contract_is_used() -> None:
    lenient = attrs.evolve(COMPAT_LANE, limits=attrs.evolve(COMPAT_LANE.limits, whole=0.001))
    async with stream_contract(service(good), PATH, contract=lenient, json=REQUEST, deadline=HUNG) as stream:
        assert (await stream.drain()).ok


async def test_an_owners_own_terminator_and_limit_apply_to_the_events_too() -> None:
    async def own() -> AsyncIterator[str]:
        for event in EVENTS[:3]:
            yield event
        yield f"data: {'x' * 300}\n\n"
        for event in EVENTS[3:-1]:
            yield event
        yield "data: [END]\n\n"

    limits = attrs.evolve(COMPAT_LANE.limits, max_event_bytes=200)
    contract = attrs.evolve(COMPAT_LANE, terminator="[END]", limits=limits)
    last = None
    with anyio.fail_after(HUNG), pytest.raises(ContractViolation, match=r"^stream\.oversized"):
        async with stream_contract(service(own), PATH, contract=contract, json=REQUEST) as stream:
            await stream.expect("(too large)")
            last = await stream.expect("[END]")
    assert last is not None
    assert last.index == len(EVENTS) - 1
