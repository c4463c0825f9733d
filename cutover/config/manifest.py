"""The manifest of a dual run, read from JSON: the requests for both services, and the way to compare their replies."""

import re
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
_CHANGING = frozenset({"PUT", "PATCH", "DELETE"})
"""Methods of requests that change something unless the entry says otherwise. POST is not one of them: a chat turn is a POST."""
_LEAST_STATUS, _MOST_STATUS, _LAST_SUCCESS = 200, 499, 299
_PLACE = re.compile(r"(?:(?:headers|stream)(?:\.\S+)?|text|[.\[]\S*)")
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
    with the method PUT, PATCH or DELETE has ``"mutates": true`` unless it says otherwise.

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
    if not isinstance(rows, list) or not rows:
        raise ConfigurationError(
            [f'{name} must be an object with a key "requests", a list of at least one entry']
        )
    problems: list[str] = []
    entries: list[ManifestEntry] = []
    for number, given in enumerate(rows):
        row = {**_DEFAULTS, **given} if isinstance(given, dict) else given
        where = f"{name}: requests[{number}]"
        wrong = _problems(row, where)
        problems += wrong
        if not wrong:
            entries.append(_entry(row))
    for entry_id in sorted(
        {entry.id for entry in entries if [other.id for other in entries].count(entry.id) > 1}
    ):
        problems.append(f"{name}: the id {entry_id!r} is used more than once")
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
    if not isinstance(row, dict):
        return [f"{where} must be an object"]
    where = f"{where} ({row['id']!r})" if isinstance(row.get("id"), str) else where
    problems = [f"{where} lacks the key {key!r}" for key in _REQUIRED if key not in row]
    problems += [
        f"{where}: {key!r} must be {_NAMES[kind]}"
        for key, kind in (_REQUIRED | _OPTIONAL).items()
        if key in row and not _is_a(kind, row[key])
    ]
    problems += [
        f"{where}: {key!r} is not a key of an entry"
        for key in row
        if key not in {*_REQUIRED, *_OPTIONAL, "body"}
    ]
    if problems:
        return problems
    if row["method"] not in _METHODS:
        problems.append(
            f"{where}: 'method' must be one of {', '.join(sorted(_METHODS))}, not {row['method']!r}"
        )
    if not _ID.fullmatch(row["id"]):
        problems.append(f"{where}: 'id' must be 1 to 80 letters, digits, '_', '.' and '-'")
    if not _PATH.fullmatch(row["path"]):
        problems.append(
            f"{where}: 'path' must start with one slash and be printable ASCII, not be {row['path']!r}"
        )
    if row["response_kind"] not in {kind.value for kind in ResponseKind}:
        problems.append(f"{where}: 'response_kind' must be json, text or sse, not {row['response_kind']!r}")
    headers = row.get("headers", {})
    if not all(isinstance(value, str) and _VALUE.fullmatch(value) for value in headers.values()):
        problems.append(f"{where}: 'headers' must hold printable ASCII strings")
    problems += [
        f"{where}: 'headers' holds {key!r}, which is not the name of a header"
        for key in headers
        if not _HEADER.fullmatch(key)
    ]
    if any(key.lower() in {"authorization", "cookie"} for key in headers):
        problems.append(
            f"{where}: 'headers' must not hold credentials; they come from AUTH_TOKEN and LEGACY_AUTH_TOKEN"
        )
    return [*problems, *_problems_of_comparison(row, where)]


def _problems_of_comparison(row: dict[str, Any], where: str) -> Iterator[str]:
    """Yield the problems of the keys that say how answers are compared."""
    status, kind = row.get("expect_status"), row["response_kind"]
    if status is not None and not _LEAST_STATUS <= status <= _MOST_STATUS:
        yield f"{where}: 'expect_status' must be a status from {_LEAST_STATUS} to {_MOST_STATUS}, not {status}"
    elif status is not None and status > _LAST_SUCCESS and kind == ResponseKind.SSE.value:
        yield (
            f"{where}: 'expect_status' {status} is no event stream; set 'response_kind' to json or text, the form of the refusal"
        )
    if row.get("deterministic") and kind != ResponseKind.SSE.value:
        yield f"{where}: 'deterministic' is for 'response_kind' sse alone; other bodies are compared in any case"
    for place in row.get("ignore", ()):
        if not isinstance(place, str) or not _PLACE.fullmatch(place):
            yield (
                f"{where}: 'ignore' holds {place!r}, which is no place; write it as the dual run shows it, such as .data.build, "
                "headers.cache-control, headers, text or stream.order"
            )


def _is_a(kind: type, value: object) -> bool:
    """Return True if a value has this type. Python takes True for a number, and JSON does not."""
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))
