"""The tests pass on machines unlike a developer's own: started in the background, without terminals."""

import os
import pty
import subprocess
import sys

import pytest

from tests.support.paths import ROOT
from tests.support.pseudo_terminal import PseudoTerminal

IGNORING = """
import os, signal, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
os.execv(sys.executable, sys.argv[1:])
"""
"""Becomes another program that inherits ignored signals, as the children of nohup and a shell's background jobs do."""


@pytest.mark.slow
def test_signals_are_tested_where_the_parent_ignores_them() -> None:
    chosen = [
        "tests/cli/test_entry.py",
        "tests/cli/test_signals.py",
        "-k",
        "reads or ends_a_check or second_says",
    ]
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    done = subprocess.run(
        [sys.executable, "-c", IGNORING, *pytest_command],
        cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_test_without_a_pseudo_terminal_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left() -> tuple[int, int]:
        raise OSError("out of pty devices")

    monkeypatch.setattr(pty, "openpty", none_left)
    with pytest.raises(pytest.skip.Exception, match=r"no pseudo-terminal \(out of pty devices\)"):
        PseudoTerminal.open()
