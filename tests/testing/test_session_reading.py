"""Reading an endless stream in a test: take, until and collect; several tasks that read; leaving without an end."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import attrs
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from cutover.checking.probe import check_stream
from cutover.errors import ContractViolation
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.testing.opening import assert_stream, stream_contract
from cutover.testing.session import StreamSession
from tests.support.ticker import PATH, TICKER, Ticker

pytestmark = pytest.mark.anyio

HUNG = 20.0
NAMELESS = attrs.evolve(TICKER, resume=None)
"""The ticker's contract for events without ids."""
GET: dict[str, Any] = {"contract": TICKER}


def saying(*events: str, then: float | None = None) -> Any:
    """Return an app that sends these events at once; it then waits for the disconnect, or for `then` seconds."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        head: Message = {"type": "http.response.start", "status": 200}
        await send({**head, "headers": [(b"content-type", b"text/event-stream")]})
        for event in events:
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
        if then is None:
            await receive()
            await receive()
        else:
            await anyio.sleep(then)
        await send({"type": "http.response.body", "body": b""})

    return app


def tick(n: int) -> str:
    return f'id: {n}\ndata: {{"type":"tick","n":{n}}}\n\n'


def named(kind: str) -> str:
    return f'data: {{"type":"{kind}"}}\n\n'


async def read(app: Any, use: Callable[[StreamSession], Awaitable[Any]], **options: Any) -> Any:
    with anyio.fail_after(HUNG):
        async with stream_contract(app, PATH, **{**GET, **options}) as stream:
            return await use(stream)


async def failure_of(
    app: Any, use: Callable[[StreamSession], Awaitable[Any]], **options: Any
) -> ContractViolation:
    with pytest.raises(ContractViolation) as caught:
        await read(app, use, **options)
    return caught.value


# ---------------------------------------------------------------- an event that a test has seen


async def test_an_event_has_its_type_id_retry_offset_and_time() -> None:
    first = ': hello\n\nevent: price\nid: a\nretry: 1500\ndata: {"n": 1}\n\n'
    app = saying(first, 'data: {"type":"odd"}\n\n')

    async def use(stream: StreamSession) -> None:
        comment = await stream.expect("(comment)", within=HUNG)
        assert (comment.event, comment.id, comment.retry, comment.index) == (None, None, None, None)
        assert not comment.is_dispatched
        price, odd = await stream.take(2, within=HUNG)
        assert (price.kind, price.event, price.id, price.retry) == ("price", "price", "a", 1500)
        assert price.json() == {"n": 1}
        assert price.offset == price.byte_offset == len(": hello\n\n")
        assert price.time == price.elapsed >= 0
        assert (odd.kind, odd.event, odd.id, odd.retry) == ("odd", "message", None, None)
        assert (odd.last_event_id, odd.offset) == ("a", len(first))
        await stream.disconnect()

    with pytest.raises(ContractViolation, match=r"^schema\."):
        await read(app, use)


# ---------------------------------------------------------------- take, until, collect


async def test_take_gives_the_next_events_that_a_client_dispatches() -> None:
    async def use(stream: StreamSession) -> None:
        assert [event.json() for event in await stream.take(2, within=HUNG)] == [
            {"type": "tick", "n": 1},
            {"type": "tick", "n": 2},
        ]
        [third] = await stream.take(1)
        assert third.id == "3"

    await read(saying(": ping\n\n", tick(1), ": ping\n\n", tick(2), tick(3)), use)


async def test_until_gives_the_events_up_to_and_with_the_kind() -> None:
    async def use(stream: StreamSession) -> None:
        assert [event.kind for event in await stream.until("odd", within=HUNG)] == ["tick", "tick", "odd"]
        assert [event.kind for event in await stream.until("(comment)")] == ["tick", "(comment)"]
        [last] = await stream.take(1)
        assert last.id == "4"

    await read(
        saying(": a\n\n", tick(1), tick(2), named("odd"), tick(3), ": b\n\n", tick(4)),
        use,
        contract=NAMELESS,
    )


async def test_collect_gives_what_came_and_reads_on_from_there() -> None:
    async def use(stream: StreamSession) -> None:
        first = await stream.collect(0.2)
        assert [event.id for event in first] == ["1", "2"]
        assert await stream.collect(0.05) == []

    await read(saying(tick(1), ": c\n\n", tick(2)), use)


async def test_collect_ends_early_with_the_stream() -> None:
    async def use(stream: StreamSession) -> None:
        assert len(await stream.collect(HUNG * 10)) == 1

    await read(saying(tick(1), then=0.0), use)


@pytest.mark.parametrize("n", [0, -1])
async def test_take_of_no_events_is_an_error(n: int) -> None:
    async def use(stream: StreamSession) -> None:
        with pytest.raises(ValueError, match="take"):
            await stream.take(n)

    await read(Ticker(), use)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda stream: stream.take(3, within=0.1),
            r"session\.take: expected 3 events within 0\.1 s, got tick, tick",
        ),
        (
            lambda stream: stream.until("odd", within=0.1),
            r"session\.until: expected the event odd within 0\.1 s, got tick, tick",
        ),
        (lambda stream: stream.expect("odd", within=0.1), r"session\.expect: expected the event odd"),
    ],
    ids=["take", "until", "expect"],
)
async def test_events_that_do_not_come_fail_in_time(use: Any, message: str) -> None:
    failure = await failure_of(saying(tick(1), tick(2)), use)
    assert re.match(message, str(failure))


async def test_events_that_cannot_come_any_more_fail_at_once() -> None:
    failure = await failure_of(saying(tick(1), then=0.0), lambda stream: stream.take(9))
    assert "got tick, then the end of the stream" in str(failure)


async def test_every_wait_on_an_endless_stream_ends_at_the_deadline() -> None:
    failure = await failure_of(Ticker(every=0.01), lambda stream: stream.until("odd"), deadline=0.3)
    assert [finding.rule for finding in failure.findings] == ["session.until"]
    assert "at last tick, tick, tick, tick, tick, then the deadline of 0.3 s" in str(failure)


async def test_until_gives_up_before_it_fills_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutover.testing.session.MAX_UNREAD", 20)
    failure = await failure_of(Ticker(), lambda stream: stream.until("odd"))
    assert "expected the event odd, got 21 events" in str(failure)


@pytest.mark.parametrize("call", ["take", "until", "expect", "collect"])
async def test_a_cancelled_wait_has_read_nothing(call: str) -> None:
    waits = {
        "take": lambda stream: stream.take(9),
        "until": lambda stream: stream.until("odd"),
        "expect": lambda stream: stream.expect("odd"),
        "collect": lambda stream: stream.collect(HUNG),
    }

    async def use(stream: StreamSession) -> None:
        with anyio.move_on_after(0.1) as scope:
            await waits[call](stream)
        assert scope.cancelled_caught
        assert [event.id for event in await stream.take(2, within=HUNG)] == ["1", "2"]

    await read(saying(tick(1), tick(2)), use)


# ---------------------------------------------------------------- leaving an endless stream


async def test_leaving_the_block_leaves_an_endless_stream() -> None:
    async def use(stream: StreamSession) -> StreamSession:
        await stream.take(3, within=HUNG)
        return stream

    stream = await read(Ticker(), use)
    assert stream.disconnected
    assert stream.report.ok
    assert stream.report.event_count >= 3
    assert stream.app_noticed(within=HUNG)


async def test_an_endless_stream_is_judged_as_far_as_it_went() -> None:
    failure = await failure_of(
        saying(tick(1), "data: no json\n\n", tick(2)), lambda stream: stream.expect("(no type)", within=HUNG)
    )
    assert [finding.rule for finding in failure.findings] == ["json.syntax"]


async def test_a_block_that_reads_nothing_waits_for_the_first_event() -> None:
    async def use(stream: StreamSession) -> StreamSession:
        return stream

    stream = await read(saying(tick(1)), use)
    assert stream.report.event_count == 1
    contract = attrs.evolve(TICKER, limits=attrs.evolve(TICKER.limits, first_event=0.1))
    failure = await failure_of(saying(": nothing\n\n"), use, contract=contract)
    assert [finding.rule for finding in failure.findings] == ["timing.first-event"]


async def test_an_explicit_disconnect_needs_no_event() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.disconnect()

    await read(saying(), use)


async def test_draining_an_endless_stream_reads_until_the_deadline() -> None:
    async def use(stream: StreamSession) -> Any:
        return await stream.drain()

    report = await read(Ticker(every=0.01), use, deadline=0.3)
    assert report.ok
    assert report.event_count > 3


async def test_a_broken_endless_stream_is_a_violation() -> None:
    async def crash(scope: Scope, receive: Receive, send: Send) -> None:
        head: Message = {"type": "http.response.start", "status": 200}
        await send({**head, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": tick(1).encode(), "more_body": True})
        raise ZeroDivisionError("no clock")

    failure = await failure_of(crash, lambda stream: stream.collect(HUNG))
    assert [finding.rule for finding in failure.findings] == ["transport.reset"]


def test_an_endless_stream_is_checked_from_a_test_that_is_not_async() -> None:
    assert assert_stream(Ticker(every=0.01), PATH, **GET, deadline=0.3).ok


async def test_check_stream_reads_an_endless_stream_until_the_deadline() -> None:
    transport = StreamingASGITransport(Ticker(every=0.01))
    with anyio.fail_after(HUNG):
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            report = await check_stream(client, PATH, contract=TICKER, deadline=0.3)
    assert report.ok
    assert report.event_count > 3
    with anyio.fail_after(HUNG):
        transport = StreamingASGITransport(saying())
        async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
            report = await check_stream(client, PATH, contract=TICKER, deadline=0.3)
    assert not report.ok
    assert [finding.rule for finding in report.findings] == ["timing.first-event"]


# ---------------------------------------------------------------- several tasks


@pytest.mark.parametrize("order", [("odd", "tick"), ("tick", "odd")])
@pytest.mark.parametrize("early", [True, False])
async def test_two_tasks_both_find_their_events(order: tuple[str, str], early: bool) -> None:
    found = {}

    async def use(stream: StreamSession) -> None:
        async def one(kind: str) -> None:
            found[kind] = await stream.expect(kind, within=HUNG)

        if early:
            await anyio.sleep(0.05)
        async with anyio.create_task_group() as tasks:
            for kind in order:
                tasks.start_soon(one, kind)
        # Both tasks have ended: the test goes on behind the later event.
        assert [event.id for event in await stream.take(1, within=HUNG)] == ["9"]

    await read(saying(named("odd"), tick(1), tick(9)), use, contract=NAMELESS)
    assert found["odd"].index == 0
    assert found["tick"].id == "1"


async def test_a_task_begins_where_the_task_that_started_it_is() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.take(2, within=HUNG)
        seen: list[str | None] = []

        async def follow() -> None:
            seen.extend(event.id for event in await stream.take(2, within=HUNG))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow)
            tasks.start_soon(follow)
            # This task reads for itself, too.
            assert [event.id for event in await stream.take(1, within=HUNG)] == ["3"]
        assert seen == ["3", "4", "3", "4"]
        assert [event.id for event in await stream.take(1, within=HUNG)] == ["5"]

    await read(Ticker(), use)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_calls_at_the_same_time_begin_at_the_same_event() -> None:
    async def use(stream: StreamSession) -> None:
        await anyio.sleep(0.05)
        one, two = await asyncio.gather(stream.expect("tick"), stream.expect("odd"))
        assert (one.id, two.index) == ("1", 0)
        [after] = await stream.take(1, within=HUNG)
        assert after.id == "9"

    await read(saying(named("odd"), tick(1), tick(9)), use, contract=NAMELESS)


async def test_a_call_that_is_started_as_a_task_begins_where_the_caller_is() -> None:
    async def use(stream: StreamSession) -> None:
        await anyio.sleep(0.05)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.expect, "tick")
            tasks.start_soon(stream.expect, "odd")
        [after] = await stream.take(1, within=HUNG)
        assert after.id == "9"

    await read(saying(named("odd"), tick(1), tick(9)), use, contract=NAMELESS)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_wait_in_a_task_of_its_own_reads_on_as_a_plain_call_does() -> None:
    async def use(stream: StreamSession) -> None:
        first = await asyncio.wait_for(stream.expect("tick"), HUNG)
        second = await asyncio.create_task(stream.expect("tick"))
        third = await stream.expect("tick")
        assert [first.id, second.id, third.id] == ["1", "2", "3"]

    await read(Ticker(), use)


async def test_a_slow_task_bounds_the_memory_unless_another_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutover.testing.events.MAX_UNREAD", 50)
    monkeypatch.setattr("cutover.testing.events._RECENT", 10)

    async def use(stream: StreamSession) -> None:
        await stream.take(1, within=HUNG)
        await anyio.sleep(0.3)
        # Nobody waits: the session has stopped reading.
        waiting = stream._log.end
        assert waiting <= 60
        await anyio.sleep(0.1)
        assert stream._log.end == waiting

        far = anyio.Event()

        async def ahead() -> None:
            await stream.take(300, within=HUNG)
            assert len(stream._log._window) <= 70
            far.set()
            await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ahead)
            await far.wait()
            with pytest.raises(RuntimeError, match="has not read"):
                await stream.take(1, within=HUNG)
            await stream.take(1, within=HUNG)
            tasks.cancel_scope.cancel()

    await read(Ticker(), use)


@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_piece_with_more_events_than_may_wait_is_read_whole(is_waiting: bool) -> None:
    async def use(stream: StreamSession) -> None:
        if not is_waiting:
            await anyio.sleep(0.5)
        await stream.take(1, within=HUNG)
        events = await stream.take(24_000, within=HUNG)
        assert [event.index for event in events] == list(range(1, 24_001))

    await read(saying(tick(0), tick(1) * 24_000), use)


async def test_a_task_that_ended_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cutover.testing.events.MAX_UNREAD", 50)

    async def use(stream: StreamSession) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.take, 1)
        await stream.take(300, within=HUNG)

    await read(Ticker(), use)
