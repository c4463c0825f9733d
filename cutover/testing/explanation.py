"""A failure that explains itself: the rule first, then all that is needed to see it and to see it again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import attrs

from cutover.contract import RULES, ContractReport
from cutover.contract.findings import Finding
from cutover.http.secrets import Secrets
from cutover.testing.events import SeenEvent
from cutover.testing.peers import APP_BASE_URL
from cutover.text import printable

_AROUND = 6
"""Rows of events that are shown before and after the one it is about."""
_DATA = 120
"""Characters of an event's data that are shown."""
_ALIKE = 3
"""Alike neighbours that are shown one by one; of more, the first and the last."""
_SHOWN = 6
"""Findings that are spelled out."""
_LINE = 400
"""Characters of a text off the wire that one line shows."""
_SECRET_WORDS = ("token", "secret", "key", "cookie", "session", "password")


@attrs.frozen(kw_only=True)
class Told:
    """All that a failure can tell."""

    findings: Sequence[Finding]
    """What did not hold, most telling first; at least one."""
    report: ContractReport
    method: str
    url: str
    in_process: bool
    """The app has no address of its own: what is to be asked again stands as ``$BASE_URL``."""
    request_headers: Mapping[str, str] = attrs.field(repr=False)
    request_body: bytes
    status: int | None
    """None where no head came."""
    unreachable: str | None
    """Why there was no connection; None where there was one."""
    response_headers: Sequence[tuple[bytes, bytes]]
    events: Sequence[SeenEvent]
    app_error: BaseException | None = None
    replay: str | None = None
    """How to check the recording again; None where nothing was recorded."""


def explain(told: Told) -> str:
    """Write it for a terminal; the first line alone says what is wrong, for a short summary."""
    return secrets_of(told.request_headers).mask_text("\n".join(_lines(told)))


def _lines(told: Told) -> Iterator[str]:
    first, others = told.findings[0], len(told.findings) - 1 + sum(told.report.suppressed.values())
    yield f"{first.rule}: {printable(first.message, _LINE)}" + (f" (and {others} more)" if others else "")
    yield ""
    for finding in told.findings[:_SHOWN]:
        yield from _finding_lines(finding)
    if others >= _SHOWN:
        yield f"  … and {others + 1 - _SHOWN} more"
    for warning in told.report.warnings[:_SHOWN]:
        yield f"  warning {warning.rule}: {printable(warning.message, _LINE)}"
    if told.app_error is not None:
        yield f"  the app raised {type(told.app_error).__name__}: {printable(str(told.app_error), _LINE)}"
    yield ""
    yield f"  {told.method} {printable(told.url, _LINE)}"
    yield f"  {_response_line(told)}"
    yield f"  contract {told.report.contract}: {told.report.state}"
    yield f"  {_timing_line(told)}"
    yield ""
    yield from _event_lines(told.events, first.event_index)
    yield ""
    yield f"  again:  {curl(told)}"
    if told.replay is not None:
        yield f"  replay: {told.replay}"


def secrets_of(headers: Mapping[str, str]) -> Secrets:
    """Pick what nobody should read out of a request's headers: credentials, and what sounds like some."""
    credentials = [
        value.split(" ", 1)[-1] for name, value in headers.items() if name.lower() == "authorization"
    ]
    return Secrets((*credentials, *(value for name, value in headers.items() if _is_secret(name))))


def _is_secret(header: str) -> bool:
    return any(word in header.lower() for word in _SECRET_WORDS)


def _finding_lines(finding: Finding) -> Iterator[str]:
    event = "" if finding.event_index is None else f" event {finding.event_index},"
    yield f"  {finding.rule}" + (
        "" if finding.byte_offset is None else f" at{event} byte {finding.byte_offset}"
    )
    if finding.rule in RULES:
        yield f"    {RULES[finding.rule].why}"
    if finding.expected is not None:
        yield f"    expected: {printable(finding.expected, _LINE)}"
    if finding.actual is not None:
        yield f"    came:     {printable(finding.actual, _LINE)}"


def _response_line(told: Told) -> str:
    if told.status is None:
        return (
            "no response"
            if told.unreachable is None
            else f"no connection: {printable(told.unreachable, _LINE)}"
        )
    shown = [
        f"{name.decode('latin-1')}: {value.decode('latin-1')}"
        for name, value in told.response_headers
        if name.lower() != b"set-cookie"
    ]
    return f"HTTP {told.status}; " + printable("; ".join(shown), 2 * _LINE)


def _timing_line(told: Told) -> str:
    report = told.report
    came = f"{report.event_count} events, {report.comment_count} comments, {report.byte_count} bytes; {report.timings}"
    return f"{came} (in process, where no proxy can hold them back)" if told.in_process else came


def _event_lines(events: Sequence[SeenEvent], about: int | None) -> Iterator[str]:
    """Show the events around the one it is about, or the last ones; alike neighbours are folded into one row."""
    rows = list(_rows(events, about))
    if not rows:
        yield "  no event came"
        return
    centre = next((at for at, row in enumerate(rows) if row.marked), len(rows) - 1)
    first, last = max(0, centre - _AROUND), centre + _AROUND + 1
    yield "    event   byte offset          ms"
    if first:
        yield f"  … {first} rows before"
    for row in rows[first:last]:
        yield row.text
    if last < len(rows):
        yield f"  … {len(rows) - last} rows after"


@attrs.frozen
class _Row:
    text: str
    marked: bool


def _rows(events: Sequence[SeenEvent], about: int | None) -> Iterator[_Row]:
    def look(event: SeenEvent) -> tuple[str, bool]:
        return event.kind, about is not None and event.index == about

    for (kind, marked), run in groupby(events, key=look):
        alike = list(run)
        if len(alike) <= _ALIKE:
            yield from (_Row(_row(event, marked=marked), marked) for event in alike)
        else:
            yield _Row(_row(alike[0], marked=marked), marked)
            yield _Row(
                f"      … {_between(alike[0], alike[-1]) or len(alike) - 2} more {printable(kind, 40)}",
                marked,
            )
            yield _Row(_row(alike[-1], marked=marked), marked)


def _between(first: SeenEvent, last: SeenEvent) -> int | None:
    """How many message events came between two of them, those that a long stream let go included."""
    return None if first.index is None or last.index is None else last.index - first.index - 1


def _row(event: SeenEvent, *, marked: bool) -> str:
    number = "" if event.index is None else str(event.index)
    data = "" if event.data == event.kind else printable(event.data, _DATA)
    place = f"{number:>5} {event.byte_offset:>13} {event.elapsed * 1000:>11.1f}"
    return f"  {'>' if marked else ' '} {place}  {printable(event.kind, 40):<14} {data}".rstrip()


def curl(told: Told) -> str:
    """Write the command that asks the same again; a secret stands there as the variable to hold it."""
    words = ["curl", "-sN", "-X", shlex.quote(told.method)]
    for name, value in told.request_headers.items():
        words += ["-H", _curl_header(name.lower(), value)]
    if told.request_body:
        words += ["--data-binary", shlex.quote(told.request_body.decode("utf-8", "replace"))]
    if told.in_process:
        words.append('"$BASE_URL"' + shlex.quote(told.url.removeprefix(APP_BASE_URL)))
    else:
        words.append(shlex.quote(told.url))
    return " ".join(words)


def _curl_header(name: str, value: str) -> str:
    if name == "authorization":
        scheme = value.split(" ", 1)[0] + " " if " " in value else ""
        return shlex.quote(f"{name}: {scheme}") + '"$AUTH_TOKEN"'
    if _is_secret(name):
        variable = "".join(char if char.isalnum() else "_" for char in name.upper())
        return shlex.quote(f"{name}: ") + f'"${variable}"'
    return shlex.quote(f"{name}: {value}")
