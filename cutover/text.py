"""Text made safe to print, and texts that several rooms write alike."""

import shlex
from datetime import datetime
from pathlib import Path

LONGEST = 200
"""Characters that are shown of a text by default."""
CUT = "…"
"""What stands where a text was cut."""


def printable(text: str | bytes, limit: int = LONGEST) -> str:
    """Escape control, format and bidi characters, and cut at ``limit`` characters."""
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[: limit + 1]
    )
    return shown if len(text) <= limit else shown[:limit] + CUT


def recover_command(run_directory: Path | str, *options: str) -> str:
    """Return the command that recovers a run, as it can be typed anywhere on this machine."""
    return shlex.join(["cutover", "recover", *options, str(Path(run_directory).absolute())])


def timestamp(moment: datetime) -> str:
    """Return a moment in UTC as ISO 8601, to the millisecond; two of them compare as text."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
