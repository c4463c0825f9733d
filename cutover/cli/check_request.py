"""The headers and the body that a user gives to ``cutover check``."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import click
import msgspec

from cutover.http.secrets import Secrets


@attrs.frozen(kw_only=True)
class Sent:
    """The headers and the body that the user gave for every request, and whether streams are resumed."""

    headers: Mapping[str, str] = attrs.field(repr=False)
    """Header values by lower-case name."""
    secrets: Secrets
    """The header values that were read from the environment; they are masked in all output."""
    body: bytes | None
    """The JSON body. None: send a new chat turn to a stream path of the lane (such as /api/chat/stream), and no body to any other path."""
    resume: bool = False
    """True to cut each stream, and to resume it with a second request."""


def sent_by_user(headers: Sequence[str], data: str | None) -> Sent:
    """Return the headers and the body from `--header` and `--data`."""
    fields: dict[str, str] = {}
    secrets: list[str] = []
    for text in headers:
        name, value = _header(text, secrets)
        if name in fields:
            raise click.BadParameter(f"{name} is given twice", param_hint="--header")
        fields[name] = value
    body = None if data is None else _body(data)
    return Sent(headers=fields, secrets=Secrets(tuple(secrets)), body=body)


def _header(text: str, secrets: list[str]) -> tuple[str, str]:
    """Return the lower-case name and the value of one `--header`; add values from the environment to `secrets`."""
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()):
        raise click.BadParameter("write 'name: value'", param_hint="--header")
    missing: list[str] = []

    def read(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if variable not in os.environ:
            missing.append(variable)
            return ""
        secrets.append(os.environ[variable].strip())
        return os.environ[variable]

    filled = re.sub(r"\$(?:\{(\w+)\}|(\w+))", read, value).strip()
    if missing:
        raise click.BadParameter(
            f"{name.strip()}: ${missing[0]} is not set in the environment", param_hint="--header"
        )
    if not (filled.isascii() and filled.isprintable()):
        raise click.BadParameter(f"{name.strip()}: the value is not printable ASCII", param_hint="--header")
    return name.strip().lower(), filled


def _body(data: str) -> bytes:
    """Return the body from `--data`: the text itself, or the file after `@`; raise a usage error if that is not JSON."""
    try:
        body = read_target(data[1:]) if data.startswith("@") else os.fsencode(data)
        msgspec.json.decode(body)
    except OSError as error:
        raise click.BadParameter(
            f"{data[1:]} cannot be read ({error.strerror})", param_hint="--data"
        ) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise click.BadParameter(f"the body is not JSON: {error}", param_hint="--data") from error
    return body


def read_target(path: str) -> bytes:
    """Return the content of a file, or of standard input for `-`; raise OSError if it cannot be read."""
    if path != "-":
        return Path(path).read_bytes()
    # Python sets `sys.stdin` to None if the parent process closed it
    if sys.stdin is None:
        raise OSError(0, "standard input is closed")
    return sys.stdin.buffer.read()
