"""A live train that CI cancels, with the commands of the documentation's workflows: its recovery puts production back."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from cutover.config.config import INPUTS
from tests.support.commands import Served, run_env, served
from tests.support.doc_pages import DOCS, Page

YAML_BLOCKS = {
    block.title: YAML(typ="safe").load(block.text)
    for block in Page(DOCS / "ci.md").blocks
    if block.language == "yaml"
}
GITHUB: dict[str, Any] = YAML_BLOCKS["cutover.yml"]
GITLAB: dict[str, Any] = YAML_BLOCKS["gitlab-ci.yml"]["cutover"]
STEPS = {step["name"]: step for step in GITHUB["jobs"]["cutover"]["steps"]}
RUN, RECOVER = STEPS["cutover"]["run"], STEPS["recover"]["run"]
SCALE = 0.1
"""The cancellation is ten times as fast as GitHub's: SIGINT, 7.5 s, SIGTERM, 2.5 s, the end of all processes."""
SETTLE_SECONDS = 1.5
"""Seconds that a change of the split takes. An undo takes as long, so the cancellation ends it in its middle."""


def test_the_workflow_of_github_is_safe_to_cancel() -> None:
    job = GITHUB["jobs"]["cutover"]
    assert GITHUB["concurrency"] == {"group": "cutover-production", "cancel-in-progress": False}
    assert job["environment"] == "production"
    assert RUN.startswith("exec cutover run ")
    assert STEPS["recover"]["if"] == STEPS["keep the evidence"]["if"] == "always()"
    # No text of a user stands in a command: a shell would read it.
    assert not any("${{" in step.get("run", "") for step in STEPS.values())
    known = {declared.variable for declared in INPUTS} | {"STABLE", "CANARY"}
    assert set(job["env"]) <= known


def test_the_job_of_gitlab_is_safe_to_cancel() -> None:
    assert GITLAB["interruptible"] is False
    assert GITLAB["resource_group"] == "production"
    assert GITLAB["script"] == [RUN]
    assert GITLAB["after_script"] == [RECOVER.replace("exec cutover", "cutover")]
    assert GITLAB["artifacts"]["reports"] == {"junit": "junit.xml"}
    assert set(GITLAB["variables"]) <= {declared.variable for declared in INPUTS}


def _env(simulation: Served, directory: Path, **more: str) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    stable, canary = simulation.revisions
    return run_env(simulation, directory, PATH=path, STABLE=stable, CANARY=canary, **more)


def _shell(command: str, env: dict[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-e", "-c", command],
        env=env,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("command", [RECOVER, GITLAB["after_script"][0]], ids=["github", "gitlab"])
def test_the_step_recover_ends_with_0_where_no_train_began(command: str, tmp_path: Path) -> None:
    env = {**os.environ, "OUTPUT_DIR": str(tmp_path / "none")}
    assert _shell(command, env, tmp_path).returncode == 0


def test_the_steps_of_a_rehearsal_end_with_0(tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {
        **os.environ, "PATH": path, "OUTPUT_DIR": str(tmp_path / "run"), "STABLE": "a-1", "CANARY": "a-2",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    assert _shell(RUN, env, tmp_path).returncode == 0
    assert b"verdict" in (tmp_path / "junit.xml").read_bytes()
    recovered = _shell(RECOVER, env, tmp_path)
    assert recovered.returncode == 0
    assert "nothing was open" in recovered.stderr


def _cancel(entry: subprocess.Popen[bytes]) -> None:
    """Cancel a step as GitHub does: signals to the entry process alone, and then the end of all its processes."""
    for number, seconds in ((signal.SIGINT, 7.5), (signal.SIGTERM, 2.5)):
        entry.send_signal(number)
        time.sleep(seconds * SCALE)
    os.killpg(entry.pid, signal.SIGKILL)
    entry.wait()


@pytest.mark.parametrize(
    ("script", "told"),
    [(RUN, True), (f"{RUN.removeprefix('exec ')}\necho done", False)],
    ids=["exec: the train gets the signals", "bash keeps the signals from its child"],
)
def test_a_cancelled_train_is_closed_by_the_step_recover(script: str, told: bool, tmp_path: Path) -> None:
    with served("--settle-seconds", str(SETTLE_SECONDS)) as simulation:
        env = _env(simulation, tmp_path, CANARY_SOAK_SECONDS="60", CANARY_STEPS="25,100")
        with (
            (tmp_path / "said").open("w") as said,
            subprocess.Popen(
                ["bash", "-e", "-c", script], env=env, cwd=tmp_path, stderr=said, start_new_session=True
            ) as entry,
        ):
            try:
                _until_moved(tmp_path, entry)
                _cancel(entry)
            finally:
                if entry.poll() is None:
                    os.killpg(entry.pid, signal.SIGKILL)
        lines = (tmp_path / "run" / "journal.jsonl").read_text().splitlines()
        names = [json.loads(line)["event"] for line in lines]
        assert ("Interrupted" in names) is told
        assert "TrainFinished" not in names
        # After an undo that was cut off, the recovery waits 20 s, until the undo's own write can no longer take effect.
        recovered = _shell(RECOVER, env, tmp_path)
        assert recovered.returncode == 0, recovered.stderr
        assert "closed: " in recovered.stderr
        last_words = simulation.stop()
    assert f"traffic   {{'{simulation.revisions[0]}': 100}}" in last_words
    assert "rust_shell" not in last_words.partition("routes")[2]


def _until_moved(directory: Path, entry: subprocess.Popen[bytes]) -> None:
    """Wait until the canary is proven to have its first share."""
    journal, ends = directory / "run" / "journal.jsonl", time.monotonic() + 40
    while time.monotonic() < ends and entry.poll() is None:
        text = journal.read_text() if journal.exists() else ""
        if (
            '"event":"TrafficRead"' in text
            and '"proven":true' in text.partition('"event":"TrafficIntended"')[2]
        ):
            return
        time.sleep(0.05)
    raise AssertionError((directory / "said").read_text())
