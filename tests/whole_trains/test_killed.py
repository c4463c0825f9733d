"""A train is killed at each line of its journal and recovered. Some recoveries are killed too, and run again.

In process, a kill leaves the files as they were at that line, and the train sends no more requests. Each line is tried
twice: with the line in the journal, and without it although its action is done. A sample of lines is also tried with real
signals at real processes. ``CUTOVER_MATRIX=whole`` tries every line of every scenario, on both event loops.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import anyio
import attrs
import pytest

from cutover.errors import UndoUnprovenError
from cutover.model.train_events import Observer, TrainEvent, TrainFinished
from cutover.model.undo_plan import plan_undo
from cutover.record.journal import read_journal
from cutover.record.lock import ServiceLock
from cutover.wiring.recover import Recovery, recover_cutover
from cutover.wiring.run import run_production
from tests.support.commands import run_env, served
from tests.support.embedded_trains import TOKENS
from tests.support.faulty_trains import (
    LANDING_SECONDS,
    MEMORY,
    SCENARIOS,
    WHOLE,
    FaultyTrain,
    run_on_virtual_time,
)
from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, State, left_behind, state
from tests.support.wire_faults import KillableTransport

LINE_STEP = {"cutover": 1, "flip undone": 3, "drill failed": 3, "LATEST": 4}
"""Scenario -> the step between two lines that are tried, when the tests try a sample."""
SIDES = ("with the line", "without it")


@attrs.define(eq=False)
class KillableTrain:
    """A train and its recoveries. A test can kill each of them at a line of the journal."""

    train: FaultyTrain
    transport: KillableTransport
    room: Path
    """The folder of the run and of the lock."""

    @property
    def journal(self) -> Path:
        return self.train.folder / "journal.jsonl"

    async def kill_at(self, work: Callable[[Observer], Awaitable[object]], number: int, side: str) -> bool:
        """Run the work and kill it at its n-th line. Return True if it wrote so many lines."""
        seen = 0
        kept = self.room.with_name("kept")

        def observe(_: TrainEvent) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                self.transport.is_dead = True
                shutil.copytree(self.room, kept)

        with suppress(UndoUnprovenError):
            await work(observe)
        # requests that were sent before the kill land now
        await anyio.sleep(LANDING_SECONDS)
        self.transport.is_dead = False
        if seen < number:
            return False
        shutil.rmtree(self.room)
        kept.rename(self.room)
        if side == "without it":
            lines = self.journal.read_bytes().splitlines(keepends=True)
            self.journal.write_bytes(b"".join(lines[:-1]))
        return True

    async def run_train(self, observer: Observer) -> None:
        await run_production(
            self.train.production_over_transport(self.train.embedded.config), observer=observer
        )

    async def recover(self, observer: Observer | None = None) -> Recovery:
        self.transport.stop_faults()
        with patch("cutover.wiring.recover.live", self.train.production_over_transport):
            return await recover_cutover(self.train.folder, env=TOKENS, observer=observer)

    async def recover_and_check(self, before: State) -> list[str]:
        """Recover the run. Return what is wrong with production, the journal, the lock and the artifacts."""
        events = read_journal(self.journal)
        passed = bool(events) and isinstance(events[-1], TrainFinished) and events[-1].passed
        recovery = await self.recover()
        await anyio.sleep(LANDING_SECONDS)
        wrong = [] if recovery.closed else [f"not closed: {recovery.detail}"]
        left = left_behind(self.train.embedded.production, before)
        if left != (AS_MEANT if passed else AS_CAPTURED):
            wrong.append(f"production is {left}")
        if plan_undo(read_journal(self.journal), stable=self.train.embedded.config.stable_revision):
            wrong.append("the journal still has something outstanding")
        if ServiceLock.left_by(self.train.folder) is not None:
            wrong.append("the lock still holds the next train back")
        if events and not (self.train.folder / "summary.json").exists():
            wrong.append("there is no summary")
        if (await self.recover()).detail.partition(":")[0] != "nothing was open":
            wrong.append("a second recovery finds something to do")
        return wrong


def _try(scenario: str, number: int, side: str, loop: str, again: int | None) -> tuple[bool, list[str]]:
    """Kill one train at a line, and its recovery at line ``again`` unless that is None; then recover it.

    Returns:
        True if the train wrote so many lines, and a list of what is wrong at the end.
    """
    results: list[tuple[bool, list[str]]] = []
    with TemporaryDirectory(dir=MEMORY) as directory:
        room = Path(directory) / "room"
        room.mkdir()
        with patch.dict(os.environ, {"XDG_STATE_HOME": str(room / "state")}):
            train = FaultyTrain.of(SCENARIOS[scenario], str(room))
            transport = KillableTransport(train.embedded.production, train.transport.injections)
            target = KillableTrain(attrs.evolve(train, transport=transport), transport, room)
            before = state(train.embedded.production)

            async def play() -> None:
                if not await target.kill_at(target.run_train, number, side):
                    results.append((False, []))
                    return
                if again is not None:
                    await target.kill_at(target.recover, again, side)
                results.append((True, await target.recover_and_check(before)))

            run_on_virtual_time(loop, play)
    return results[0]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("scenario", LINE_STEP)
def test_a_train_killed_at_any_line_is_recovered(scenario: str, side: str, loop: str) -> None:
    chance = random.Random(f"{scenario} {side}")  # noqa: S311  the same sample in every run
    every = 1 if WHOLE else LINE_STEP[scenario] * (1 if loop == "asyncio" else 12)
    failures: list[str] = []
    number, lines = 1, 0
    while True:
        again = chance.choice([None, *range(1, 8)])
        was_killed, wrong = _try(scenario, number, side, loop, again)
        if not was_killed:
            break
        lines += 1
        place = f"line {number}" + (f", its recovery at line {again}" if again else "")
        failures += [f"{place}: {'; '.join(wrong)}"] if wrong else []
        number += every
    assert lines > 1
    assert not failures, f"{len(failures)} of {lines} lines:\n" + "\n".join(failures)


KILLER = """
import os, sys
import cutover.train.steps.rollback_drill, cutover.train.undo_executor
from cutover.__main__ import main
from cutover.record.journal import Journal

number, sent, tell, seen = int(sys.argv.pop(1)), int(sys.argv.pop(1)), Journal._notify, 0

def tell_and_die(self, event):
    global seen
    tell(self, event)
    seen += 1
    if seen == number:
        os.kill(os.getpid(), sent)

Journal._notify = tell_and_die
# the wait for late effects: there are none here
cutover.train.undo_executor.HELD_SECONDS = cutover.train.undo_executor.MUTATION_DEADLINE = 0.1
cutover.train.steps.rollback_drill.HELD_SECONDS = 0.1
sys.exit(main())
"""
"""A program that runs the command and sends it a signal at the n-th line of its journal; at 0, never."""
LINES = 60
"""A number below the journal lines of a live train over HTTP."""


def _command(number: int, sent: int, *words: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", KILLER, str(number), str(sent), *words],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda sent: sent.name)
def test_a_process_that_gets_a_signal_at_a_line_leaves_nothing_half_done(
    sent: signal.Signals, tmp_path: Path
) -> None:
    chance = random.Random(sent.name)  # noqa: S311  as above
    lines = range(1, LINES) if WHOLE else sorted(chance.sample(range(1, LINES), 3))
    with served() as simulation:
        stable, _ = simulation.revisions
        for number in lines:
            env = run_env(simulation, tmp_path / str(number), XDG_STATE_HOME=str(tmp_path / "state"))
            run = tmp_path / str(number) / "run"
            done = _command(number, sent, "run", *simulation.revisions, env=env)
            if sent is signal.SIGKILL:
                assert done.returncode == -sent
                # the recovery is killed too, or runs undisturbed at 0
                again = chance.choice([0, *range(1, 6)])
                _command(again, sent, "recover", str(run), env=env)
                recovered = _command(0, sent, "recover", str(run), env=env)
                assert recovered.returncode == 0, (number, again, recovered.stderr)
            else:
                assert done.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130}[sent], (
                    number,
                    done.stderr,
                )
                assert json.loads((run / "summary.json").read_text())["exit_code"] == done.returncode
                assert done.stderr.splitlines()[-1].endswith("and that was proven"), (number, done.stderr)
        words = simulation.stop()
    assert f"traffic   {{'{stable}': 100}}" in words
    assert "rust_shell" not in words
