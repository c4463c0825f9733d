"""Untrusted text made safe to print, and short texts that several packages write in the same form."""

import shlex
from datetime import datetime
from pathlib import Path

LONGEST = 200
"""Characters of a text that are shown by default."""
CUT = "…"
"""The mark at the place where a text was cut."""


def printable(text: str | bytes, limit: int = LONGEST) -> str:
    """Return the text with every unprintable character escaped. A text of more than ``limit`` characters is cut.

    The escapes of a text that is not cut can make the result longer than ``limit``.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[: limit + 1]
    )
    return shown if len(text) <= limit else shown[:limit] + CUT


def recover_command(run_directory: Path | str, *options: str) -> str:
    """Return the shell command that recovers a run. It works from any folder of this machine."""
    return shlex.join(["cutover", "recover", *options, str(Path(run_directory).absolute())])


def timestamp(moment: datetime) -> str:
    """Return a UTC time as ISO 8601 with milliseconds. Two such texts sort in order of time."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
