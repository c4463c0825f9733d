"""The writer of the routes: it writes overrides until every instance has them, and proves that."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.http.outbound import MAX_RETRY_AFTER
from cutover.model.route_state import GLOBAL, ROUTES_DEADLINE
from cutover.model.train_events import Answered, RouteIntended, RoutesRead
from cutover.production.lane import COMPAT
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.control_plane import SAMPLE_CONCURRENCY
from cutover.production.routes.writer import ROUNDS, RouteChange, set_routes
from cutover.record.journal import Journal
from tests.support.full_disk import disk_with_room_for
from tests.support.route_instances import BASE, CLEAR, Instances, Overrides, control, status_body

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


FLIP = ((GLOBAL, None), ("auth_entry", "rust_shell"), ("billing_l402", "rust_shell"), (GLOBAL, "rust_shell"))


async def flip(
    instances: Instances,
    journal: Journal | None = None,
    *,
    wanted: tuple[tuple[str, str | None], ...] = FLIP,
    on_refusal: OnRefusal = OnRefusal.STOP,
    answer: Callable[[httpx.Request], Any] | None = None,
) -> RouteChange:
    return await set_routes(
        control(answer or instances.answer),
        wanted,
        captured=CLEAR,
        step_id="route-flip",
        label="flip.apply",
        on_refusal=on_refusal,
        journal=journal or Journal(),
        clock=EventLoopClock(),
    )


def journaled(journal: Journal) -> list[object]:
    """Return the journal as rows: (key, times) of an intent, (key, outcome) of an answer, True or False of a read-back."""
    rows: list[object] = []
    for event in journal.events:
        match event:
            case RouteIntended():
                assert (event.step_id, event.captured) == ("route-flip", CLEAR)
                rows.append((event.key, event.times))
            case Answered():
                rows.append((event.key, event.outcome))
            case RoutesRead():
                rows.append(event.proven)
    return rows


class TestSetRoutes:
    async def test_one_instance_needs_one_round_and_keeps_the_order(self) -> None:
        instances, journal = Instances(), Journal()
        change = await flip(instances, journal)
        assert change.proven
        assert change.sample is not None
        assert change.sample.describe() == change.detail
        assert instances.writes == [
            (GLOBAL, "clear"), ("auth_entry", "rust"), ("billing_l402", "rust"), (GLOBAL, "rust"),
        ]  # fmt: skip
        assert journaled(journal) == [
            (GLOBAL, 1), (GLOBAL, "accepted"),
            ("auth_entry", 1), ("auth_entry", "accepted"),
            ("billing_l402", 1), ("billing_l402", "accepted"),
            (GLOBAL, 1), (GLOBAL, "accepted"),
            True,
        ]  # fmt: skip
        assert instances.labels[:4] == [
            "flip.apply.0.global", "flip.apply.1.auth_entry", "flip.apply.2.billing_l402", "flip.apply.3.global",
        ]  # fmt: skip
        assert set(instances.labels[4:]) == {"flip.apply.read-back"}

    @pytest.mark.parametrize("count", [2, 5, 10])
    async def test_several_instances_need_more_rounds_until_all_have_the_overrides(self, count: int) -> None:
        instances, journal = Instances(count=count), Journal()
        change = await flip(instances, journal)
        assert change.proven
        assert all(memory == dict(FLIP) for memory in instances.memories)
        times = [event.times for event in journal.events if isinstance(event, RouteIntended)]
        assert times[:5] == [1, 1, 1, 1, ROUNDS[1]]
        again = instances.writes[len(FLIP) :]
        # A later round does not clear an override that is set already.
        assert (GLOBAL, "clear") not in again

    async def test_an_undo_clears_the_overrides_that_were_clear_before(self) -> None:
        instances = Instances(count=2)
        for memory in instances.memories:
            memory |= dict(FLIP)
        change = await flip(instances, wanted=CLEAR.overrides, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert all(not any(memory.values()) for memory in instances.memories)
        assert {word for _, word in instances.writes} == {"clear"}

    async def test_an_unknown_target_is_restored_by_its_own_name(self) -> None:
        instances = Instances()
        assert (await flip(instances, wanted=((GLOBAL, "beta"),))).proven
        assert instances.writes == [(GLOBAL, "beta")]

    async def test_a_refusal_ends_a_forward_change(self) -> None:
        journal = Journal()
        instances = Instances(
            on_write=lambda number, *_: httpx.Response(422, json={"message": "no"}) if number == 2 else None
        )
        change = await flip(instances, journal)
        assert (change.proven, change.sample) == (False, None)
        assert change.detail == f"POST {BASE}{COMPAT.override_path}: HTTP 422 (no)"
        assert journaled(journal)[-1] == ("auth_entry", "refused")
        assert (len(instances.writes), instances.reads) == (2, 0)

    async def test_a_refused_undo_is_written_again(self) -> None:
        instances = Instances(
            on_write=lambda number, *_: httpx.Response(409) if number <= len(FLIP) else None
        )
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert len(instances.writes) == len(FLIP) + 3 * ROUNDS[1]

    @pytest.mark.parametrize("seconds", [15.0, 40.0, 49.0])
    async def test_an_undo_outlasts_a_temporary_refusal(self, seconds: float) -> None:
        started = anyio.current_time()
        instances = Instances(
            on_write=lambda *_: httpx.Response(503) if anyio.current_time() - started < seconds else None
        )
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert seconds <= anyio.current_time() - started <= ROUTES_DEADLINE

    async def test_the_pauses_of_an_undo_are_random(self) -> None:
        seconds = set()
        for seed in (1, 2):
            random.seed(seed)
            started = anyio.current_time()
            last_refused = len(FLIP) + 3 * ROUNDS[1]
            instances = Instances(
                on_write=lambda number, *_, last=last_refused: httpx.Response(503) if number <= last else None
            )
            assert (await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)).proven
            seconds.add(anyio.current_time() - started)
        assert all(0.3 <= each <= 0.6 for each in seconds)
        assert len(seconds) == 2

    @pytest.mark.parametrize(("retry_after", "wait"), [("7", 7.0), ("86400", MAX_RETRY_AFTER)])
    async def test_an_undo_waits_for_the_retry_after(self, retry_after: str, wait: float) -> None:
        started = anyio.current_time()

        def refuse(*_: object) -> httpx.Response | None:
            busy = anyio.current_time() - started < 2 * wait
            return httpx.Response(429, headers={"retry-after": retry_after}) if busy else None

        instances = Instances(seconds=0.01, on_write=refuse)
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert 2 * wait <= anyio.current_time() - started < 2 * wait + 2.0
        rounds = len(FLIP) + SAMPLE_CONCURRENCY * 3 + ROUNDS[2] * 3
        # After a retry-after the rest of the round is not sent.
        assert len(instances.writes) <= rounds

    async def test_a_429_that_does_not_end_ends_a_forward_change_after_two_more_tries(self) -> None:
        instances = Instances(on_write=lambda *_: httpx.Response(429, headers={"retry-after": "7"}))
        started = anyio.current_time()
        assert not (await flip(instances)).proven
        assert (len(instances.writes), anyio.current_time()) == (3, started + 14.0)

    @pytest.mark.parametrize("status", [409, 429, 500, 503])
    @pytest.mark.parametrize("number", [1, 2, 3, 4])
    async def test_one_refusal_that_passes_does_not_end_a_forward_change(
        self, status: int, number: int
    ) -> None:
        instances = Instances(on_write=lambda count, *_: httpx.Response(status) if count == number else None)
        change = await flip(instances)
        assert change.proven
        # The order is kept: the round begins again.
        assert [key for key, _ in instances.writes[number:]] == [key for key, _ in FLIP]

    @pytest.mark.parametrize("seconds", [2.0, 8.0, 30.0])
    async def test_a_forward_change_waits_for_overrides_that_take_effect_late(self, seconds: float) -> None:
        instances = Instances(count=2)
        landing: list[tuple[float, Overrides, str, str | None]] = []

        def late(_: int, memory: Overrides, key: str, value: str | None) -> httpx.Response:
            landing.append((anyio.current_time() + seconds, memory, key, value))
            return httpx.Response(200, content=status_body({**memory, key: value}))

        def land(_: int) -> None:
            while landing and landing[0][0] <= anyio.current_time():
                _at, memory, key, value = landing.pop(0)
                memory[key] = value

        instances.on_write, instances.on_read = late, land
        assert (await flip(instances)).proven

    async def test_an_undo_that_is_always_refused_ends_after_all_rounds_with_the_reason(self) -> None:
        journal = Journal()
        instances = Instances(on_write=lambda *_: httpx.Response(403))
        change = await flip(instances, journal, on_refusal=OnRefusal.TRY_AGAIN)
        assert not change.proven
        assert "not every instance took the overrides: 59 of 59 reads" in change.detail
        assert change.detail.endswith("HTTP 403 (an empty body))")
        times = [event.times for event in journal.events if isinstance(event, RouteIntended)]
        assert tuple(dict.fromkeys(times)) == ROUNDS
        rounds = len([event for event in journal.events if isinstance(event, RoutesRead)])
        # The pauses grow, so there are not many rounds.
        assert len(ROUNDS) < rounds < 20
        assert {outcome for _, outcome in (row for row in journaled(journal) if isinstance(row, tuple))} >= {
            "refused"
        }

    async def test_a_reply_that_shows_another_override_means_no_effect(self) -> None:
        journal = Journal()
        instances = Instances(on_write=lambda *_: httpx.Response(200, content=status_body({})))
        change = await flip(instances, journal, wanted=(("auth_entry", "rust_shell"),))
        assert not change.proven
        assert change.detail.endswith("(the reply to auth_entry=rust says auth_entry=clear)")
        assert journaled(journal)[:3] == [("auth_entry", 1), ("auth_entry", "no effect"), False]

    async def test_a_read_back_resolves_a_lost_reply(self) -> None:
        def lose(number: int, memory: Overrides, key: str, value: str | None) -> httpx.Response | None:
            memory[key] = value
            raise httpx.ReadError("reset")

        journal = Journal()
        change = await flip(Instances(on_write=lose), journal)
        assert change.proven
        assert journaled(journal)[1] == (GLOBAL, "unknown")
        answers = [event for event in journal.events if isinstance(event, Answered)]
        assert all("the connection was reset" in answer.detail for answer in answers)

    async def test_one_lost_reply_of_many_makes_the_answer_unknown(self) -> None:
        def lose(number: int, memory: Overrides, key: str, value: str | None) -> httpx.Response | None:
            if number == 1:
                return httpx.Response(200, content=status_body({}))
            if number == 5:
                raise httpx.ReadError("reset")
            return None

        journal = Journal()
        change = await flip(Instances(on_write=lose), journal, wanted=(("auth_entry", "rust_shell"),))
        assert change.proven
        assert journaled(journal) == [
            ("auth_entry", 1), ("auth_entry", "no effect"), False,
            ("auth_entry", ROUNDS[1]), ("auth_entry", "unknown"), True,
        ]  # fmt: skip

    async def test_an_unusable_reply_makes_the_answer_unknown(self) -> None:
        journal = Journal()
        await flip(Instances(on_write=lambda *_: httpx.Response(200, text="<html>")), journal)
        assert journaled(journal)[:2] == [(GLOBAL, 1), (GLOBAL, "unknown")]

    async def test_overrides_that_take_effect_in_a_later_round_are_proven(self) -> None:
        pending: Overrides = {}
        instances = Instances(seconds=0.01)

        def late(number: int, memory: Overrides, key: str, value: str | None) -> httpx.Response:
            pending[key] = value
            if number > len(FLIP):
                memory |= pending
            return httpx.Response(200, content=status_body(pending))

        instances.on_write = late
        assert (await flip(instances)).proven

    async def test_routes_that_cannot_be_read_back_are_not_proven(self) -> None:
        instances = Instances(on_read=lambda _: httpx.Response(401))
        change = await flip(instances)
        assert not change.proven
        assert change.detail.startswith("the routes could not be read back: GET ")
        # A forward change writes no further round if it cannot read.
        assert len(instances.writes) == len(FLIP)

    async def test_an_undo_writes_on_until_the_routes_can_be_read_again(self) -> None:
        instances = Instances(on_read=lambda number: httpx.Response(401) if number <= 8 else None)
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert len(instances.writes) > len(FLIP)

    async def test_a_change_without_effect_ends_at_the_deadline(self) -> None:
        journal = Journal()
        instances = Instances(seconds=9.0, on_write=lambda *_: httpx.Response(200, content=status_body({})))
        started = anyio.current_time()
        change = await flip(instances, journal, wanted=(("auth_entry", "rust_shell"),))
        assert not change.proven
        assert anyio.current_time() - started > ROUTES_DEADLINE
        assert [row for row in journaled(journal) if isinstance(row, bool)] == [False]

    @pytest.mark.parametrize("on_refusal", list(OnRefusal))
    async def test_after_the_deadline_nothing_is_sent_and_the_detail_gives_the_shares(
        self, on_refusal: OnRefusal
    ) -> None:
        times: list[float] = []

        def ignore(*_: object) -> httpx.Response:
            times.append(anyio.current_time())
            return httpx.Response(200, content=status_body({}))

        async def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                await anyio.sleep(9.9)
            return await instances.answer(request)

        instances, journal = Instances(on_write=ignore), Journal()
        change = await flip(instances, journal, on_refusal=on_refusal, answer=answer)
        assert change.detail.startswith("not every instance took the overrides: 59 of 59 reads: ")
        # A write that was sent before the deadline is not cut.
        assert ROUTES_DEADLINE < times[-1] < ROUTES_DEADLINE + 9.9
        assert anyio.current_time() == times[-1]
        intended = [event for event in journal.events if isinstance(event, RouteIntended)]
        assert len(intended) == len([event for event in journal.events if isinstance(event, Answered)])

    async def test_writes_without_an_answer_use_up_the_whole_deadline(self) -> None:
        async def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                await anyio.sleep_forever()
            return await instances.answer(request)

        instances, journal = Instances(), Journal()
        started = anyio.current_time()
        assert not (await flip(instances, journal, answer=answer)).proven
        assert anyio.current_time() - started == ROUTES_DEADLINE
        assert [row for row in journaled(journal) if isinstance(row, tuple)] == [
            (GLOBAL, 1), (GLOBAL, "unknown"),
            ("auth_entry", 1), ("auth_entry", "unknown"),
            ("billing_l402", 1), ("billing_l402", "unknown"),
        ]  # fmt: skip


@pytest.mark.parametrize("at", range(len(FLIP)))
async def test_a_change_that_is_cancelled_at_an_intent_is_journaled_as_not_sent(at: int) -> None:
    instances, journal = Instances(seconds=0.01), Journal()
    with anyio.CancelScope() as scope:

        def observe(event: object) -> None:
            if isinstance(event, RouteIntended) and len(instances.writes) == at:
                scope.cancel()

        journal.observers.append(observe)
        await flip(instances, journal)
    assert scope.cancelled_caught
    assert len(instances.writes) == at
    assert journaled(journal)[-2:] == [(FLIP[at][0], 1), (FLIP[at][0], "not sent")]


@pytest.mark.parametrize("at", range(1, len(FLIP) + 1))
async def test_a_write_in_progress_at_a_cancellation_is_finished_and_is_the_last(at: int) -> None:
    instances, journal = Instances(seconds=0.01), Journal()
    with anyio.CancelScope() as scope:

        def cancel(number: int, *_: object) -> None:
            if number == at:
                scope.cancel()

        instances.on_write = cancel
        await flip(instances, journal)
    assert scope.cancelled_caught
    assert len(instances.writes) == at
    assert journaled(journal)[-1] == (FLIP[at - 1][0], "accepted")


async def test_a_503_counts_as_failed_and_not_as_refused() -> None:
    journal = Journal()
    assert not (await flip(Instances(on_write=lambda *_: httpx.Response(503)), journal)).proven
    assert journaled(journal) == [
        (GLOBAL, 1), (GLOBAL, "failed"), False,
        (GLOBAL, 1), (GLOBAL, "failed"), False,
        (GLOBAL, 1), (GLOBAL, "failed"),
    ]  # fmt: skip


class TestBrokenJournal:
    """A journal that cannot be written stops forward changes, but not an undo."""

    async def test_a_forward_change_writes_nothing(self) -> None:
        instances = Instances()
        change = await flip(instances, Journal(broken="the disk is full"))
        assert (change.proven, change.detail) == (False, "the disk is full")
        assert instances.writes == []

    async def test_an_intent_that_cannot_be_journaled_is_not_sent(self, tmp_path: Path) -> None:
        instances, journal = Instances(), Journal.create(tmp_path / "journal.jsonl")
        with disk_with_room_for(0):
            change = await flip(instances, journal)
        journal.close()
        assert not change.proven
        assert change.detail.startswith("the journal cannot be written")
        assert instances.writes == []

    async def test_an_undo_goes_on(self) -> None:
        change = await flip(Instances(), Journal(broken="the disk is full"), on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
