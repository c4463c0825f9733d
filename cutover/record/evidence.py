"""The evidence folder: atomic files under the run directory, with every secret masked."""

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
    """The reason why evidence could not be written; None if all was written. No error is raised: a full disk must not stop an undo."""

    def write(self, relative: str, data: bytes) -> str | None:
        """Write one file atomically; return its path relative to the root, or None if it was not written."""
        if self.root is None:
            return None
        try:
            write_atomically(self.root / relative, self.secrets.mask(data))
        except OSError as error:
            self.failed = f"{relative} cannot be written: {error}"
            return None
        return relative

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


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file by temporary file, fsync and rename, so that a reader finds the old content or the new, never a part.

    Create missing folders on the way.

    Raises:
        OSError: The file cannot be written; no temporary file is left.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
