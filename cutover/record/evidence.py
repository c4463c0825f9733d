"""The evidence folder: atomic files under the run directory, with every secret masked, for their owner alone."""

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import attrs

from cutover.http.secrets import Secrets

_DROPPED_HEADERS = frozenset({b"set-cookie", b"authorization", b"cookie"})


@attrs.define(eq=False)
class EvidenceFolder:
    """The folder of a run's evidence. Without a root (a rehearsal that writes nothing) every call does nothing."""

    root: Path | None = None
    secrets: Secrets = attrs.field(factory=Secrets)
    failed: str | None = None
    """The first reason why evidence could not be written; None if all was written.

    No error is raised, because a full disk must not stop an undo. But a run without its whole evidence is no GO.
    """

    def write(self, relative: str, data: bytes) -> str | None:
        """Write one file atomically; return its path relative to the root, or None if it was not written."""
        staged = self.stage(relative, data)
        return relative if staged is not None and self.publish(staged) else None

    def stage(self, relative: str, data: bytes) -> "StagedFile | None":
        """Write a file under a temporary name; return None if it was not written. ``publish`` or ``discard`` ends it."""
        if self.root is None:
            return None
        path = self.root / relative
        try:
            return StagedFile(
                path=path, relative=relative, temporary=_write_aside(path, self.secrets.mask(data))
            )
        except OSError as error:
            self.missing(relative, error)
            return None

    def publish(self, staged: "StagedFile") -> bool:
        """Give a staged file its name; return False if that failed. No temporary file is left."""
        try:
            staged.temporary.replace(staged.path)
        except OSError as error:
            self.discard(staged)
            self.missing(staged.relative, error)
            return False
        return True

    def discard(self, staged: "StagedFile") -> None:
        """Remove a staged file."""
        with contextlib.suppress(OSError):
            staged.temporary.unlink()

    def missing(self, relative: str, error: Exception) -> None:
        """Note the reason why a file is missing, unless an earlier one is noted."""
        self.failed = self.failed or f"{relative} cannot be written: {error}"

    def keep_reply(
        self,
        step_id: str,
        name: str,
        *,
        status_line: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
    ) -> tuple[str | None, str | None]:
        """Write the head and the body of a reply, without cookies and credentials; return both paths, None for a file that was not written."""
        lines = [status_line.encode()]
        lines += [key + b": " + value for key, value in headers if key.lower() not in _DROPPED_HEADERS]
        head = self.write(f"{step_id}/{name}.headers", b"\r\n".join(lines) + b"\r\n\r\n")
        return head, self.write(f"{step_id}/{name}.body", body)


@attrs.frozen(kw_only=True)
class StagedFile:
    """A file whose content is on disk under a temporary name beside its own."""

    path: Path
    relative: str
    """The path relative to the run directory."""
    temporary: Path


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by temporary file, fsync and rename, so that a reader finds the old content or the new, never a part.

    Only its owner may read it. Create missing folders on the way, for their owner alone.

    Raises:
        OSError: The file cannot be written; no temporary file is left.
    """
    temporary = _write_aside(path, data)
    try:
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def make_private_folder(folder: Path) -> None:
    """Make a folder, and the missing ones above it, with access for their owner alone. A folder that exists is left as it is.

    Raises:
        OSError: The folder cannot be made, or a file is in its place.
    """
    try:
        folder.mkdir(mode=0o700)
    except FileNotFoundError:
        make_private_folder(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        if not folder.is_dir():
            raise
        return
    # A umask may have taken more away.
    folder.chmod(0o700)


def _write_aside(path: Path, data: bytes) -> Path:
    """Write the content of a file under a temporary name beside it, and fsync it; return that name.

    Raises:
        OSError: The file cannot be written; no temporary file is left.
    """
    make_private_folder(path.parent)
    # Made with the mode 0600.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        # A umask may have taken more away.
        temporary.chmod(0o600)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return temporary
