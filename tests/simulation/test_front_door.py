"""The front door of the simulation: it may lag behind the served traffic, favour the canary, and cut streams at a change."""

from contextlib import AsyncExitStack
from typing import Any

import pytest
from anyio.lowlevel import checkpoint
from attrs import evolve

from cutover.simulation import FAULTS, ChangeKind, Ending, Layout, SimulatedProduction
from tests.support.asgi_caller import (
    CHAT,
    COMPATIBLE,
    CREDENTIALS,
    FRONT,
    LAYOUT,
    Answer,
    HandClock,
    chat,
    let_run,
    override,
    production,
    request,
    share,
    update,
)

pytestmark = pytest.mark.anyio
STREAM: dict[str, Any] = {"token": CREDENTIALS.auth_token, "headers": COMPATIBLE, "json": CHAT}


async def answered_by(peer: SimulatedProduction, times: int = 1) -> set[str | None]:
    return {(await chat(peer)).headers.get("x-cutover-revision") for _ in range(times)}


async def test_a_front_door_that_lags_routes_by_the_old_split_for_these_seconds() -> None:
    clock = HandClock()
    peer = production(FAULTS["front-door-lags"], clock=clock)
    await update(peer, share("svc-2", 100))
    assert peer.traffic == {"svc-2": 100}
    clock.seconds += 2.9
    assert await answered_by(peer) == {"svc-1"}
    clock.seconds += 0.2
    assert await answered_by(peer) == {"svc-2"}


async def test_two_changes_reach_a_lagging_front_door_one_after_the_other() -> None:
    clock = HandClock()
    peer = production(layout=evolve(LAYOUT, front_lag_seconds=10.0), clock=clock)
    await update(peer, share("svc-2", 100))
    clock.seconds += 5
    await update(peer, share("svc-1", 100))
    found = []
    for _ in range(3):
        found.append(await answered_by(peer))
        clock.seconds += 5
    assert found == [{"svc-1"}, {"svc-2"}, {"svc-1"}]


async def test_a_canary_that_gets_everything_needs_only_a_share() -> None:
    peer = production(FAULTS["canary-gets-everything"])
    assert await answered_by(peer, 5) == {"svc-1"}
    await update(peer, share("svc-1", 95), share("svc-2", 5))
    assert peer.traffic == {"svc-1": 95, "svc-2": 5}
    assert await answered_by(peer, 5) == {"svc-2"}
    await update(peer, share("svc-1", 100))
    assert await answered_by(peer, 5) == {"svc-1"}


class TestCuts:
    LAYOUT: Layout = evolve(LAYOUT, cuts_responses_at=frozenset({ChangeKind.TRAFFIC}))

    async def sent_across(self, peer: SimulatedProduction, change: Any) -> Answer:
        """Send a stream up to its first event, make a change, and read on."""
        read = False

        async def read_slowly(_: Answer) -> None:
            while not read:
                await checkpoint()

        async with AsyncExitStack() as stack:
            answer, _ = await stack.enter_async_context(
                request(peer, "POST", f"{FRONT}/api/chat/stream", on_chunk=read_slowly, **STREAM)
            )
            await let_run()
            assert answer.chunks
            assert not answer.complete
            await change
            read = True
            await let_run()
        return answer

    async def test_a_traffic_change_cuts_a_stream_that_is_being_sent(self) -> None:
        peer = production(layout=self.LAYOUT)
        answer = await self.sent_across(peer, update(peer, share("svc-1", 95), share("svc-2", 5)))
        assert answer.broken
        assert not answer.complete
        assert peer.requests[0].ending is Ending.BROKEN
        assert (await chat(peer)).complete

    async def test_a_change_to_the_same_split_and_a_change_of_routes_cut_nothing(self) -> None:
        peer = production(layout=self.LAYOUT)
        assert (await self.sent_across(peer, update(peer, share("svc-1", 100)))).complete
        assert (await self.sent_across(peer, override(peer, "rust"))).complete

    async def test_an_override_cuts_only_if_it_changes_the_routes(self) -> None:
        peer = production(layout=evolve(LAYOUT, cuts_responses_at=frozenset({ChangeKind.ROUTES})))
        assert (await self.sent_across(peer, override(peer, "clear"))).complete
        assert (await self.sent_across(peer, override(peer, "rust"))).broken
        assert (await self.sent_across(peer, update(peer, share("svc-2", 100)))).complete

    async def test_the_reply_to_the_change_itself_is_not_cut(self) -> None:
        peer = production(FAULTS["streams-cut-at-flip"])
        assert (await override(peer, "rust")).complete
