"""Signals to a live train: the first undoes, the second prints how long the undo may take, the third exits at once."""

import io
import json
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.model.train_events import TrainFinished, UndoStarted
from cutover.record.journal import read_journal
from cutover.report.terminal import Terminal
from tests.support.commands import COMMAND, Served, recover, run_env, served, started, until
from tests.support.pseudo_terminal import PseudoTerminal

pytestmark = pytest.mark.slow
APART = 0.7
"""Seconds between two signals; closer ones count as one."""


@contextmanager
def running(simulation: Served, directory: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    with started("run", *simulation.revisions, env=run_env(simulation, directory, **more)) as process:
        yield process


@contextmanager
def recovering(simulation: Served, directory: Path) -> Iterator[subprocess.Popen[str]]:
    with started("recover", str(directory / "run"), env=run_env(simulation, directory)) as process:
        yield process


def test_the_second_signal_prints_that_the_undo_continues_and_the_undo_finishes(tmp_path: Path) -> None:
    with served("--settle-seconds", "2") as simulation:
        stable, _ = simulation.revisions
        with running(simulation, tmp_path) as process:
            until(process, "asking for")
            process.send_signal(signal.SIGTERM)
            until(process, "undo ...")
            time.sleep(APART)
            process.send_signal(signal.SIGTERM)
            until(process, "the undo continues; it may take up to 5 minutes")
            _, err = process.communicate(timeout=60)
            assert process.returncode == 143, err
            assert "that was proven" in err
        assert f"traffic   {{'{stable}': 100}}" in simulation.stop()
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["exit_code"], summary["undo"]["proven"]) == (143, True)
    last = read_journal(tmp_path / "run" / "journal.jsonl")[-1]
    assert isinstance(last, TrainFinished)
    assert last.exit_code == 143


def test_the_third_signal_exits_at_once_and_a_recovery_finishes_the_undo(tmp_path: Path) -> None:
    with served("--settle-seconds", "3") as simulation:
        stable, _ = simulation.revisions
        with running(simulation, tmp_path) as process:
            until(process, "asking for")
            process.send_signal(signal.SIGINT)
            until(process, "undo ...")
            time.sleep(APART)
            process.send_signal(signal.SIGINT)
            until(process, "the undo continues")
            time.sleep(APART)
            process.send_signal(signal.SIGTERM)
            until(
                process,
                f"exited at once: the undo is not finished, and production stays as it is now; run cutover recover {tmp_path / 'run'}",
            )
            assert process.wait(timeout=60) == 4
        assert any(
            isinstance(event, UndoStarted) for event in read_journal(tmp_path / "run" / "journal.jsonl")
        )
        with recovering(simulation, tmp_path) as process:
            until(process, "undo ...")
            process.send_signal(signal.SIGINT)
            until(process, "SIGINT: stopping the recovery; a write that is under way is finished first")
            until(
                process,
                "this may take up to 5 minutes; a second signal changes nothing; a third exits at once",
            )
            until(
                process,
                f"UNRESOLVED: interrupted; production may still hold changes of this run; to finish: cutover recover {tmp_path / 'run'}",
            )
            assert process.wait(timeout=60) == 4
        recovered = recover(simulation, tmp_path)
        assert recovered.returncode == 0, recovered.stderr
        assert "closed: " in recovered.stderr
        assert f"traffic   {{'{stable}': 100}}" in simulation.stop()


def test_several_signals_at_once_count_as_one(tmp_path: Path) -> None:
    """A terminal signals the whole process group, and a supervisor sends one more signal."""
    with served("--settle-seconds", "2") as simulation, running(simulation, tmp_path) as process:
        until(process, "asking for")
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode in {130, 143}
    assert "the undo continues" not in err
    assert "that was proven" in err


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    """nohup ignores SIGHUP, so that the train outlives the terminal."""
    with served() as simulation:
        process = subprocess.Popen(
            ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "run", *simulation.revisions],
            env=run_env(simulation, tmp_path, CANARY_SOAK_SECONDS="1", CANARY_STEPS="100"),
            stderr=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        until(process, "asking for")
        process.send_signal(signal.SIGHUP)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err


def test_on_a_terminal_the_train_is_a_live_table(tmp_path: Path) -> None:
    with served() as simulation:
        terminal = PseudoTerminal.open()
        process = subprocess.Popen(
            [*COMMAND, "run", *simulation.revisions],
            env=run_env(simulation, tmp_path, CANARY_STEPS="100", TERM="xterm-256color", COLUMNS="150"),
            stderr=terminal.command,
            stdout=subprocess.PIPE,
            text=True,
        )
        shown = terminal.read_to_end()
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, out + shown
    # the cursor is hidden during the live view and visible again after it
    assert "\x1b[?25l" in shown
    assert "\x1b[?25h" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert re.search(r"preflight +pass +production has one clear state", plain)
    assert "traffic: " in plain
    assert "verdict   passed (live run), exit 0" in out


def test_an_interrupted_check_does_not_mention_an_undo() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = subprocess.Popen(
            [*COMMAND, "check", f"http://127.0.0.1:{silent.getsockname()[1]}/"],
            stderr=subprocess.PIPE,
            text=True,
        )
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err.splitlines() == ["SIGINT: stopping ...", "interrupted"]


@pytest.mark.parametrize(
    ("changes_production", "verdict", "code", "ending"),
    [
        (True, 0, 0, "; the journal records how the train ended: exit code 0"),
        (True, 1, 1, "; the journal records how the train ended: exit code 1"),
        (True, 4, 4, "; production may still hold changes of this run; to finish: cutover recover run"),
        (True, None, 4, "; production may still hold changes of this run; to finish: cutover recover run"),
        (False, None, 3, "a fault in cutover itself: KeyError('a bug')"),
    ],
)
def test_the_last_line_after_a_fault_in_cutover_tells_the_state_of_production(
    changes_production: bool, verdict: int | None, code: int, ending: str
) -> None:
    async def work(interruption: Interruption) -> int:
        interruption.verdict, interruption.recover = verdict, "cutover recover run"
        raise ExceptionGroup("errors of a task group", [KeyError("a bug")])

    shown = io.StringIO()

    async def command() -> int:
        return await until_signalled(work, Terminal(shown), changes_production=changes_production)

    assert run_command(command) == code
    first, *_, last = shown.getvalue().splitlines()
    assert "Traceback" in first
    assert "a fault in cutover itself: KeyError('a bug')" in last
    assert last.endswith(ending)


@pytest.mark.parametrize(
    ("work", "verdict", "left_open", "code", "last"),
    [
        (
            "train",
            None,
            "",
            130,
            "interrupted; every change that this run had made was undone, and that was proven",
        ),
        (
            "train",
            130,
            "",
            130,
            "interrupted; every change that this run had made was undone, and that was proven",
        ),
        (
            "train",
            0,
            "",
            0,
            "interrupted after the end of the train; the journal records how it ended: exit code 0",
        ),
        (
            "train",
            4,
            "",
            4,
            "interrupted after the end of the train; the journal records how it ended: exit code 4",
        ),
        (
            "recovery",
            0,
            "cutover recover x",
            0,
            "interrupted after the end of the recovery; the journal records how it ended: exit code 0",
        ),
        (
            "recovery",
            None,
            "cutover recover x",
            4,
            "UNRESOLVED: interrupted; production may still hold changes of this run; to finish: cutover recover x",
        ),
    ],
)
def test_the_last_line_after_a_signal_tells_how_the_work_ended(
    work: str, verdict: int | None, left_open: str, code: int, last: str
) -> None:
    """A signal may come after the verdict, while connections are closed: then the changes of a train that passed stay."""

    async def work_until_cancelled(interruption: Interruption) -> int:
        interruption.work, interruption.verdict, interruption.left_open = work, verdict, left_open
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep_forever()
        return 99

    shown = io.StringIO()

    async def command() -> int:
        return await until_signalled(work_until_cancelled, Terminal(shown))

    assert run_command(command) == code
    assert shown.getvalue().splitlines()[-1] == last


def test_the_second_signal_to_a_recovery_does_not_speak_of_an_undo() -> None:
    async def slow_write(interruption: Interruption) -> int:
        interruption.work, interruption.left_open = "recovery", "cutover recover x"
        signal.raise_signal(signal.SIGINT)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(APART)
            signal.raise_signal(signal.SIGINT)
            await anyio.sleep(0.2)
        await anyio.sleep_forever()
        return 99

    shown = io.StringIO()

    async def command() -> int:
        return await until_signalled(slow_write, Terminal(shown))

    assert run_command(command) == 4
    assert "undo" not in shown.getvalue()
    assert (
        "the recovery is stopping; it may take up to 5 minutes. A third signal exits at once"
        in shown.getvalue()
    )


def test_a_task_beside_the_command_runs_until_the_undo_has_ended() -> None:
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await anyio.sleep(0.01)
            beats += 1

    async def undo(_: Interruption) -> int:
        signal.raise_signal(signal.SIGINT)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.1)
            before = beats
            await anyio.sleep(0.2)
            assert beats > before
        await anyio.sleep_forever()
        return 99

    async def command() -> int:
        return await until_signalled(undo, Terminal(io.StringIO()), beside=beat)

    assert run_command(command) == 130
