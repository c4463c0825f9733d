"""The lock and the journal in the bucket of STATE_URL: one train on all machines, and a recovery from any of them."""

import itertools
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import anyio
import httpx
import msgspec
import pytest

from cutover import recover_cutover
from cutover.errors import ConfigurationError, NotStartedError, UndoUnprovenError
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    Answered,
    CheckRecorded,
    Observer,
    RouteIntended,
    StepStarted,
    TakenOver,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    UndoStarted,
)
from cutover.record.journal import read_journal
from cutover.record.journal_copy import WAY_BACK_PATIENCE
from cutover.record.lock import ServiceLock
from cutover.wiring.recover import Recovery
from cutover.wiring.run import run_production
from tests.support.embedded_trains import CANARY, STABLE, TOKENS
from tests.support.state_bucket import CONFIRMED, HANG, STATE_URL, Answer, StateScene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
SPLIT = {STABLE: 100}
DEAD = httpx.ConnectError("injected")
FLIP = {"auth_entry": None, "account_settings_admin": None, "billing_l402": None, "chat_pilot": None}


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[StateScene]:
    # Once for the whole test, because trains and recoveries run side by side in it.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield StateScene.of(tmp_path, caught)


async def run(
    scene: StateScene, name: str = "run", observer: Observer | None = None, **changes: object
) -> tuple[CutoverSummary, list[str]]:
    """Run a train; return its summary and its warnings."""
    summary = await run_production(scene.production(scene.config(name, **changes)), observer=observer)
    return summary, [str(each.message) for each in scene.warnings]


async def recover(
    scene: StateScene, address: str | Path = STATE_URL, *, here: bool = False, **more: object
) -> Recovery:
    """Recover on another machine, or here."""
    with scene.recovering(here=here):
        return await recover_cutover(address, **{"env": CONFIRMED, **more})  # type: ignore[arg-type]


def state_is_dead(label: str) -> Answer:
    return DEAD if label.startswith("state.") else None


class Kill:
    """Kills the machine of a train when an event is recorded: no later request of the train goes anywhere."""

    def __init__(self, scene: StateScene, at: Callable[[TrainEvent], bool]) -> None:
        self.scene, self.at, self.dead = scene, at, False
        scene.before = lambda _: DEAD if self.dead else None

    def __call__(self, event: TrainEvent) -> None:
        self.dead = self.dead or self.at(event)

    async def run(self, name: str = "run") -> str:
        """Run a train until it is killed; return the address of the run. What a dead process says counts for nothing."""
        production = self.scene.production(self.scene.config(name))
        with anyio.move_on_after(3600):
            await run_production(production, observer=self)
        self.scene.before = lambda _: None
        return f"{STATE_URL}/{production.run_id}"


def canary_got_5(event: TrainEvent) -> bool:
    return (
        isinstance(event, TrafficRead)
        and event.proven
        and any(row.revision == CANARY and row.percent == 5 for row in event.found.targets)
    )


def events_in_bucket(scene: StateScene, address: str) -> list[dict[str, object]]:
    folder = address.removeprefix("gs://simulated-state/") + "/journal/"
    objects = scene.simulation.storage.objects
    return [json.loads(objects[name].content)["event"] for name in sorted(objects) if name.startswith(folder)]


class TestATrain:
    async def test_that_passes_leaves_its_journal_and_no_lock(self, scene: StateScene) -> None:
        locks: list[list[str]] = []
        summary, warned = await run(scene, observer=lambda _: locks.append(scene.locks))
        assert (summary.exit_code, warned) == (0, [])
        assert set(map(len, locks)) == {1}
        assert scene.locks == []
        on_disk = [
            json.loads(line) for line in (scene.directory / "run/journal.jsonl").read_text().splitlines()
        ]
        on_disk[0]["facts"].pop("token_sources")
        address = f"{STATE_URL}/{on_disk[0]['run_id']}"
        assert events_in_bucket(scene, address) == on_disk
        assert not any(b"marked-" in stored.content for stored in scene.simulation.storage.objects.values())

    async def test_sends_no_change_before_the_bucket_holds_its_intent(self, scene: StateScene) -> None:
        last: list[object] = []

        def before(label: str) -> None:
            if label.endswith(".write") or re.fullmatch(r"[a-z-]+(\.[a-z-]+)*\.[0-9]+\.[a-z0-9_]+", label):
                (run_id,) = {name.split("/")[1] for name in scene.stored} - {"locks"}
                last.append(events_in_bucket(scene, f"{STATE_URL}/{run_id}")[-1]["event"])

        scene.before = before
        assert (await run(scene))[0].exit_code == 0
        assert set(last) == {"TrafficIntended", "RouteIntended"}
        assert len(last) > 10

    async def test_on_a_second_machine_is_refused_with_who_and_since_when(self, scene: StateScene) -> None:
        refusals: list[str] = []

        async def second() -> None:
            elsewhere = {"XDG_STATE_HOME": str(scene.directory / "elsewhere")}
            with patch.dict(os.environ, elsewhere), pytest.raises(NotStartedError) as caught:
                await run(scene, "second")
            refusals.append(str(caught.value))

        async with anyio.create_task_group() as group:

            def observe(event: TrainEvent) -> None:
                if isinstance(event, StepStarted) and event.step_id == "canary-rollback-drill":
                    group.start_soon(second)

            summary, _ = await run(scene, observer=observe)
        assert summary.exit_code == 0
        (refusal,) = refusals
        assert f"pid {os.getpid()} on {os.uname().nodename}, user root, since 20" in refusal
        assert f"any machine can finish it: cutover recover {STATE_URL}/2" in refusal
        assert not (scene.directory / "second").exists()

    async def test_takes_the_lock_although_the_answer_was_lost(self, scene: StateScene) -> None:
        scene.after = lambda label: (
            httpx.ReadError("injected") if (label, scene.labels.count(label)) == ("state.lock", 1) else None
        )
        summary, warned = await run(scene)
        assert (summary.exit_code, warned, scene.locks) == (0, [], [])

    async def test_without_the_network_does_not_start(self, scene: StateScene) -> None:
        scene.before = state_is_dead
        with pytest.raises(
            NotStartedError, match=r"the lock in STATE_URL \(gs://simulated-state/trains\) cannot be taken"
        ):
            await run(scene)
        assert not (scene.directory / "run").exists()
        scene.before = lambda _: None
        assert (await run(scene))[0].exit_code == 0

    async def test_that_loses_the_bucket_before_its_first_change_changes_nothing(
        self, scene: StateScene
    ) -> None:
        generation = scene.simulation.generation

        def observe(event: TrainEvent) -> None:
            if isinstance(event, StepStarted) and event.step_id == "stream-smoke-pre":
                scene.before = state_is_dead

        summary, warned = await run(scene, observer=observe)
        assert summary.exit_code == 3
        assert scene.simulation.generation == generation
        assert any("cannot be written to gs://simulated-state/trains/" in each for each in warned)
        # The lock could not be deleted: the next train is told to recover, and that finds nothing open.
        scene.before = lambda _: None
        recovery = await recover(scene)
        assert (recovery.closed, recovery.detail) == (True, "nothing was open")
        assert scene.locks == []

    async def test_that_loses_the_bucket_in_the_middle_goes_no_further_and_undoes(
        self, scene: StateScene
    ) -> None:
        shares: list[dict[str, int]] = []

        def observe(event: TrainEvent) -> None:
            shares.append(scene.simulation.traffic)
            if isinstance(event, CheckRecorded) and event.check.check_id == "traffic-5":
                scene.before = state_is_dead

        summary, warned = await run(scene, observer=observe)
        assert (summary.exit_code, scene.simulation.traffic) == (1, SPLIT)
        assert max(split.get(CANARY, 0) for split in shares) == 5
        assert any("the copy there lacks" in each for each in warned)
        assert "cannot be written to gs://" in " ".join(summary.reasons)
        assert len(scene.locks) == 1
        scene.before = lambda _: None
        recovery = await recover(scene, scene.directory / "run", here=True)
        assert recovery.closed
        assert scene.locks == []

    async def test_whose_undo_loses_the_bucket_is_undone_all_the_same(self, scene: StateScene) -> None:
        def observe(event: TrainEvent) -> None:
            if isinstance(event, UndoStarted):
                scene.before = state_is_dead

        scene.after = lambda label: httpx.Response(500) if label.startswith("stream-smoke-post") else None
        summary, warned = await run(scene, observer=observe)
        assert (summary.exit_code, scene.simulation.route_targets()["auth_entry"]) == (1, None)
        assert any("the copy there lacks" in each for each in warned)
        scene.before = scene.after = lambda _: None
        recovery = await recover(scene)
        assert recovery.closed, recovery.detail
        assert scene.locks == []

    async def test_whose_bucket_hangs_waits_for_no_way_back(self, scene: StateScene) -> None:
        times: list[float] = []

        def observe(event: TrainEvent) -> None:
            if isinstance(event, UndoStarted | TrainFinished):
                times.append(anyio.current_time())
            if isinstance(event, UndoStarted):
                scene.before = lambda label: HANG if label.startswith("state.") else None

        scene.after = lambda label: httpx.Response(500) if label.startswith("stream-smoke-post") else None
        summary, _ = await run(scene, observer=observe)
        assert (summary.exit_code, scene.simulation.route_targets()["auth_entry"]) == (1, None)
        # Five overrides, each with a moment for the bucket, and the usual time for the last read.
        assert times[1] - times[0] < 5 * WAY_BACK_PATIENCE + 10

    async def test_that_is_cancelled_while_the_bucket_hangs_sends_nothing(self, scene: StateScene) -> None:
        generation = scene.simulation.generation
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as scope:

                async def interrupt() -> None:
                    await anyio.sleep(5)
                    scope.cancel()

                def observe(event: TrainEvent) -> None:
                    if isinstance(event, TrafficIntended):
                        scene.before = lambda label: HANG if label.startswith("state.") else None
                        group.start_soon(interrupt)

                await run(scene, observer=observe)
        assert scope.cancelled_caught
        assert scene.simulation.generation == generation
        events = read_journal(scene.directory / "run/journal.jsonl")
        (answer,) = (event for event in events if isinstance(event, Answered))
        assert (answer.outcome, answer.detail) == ("not sent", "cancelled before it was sent")
        assert isinstance(events[-1], TrainFinished)
        assert events[-1].exit_code == 130

    async def test_goes_on_after_an_outage_of_some_seconds(self, scene: StateScene) -> None:
        async def end_of_outage() -> None:
            await anyio.sleep(10)
            scene.before = lambda _: None

        async with anyio.create_task_group() as group:

            def observe(event: TrainEvent) -> None:
                if isinstance(event, TrafficIntended) and scene.before("state.") is None and not begun:
                    begun.append(True)
                    scene.before = lambda label: httpx.Response(503) if label.startswith("state.") else None
                    group.start_soon(end_of_outage)

            begun: list[bool] = []
            summary, warned = await run(scene, observer=observe)
        assert begun
        assert (summary.exit_code, warned, scene.locks) == (0, [], [])

    async def test_whose_verdict_the_bucket_cannot_hold_does_not_pass(self, scene: StateScene) -> None:
        def observe(event: TrainEvent) -> None:
            if isinstance(event, TrainFinished) and event.passed:
                scene.before = state_is_dead

        summary, _ = await run(scene, observer=observe)
        assert (summary.passed, summary.exit_code) == (False, 1)
        assert scene.simulation.route_targets()["auth_entry"] is None

    async def test_that_is_cancelled_undoes_and_releases_the_lock(self, scene: StateScene) -> None:
        with anyio.CancelScope() as scope:

            def observe(event: TrainEvent) -> None:
                if isinstance(event, CheckRecorded) and event.check.check_id == "traffic-25":
                    scope.cancel()

            await run(scene, observer=observe)
        assert scope.cancelled_caught
        assert (scene.simulation.traffic, scene.locks) == (SPLIT, [])
        (address,) = {name.rpartition("/journal/")[0] for name in scene.stored}
        assert events_in_bucket(scene, f"gs://simulated-state/{address}")[-1]["event"] == "TrainFinished"

    async def test_keeps_nothing_there_in_a_rehearsal(self, scene: StateScene) -> None:
        config = scene.config(dry_run=True)
        async with scene.production(config).state("run") as state:
            assert state is None


class TestAnotherMachine:
    @pytest.mark.parametrize(
        "at",
        [
            canary_got_5,
            lambda event: isinstance(event, TrafficIntended),
            lambda event: isinstance(event, RouteIntended) and event.wanted is not None,
            lambda event: isinstance(event, StepStarted) and event.step_id == "stream-smoke-post",
        ],
        ids=["after a share", "before the first change", "in the flip", "after the flip"],
    )
    async def test_recovers_a_killed_run(self, scene: StateScene, at: Callable[[TrainEvent], bool]) -> None:
        address = await Kill(scene, at).run()
        assert len(scene.locks) == 1
        recovery = await recover(scene)
        assert recovery.closed, recovery.detail
        assert scene.simulation.traffic == SPLIT
        assert set(scene.simulation.route_targets().values()) == {None}
        assert scene.locks == []
        written = events_in_bucket(scene, address)
        assert [event["event"] for event in written][-1] == "TrainFinished"
        taken = next(event for event in written if event["event"] == "TakenOver")
        assert taken["by"].startswith(f"pid {os.getpid()} on other, user root, since ")  # type: ignore[attr-defined]
        # The copy on this machine holds the whole run, and a summary of it.
        assert recovery.folder is not None
        assert recovery.folder.is_relative_to(scene.directory / "other" / "runs")
        lines = (recovery.folder / "journal.jsonl").read_bytes().splitlines()
        assert [msgspec.json.decode(line) for line in lines] == written
        assert (recovery.folder / "summary.json").exists()
        again = await recover(scene, address)
        assert (again.closed, again.detail) == (True, "nothing was open")

    async def test_recovers_a_run_that_was_killed_at_any_event(
        self, tmp_path: Path, anyio_backend_name: str
    ) -> None:
        number, wrong = 3, []
        while True:
            own = {"XDG_STATE_HOME": str(tmp_path / str(number) / "state")}
            with patch.dict(os.environ, own), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                scene = StateScene.of(tmp_path / str(number))
                count = itertools.count(1)
                kill = Kill(scene, lambda _, count=count, number=number: next(count) == number)  # type: ignore[misc]
                address = await kill.run()
                if not kill.dead:
                    break
                recovery = await recover(scene, address)
            targets = set(scene.simulation.route_targets().values())
            if not recovery.closed or scene.simulation.traffic != SPLIT or targets != {None} or scene.locks:
                wrong.append((number, recovery, targets, scene.locks))
            number += 17 if anyio_backend_name == "asyncio" else 43
        assert number > 50
        assert wrong == []

    async def test_recovers_by_the_name_of_the_run_too(self, scene: StateScene) -> None:
        address = await Kill(scene, canary_got_5).run()
        assert (await recover(scene, address)).closed
        assert scene.simulation.traffic == SPLIT

    async def test_lets_the_first_machine_start_again_only_after_its_own_recovery(
        self, scene: StateScene
    ) -> None:
        await Kill(scene, canary_got_5).run()
        await recover(scene)
        with pytest.raises(NotStartedError, match="not recovered"):
            await run(scene, "next")
        recovery = await recover(scene, scene.directory / "run", here=True)
        assert (recovery.closed, recovery.detail) == (True, "nothing was open")
        assert ServiceLock.left_by(scene.directory / "run") is None

    async def test_on_which_the_run_was_killed_may_use_the_address(self, scene: StateScene) -> None:
        await Kill(scene, canary_got_5).run()
        assert (await recover(scene, here=True)).closed
        assert ServiceLock.left_by(scene.directory / "run") is None

    async def test_reverts_a_completed_cutover(self, scene: StateScene) -> None:
        await run(scene)
        run_id = read_journal(scene.directory / "run/journal.jsonl")[0].run_id  # type: ignore[union-attr]
        address = f"{STATE_URL}/{run_id}"
        found = await recover(scene, address)
        assert (
            found.detail
            == f"nothing was open: the cutover is complete; to undo it: cutover recover --revert {address}"
        )
        assert scene.simulation.route_targets()["auth_entry"] == "rust_shell"
        assert (await recover(scene, address, way="revert")).closed
        assert (scene.simulation.route_targets()["auth_entry"], scene.locks) == (None, [])

    @pytest.mark.parametrize(("way", "canary"), [("accept-found", 30), ("restore-captured", 0)])
    async def test_leaves_what_somebody_else_did_to_an_operator(
        self, scene: StateScene, way: str, canary: int
    ) -> None:
        address = await Kill(scene, canary_got_5).run()
        targets = [
            {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": name, "percent": share}
            for name, share in ((STABLE, 70), (CANARY, 30))
        ]
        await moved_by_somebody_else(scene, targets)
        recovery = await recover(scene)
        assert (recovery.closed, recovery.exit_code) == (False, 4)
        assert f"to leave production as it is now: cutover recover --accept-found {address}" in recovery.to_do
        assert len(scene.locks) == 1
        assert (await recover(scene, address, way=way)).closed
        assert scene.simulation.traffic.get(CANARY, 0) == canary
        assert scene.locks == []

    async def test_finds_nothing_where_no_train_holds_a_lock(self, scene: StateScene) -> None:
        with pytest.raises(
            NotStartedError, match=r"gs://simulated-state/trains holds no run; check that address"
        ):
            await recover(scene)
        await run(scene)
        for wrong in (
            "gs://simulated-state",
            "gs://simulated-state/train",
            f"{STATE_URL}/20261129T013318Z_abcde",
        ):
            with pytest.raises(NotStartedError, match="holds no run"):
                await recover(scene, wrong)
        recovery = await recover(scene)
        assert recovery.detail == "nothing was open: no train holds a lock in gs://simulated-state/trains"
        with pytest.raises(NotStartedError, match="holds no journal"):
            await recover(scene, f"{STATE_URL}/20261129T013318Z_abcdef")

    async def test_releases_the_lock_of_a_train_that_never_began(self, scene: StateScene) -> None:
        production = scene.production(scene.config())
        async with production.state(production.run_id) as state:
            assert state is not None
            await state.begin()
        assert len(scene.locks) == 1
        recovery = await recover(scene)
        assert recovery.detail == "nothing was open: the train never began, and its lock is released"
        assert scene.locks == []

    async def test_must_name_the_run_where_several_are_open(self, scene: StateScene) -> None:
        names = []
        for service in ("one", "two"):
            production = scene.production(scene.config(service, service=service))
            async with production.state(production.run_id) as state:
                assert state is not None
                await state.begin()
            names.append(production.run_id)
        with pytest.raises(NotStartedError) as caught:
            await recover(scene)
        for name in names:
            assert f"cutover recover {STATE_URL}/{name}" in str(caught.value)


async def moved_by_somebody_else(scene: StateScene, targets: list[dict[str, object]]) -> None:
    layout = scene.simulation.layout
    async with httpx.AsyncClient(transport=scene.transport()) as client:
        reply = await client.patch(
            f"{layout.cloud_run_url}/v2/{layout.service_path}?updateMask=traffic",
            json={"traffic": targets},
            headers={"authorization": f"Bearer {TOKENS['CLOUD_RUN_ACCESS_TOKEN']}"},
            extensions={"label": "somebody"},
        )
        assert reply.status_code == 200


class TestALiveTrain:
    @pytest.mark.parametrize(
        "at",
        [
            canary_got_5,
            lambda event: isinstance(event, RouteIntended) and event.wanted is not None,
            lambda event: isinstance(event, StepStarted) and event.step_id == "stream-smoke-post",
        ],
        ids=["in a soak", "in the flip", "after the flip"],
    )
    async def test_that_was_taken_over_changes_nothing_more(
        self, scene: StateScene, at: Callable[[TrainEvent], bool]
    ) -> None:
        """The old process lives on. After the take-over is in the bucket, each change is the recovery's."""
        recoveries: list[Recovery] = []

        async def take_over() -> None:
            recoveries.append(await recover(scene))

        async with anyio.create_task_group() as group:
            begun: list[bool] = []

            def observe(event: TrainEvent) -> None:
                if at(event) and not begun:
                    begun.append(True)
                    group.start_soon(take_over)

            summary, warned = await run(scene, observer=observe, canary_soak_seconds=300.0)
        assert recoveries[0].closed, recoveries[0].detail
        assert summary.exit_code == 4
        assert any("has taken this run over" in each for each in warned)
        assert summary.undo is None
        assert scene.simulation.traffic == SPLIT
        assert set(scene.simulation.route_targets().values()) == {None}
        assert scene.locks == []
        events = read_journal(scene.directory / "run/journal.jsonl")
        assert not any(isinstance(event, TakenOver | UndoStarted) for event in events)

    async def test_that_was_taken_over_says_so_when_it_is_interrupted(self, scene: StateScene) -> None:
        async with anyio.create_task_group() as group:
            with (
                anyio.CancelScope() as scope,
                pytest.raises(UndoUnprovenError, match="has taken this run over"),
            ):

                async def take_over_and_interrupt() -> None:
                    await recover(scene)
                    scope.cancel()

                def observe(event: TrainEvent) -> None:
                    if canary_got_5(event):
                        group.start_soon(take_over_and_interrupt)

                await run(scene, observer=observe, canary_soak_seconds=3000.0)
        assert scene.simulation.traffic == SPLIT


class TestWhatABucketHolds:
    """Whoever may write to the bucket may have written the journal."""

    async def test_decides_no_address_of_a_token(self, scene: StateScene) -> None:
        address = await Kill(scene, canary_got_5).run()
        for wrong in ({}, {"BASE_URL": "https://other.example"}):
            with pytest.raises(ConfigurationError) as caught:
                await recover(scene, env={**TOKENS, **wrong})
            assert str(caught.value).startswith(
                "BASE_URL must confirm where tokens are sent: the journal in " + address
            )
            assert str(caught.value).endswith("set BASE_URL=https://chat.example")
        first = f"{address.removeprefix('gs://simulated-state/')}/journal/00000001.json"
        change(scene, first, "cloud_run_api_url", "https://evil.example")
        with pytest.raises(
            ConfigurationError, match=r"CLOUD_RUN_API_URL must confirm .* names https://evil.example"
        ):
            await recover(scene)
        assert len(scene.locks) == 1

    async def test_names_no_command(self, scene: StateScene) -> None:
        commands = scene.directory / "was-run"
        address = await Kill(scene, canary_got_5).run()
        first = f"{address.removeprefix('gs://simulated-state/')}/journal/00000001.json"
        change(scene, first, "token_sources", {"control_access_token_command": f"touch {commands}"})
        recovery = await recover(scene)
        assert recovery.closed
        assert recovery.folder is not None
        assert b"token_sources" not in (recovery.folder / "journal.jsonl").read_bytes()
        assert not commands.exists()

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "event 3 is not an event"),
            (b"{}", "event 3 is not an event"),
            (b'{"writer":"x","event":{"event":"Nonsense"}}', "line 3 is not a train event"),
            (
                b'{"writer":"x","event":{"event":"TrainFinished","passed":1,"exit_code":0}}',
                "line 3 is not a train event",
            ),
            (b"\xff" * 10, "event 3 is not an event"),
            (b'{"writer":"x","event":{"version":"2.0","event":"x"}}', "version 2.0"),
        ],
    )
    async def test_that_is_damaged_is_refused(self, scene: StateScene, content: bytes, problem: str) -> None:
        address = await Kill(scene, canary_got_5).run()
        name = f"{address.removeprefix('gs://simulated-state/')}/journal/00000003.json"
        put(scene, name, content)
        with pytest.raises(NotStartedError, match=problem):
            await recover(scene)
        del scene.simulation.storage.objects[name]
        with pytest.raises(NotStartedError, match="is damaged: event 3 is missing"):
            await recover(scene)
        assert scene.simulation.traffic == {STABLE: 95, CANARY: 5}

    async def test_as_a_lock_that_is_damaged_is_refused(self, scene: StateScene) -> None:
        await Kill(scene, canary_got_5).run()
        put(scene, scene.locks[0], b'{"host":1}')
        for attempt in (recover(scene), run(scene, "next", service="openagents-control-service")):
            with pytest.raises(NotStartedError):
                await attempt


def put(scene: StateScene, name: str, content: bytes) -> None:
    objects = scene.simulation.storage.objects
    objects[name] = type(objects[name])(content, objects[name].generation + 1)


def change(scene: StateScene, name: str, fact: str, value: object) -> None:
    entry = json.loads(scene.simulation.storage.objects[name].content)
    entry["event"]["facts"][fact] = value
    put(scene, name, json.dumps(entry).encode())


class TestTheOwnMachine:
    async def test_keeps_what_its_disk_says_else_beside_the_journal(self, scene: StateScene) -> None:
        """The run was taken over while this process lived on, and wrote other events of the same numbers."""
        address = await Kill(scene, canary_got_5).run()
        own = (scene.directory / "run/journal.jsonl").read_bytes()
        await recover(scene)
        recovery = await recover(scene, scene.directory / "run", here=True)
        assert recovery.closed
        assert (scene.directory / "run/journal.replaced-1.jsonl").read_bytes() == own
        lines = (scene.directory / "run/journal.jsonl").read_bytes().splitlines()
        assert "token_sources" in json.loads(lines[0])["facts"]
        assert [json.loads(line) for line in lines[1:]] == events_in_bucket(scene, address)[1:]

    async def test_recovers_without_the_bucket_if_it_is_told_to(self, scene: StateScene) -> None:
        await Kill(scene, canary_got_5).run()
        scene.before = state_is_dead
        with pytest.raises(NotStartedError, match="cannot be taken over"):
            await recover(scene, scene.directory / "run")
        recovery = await recover(scene, scene.directory / "run", local_only=True)
        assert (recovery.closed, scene.simulation.traffic) == (True, SPLIT)
        scene.before = lambda _: None
        assert len(scene.locks) == 1
        assert (await recover(scene)).closed
        assert scene.locks == []
