"""The one reader of files that a user names: cutover.toml and the manifest of a dual run."""

import stat
from pathlib import Path

_MAX_BYTES = 1 << 20
"""Largest file of inputs, in bytes."""


def read_file(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        ValueError: The file cannot be read, is no regular file, or is too large. The message is a predicate, such as "cannot be
            read: No such file or directory"; the caller puts the name of the file before it.
    """
    try:
        mode = path.stat().st_mode
        # Opening a pipe would wait for a writer, and a device may never end. Opening a folder gives the right error.
        if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
            with path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        else:
            data = None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from error
    if data is None:
        raise ValueError("cannot be read: it is not a regular file")
    if len(data) > _MAX_BYTES:
        raise ValueError(f"is larger than {_MAX_BYTES} bytes")
    return data
