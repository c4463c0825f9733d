"""A live train on a terminal: what its user sees after Ctrl-C, on a recorded pseudo-terminal."""

import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cutover.train.undo_executor import UNDO_DEADLINE
from tests.support.commands import COMMAND, recover, run_env, served
from tests.support.pseudo_terminal import PseudoTerminal, Screen, on_screen

pytestmark = pytest.mark.slow
CTRL_C = b"\x03"
APART = 0.7
"""Seconds between two signals; closer ones count as one."""
BOUND = (
    f"this may take up to {UNDO_DEADLINE / 60:g} minutes; a second signal changes nothing; "
    "a third exits at once and leaves production as it is then"
)


def sees(*words: str) -> Callable[[Screen], bool]:
    return lambda screen: all(each in screen.words for each in words)


LOW = 12
"""Rows of a terminal that is too low for the whole view."""


@pytest.mark.parametrize(("rows", "columns"), [(24, 80), (LOW, 60), (40, 150)])
def test_the_answer_to_ctrl_c_stays_on_the_screen(rows: int, columns: int, tmp_path: Path) -> None:
    with served("--settle-seconds", "2") as simulation:
        stable, canary = simulation.revisions
        answer = (
            f"SIGINT: stopping, and undoing what this run has changed: traffic back to {stable} 100 %",
            BOUND,
        )
        env = run_env(simulation, tmp_path)
        with on_screen([*COMMAND, "run", stable, canary], env=env, rows=rows, columns=columns) as screen:
            screen.until(sees("asking for"))
            screen.press(CTRL_C)
            # A low terminal shows the last lines alone.
            screen.until(sees(*answer) if rows <= LOW else sees("undo running interrupted", *answer))
            during = screen.text
            code = screen.to_end()
        assert code == 130, screen.text
        # below the rows of the view stand the split, the latest event and the answer; its last picture holds all of them
        assert sees(
            *answer, "interrupted; every change that this run had made was undone, and that was proven"
        )(screen)
        assert not screen.emulated.cursor.hidden
        if rows > LOW:
            assert during.index("traffic: ") < during.index("SIGINT: stopping")
        if rows > LOW:
            assert "canary-rollback-drill stopped" in screen.words
            assert "undo pass interrupted" in screen.words
        assert f"traffic   {{'{stable}': 100}}" in simulation.stop()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["undo"]["proven"]


def test_the_third_ctrl_c_leaves_a_terminal_that_works_and_the_command_to_go_on(tmp_path: Path) -> None:
    with served("--settle-seconds", "5") as simulation:
        stable, canary = simulation.revisions
        env = run_env(simulation, tmp_path)
        with on_screen([*COMMAND, "run", stable, canary], env=env, columns=200) as screen:
            screen.until(sees("asking for"))
            screen.press(CTRL_C)
            screen.until(sees("undo running", BOUND))
            time.sleep(APART)
            screen.press(CTRL_C)
            screen.until(sees("the undo continues; it may take up to", BOUND))
            time.sleep(APART)
            screen.press(CTRL_C)
            code = screen.to_end()
        assert code == 4, screen.text
        assert not screen.emulated.cursor.hidden
        assert sees(
            "exited at once: the undo is not finished, and production stays as it is now; "
            f"run cutover recover {tmp_path / 'run'}"
        )(screen)
        assert recover(simulation, tmp_path).returncode == 0


def test_a_train_that_changed_nothing_says_so(tmp_path: Path) -> None:
    with served("--fault", "first-event-late") as simulation:
        env = run_env(simulation, tmp_path)
        with on_screen([*COMMAND, "run", *simulation.revisions], env=env) as screen:
            screen.until(sees("stream-smoke-pre running"))
            screen.press(CTRL_C)
            screen.until(sees("SIGINT: stopping; there is no change of this run to undo"))
            assert screen.to_end() == 130
        assert "undo running" not in screen.words


def test_a_terminal_that_cannot_redraw_gets_plain_lines(tmp_path: Path) -> None:
    """On such a terminal a live view would show nothing until the end."""
    with served() as simulation:
        terminal = PseudoTerminal.open()
        env = run_env(simulation, tmp_path, CANARY_STEPS="100", TERM="dumb")
        process = subprocess.Popen(
            [*COMMAND, "run", *simulation.revisions], env=env, stderr=terminal.command, stdout=subprocess.PIPE
        )
        shown = terminal.read_to_end()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert re.search(r"\d\d:\d\d:\d\d canary-rollback-drill ok", shown)
    assert "\x1b" not in shown
