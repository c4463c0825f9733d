"""A session that reconnects with `Last-Event-ID`: nothing may be lost or doubled at the join."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import httpx2
import pytest

from cutover.errors import ContractViolation
from cutover.testing.opening import stream_contract
from cutover.testing.session import StreamSession
from tests.support.loopback_server import served
from tests.support.ticker import JOB, PATH, TICKER, Ticker, opaque

pytestmark = pytest.mark.anyio

HUNG = 20.0


async def read(app: Any, use: Callable[[StreamSession], Awaitable[Any]], **options: Any) -> StreamSession:
    options = {"contract": TICKER, **options}
    with anyio.fail_after(HUNG):
        async with stream_contract(app, PATH, **options) as stream:
            await use(stream)
    return stream


async def broken(
    app: Any, use: Callable[[StreamSession], Awaitable[Any]], **options: Any
) -> ContractViolation:
    with pytest.raises(ContractViolation) as caught:
        await read(app, use, **options)
    return caught.value


def rules(violation: ContractViolation) -> list[str]:
    return [finding.rule for finding in violation.findings]


async def resume_after_four(stream: StreamSession) -> None:
    """Leave the stream behind event 4, and read five events behind the join."""
    await stream.take(4, within=HUNG)
    await stream.disconnect()
    await stream.resume()
    await stream.take(5, within=HUNG)


# ---------------------------------------------------------------- a good join


async def test_a_resumed_stream_goes_on_as_one_stream() -> None:
    app = Ticker(every=0.02)
    joined: list[Any] = []

    async def use(stream: StreamSession) -> None:
        before = await stream.take(4, within=HUNG)
        await stream.disconnect()
        await stream.resume()
        assert not stream.disconnected
        joined.extend([*before, *await stream.take(3, within=HUNG)])

    stream = await read(app, use)
    assert stream.report.ok
    assert [event.json()["n"] for event in joined] == list(range(1, 8))
    assert [event.index for event in joined] == list(range(7))
    assert [event.offset for event in joined] == sorted({event.offset for event in joined})
    assert [event.time for event in joined] == sorted(event.time for event in joined)
    assert app.asked == [None, "4"]
    assert app.methods == ["GET", "GET"]
    assert stream.report.event_count >= 7


async def test_an_open_stream_is_left_and_its_unread_events_stay() -> None:
    app = Ticker()

    async def use(stream: StreamSession) -> None:
        await stream.take(1, within=HUNG)
        await anyio.sleep(0.05)
        await stream.resume()
        events = await stream.take(60, within=HUNG)
        assert [event.json()["n"] for event in events] == list(range(2, 62))  # type: ignore[index]

    assert (await read(app, use)).report.ok
    assert app.asked[1] is not None
    assert int(app.asked[1]) > 1


async def test_the_join_stands_among_the_events() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.take(2, within=HUNG)
        await stream.resume()
        join = await stream.expect("(reconnected)", within=HUNG)
        assert join.data.startswith("Last-Event-ID: ")
        assert not join.is_dispatched

    await read(Ticker(every=0.02), use)


async def test_a_stream_that_ended_too_early_can_be_resumed() -> None:
    app = Ticker(count=8, break_after=4)

    async def use(stream: StreamSession) -> None:
        await stream.collect(HUNG)
        await stream.resume()
        await stream.expect("done", within=HUNG)

    stream = await read(app, use, contract=JOB)
    assert stream.report.ok
    assert app.asked == [None, "4"]

    async def no_resume(stream: StreamSession) -> None:
        await stream.take(4)

    assert rules(await broken(Ticker(count=8, break_after=4), no_resume, contract=JOB)) == [
        "order.finish-missing"
    ]


async def test_a_stream_that_broke_can_be_resumed_and_loses_the_cut_event() -> None:
    class Breaks(Ticker):
        async def _send(self, send: Any, text: str) -> None:
            if '"n":5}' in text and len(self.asked) == 1:
                await super()._send(send, text[:20])
                raise OSError("the instance is gone")
            await super()._send(send, text)

    app = Breaks(count=8)

    async def use(stream: StreamSession) -> None:
        await stream.take(4, within=HUNG)
        await stream.expect("(cut off)", within=HUNG)
        await stream.resume()
        events = await stream.until("done", within=HUNG)
        assert [event.id for event in events] == ["5", "6", "7", "8", "9"]

    assert (await read(app, use, contract=JOB)).report.ok
    assert app.asked == [None, "4"]


async def test_a_stream_can_be_resumed_again_and_again() -> None:
    app = Ticker(every=0.02)

    async def use(stream: StreamSession) -> None:
        for _ in range(3):
            await stream.take(3, within=HUNG)
            await stream.disconnect()
            await stream.resume()
        [event] = await stream.take(1, within=HUNG)
        assert event.id == "10"

    assert (await read(app, use)).report.ok
    assert app.asked == [None, "3", "6", "9"]


async def test_a_task_that_waits_reads_on_over_the_join() -> None:
    app = Ticker(count=9, break_after=4, every=0.02)

    async def use(stream: StreamSession) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stream.expect, "done")
            await stream.take(2, within=HUNG)
            await stream.resume()

    assert (await read(app, use, contract=JOB)).report.ok


async def test_a_reconnection_after_the_end_may_be_told_to_stop() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.expect("done", within=HUNG)
        await stream.resume()
        assert stream.status == 204

    stream = await read(Ticker(count=3, refuse=204), use, contract=JOB)
    assert stream.report.ok


async def test_a_reconnection_after_the_end_may_bring_nothing() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.expect("done", within=HUNG)
        await stream.resume()

    assert (await read(Ticker(count=3), use, contract=JOB)).report.ok


async def test_the_request_is_the_same_otherwise() -> None:
    requests: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        ticker = Ticker(id_of=lambda n: f"Zürich-{n}")
        text = "".join(ticker.tick(n + 2 * len(requests)) for n in range(2))
        return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, text=text)

    async def use(stream: StreamSession) -> None:
        await stream.take(2, within=HUNG)
        await stream.resume()

    mock = httpx.MockTransport(answer)
    async with httpx.AsyncClient(transport=mock, base_url="http://chat.example") as client:
        headers = {"X-Mine": "1", "Last-Event-ID": "0"}
        await read(client, use, method="POST", json={"a": 1}, headers=headers)
    raw = [{name.lower(): value for name, value in request.headers.raw} for request in requests]
    ids = [head[b"last-event-id"] for head in raw]
    assert ids == [b"0", "Zürich-3".encode()]
    for request in requests:
        assert (request.method, request.content, request.headers["x-mine"]) == ("POST", b'{"a":1}', "1")
        assert request.headers["accept"] == "text/event-stream"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("library", [None, httpx, httpx2])
async def test_a_real_service_can_be_resumed(library: Any) -> None:
    app = Ticker(every=0.01)

    async with served(app) as url, AsyncExitStack() as stack:
        peer = await stack.enter_async_context(library.AsyncClient(base_url=url)) if library else url
        stream = await read(peer, resume_after_four)
        assert stream.report.ok
        with pytest.raises(RuntimeError, match="in process"):
            stream.app_noticed(within=1.0)
    assert app.asked[0] is None
    assert int(app.asked[1] or 0) >= 4


# ---------------------------------------------------------------- the time between


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("retry", "delay", "waited"), [(None, None, 0), (1500, None, 1.5), (60_000, None, 5), (60_000, 0.5, 0.5)]
)
async def test_the_servers_retry_is_waited_for_within_a_bound(
    retry: int | None, delay: float | None, waited: float
) -> None:
    app = Ticker(every=0.02, head_of_stream="" if retry is None else f"retry: {retry}\n\n")

    async def use(stream: StreamSession) -> None:
        await stream.take(2, within=HUNG)
        await stream.disconnect()
        began = anyio.current_time()
        await stream.resume(delay=delay)
        assert anyio.current_time() - began == pytest.approx(waited, abs=0.1)
        await stream.take(1, within=HUNG)

    # The time without a connection is no gap between events.
    contract = attrs.evolve(TICKER, limits=attrs.evolve(TICKER.limits, event_gap=1.0))
    assert (await read(app, use, contract=contract)).report.ok


@pytest.mark.virtual_time
async def test_a_cancelled_resume_leaves_the_session_usable() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.take(2, within=HUNG)
        with anyio.move_on_after(1.0) as scope:
            await stream.resume(delay=10.0)
        assert scope.cancelled_caught
        await stream.resume()
        events = await stream.take(2, within=HUNG)
        assert events[-1].id is not None

    assert (await read(Ticker(every=0.02), use)).report.ok


@pytest.mark.virtual_time
async def test_a_reconnection_that_is_never_answered_fails_in_time() -> None:
    class Hangs(Ticker):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            if any(name == b"last-event-id" for name, _ in scope["headers"]):
                await anyio.sleep_forever()
            await super().__call__(scope, receive, send)

    failure = await broken(Hangs(every=0.02), resume_after_four, grace=0.1, deadline=60.0)
    assert rules(failure) == ["timing.event-gap"]


# ---------------------------------------------------------------- a bad join


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (
            {"ignore_id": True},
            "resume.replayed: expected only events that have not come before, got the id 1 again",
        ),
        (
            {"double": True},
            "resume.replayed: expected only events that have not come before, got the id 4 again",
        ),
        (
            {"overlap": True},
            "resume.replayed: expected only events that have not come before, got the id 7 again",
        ),
        ({"forget": [1]}, "resume.lost: expected the id 5 behind 4, got the id 6"),
        ({"forget": [3]}, "resume.lost: expected the id 7 behind 6, got the id 8"),
    ],
    ids=["begins again", "doubles the last", "overlaps", "forgets the first", "forgets a later one"],
)
async def test_a_faulty_join_breaks_the_contract(fault: dict[str, Any], found: str) -> None:
    failure = await broken(Ticker(every=0.02, **fault), resume_after_four)
    assert str(failure).startswith(found)
    assert len(rules(failure)) == 1
    assert "last-event-id: 4" in str(failure)
    assert "(reconnected)" in str(failure)


async def test_ids_that_rise_in_other_steps_must_still_rise() -> None:
    failure = await broken(Ticker(every=0.02, swap=True, id_of=lambda n: f"evt-{n * n}"), resume_after_four)
    assert rules(failure) == ["resume.reordered"]
    assert "expected an id behind evt-36, got the id evt-25" in str(failure)


async def test_ids_without_an_order_show_what_comes_twice_and_not_what_is_missing() -> None:
    failure = await broken(Ticker(every=0.02, double=True, id_of=opaque), resume_after_four)
    assert rules(failure) == ["resume.replayed"]
    assert (await read(Ticker(every=0.02, forget=[1], id_of=opaque), resume_after_four)).report.ok


async def test_a_gap_before_the_join_shows_that_gaps_are_usual() -> None:
    def skipping(n: int) -> str:
        return str(n + (n > 2))

    assert (await read(Ticker(every=0.02, forget=[1], id_of=skipping), resume_after_four)).report.ok


async def test_ids_that_several_events_share_are_no_doubles() -> None:
    assert (await read(Ticker(every=0.02, id_of=lambda n: str(n // 2)), resume_after_four)).report.ok


@pytest.mark.parametrize(
    ("fault", "rule", "text"),
    [
        ({"refuse": 410}, "resume.refused", "expected 200, got 410 gone: no such id"),
        ({"refuse": 204}, "resume.refused", "got 204, after which a client reconnects no more"),
        ({"refuse": 307}, "head.redirect", "307"),
        ({"html": True}, "head.content-type", "text/html"),
    ],
)
async def test_a_refused_reconnection_fails_at_once(fault: dict[str, Any], rule: str, text: str) -> None:
    reached = []

    async def use(stream: StreamSession) -> None:
        await stream.take(4, within=HUNG)
        await stream.disconnect()
        await stream.resume()
        reached.append(True)

    failure = await broken(Ticker(every=0.02, **fault), use)
    assert rules(failure) == [rule]
    assert text in str(failure)
    assert not reached


async def test_a_stream_without_ids_cannot_be_resumed() -> None:
    app = Ticker(every=0.02, id_of=lambda _: None)
    failure = await broken(app, resume_after_four)
    assert rules(failure) == ["resume.no-id"]
    assert app.asked == [None]


async def test_each_event_needs_an_id_if_the_contract_says_so() -> None:
    def some(n: int) -> str | None:
        return None if n == 3 else str(n)

    failure = await broken(Ticker(every=0.02, id_of=some), resume_after_four)
    assert rules(failure) == ["resume.no-id"]
    assert failure.findings[0].event_index == 2
    assert "an event without one" in str(failure)
    lenient = attrs.evolve(TICKER, resume=None)
    assert (await read(Ticker(every=0.02, id_of=some), resume_after_four, contract=lenient)).report.ok


async def test_the_order_is_judged_over_the_join() -> None:
    async def use(stream: StreamSession) -> None:
        await stream.expect("done", within=HUNG)
        await stream.resume()
        await stream.drain()

    failure = await broken(Ticker(count=3, ignore_id=True), use, contract=JOB)
    assert "resume.replayed" in rules(failure)
    assert "order.after-finish" in rules(failure)


async def test_a_violation_before_the_join_still_counts() -> None:
    class Bad(Ticker):
        def tick(self, n: int) -> str:
            return super().tick(n).replace('"n":2', '"m":2')

    failure = await broken(Bad(every=0.02), resume_after_four)
    assert rules(failure) == ["schema.missing-field"]


async def test_the_recording_of_a_resumed_stream_is_one_stream(tmp_path: Path) -> None:
    app = Ticker(every=0.02, double=True)
    failure = await broken(app, resume_after_four, recordings=tmp_path / "streams")
    [kept] = (tmp_path / "streams").iterdir()
    ids = [line for line in kept.read_text().splitlines() if line.startswith("id: ")]
    assert ids[:6] == [f"id: {n}" for n in (1, 2, 3, 4, 4, 5)]
    assert "of" not in str(failure).rpartition("with the contract")[2]
