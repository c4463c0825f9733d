"""The message of a failed contract: the broken rule, the events around the failure, and commands to repeat the check."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import attrs

from cutover.contract import ContractReport
from cutover.contract.findings import Finding
from cutover.errors import named
from cutover.http.secrets import holds_secret, mask_urls, secret_parts, secrets_of
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
_MAX_BODY = 2000
"""Bytes of a request's body that the curl command repeats. A longer body comes from a file."""
_BODY_FILE = "request-body"
"""Name of that file in the curl command."""


@attrs.frozen(kw_only=True)
class FailureContext:
    """All facts about a failed stream that its message can show."""

    findings: Sequence[Finding]
    """Violations, at least one: first those of the report in its order, then the event that did not come."""
    report: ContractReport
    """Report of the whole check, with warnings and counts."""
    method: str
    url: str
    """Absolute URL of the request. Its secrets are masked in the message."""
    in_process: bool
    """True if the app ran in this process. It has no address, so the curl command uses ``$BASE_URL``."""
    request_headers: Mapping[str, str] = attrs.field(repr=False)
    """Headers of the request. Their secrets are masked in the message."""
    client_headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Headers that the test's client adds. The message does not show them, and masks their secrets."""
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
    lines = (*_facts(context), *_commands(context))
    secrets = secrets_of({**context.client_headers, **context.request_headers}, context.url)
    return secrets.mask_text("\n".join(lines))


def _facts(context: FailureContext) -> Iterator[str]:
    first, others = context.findings[0], len(context.findings) - 1 + sum(context.report.suppressed.values())
    yield f"{first.rule}: {_shown(first.message)}" + (f" (and {others} more)" if others else "")
    yield ""
    for finding in context.findings[:_MAX_FINDINGS]:
        yield from _finding_lines(finding, context.report.why(finding.rule))
    if others >= _MAX_FINDINGS:
        yield f"  … and {others + 1 - _MAX_FINDINGS} more"
    for warning in context.report.warnings[:_MAX_FINDINGS]:
        yield f"  warning {warning.rule}: {_shown(warning.message)}"
    if context.app_error is not None:
        yield f"  the app raised {_shown(named(context.app_error))}"
    yield ""
    # The command below shows that there is a login.
    yield f"  {context.method} {_shown(context.url).replace('://***@', '://', 1)}"
    yield f"  {_response_line(context)}"
    yield f"  contract {context.report.contract}: {context.report.state}"
    yield f"  {_timing_line(context)}"
    yield ""
    yield from _event_lines(context.events, first.event_index)
    yield ""


def _commands(context: FailureContext) -> Iterator[str]:
    """Give the commands that repeat the request and the check."""
    yield f"  again:  {curl(context)}"
    if context.request_body and _inline_body(context.request_body) is None:
        yield (
            f"  body:   {len(context.request_body)} bytes, not shown; write the body that the test sends to the file {_BODY_FILE} first; "
            f"it begins with {printable(context.request_body, _MAX_DATA)}"
        )
    if context.replay is not None:
        yield f"  replay: {context.replay}"


def _shown(text: str, limit: int = _MAX_TEXT) -> str:
    """Return a text that can be printed. The secrets in its URLs are masked before it is cut, because a part of one is not recognised."""
    return printable(mask_urls(text), limit)


def _finding_lines(finding: Finding, why: str | None) -> Iterator[str]:
    event = "" if finding.event_index is None else f" event {finding.event_index},"
    yield (
        f"  {finding.rule}"
        + ("" if finding.byte_offset is None else f" at{event} byte {finding.byte_offset}")
        + (f", {printable(finding.path)}" if finding.path else "")
    )
    if why is not None:
        yield f"    {_shown(why)}"
    if finding.expected is not None:
        yield f"    expected: {_shown(finding.expected)}"
    if finding.actual is not None:
        yield f"    got:      {_shown(finding.actual)}"


def _response_line(context: FailureContext) -> str:
    if context.status is None:
        return (
            "no response" if context.unreachable is None else f"no connection: {_shown(context.unreachable)}"
        )
    shown = [
        f"{name.decode('latin-1')}: {value.decode('latin-1')}"
        for name, value in context.response_headers
        if name.lower() != b"set-cookie"
    ]
    return f"HTTP {context.status}; " + _shown("; ".join(shown), 2 * _MAX_TEXT)


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
    """Return the curl command that sends the same request, with a shell variable in place of each secret in a header or the URL.

    The headers of a client that the test passed as peer are left out.
    """
    words = ["curl", "-sN", "-X", shlex.quote(context.method)]
    for name, value in context.request_headers.items():
        words += ["-H", _curl_header(name.lower(), value)]
    if context.request_body:
        body = _inline_body(context.request_body)
        words += ["--data-binary", f"@{_BODY_FILE}" if body is None else shlex.quote(body)]
    if context.in_process:
        words.append('"$BASE_URL"' + _curl_url(context.url.removeprefix(APP_BASE_URL)))
    else:
        words.append(_curl_url(context.url))
    return " ".join(words)


def _inline_body(body: bytes) -> str | None:
    """Return a body that can stand in a command, as text; None if it is too long, or not printable, or curl would take it for a file's name."""
    if len(body) > _MAX_BODY or body.startswith(b"@"):
        return None
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.replace("\n", "").isprintable() else None


def _curl_url(url: str) -> str:
    parts, start = [], 0
    for secret in secret_parts(url):
        parts += [shlex.quote(url[start : secret.start]), _variable(secret.name)]
        start = secret.end
    if start < len(url) or not parts:
        parts.append(shlex.quote(url[start:]))
    return "".join(parts)


def _curl_header(name: str, value: str) -> str:
    if name.endswith("authorization"):
        scheme = value.split(" ", 1)[0] + " " if " " in value else ""
        variable = '"$AUTH_TOKEN"' if name == "authorization" else _variable(name)
        return shlex.quote(f"{name}: {scheme}") + variable
    if holds_secret(name):
        return shlex.quote(f"{name}: ") + _variable(name)
    return shlex.quote(f"{name}: {value}")


def _variable(name: str) -> str:
    """Return the shell variable that stands for a secret."""
    letters = "".join(char if char.isascii() and char.isalnum() else "_" for char in name.upper())
    return f'"${letters}"' if not letters[0].isdigit() else f'"$_{letters}"'
