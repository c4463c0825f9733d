"""Standard streams that are closed, unread or full: they change no exit code, and no file takes their place."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.commands import COMMAND, run_env, served

pytestmark = pytest.mark.slow
GOOD = (
    b'data: {"threadId":"t1","type":"start"}\n\n'
    b'data: {"model":"gpt-5.2-codex","threadId":"t1","turnId":"turn_1","type":"start-step"}\n\n'
    b'data: {"status":"accepted","turnId":"turn_1","type":"finish-step"}\n\n'
    b'data: {"status":"accepted","type":"finish"}\n\ndata: [DONE]\n\n'
)
CLOSED = [">&-", "2>&-", "<&- >&- 2>&-"]
STREAMS = [*CLOSED, "stdout unread", "stderr unread"]


@contextmanager
def started_with(
    streams: str, *arguments: str, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a command with these redirections of a shell, or with a pipe whose reader is gone."""
    with ExitStack() as stack:
        opened: dict[str, int] = {}
        if streams not in CLOSED:
            reader, writer = os.pipe()
            os.close(reader)
            stack.callback(os.close, writer)
            opened = {streams.split(maxsplit=1)[0]: writer}
        redirections = streams if streams in CLOSED else ""
        command = f"exec {shlex.join([*COMMAND, *arguments])} {redirections}"
        devices = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(["/bin/sh", "-c", command], env=env, **(devices | opened))  # type: ignore[call-overload]
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


def exit_code(streams: str, *arguments: str, env: Mapping[str, str] | None = None) -> int:
    with started_with(streams, *arguments, env=env) as process:
        return process.wait(timeout=120)


@pytest.mark.parametrize("streams", STREAMS)
def test_the_streams_change_no_exit_code(streams: str, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.sse", tmp_path / "bad.sse"
    good.write_bytes(GOOD)
    bad.write_bytes(GOOD.replace(b"data: [DONE]\n\n", b""))
    for arguments, code in (
        (["--help"], 0),
        (["run", "--help"], 0),
        (["--version"], 0),
        (["run", "a-1", "a-2", "--show-config"], 0),
        (["run", "a-1", "a-2", "--output-dir", str(tmp_path / "run")], 0),
        (["run", "a-1", "a-2", "--what-if", "list"], 0),
        (["run", "a-1"], 2),
        (["check", str(good)], 0),
        (["check", str(good), "--json"], 0),
        (["check", str(bad)], 1),
        (["check", "--explain", "terminator.missing"], 0),
        (["simulate", "--fault", "list"], 0),
        (["recover", str(tmp_path / "run")], 0),
    ):
        assert exit_code(streams, *arguments) == code, arguments


@pytest.mark.parametrize("streams", STREAMS)
def test_a_live_run_and_its_revert_end_with_their_own_exit_codes(streams: str, tmp_path: Path) -> None:
    with served() as simulation:
        stable, canary = simulation.revisions
        env = run_env(simulation, tmp_path, CANARY_STEPS="100")
        assert exit_code(streams, "run", stable, canary, env=env) == 0
        assert exit_code(streams, "recover", "--revert", str(tmp_path / "run"), env=env) == 0
        assert "'global': None" in simulation.stop()
    # no file got the number of a closed stream, so no output of the command is in the journal
    lines = (tmp_path / "run" / "journal.jsonl").read_bytes().splitlines()
    assert all(line.startswith(b'{"event":') for line in lines)


@pytest.mark.parametrize("streams", STREAMS)
def test_a_simulation_serves_until_ctrl_c(streams: str, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with started_with(streams, "simulate", "--request-log", str(log)) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=3)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    assert log.read_bytes() == b""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
def test_output_that_a_full_disk_cuts_off_is_named_on_the_other_stream(
    unbuffered: list[str], tmp_path: Path
) -> None:
    (tmp_path / "good.sse").write_bytes(GOOD)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, *unbuffered, "-m", "cutover", "check", "--json", str(tmp_path / "good.sse")],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 0
    assert done.stderr == (
        "standard output could not be written (No space left on device), so a part of it is missing; the exit code is correct\n"
    )
