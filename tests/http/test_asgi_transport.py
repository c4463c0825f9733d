"""The in-process transport: its reader and its app see the same as under a real server. uvicorn is the reference."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import anyio
import attrs
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Send

from cutover.http.asgi.exchange import Exchange
from cutover.http.asgi.transport import StreamingASGITransport
from tests.support.loopback_server import served as on_loopback

pytestmark = pytest.mark.anyio

HUNG = 20.0
"""Seconds after which a test that still waits has failed."""


@asynccontextmanager
async def in_process(app: ASGIApp, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    transport = StreamingASGITransport(app, **options)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


@asynccontextmanager
async def under_uvicorn(app: ASGIApp, **options: Any) -> AsyncGenerator[httpx.AsyncClient]:
    """Give a client of the same app under a real server."""
    async with on_loopback(app, **options) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        yield client


def exchange_of(response: httpx.Response) -> Exchange:
    exchange = response.extensions["asgi_exchange"]
    assert isinstance(exchange, Exchange)
    return exchange


def chunks_of(response: httpx.Response) -> AsyncGenerator[bytes]:
    """Return the chunks for a reader that stops early: `httpx.Response.aiter_raw` would leave a generator open."""
    chunks = aiter(response.stream)  # type: ignore[arg-type]  # this stream is asynchronous
    assert isinstance(chunks, AsyncGenerator)
    return chunks


async def start(send: Send, *headers: tuple[bytes, bytes], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})


async def chunk(send: Send, body: bytes, *, more_body: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more_body})


async def whole_request(receive: Receive) -> bytes:
    body = b""
    while True:
        message: Any = await receive()
        assert message["type"] == "http.request"
        body += bytes(message["body"])
        if not message["more_body"]:
            return body


async def never_answers(scope: Message, receive: Receive, send: Send) -> None:
    await anyio.sleep_forever()


async def says_nothing_more(scope: Message, receive: Receive, send: Send) -> None:
    await start(send)
    await receive_disconnect(receive)


async def receive_disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# ---------------------------------------------------------------- the same outcome as under a real server


@attrs.frozen(kw_only=True)
class Outcome:
    """The result of one request, as its reader sees it."""

    status: int | None
    headers: tuple[tuple[str, str], ...]
    chunks: tuple[bytes, ...]
    error: type[Exception] | None


async def outcome_of(client: httpx.AsyncClient, read: Callable[[], None], **request: Any) -> Outcome:
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    chunks: list[bytes] = []
    error: type[Exception] | None = None
    try:
        async with client.stream(**{"method": "GET", "url": "/a%20b?q=1&q=%20", **request}) as response:
            status = response.status_code
            headers = tuple(
                sorted((k, v) for k, v in response.headers.items() if k.startswith(("x-", "content")))
            )
            async for piece in response.aiter_raw():
                chunks.append(piece)
                read()
    except httpx.TransportError as raised:
        error = type(raised)
    return Outcome(status=status, headers=headers, chunks=tuple(chunks), error=error)


class Lockstep:
    """Apps that send a chunk only after the previous one was read. A socket then delivers the same chunks."""

    def __init__(self) -> None:
        self.was_read = anyio.Event()

    def read(self) -> None:
        self.was_read.set()

    async def paced(self, send: Send, *bodies: bytes) -> None:
        for body in bodies:
            self.was_read = anyio.Event()
            await chunk(send, body)
            await self.was_read.wait()

    async def whole(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send, (b"X-Mode", b"whole"), (b"content-type", b"text/event-stream"), status=201)
        await self.paced(send, b"one", "zwei \N{GRINNING FACE}".encode(), b"\x00\xff")
        await chunk(send, b"", more_body=False)

    async def sized(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"6"))
        await self.paced(send, b"abc", b"def")
        await chunk(send, b"", more_body=False)

    async def short_of_its_length(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"6"))
        await self.paced(send, b"abc")

    async def returns_early(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send, (b"x-mode", b"early"))
        await self.paced(send, b"abc")

    async def stalls(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await self.paced(send, b"abc")
        await receive_disconnect(receive)

    async def no_head_in_time(self, scope: Message, receive: Receive, send: Send) -> None:
        await receive_disconnect(receive)

    async def echo(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await self.paced(send, await whole_request(receive))
        await chunk(send, b"", more_body=False)

    async def echo_scope(self, scope: Message, receive: Receive, send: Send) -> None:
        kept = (
            "asgi",
            "http_version",
            "method",
            "scheme",
            "path",
            "raw_path",
            "query_string",
            "root_path",
            "type",
        )
        names = sorted(name for name, _ in scope["headers"])
        await start(send)
        await self.paced(send, repr([{key: scope[key] for key in kept}, names]).encode())
        await chunk(send, b"", more_body=False)

    async def head_only(self, scope: Message, receive: Receive, send: Send) -> None:
        await start(send, (b"content-length", b"3"))
        await chunk(send, b"abc", more_body=False)


APPS: dict[str, dict[str, Any]] = {
    "whole": {},
    "sized": {},
    "short_of_its_length": {},
    "returns_early": {},
    "stalls": {"timeout": 0.3},
    "no_head_in_time": {"timeout": 0.3},
    "echo": {"method": "POST", "content": b"x" * 10_000},
    "echo_scope": {"method": "PUT", "headers": {"X-Mixed-Case": "1"}},
    "head_only": {"method": "HEAD"},
}


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", APPS)
async def test_a_reader_sees_what_it_sees_under_a_real_server(name: str) -> None:
    seen = []
    for served in (in_process, under_uvicorn):
        lockstep = Lockstep()
        with anyio.fail_after(HUNG):
            async with served(getattr(lockstep, name), root_path="/mounted") as client:
                seen.append(await outcome_of(client, lockstep.read, **APPS[name]))
    assert seen[0] == seen[1]
    assert seen[0].status is not None or seen[0].error is httpx.ReadTimeout


# ---------------------------------------------------------------- chunks and backpressure


async def test_a_chunk_arrives_before_the_next_is_sent() -> None:
    """The app and its reader wait for each other, so a transport that collects the body would hang."""
    lockstep = Lockstep()
    with anyio.fail_after(HUNG):
        async with in_process(lockstep.whole) as client:
            outcome = await outcome_of(client, lockstep.read)
    assert outcome.chunks == (b"one", "zwei \N{GRINNING FACE}".encode(), b"\x00\xff")


@pytest.mark.parametrize("bound", [0, 1, 5])
async def test_an_app_sends_no_more_chunks_ahead_than_the_bound(bound: int) -> None:
    sent = 0

    async def endless(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal sent
        await start(send)
        while True:
            await chunk(send, b"x")
            sent += 1

    async with (
        in_process(endless, max_buffered_chunks=bound) as client,
        client.stream("GET", "/") as response,
        aclosing(chunks_of(response)) as chunks,
    ):
        for taken in range(4):
            await anyio.wait_all_tasks_blocked()
            assert sent == bound + taken
            await anext(chunks)


async def test_an_empty_chunk_is_not_an_end() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"a")
        await chunk(send, b"")
        await send({"type": "http.response.body"} | {"body": b"b"})

    async with in_process(app) as client:
        assert (await client.get("/")).content == b"ab"


async def test_responses_of_one_client_run_side_by_side() -> None:
    together = 0
    both = anyio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        nonlocal together
        together += 1
        if together == 2:
            both.set()
        await both.wait()
        await start(send)
        await chunk(send, scope["path"].encode(), more_body=False)

    answers = set()
    with anyio.fail_after(HUNG):
        async with in_process(app) as client, anyio.create_task_group() as tasks:

            async def ask(path: str) -> None:
                answers.add((await client.get(path)).text)

            tasks.start_soon(ask, "/1")
            tasks.start_soon(ask, "/2")
    assert answers == {"/1", "/2"}


# ---------------------------------------------------------------- the request's body


async def test_a_slow_request_body_reaches_the_app_piece_by_piece() -> None:
    """The next piece is made only after the app has received the previous one, and the read timeout pauses meanwhile."""
    taken = anyio.Event()
    seen: list[bytes] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await taken.wait()
        await anyio.sleep(0.3)
        yield b""
        yield b"second"

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        while (message := await receive())["more_body"]:
            seen.append(message["body"])
            taken.set()
        await start(send)
        await chunk(send, b"ok", more_body=False)

    with anyio.fail_after(HUNG):
        async with in_process(app) as client:
            response = await client.post("/", content=body(), timeout=0.1)
    assert seen == [b"first", b"second"]
    assert response.content == b"ok"


async def test_a_request_body_that_the_app_does_not_read_is_not_made() -> None:
    made = []

    async def body() -> AsyncIterator[bytes]:
        made.append(1)
        yield b"x"

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"", more_body=False)

    async with in_process(app) as client:
        await client.post("/", content=body())
    assert made == []


async def test_polling_for_a_disconnect_does_not_break_the_request_body() -> None:
    """Starlette's ``is_disconnected()`` calls ``receive()`` and cancels it."""
    polled = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await polled.wait()
        yield b"second"

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert (await receive())["body"] == b"first"
        for _ in range(3):
            assert not await Request(scope, receive).is_disconnected()
        polled.set()
        rest = await whole_request(receive)
        await start(send)
        await chunk(send, rest, more_body=False)

    with anyio.fail_after(HUNG):
        async with in_process(app) as client:
            assert (await client.post("/", content=body())).content == b"second"


@pytest.mark.parametrize("head_first", [True, False])
async def test_an_error_of_the_request_body_is_raised_to_the_caller(*, head_first: bool) -> None:
    seen: list[str] = []
    answered = anyio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await answered.wait()
        raise ZeroDivisionError

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive()
        if head_first:
            await start(send)
        answered.set()
        seen.append((await receive())["type"])

    with anyio.fail_after(HUNG):
        async with in_process(app) as client:
            with pytest.raises(ZeroDivisionError):
                await client.post("/", content=body())
    assert seen == ["http.disconnect"]


# ---------------------------------------------------------------- a reader that leaves


async def leave_after_one_chunk(client: httpx.AsyncClient) -> Exchange:
    async with client.stream("GET", "/") as response, aclosing(chunks_of(response)) as chunks:
        await anext(chunks)
    return exchange_of(response)


async def test_an_app_that_receives_sees_the_disconnect() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await whole_request(receive)
        await start(send)
        await chunk(send, b"x")
        assert (await receive())["type"] == "http.disconnect"
        assert await Request(scope, receive).is_disconnected()

    with anyio.fail_after(HUNG):
        async with in_process(app, grace=HUNG) as client:
            exchange = await leave_after_one_chunk(client)
    assert await exchange.noticed()
    assert exchange.disconnected_at is not None
    assert exchange.noticed_at is not None
    assert exchange.finished_at is not None
    assert exchange.disconnected_at <= exchange.noticed_at <= exchange.finished_at
    assert not exchange.cancelled
    assert exchange.error is None


@pytest.mark.parametrize("full", [True, False])
async def test_what_an_app_sends_after_the_disconnect_is_dropped_as_under_uvicorn(*, full: bool) -> None:
    """The app waits for space in a full buffer when the reader leaves, or sends its next chunk later."""

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"x")
        if not full:
            await receive_disconnect(receive)
        for _ in range(40):
            await chunk(send, b"x")

    with anyio.fail_after(HUNG):
        async with in_process(app, grace=HUNG) as client:
            exchange = await leave_after_one_chunk(client)
    assert await exchange.noticed()
    assert exchange.error is None
    assert not exchange.cancelled


@pytest.mark.parametrize("polls", [True, False])
async def test_the_finally_of_a_generator_that_never_waits_runs(*, polls: bool) -> None:
    """It sees that its reader has left, if it asks; else its chunks are dropped until its end, as under uvicorn."""
    cleaned = anyio.Event()

    async def endpoint(request: Request) -> StreamingResponse:
        async def busy() -> AsyncIterator[bytes]:
            try:
                for _ in range(1_000):
                    if polls and await request.is_disconnected():
                        break
                    yield b"x"
            finally:
                cleaned.set()

        return StreamingResponse(busy())

    with anyio.fail_after(HUNG):
        async with in_process(Starlette(routes=[Route("/", endpoint)]), grace=HUNG) as client:
            exchange = await leave_after_one_chunk(client)
            await cleaned.wait()
    assert await exchange.noticed()
    assert not exchange.cancelled
    assert exchange.error is None


async def test_the_finally_of_a_starlette_generator_runs() -> None:
    cleaned = anyio.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            yield b"x"
            await anyio.sleep_forever()
        finally:
            cleaned.set()

    async def endpoint(request: Request) -> StreamingResponse:
        return StreamingResponse(endless())

    with anyio.fail_after(HUNG):
        async with in_process(Starlette(routes=[Route("/", endpoint)]), grace=HUNG) as client:
            exchange = await leave_after_one_chunk(client)
            assert cleaned.is_set()
    assert await exchange.noticed()


async def test_an_app_has_its_grace_period_to_clean_up() -> None:
    cleaned = anyio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"x")
        await receive_disconnect(receive)
        await anyio.sleep(0.05)
        cleaned.set()

    with anyio.fail_after(HUNG):
        async with in_process(app, grace=HUNG) as client:
            exchange = await leave_after_one_chunk(client)
            assert cleaned.is_set()
    assert not exchange.cancelled


async def test_an_app_that_ignores_the_disconnect_is_cancelled() -> None:
    cancelled = anyio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"x")
        try:
            await anyio.sleep_forever()
        finally:
            cancelled.set()

    with anyio.fail_after(HUNG):
        async with in_process(app, grace=0.05) as client:
            exchange = await leave_after_one_chunk(client)
            assert cancelled.is_set()
    assert not await exchange.noticed()
    assert exchange.cancelled


async def test_a_caller_cancelled_before_the_head_ends_the_app() -> None:
    """The app keeps its grace period: the caller's cancellation does not shorten it."""
    began, ended = anyio.Event(), anyio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        began.set()
        await receive_disconnect(receive)
        await anyio.sleep(0.05)
        ended.set()

    with anyio.fail_after(HUNG):
        async with in_process(app, grace=HUNG) as client:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.get, "/")
                await began.wait()
                tasks.cancel_scope.cancel()
            assert ended.is_set()


async def test_a_response_left_open_is_disconnected_with_its_client() -> None:
    with anyio.fail_after(HUNG):
        async with in_process(says_nothing_more) as client:
            response = await client.send(client.build_request("GET", "/"), stream=True)
    assert await exchange_of(response).noticed()


async def test_a_reader_gets_an_error_when_its_client_is_closed() -> None:
    async def read(response: httpx.Response) -> None:
        with pytest.raises(httpx.ReadError, match="closed"):
            await response.aread()

    with anyio.fail_after(HUNG):
        async with in_process(says_nothing_more) as client, anyio.create_task_group() as tasks:
            response = await client.send(client.build_request("GET", "/"), stream=True)
            tasks.start_soon(read, response)
            await anyio.wait_all_tasks_blocked()
            await client.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_that_is_cancelled_again_and_again_leaves_no_app_behind() -> None:
    """asyncio's own cancellation ignores shields. The transport ends the app when it closes."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(scope: Message, receive: Receive, send: Send) -> None:
        began.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async def ask() -> None:
        async with in_process(stubborn, grace=0.1) as client:
            await client.get("/")

    with anyio.fail_after(HUNG):
        task = asyncio.create_task(ask())
        await began.wait()
        for _ in range(4):
            task.cancel()
            await asyncio.sleep(0.01)
        await asyncio.wait([task])
    assert task.cancelled()
    assert ended.is_set()


async def test_background_work_goes_on_after_the_response() -> None:
    """The work does not delay the reader, sees no disconnect, and gets the grace period when the client closes."""
    read, done = anyio.Event(), anyio.Event()

    async def work() -> None:
        await read.wait()
        await anyio.sleep(0.05)
        done.set()

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok", background=BackgroundTask(work))

    with anyio.fail_after(HUNG):
        async with in_process(Starlette(routes=[Route("/", endpoint)]), grace=HUNG) as client:
            response = await client.get("/")
            read.set()
    assert done.is_set()
    assert exchange_of(response).disconnected_at is None
    assert not await exchange_of(response).noticed()


# ---------------------------------------------------------------- an app that fails


class AppError(BaseException):
    """An error outside `Exception`, like pytest's own outcomes."""


@pytest.mark.parametrize("after_the_head", [True, False])
async def test_an_error_of_the_app_reaches_its_reader_and_no_other(*, after_the_head: bool) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["path"] == "/crash":
            if after_the_head:
                await start(send)
                await chunk(send, b"x")
            raise AppError
        await start(send)
        await chunk(send, b"steady", more_body=False)

    got: list[bytes] = []

    async def read_crashing(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/crash") as response:
            got.extend([piece async for piece in response.aiter_raw()])

    with anyio.fail_after(HUNG):
        async with in_process(app) as client, client.stream("GET", "/") as other:
            with pytest.raises(AppError):
                await read_crashing(client)
            assert await other.aread() == b"steady"


async def test_chunks_sent_before_a_crash_are_read_first() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"1")
        await chunk(send, b"2")
        raise ValueError("late")

    got: list[bytes] = []

    async def read(response: httpx.Response) -> None:
        async for piece in response.aiter_raw():
            got.append(piece)  # noqa: PERF401  a comprehension would lose the pieces when the error is raised

    async with in_process(app) as client, client.stream("GET", "/") as response:
        with pytest.raises(ValueError, match="late"):
            await read(response)
    assert got == [b"1", b"2"]


async def returns_at_once(scope: Message, receive: Receive, send: Send) -> None:
    pass


async def answers_twice(scope: Message, receive: Receive, send: Send) -> None:
    await start(send)
    await start(send)


async def sends_more_than_it_said(scope: Message, receive: Receive, send: Send) -> None:
    await start(send, (b"content-length", b"1"))
    await chunk(send, b"xx", more_body=False)


async def sends_a_body_without_a_head(scope: Message, receive: Receive, send: Send) -> None:
    await chunk(send, b"xx", more_body=False)


@pytest.mark.parametrize(
    ("app", "error", "words"),
    [
        (returns_at_once, httpx.RemoteProtocolError, "without a response"),
        (Lockstep().returns_early, httpx.RemoteProtocolError, "before its body's end"),
        (answers_twice, RuntimeError, "may not send"),
        (sends_a_body_without_a_head, RuntimeError, "may not send"),
        (sends_more_than_it_said, RuntimeError, "content-length"),
    ],
)
async def test_an_app_that_breaks_the_protocol_is_an_error(
    app: ASGIApp, error: type[Exception], words: str
) -> None:
    """The reader gets an error and never a response that seems complete."""

    async def read() -> None:
        async with in_process(app) as client, client.stream("GET", "/") as response:
            async for _ in response.aiter_raw():
                if isinstance(owner := getattr(app, "__self__", None), Lockstep):
                    owner.read()

    with anyio.fail_after(HUNG), pytest.raises(error, match=words):
        await read()


async def test_an_error_of_the_app_after_its_response_is_kept() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await start(send)
        await chunk(send, b"ok", more_body=False)
        raise AppError

    async with in_process(app) as client:
        response = await client.get("/")
        await exchange_of(response).finished()
    assert isinstance(exchange_of(response).error, AppError)


# ---------------------------------------------------------------- timeouts and the pool


async def test_no_timeout_means_none() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await anyio.sleep(0.05)
        await start(send)
        await chunk(send, b"ok", more_body=False)

    async with in_process(app) as client:
        assert (await client.get("/", timeout=None)).content == b"ok"


async def test_a_read_timeout_before_the_head_ends_the_app() -> None:
    ended = anyio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await receive_disconnect(receive)
        ended.set()

    with anyio.fail_after(HUNG):
        async with in_process(app, grace=HUNG) as client:
            with pytest.raises(httpx.ReadTimeout, match=r"no head within 0\.05 s"):
                await client.get("/", timeout=0.05)
            assert ended.is_set()


async def test_a_full_pool_is_a_pool_timeout_until_a_response_is_closed() -> None:
    lockstep = Lockstep()
    with anyio.fail_after(HUNG):
        async with in_process(lockstep.stalls, max_connections=1, grace=0.01) as client:
            async with client.stream("GET", "/") as first:
                with pytest.raises(httpx.PoolTimeout):
                    await client.get("/", timeout=httpx.Timeout(None, pool=0.05))
            # A second close must not release the place in the pool again.
            await first.stream.aclose()  # type: ignore[union-attr]  # this stream is asynchronous
            async with client.stream("GET", "/", timeout=httpx.Timeout(None, pool=0.05)) as response:
                assert response.status_code == 200
                with pytest.raises(httpx.PoolTimeout):
                    await client.get("/", timeout=httpx.Timeout(None, pool=0.05))


# ---------------------------------------------------------------- the client's life


async def test_a_transport_that_is_not_entered_says_how_to_use_it() -> None:
    client = httpx.AsyncClient(transport=StreamingASGITransport(never_answers))
    with pytest.raises(RuntimeError, match="async with"):
        await client.get("http://app/")
    await client.aclose()


async def test_one_transport_serves_one_client() -> None:
    transport = StreamingASGITransport(never_answers)
    async with httpx.AsyncClient(transport=transport):
        with pytest.raises(RuntimeError, match="entered already"):
            async with httpx.AsyncClient(transport=transport):
                pass


async def test_a_transport_can_be_entered_again_after_it_was_left() -> None:
    transport = StreamingASGITransport(sends_whole)
    for _ in range(2):
        async with transport:
            response = await transport.handle_async_request(httpx.Request("GET", "http://app/"))
            assert await response.aread() == b"ok"
            await response.aclose()


async def sends_whole(scope: Message, receive: Receive, send: Send) -> None:
    await start(send)
    await chunk(send, b"ok", more_body=False)


async def test_the_callers_exception_is_raised_unchanged() -> None:
    """The caller gets its own exception, not a group, also with a response open."""

    async def fail() -> None:
        async with in_process(Lockstep().stalls) as client, client.stream("GET", "/"):
            raise ZeroDivisionError

    with anyio.fail_after(HUNG), pytest.raises(ZeroDivisionError):
        await fail()


async def test_a_cancelled_caller_leaves_cleanly_with_a_response_open() -> None:
    with anyio.move_on_after(0.05) as scope:
        async with in_process(Lockstep().stalls) as client, client.stream("GET", "/"):
            await anyio.sleep_forever()
    assert scope.cancelled_caught


async def test_the_request_keeps_its_extensions() -> None:
    async with in_process(sends_whole) as client:
        response = await client.get("/", extensions={"label": "smoke"})
    assert response.request.extensions["label"] == "smoke"
    assert response.http_version == "HTTP/1.1"


async def test_the_app_sees_the_address_and_port_of_the_url() -> None:
    seen = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.append((scope["server"], scope["client"], scope["extensions"]))
        await sends_whole(scope, receive, send)

    async with in_process(app, client=("192.0.2.7", 4711)) as client:
        await client.get("https://stable.example/")
        await client.get("http://canary.example:8080/")
    assert seen == [
        (("stable.example", 443), ("192.0.2.7", 4711), {}),
        (("canary.example", 8080), ("192.0.2.7", 4711), {}),
    ]


# ---------------------------------------------------------------- lifespan


def with_lifespan(
    *, startup: BaseException | None = None, shutdown: BaseException | None = None
) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[dict[str, str]]:
        if startup is not None:
            raise startup
        yield {"greeting": "hello"}
        if shutdown is not None:
            raise shutdown

    async def endpoint(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.greeting)

    return Starlette(routes=[Route("/", endpoint)], lifespan=lifespan)


async def test_the_lifespan_gives_requests_their_state() -> None:
    async with in_process(with_lifespan(), lifespan=True) as client:
        assert (await client.get("/")).text == "hello"


async def test_without_lifespan_the_app_gets_no_lifespan_scope() -> None:
    async with in_process(with_lifespan(startup=ZeroDivisionError())) as client:
        assert client is not None


async def test_a_startup_that_fails_is_raised_at_entry() -> None:
    with anyio.fail_after(HUNG), pytest.raises(ZeroDivisionError):
        async with in_process(with_lifespan(startup=ZeroDivisionError()), lifespan=True):
            pass


async def test_a_shutdown_that_fails_is_raised_at_exit_unless_the_caller_raised() -> None:
    with anyio.fail_after(HUNG), pytest.raises(ZeroDivisionError):
        async with in_process(with_lifespan(shutdown=ZeroDivisionError()), lifespan=True):
            pass
    with anyio.fail_after(HUNG), pytest.raises(KeyError):
        async with in_process(with_lifespan(shutdown=ZeroDivisionError()), lifespan=True):
            raise KeyError


def lifespan_that_says(*replies: Message, then: Callable[[], Awaitable[None]] | None = None) -> ASGIApp:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for reply in replies:
            await receive()
            await send(reply)
        if then is not None:
            await then()

    return app


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (lifespan_that_says({"type": "lifespan.startup.failed", "message": "no database"}), "no database"),
        (lifespan_that_says(), "without lifespan.startup.complete"),
        (lifespan_that_says({"type": "http.response.start"}), "may not send"),
        (
            lifespan_that_says(
                {"type": "lifespan.startup.complete"},
                {"type": "lifespan.shutdown.failed", "message": "stuck"},
            ),
            "stuck",
        ),
        (
            lifespan_that_says({"type": "lifespan.startup.complete"}, then=anyio.sleep_forever),
            "did not shut down",
        ),
    ],
)
async def test_a_lifespan_that_fails_says_why(app: ASGIApp, words: str) -> None:
    with anyio.fail_after(HUNG), pytest.raises(RuntimeError, match=words):
        async with in_process(app, lifespan=True, grace=0.05):
            pass


async def test_an_app_that_needs_no_shutdown_may_end_early() -> None:
    async with in_process(lifespan_that_says({"type": "lifespan.startup.complete"}), lifespan=True):
        await anyio.wait_all_tasks_blocked()
