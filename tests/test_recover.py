"""Recovery: what a killed train left open is put back, and where production has moved on nothing is touched."""

import json
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import httpx
import pytest
import uvicorn
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from trains import CANARY, STABLE, live_config

from cutover import CutoverConfig, recover_cutover
from cutover.control_plane import set_routes
from cutover.errors import ConfigurationError, NotStartedError
from cutover.journal import (
    CheckRecorded,
    Journal,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    read_journal,
)
from cutover.production import live, simulated_credentials, simulated_layout
from cutover.results import Check, StepStatus
from cutover.run import run_cutover
from cutover.simulation import Operation, SimulatedProduction
from cutover.state import GLOBAL, OnRefusal, split
from cutover.steps import Peers
from cutover.traffic import TrafficMover

pytestmark = pytest.mark.anyio

ENV = {
    "CONTROL_ACCESS_TOKEN": "marked-control-token",
    "AUTH_TOKEN": "marked-auth-token",
    "CLOUD_RUN_ACCESS_TOKEN": "marked-cloud-run-token",
}
CHANGES = {Operation.TRAFFIC_UPDATE, Operation.ROUTE_OVERRIDE}


@pytest.fixture
def anyio_backend() -> str:
    """The server that recovery talks to is one of asyncio."""
    return "asyncio"


@attrs.define(eq=False)
class Gate:
    """What stands before the production, and refuses the next so many requests."""

    app: ASGIApp
    refusals: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.refusals:
            self.refusals -= 1
            await Response(status_code=403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@attrs.define(eq=False)
class Scene:
    """A production that is served on loopback, and a run against it that was killed."""

    config: CutoverConfig
    production: SimulatedProduction
    journal: Journal
    peers: Peers
    gate: "Gate"

    @property
    def folder(self) -> Path:
        assert self.config.output_dir is not None
        return self.config.output_dir

    @property
    def changes(self) -> int:
        """How many requests asked production to change."""
        return sum(entry.operation in CHANGES for entry in self.production.requests)

    async def move_traffic(self) -> None:
        """Give the canary 5 %, as the drill does."""
        captured = await self.peers.traffic.read(label="pre")
        mover = TrafficMover(
            backend=self.peers.traffic,
            journal=self.journal,
            clock=self.peers.clock,
            captured=captured,
            step_id="canary-rollback-drill",
        )
        targets = split(captured, {STABLE: 95, CANARY: 5})
        shift = await mover.shift(targets, current=captured, label="drill", on_refusal=OnRefusal.STOP)
        assert shift.proven

    async def move_routes(self) -> None:
        """Set one domain and the global override, as a flip does that is cut in the middle."""
        captured = await self.peers.control.status(label="pre")
        change = await set_routes(
            self.peers.control,
            [(GLOBAL, None), ("auth_entry", "rust_shell"), (GLOBAL, "rust_shell")],
            captured=captured,
            step_id="route-flip",
            label="flip",
            on_refusal=OnRefusal.STOP,
            journal=self.journal,
            clock=self.peers.clock,
        )
        assert change.proven

    def kill(self) -> None:
        """Leave what a killed train leaves: its journal and the lock's content."""
        self.journal.close()
        with live(self.config).lock().held() as lock:
            lock.sign(self.folder)

    def told(self) -> list[TrainEvent]:
        return read_journal(self.folder / "journal.jsonl")


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    """Serve a production and begin a run against it."""
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    front, cloud_run = (f"http://127.0.0.1:{listener.getsockname()[1]}" for listener in listeners)
    config = live_config(directory, base_url=front, cloud_run_api_url=cloud_run)
    layout = attrs.evolve(simulated_layout(config), instances=2)
    production = SimulatedProduction(layout=layout, credentials=simulated_credentials(config))
    gate = Gate(production.app)
    server = uvicorn.Server(
        uvicorn.Config(gate, lifespan="off", ws="none", log_level="critical", access_log=False)
    )
    (directory / "run").mkdir()
    journal = Journal.create(directory / "run" / "journal.jsonl")
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve, listeners)
        try:
            async with live(config).peers() as peers:
                journal.record(TrainStarted(run_id="r1", facts=config.facts()))
                yield Scene(config, production, journal, peers, gate)
        finally:
            server.should_exit = True


def routes(production: SimulatedProduction) -> set[object]:
    """Every override that any stable instance holds."""
    rows = [row for row in production.routes if row["revision"] == STABLE]
    return {(row["global"], *row["domains"].items()) for row in rows}  # type: ignore[attr-defined]


async def update_traffic(scene: Scene, **percents: int) -> None:
    """Change the split as somebody else would."""
    async with httpx.AsyncClient() as client:
        config = scene.config
        url = f"{config.cloud_run_api_url}/v2/{scene.production.layout.service_path}?updateMask=traffic"
        rows = [
            {"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": name, "percent": percent}
            for name, percent in ((STABLE, percents["stable"]), (CANARY, percents["canary"]))
        ]
        headers = {"authorization": f"Bearer {config.cloud_run_access_token}"}
        (await client.patch(url, json={"traffic": rows}, headers=headers)).raise_for_status()


class TestClosing:
    async def test_traffic_that_was_moved_goes_back_to_what_was_captured(self, tmp_path: Path) -> None:
        seen: list[TrainEvent] = []
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            assert found.production.traffic == {STABLE: 95, CANARY: 5}
            recovery = await recover_cutover(found.folder, env=ENV, observer=seen.append)
            assert (recovery.closed, recovery.exit_code, recovery.to_do) == (True, 0, ())
            assert recovery.detail == f"traffic is back: {STABLE} 100 %"
            assert found.production.traffic == {STABLE: 100}
            assert found.production.tags == {"canary": CANARY}
            assert isinstance(seen[0], UndoStarted)
            assert seen[0].reason == "recovery"
            done, last = found.told()[-2:]
            assert isinstance(done, UndoFinished)
            assert done.proven
            assert isinstance(last, TrainFinished)
            assert (last.passed, last.exit_code, last.reasons) == (False, 1, ("recovered",))

    async def test_routes_that_were_half_set_go_back_on_every_instance(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            assert (await recover_cutover(found.folder, env=ENV)).closed
            assert routes(found.production) == {(None,)}

    async def test_an_intent_without_an_answer_is_undone_too(self, tmp_path: Path) -> None:
        """Killed between the two journal lines: nobody knows whether the write took effect."""
        async with scene(tmp_path) as found:
            captured = await found.peers.traffic.read(label="pre")
            found.journal.record(
                TrafficIntended(
                    step_id="canary-rollback-drill",
                    captured=captured,
                    wanted=split(captured, {STABLE: 95, CANARY: 5}),
                    etag=captured.etag,
                )
            )
            found.kill()
            assert (await recover_cutover(found.folder, env=ENV)).closed
            updates = [e for e in found.production.requests if e.operation is Operation.TRAFFIC_UPDATE]
            assert len(updates) == 1  # a late write then meets another etag
            assert found.production.traffic == {STABLE: 100}

    async def test_after_a_failed_drill_traffic_is_all_stables(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            check = Check(check_id="traffic-5", status=StepStatus.FAIL)
            found.journal.record(CheckRecorded(step_id="canary-rollback-drill", check=check))
            found.kill()
            assert (await recover_cutover(found.folder, env=ENV)).closed
            assert found.production.traffic == {STABLE: 100}

    async def test_a_second_recovery_finds_nothing_open_and_the_next_train_may_start(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            lock = live(found.config).lock()
            with pytest.raises(NotStartedError, match="not recovered"), lock.held():
                pass
            await recover_cutover(found.folder, env=ENV)
            changes = found.changes
            again = await recover_cutover(str(found.folder), env=ENV)
            assert (again.closed, again.detail) == (True, "nothing was open")
            assert found.changes == changes
            with lock.held():
                pass

    async def test_a_look_that_is_refused_once_is_no_obstacle(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            found.gate.refusals = 1
            assert (await recover_cutover(found.folder, env=ENV)).closed
            assert found.production.traffic == {STABLE: 100}

    async def test_a_torn_last_line_is_no_obstacle(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            with (found.folder / "journal.jsonl").open("ab") as file:
                file.write(b'{"event":"TrafficIn')
            assert (await recover_cutover(found.folder, env=ENV)).closed
            assert isinstance(found.told()[-1], TrainFinished)


class TestMovedOn:
    async def test_traffic_that_somebody_else_moved_is_shown_and_not_touched(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            await update_traffic(found, stable=70, canary=30)
            events, changes = found.told(), found.changes
            recovery = await recover_cutover(found.folder, env=ENV)
            assert (recovery.closed, recovery.exit_code) == (False, 4)
            assert recovery.detail == (
                "traffic: production has moved on, nothing was touched. "
                f"captured: {STABLE} 100 %; intended: {STABLE} 95 %, {CANARY} 5 %; "
                f"found: {STABLE} 70 %, {CANARY} 30 %"
            )
            assert (found.changes, found.told()) == (changes, events)
            with (
                pytest.raises(NotStartedError, match="not recovered"),
                live(found.config).lock().held(),
            ):
                pass

    async def test_routes_that_somebody_else_set_are_shown_and_not_touched(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            for _ in range(40):  # whichever instance answers
                await found.peers.control.override("auth_entry", "legacy", label="somebody-else")
            changes = found.changes
            recovery = await recover_cutover(found.folder, env=ENV)
            assert not recovery.closed
            assert recovery.detail.startswith("the routes: production has moved on, nothing was touched. ")
            assert "captured: account_settings_admin=clear, auth_entry=clear, " in recovery.detail
            assert "intended: auth_entry=rust_shell, global=" in recovery.detail
            assert "auth_entry=legacy, " in recovery.detail.rpartition("found: ")[2]
            assert found.changes == changes

    async def test_an_instance_born_since_is_not_somebody_else(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            for _ in range(20):  # one that has forgotten everything is as good as new
                await found.peers.control.override(GLOBAL, "clear", label="forgets")
            assert (await recover_cutover(found.folder, env=ENV)).closed
            assert routes(found.production) == {(None,)}


class TestNothingOpen:
    async def test_a_train_that_passed(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.journal.record(TrainFinished(passed=True, exit_code=0))
            found.kill()
            recovery = await recover_cutover(found.folder, env=ENV)
            assert (recovery.closed, recovery.detail) == (True, "nothing was open")
            assert routes(found.production) == {("rust_shell", ("auth_entry", "rust_shell"))}

    async def test_a_rehearsal(self, tmp_path: Path) -> None:
        config = CutoverConfig(stable_revision=STABLE, canary_revision=CANARY, output_dir=tmp_path / "run")
        assert (await run_cutover(config)).passed
        before = (tmp_path / "run" / "journal.jsonl").read_bytes()
        recovery = await recover_cutover(tmp_path / "run", env={})
        assert recovery.closed
        assert "a rehearsal" in recovery.detail
        assert (tmp_path / "run" / "journal.jsonl").read_bytes() == before

    async def test_a_train_that_never_began(self, tmp_path: Path) -> None:
        Journal.create(tmp_path / "journal.jsonl").close()
        assert (await recover_cutover(tmp_path, env={})).closed


class TestNotStarted:
    async def test_a_folder_without_a_journal(self, tmp_path: Path) -> None:
        with pytest.raises(NotStartedError, match=f"{tmp_path} holds no journal"):
            await recover_cutover(tmp_path, env=ENV)
        assert list(tmp_path.iterdir()) == []

    async def test_what_is_no_journal(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.jsonl"
        path.write_text("a diary\n")
        with pytest.raises(NotStartedError, match="line 1 is not a train event"):
            await recover_cutover(tmp_path, env=ENV)
        assert path.read_text() == "a diary\n"

    async def test_what_does_not_say_which_revisions_it_was_for(self, tmp_path: Path) -> None:
        config = live_config(tmp_path)
        (tmp_path / "run").mkdir()
        for name in ("stable_revision", "canary_revision"):
            facts = {key: value for key, value in config.facts().items() if key != name}
            path = tmp_path / "run" / "journal.jsonl"
            path.unlink(missing_ok=True)
            journal = Journal.create(path)
            journal.record(TrainStarted(run_id="r1", facts=facts))
            journal.close()
            with pytest.raises(NotStartedError, match="does not say which revisions"):
                await recover_cutover(tmp_path / "run", env=ENV)

    async def test_without_tokens(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            with pytest.raises(ConfigurationError) as caught:
                await recover_cutover(found.folder, env={})
            assert [problem.split()[0] for problem in caught.value.problems] == [
                "CONTROL_ACCESS_TOKEN",
                "AUTH_TOKEN",
            ]
            assert found.production.traffic == {STABLE: 95, CANARY: 5}

    async def test_tokens_come_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in ENV.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DRY_RUN", "maybe")  # it governs `run` alone
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            assert (await recover_cutover(found.folder)).closed

    async def test_while_a_train_is_live(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            changes = found.changes
            with (
                live(found.config).lock().held(),
                pytest.raises(NotStartedError, match="another train is live"),
            ):
                await recover_cutover(found.folder, env=ENV)
            assert found.changes == changes
            found.journal.close()

    async def test_the_journal_of_a_live_train_is_not_cut_where_it_is_just_being_written(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            path = found.folder / "journal.jsonl"
            with path.open("ab") as file:
                file.write(b'{"event":"Traf')
            before = path.read_bytes()
            with (
                live(found.config).lock().held(),
                pytest.raises(NotStartedError, match="another train is live"),
            ):
                await recover_cutover(found.folder, env=ENV)
            assert path.read_bytes() == before
            found.journal.close()


async def test_routes_go_back_before_the_traffic(tmp_path: Path) -> None:
    """They were applied last, and live in the memory of instances that a change of the traffic may send away."""
    async with scene(tmp_path) as found:
        await found.move_routes()
        await found.move_traffic()
        found.kill()
        before = len(found.production.requests)
        recovery = await recover_cutover(found.folder, env=ENV)
        assert recovery.detail.startswith(
            "routes are as captured (auth_entry=clear, global=clear); traffic is back"
        )
        order = [e.operation for e in found.production.requests[before:] if e.operation in CHANGES]
        assert order[-1] is Operation.TRAFFIC_UPDATE
        assert set(order[:-1]) == {Operation.ROUTE_OVERRIDE}
        assert routes(found.production) == {(None,)}


@pytest.mark.parametrize("finished", [False, True])
async def test_recovering_another_run_is_refused_and_does_not_erase_the_mark_of_the_open_one(
    tmp_path: Path, finished: bool
) -> None:
    """Least of all where that other run has nothing open, which would end in the lock being closed."""
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        other = tmp_path / "other"
        other.mkdir()
        shutil.copy(found.folder / "journal.jsonl", other)
        if finished:
            journal = Journal.reopen(other / "journal.jsonl")
            journal.record(TrainFinished(passed=True, exit_code=0))
            journal.close()
        lock = live(found.config).lock().path
        mark, told, changes = lock.read_bytes(), (other / "journal.jsonl").read_bytes(), found.changes
        with pytest.raises(NotStartedError, match=f"cutover recover {found.folder}"):
            await recover_cutover(other, env=ENV)
        assert lock.read_bytes() == mark
        assert (other / "journal.jsonl").read_bytes() == told
        assert list(other.iterdir()) == [other / "journal.jsonl"]
        assert found.changes == changes
        assert (await recover_cutover(found.folder, env=ENV)).closed
        assert found.production.traffic == {STABLE: 100}


async def test_a_damaged_lock_is_for_an_operator_to_judge(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        lock = live(found.config).lock().path
        lock.write_bytes(lock.read_bytes()[:20])
        events, changes = found.told(), found.changes
        with pytest.raises(NotStartedError, match=f"check production, then remove {lock}"):
            await recover_cutover(found.folder, env=ENV)
        assert (found.told(), found.changes) == (events, changes)
        lock.unlink()
        assert (await recover_cutover(found.folder, env=ENV)).closed


async def test_a_recovery_leaves_the_summary_that_the_killed_train_did_not_write(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        assert [path.name for path in found.folder.iterdir()] == ["journal.jsonl"]
        recovery = await recover_cutover(found.folder, env=ENV)
        summary = json.loads((found.folder / "summary.json").read_text())
        assert summary["undo"] == {"proven": True, "detail": recovery.detail, "to_do": []}
        assert (summary["overall_status"], summary["exit_code"]) == ("failed", 1)
        assert summary["reasons"] == ["recovered"]
        assert summary["stable_revision"] == STABLE
        assert "recovered" in (found.folder / "SUMMARY.md").read_text()


async def test_a_recovery_that_is_not_proven_says_in_its_summary_what_is_to_be_done(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        found.gate.refusals = 10_000
        recovery = await recover_cutover(found.folder, env=ENV)
        assert (recovery.closed, recovery.exit_code) == (False, 4)
        summary = json.loads((found.folder / "summary.json").read_text())
        assert summary["undo"] == {"proven": False, "detail": recovery.detail, "to_do": list(recovery.to_do)}
        assert recovery.to_do
        assert summary["exit_code"] == 4
        with pytest.raises(NotStartedError, match="not recovered"), live(found.config).lock().held():
            pass
