"""One train at a time for a service, on this machine: a lock whose content outlives a killed train.

Held means that a train is live. Content without a holder means that one was cut off and is to be recovered first.
Across machines only the etag of the service protects.
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
    """Who runs, or ran, a train."""

    host: str
    pid: int
    since: str
    run_directory: str

    def describe(self) -> str:
        """Say who, since when, where."""
        return f"pid {self.pid} on {self.host}, since {self.since}, run directory {self.run_directory}"


def state_folder() -> Path:
    """Return the user's state folder for locks (XDG base directory specification)."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cutover"


@attrs.define(eq=False)
class ServiceLock:
    """The lock of one service, keyed by project, region, service and base URL."""

    path: Path
    _handle: int = -1

    @classmethod
    def of(cls, *parts: str) -> "ServiceLock":
        """Return the lock of what these parts name together."""
        key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
        return cls(state_folder() / f"{key}.lock")

    @classmethod
    def left_by(cls, run_directory: Path) -> "ServiceLock | None":
        """Return the lock that a run in this folder has left its mark in; for a journal that does not say of what service.

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
        """Hold the lock; what it says of a train is written by ``sign``, and stays until ``close`` is called.

        Args:
            recovering: The run directory that is being recovered: content that names it is this run's own business.

        Raises:
            NotStartedError: Another train is live, or one was cut off and not recovered; says who, since when, where.
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
        """Say who holds it, once there is a journal to recover from; a recovery signs anew, so that it is the one named.

        Raises:
            NotStartedError: It cannot be written.
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
                _write(self._handle, before)  # half a name would lock everybody out
            raise NotStartedError(f"the lock {self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Say that nothing is left open: the next train may start; where it cannot be said, that one is told to recover first."""
        try:
            _write(self._handle, b"")
        except OSError as error:
            warnings.warn(f"the lock {self.path} cannot be released: {error}", RuntimeWarning, stacklevel=2)

    def _unrecovered(self, left: Holder) -> str:
        if left == _DAMAGED:
            return (
                f"a train was cut off, and the lock is damaged and does not say which: check production, then remove"
                f" {self.path}"
            )
        return (
            f"a train was cut off and is not recovered: {left.describe()}; run: {recover_command(left.run_directory)}"
            f" (where that folder is gone for good, check production, then remove {self.path})"
        )


_MOST = 1 << 16
"""Bytes of a lock that are read."""
_DAMAGED = Holder(host="?", pid=0, since="?", run_directory="? (the lock is damaged)")


def _content(handle: int) -> Holder | None:
    return _holder(os.pread(handle, _MOST, 0))


def _holder(data: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(data, type=Holder) if data else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _DAMAGED


def _who(holder: Holder | None) -> str:
    return holder.describe() if holder else "nobody has said who"


def _write(handle: int, data: bytes) -> None:
    if os.pwrite(handle, data, 0) != len(data):
        raise OSError("short write")
    os.ftruncate(handle, len(data))  # last: where nothing can be written, what was there stays
    os.fsync(handle)
