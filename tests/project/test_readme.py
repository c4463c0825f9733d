"""Every block of the README runs; the two set-up commands are run by CI."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

README = ROOT / "README.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README.read_text(), re.MULTILINE | re.DOTALL)
SETUP, PYTHON, SHELL = (
    [text for kind, text in BLOCKS if kind == "sh"][:2],
    [text for kind, text in BLOCKS if kind == "python"],
    [text for kind, text in BLOCKS if kind == "sh"][2:],
)


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}


def test_every_block_is_known() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}
    assert len(SETUP) == 2
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.parametrize("text", PYTHON)
def test_a_python_block_runs(text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", text],
        env=_environment(),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", SHELL)
def test_a_shell_block_runs(text: str, tmp_path: Path) -> None:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env=_environment() | {"PYTHONUNBUFFERED": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "verdict   passed (live run), exit 0" in done.stdout
    assert ": ok " in done.stdout


def test_the_set_up_commands_are_run_by_ci() -> None:
    ci = README.parent / ".ci" / "run"
    if not ci.exists():
        pytest.skip("an installed wheel has no CI")
    script = ci.read_text()
    assert "block" in script
    assert "for number in 1 2" in script
    assert "-m venv" in SETUP[0]
    assert "nox" in SETUP[1]
