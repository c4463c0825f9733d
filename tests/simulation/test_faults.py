"""Each fault of the simulation changes the behaviour that its sentence describes, and nothing else."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import attrs
import pytest
from attrs import evolve

from cutover.simulation import FAULTS, VARIANTS, Fault, SimulatedProduction
from cutover.simulation.control_faults import CONTROL_FAULTS, CONTROL_VARIANTS
from cutover.simulation.evidence_faults import EVIDENCE_FAULTS, EVIDENCE_VARIANTS
from cutover.simulation.faults import Strike
from cutover.simulation.legacy_faults import LEGACY_FAULTS, LEGACY_VARIANTS
from cutover.simulation.stream_faults import STREAM_FAULTS, STREAM_VARIANTS
from cutover.simulation.token_faults import TOKEN_FAULTS
from cutover.simulation.traffic_faults import DEPLOYMENT_VARIANTS, TRAFFIC_FAULTS
from tests.support.asgi_caller import (
    CREDENTIALS,
    FRONT,
    LAYOUT,
    LEGACY,
    SERVICE,
    HandClock,
    ask,
    chat,
    chats,
    cloud_run,
    control,
    evaluate,
    flip,
    override,
    production,
    share,
    update,
)

pytestmark = pytest.mark.slow
CONTRACT = ["start", "start-step", "finish-step", "finish", "[DONE]"]
STEPS = (
    "preflight", "slo-error-budget-gate", "stream-smoke-pre", "canary-rollback-drill", "route-flip",
    "stream-smoke-post", "dual-run-diff", "final-state", "undo",
)  # fmt: skip


HEALTHY: list[list[object]] = []
"""The conversation with a production without a fault, once one is made; another one is equal."""


async def conversation(*faults: Fault) -> list[object]:
    """Return everything that a client sees when it makes all requests and all changes of a train."""
    clock = HandClock()
    layout = evolve(LAYOUT, tag_urls={"canary": "https://canary---svc.example"})
    peer = production(*faults, clock=clock, layout=layout)
    seen: list[object] = []
    tag = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": "svc-2", "tag": "canary"}

    async def look() -> None:
        answers = [await chat(peer), await chats(peer), await control(peer, "status"), await cloud_run(peer)]
        answers += [await cloud_run(peer, f"/revisions/svc-{number}") for number in (1, 2)]
        answers += [await control(peer, "evaluate", {"path": "/feed"})]
        for base, token in ((FRONT, CREDENTIALS.auth_token), (LEGACY, CREDENTIALS.legacy_token)):
            answers += [
                await ask(peer, "GET", f"{base}{path}", token=token) for path in ("/manifest.json", "/api/me")
            ]
        answers.append(await chat(peer, base=LEGACY, token=CREDENTIALS.legacy_token))
        answers.append(await chat(peer, base="https://canary---svc.example"))
        answers.append(
            await ask(
                peer,
                "PATCH",
                f"{SERVICE}?updateMask=traffic&validateOnly=true",
                token=CREDENTIALS.cloud_run_token,
                json={"traffic": [share("svc-1", 100), tag]},
            )
        )
        answers.append(await ask(peer, "POST", f"{FRONT}/api/runtime/tools/execute", json={}))
        seen.extend(
            (
                answer.status,
                # The date is that of the real clock, and two conversations may lie in two seconds.
                sorted((name, value) for name, value in answer.headers.items() if name != "date"),
                tuple(answer.chunks),
                answer.complete,
                clock.seconds,
            )
            for answer in answers
        )

    async def move(*targets: dict[str, Any]) -> None:
        seen.append((await update(peer, *targets)).status)
        seen.append(peer.traffic)
        await look()
        clock.seconds += 30

    await look()
    await move(share("svc-1", 75), share("svc-2", 25), tag)
    await move(share("svc-2", 100, tag="canary"))
    await move(share("svc-1", 100), tag)
    await move(share("svc-1", 100), tag)
    asked = [await override(peer, "cutover-permission-check") for _ in range(2)]
    seen += [(answer.status, tuple(answer.chunks)) for answer in asked]
    seen += [await flip(peer) for _ in range(3)]
    seen.append(peer.routes)
    clock.seconds += 30
    await look()
    seen += [(await override(peer, "clear", domain)).status for domain in (None, "auth_entry")]
    seen.append(peer.routes)
    # By then a token that expires has expired.
    clock.seconds += 300
    await look()
    return seen


@pytest.mark.anyio
@pytest.mark.parametrize(("faults", "ahead"), [((), 0), ((VARIANTS["clock-ahead"],), 600)])
async def test_every_reply_has_a_date(faults: tuple[Fault, ...], ahead: int) -> None:
    peer = production(*faults)
    answers = [await chat(peer), await cloud_run(peer), await ask(peer, "GET", "https://nobody.example/")]
    for answer in answers:
        date = parsedate_to_datetime(answer.headers["date"])
        assert abs((date - datetime.now(UTC)).total_seconds() - ahead) < 5


@pytest.mark.anyio
async def test_two_healthy_productions_answer_alike() -> None:
    assert await conversation() == await conversation()


@pytest.mark.anyio
@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_changes_what_a_client_sees(name: str) -> None:
    fault = FAULTS[name]
    # A fault that affects a part of the requests is shown in full: a few requests may miss it.
    whole = tuple(
        attrs.evolve(strike, scope=attrs.evolve(strike.scope, part=1.0)) for strike in fault.strikes
    )
    if not HEALTHY:
        HEALTHY.append(await conversation())
    assert await conversation(attrs.evolve(fault, strikes=whole)) != HEALTHY[0]


@pytest.mark.anyio
async def test_a_fault_of_a_part_affects_the_same_part_in_every_production() -> None:
    async def lost(part: float) -> list[bool]:
        fault = FAULTS["canary-fails-often"]
        scope = attrs.evolve(fault.strikes[0].scope, part=part, role=None)
        peer = production(attrs.evolve(fault, strikes=(attrs.evolve(fault.strikes[0], scope=scope),)))
        return [(await chat(peer)).status == 503 for _ in range(200)]

    first = await lost(0.2)
    assert first == await lost(0.2)
    assert 20 < sum(first) < 60


@pytest.mark.anyio
@pytest.mark.parametrize("name", VARIANTS)
async def test_a_variant_breaks_nothing(name: str) -> None:
    peer = production(VARIANTS[name])
    for answer in (await chat(peer), await chats(peer)):
        assert answer.complete
        assert [kind for kind in answer.types() if kind in CONTRACT] == CONTRACT
        start, step, finish = (answer.events()[place] for place in (0, 1, -3))
        assert step["threadId"] == start["threadId"]
        assert step["turnId"] == finish["turnId"]
    assert sum(peer.traffic.values()) == 100


def test_every_fault_is_declared_in_full() -> None:
    groups = (
        STREAM_FAULTS,
        CONTROL_FAULTS,
        TRAFFIC_FAULTS,
        LEGACY_FAULTS,
        EVIDENCE_FAULTS,
        TOKEN_FAULTS,
        STREAM_VARIANTS,
        CONTROL_VARIANTS,
        DEPLOYMENT_VARIANTS,
        EVIDENCE_VARIANTS,
        LEGACY_VARIANTS,
    )
    names = [fault.name for group in groups for fault in group]
    assert len(names) == len(set(names)) == len(FAULTS) + len(VARIANTS)
    for fault in (*FAULTS.values(), *VARIANTS.values()):
        assert fault.sentence.endswith(".")
        assert fault.strikes or fault.arrange is not None
        assert fault.verify_only.routes == "captured"
        for outcome in (fault.outcome, fault.verify_only):
            assert (outcome.exit_code == 0) == (not outcome.failed_steps)
            assert list(outcome.failed_steps) == sorted(outcome.failed_steps, key=STEPS.index)
            assert (outcome.exit_code == 4) == ("undo" in outcome.failed_steps)
            assert outcome.routes == "captured" or outcome.exit_code in (0, 4)


def test_all_variants_pass_and_all_faults_fail_except_the_listed_ones() -> None:
    assert all(variant.outcome.exit_code == 0 for variant in VARIANTS.values())
    survived = {name for name, fault in FAULTS.items() if fault.outcome.exit_code == 0}
    assert survived == {
        "status-429-once", "status-500-once", "override-late", "override-reply-lost", "service-503-once",
        "rollback-409-once", "settles-slowly", "update-late", "update-reply-lost", "rollback-reply-lost",
        "front-door-lags", "streams-cut-at-shift", "streams-cut-at-flip",
        "unknown-target-500-once", "deployed-meanwhile", "patch-409-once", "patch-412-once", "patch-429-once", "patch-503-once",
        "patch-reset-once",
    }  # fmt: skip


@pytest.mark.anyio
class TestStreams:
    @pytest.mark.parametrize(
        ("name", "types"),
        [
            ("start-dropped", CONTRACT[1:]),
            ("done-dropped", CONTRACT[:-1]),
            ("finish-step-doubled", [*CONTRACT[:3], *CONTRACT[2:]]),
            ("done-doubled", [*CONTRACT, "[DONE]"]),
            ("reversed", ["finish", "finish-step", "start-step", "start", "[DONE]"]),
            ("steps-swapped", ["start", "finish-step", "start-step", "finish", "[DONE]"]),
            ("finish-before-step", ["start", "start-step", "finish", "finish-step", "[DONE]"]),
            ("done-first", ["[DONE]", *CONTRACT[:-1]]),
            ("data-after-done", [*CONTRACT, "finish"]),
            ("cut-clean", CONTRACT[:3]),
        ],
    )
    async def test_a_fault_changes_the_sequence_of_events(self, name: str, types: list[str]) -> None:
        answer = await chat(production(FAULTS[name]))
        assert [kind for kind in answer.types() if kind in CONTRACT] == types
        assert answer.status == 200

    async def test_a_service_error_ends_the_turn_with_error_finish_and_done(self) -> None:
        answer = await chat(production(FAULTS["service-error"]))
        assert answer.types()[-3:] == ["error", "finish", "[DONE]"]
        assert "finish-step" not in answer.types()
        assert answer.events()[-3]["code"] == "codex_error"
        assert answer.events()[-2]["status"] == "error"

    async def test_a_cut_event_ends_the_body_cleanly_in_the_middle_of_a_line(self) -> None:
        answer = await chat(production(FAULTS["cut-mid-event"]))
        assert answer.complete
        assert not answer.body.endswith(b"\n")

    async def test_a_buffered_stream_comes_late_and_in_one_piece(self) -> None:
        clock = HandClock()
        answer = await chat(production(FAULTS["buffered"], clock=clock))
        assert len(answer.chunks) == 1
        assert "content-length" not in answer.headers
        assert clock.seconds == 104.0

    async def test_a_body_can_come_one_byte_at_a_time(self) -> None:
        answer = await chat(production(VARIANTS["byte-by-byte"]))
        assert {len(chunk) for chunk in answer.chunks} == {1}

    async def test_a_fault_can_affect_only_one_alias(self) -> None:
        peer = production(FAULTS["stream-500-by-id-alone"])
        assert [(await chat(peer)).status, (await chats(peer)).status] == [200, 500]

    async def test_a_fault_can_affect_only_one_revision(self) -> None:
        peer = production(FAULTS["stream-500-on-canary"])
        statuses = [(await chat(peer)).status]
        await update(peer, share("svc-2", 100))
        statuses.append((await chat(peer)).status)
        assert statuses == [200, 500]

    async def test_a_fault_after_the_flip_ends_when_the_flip_is_undone(self) -> None:
        peer = production(FAULTS["stream-500-after-flip"])
        statuses = [(await chat(peer)).status]
        await flip(peer)
        statuses.append((await chat(peer)).status)
        await override(peer, "clear")
        statuses.append((await chat(peer)).status)
        assert statuses == [200, 500, 200]

    async def test_a_refused_stream_starts_no_turn_but_a_broken_one_does(self) -> None:
        refused, broken = production(FAULTS["stream-401"]), production(FAULTS["stream-reset"])
        await chat(refused)
        await chat(broken)
        assert (refused.turns, broken.turns) == (0, 1)

    async def test_faults_of_the_new_service_do_not_affect_the_legacy_service(self) -> None:
        peer = production(FAULTS["done-dropped"])
        old = await chat(peer, base=LEGACY, token=CREDENTIALS.legacy_token)
        assert old.types()[-1] == "[DONE]"


@pytest.mark.anyio
class TestOverrides:
    async def test_an_ignored_override_reports_success(self) -> None:
        peer = production(FAULTS["override-ignored"])
        answer = await override(peer, "rust")
        assert answer.json()["data"]["override_target"] == "rust_shell"
        assert peer.route_targets()["global"] is None
        assert (await control(peer, "status")).json()["data"]["override_target"] is None

    async def test_late_overrides_take_effect_in_their_order(self) -> None:
        clock = HandClock()
        peer = production(FAULTS["override-late"], clock=clock)
        await flip(peer)
        assert set(peer.route_targets().values()) == {None}
        clock.seconds += 2
        assert set(peer.route_targets().values()) == {"rust_shell"}

    async def test_an_instance_that_restarts_loses_its_overrides(self) -> None:
        clock = HandClock()
        peer = production(FAULTS["override-forgotten"], clock=clock)
        await flip(peer)
        assert (await evaluate(peer, "/feed"))["target"] == "rust_shell"
        clock.seconds += 1
        assert (await evaluate(peer, "/feed"))["target"] == "legacy"

    async def test_one_reply_is_lost_but_its_override_takes_effect(self) -> None:
        peer = production(FAULTS["override-reply-lost"])
        first = await override(peer, "rust")
        assert (first.broken, first.status) == (True, None)
        assert peer.route_targets()["global"] == "rust_shell"
        assert (await override(peer, "rust", "auth_entry")).status == 200

    async def test_one_instance_takes_overrides_and_the_others_only_report_success(self) -> None:
        peer = production(FAULTS["override-one-instance"])
        for _ in range(20):
            assert (await override(peer, "rust")).status == 200
        assert [one["global"] for one in peer.routes if one["revision"] == "svc-1"] == [
            "rust_shell",
            None,
            None,
        ]

    async def test_overrides_that_stick_can_be_set_but_not_taken_back(self) -> None:
        peer = production(FAULTS["override-sticks"])
        await flip(peer)
        for target in ("clear", "legacy", "rollback"):
            await override(peer, target)
            await override(peer, target, "auth_entry")
        assert set(peer.route_targets().values()) == {"rust_shell"}

    async def test_evaluations_answer_legacy_even_for_paths_below_api(self) -> None:
        peer = production(FAULTS["evaluate-legacy"])
        assert (await evaluate(peer, "/api/chat/stream"))["target"] == "legacy"


@pytest.mark.anyio
class TestTraffic:
    async def test_a_failed_update_keeps_its_target_in_the_spec_until_it_is_repaired(self) -> None:
        peer = production(FAULTS["settles-failed"])
        assert (await update(peer, share("svc-2", 100))).json()["error"]["code"] == 13
        body = (await cloud_run(peer)).json()
        assert body["terminalCondition"]["state"] == "CONDITION_FAILED"
        assert (body["generation"], body["observedGeneration"]) == ("8", "8")
        assert body["traffic"] == [share("svc-2", 100)]
        assert peer.traffic == {"svc-1": 100}
        await update(peer, share("svc-1", 100))
        assert (await cloud_run(peer)).json()["terminalCondition"]["state"] == "CONDITION_SUCCEEDED"

    async def test_a_failed_operation_changes_nothing(self) -> None:
        peer = production(FAULTS["operation-fails"])
        operation = (await update(peer, share("svc-2", 100))).json()
        assert (operation["done"], operation["error"]["code"]) == (True, 13)
        assert peer.generation == 7

    async def test_a_late_update_takes_effect_unless_another_update_comes_first(self) -> None:
        for faster, then in ((False, {"svc-2": 100}), (True, {"svc-1": 100})):
            clock = HandClock()
            peer = production(evolve(FAULTS["update-late"], strikes=_promotions("update-late")), clock=clock)
            assert (await update(peer, share("svc-2", 100))).status == 200
            assert (await cloud_run(peer)).json()["generation"] == "7"
            if faster:
                await update(peer, share("svc-1", 100))
            clock.seconds += 3
            assert peer.traffic == then

    async def test_putting_old_traffic_back_is_an_update_with_a_new_etag(self) -> None:
        clock = HandClock()
        peer = production(FAULTS["update-undone"], clock=clock)
        await update(peer, share("svc-2", 100))
        etag = (await cloud_run(peer)).json()["etag"]
        clock.seconds += 1
        assert (await cloud_run(peer)).json()["etag"] != etag
        assert peer.traffic == {"svc-1": 100}

    async def test_a_change_that_follows_a_due_change_counts_from_the_due_time(self) -> None:
        clock = HandClock()
        peer = production(FAULTS["update-undone"], clock=clock, layout=evolve(LAYOUT, settle_seconds=5.0))
        await update(peer, share("svc-2", 100))
        clock.seconds += 6
        assert peer.traffic == {"svc-1": 100}
        assert peer.generation == 9

    async def test_a_later_update_replaces_one_that_never_settles(self) -> None:
        clock = HandClock()
        peer = production(FAULTS["promotion-never-settles"], clock=clock)
        await update(peer, share("svc-2", 100))
        clock.seconds += 1e6
        assert (await cloud_run(peer)).json()["reconciling"] is True
        await update(peer, share("svc-1", 100))
        assert "reconciling" not in (await cloud_run(peer)).json()

    async def test_a_deploy_in_between_makes_the_etag_stale(self) -> None:
        peer = production(FAULTS["deployed-meanwhile"])
        statuses = []
        for percent in (5, 25):
            etag = (await cloud_run(peer)).json()["etag"]
            targets = share("svc-1", 100 - percent), share("svc-2", percent)
            statuses.append((await update(peer, *targets, etag=etag)).status)
        assert statuses == [200, 409]
        assert peer.traffic == {"svc-1": 95, "svc-2": 5}
        assert not (await cloud_run(peer)).json()["latestReadyRevision"].endswith("svc-2")

    async def test_tags_are_dropped_with_their_urls(self) -> None:
        peer = production(FAULTS["tags-dropped"])
        tag = {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": "svc-2", "tag": "canary"}
        assert peer.tags == {"canary": "svc-2"}
        await update(peer, share("svc-1", 95), share("svc-2", 5), tag)
        assert peer.tags == {}
        assert peer.traffic == {"svc-1": 95, "svc-2": 5}

    async def test_a_rollback_that_is_ignored_leaves_the_canary_serving(self) -> None:
        peer = production(FAULTS["rollback-ignored"])
        await update(peer, share("svc-2", 100))
        assert (await update(peer, share("svc-1", 100))).json()["done"] is True
        assert peer.traffic == {"svc-2": 100}

    async def test_a_body_that_cannot_be_read_asks_for_nothing(self) -> None:
        peer = production(FAULTS["rollback-ignored"])
        token = CREDENTIALS.cloud_run_token
        for content in (b"", b"[]", b'{"traffic":[1]}', b"\xff"):
            answer = await ask(peer, "PATCH", f"{SERVICE}?updateMask=traffic", token=token, content=content)
            assert answer.status == 400


def _promotions(name: str) -> tuple[Strike, ...]:
    """Return the strikes of a fault, limited to updates that give the canary a share."""
    return tuple(evolve(strike, scope=evolve(strike.scope, asks="canary")) for strike in FAULTS[name].strikes)


@pytest.mark.anyio
async def test_several_faults_can_be_active_at_once() -> None:
    peer: SimulatedProduction = production(
        FAULTS["done-dropped"], FAULTS["protocol-v10"], FAULTS["legacy-down"]
    )
    answer = await chat(peer)
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v10"
    assert "[DONE]" not in answer.types()
    assert (await ask(peer, "GET", f"{LEGACY}/manifest.json")).broken
    assert json.loads((await ask(peer, "GET", f"{FRONT}/manifest.json")).body)["name"] == "OpenAgents"
