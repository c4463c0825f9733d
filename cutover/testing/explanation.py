"""The message of a failed contract: the broken rule, the events around the failure, and commands to repeat the check."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import attrs

from cutover.contract import ContractReport
from cutover.contract.findings import Finding
from cutover.errors import named
from cutover.http.secrets import holds_secret, secrets_of
from cutover.testing.peers import APP_BASE_URL
from cutover.testing.seen_event import SeenEvent
from cutover.text import printable

_ROWS_AROUND = 6
"""Rows of events that are shown before and after the event of the finding."""
_MAX_DATA = 120
"""Characters of an event's data that are shown."""
_MAX_RUN = 3
"""Neighbours of one kind that are all shown. Of a longer run only the first and the last are shown."""
_MAX_FINDINGS = 6
"""Findings that are shown in full."""
_MAX_TEXT = 400
"""Characters of a received text that one line shows."""


@attrs.frozen(kw_only=True)
class FailureContext:
    """All facts about a failed stream that its message can show."""

    findings: Sequence[Finding]
    """Violations, at least one: first those of the report in its order, then the event that did not come."""
    report: ContractReport
    """Report of the whole check, with warnings and counts."""
    method: str
    url: str
    in_process: bool
    """True if the app ran in this process. It has no address, so the curl command uses ``$BASE_URL``."""
    request_headers: Mapping[str, str] = attrs.field(repr=False)
    """Headers of the request. Their secrets are masked in the message."""
    request_body: bytes
    status: int | None
    """Status of the response; None if no head came."""
    unreachable: str | None
    """Reason why no connection was made; None if one was made."""
    response_headers: Sequence[tuple[bytes, bytes]]
    events: Sequence[SeenEvent]
    """Events to choose the shown rows from, in order."""
    app_error: BaseException | None = None
    """Error that the app raised in this process; None if it raised none."""
    replay: str | None = None
    """Command or hint to check the recording again; None if nothing was recorded."""


def explain(context: FailureContext) -> str:
    """Return the failure message for a terminal. Its first line names the problem, for pytest's short summary."""
    return secrets_of(context.request_headers).mask_text("\n".join(_lines(context)))


def _lines(context: FailureContext) -> Iterator[str]:
    first, others = context.findings[0], len(context.findings) - 1 + sum(context.report.suppressed.values())
    yield f"{first.rule}: {printable(first.message, _MAX_TEXT)}" + (f" (and {others} more)" if others else "")
    yield ""
    for finding in context.findings[:_MAX_FINDINGS]:
        yield from _finding_lines(finding, context.report.why(finding.rule))
    if others >= _MAX_FINDINGS:
        yield f"  … and {others + 1 - _MAX_FINDINGS} more"
    for warning in context.report.warnings[:_MAX_FINDINGS]:
        yield f"  warning {warning.rule}: {printable(warning.message, _MAX_TEXT)}"
    if context.app_error is not None:
        yield f"  the app raised {printable(named(context.app_error), _MAX_TEXT)}"
    yield ""
    yield f"  {context.method} {printable(context.url, _MAX_TEXT)}"
    yield f"  {_response_line(context)}"
    yield f"  contract {context.report.contract}: {context.report.state}"
    yield f"  {_timing_line(context)}"
    yield ""
    yield from _event_lines(context.events, first.event_index)
    yield ""
    yield f"  again:  {curl(context)}"
    if context.replay is not None:
        yield f"  replay: {context.replay}"


def _finding_lines(finding: Finding, why: str | None) -> Iterator[str]:
    event = "" if finding.event_index is None else f" event {finding.event_index},"
    yield (
        f"  {finding.rule}"
        + ("" if finding.byte_offset is None else f" at{event} byte {finding.byte_offset}")
        + (f", {finding.path}" if finding.path else "")
    )
    if why is not None:
        yield f"    {printable(why, _MAX_TEXT)}"
    if finding.expected is not None:
        yield f"    expected: {printable(finding.expected, _MAX_TEXT)}"
    if finding.actual is not None:
        yield f"    got:      {printable(finding.actual, _MAX_TEXT)}"


def _response_line(context: FailureContext) -> str:
    if context.status is None:
        return (
            "no response"
            if context.unreachable is None
            else f"no connection: {printable(context.unreachable, _MAX_TEXT)}"
        )
    shown = [
        f"{name.decode('latin-1')}: {value.decode('latin-1')}"
        for name, value in context.response_headers
        if name.lower() != b"set-cookie"
    ]
    return f"HTTP {context.status}; " + printable("; ".join(shown), 2 * _MAX_TEXT)


def _timing_line(context: FailureContext) -> str:
    report = context.report
    line = f"{report.event_count} events, {report.comment_count} comments, {report.byte_count} bytes; {report.timings}"
    return f"{line} (in process, where no proxy can hold them back)" if context.in_process else line


def _event_lines(events: Sequence[SeenEvent], about: int | None) -> Iterator[str]:
    """Give the rows around the event with index ``about``, or the last rows; a long run of one kind becomes three rows."""
    rows = list(_rows(events, about))
    if not rows:
        yield "  no event came"
        return
    centre = next((at for at, row in enumerate(rows) if row.marked), len(rows) - 1)
    first, last = max(0, centre - _ROWS_AROUND), centre + _ROWS_AROUND + 1
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
    def kind_and_mark(event: SeenEvent) -> tuple[str, bool]:
        return event.kind, about is not None and event.index == about

    for (kind, marked), group in groupby(events, key=kind_and_mark):
        run = list(group)
        if len(run) <= _MAX_RUN:
            yield from (_Row(_row(event, marked=marked), marked) for event in run)
        else:
            yield _Row(_row(run[0], marked=marked), marked)
            yield _Row(
                f"      … {_between(run[0], run[-1]) or len(run) - 2} more {printable(kind, 40)}",
                marked,
            )
            yield _Row(_row(run[-1], marked=marked), marked)


def _between(first: SeenEvent, last: SeenEvent) -> int | None:
    """Return the number of message events between two events, kept or not; None if one of the two is no message event."""
    return None if first.index is None or last.index is None else last.index - first.index - 1


def _row(event: SeenEvent, *, marked: bool) -> str:
    number = "" if event.index is None else str(event.index)
    data = "" if event.data == event.kind else printable(event.data, _MAX_DATA)
    place = f"{number:>5} {event.byte_offset:>13} {event.elapsed * 1000:>11.1f}"
    return f"  {'>' if marked else ' '} {place}  {printable(event.kind, 40):<14} {data}".rstrip()


def curl(context: FailureContext) -> str:
    """Return the curl command that sends the same request, with a shell variable in place of each secret header's value.

    The headers of a client that the test passed as peer are left out.
    """
    words = ["curl", "-sN", "-X", shlex.quote(context.method)]
    for name, value in context.request_headers.items():
        words += ["-H", _curl_header(name.lower(), value)]
    if context.request_body:
        words += ["--data-binary", shlex.quote(context.request_body.decode("utf-8", "replace"))]
    if context.in_process:
        words.append('"$BASE_URL"' + shlex.quote(context.url.removeprefix(APP_BASE_URL)))
    else:
        words.append(shlex.quote(context.url))
    return " ".join(words)


def _curl_header(name: str, value: str) -> str:
    if name == "authorization":
        scheme = value.split(" ", 1)[0] + " " if " " in value else ""
        return shlex.quote(f"{name}: {scheme}") + '"$AUTH_TOKEN"'
    if holds_secret(name):
        variable = "".join(char if char.isalnum() else "_" for char in name.upper())
        return shlex.quote(f"{name}: ") + f'"${variable}"'
    return shlex.quote(f"{name}: {value}")
