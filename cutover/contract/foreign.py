"""Code that the owner of a contract wrote, and the errors that it raises. None of them may leave the checker."""

from cutover.text import printable


def words_of(error: Exception) -> str:
    """Return an error of the owner's code in words, for a finding."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception:  # noqa: BLE001  the class is the owner's too
        text = ""
    return printable(f"{name}: {text}" if text else name)
