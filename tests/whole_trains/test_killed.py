"""A train that is killed at every line of its journal, and recovered; the recovery killed as well, and run again.

In process, a kill is what a dead process leaves: its files as they were between two lines, and a production that hears no
more of it. Both sides of each line are tried: with it, and with all that it tells done but the line itself lost. A sample of
lines is tried with real signals at real processes. ``CUTOVER_MATRIX=whole`` tries every line of every scene, on both loops.
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
from tests.support.faulty_trains import LANDED, MEMORY, SCENES, WHOLE, Ride, within
from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, State, left_behind, state
from tests.support.wire_faults import Severed

pytestmark = pytest.mark.usefixtures("small_samples")

EVERY = {"cutover": 1, "flip undone": 3, "drill failed": 3, "LATEST": 4}
"""Scene -> one in how many lines is tried, where not all are."""
SIDES = ("with the line", "without it")


@attrs.define(eq=False)
class Victim:
    """A train, and its recoveries, of which each may be killed at a line of the journal."""

    ride: Ride
    wire: Severed
    room: Path
    """Where its run and the lock are."""

    @property
    def journal(self) -> Path:
        return self.ride.folder / "journal.jsonl"

    async def killed(self, work: Callable[[Observer], Awaitable[object]], number: int, side: str) -> bool:
        """Do the work up to the n-th line that it writes; return whether it wrote as many."""
        seen = 0
        kept = self.room.with_name("kept")

        def observe(_: TrainEvent) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                self.wire.is_dead = True
                shutil.copytree(self.room, kept)

        with suppress(UndoUnprovenError):
            await work(observe)
        await anyio.sleep(LANDED)  # what had been sent lands
        self.wire.is_dead = False
        if seen < number:
            return False
        shutil.rmtree(self.room)
        kept.rename(self.room)
        if side == "without it":
            lines = self.journal.read_bytes().splitlines(keepends=True)
            self.journal.write_bytes(b"".join(lines[:-1]))
        return True

    async def train(self, observer: Observer) -> None:
        await run_production(self.ride.on_the_wire(self.ride.trial.config), observer=observer)

    async def recovery(self, observer: Observer | None = None) -> Recovery:
        self.wire.heal()
        with patch("cutover.wiring.recover.live", self.ride.on_the_wire):
            return await recover_cutover(self.ride.folder, env=TOKENS, observer=observer)

    async def proven(self, before: State) -> list[str]:
        """Recover, and say what is wrong with what that left."""
        told = read_journal(self.journal)
        passed = bool(told) and isinstance(told[-1], TrainFinished) and told[-1].passed
        recovery = await self.recovery()
        await anyio.sleep(LANDED)
        wrong = [] if recovery.closed else [f"not closed: {recovery.detail}"]
        left = left_behind(self.ride.trial.production, before)
        if left != (AS_MEANT if passed else AS_CAPTURED):
            wrong.append(f"production is {left}")
        if plan_undo(read_journal(self.journal), stable=self.ride.trial.config.stable_revision):
            wrong.append("the journal still has something outstanding")
        if ServiceLock.left_by(self.ride.folder) is not None:
            wrong.append("the lock still holds the next train back")
        if told and not (self.ride.folder / "summary.json").exists():
            wrong.append("there is no summary")
        if (await self.recovery()).detail.partition(":")[0] != "nothing was open":
            wrong.append("a second recovery finds something to do")
        return wrong


def _tried(scene: str, number: int, side: str, loop: str, again: int | None) -> tuple[bool, list[str]]:
    """Kill one train at one line, perhaps its recovery at another; whether it got so far, and what is wrong at the end."""
    got: list[tuple[bool, list[str]]] = []
    with TemporaryDirectory(dir=MEMORY) as directory:
        room = Path(directory) / "room"
        room.mkdir()
        with patch.dict(os.environ, {"XDG_STATE_HOME": str(room / "state")}):
            ride = Ride.of(SCENES[scene], str(room))
            wire = Severed(ride.trial.production, ride.wire.injections)
            victim = Victim(attrs.evolve(ride, wire=wire), wire, room)
            before = state(ride.trial.production)

            async def play() -> None:
                if not await victim.killed(victim.train, number, side):
                    got.append((False, []))
                    return
                if again is not None:
                    await victim.killed(victim.recovery, again, side)
                got.append((True, await victim.proven(before)))

            within(loop, play)
    return got[0]


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("scene", EVERY)
def test_a_train_killed_at_any_line_is_recovered(scene: str, side: str, loop: str) -> None:
    chance = random.Random(f"{scene} {side}")  # noqa: S311  the same sample in every run
    every = 1 if WHOLE else EVERY[scene] * (1 if loop == "asyncio" else 12)
    differ: list[str] = []
    number, lines = 1, 0
    while True:
        again = chance.choice([None, *range(1, 8)])
        got_so_far, wrong = _tried(scene, number, side, loop, again)
        if not got_so_far:
            break
        lines += 1
        told = f"line {number}" + (f", its recovery at line {again}" if again else "")
        differ += [f"{told}: {'; '.join(wrong)}"] if wrong else []
        number += every
    assert lines > 1
    assert not differ, f"{len(differ)} of {lines} lines:\n" + "\n".join(differ)


KILLER = """
import os, sys
import cutover.train.steps.rollback_drill, cutover.train.undo
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
# what is waited for, in case something lands late: nothing does here
cutover.train.undo.HELD_SECONDS = cutover.train.undo.MUTATION_DEADLINE = 0.1
cutover.train.steps.rollback_drill.HELD_SECONDS = 0.1
sys.exit(main())
"""
"""A command that sends itself a signal when its journal has so many lines; at 0 never."""
LINES = 60
"""Fewer than a live train over HTTP writes."""


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
                again = chance.choice([0, *range(1, 6)])  # the recovery is killed, too
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
