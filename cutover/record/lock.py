"""The lock of a service: one train at a time on this machine.

A held lock means that a train or a recovery is live. Content in a lock that nobody holds means that a train was killed, and must be
recovered before the next one starts. Between machines only the etag of the service protects the traffic; nothing protects the overrides.
"""

import contextlib
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.text import recover_command

if sys.platform != "win32":
    import fcntl


@attrs.frozen(kw_only=True)
class Holder:
    """The process that runs, or ran, a train or its recovery."""

    host: str
    pid: int
    since: str
    run_directory: str

    def describe(self) -> str:
        """Return the process, the time of its start and its run directory in words."""
        return f"pid {self.pid} on {self.host}, since {self.since}, run directory {self.run_directory}"


def state_folder() -> Path:
    """Return the user's state folder for locks (XDG base directory specification)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cutover"


@attrs.define(eq=False)
class ServiceLock:
    """The lock of one service: a file whose name is a hash of project, region, service and base URL. It contains the ``Holder``."""

    path: Path
    _handle: int = -1

    @classmethod
    def of(cls, *parts: str) -> "ServiceLock":
        """Return the lock of the service that these parts name together."""
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
        return cls(state_folder() / f"{key}.lock")

    @classmethod
    def left_by(cls, run_directory: Path) -> "ServiceLock | None":
        """Return the lock whose content names this run directory; None if there is none.

        This search is for a journal that has lost its first event: such a journal does not name its service.

        Raises:
            NotStartedError: The locks cannot be read.
        """
        try:
            for path in sorted(state_folder().glob("*.lock")):
                left = _holder(path.read_bytes())
                if left is not None and left.run_directory == str(run_directory.resolve()):
                    return cls(path)
        except OSError as error:
            raise NotStartedError(f"the locks in {state_folder()} cannot be read: {error}") from error
        return None

    @contextlib.contextmanager
    def held(self, *, recovering: Path | None = None) -> Iterator["ServiceLock"]:
        """Hold the lock during the ``with`` block. The content that ``sign`` writes stays until ``close`` empties the lock.

        Args:
            recovering: The run directory that is being recovered; content that names it is no obstacle.

        Raises:
            NotStartedError: Another train or recovery is live, a killed train is not recovered, the lock cannot be opened, or this
                is Windows.
        """
        if sys.platform == "win32":
            raise NotStartedError("there is no lock on Windows, so no train can be run there")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise NotStartedError(f"the lock {self.path} cannot be opened: {error}") from error
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise NotStartedError(f"another train is live: {_who(_content(handle))}") from error
            left = _content(handle)
            if left is not None and (recovering is None or left.run_directory != str(recovering.resolve())):
                raise NotStartedError(self._unrecovered(left))
            self._handle = handle
            yield self
        finally:
            os.close(handle)

    def sign(self, run_directory: Path) -> None:
        """Write this process and its run directory into the lock, once there is a journal to recover from.

        A recovery signs again, so that the lock names the recovery.

        Raises:
            NotStartedError: The lock cannot be written.
        """
        holder = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=utc_now(),
            run_directory=str(run_directory.resolve()),
        )
        before = os.pread(self._handle, _MOST, 0)
        try:
            _write(self._handle, msgspec.json.encode(holder))
        except OSError as error:
            with contextlib.suppress(OSError):
                # An incomplete content would stop every later train.
                _write(self._handle, before)
            raise NotStartedError(f"the lock {self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Empty the lock, so that the next train may start. If that fails, a warning says so, and the next train asks for a recovery."""
        try:
            _write(self._handle, b"")
        except OSError as error:
            warnings.warn(f"the lock {self.path} cannot be released: {error}", RuntimeWarning, stacklevel=2)

    def _unrecovered(self, left: Holder) -> str:
        if left == _DAMAGED:
            return (
                f"a train was killed, and the lock is damaged and does not name it: check production, then remove"
                f" {self.path}"
            )
        return (
            f"a train was killed and is not recovered: {left.describe()}; run: {recover_command(left.run_directory)}"
            f" (if that folder no longer exists: check production, then remove {self.path})"
        )


_MOST = 1 << 16
"""Largest number of bytes that are read from a lock."""
_DAMAGED = Holder(host="?", pid=0, since="?", run_directory="? (the lock is damaged)")


def _content(handle: int) -> Holder | None:
    return _holder(os.pread(handle, _MOST, 0))


def _holder(data: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(data, type=Holder) if data else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _DAMAGED


def _who(holder: Holder | None) -> str:
    return holder.describe() if holder else "its process is not known yet"


def _write(handle: int, data: bytes) -> None:
    if os.pwrite(handle, data, 0) != len(data):
        raise OSError("short write")
    # The truncation comes last: where nothing can be written, the old content stays.
    os.ftruncate(handle, len(data))
    os.fsync(handle)
