"""Every block of the README and of the page for operators runs; the two set-up commands are run by CI."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cutover import CutoverConfig
from tests.support.paths import ROOT

README = ROOT / "README.md"
PAGES = (README, ROOT / "docs" / "operating.md")
BLOCKS = [
    block
    for page in PAGES
    for block in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
]
SETUP, PYTHON, SHELL, FILES = (
    [text for kind, text in BLOCKS if kind == "sh"][:2],
    [text for kind, text in BLOCKS if kind == "python"],
    [text for kind, text in BLOCKS if kind == "sh"][2:],
    [text for kind, text in BLOCKS if kind == "toml"],
)


def _environment() -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONWARNINGS": "error"}


def test_every_block_is_known() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "toml"}
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


@pytest.mark.parametrize("text", FILES)
def test_a_file_of_inputs_is_one(text: str, tmp_path: Path) -> None:
    file = tmp_path / "cutover.toml"
    file.write_text(text)
    config = CutoverConfig.from_env(stable_revision="a-1", canary_revision="a-2", env={}, file=file)
    assert set(config.sources) == set(tomllib.loads(text))


@pytest.mark.slow
@pytest.mark.parametrize("text", SHELL)
def test_a_shell_block_runs(text: str, tmp_path: Path) -> None:
    said = tmp_path / "said"
    code = _run_shell(text, said)
    assert code == 0, said.read_text()
    assert "verdict   passed (live run), exit 0" in said.read_text()
    assert ": ok " in said.read_text()


@pytest.mark.slow
def test_a_shell_block_that_fails_leaves_no_process(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "alive")
    reader = os.open(tmp_path / "alive", os.O_RDONLY | os.O_NONBLOCK)
    try:
        # The process in the background keeps the pipe open for as long as it lives.
        assert _run_shell("exec 3> alive; sleep 60 & false", tmp_path / "said") == 1
        assert select.select([reader], [], [], 10.0)[0] == [reader]
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)


def _run_shell(text: str, said: Path) -> int:
    """Run a shell block in the folder of ``said``, which gets its output; return its exit code. No process of it is left."""
    with (
        said.open("w") as output,
        subprocess.Popen(
            ["sh", "-eu", "-c", text],
            env=_environment() | {"PYTHONUNBUFFERED": "1"},
            cwd=said.parent,
            stdout=output,
            stderr=output,
            start_new_session=True,
        ) as shell,
    ):
        try:
            return shell.wait(timeout=120)
        finally:
            # A command that fails ends the shell before the block stops its server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)


def test_ci_runs_the_set_up_commands() -> None:
    ci = README.parent / ".ci" / "run"
    if not ci.exists():
        pytest.skip("an installed wheel has no CI")
    script = ci.read_text()
    assert "block" in script
    assert "for number in 1 2" in script
    assert "-m venv" in SETUP[0]
    assert "nox" in SETUP[1]
