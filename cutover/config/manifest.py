"""The manifest of a dual run, read from JSON: the requests for both services, and the way to compare their replies."""

import re
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec

from cutover.config.files import read_file
from cutover.errors import ConfigurationError
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.text import printable

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,79}")
_PATH = re.compile(r"/(?!/)[!-~]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[ -~]*")
_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"})
_REQUIRED = {"id": str, "path": str}
_DEFAULTS: dict[str, str | bool] = {
    "method": "GET",
    "response_kind": "json",
    "critical": False,
    "requires_auth": False,
}
"""The keys that an entry may leave out, with the values that the lane's own dual-run script gives them."""
_OPTIONAL: dict[str, type] = {
    **{name: type(value) for name, value in _DEFAULTS.items()},
    "headers": dict,
    "mutates": bool,
    "expect_status": int,
    "deterministic": bool,
    "ignore": list,
}
_NAMES = {
    str: "a string",
    bool: "true or false",
    dict: "an object",
    int: "a whole number",
    list: "a list",
}
_TOP_KEYS = frozenset({"requests", "$schema"})
_KINDS = frozenset(kind.value for kind in ResponseKind)
_CHANGING = frozenset({"PUT", "PATCH", "DELETE"})
"""Methods of requests that change something unless the entry says otherwise. POST is not one of them: a chat turn is a POST."""
_LEAST_STATUS, _MOST_STATUS, _LAST_SUCCESS, _FIRST_REFUSAL = 200, 499, 299, 400
_OTHER_PLACEHOLDER = re.compile(r"(?P<placeholder>\{(?!thread_id\})[A-Za-z_][A-Za-z0-9_.-]*\})")
_OTHER_IN_WORD = re.compile(rf"\S*{_OTHER_PLACEHOLDER.pattern}\S*")
"""Another placeholder in a text without a space. In a sentence, braces are the user's own words."""
_THREAD_ID = re.compile(r"\{\s*[Tt][Hh][Rr][Ee][Aa][Dd][\s_-]*[Ii][Dd]\s*\}")
_ALMOST_THREAD_ID = re.compile(rf"(?P<placeholder>(?!\{{thread_id\}}){_THREAD_ID.pattern})")
PLACE = re.compile(r"(?:(?:headers|stream)(?:\.\S+)?|text|[.\[]\S*)")
"""A place of a difference, as the dual run names it."""


def manifest_schema() -> bytes:
    """Return the JSON Schema of a manifest, which ships with cutover as ``dual_run_manifest.schema.json``."""
    return files("cutover.config").joinpath("dual_run_manifest.schema.json").read_bytes()


def shipped_manifest() -> tuple[ManifestEntry, ...]:
    """Return the manifest that ships with cutover."""
    return parse_manifest(
        files("cutover.config").joinpath("dual_run_manifest.json").read_bytes(), name="the shipped manifest"
    )


def read_manifest(path: str, *, name: str) -> tuple[ManifestEntry, ...]:
    """Read a manifest from a file; an empty path means the manifest that ships.

    Args:
        path: The file.
        name: The name of the input that gave the path, for messages.

    Raises:
        ConfigurationError: The file cannot be read, or is no manifest.
    """
    if not path:
        return shipped_manifest()
    try:
        data = read_file(Path(path))
    except ValueError as error:
        raise ConfigurationError([f"{name} {error}: {printable(path)}"]) from error
    return parse_manifest(data, name=name)


def parse_manifest(data: bytes, *, name: str) -> tuple[ManifestEntry, ...]:
    """Return the entries of a manifest, ``{"requests": [...]}``.

    An entry needs an ``id`` and a ``path``. Without the other keys it is a GET of JSON, neither critical nor with a token. An entry
    with the method PUT, PATCH or DELETE has ``"mutates": true`` unless it says otherwise. A POST must say it, unless it asks for an event
    stream or expects a refusal.

    Args:
        data: The JSON.
        name: The name of the manifest, for messages.

    Raises:
        ConfigurationError: The manifest is malformed; every problem names its entry and its key.
    """
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigurationError([f"{name} is not JSON: {error}"]) from error
    rows = document.get("requests") if isinstance(document, dict) else None
    problems = [
        f"{name}: {printable(repr(key))} is not a key of a manifest; its keys are 'requests' and '$schema'"
        for key in (document if isinstance(document, dict) else ())
        if key not in _TOP_KEYS
    ]
    if not isinstance(rows, list) or not rows:
        problems.append(f'{name} must be an object with a key "requests", a list of at least one entry')
        raise ConfigurationError(problems)
    entries: list[ManifestEntry] = []
    for number, given in enumerate(rows):
        row = {**_DEFAULTS, **given} if isinstance(given, dict) else given
        where = f"{name}: requests[{number}]"
        wrong = _problems(row, where)
        problems += wrong
        if not wrong:
            entries.append(_entry(row))
    ids = [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
    problems += [
        f"{name}: the id {entry_id!r} is used more than once"
        for entry_id, times in sorted(Counter(ids).items())
        if times > 1
    ]
    if problems:
        raise ConfigurationError(problems)
    return tuple(entries)


def _entry(row: dict[str, Any]) -> ManifestEntry:
    read = {
        "response_kind": ResponseKind(row["response_kind"]),
        "mutates": row.get("mutates", row["method"] in _CHANGING),
        "ignore": tuple(row.get("ignore", ())),
    }
    return ManifestEntry(**{**row, **read})


def _problems(row: object, where: str) -> list[str]:
    """Return the problems of an entry. A key with a value of the wrong type hides no problem of another key."""
    if not isinstance(row, dict):
        return [f"{where} must be an object"]
    where = f"{where} ({row['id']!r})" if isinstance(row.get("id"), str) else where
    kinds = _REQUIRED | _OPTIONAL
    problems = [f"{where} lacks the key {key!r}" for key in _REQUIRED if key not in row]
    problems += [
        f"{where}: {key!r} must be {_NAMES[kind]}"
        for key, kind in kinds.items()
        if key in row and not _is_a(kind, row[key])
    ]
    problems += [
        f"{where}: {key!r} is not a key of an entry" for key in row if key not in kinds and key != "body"
    ]
    readable = {key: value for key, value in row.items() if key not in kinds or _is_a(kinds[key], value)}
    found = (*_problems_of_request(readable), *_problems_of_change(row), *_problems_of_comparison(readable))
    return [*problems, *(f"{where}: {problem}" for problem in found)]


def _problems_of_request(row: dict[str, Any]) -> Iterator[str]:
    """Yield the problems of the keys that say what is sent."""
    if (method := row.get("method")) is not None and method not in _METHODS:
        yield f"'method' must be one of {', '.join(sorted(_METHODS))}, not {method!r}"
    if "id" in row and not _ID.fullmatch(row["id"]):
        yield "'id' must be 1 to 80 letters, digits, '_', '.' and '-'"
    path = row.get("path")
    if path is not None and not _PATH.fullmatch(path):
        yield f"'path' must start with one slash and be printable ASCII, not be {path!r}"
    elif path is not None and (found := _OTHER_PLACEHOLDER.search(path)):
        yield f"'path' holds {found[0]}, and {{thread_id}} is the only placeholder"
    kind = row.get("response_kind")
    if kind is not None and kind not in _KINDS:
        yield f"'response_kind' must be json, text or sse, not {kind!r}"
    yield from _problems_of_headers(row.get("headers", {}))
    for text in _strings(row.get("body")):
        if (found := _OTHER_IN_WORD.fullmatch(text)) or (found := _ALMOST_THREAD_ID.search(text)):
            shown = found["placeholder"]
            yield f"'body' holds {printable(shown)}, and {{thread_id}} is the only placeholder"


def _problems_of_headers(headers: dict[str, Any]) -> Iterator[str]:
    if not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in headers.values()):
        yield "'headers' must hold printable ASCII strings"
    for key in headers:
        if not _HEADER.fullmatch(key):
            yield f"'headers' holds {key!r}, which is not the name of a header"
    if any(key.lower() in {"authorization", "cookie"} for key in headers):
        yield "'headers' must not hold credentials; they come from AUTH_TOKEN and LEGACY_AUTH_TOKEN"
    if any(isinstance(value, str) and _THREAD_ID.search(value) for value in headers.values()):
        yield "'headers' holds {thread_id}, which is a placeholder in 'path' and 'body' alone"


def _problems_of_change(row: dict[str, Any]) -> Iterator[str]:
    """Yield the problem of a POST of which nobody can tell if it changes something.

    A chat turn is the lane's usual request, and a request that is expected to be refused changes nothing.
    """
    kind, status = row["response_kind"], row.get("expect_status", _LAST_SUCCESS)
    if row["method"] != "POST" or "mutates" in row or not _is_a(str, kind) or not _is_a(int, status):
        return
    if kind in _KINDS and kind != ResponseKind.SSE.value and status < _FIRST_REFUSAL:
        yield (
            "'mutates' is missing: a POST that is no event stream must say if it changes something; "
            "true: it is sent only with RUN_MUTATING_REQUESTS=1; false: it only reads, and is sent several times"
        )


def _problems_of_comparison(row: dict[str, Any]) -> Iterator[str]:
    """Yield the problems of the keys that say how answers are compared."""
    status, kind = row.get("expect_status"), row.get("response_kind")
    if status is not None and not _LEAST_STATUS <= status <= _MOST_STATUS:
        yield f"'expect_status' must be a status from {_LEAST_STATUS} to {_MOST_STATUS}, not {status}"
    elif status is not None and status > _LAST_SUCCESS and kind == ResponseKind.SSE.value:
        yield f"'expect_status' {status} is no event stream; set 'response_kind' to json or text, the form of the refusal"
    if row.get("deterministic") and kind in _KINDS and kind != ResponseKind.SSE.value:
        yield "'deterministic' is for 'response_kind' sse alone; other bodies are compared in any case"
    for place in row.get("ignore", ()):
        if not isinstance(place, str) or not PLACE.fullmatch(place):
            yield (
                f"'ignore' holds {place!r}, which is no place; write it as the dual run shows it, such as .data.build, "
                "headers.cache-control, headers, text or stream.order"
            )


def _strings(body: object) -> Iterator[str]:
    """Yield the texts in a body in which ``{thread_id}`` is filled in."""
    rest = [body]
    while rest:
        match rest.pop():
            case str() as text:
                yield text
            case dict() as table:
                rest += table.values()
            case list() as items:
                rest += items


def _is_a(kind: type, value: object) -> bool:
    """Return True if a value has this type. Python takes True for a number, and JSON does not."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
