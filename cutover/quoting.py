"""What came off the wire, made safe to show: cut short, and with nothing in it that a terminal would obey."""

LONGEST = 200
"""Characters that are shown of a text by default."""


def printable(text: str | bytes, limit: int = LONGEST) -> str:
    """Escape control, format and bidi characters, and cut at ``limit`` characters."""
    if isinstance(text, bytes):
        text = text[: 4 * limit + 4].decode("utf-8", "backslashreplace")
    shown = "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in text[: limit + 1]
    )
    return shown if len(text) <= limit else shown[:limit] + "…"
