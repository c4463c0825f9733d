"""Orphans: recovery first ends a gcloud that outlived a killed train, and ends no process that may be somebody else's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cutover import recover_cutover
from cutover.errors import NotStartedError
from cutover.model.train_events import CommandStarted, TrainFinished
from cutover.production.traffic.orphans import end_orphans
from cutover.production.traffic.processes import arguments, identity, members
from cutover.record.journal import read_journal
from tests.support.embedded_trains import STABLE, TOKENS
from tests.support.served_production import ServedProduction, fake_gcloud, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

SLEEPER = ("/bin/sh", "-c", "sleep 60 & echo $!; wait")
GRACE = 0.3


def _run_killed_while_gcloud_hangs(found: ServedProduction, calls: Path) -> int:
    """Run a train as a command and kill it while its gcloud hangs; return the process id of that gcloud."""
    config = found.config
    names = (
        "base_url",
        "cloud_run_api_url",
        "legacy_base_url",
        "project",
        "region",
        "service",
        "traffic_backend",
    )
    env = {
        **os.environ,
        **{name.upper(): str(getattr(config, name)) for name in names},
        **TOKENS,
        "DRY_RUN": "0",
        "CANARY_SOAK_SECONDS": "0",
        "MAX_CANARY_WORSE_PERCENT": "90",
        "MAX_CANARY_SLOWER_PERCENT": "0",
        "HELD_STREAMS": "0",
        "OUTPUT_DIR": str(config.output_dir),
    }
    command = [sys.executable, "-m", "cutover", "run", config.stable_revision, config.canary_revision]
    with subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not (rows := _hanging(calls)):
                assert process.poll() is None
                time.sleep(0.02)
        finally:
            process.kill()
    return rows[0]


def _hanging(calls: Path) -> list[int]:
    rows = [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []
    return [int(row["hangs"]) for row in rows if "hangs" in row]


@pytest.mark.parametrize(("mode", "anyio_backend"), [("hang", "asyncio"), ("hang-after", "trio")])
async def test_recovery_ends_an_orphan_and_then_restores_the_traffic(mode: str, tmp_path: Path) -> None:
    with fake_gcloud(tmp_path, f"update-traffic:{mode}:1") as calls, served(tmp_path) as found:
        assert found.config.output_dir is not None
        orphan = _run_killed_while_gcloud_hangs(found, calls)
        # The gcloud has outlived its train, in a process group of its own.
        assert list(members(orphan)) == [orphan]
        events = read_journal(found.config.output_dir / "journal.jsonl")
        assert isinstance(events[-1], CommandStarted)
        assert (events[-1].pid, events[-1].identity) == (orphan, identity(orphan))
        recovery = await recover_cutover(found.config.output_dir, env=TOKENS)
        assert (recovery.closed, recovery.exit_code) == (True, 0), recovery.detail
        assert not list(members(orphan))
        assert found.production.traffic == {STABLE: 100}
        assert isinstance(read_journal(found.config.output_dir / "journal.jsonl")[-1], TrainFinished)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_orphan_that_cannot_be_ended_stops_the_recovery_before_any_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fake_gcloud(tmp_path, "update-traffic:hang:1") as calls, served(tmp_path) as found:
        assert found.config.output_dir is not None
        orphan = _run_killed_while_gcloud_hangs(found, calls)
        try:
            with monkeypatch.context() as patch:
                patch.setattr(os, "killpg", lambda group, number: None)
                requests = len(found.production.requests)
                recovery = await recover_cutover(found.config.output_dir, env=TOKENS)
            assert (recovery.closed, recovery.exit_code) == (False, 4)
            assert recovery.detail == (
                f"process {orphan} of the interrupted run still runs `gcloud run services update-traffic` "
                "and could not be ended: end it, then recover again"
            )
            assert len(found.production.requests) == requests
            with pytest.raises(NotStartedError, match="not recovered"), found.live().lock().held():
                pass
        finally:
            os.killpg(orphan, signal.SIGKILL)
        assert (await recover_cutover(found.config.output_dir, env=TOKENS)).closed


@contextmanager
def sleeper() -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a process that leads a process group of its own and has a child in it; yield both."""
    with subprocess.Popen(SLEEPER, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        try:
            # Before its exec, the child is still a copy of the shell.
            while arguments(child)[:1] != ("sleep",):
                time.sleep(0.01)
            yield process, child
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def started(process: subprocess.Popen[str], **changes: str | tuple[str, ...]) -> CommandStarted:
    values = {"argv": SLEEPER, "identity": identity(process.pid), **changes}
    return CommandStarted(pid=process.pid, **values)  # type: ignore[arg-type]


class TestEndOrphans:
    async def test_a_process_with_the_journaled_id_and_start_is_ended_with_its_children(self) -> None:
        with sleeper() as (process, child):
            assert set(members(process.pid)) == {process.pid, child}
            assert await end_orphans([started(process)], grace=GRACE) == ""
            assert not list(members(process.pid))

    async def test_a_process_that_started_at_another_time_is_not_ended(self) -> None:
        with sleeper() as (process, child):
            for other in ("", "another boot 1", f"{identity(process.pid)}0"):
                event = started(process, identity=other, argv=("gcloud", "run", "services"))
                assert await end_orphans([event], grace=GRACE) == ""
            assert set(members(process.pid)) == {process.pid, child}

    async def test_a_process_that_leads_no_group_is_not_ended(self) -> None:
        with sleeper() as (process, child):
            event = CommandStarted(argv=("sleep",), pid=child, identity=identity(child))
            assert await end_orphans([event], grace=GRACE) == ""
            assert child in members(process.pid)

    async def test_a_child_that_is_left_behind_is_found_by_its_arguments(self) -> None:
        with sleeper() as (process, child):
            recorded = identity(process.pid)
            process.kill()
            process.wait()
            event = started(process, identity=recorded, argv=("/usr/bin/other", "61"))
            assert await end_orphans([event], grace=GRACE) == ""
            assert list(members(process.pid)) == [child]
            assert (
                await end_orphans([started(process, identity=recorded, argv=("any", "60"))], grace=GRACE)
                == ""
            )
            assert not list(members(process.pid))

    async def test_a_process_that_has_ended_is_ignored(self) -> None:
        with sleeper() as (process, _):
            event = started(process)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert await end_orphans([event], grace=GRACE) == ""

    async def test_a_command_that_cannot_be_ended_does_not_spare_the_later_ones(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with sleeper() as (first, _), sleeper() as (second, _), sleeper() as (third, _):
            kill, immune = os.killpg, {first.pid, third.pid}

            def killpg(group: int, number: int) -> None:
                if group not in immune or number == 0:
                    kill(group, number)

            with monkeypatch.context() as patch:
                patch.setattr(os, "killpg", killpg)
                left = await end_orphans([started(first), started(second), started(third)], grace=GRACE)
            assert not list(members(second.pid))
            shown = [f"process {one.pid} of the interrupted run still runs" for one in (first, third)]
            assert all(text in left for text in shown)
            assert left.endswith("and could not be ended: end them, then recover again")
