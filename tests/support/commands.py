"""Commands in their own processes: `cutover simulate` in one, and the command under test in another."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

QUICK = {
    "CANARY_SOAK_SECONDS": "0",
    "MAX_CANARY_WORSE_PERCENT": "90",
    "MAX_CANARY_SLOWER_PERCENT": "0",
    "FLIP_CONFIRM_SECONDS": "0",
    "HELD_STREAMS": "0",
}
COMMAND = [sys.executable, "-m", "cutover"]


class Served:
    """A simulation that a process serves on loopback, with the output that it prints when it stops."""

    def __init__(
        self,
        process: subprocess.Popen[str],
        env: Mapping[str, str],
        revisions: list[str],
        by_gcloud: Mapping[str, str],
        in_a_bucket: Mapping[str, str],
    ) -> None:
        self.process, self.env, self.revisions, self.by_gcloud = process, env, revisions, by_gcloud
        self.in_a_bucket = in_a_bucket
        self.last_words = ""

    def stop(self) -> str:
        if not self.last_words:
            self.process.send_signal(signal.SIGINT)
            self.last_words, _ = self.process.communicate(timeout=30)
        return self.last_words


@contextmanager
def served(*options: str, env: Mapping[str, str] | None = None) -> Iterator[Served]:
    process = subprocess.Popen(
        [*COMMAND, "simulate", *options],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
    )
    try:
        assert process.stdout is not None
        found: dict[str, str] = {}
        by_gcloud: dict[str, str] = {}
        in_a_bucket: dict[str, str] = {}
        for line in process.stdout:
            if line.startswith("# then:"):
                break
            if line.startswith("# to move"):
                by_gcloud = dict(re.findall(r"export (\w+)=([^;\s]+)", line))
            if line.startswith("# to keep"):
                in_a_bucket = dict(re.findall(r"export (\w+)=([^;\s]+)", line))
            if line.startswith("#"):
                continue
            name, _, value = line.removeprefix("export ").strip().partition("=")
            found[name] = value.strip("'")
        revisions = line.split()[-2:]
        yield Served(process, found, revisions, by_gcloud, in_a_bucket)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def run_env(simulation: Served, directory: Path, **more: str) -> dict[str, str]:
    return {**os.environ, **simulation.env, **QUICK, "OUTPUT_DIR": str(directory / "run"), **more}


def run(simulation: Served, directory: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "run", *simulation.revisions],
        env=run_env(simulation, directory, **more),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def recover(simulation: Served, directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "recover", *options, str(directory / "run")],
        env=run_env(simulation, directory),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@contextmanager
def started(*arguments: str, env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], *words: str) -> None:
    """Read the process's stderr up to a line that contains all of these words."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if all(each in line for each in words):
            return
    raise AssertionError(f"no line contains {words}: {seen}")
