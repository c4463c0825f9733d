"""A program is bounded, has a deadline, and leaves nothing of its process group behind."""

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
    """What a process was started with; the kernel shows it a moment after the start has been reported."""
    latest = time.monotonic() + 5.0
    while not (shown := arguments(pid)) and time.monotonic() < latest:
        time.sleep(0.001)
    return shown


def survivors(group: int) -> list[int]:
    return list(members(group))


async def test_what_it_says_and_how_it_ends() -> None:
    output = await run("echo out; echo err >&2; exit 3")
    assert output == Output(exit_code=3, stdout=b"out\n", stderr=b"err\n")


async def test_arguments_are_handed_over_as_they_are() -> None:
    argv = ("/bin/echo", "a b", "$HOME", "'", "-n", "*")
    output = await run_program(argv, env=ENV, deadline=5.0, grace=GRACE)
    assert output.stdout == b"a b $HOME ' -n *\n"


async def test_it_has_no_environment_but_its_own_and_no_input() -> None:
    output = await run_program(("/usr/bin/env",), env={"ONE": "1"}, deadline=5.0, grace=GRACE)
    assert b"ONE=1\n" in output.stdout
    assert b"HOME=" not in output.stdout
    assert (await run("cat")).stdout == b""


async def test_it_does_not_run_before_it_is_told_to(tmp_path: Path) -> None:
    seen: list[tuple[str, ...]] = []

    def ready(pid: int) -> None:
        seen.append(shown_arguments(pid))
        raise KeyError("no")

    path = tmp_path / "ran"
    with pytest.raises(KeyError):
        await run_program(("touch", str(path)), env=ENV, deadline=5.0, grace=GRACE, ready=ready)
    assert seen[0][-2:] == ("touch", str(path))
    assert not path.exists()


async def test_the_number_that_is_told_is_the_programs_own() -> None:
    told: list[int] = []
    output = await run_program(
        ("/bin/sh", "-c", "echo $$"), env=ENV, deadline=5.0, grace=GRACE, ready=told.append
    )
    assert told == [int(output.stdout)]


async def test_a_deadline_ends_it_with_what_it_started() -> None:
    told: list[int] = []
    script = "trap '' TERM; sleep 60 & sleep 60 & wait; sleep 60"
    with pytest.raises(NoAnswerError, match=r"did not end within 0\.2 s, and was ended"):
        await run_program(("/bin/sh", "-c", script), env=ENV, deadline=0.2, grace=GRACE, ready=told.append)
    assert not survivors(told[0])


async def test_what_it_left_behind_is_ended_and_its_output_is_kept() -> None:
    output = await run("(trap '' TERM; echo child; sleep 60) & sleep 0.1; echo $$; exit 0")
    assert output.exit_code == 0
    said = output.stdout.split()
    assert b"child" in said
    assert not survivors(int(said[-1]))


async def test_a_cancellation_ends_it() -> None:
    told: list[int] = []
    with anyio.move_on_after(0.3) as scope:
        await run_program(
            ("/bin/sh", "-c", "sleep 60 & sleep 60"), env=ENV, deadline=60.0, grace=GRACE, ready=told.append
        )
    assert scope.cancelled_caught
    assert not survivors(told[0])


async def test_its_output_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_OUTPUT_BYTES", 1000)
    with pytest.raises(UnusableReplyError, match="larger than 1000 bytes"):
        await run("head -c 200000 /dev/zero")
    output = await run("head -c 1000 /dev/zero; head -c 200000 /dev/zero >&2")
    assert len(output.stdout) == 1000
    assert len(output.stderr) == 1001


async def test_one_that_cannot_be_started_is_told() -> None:
    with pytest.raises(NoAnswerError, match="could not be started"):
        await run_program(("/bin/echo", "x" * (1 << 22)), env=ENV, deadline=5.0, grace=GRACE)


async def test_a_gate_that_is_killed_is_told() -> None:
    def ready(pid: int) -> None:
        os.kill(pid, 9)

    output = await run_program(("/bin/echo",), env=ENV, deadline=5.0, grace=GRACE, ready=ready)
    assert output.exit_code == -9


def sleeper() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)


def over() -> subprocess.Popen[bytes]:
    with subprocess.Popen(["/bin/sh", "-c", ":"], start_new_session=True) as process:
        return process


async def test_a_group_that_is_not_there_is_over() -> None:
    process = over()
    assert await end_group(process.pid, grace=GRACE)
    assert identity(process.pid) == ""
    assert arguments(process.pid) == ()


async def test_one_that_nobody_waits_for_is_over() -> None:
    with sleeper() as process:
        assert await end_group(process.pid, grace=GRACE)
        assert Path(f"/proc/{process.pid}").exists()  # a zombie of this test's own
        assert identity(process.pid) == ""


async def test_somebody_elses_group_is_not_taken_for_one_that_is_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def killpg(group: int, number: int) -> None:
        raise PermissionError

    with sleeper() as process:
        with monkeypatch.context() as patch:
            patch.setattr(os, "killpg", killpg)
            assert not await end_group(process.pid, grace=0.05)
        process.kill()


async def test_without_proc_a_process_is_known_by_when_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS."""
    monkeypatch.setattr(processes, "_PROC", Path("/nowhere"))
    if not Path("/bin/ps").exists():
        pytest.skip("without ps")
    told = identity(os.getpid())
    assert told
    assert told == identity(os.getpid())
    assert identity(over().pid) == ""
