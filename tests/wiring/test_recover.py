"""Recovery finishes the undo of a killed train; if somebody else has changed production, it touches nothing."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from cutover import CutoverConfig, recover_cutover
from cutover.errors import ConfigurationError, NotStartedError
from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.route_state import GLOBAL
from cutover.model.traffic_state import TrafficTarget
from cutover.model.train_events import (
    CheckRecorded,
    Decided,
    StepFinished,
    StepStarted,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
)
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.report.page.spans import streams_of
from cutover.report.reporter import Reporter
from cutover.simulation import FAULTS, Operation
from cutover.wiring.production import live
from cutover.wiring.recover import _needs, _open_parts, configuration_of_run
from cutover.wiring.run import run_cutover
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, TOKENS, live_config
from tests.support.full_disk import disk_with_room_for
from tests.support.report_pages import PageText
from tests.support.unfinished_runs import Scene, scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class TestClosing:
    async def test_traffic_that_was_moved_goes_back_to_the_captured_split(self, tmp_path: Path) -> None:
        seen: list[TrainEvent] = []
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            assert found.simulation.traffic == {STABLE: 95, CANARY: 5}
            recovery = await found.recover(observer=seen.append)
            assert (recovery.closed, recovery.exit_code, recovery.to_do) == (True, 0, ())
            assert recovery.detail == f"traffic is back: {STABLE} 100 %"
            assert found.simulation.traffic == {STABLE: 100}
            assert found.simulation.tags == {"canary": CANARY}
            decided, begun = seen[:2]
            assert isinstance(decided, Decided)
            assert (decided.part, decided.action) == ("traffic", "write")
            assert decided.captured == f"{STABLE} 100 %"
            assert decided.intended == decided.found == f"{STABLE} 95 %, {CANARY} 5 %"
            assert isinstance(begun, UndoStarted)
            assert begun.reason == "recovered"
            done, last = found.told()[-2:]
            assert isinstance(done, UndoFinished)
            assert done.proven
            assert isinstance(last, TrainFinished)
            assert (last.passed, last.exit_code, last.reasons) == (False, 1, ("recovered",))

    async def test_the_streams_that_prove_the_way_back_stand_in_the_journal_and_on_the_page(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            await found.recover()
            events = found.told()
            streams = streams_of(events)
            assert {(stream.change, stream.kind, stream.revision) for stream in streams} == {
                ("recover", "probe", STABLE)
            }
            assert all(stream.ok for stream in streams)
            text = PageText.of((found.folder / "report.html").read_bytes()).text
            assert f"The recovery of the traffic {len(streams)} of {len(streams)} whole" in text

    async def test_a_recovery_without_a_token_for_streams_records_no_broken_stream(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path, FAULTS["stream-401"]) as found:
            await found.move_traffic()
            found.kill()
            assert (await found.recover()).closed
            assert streams_of(found.told()) == []

    async def test_routes_that_were_half_set_go_back_on_every_instance(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            assert (await found.recover()).closed
            assert found.routes == {(None,)}

    async def test_an_intent_without_an_answer_is_undone_too(self, tmp_path: Path) -> None:
        """The train was killed between the intent and the answer, so the effect of the write is unknown."""
        async with scene(tmp_path) as found:
            await found.intend()
            found.kill()
            assert (await found.recover()).closed
            updates = [e for e in found.simulation.requests if e.operation is Operation.TRAFFIC_UPDATE]
            # the update changes the etag, so a late write of the train is refused
            assert len(updates) == 1
            assert found.simulation.traffic == {STABLE: 100}

    async def test_after_a_failed_drill_stable_gets_all_traffic(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            check = Check(check_id="traffic-5", status=StepStatus.FAIL)
            found.journal.record(CheckRecorded(step_id="canary-rollback-drill", check=check))
            found.kill()
            assert (await found.recover()).closed
            assert found.simulation.traffic == {STABLE: 100}

    async def test_a_second_recovery_finds_nothing_open_and_the_next_train_may_start(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            lock = live(found.config).lock()
            with pytest.raises(NotStartedError, match="not recovered"), lock.held():
                pass
            await found.recover()
            changes = found.changes
            again = await found.recover()
            assert (again.closed, again.detail) == (True, "nothing was open")
            assert found.changes == changes
            with lock.held():
                pass

    async def test_a_read_that_is_refused_once_is_repeated(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            found.refusals = 1
            assert (await found.recover()).closed
            assert found.simulation.traffic == {STABLE: 100}

    async def test_an_incomplete_last_line_is_ignored(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            with (found.folder / "journal.jsonl").open("ab") as file:
                file.write(b'{"event":"TrafficIn')
            assert (await found.recover()).closed
            assert isinstance(found.told()[-1], TrainFinished)


class TestMovedOn:
    async def test_traffic_that_somebody_else_moved_is_shown_and_not_touched(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            await found.ask_for(
                TrafficTarget(revision=STABLE, percent=70), TrafficTarget(revision=CANARY, percent=30)
            )
            events, changes = found.told(), found.changes
            recovery = await found.recover()
            assert (recovery.closed, recovery.exit_code) == (False, 4)
            assert recovery.detail == (
                "traffic: production has moved on: somebody else has changed it, and recovery changed nothing. "
                f"captured: {STABLE} 100 %; intended: {STABLE} 95 %, {CANARY} 5 %; "
                f"found: {STABLE} 70 %, {CANARY} 30 %"
            )
            assert recovery.to_do == (
                f"to leave production as it is now: cutover recover --accept-found {found.folder}",
                f"or, to write the captured state over it: cutover recover --restore-captured {found.folder}",
            )
            assert found.changes == changes
            added = [type(event) for event in found.told()[len(events) :]]
            assert added == [Decided, UndoFinished, TrainFinished]
            assert json.loads((found.folder / "summary.json").read_text())["undo"]["to_do"] == list(
                recovery.to_do
            )
            with (
                pytest.raises(NotStartedError, match="not recovered"),
                live(found.config).lock().held(),
            ):
                pass

    async def test_routes_that_somebody_else_set_are_shown_and_not_touched(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            await found.override("auth_entry", "legacy")
            await found.override(GLOBAL, "legacy")
            changes = found.changes
            recovery = await found.recover()
            assert not recovery.closed
            assert recovery.detail.startswith(
                "routes: production has moved on: somebody else has changed it, and recovery changed nothing. "
            )
            assert recovery.detail.endswith("; changed by somebody else: auth_entry, global")
            assert "captured: account_settings_admin=clear, auth_entry=clear, " in recovery.detail
            assert "intended: auth_entry=rust_shell, global=" in recovery.detail
            assert "auth_entry=legacy, " in recovery.detail.rpartition("found: ")[2]
            assert found.changes == changes

    async def test_a_new_instance_without_overrides_is_not_a_foreign_change(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            # an instance that holds no override looks like a new one
            await found.override(GLOBAL, "clear")
            assert (await found.recover()).closed
            assert found.routes == {(None,)}


class TestMissingSummary:
    """A train that is killed after its verdict, and before the files that tell it."""

    async def ended(self, found: Scene, *, passed: bool = True) -> None:
        check = Check(check_id="routes", status=StepStatus.PASS if passed else StepStatus.FAIL)
        result = StepResult(step_id="final-state", status=check.status, checks=(check,))
        found.journal.record(StepStarted(step_id="final-state"))
        found.journal.record(StepFinished(result=result))
        found.journal.record(TrainFinished(passed=passed, exit_code=0 if passed else 1))
        found.kill()

    @pytest.mark.parametrize("passed", [True, False])
    async def test_every_file_is_written_from_the_journal(self, passed: bool, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await self.ended(found, passed=passed)
            before = (found.folder / "journal.jsonl").read_bytes()
            recovery = await found.recover()
            assert recovery.closed
            assert ("the cutover is complete" in recovery.detail) == passed
            assert recovery.written == (
                "report.html",
                "final-state/summary.json",
                "final-state/step.log",
                "steps.jsonl",
                "SUMMARY.md",
                "summary.json",
            )
            summary = json.loads((found.folder / "summary.json").read_text())
            assert summary["overall_status"] == ("passed" if passed else "failed")
            assert summary["exit_code"] == (0 if passed else 1)
            assert f"Stream cutover: {summary['overall_status']}" in (found.folder / "SUMMARY.md").read_text()
            assert json.loads((found.folder / "steps.jsonl").read_text())["step_id"] == "final-state"
            # The verdict stands as it was, and the next train may start.
            assert (found.folder / "journal.jsonl").read_bytes() == before
            assert not found.is_marked()
            assert (await found.recover()).written == ()

    async def test_a_file_that_is_there_is_left_as_it_is(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await self.ended(found)
            await found.recover()
            (found.folder / "steps.jsonl").unlink()
            (found.folder / "SUMMARY.md").write_text("with a note of the operator")
            assert (await found.recover()).written == ("steps.jsonl",)
            assert (found.folder / "SUMMARY.md").read_text() == "with a note of the operator"

    async def test_a_summary_of_an_earlier_verdict_is_written_again(self, tmp_path: Path) -> None:
        """A recovery that was killed after its verdict leaves the summary of the train, which says that the run is open."""
        async with scene(tmp_path) as found:
            found.journal.record(TrainFinished(passed=False, exit_code=4, reasons=("open",)))
            found.kill()
            await found.recover()
            assert json.loads((found.folder / "summary.json").read_text())["exit_code"] == 4
            journal = Journal.reopen(found.folder / "journal.jsonl")
            journal.record(TrainFinished(passed=False, exit_code=1, reasons=("recovered",)))
            journal.close()
            assert "summary.json" in (await found.recover()).written
            assert json.loads((found.folder / "summary.json").read_text())["reasons"] == ["recovered"]

    async def test_a_step_that_was_cut_off_says_so_in_its_own_file(self, tmp_path: Path) -> None:
        """Its summary is written before its last line: the train may be killed between them."""
        async with scene(tmp_path) as found:
            found.journal.record(StepStarted(step_id="preflight"))
            result = StepResult(step_id="preflight", status=StepStatus.PASS)
            assert Reporter(evidence=EvidenceFolder(found.folder), journal=found.journal).write_step(result)
            found.kill()
            recovery = await found.recover()
            assert "preflight/summary.json" in recovery.written
            assert json.loads((found.folder / "preflight" / "summary.json").read_text())["status"] == "error"

    async def test_a_summary_that_cannot_be_written_now_either_is_told(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await self.ended(found)
            (found.folder / "summary.json").mkdir()
            with pytest.warns(RuntimeWarning, match=r"summary.json cannot be written"):
                recovery = await found.recover()
            assert "summary.json" not in recovery.written

    async def test_a_rehearsal_gets_its_summary_too(self, tmp_path: Path) -> None:
        config = CutoverConfig(stable_revision=STABLE, canary_revision=CANARY, output_dir=tmp_path / "run")
        await run_cutover(config)
        whole = (tmp_path / "run" / "summary.json").read_bytes()
        (tmp_path / "run" / "summary.json").unlink()
        recovery = await recover_cutover(tmp_path / "run", env={})
        assert recovery.written[-1] == "summary.json"
        assert (tmp_path / "run" / "summary.json").read_bytes() == whole


class TestNothingOpen:
    async def test_a_train_that_passed(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.journal.record(TrainFinished(passed=True, exit_code=0))
            found.kill()
            recovery = await found.recover()
            assert (recovery.closed, recovery.detail) == (
                True,
                f"nothing was open: the cutover is complete; to undo it: cutover recover --revert {found.folder}",
            )
            assert found.routes == {("rust_shell", ("auth_entry", "rust_shell"))}

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
            await recover_cutover(tmp_path, env=TOKENS)
        assert list(tmp_path.iterdir()) == []

    async def test_a_file_that_is_not_a_journal(self, tmp_path: Path) -> None:
        path = tmp_path / "journal.jsonl"
        path.write_text("a diary\n")
        with pytest.raises(NotStartedError, match="line 1 is not a train event"):
            await recover_cutover(tmp_path, env=TOKENS)
        assert path.read_text() == "a diary\n"

    async def test_a_journal_without_its_revisions(self, tmp_path: Path) -> None:
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
                await recover_cutover(tmp_path / "run", env=TOKENS)

    async def test_without_the_token_of_open_routes(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            before = found.routes
            with pytest.raises(ConfigurationError) as caught:
                await recover_cutover(found.folder, env={})
            assert [problem.split()[0] for problem in caught.value.problems] == ["CONTROL_ACCESS_TOKEN"]
            assert found.routes == before

    async def test_traffic_alone_needs_no_control_token_and_routes_alone_need_no_token_of_cloud_run(
        self, tmp_path: Path
    ) -> None:
        """The addresses are not served here: that the recovery asks for no token is what counts."""
        for part in ("traffic", "routes"):
            async with scene(tmp_path / part) as found:
                await (found.move_traffic() if part == "traffic" else found.move_routes())
                found.kill()
                facts = found.told()[0].facts  # type: ignore[union-attr]
                needs = _needs(_open_parts(found.told(), stable=STABLE, mode="finish"))
                broken = {"CLOUD_RUN_ACCESS_TOKEN_FILE": str(tmp_path / "none")}
                if part == "traffic":
                    assert needs == {"output_dir", "cloud_run_access_token", "gcloud"}
                    assert configuration_of_run(facts, found.folder, {}, needs).control_access_token == ""
                    with pytest.raises(
                        ConfigurationError, match=r"CLOUD_RUN_ACCESS_TOKEN_FILE: .* cannot be read"
                    ):
                        configuration_of_run(facts, found.folder, broken, needs)
                else:
                    assert needs == {"output_dir", "control_access_token"}
                    env = {"CONTROL_ACCESS_TOKEN": "x", **broken}
                    assert (
                        configuration_of_run(
                            {**facts, "traffic_backend": "gcloud"}, found.folder, env, needs
                        ).needs
                        == needs
                    )
                assert (await found.recover()).closed

    async def test_a_closed_run_needs_no_token(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.complete()
            recovery = await recover_cutover(found.folder, env={})
            assert recovery.closed
            assert recovery.detail.startswith("nothing was open: the cutover is complete")
            with pytest.raises(
                ConfigurationError, match="CONTROL_ACCESS_TOKEN is missing: without it the routes"
            ):
                await recover_cutover(found.folder, way="revert", env={})

    async def test_the_sources_of_the_train_are_used_again(self, tmp_path: Path) -> None:
        path = tmp_path / "token"
        path.write_text("of-the-file")
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.kill()
            needs = frozenset({"control_access_token"})
            sources = {"control_access_token_file": str(path), "auth_token_command": "no-such-program"}
            facts = {**found.told()[0].facts, "token_sources": sources}  # type: ignore[union-attr]
            production = live(configuration_of_run(facts, found.folder, {}, needs))
            assert await production.tokens.control.value() == "of-the-file"
            assert production.config.auth_token_command == "no-such-program"
            # A variable wins over the journal.
            env = {"CONTROL_ACCESS_TOKEN": "of-the-variable"}
            production = live(configuration_of_run(facts, found.folder, env, needs))
            assert await production.tokens.control.value() == "of-the-variable"
            path.unlink()
            with pytest.raises(ConfigurationError, match=r"CONTROL_ACCESS_TOKEN_FILE: .* cannot be read"):
                configuration_of_run(facts, found.folder, {}, needs)
            assert (await found.recover()).closed

    async def test_tokens_come_from_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in TOKENS.items():
            monkeypatch.setenv(name, value)
        # only `run` reads it
        monkeypatch.setenv("DRY_RUN", "maybe")
        async with scene(tmp_path) as found:
            found.kill()
            assert (await recover_cutover(str(found.folder))).closed
            assert not found.is_marked()

    async def test_while_a_train_is_live(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            changes = found.changes
            with (
                live(found.config).lock().held(),
                pytest.raises(NotStartedError, match="another train is live"),
            ):
                await found.recover()
            assert found.changes == changes
            found.journal.close()

    async def test_the_last_line_of_a_live_trains_journal_is_not_cut_off(self, tmp_path: Path) -> None:
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
                await found.recover()
            assert path.read_bytes() == before
            found.journal.close()


async def test_the_traffic_goes_back_before_the_routes(tmp_path: Path) -> None:
    """Each instance keeps its routes in memory, so they are set and proven after the traffic is on its final instances."""
    async with scene(tmp_path) as found:
        await found.move_routes()
        await found.move_traffic()
        found.kill()
        before = len(found.simulation.requests)
        recovery = await found.recover()
        assert recovery.detail == (
            f"traffic is back: {STABLE} 100 %; routes are as captured (auth_entry=clear, global=clear)"
        )
        changed = [entry for entry in found.simulation.requests[before:] if entry.operation in CHANGES]
        assert changed[0].operation is Operation.TRAFFIC_UPDATE
        assert {entry.operation for entry in changed[1:]} == {Operation.ROUTE_OVERRIDE}
        assert found.routes == {(None,)}


@pytest.mark.parametrize("finished", [False, True])
async def test_recovering_another_run_is_refused_and_does_not_erase_the_mark_of_the_open_one(
    tmp_path: Path, finished: bool
) -> None:
    """That other run may have nothing open; its recovery would otherwise close the lock."""
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
        mark, journal_bytes, changes = (
            lock.read_bytes(),
            (other / "journal.jsonl").read_bytes(),
            found.changes,
        )
        with pytest.raises(NotStartedError, match=f"cutover recover {found.folder}"):
            await recover_cutover(other, env=TOKENS)
        assert lock.read_bytes() == mark
        assert (other / "journal.jsonl").read_bytes() == journal_bytes
        assert list(other.iterdir()) == [other / "journal.jsonl"]
        assert found.changes == changes
        assert (await found.recover()).closed
        assert found.simulation.traffic == {STABLE: 100}


async def test_a_damaged_lock_needs_an_operator(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        lock = live(found.config).lock().path
        lock.write_bytes(lock.read_bytes()[:20])
        events, changes = found.told(), found.changes
        with pytest.raises(NotStartedError, match=f"check production, then remove {lock}"):
            await found.recover()
        assert (found.told(), found.changes) == (events, changes)
        lock.unlink()
        assert (await found.recover()).closed


async def test_a_recovery_writes_the_summary_that_the_killed_train_could_not_write(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        assert [path.name for path in found.folder.iterdir()] == ["journal.jsonl"]
        recovery = await found.recover()
        summary = json.loads((found.folder / "summary.json").read_text())
        assert summary["undo"] == {"proven": True, "detail": recovery.detail, "to_do": []}
        assert (summary["overall_status"], summary["exit_code"]) == ("failed", 1)
        assert summary["reasons"] == ["recovered"]
        assert summary["stable_revision"] == STABLE
        assert "recovered" in (found.folder / "SUMMARY.md").read_text()


async def test_the_summary_of_an_unproven_recovery_lists_what_to_do(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        found.refusals = 10_000
        recovery = await found.recover()
        assert (recovery.closed, recovery.exit_code) == (False, 4)
        summary = json.loads((found.folder / "summary.json").read_text())
        assert summary["undo"] == {"proven": False, "detail": recovery.detail, "to_do": list(recovery.to_do)}
        assert recovery.to_do
        assert summary["exit_code"] == 4
        with pytest.raises(NotStartedError, match="not recovered"), live(found.config).lock().held():
            pass


class TestDisk:
    async def test_a_journal_that_cannot_be_opened_again_is_one_clear_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            changes = found.changes

            def refuse(file: int, size: int) -> None:
                raise OSError(errno.EROFS, "Read-only file system")

            with monkeypatch.context() as patch:
                patch.setattr(os, "ftruncate", refuse)
                with pytest.raises(
                    NotStartedError, match=f"the journal in {found.folder} cannot be written: "
                ):
                    await found.recover()
            assert found.changes == changes
            assert found.is_marked()
            assert (await found.recover()).closed

    async def test_a_full_disk_is_reported_and_the_undo_continues(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            with (
                disk_with_room_for(0),
                pytest.warns(RuntimeWarning, match="SUMMARY.md cannot be written"),
                pytest.warns(RuntimeWarning, match="the journal cannot be written"),
            ):
                recovery = await found.recover()
            assert found.simulation.traffic == {STABLE: 100}
            # a recovery that is not in the journal leaves the run open
            assert not recovery.closed
            assert recovery.detail.startswith("traffic is back: ")
            assert "; but the journal cannot be written: " in recovery.detail
            assert recovery.to_do[-1].startswith(
                "make room on the disk, then run the recovery again: cutover recover "
            )
            assert found.is_marked()
            assert (await found.recover()).closed
            assert not found.is_marked()


class TestLostBeginning:
    """The journal has lost its first event; only the lock shows that there was a train."""

    async def test_an_operator_must_decide(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            await found.move_traffic()
            found.kill()
            (found.folder / "journal.jsonl").write_bytes(b"")
            recovery = await recover_cutover(found.folder, env={})
            assert (recovery.closed, recovery.exit_code) == (False, 4)
            assert "has lost its beginning" in recovery.detail
            assert recovery.to_do[-1].endswith(f": cutover recover --accept-found {found.folder}")
            assert found.is_marked()
            accepted = await recover_cutover(found.folder, way="accept-found", env={})
            assert (accepted.closed, found.is_marked()) == (True, False)
            assert "never began" in (await recover_cutover(found.folder, env={})).detail

    async def test_locks_of_other_runs_stay(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            found.kill()
            (tmp_path / "other").mkdir()
            Journal.create(tmp_path / "other" / "journal.jsonl").close()
            assert (await recover_cutover(tmp_path / "other", env={})).closed
            assert found.is_marked()

    async def test_locks_that_cannot_be_read_are_one_clear_error(self, tmp_path: Path) -> None:
        async with scene(tmp_path) as found:
            found.kill()
            (live(found.config).lock().path.parent / "0.lock").mkdir()
            (found.folder / "journal.jsonl").write_bytes(b"")
            with pytest.raises(NotStartedError, match=r"the locks in .* cannot be read"):
                await recover_cutover(found.folder, env={})


async def test_a_train_that_was_cut_off_before_it_touched_anything_gets_its_summary_too(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as found:
        found.kill()
        recovery = await found.recover()
        assert (recovery.closed, recovery.detail) == (True, "nothing was open")
        assert not found.is_marked()
        summary = json.loads((found.folder / "summary.json").read_text())
        assert (summary["exit_code"], summary["reasons"], summary["undo"]) == (1, ["recovered"], None)
