r"""Untrusted text made safe to print, and short texts that several packages write in the same form.

Text from a stream has one notation in all findings, that of a JSON string: `\n` is a line end, and `\\n` is a backslash and an n.

- A JSON value stands as it was sent. Its own escapes are this notation. `printable` makes it safe for a terminal.
- Any other text, such as a line, an id or data that is not JSON, goes through `escaped` once, which doubles each backslash.

`printable` changes nothing in a text that is safe already, so every writer of a message may use it once more.
"""

import re
import shlex
from datetime import datetime
from pathlib import Path

LONGEST = 200
"""Characters of a text that are shown by default."""
_LITERAL_LINE_END = re.compile(rb"\\n(?:(?:\\r)?\\n|\s*\Z|(?:data|event|id|retry):)")
"""Matches a backslash and an n where the next line of a stream, its blank line or its end follows."""
CUT = "…"
"""The mark at the place where a text was cut."""


def printable(text: str | bytes, limit: int = LONGEST) -> str:
    """Return the text with every unprintable character escaped. A text of more than ``limit`` characters is cut.

    The escapes of a text that is not cut can make the result longer than ``limit``.
    """
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = text[: limit + 1]
    if not shown.isprintable():
        shown = "".join(
            char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
            for char in shown
        )
    return shown if len(text) <= limit else shown[:limit] + CUT


def escaped(text: str | bytes, limit: int = LONGEST) -> str:
    r"""Return a text that is not JSON as in a JSON string, without its quotation marks. It is safe to print.

    A line end is `\n`, and a backslash is `\\`, so the two characters `\` and `n` become `\\n`. A text of more than `limit` characters
    is cut.
    """
    doubled = text.replace(b"\\", b"\\\\") if isinstance(text, bytes) else text.replace("\\", "\\\\")
    return printable(doubled, limit)


def escaped_lines(text: str | bytes) -> str:
    r"""Return a text that should be lines of a stream, like `escaped`; a note follows if `\n` was sent where a line end was meant."""
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    note = (
        r" (\\n is the two characters backslash and n, not a line end)"
        if _LITERAL_LINE_END.search(raw)
        else ""
    )
    return escaped(text) + note


def recover_command(run: Path | str, *options: str) -> str:
    """Return the shell command that recovers a run: a run directory, from any folder of this machine, or an address in STATE_URL."""
    return shlex.join(["cutover", "recover", *options, _from_anywhere(run)])


def status_command(run: Path | str) -> str:
    """Return the shell command that shows the status of a run: a run directory, or an address in STATE_URL."""
    return shlex.join(["cutover", "status", _from_anywhere(run)])


def decide_command(run: Path | str, *, shown: str) -> str:
    """Return the shell command that lets a waiting train go on, with NAME and TEXT to fill in.

    Args:
        run: The run directory of the train, or its address in STATE_URL.
        shown: The id of the wait whose state was shown.
    """
    command = ["cutover", "decide", _from_anywhere(run), "go", "--shown", shown]
    return f"{shlex.join(command)} --by NAME --because TEXT"


def _from_anywhere(run: Path | str) -> str:
    """Return a run directory as any folder of this machine can name it; an address in a bucket as it is."""
    in_a_bucket = isinstance(run, str) and run.startswith("gs://")
    return str(run) if in_a_bucket else str(Path(run).absolute())


def timestamp(moment: datetime) -> str:
    """Return a UTC time as ISO 8601 with milliseconds. Two such texts sort in order of time."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
