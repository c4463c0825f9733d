"""The headers and the body that a user gives to ``cutover check``."""

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import click
import msgspec

from cutover.contract import StreamContext
from cutover.http.secrets import Secrets, secrets_of

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
"""The name of a header or of a method: a token (RFC 9110 5.6.2)."""
_WITHOUT_STREAM = frozenset({"CONNECT", "HEAD", "TRACE"})
"""Methods whose response has no stream of its own."""


@attrs.frozen(kw_only=True)
class Sent:
    """The parts of every request that the user gave."""

    headers: Mapping[str, str] = attrs.field(repr=False)
    """Header values by lower-case name."""
    secrets: Secrets
    """The header values that were read from the environment; they are masked in all output."""
    body: bytes | None
    """The JSON body. None: send a new chat turn to a stream path of the lane (such as /api/chat/stream), and no body to any other path."""
    method: str | None = None
    """The method; None: that of the target's contract."""
    known_calls: frozenset[str] = frozenset()
    """Ids of the tool calls in the message that each stream continues."""
    resume: bool = False
    """True to cut each stream, and to resume it with a second request."""

    def secrets_for(self, target: str) -> Secrets:
        """Return the secrets that the response of a target may echo."""
        return Secrets((*self.secrets.values, *secrets_of(self.headers, target).values))

    def context(self, thread_id: str | None = None) -> StreamContext:
        """Return the facts about a request that its stream answers."""
        return StreamContext(thread_id=thread_id, known_tool_calls=self.known_calls)


def sent_by_user(
    headers: Sequence[str],
    data: str | None,
    *,
    method: str | None = None,
    known_calls: Sequence[str] = (),
    resume: bool = False,
) -> Sent:
    """Return the parts of each request that the options give."""
    fields: dict[str, str] = {}
    secrets: list[str] = []
    for text in headers:
        name, value = _header(text, secrets)
        if name in fields:
            raise click.BadParameter(f"{name} is given twice", param_hint="--header")
        fields[name] = value
    return Sent(
        headers=fields,
        secrets=Secrets(tuple(secrets)),
        body=None if data is None else _body(data),
        method=method,
        known_calls=frozenset(known_calls),
        resume=resume,
    )


def read_method(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return the method of `--method` in capitals; raise a usage error for a text that is none, or that starts no stream."""
    if value is None:
        return None
    method = value.upper()
    if not re.fullmatch(_NAME, method):
        raise click.BadParameter(f"{value!a} is no HTTP method, such as GET, POST or PUT")
    if method in _WITHOUT_STREAM:
        raise click.BadParameter(
            f"a response to {method} is no stream; give a method such as GET, POST or PUT"
        )
    return method


def _header(text: str, secrets: list[str]) -> tuple[str, str]:
    """Return the lower-case name and the value of one `--header`; add values from the environment to `secrets`.

    `$NAME` and `${NAME}` stand for a variable, and `$$` for the sign itself. Any other `$` stands for itself too.
    """
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(_NAME, name.strip()):
        raise click.BadParameter("write 'name: value'", param_hint="--header")
    missing: list[str] = []

    def read(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if variable is None:
            return "$"
        if variable not in os.environ:
            missing.append(variable)
            return ""
        secrets.append(os.environ[variable].strip())
        return os.environ[variable]

    filled = re.sub(r"\$(?:\$|\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*))", read, value, flags=re.ASCII).strip()
    if missing:
        raise click.BadParameter(
            f"{name.strip()}: ${missing[0]} is not set in the environment; write $$ for the sign itself",
            param_hint="--header",
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
