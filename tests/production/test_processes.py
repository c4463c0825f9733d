"""A program has a deadline and bounds, and no process of its group outlives it."""

import os
import subprocess
import time
from pathlib import Path

import anyio
import pytest

from cutover.errors import NoAnswerError, UnusableReplyError
from cutover.production.traffic import processes
from cutover.production.traffic.processes import Output, arguments, end_group, identity, members, run_program

pytestmark = pytest.mark.anyio

ENV = {"PATH": os.defpath}
GRACE = 0.3


async def run(script: str, *, deadline: float = 5.0) -> Output:
    return await run_program(("/bin/sh", "-c", script), env=ENV, deadline=deadline, grace=GRACE)


def shown_arguments(pid: int) -> tuple[str, ...]:
    """Return the arguments of a process. The kernel shows them a moment after the start is reported, so this waits."""
    latest = time.monotonic() + 5.0
    while not (shown := arguments(pid)) and time.monotonic() < latest:
        time.sleep(0.001)
    return shown


def survivors(group: int) -> list[int]:
    """Return the processes of a group that still run."""
    return list(members(group))


async def test_the_output_holds_both_streams_and_the_exit_code() -> None:
    output = await run("echo out; echo err >&2; exit 3")
    assert output == Output(exit_code=3, stdout=b"out\n", stderr=b"err\n")


async def test_arguments_are_passed_unchanged() -> None:
    argv = ("/bin/echo", "a b", "$HOME", "'", "-n", "*")
    output = await run_program(argv, env=ENV, deadline=5.0, grace=GRACE)
    assert output.stdout == b"a b $HOME ' -n *\n"


async def test_a_program_gets_only_the_given_environment_and_no_input() -> None:
    output = await run_program(("/usr/bin/env",), env={"ONE": "1"}, deadline=5.0, grace=GRACE)
    assert b"ONE=1\n" in output.stdout
    assert b"HOME=" not in output.stdout
    assert (await run("cat")).stdout == b""


async def test_a_program_does_not_run_if_ready_raises(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def ready(pid: int) -> None:
        seen.append(shown_arguments(pid))
        raise KeyError("no")

    path = tmp_path / "ran"
    with pytest.raises(KeyError):
        await run_program(("touch", str(path)), env=ENV, deadline=5.0, grace=GRACE, ready=ready)
    assert seen[0][-2:] == ("touch", str(path))
    assert not path.exists()


async def test_ready_gets_the_process_id_of_the_program() -> None:
    pids: list[int] = []
    output = await run_program(
        ("/bin/sh", "-c", "echo $$"), env=ENV, deadline=5.0, grace=GRACE, ready=pids.append
    )
    assert pids == [int(output.stdout)]


async def test_a_deadline_ends_the_program_and_its_children() -> None:
    pids: list[int] = []
    script = "trap '' TERM; sleep 60 & sleep 60 & wait; sleep 60"
    with pytest.raises(NoAnswerError, match=r"did not end within 0\.2 s, and was ended"):
        await run_program(("/bin/sh", "-c", script), env=ENV, deadline=0.2, grace=GRACE, ready=pids.append)
    assert not survivors(pids[0])


async def test_children_that_are_left_behind_are_ended_and_their_output_is_kept() -> None:
    output = await run("(trap '' TERM; echo child; sleep 60) & sleep 0.1; echo $$; exit 0")
    assert output.exit_code == 0
    words = output.stdout.split()
    assert b"child" in words
    assert not survivors(int(words[-1]))


async def test_a_cancellation_ends_the_program() -> None:
    pids: list[int] = []
    with anyio.move_on_after(0.3) as scope:
        await run_program(
            ("/bin/sh", "-c", "sleep 60 & sleep 60"), env=ENV, deadline=60.0, grace=GRACE, ready=pids.append
        )
    assert scope.cancelled_caught
    assert not survivors(pids[0])


async def test_output_and_errors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_OUTPUT_BYTES", 1000)
    with pytest.raises(UnusableReplyError, match="larger than 1000 bytes"):
        await run("head -c 200000 /dev/zero")
    output = await run("head -c 1000 /dev/zero; head -c 200000 /dev/zero >&2")
    assert len(output.stdout) == 1000
    assert len(output.stderr) == 1001


async def test_a_program_that_cannot_be_started_raises_an_error() -> None:
    with pytest.raises(NoAnswerError, match="could not be started"):
        await run_program(("/bin/echo", "x" * (1 << 22)), env=ENV, deadline=5.0, grace=GRACE)


async def test_a_killed_gate_gives_its_exit_code() -> None:
    def ready(pid: int) -> None:
        os.kill(pid, 9)

    output = await run_program(("/bin/echo",), env=ENV, deadline=5.0, grace=GRACE, ready=ready)
    assert output.exit_code == -9


def sleeper() -> subprocess.Popen[bytes]:
    """Return a process that sleeps in a group of its own."""
    return subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)


def ended() -> subprocess.Popen[bytes]:
    """Return a process that has ended and was waited for."""
    with subprocess.Popen(["/bin/sh", "-c", ":"], start_new_session=True) as process:
        return process


async def test_a_missing_group_counts_as_ended() -> None:
    process = ended()
    assert await end_group(process.pid, grace=GRACE)
    assert identity(process.pid) == ""
    assert arguments(process.pid) == ()


async def test_a_zombie_counts_as_ended() -> None:
    with sleeper() as process:
        assert await end_group(process.pid, grace=GRACE)
        # Nobody has waited for the process yet, so it is a zombie.
        assert Path(f"/proc/{process.pid}").exists()
        assert identity(process.pid) == ""


async def test_a_group_that_may_not_be_signalled_does_not_count_as_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killpg(group: int, number: int) -> None:
        raise PermissionError

    with sleeper() as process:
        with monkeypatch.context() as patch:
            patch.setattr(os, "killpg", killpg)
            assert not await end_group(process.pid, grace=0.05)
        process.kill()


async def test_without_proc_the_start_time_identifies_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS has no ``/proc``."""
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    if not Path("/bin/ps").exists():
        pytest.skip("without ps")
    own = identity(os.getpid())
    assert own
    assert own == identity(os.getpid())
    assert identity(ended().pid) == ""
