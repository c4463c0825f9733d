"""One train at a time for a service, on this machine: a lock whose content outlives a killed train.

Held means that a train is live. Content without a holder means that one was cut off and is to be recovered first.
Across machines only the etag of the service protects.
"""

import contextlib
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError

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
                raise NotStartedError(
                    f"a train was cut off and is not recovered: {_who(left)}; run: cutover recover {left.run_directory}"
                    f" (where that folder is gone for good, check production, then remove {self.path})"
                )
            self._handle = handle
            yield self
        finally:
            os.close(handle)

    def sign(self, run_directory: Path) -> None:
        """Say who holds it, once there is a journal to recover from.

        Raises:
            NotStartedError: It cannot be written.
        """
        holder = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=utc_now(),
            run_directory=str(run_directory.resolve()),
        )
        try:
            _write(self._handle, msgspec.json.encode(holder))
        except OSError as error:
            with contextlib.suppress(OSError):
                self.close()  # half a name would lock everybody out
            raise NotStartedError(f"the lock {self.path} cannot be written: {error}") from error

    def close(self) -> None:
        """Say that nothing is left open: the next train may start."""
        _write(self._handle, b"")


def _content(handle: int) -> Holder | None:
    data = os.pread(handle, 1 << 16, 0)
    try:
        return msgspec.json.decode(data, type=Holder) if data else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return Holder(host="?", pid=0, since="?", run_directory="? (the lock is damaged)")


def _who(holder: Holder | None) -> str:
    return holder.describe() if holder else "nobody has said who"


def _write(handle: int, data: bytes) -> None:
    os.ftruncate(handle, 0)
    if os.pwrite(handle, data, 0) != len(data):
        raise OSError("short write")
    os.fsync(handle)
