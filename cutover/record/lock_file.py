"""The files that locks are made of: the folder that all users of a machine find, and files that are safe to open there.

``lock.py`` knows what a lock contains and means; this module knows none of it.
"""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from cutover.errors import NotStartedError
from cutover.record.evidence import make_private_folder

if sys.platform != "win32":
    import fcntl
    import pwd

SHARED_FOLDERS = (Path("/var/tmp"), Path("/tmp"))  # noqa: S108  every user must find the same folder; see the top of this module
"""Folders for the locks of all users, the best first: /var/tmp outlives a restart."""
SHARED_PREFIX = "cutover-"
"""The beginning of a lock's name in a folder that other programs use too."""
_OPENING = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK if sys.platform != "win32" else 0
"""Flags for a file that somebody else may have put there: follow no link, and do not wait for the other end of a pipe."""
MOST = 1 << 16
"""Largest number of bytes that are read from a lock."""
_TRIES = 5
"""Number of times that a lock is opened, if somebody else makes or removes it at the same moment."""
_OWNER = 0
"""The number of the user whose folder is trusted not to lose a file: root."""
_FOR_EVERYBODY = stat.S_ISVTX | stat.S_IWOTH
"""The mode bits of a folder in which everybody may make files, and only a file's owner may remove one."""


def state_folder() -> Path:
    """Return the user's own state folder (XDG base directory specification), where earlier versions kept the locks."""
    return Path(os.environ.get("XDG_STATE_HOME") or _default_state_home()) / "cutover"


def lock_folder() -> Path:
    """Return the folder of the locks: XDG_STATE_HOME, if it names another folder than its default; else a folder that all users share.

    Without a folder that is safe to share it is the user's state folder, which only excludes the user's own trains.
    """
    given = os.environ.get("XDG_STATE_HOME")
    if given and Path(given) != _default_state_home():
        return state_folder()
    return next((folder for folder in SHARED_FOLDERS if _is_for_everybody(folder)), state_folder())


def _default_state_home() -> Path:
    # An account without an entry and without HOME has no home; any folder does that is not shared.
    with contextlib.suppress(RuntimeError):
        return Path.home() / ".local" / "state"
    return Path("/nonexistent")


def _is_for_everybody(folder: Path) -> bool:
    """Return True if every user may make files in a folder, and only a file's owner may remove one.

    Not "if this user may": each user must come to the same answer.
    """
    try:
        found = folder.stat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_mode & _FOR_EVERYBODY == _FOR_EVERYBODY
        and found.st_uid == _OWNER
    )


@contextlib.contextmanager
def taken(path: Path, *, make: bool, holder: Callable[[bytes], str]) -> Iterator[int]:
    """Open a lock, take it without waiting, and give its descriptor; closing it gives the lock back.

    ``holder`` describes the process that holds the lock, from the lock's content.

    Raises:
        NotStartedError: Another process holds it, or it cannot be opened or taken.
        FileNotFoundError: It does not exist, and ``make`` is False.
    """
    for _ in range(_TRIES):
        handle = _opened(path, make=make)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise NotStartedError(f"another train is live: {holder(content_of(handle))}") from error
            except OSError as error:
                # No locks left, a file system without locks: nobody knows if a train is live.
                raise NotStartedError(
                    f"the lock {path} cannot be taken: {error}; nothing was changed"
                ) from error
            if _is_at(handle, path):
                yield handle
                return
        finally:
            os.close(handle)
    raise NotStartedError(
        f"the lock {path} is removed again and again; nothing was changed; stop the program that removes files there, then start again"
    )


def _opened(path: Path, *, make: bool) -> int:
    try:
        return _open_or_make(path) if make else _open(path)
    except FileNotFoundError:
        if not make:
            raise
        raise NotStartedError(
            f"the lock {path} cannot be opened, because it is made and removed again and again; nothing was changed; start again"
        ) from None
    except OSError as error:
        owner = whose(path)
        advice = (
            "; ask them to remove it, or let all who run trains of this service set XDG_STATE_HOME to one folder that"
            " they share"
        )
        raise NotStartedError(
            f"the lock {path}{owner} cannot be opened: {error}; nothing was changed{advice if owner else ''}"
        ) from error


def _open_or_make(path: Path) -> int:
    if path.parent not in SHARED_FOLDERS:
        make_private_folder(path.parent)
    for _ in range(_TRIES):
        # Linux refuses O_CREAT on somebody else's file in a shared folder (fs.protected_regular), so a lock that exists is opened without.
        with contextlib.suppress(FileNotFoundError):
            return _open(path)
        with contextlib.suppress(FileExistsError):
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _OPENING, 0o600)
            try:
                # Those who may write to the folder may take and sign the lock, whatever the umask is.
                os.fchmod(handle, 0o600 | (path.parent.stat().st_mode & 0o022) * 3)
            except BaseException:
                os.close(handle)
                raise
            return handle
    raise FileNotFoundError(path)


def _open(path: Path) -> int:
    """Open a lock to read and write.

    Raises:
        OSError: It cannot be opened, or it is no ordinary file: a link, a pipe, or a second name of another file.
    """
    handle = os.open(path, os.O_RDWR | _OPENING)
    try:
        _must_be_ordinary(handle)
    except BaseException:
        os.close(handle)
        raise
    return handle


def _must_be_ordinary(handle: int) -> None:
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        raise OSError("it is not an ordinary file")


def _is_at(handle: int, path: Path) -> bool:
    """Return True if a path still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except OSError:
        return False


def read_lock(path: Path) -> bytes:
    """Return the content of a lock that is not held.

    Raises:
        OSError: It cannot be read, or is no ordinary file.
    """
    handle = os.open(path, os.O_RDONLY | _OPENING)
    try:
        _must_be_ordinary(handle)
        return content_of(handle)
    finally:
        os.close(handle)


def is_held(path: Path) -> bool:
    """Return True if a process holds this lock. For that the lock is taken for a moment, together with other readers.

    Raises:
        OSError: It cannot be opened or taken, or is no ordinary file.
    """
    handle = os.open(path, os.O_RDONLY | _OPENING)
    try:
        _must_be_ordinary(handle)
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def content_of(handle: int) -> bytes:
    """Return the content of an open lock, up to a bound."""
    return os.pread(handle, MOST, 0)


def whose(path: Path) -> str:
    """Return the owner of a file in words, if it is another user; else nothing."""
    with contextlib.suppress(OSError):
        owner = path.lstat().st_uid
        if sys.platform != "win32" and owner != os.geteuid():
            return f" (it belongs to user {user_name(owner)})"
    return ""


def user_name(number: int) -> str:
    """Return the name of a user; the number if there is no such account."""
    if sys.platform != "win32":
        with contextlib.suppress(KeyError):
            return pwd.getpwuid(number).pw_name
    return str(number)
