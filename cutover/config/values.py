"""Parsers of texts, and rules about values.

A parser raises ValueError for a wrong text. A rule returns the problem of a wrong value, and an empty text for a right value. The module is a
little longer than most, because a reader looks for all of them in one place.
"""

import ipaddress
import os
import re
import shlex
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

from cutover.http.tokens import token_problem
from cutover.model.holds import NAMED_HOLDS

Rule = Callable[[object], str]

_NAME = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
_PROJECT = re.compile(r"([a-z0-9][a-z0-9.-]*:)?[a-z0-9][a-z0-9-]{0,62}")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_THREAD_PREFIX = re.compile(r"[A-Za-z0-9_.-]{1,80}")
_CONTROL = frozenset(map(chr, range(32)))
_GOOGLE = re.compile(r"([a-z0-9-]+\.)*googleapis\.com\.?")
_HTTPS_PORT = 443
_ALL = 100
_WINDOW = re.compile(r"([1-9][0-9]{0,5})(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}


def parse_window(text: str) -> float:
    """Return the seconds of a window such as ``30d`` or ``6h``, as PromQL writes it.

    Raises:
        ValueError: The text is no such window.
    """
    found = _WINDOW.fullmatch(text)
    if found is None:
        raise ValueError("must be a window such as 30d, 6h or 5m")
    return int(found[1]) * _SECONDS[found[2]]


def parse_flag(text: str) -> bool:
    """Read a flag: the text 0 or 1.

    Raises:
        ValueError: The text is anything else. The other parsers raise ValueError too; ``parse_url`` never does.
    """
    if text not in {"0", "1"}:
        raise ValueError("must be 0 or 1")
    return text == "1"


def parse_number(text: str) -> float:
    """Read a decimal number such as -1.5: ASCII digits, at most 12 before and after the point, and no exponent."""
    if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,12})?", text):
        raise ValueError("must be a number")
    return float(text)


def parse_count(text: str) -> int:
    """Read a whole number: 1 to 9 ASCII digits."""
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("must be a whole number, 0 or more")
    return int(text)


def parse_steps(text: str) -> tuple[int, ...]:
    """Read whole numbers of 1 to 3 digits, such as ``5,25,50,100``. The rule ``steps`` checks their range and order."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]{0,2}", part) for part in parts):
        raise ValueError("must be whole percents like 5,25,50,100")
    return tuple(int(part) for part in parts)


def parse_holds(text: str) -> tuple[str, ...]:
    """Read the places of holds, such as ``25,100,flip``. The rule ``holds`` checks them."""
    return tuple(part.strip() for part in text.split(","))


def parse_url(text: str) -> str:
    """Return a URL without the slashes at its end."""
    return text.rstrip("/")


def flag(value: object) -> str:
    """Accept True and False."""
    return "" if isinstance(value, bool) else f"must be True or False, not {value!r}"


def number(*, most: float, above: bool = False, optional: bool = False) -> Rule:
    """Return a rule that accepts a finite number from 0 to ``most``; ``above`` refuses 0, ``optional`` accepts None."""

    def rule(value: object) -> str:
        if value is None and optional:
            return ""
        if (
            isinstance(value, int | float)
            and not isinstance(value, bool)
            and 0 <= value <= most
            and not (above and value == 0)
        ):
            return ""
        return (
            f"must be a number, {'more than' if above else 'at least'} 0 and at most {most:g}, not {value!r}"
        )

    return rule


def count(*, most: float) -> Rule:
    """Return a rule that accepts a whole number from 0 to ``most``."""
    in_range = number(most=most)

    def rule(value: object) -> str:
        if isinstance(value, float):
            return f"must be a whole number, not {value!r}"
        return in_range(value)

    return rule


def text(value: object) -> str:
    """Accept a text that a header or a path can hold, and an empty text."""
    fine = isinstance(value, str) and value.isascii() and value.isprintable() and value == value.strip()
    return "" if fine else f"must be printable ASCII without spaces around it, not {value!r}"


def token(value: object) -> str:
    """Accept a token, and an empty text. The value is a secret, so the problem does not show it."""
    return "" if value == "" else token_problem(value if isinstance(value, str) else "")


def command(value: object) -> str:
    """Accept a command line as a shell would split it, and an empty text."""
    if problem := text(value):
        return problem
    try:
        return "" if value == "" or shlex.split(str(value)) else "must name a program"
    except ValueError as error:
        return f"is not a command line ({error}): {value!r}"


def matching(pattern: re.Pattern[str], description: str) -> Rule:
    """Return a rule that accepts a text if the whole of it matches a pattern."""

    def rule(value: object) -> str:
        return (
            ""
            if isinstance(value, str) and pattern.fullmatch(value)
            else f"must be {description}, not {value!r}"
        )

    return rule


revision = matching(
    _NAME,
    "a Cloud Run revision name (lower-case letters, digits and hyphens, at most 63; a letter first, no hyphen last)",
)
name = matching(_NAME, "lower-case letters, digits and hyphens, at most 63; a letter first, no hyphen last")
project = matching(_PROJECT, "a project id such as chat-production or example.com:chat")
header_name = matching(re.compile(f"({_HEADER.pattern})?"), "the name of a header")
optional_tag = matching(
    re.compile(f"({_NAME.pattern})?"),
    "the name of a Cloud Run tag (lower-case letters, digits and hyphens; a letter first, no hyphen last), or empty",
)
window = matching(_WINDOW, "a window such as 30d, 6h or 5m (a whole number and ms, s, m, h, d or w)")
thread_prefix = matching(_THREAD_PREFIX, "1 to 80 letters, digits, '_', '.' and '-'")
backend = matching(re.compile("cloud-run-api|gcloud"), "cloud-run-api or gcloud")


def steps(value: object) -> str:
    """Accept whole percents, strictly rising, 1 to 100."""
    percents = value if isinstance(value, tuple) else ()
    whole = all(type(percent) is int and 1 <= percent <= _ALL for percent in percents)
    if percents and whole and all(one < other for one, other in pairwise(percents)):
        return ""
    shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
    return f"must be whole percents from 1 to 100, strictly rising, not {shown!r}"


def holds(value: object) -> str:
    """Accept whole percents from 1 to 100 and the names of holds, each once."""
    places = value if isinstance(value, tuple) else ("",)
    shares = re.compile("[1-9][0-9]?|100")
    known = all(
        isinstance(place, str) and (place in NAMED_HOLDS or shares.fullmatch(place)) for place in places
    )
    if known and len(set(places)) == len(places):
        return ""
    shown = ",".join(map(str, places)) if isinstance(value, tuple) else value
    return f"must be shares of CANARY_STEPS and {' or '.join(NAMED_HOLDS)}, each once, like 25,100,flip, not {shown!r}"


def url(value: object) -> str:
    """Accept an http(s) URL with a host, and with or without a port and a path; no credentials, no query, no fragment."""
    # A value that may hold credentials is never shown.
    if "@" in str(value):
        return "must not hold credentials"
    try:
        parts = urlsplit(str(value))
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        return f"is not a URL ({error})"
    if parts.query or parts.fragment:
        return "must have neither query nor fragment"
    if parts.scheme not in {"http", "https"} or not host:
        return f"must start with https:// (or http:// on loopback) and name a host, not be {value!r}"
    if any(char.isspace() for char in str(value)):
        return f"must hold no spaces, not be {value!r}"
    return text(value)


def notice_url(value: object) -> str:
    """Accept an http(s) URL with a host, and an empty text. The whole URL is a secret, so the problem does not show it."""
    if value == "":
        return ""
    try:
        parts = urlsplit(str(value))
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in {"http", "https"} or not host:
        return "must start with https:// (or http:// on loopback) and name a host"
    if "@" in parts.netloc or parts.fragment:
        return "must hold neither a login nor a fragment"
    fine = isinstance(value, str) and value.isascii() and value.isprintable() and " " not in value
    return "" if fine else "must be printable ASCII without spaces"


def optional_url(value: object) -> str:
    """Accept an empty text, or a URL as ``url`` does."""
    return "" if value == "" else url(value)


def query(value: object) -> str:
    """Accept a PromQL query with the place ``$window``, and an empty text."""
    if problem := text(value):
        return problem
    missing = (
        "must hold $window in place of a fixed window such as 30d, because it is asked for several windows; in a shell, put the "
        f"query in single quotes, not {value!r}"
    )
    return missing if value and "$window" not in str(value) else ""


def revision_query(value: object) -> str:
    """Accept a PromQL query with the places ``$window`` and ``$revision``, and an empty text."""
    if problem := query(value):
        return problem
    missing = f"must hold $revision in place of the name of a revision; in a shell, put the query in single quotes, not {value!r}"
    return missing if value and "$revision" not in str(value) else ""


def path(value: object) -> str:
    """Accept a path that a file can have on this machine, without control characters; also an empty text and None."""
    if not isinstance(value, str | Path | None):
        return f"must be a path, not {value!r}"
    name = "" if value is None else str(value)
    if not is_utf8(name):
        return f"must be UTF-8, not {name!a}: the journal and the artifacts cannot hold another text"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return f"has characters that a file name cannot have on this machine: {name!a}"
    return (
        ""
        if name.isprintable() or not set(name) & _CONTROL
        else f"must hold no control characters, not be {name!a}"
    )


def is_utf8(name: str | Path) -> bool:
    """Return True if a path can be written as UTF-8. Python holds the other bytes of a path as lone surrogates (PEP 383)."""
    try:
        str(name).encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_http(value: str) -> str:
    """Refuse plain http to another machine."""
    parts = urlsplit(value)
    if parts.scheme != "http" or is_loopback(parts.hostname or ""):
        return ""
    return (
        f"is plain http to {parts.hostname}, which is not loopback; use https, or set ALLOW_INSECURE_HTTP=1"
    )


def is_google(url: str) -> bool:
    """Return True if an address belongs to Google's APIs: https to googleapis.com, or to a host below it, on port 443.

    Regional endpoints (``us-central1-run.googleapis.com``) and private ones (``run-xyz.p.googleapis.com``) count. Google's default
    credentials go to such an address alone: at any other one a stranger would get the token.
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    # A host with other characters may be read in another way by the HTTP client.
    return (
        parts.scheme == "https"
        and parts.port in {None, _HTTPS_PORT}
        and parts.username is None
        and _GOOGLE.fullmatch(host) is not None
    )


def is_loopback(host: str) -> bool:
    """Return True if a host name or address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def same_site(one: str, other: str) -> bool:
    """Return True if two URLs are one site: the same host, or one a subdomain of the other.

    Siblings such as ``a.example.com`` and ``b.example.com`` are two sites: only their owner knows that they belong together.
    """
    first, second = urlsplit(one).hostname or "", urlsplit(other).hostname or ""
    return first == second or first.endswith(f".{second}") or second.endswith(f".{first}")
