"""A program in a process group of its own: with a deadline, with bounds, and ended together with all that it started."""

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import anyio
import attrs
from anyio.abc import ByteReceiveStream, Process

from cutover.errors import NoAnswerError, UnusableReplyError

MAX_OUTPUT_BYTES = 16 << 20
"""Bytes of a program's output that are read; and of its errors, those that are kept."""
GRACE_SECONDS = 3.0
"""How long a process group may take to heed SIGTERM, and then SIGKILL."""
_POLL = 0.02
_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@"', "sh")
"""Stands before the program until it is told to go: whoever starts it can first write down which process it is.

Where that writer dies before, the gate reads the end of its input, and the program never runs.
"""


@attrs.frozen(kw_only=True)
class Output:
    """What a program left."""

    exit_code: int
    stdout: bytes
    stderr: bytes


async def run_program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    deadline: float,
    grace: float,
    ready: Callable[[int], None] | None = None,
) -> Output:
    """Run a program to its end; whatever happens, nothing of its process group is left.

    Args:
        argv: The program and its arguments.
        env: Its whole environment.
        deadline: Seconds until its group is ended.
        grace: Seconds for the group to heed a signal.
        ready: Called with the number of the process before the program runs in it; where it raises, the program never does.

    Raises:
        NoAnswerError: It could not be started, or was not over in time.
        UnusableReplyError: Its output is larger than ``MAX_OUTPUT_BYTES``.
    """
    line = shlex.join(argv)
    process = await _start(argv, env, line)
    stdout, stderr = bytearray(), bytearray()
    try:
        with anyio.move_on_after(deadline) as scope:
            if ready is not None:
                ready(process.pid)
            async with anyio.create_task_group() as group:
                group.start_soon(_collect, process.stdout, stdout)
                group.start_soon(_collect, process.stderr, stderr)
                await _let_go(process)
                await process.wait()
                await end_group(process.pid, grace=grace)  # what it left behind holds its pipes open
    finally:
        with anyio.CancelScope(shield=True):
            await end_group(process.pid, grace=grace)
            with anyio.move_on_after(grace):
                await process.aclose()
    if scope.cancelled_caught or process.returncode is None:
        raise NoAnswerError(f"{line}: not over within {deadline:g} s, and ended")
    if len(stdout) > MAX_OUTPUT_BYTES:
        raise UnusableReplyError(f"{line}: its output is larger than {MAX_OUTPUT_BYTES} bytes")
    return Output(exit_code=process.returncode, stdout=bytes(stdout), stderr=bytes(stderr))


async def _start(argv: Sequence[str], env: Mapping[str, str], line: str) -> Process:  # type: ignore[return]  # it only shields
    try:
        with anyio.CancelScope(shield=True):  # one that is cut off between its start and its name is nobody's
            return await anyio.open_process([*_GATE, *argv], env=env, start_new_session=True)
    except OSError as error:
        raise NoAnswerError(f"{line}: could not be started: {error}") from error


async def _let_go(process: Process) -> None:
    assert process.stdin is not None  # noqa: S101  it is a pipe
    with suppress(
        anyio.BrokenResourceError, anyio.ClosedResourceError
    ):  # ended already: its exit code says it
        await process.stdin.send(b"go\n")
    await process.stdin.aclose()


async def _collect(stream: ByteReceiveStream | None, kept: bytearray) -> None:
    """Read to the end; what is past the bound is dropped, but for the byte that tells."""
    assert stream is not None  # noqa: S101  it is a pipe
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for chunk in stream:
            kept += chunk[: MAX_OUTPUT_BYTES + 1 - len(kept)]


async def end_group(group: int, *, grace: float) -> bool:
    """End a process group: SIGTERM, wait, SIGKILL, wait; return whether nothing of it is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _signal(group, number):
            return True
        with anyio.move_on_after(grace):
            while _lives(group):  # noqa: ASYNC110  nobody tells when a group is over
                await anyio.sleep(_POLL)
    return not _lives(group)


def _signal(group: int, number: int) -> bool:
    """Signal a group, and return whether it is there."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's; or, on macOS, one that is over and not yet waited for
        return True
    return True


def _lives(group: int) -> bool:
    """Return whether any process of a group still runs; one that is over and that nobody waited for does not."""
    return _signal(group, 0) and (not _PROC.exists() or any(members(group)))


_PROC = Path("/proc/self/stat")
_STATE, _GROUP, _START = 0, 2, 19
"""Fields of /proc/PID/stat, counted from the one after the program's name (proc(5))."""


def _stat(pid: int | str) -> list[str]:
    """Return the fields of a process; none where there is no such process, or only what is left of one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        return []
    return fields if fields[_STATE] not in "ZX" else []


def members(group: int) -> Iterator[int]:
    """Give every process of a group that runs; none where there is no /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(folder.name)
        if fields and fields[_GROUP] == str(group):
            yield int(folder.name)


def identity(pid: int) -> str:
    """Return what tells a process from all others that ever have its number: this boot, and when it started.

    Empty where there is no such process.
    """
    if _PROC.exists():
        fields = _stat(pid)
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {fields[_START]}" if fields else ""
    shown = subprocess.run(  # noqa: S603  a number is all that is handed over
        ["/bin/ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return shown.stdout.strip()


def arguments(pid: int) -> tuple[str, ...]:
    """Return the command line of a process; empty where it cannot be read."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(part.decode("utf-8", "surrogateescape") for part in raw.split(b"\0")[:-1])
