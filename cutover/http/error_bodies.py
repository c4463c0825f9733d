"""The reasons in the bodies of refused requests. A service gives them as JSON, as plain text, as a page, or not at all."""

import msgspec

from cutover.text import printable

_QUOTED = 80
"""Characters of a body that are quoted if it holds no error in JSON."""


def error_in(body: bytes) -> str | None:
    """Return the error in a JSON body; None if the body is not JSON, or holds no error.

    The error is the object ``error`` with its code, status and message, or the text ``message``.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    error = decoded.get("error") if isinstance(decoded, dict) else None
    if isinstance(error, dict):
        details = [str(error[key]) for key in ("code", "status", "message") if error.get(key) is not None]
        return ": ".join(details) or None
    message = decoded.get("message") if isinstance(decoded, dict) else None
    return message if isinstance(message, str) else None


def quoted(body: bytes) -> str:
    """Return the beginning of a body that holds no error in JSON, safe to print. An empty body says so."""
    text = body.strip()
    return printable(text, _QUOTED) if text else "an empty body"
