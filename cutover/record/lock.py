"""The lock of a service: one train at a time on this machine, whoever runs it.

A held lock means that a train or a recovery is live. Content in a lock that nobody holds means that a train was killed, and must be
recovered before the next one starts. Between machines the lock in STATE_URL does the same (``state_lock.py``); without it, only the etag of the
service protects the traffic, and nothing protects the overrides.

The locks are files in a folder that every user of the machine may write to and that outlives a restart (``SHARED_FOLDERS``). Such a folder
is no safe place, so a lock is opened without following a link and must be a regular file, and its content is only words: bounded, shown
escaped, and a command for a run directory of another user says whose it is. XDG_STATE_HOME, where it names another folder than its default,
replaces the shared folder: for a container whose disk does not last, and for tests.

Earlier versions kept their locks in the user's state folder, under a key of the service's URL as it was typed. A lock that such a version
left there, or holds, counts too.
"""

import contextlib
import hashlib
import os
import socket
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.record.lock_file import (
    SHARED_FOLDERS,
    SHARED_PREFIX,
    content_of,
    is_held,
    lock_folder,
    read_lock,
    state_folder,
    taken,
    user_name,
    whose,
)
from cutover.text import printable, recover_command


@attrs.frozen(kw_only=True)
class Holder:
    """The process that runs, or ran, a train or its recovery."""

    host: str
    pid: int
    since: str
    run_directory: str
    user: str = ""
    """Name of the user; empty in a lock of an earlier version."""
    state: str = ""
    """The address of the run in STATE_URL; empty if there is none."""

    def describe(self) -> str:
        """Return the process, the time of its start and its run directory in words, safe to print."""
        host, since, user = (printable(text, 80) for text in (self.host, self.since, self.user))
        by = f", user {user}" if user else ""
        return f"pid {self.pid} on {host}, since {since}{by}, run directory {printable(self.run_directory, 1000)}"


@attrs.frozen(kw_only=True)
class RunProcess:
    """The process that a lock names for a run."""

    holder: Holder
    alive: bool | None
    """True if it holds the lock. A process that was killed, or that has ended without emptying the lock, does not. None for the lock in a
    bucket, which cannot tell."""


def process_of(run_directory: Path) -> RunProcess | None:
    """Return the process that runs, ran or recovers a run; None if no lock of this machine names the run. Nothing is changed.

    Raises:
        NotStartedError: The locks cannot be read.
    """
    lock = ServiceLock.left_by(run_directory)
    if lock is None:
        return None
    try:
        holder, alive = _holder(read_lock(lock.path)), is_held(lock.path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotStartedError(f"the lock {lock.path} cannot be read: {error}") from error
    return None if holder is None else RunProcess(holder=holder, alive=alive)


@attrs.define(eq=False)
class ServiceLock:
    """The lock of one service: a file whose name is a hash of the service's identity. It contains the ``Holder``."""

    path: Path
    earlier: tuple[Path, ...] = ()
    """The files that earlier versions would have used. Each that exists is held as well."""
    _handle: int = -1
    _earlier_handles: list[int] = attrs.field(factory=list)

    @classmethod
    def of(cls, *parts: str, earlier: Sequence[tuple[str, ...]] = ()) -> "ServiceLock":
        """Return the lock of the service that these parts name together.

        Args:
            parts: The identity of the service.
            earlier: The parts by which earlier versions named it.
        """
        folder = lock_folder()
        prefix = SHARED_PREFIX if folder in SHARED_FOLDERS else ""
        path = folder / f"{prefix}{_key(parts)}.lock"
        old = (state_folder() / f"{_key(each)}.lock" for each in earlier)
        return cls(path, tuple(each for each in dict.fromkeys(old) if each != path))

    @staticmethod
    def key(*parts: str) -> str:
        """Return the name that these parts have together: the same on every machine."""
        return _key(parts)

    @classmethod
    def left_by(cls, run_directory: Path) -> "ServiceLock | None":
        """Return the lock whose content names this run directory; None if there is none.

        This search is for a journal that has lost its first event: such a journal does not name its service.

        Raises:
            NotStartedError: The locks cannot be read.
        """
        for folder in dict.fromkeys((lock_folder(), state_folder())):
            is_shared = folder in SHARED_FOLDERS
            for path in sorted(folder.glob(f"{SHARED_PREFIX if is_shared else ''}*.lock")):
                try:
                    left = _holder(read_lock(path))
                except FileNotFoundError:
                    continue
                except OSError as error:
                    if is_shared:
                        # Somebody else's file. Those of this program can be read by everybody.
                        continue
                    raise NotStartedError(f"the locks in {folder} cannot be read: {error}") from error
                if left is not None and left.run_directory == str(run_directory.resolve()):
                    return cls(path)
        return None

    def obstacle(self) -> str:
        """Return the reason why a train could not take this lock now, and the thing to do; an empty text if it could. Nothing is written.

        An empty lock is not taken, because a train that starts in this moment must find it free.
        """
        for path in (self.path, *self.earlier):
            try:
                if (left := _holder(read_lock(path))) is None:
                    continue
                if is_held(path):
                    return f"another train is live: {left.describe()}; wait for its end"
                # A train that ended between the two looks has emptied it.
                if (left := _holder(read_lock(path))) is not None:
                    return _unrecovered(path, left)
            except FileNotFoundError:
                continue
            except OSError as error:
                return f"the lock {path}{whose(path)} cannot be read: {error}; let its owner look at it"
        return ""

    @contextlib.contextmanager
    def held(self, *, recovering: Path | None = None, state: str = "") -> Iterator["ServiceLock"]:
        """Hold the lock during the ``with`` block. The content that ``sign`` writes stays until ``close`` empties the lock.

        Args:
            recovering: The run directory that is being recovered; content that names it is no obstacle.
            state: The address of that run in STATE_URL, likewise: a recovery has a run directory of its own.

        Raises:
            NotStartedError: Another train or recovery is live, a killed train is not recovered, the lock cannot be opened, or this
                is Windows.
        """
        if sys.platform == "win32":
            raise NotStartedError("there is no lock on Windows, so no train can be run there")
        with contextlib.ExitStack() as stack:
            stack.callback(self._forget)
            self._handle = _free(self.path, stack, make=True, recovering=recovering, state=state)
            for path in self.earlier:
                with contextlib.suppress(FileNotFoundError):
                    self._earlier_handles.append(
                        _free(path, stack, make=False, recovering=recovering, state=state)
                    )
            yield self

    def _forget(self) -> None:
        self._handle, self._earlier_handles = -1, []

    def sign(self, run_directory: Path, *, state: str = "") -> None:
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
            user=user_name(os.geteuid()) if sys.platform != "win32" else "",
            state=state,
        )
        before = content_of(self._handle)
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
            for handle in (self._handle, *self._earlier_handles):
                _write(handle, b"")
        except OSError as error:
            warnings.warn(f"the lock {self.path} cannot be released: {error}", RuntimeWarning, stacklevel=2)


_DAMAGED = Holder(host="?", pid=0, since="?", run_directory="? (the lock is damaged)")


def _key(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _free(path: Path, stack: contextlib.ExitStack, *, make: bool, recovering: Path | None, state: str) -> int:
    """Take one file of a lock until the stack closes, and return its descriptor.

    Raises:
        NotStartedError: Another train is live, or another run than ``recovering`` is not recovered.
        FileNotFoundError: The file does not exist, and ``make`` is False.
    """
    handle = stack.enter_context(taken(path, make=make, holder=_who))
    left = _holder(content_of(handle))
    same_folder = (
        left is not None and recovering is not None and left.run_directory == str(recovering.resolve())
    )
    if left is not None and not same_folder and not (state and left.state == state):
        raise NotStartedError(_unrecovered(path, left))
    return handle


def _holder(data: bytes) -> Holder | None:
    """Return the holder that the content of a lock names; None for an empty lock."""
    try:
        return msgspec.json.decode(data, type=Holder) if data else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _DAMAGED


def _who(data: bytes) -> str:
    holder = _holder(data)
    return holder.describe() if holder else "its process is not known yet"


def _unrecovered(path: Path, left: Holder) -> str:
    """Return what to do about the content of a lock that nobody holds."""
    if left == _DAMAGED:
        return f"a train was killed, and the lock is damaged and does not name it: check production, then remove {path}{whose(path)}"
    recover = recover_command(left.run_directory)
    if other := _another_user(left):
        return (
            f"a train of {other} was killed and is not recovered: {left.describe()}; production may still hold its changes; {other} must"
            f" run: {recover} (if that is not possible: check production, then remove {path}{whose(path)})"
        )
    return (
        f"a train was killed and is not recovered: {left.describe()}; production may still hold its changes; run: {recover}"
        f" (if that folder no longer exists: check production, then remove {path}{whose(path)})"
    )


def _another_user(left: Holder) -> str:
    """Return the name of the user whose run this is, if it is another user's; empty for one's own, or where the run is gone.

    A recovery sends tokens to the addresses that a journal names. The words in a lock prove nothing, so the owner of the journal counts.
    """
    try:
        owner = (Path(left.run_directory) / "journal.jsonl").stat().st_uid
    except PermissionError:
        return f"user {printable(left.user, 80)}" if left.user else "another user"
    except (OSError, ValueError):
        return ""
    return "" if sys.platform == "win32" or owner == os.geteuid() else f"user {user_name(owner)}"


def _write(handle: int, data: bytes) -> None:
    if os.pwrite(handle, data, 0) != len(data):
        raise OSError("short write")
    # The truncation comes last: where nothing can be written, the old content stays.
    os.ftruncate(handle, len(data))
    os.fsync(handle)
