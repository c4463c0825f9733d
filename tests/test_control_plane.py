"""The route-split API over the wire: what its replies say, and overrides written until every instance has them."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import msgspec
import pytest
from full_disk import disk_with_room_for

from cutover.clock import EventLoopClock
from cutover.control_plane import SAMPLE_CONCURRENCY, SAMPLE_READS, ControlPlane, RouteSample
from cutover.errors import NoAnswerError, RefusedError, UnusableReplyError
from cutover.journal import Answered, Journal, RouteIntended, RoutesRead
from cutover.lane import COMPAT
from cutover.outbound import MAX_RETRY_AFTER, Outbound
from cutover.overrides import ROUNDS, ROUTES_DEADLINE, RouteChange, set_routes
from cutover.state import GLOBAL, OnRefusal, RouteState

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

BASE = "https://chat.example"
DOMAINS = ("auth_entry", "billing_l402")
CLEAR = RouteState(overrides=(("auth_entry", None), ("billing_l402", None), (GLOBAL, None)))
FLIP = ((GLOBAL, None), ("auth_entry", "rust_shell"), ("billing_l402", "rust_shell"), (GLOBAL, "rust_shell"))
Overrides = dict[str, str | None]
WORDS: Overrides = {"clear": None, "rust": "rust_shell"}


def status_body(overrides: Overrides) -> bytes:
    groups = [{"domain": name, "override_target": overrides.get(name)} for name in DOMAINS]
    return msgspec.json.encode({"data": {"override_target": overrides.get(GLOBAL), "route_groups": groups}})


@attrs.define(eq=False)
class Instances:
    """A deployment of so many instances, each with a memory of its own; whichever comes answers."""

    count: int = 1
    seconds: float = 0.0
    """How long each request takes."""
    on_write: Callable[[int, Overrides, str, str | None], httpx.Response | None] | None = None
    """(number of the write, the instance's overrides, key, value): its reply; None: the usual one."""
    on_read: Callable[[int], httpx.Response | None] | None = None
    memories: list[Overrides] = attrs.field(init=False)
    writes: list[tuple[str, str]] = attrs.field(factory=list)
    labels: list[str] = attrs.field(factory=list)
    reads: int = 0
    busy: int = 0
    most_busy: int = 0
    chance: random.Random = attrs.field(factory=lambda: random.Random(7))  # noqa: S311  the same choices in every run

    def __attrs_post_init__(self) -> None:
        self.memories = [{} for _ in range(self.count)]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == "Bearer marked-control-token"
        self.labels.append(request.extensions["label"])
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.busy -= 1
        memory = self.chance.choice(self.memories)
        if request.method == "GET":
            assert request.url.path == COMPAT.status_path
            self.reads += 1
            said = self.on_read(self.reads) if self.on_read else None
            return said or httpx.Response(200, content=status_body(memory))
        assert request.url.path == COMPAT.override_path
        body = msgspec.json.decode(request.content)
        key, word = body.get("domain", GLOBAL), body["target"]
        self.writes.append((key, word))
        said = self.on_write(len(self.writes), memory, key, WORDS.get(word, word)) if self.on_write else None
        if said is None:
            memory[key] = WORDS.get(word, word)
        return said or httpx.Response(200, content=status_body(memory))


def control(answer: Callable[[httpx.Request], Any]) -> ControlPlane:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    outbound = Outbound(client=client, clock=EventLoopClock())
    return ControlPlane(outbound=outbound, base_url=BASE, lane=COMPAT, token="marked-control-token")


def saying(body: bytes, status: int = 200) -> ControlPlane:
    """Return a control plane that says the same to everything."""
    return control(lambda _: httpx.Response(status, content=body))


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


def told(journal: Journal) -> list[object]:
    """Return the journal's events as (key, times), (key, outcome) and whether it was proven."""
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


class TestStatus:
    async def test_overrides_are_sorted_with_the_global_one_last(self) -> None:
        body = {
            "data": {
                "enabled": True,
                "mode": "coh\u202eort",
                "cohort_percentage": 5,
                "force_legacy": False,
                "override_target": "rust",
                "route_groups": [
                    {"domain": "z", "override_target": ""},
                    {"domain": "a", "override_target": "rust_shell"},
                    {"domain": "m", "override_target": "leg\x07acy"},
                ],
            }
        }
        found = await saying(msgspec.json.encode(body)).status(label="status")
        assert found.overrides == (
            ("a", "rust_shell"),
            ("m", "leg\\x07acy"),
            ("z", None),
            (GLOBAL, "rust_shell"),
        )
        assert found.mode == "enabled=True, mode=coh\\u202eort, cohort_percentage=5, force_legacy=False"
        assert found.domains == ("a", "m", "z")

    async def test_what_is_overridden_outranks_what_the_groups_say(self) -> None:
        body = (
            b'{"data":{"override_target":null,"route_groups":[{"domain":"a"}],'
            b'"domain_overrides":{"a":"rust","unlisted":"legacy"}}}'
        )
        found = await saying(body).status(label="status")
        assert found.overrides == (("a", "rust_shell"), ("unlisted", "legacy"), (GLOBAL, None))

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"<!doctype html><title>Sign in</title>", "a JSON reply was expected"),
            (b"[]", "no object in `data`"),
            (b'{"data":[]}', "no object in `data`"),
            (b'{"data":{}}', "no `route_groups` or no `override_target`"),
            (b'{"data":{"route_groups":[]}}', "no `route_groups` or no `override_target`"),
            (b'{"data":{"override_target":null,"route_groups":{}}}', "no `route_groups`"),
            (b'{"data":{"override_target":null,"route_groups":["a"]}}', "a route group is no object"),
            (
                b'{"data":{"override_target":null,"route_groups":[{"domain":1}]}}',
                "'1' is not the name of a domain",
            ),
            (
                b'{"data":{"override_target":null,"route_groups":[{"domain":"a b"}]}}',
                "'a b' is not the name of a domain",
            ),
            (
                b'{"data":{"override_target":null,"route_groups":[{"domain":"global"}]}}',
                "'global' is not the name of a domain",
            ),
            (
                b'{"data":{"override_target":null,"route_groups":[],"domain_overrides":{"\\u001b":""}}}',
                r"x1b' is not the name of a domain",
            ),
        ],
    )
    async def test_a_reply_that_does_not_say_is_one_clear_error(self, body: bytes, said: str) -> None:
        with pytest.raises(UnusableReplyError, match=said) as caught:
            await saying(body).status(label="status")
        assert str(caught.value).startswith(f"GET {BASE}{COMPAT.status_path}: ")

    async def test_a_refusal_is_one_too(self) -> None:
        with pytest.raises(RefusedError, match=r"HTTP 403 \(forbidden\)"):
            await saying(b'{"error":{"code":"forbidden"}}', 403).status(label="status")


class TestEvaluate:
    async def test_it_asks_for_a_path_and_a_cohort(self) -> None:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            data = {"target": "legacy", "reason": "mode_legacy", "route_domain": "auth_entry"}
            return httpx.Response(200, json={"data": data})

        found = await control(answer).evaluate("/login", cohort_key="prod", label="flip.evaluate.login")
        assert (found.path, found.target, found.reason) == ("/login", "legacy", "mode_legacy")
        assert found.domain == "auth_entry"
        assert requests[0].url == f"{BASE}{COMPAT.evaluate_path}"
        assert msgspec.json.decode(requests[0].content) == {"path": "/login", "cohort_key": "prod"}

    async def test_what_a_terminal_would_obey_is_escaped(self) -> None:
        body = b'{"data":{"target":"le\\u001bgacy","reason":"a\\nforged","route_domain":"\\u202e"}}'
        found = await saying(body).evaluate("/", cohort_key="", label="flip.evaluate")
        assert (found.target, found.reason, found.domain) == ("le\\x1bgacy", "a\\nforged", "\\u202e")

    async def test_reason_and_domain_may_be_missing(self) -> None:
        found = await saying(b'{"data":{"target":"rust_shell","route_domain":null}}').evaluate(
            "/", cohort_key="", label="flip.evaluate"
        )
        assert (found.target, found.reason, found.domain) == ("rust_shell", "", None)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b'{"data":{}}', "the reply names no target"),
            (b'{"data":{"target":7}}', "the reply names no target"),
            (b"null", "no object in `data`"),
            (b"", "a JSON reply was expected"),
        ],
    )
    async def test_a_reply_that_does_not_say_is_one_clear_error(self, body: bytes, said: str) -> None:
        with pytest.raises(UnusableReplyError, match=said):
            await saying(body).evaluate("/", cohort_key="", label="flip.evaluate")


class TestSample:
    async def test_instances_that_agree_have_one_state(self) -> None:
        instances = Instances(count=3, seconds=0.1)
        sample = await control(instances.answer).sample(label="preflight.routes")
        assert sample.agreed == CLEAR
        assert sample.shares == ((CLEAR, SAMPLE_READS),)
        assert (instances.reads, instances.most_busy) == (SAMPLE_READS, SAMPLE_CONCURRENCY)
        assert set(instances.labels) == {"preflight.routes"}

    async def test_instances_that_disagree_are_told_by_their_share(self) -> None:
        instances = Instances(count=4)
        instances.memories[3][GLOBAL] = "legacy"
        sample = await control(instances.answer).sample(label="preflight.routes")
        assert sample.agreed is None
        assert [state.get(GLOBAL) for state, _ in sample.shares] == [None, "legacy"]
        assert sum(count for _, count in sample.shares) == SAMPLE_READS
        few = sample.shares[1][1]
        assert sample.describe().endswith(
            f"{few} of 59 reads: auth_entry=clear, billing_l402=clear, global=legacy"
        )
        assert sample.holds([("auth_entry", None)])
        assert not sample.holds([(GLOBAL, None)])

    async def test_one_read_without_an_answer_ends_it(self) -> None:
        instances = Instances(on_read=lambda number: httpx.Response(401) if number >= 10 else None)
        with pytest.raises(RefusedError, match="HTTP 401"):
            await control(instances.answer).sample(label="preflight.routes")
        assert instances.reads < SAMPLE_READS

    def test_no_state_is_no_agreement(self) -> None:
        assert RouteSample(shares=()).agreed is None


class TestSetRoutes:
    async def test_one_instance_takes_one_round_in_order(self) -> None:
        instances, journal = Instances(), Journal()
        change = await flip(instances, journal)
        assert change.proven
        assert change.sample is not None
        assert change.sample.describe() == change.detail
        assert instances.writes == [
            (GLOBAL, "clear"), ("auth_entry", "rust"), ("billing_l402", "rust"), (GLOBAL, "rust"),
        ]  # fmt: skip
        assert told(journal) == [
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
    async def test_several_instances_take_rounds_until_all_have_it(self, count: int) -> None:
        instances, journal = Instances(count=count), Journal()
        change = await flip(instances, journal)
        assert change.proven
        assert all(memory == dict(FLIP) for memory in instances.memories)
        times = [event.times for event in journal.events if isinstance(event, RouteIntended)]
        assert times[:5] == [1, 1, 1, 1, ROUNDS[1]]
        again = instances.writes[len(FLIP) :]
        assert (GLOBAL, "clear") not in again  # what is set is not taken away again for the next round

    async def test_going_back_clears_what_was_clear(self) -> None:
        instances = Instances(count=2)
        for memory in instances.memories:
            memory |= dict(FLIP)
        change = await flip(instances, wanted=CLEAR.overrides, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert all(not any(memory.values()) for memory in instances.memories)
        assert {word for _, word in instances.writes} == {"clear"}

    async def test_a_target_that_nobody_knows_is_put_back_by_its_own_name(self) -> None:
        instances = Instances()
        assert (await flip(instances, wanted=((GLOBAL, "beta"),))).proven
        assert instances.writes == [(GLOBAL, "beta")]

    async def test_a_refusal_on_the_way_forward_ends_it(self) -> None:
        journal = Journal()
        instances = Instances(
            on_write=lambda number, *_: httpx.Response(422, json={"message": "no"}) if number == 2 else None
        )
        change = await flip(instances, journal)
        assert (change.proven, change.sample) == (False, None)
        assert change.detail == f"POST {BASE}{COMPAT.override_path}: HTTP 422 (no)"
        assert told(journal)[-1] == ("auth_entry", "refused")
        assert (len(instances.writes), instances.reads) == (2, 0)

    async def test_a_refusal_on_the_way_back_is_tried_again(self) -> None:
        instances = Instances(
            on_write=lambda number, *_: httpx.Response(409) if number <= len(FLIP) else None
        )
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert len(instances.writes) == len(FLIP) + 3 * ROUNDS[1]

    @pytest.mark.parametrize("seconds", [15.0, 40.0, 49.0])
    async def test_a_passing_refusal_on_the_way_back_is_outlasted(self, seconds: float) -> None:
        begun = anyio.current_time()
        instances = Instances(
            on_write=lambda *_: httpx.Response(503) if anyio.current_time() - begun < seconds else None
        )
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert seconds <= anyio.current_time() - begun <= ROUTES_DEADLINE

    async def test_pauses_on_the_way_back_differ_from_one_train_to_the_next(self) -> None:
        seconds = set()
        for seed in (1, 2):
            random.seed(seed)
            begun = anyio.current_time()
            turned_away = len(FLIP) + 3 * ROUNDS[1]
            instances = Instances(
                on_write=lambda number, *_, last=turned_away: httpx.Response(503) if number <= last else None
            )
            assert (await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)).proven
            seconds.add(anyio.current_time() - begun)
        assert all(0.3 <= each <= 0.6 for each in seconds)
        assert len(seconds) == 2

    @pytest.mark.parametrize(("said", "wait"), [("7", 7.0), ("86400", MAX_RETRY_AFTER)])
    async def test_a_peers_wish_to_wait_is_heeded_on_the_way_back(self, said: str, wait: float) -> None:
        begun = anyio.current_time()

        def refuse(*_: object) -> httpx.Response | None:
            busy = anyio.current_time() - begun < 2 * wait
            return httpx.Response(429, headers={"retry-after": said}) if busy else None

        instances = Instances(seconds=0.01, on_write=refuse)
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert 2 * wait <= anyio.current_time() - begun < 2 * wait + 2.0
        rounds = len(FLIP) + SAMPLE_CONCURRENCY * 3 + ROUNDS[2] * 3
        assert (
            len(instances.writes) <= rounds
        )  # one that asks to be left alone is not sent the rest of a round

    async def test_a_wish_to_wait_on_the_way_forward_is_a_refusal(self) -> None:
        instances = Instances(on_write=lambda *_: httpx.Response(429, headers={"retry-after": "7"}))
        begun = anyio.current_time()
        assert not (await flip(instances)).proven
        assert (len(instances.writes), anyio.current_time()) == (1, begun)

    @pytest.mark.parametrize("seconds", [2.0, 8.0, 30.0])
    async def test_overrides_that_land_late_are_waited_for_on_the_way_forward(self, seconds: float) -> None:
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

    async def test_a_lasting_refusal_gives_up_after_all_rounds_and_says_so(self) -> None:
        journal = Journal()
        instances = Instances(on_write=lambda *_: httpx.Response(403))
        change = await flip(instances, journal, on_refusal=OnRefusal.TRY_AGAIN)
        assert not change.proven
        assert "not every instance took the overrides: 59 of 59 reads" in change.detail
        assert change.detail.endswith("HTTP 403)")
        times = [event.times for event in journal.events if isinstance(event, RouteIntended)]
        assert tuple(dict.fromkeys(times)) == ROUNDS
        rounds = len([event for event in journal.events if isinstance(event, RoutesRead)])
        assert len(ROUNDS) < rounds < 20  # the pauses grow
        assert {outcome for _, outcome in (row for row in told(journal) if isinstance(row, tuple))} >= {
            "refused"
        }

    async def test_a_reply_that_says_otherwise_is_no_effect(self) -> None:
        journal = Journal()
        instances = Instances(on_write=lambda *_: httpx.Response(200, content=status_body({})))
        change = await flip(instances, journal, wanted=(("auth_entry", "rust_shell"),))
        assert not change.proven
        assert change.detail.endswith("(the reply to auth_entry=rust says auth_entry=clear)")
        assert told(journal)[:3] == [("auth_entry", 1), ("auth_entry", "no effect"), False]

    async def test_a_lost_reply_is_resolved_by_reading_back(self) -> None:
        def lose(number: int, memory: Overrides, key: str, value: str | None) -> httpx.Response | None:
            memory[key] = value
            raise httpx.ReadError("reset")

        journal = Journal()
        change = await flip(Instances(on_write=lose), journal)
        assert change.proven
        assert told(journal)[1] == (GLOBAL, "unknown")
        answers = [event for event in journal.events if isinstance(event, Answered)]
        assert all("the connection was reset" in answer.detail for answer in answers)

    async def test_one_lost_reply_of_many_is_kept_for_it_may_take_effect_late(self) -> None:
        def lose(number: int, memory: Overrides, key: str, value: str | None) -> httpx.Response | None:
            if number == 1:
                return httpx.Response(200, content=status_body({}))
            if number == 5:
                raise httpx.ReadError("reset")
            return None

        journal = Journal()
        change = await flip(Instances(on_write=lose), journal, wanted=(("auth_entry", "rust_shell"),))
        assert change.proven
        assert told(journal) == [
            ("auth_entry", 1), ("auth_entry", "no effect"), False,
            ("auth_entry", ROUNDS[1]), ("auth_entry", "unknown"), True,
        ]  # fmt: skip

    async def test_a_reply_that_cannot_be_used_does_not_say_that_it_was_refused(self) -> None:
        journal = Journal()
        await flip(Instances(on_write=lambda *_: httpx.Response(200, text="<html>")), journal)
        assert told(journal)[:2] == [(GLOBAL, 1), (GLOBAL, "unknown")]

    async def test_an_effect_that_comes_late_is_waited_for(self) -> None:
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

        assert len(instances.writes) == len(FLIP)  # on the way forward nobody writes on in the dark

    async def test_on_the_way_back_routes_that_can_be_read_again_later_are_proven(self) -> None:
        instances = Instances(on_read=lambda number: httpx.Response(401) if number <= 8 else None)
        change = await flip(instances, on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven
        assert len(instances.writes) > len(FLIP)

    async def test_it_gives_up_at_its_deadline(self) -> None:
        journal = Journal()
        instances = Instances(seconds=9.0, on_write=lambda *_: httpx.Response(200, content=status_body({})))
        started = anyio.current_time()
        change = await flip(instances, journal, wanted=(("auth_entry", "rust_shell"),))
        assert not change.proven
        assert anyio.current_time() - started > ROUTES_DEADLINE
        assert [row for row in told(journal) if isinstance(row, bool)] == [False]

    @pytest.mark.parametrize("on_refusal", list(OnRefusal))
    async def test_past_its_deadline_nothing_is_sent_and_the_shares_are_told(
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
        assert ROUTES_DEADLINE < times[-1] < ROUTES_DEADLINE + 9.9  # one that was sent before is not cut
        assert anyio.current_time() == times[-1]
        intended = [event for event in journal.events if isinstance(event, RouteIntended)]
        assert len(intended) == len([event for event in journal.events if isinstance(event, Answered)])

    async def test_keys_that_are_never_answered_leave_no_time_for_the_others(self) -> None:
        async def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "POST":
                await anyio.sleep_forever()
            return await instances.answer(request)

        instances, journal = Instances(), Journal()
        started = anyio.current_time()
        assert not (await flip(instances, journal, answer=answer)).proven
        assert anyio.current_time() - started == ROUTES_DEADLINE
        assert [row for row in told(journal) if isinstance(row, tuple)] == [
            (GLOBAL, 1), (GLOBAL, "unknown"),
            ("auth_entry", 1), ("auth_entry", "unknown"),
            ("billing_l402", 1), ("billing_l402", "unknown"),
        ]  # fmt: skip


@pytest.mark.parametrize("at", range(len(FLIP)))
async def test_a_change_that_is_cancelled_at_an_intent_does_not_send_it_and_says_so(at: int) -> None:
    instances, journal = Instances(seconds=0.01), Journal()
    with anyio.CancelScope() as scope:

        def observe(event: object) -> None:
            if isinstance(event, RouteIntended) and len(instances.writes) == at:
                scope.cancel()

        journal.observers.append(observe)
        await flip(instances, journal)
    assert scope.cancelled_caught
    assert len(instances.writes) == at
    assert told(journal)[-2:] == [(FLIP[at][0], 1), (FLIP[at][0], "not sent")]


@pytest.mark.parametrize("at", range(1, len(FLIP) + 1))
async def test_a_write_that_is_under_way_when_it_is_cancelled_is_the_last_and_answered(at: int) -> None:
    instances, journal = Instances(seconds=0.01), Journal()
    with anyio.CancelScope() as scope:

        def cancel(number: int, *_: object) -> None:
            if number == at:
                scope.cancel()

        instances.on_write = cancel
        await flip(instances, journal)
    assert scope.cancelled_caught
    assert len(instances.writes) == at
    assert told(journal)[-1] == (FLIP[at - 1][0], "accepted")


async def test_a_gateways_word_ends_a_change_and_is_no_refusal() -> None:
    journal = Journal()
    assert not (await flip(Instances(on_write=lambda *_: httpx.Response(503)), journal)).proven
    assert told(journal) == [(GLOBAL, 1), (GLOBAL, "failed")]


class TestBrokenJournal:
    """Where intents no longer reach the disk, nothing is set any more, and undo goes on."""

    async def test_on_the_way_forward_nothing_is_written(self) -> None:
        instances = Instances()
        change = await flip(instances, Journal(broken="the disk is full"))
        assert (change.proven, change.detail) == (False, "the disk is full")
        assert instances.writes == []

    async def test_an_intent_that_meets_a_full_disk_is_not_carried_out(self, tmp_path: Path) -> None:
        instances, journal = Instances(), Journal.create(tmp_path / "journal.jsonl")
        with disk_with_room_for(0):
            change = await flip(instances, journal)
        journal.close()
        assert not change.proven
        assert change.detail.startswith("the journal cannot be written")
        assert instances.writes == []

    async def test_on_the_way_back_it_goes_on(self) -> None:
        change = await flip(Instances(), Journal(broken="the disk is full"), on_refusal=OnRefusal.TRY_AGAIN)
        assert change.proven


class TestOverride:
    async def test_a_domain_is_named_and_the_global_one_is_not(self) -> None:
        bodies: list[object] = []

        def answer(request: httpx.Request) -> httpx.Response:
            bodies.append(msgspec.json.decode(request.content))
            return httpx.Response(200, content=status_body({"auth_entry": "rust_shell"}))

        peer = control(answer)
        state = await peer.override("auth_entry", "rust", label="flip")
        await peer.override(GLOBAL, "clear", label="flip")
        assert state.get("auth_entry") == "rust_shell"
        assert bodies == [{"target": "rust", "domain": "auth_entry"}, {"target": "clear"}]

    async def test_silence_may_have_taken_effect(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            raise httpx.ReadError("reset")

        with pytest.raises(NoAnswerError):
            await control(answer).override(GLOBAL, "rust", label="flip")

    async def test_a_login_page_does_not_say_that_it_was_accepted(self) -> None:
        with pytest.raises(UnusableReplyError):
            await saying(b"<html>").override(GLOBAL, "rust", label="flip")


def test_the_token_is_in_no_repr() -> None:
    assert "marked" not in repr(saying(b""))
