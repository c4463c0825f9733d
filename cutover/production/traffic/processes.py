"""A program in a process group of its own, with a deadline and bounds. The whole group ends with the program."""

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
from cutover.http.secrets import Secrets

MAX_OUTPUT_BYTES = 16 << 20
"""Largest number of bytes of a program's output, and of its errors, that are kept."""
GRACE_SECONDS = 3.0
"""Seconds for a process group to end after SIGTERM, and then after SIGKILL."""
_POLL = 0.02
_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@"', "sh")
"""A shell before the program: it waits for one line, so that the train can first journal the process.

If the train dies before it sends the line, the shell reads the end of its input, and the program never runs.
"""


_NEEDED = frozenset({"PATH", "HOME"})
"""Variables without which a program is not found, or has another account. They are never left out."""
_TELLING = 8
"""Characters of the shortest secret whose occurrence within a longer value is no accident."""


def own_environment(secrets: Secrets) -> dict[str, str]:
    """Return the environment of this process without variables that hold a secret, for a program that must not get one.

    A variable holds a secret if its value is the secret, or contains it and the secret has at least ``_TELLING`` characters. A
    shorter one may occur in any value: a secret of four characters would take the variable with the folder of gcloud's settings away.
    """

    def holds_secret(value: str) -> bool:
        return any(
            secret == value or (len(secret) >= _TELLING and secret in value)
            for secret in secrets.values
            if secret
        )

    return {name: value for name, value in os.environ.items() if name in _NEEDED or not holds_secret(value)}


@attrs.frozen(kw_only=True)
class Output:
    """The end of a program: its exit code and its output."""

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
    given: bytes = b"",
) -> Output:
    """Run a program to its end, and then end its process group, also after an error or a cancellation.

    A program that does not exist gives the exit code 127 of the shell.

    Args:
        argv: The program and its arguments.
        env: Its whole environment.
        deadline: Seconds until its group is ended.
        grace: Seconds for the group to end after a signal.
        ready: Called with the process id before the program runs. If it raises, the program never runs, and the error is
            raised.
        given: Its standard input. A program need not read it.

    Raises:
        NoAnswerError: The process could not be started, or did not end in time.
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
                await _let_go(process, given)
                await process.wait()
                # Processes that the program left behind hold its pipes open.
                await end_group(process.pid, grace=grace)
    finally:
        with anyio.CancelScope(shield=True):
            await end_group(process.pid, grace=grace)
            with anyio.move_on_after(grace):
                await process.aclose()
    if scope.cancelled_caught or process.returncode is None:
        raise NoAnswerError(f"{line}: did not end within {deadline:g} s, and was ended")
    if len(stdout) > MAX_OUTPUT_BYTES:
        raise UnusableReplyError(f"{line}: its output is larger than {MAX_OUTPUT_BYTES} bytes")
    return Output(exit_code=process.returncode, stdout=bytes(stdout), stderr=bytes(stderr))


async def _start(argv: Sequence[str], env: Mapping[str, str], line: str) -> Process:  # type: ignore[return]  # a shield
    try:
        # A cancellation between the start and the return would lose the id: nobody could end the process.
        with anyio.CancelScope(shield=True):
            return await anyio.open_process([*_GATE, *argv], env=env, start_new_session=True)
    except OSError as error:
        raise NoAnswerError(f"{line}: could not be started: {error}") from error


async def _let_go(process: Process, given: bytes) -> None:
    assert process.stdin is not None  # noqa: S101  it is a pipe
    # The process may have ended already. Its exit code then shows that.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        # The shell reads no further than the first line (POSIX, `read`), so the program gets the rest.
        await process.stdin.send(b"go\n" + given)
    await process.stdin.aclose()


async def _collect(stream: ByteReceiveStream | None, kept: bytearray) -> None:
    """Read to the end. Bytes past the bound are dropped, except one that shows that there were more."""
    assert stream is not None  # noqa: S101  it is a pipe
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async for chunk in stream:
            kept += chunk[: MAX_OUTPUT_BYTES + 1 - len(kept)]


async def end_group(group: int, *, grace: float) -> bool:
    """End a process group: SIGTERM, wait, SIGKILL, wait. Return True if no process of it is left."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _signal(group, number):
            return True
        with anyio.move_on_after(grace):
            while _lives(group):  # noqa: ASYNC110  no event marks the end of a process group
                await anyio.sleep(_POLL)
    return not _lives(group)


def _signal(group: int, number: int) -> bool:
    """Signal a process group; return True if it exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    # The group is somebody else's; or, on macOS, it has ended and nobody has waited for it.
    except PermissionError:
        return True
    return True


def _lives(group: int) -> bool:
    """Return True if a process of a group still runs. A zombie does not count as running, but without /proc it does."""
    return _signal(group, 0) and (not _PROC.exists() or any(members(group)))


_PROC = Path("/proc/self/stat")
_STATE, _GROUP, _START = 0, 2, 19
"""Fields of /proc/PID/stat, counted from the one after the program's name (proc(5))."""


def _stat(pid: int | str) -> list[str]:
    """Return the fields of a process; none if there is no such process, or only a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()
    except OSError:
        return []
    return fields if fields[_STATE] not in "ZX" else []


def members(group: int) -> Iterator[int]:
    """Yield the id of every running process of a group; yield nothing without /proc."""
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(folder.name)
        if fields and fields[_GROUP] == str(group):
            yield int(folder.name)


def identity(pid: int) -> str:
    """Return a text that tells a process from a later one with the same id: the boot of the machine and the start time.

    Without /proc (macOS) the text is the start time alone, to the second. The text is empty if there is no such process.
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
    """Return the command line of a process; empty if it cannot be read."""
    try:
        raw = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return ()
    return tuple(part.decode("utf-8", "surrogateescape") for part in raw.split(b"\0")[:-1])
