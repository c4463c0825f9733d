"""The simulation really streams: it sends piece by piece, pauses, and stops when the client disconnects."""

from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve

from cutover.simulation import FAULTS, ConnectionBroken, Ending, SimulatedProduction
from cutover.simulation.wire import MAX_BODY_BYTES
from tests.support.asgi_caller import (
    CHAT,
    COMPATIBLE,
    CREDENTIALS,
    FRONT,
    LAYOUT,
    SERVICE,
    Answer,
    HandClock,
    let_run,
    production,
    request,
    scope_of,
    share,
    update,
)

pytestmark = pytest.mark.anyio
STREAM: dict[str, Any] = {"token": CREDENTIALS.auth_token, "headers": COMPATIBLE, "json": CHAT}
URL = f"{FRONT}/api/chat/stream"


async def until_ended(peer: SimulatedProduction) -> Ending | None:
    for _ in range(1000):
        if peer.requests and peer.requests[-1].ending is not None:
            break
        await checkpoint()
    return peer.requests[-1].ending


async def test_each_event_is_sent_separately_and_waits_for_its_reader() -> None:
    gate = anyio.Semaphore(0)
    peer = production()

    async def read_one(_: Answer) -> None:
        await gate.acquire()

    async with request(peer, "POST", URL, on_chunk=read_one, **STREAM) as (answer, _):
        for expected in range(1, 11):
            await let_run()
            assert len(answer.chunks) == expected
            assert not answer.complete
            gate.release()
        gate.release()
        assert await until_ended(peer) is Ending.COMPLETE
    assert all(chunk.startswith(b"data: ") and chunk.endswith(b"\n\n") for chunk in answer.chunks)


async def test_the_layout_can_set_a_pause_after_each_event() -> None:
    clock, times = HandClock(), []
    peer = production(clock=clock, layout=evolve(LAYOUT, chunk_seconds=0.5))

    async def note(_: Answer) -> None:
        times.append(clock.seconds)

    async with request(peer, "POST", URL, on_chunk=note, **STREAM):
        await until_ended(peer)
    assert times == [100.0 + 0.5 * number for number in range(len(times))]
    assert len(times) == 11


async def test_a_reader_that_hangs_up_ends_the_stream() -> None:
    peer = production()

    async with request(peer, "POST", URL, on_chunk=lambda _: anyio.sleep_forever(), **STREAM) as (_, hang_up):
        await let_run()
        assert peer.requests[0].ending is None
        hang_up.set()
        assert await until_ended(peer) is Ending.DISCONNECTED


async def test_a_send_that_fails_ends_the_stream() -> None:
    peer = production()

    async def gone(_: Answer) -> None:
        raise OSError("the connection is closed")

    async with request(peer, "POST", URL, on_chunk=gone, **STREAM):
        assert await until_ended(peer) is Ending.DISCONNECTED


async def test_a_reader_that_leaves_before_the_body_is_complete_starts_no_turn() -> None:
    peer = production()

    async def leave() -> dict[str, object]:
        return {"type": "http.disconnect"}

    async def unsent(message: object) -> None:
        raise AssertionError(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/chat/stream",
        "headers": [(b"host", b"openagents.com")],
    }
    await peer.app(scope, leave, unsent)
    assert peer.requests[0].ending is Ending.DISCONNECTED
    assert peer.turns == 0


async def test_a_body_that_is_too_large_breaks_the_connection_and_is_logged_so() -> None:
    peer = production()

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"x" * (MAX_BODY_BYTES + 1)}

    async def unsent(message: object) -> None:
        raise AssertionError(message)

    with pytest.raises(ConnectionBroken, match="larger than"):
        await peer.app(scope_of("POST", URL, {}), receive, unsent)
    assert peer.requests[0].ending is Ending.BROKEN
    assert peer.turns == 0


DEEP = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


@pytest.mark.parametrize(
    ("method", "url", "token"),
    [
        ("POST", URL, CREDENTIALS.auth_token),
        ("POST", f"{FRONT}/api/runtime/tools/execute", CREDENTIALS.auth_token),
        ("POST", f"{FRONT}/api/v1/control/route-split/override", CREDENTIALS.control_token),
        ("POST", f"{FRONT}/api/v1/control/route-split/evaluate", CREDENTIALS.control_token),
        ("PATCH", f"{SERVICE}?updateMask=traffic", CREDENTIALS.cloud_run_token),
        ("PUT", f"{SERVICE.replace('/v2/', '/v1/')}", CREDENTIALS.cloud_run_token),
    ],
)
async def test_json_that_is_nested_too_deeply_is_a_bad_body(method: str, url: str, token: str) -> None:
    headers = {**COMPATIBLE, "authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(
        production(FAULTS["override-sticks"], FAULTS["promotion-never-settles"]).app
    )
    async with httpx.AsyncClient(transport=transport) as client:
        answer = await client.request(method, url, headers=headers, content=DEEP)
    assert 400 <= answer.status_code < 500


async def test_a_stalled_stream_stays_open_until_the_reader_leaves() -> None:
    peer = production(FAULTS["stall-in-turn"])
    async with request(peer, "POST", URL, **STREAM) as (answer, hang_up):
        await let_run()
        assert peer.requests[0].ending is None
        assert answer.types()[-1] == "text-delta"
        hang_up.set()
        assert await until_ended(peer) is Ending.DISCONNECTED


async def test_a_broken_stream_raises_connection_broken() -> None:
    peer = production(FAULTS["stream-reset"])
    async with request(peer, "POST", URL, **STREAM) as (answer, _):
        assert await until_ended(peer) is Ending.BROKEN
        await checkpoint()
    assert answer.broken
    assert not answer.complete
    assert answer.chunks


async def test_a_request_is_routed_by_its_head_even_if_the_split_changes_before_its_body() -> None:
    peer = production()
    body, sent = anyio.Event(), []

    async def receive() -> dict[str, object]:
        await body.wait()
        return {"type": "http.request", "body": b"{}"}

    async def send(message: object) -> None:
        sent.append(message)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(peer.app, scope_of("POST", URL, {}), receive, send)
        await let_run()
        await update(peer, share("svc-2", 100))
        body.set()
    assert peer.requests[0].revision == "svc-1"
    assert peer.traffic == {"svc-2": 100}


async def test_it_speaks_the_lifespan_protocol() -> None:
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive() -> dict[str, str]:
        return messages.pop(0)

    async def send(message: dict[str, str]) -> None:
        sent.append(message["type"])

    await production().app({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]  # the fakes have narrower types
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_an_ordinary_client_reads_it_too() -> None:
    peer = production()
    transport = httpx.ASGITransport(peer.app)
    async with httpx.AsyncClient(transport=transport, base_url=FRONT) as client:
        headers = {**COMPATIBLE, "authorization": f"Bearer {CREDENTIALS.auth_token}"}
        answer = await client.post("/api/chat/stream", headers=headers, json=CHAT)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert peer.requests[0].ending is Ending.COMPLETE
