"""The message of a failed stream: the rule first, received text escaped, no secret, and a command that repeats the request."""

import shlex
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.checking.recording import check_recording
from cutover.contract import RULES, ContractChecker
from cutover.contract.findings import Finding
from cutover.protocols import AI_SDK_7, COMPAT_LANE
from cutover.testing.events import EventLog
from cutover.testing.explanation import FailureContext, curl, explain
from cutover.testing.seen_event import SeenEvent

REST: dict[str, Any] = {
    "method": "POST",
    "url": "https://chat.example/api/chat/stream",
    "in_process": False,
    "request_headers": {},
    "request_body": b"",
    "status": 200,
    "unreachable": None,
    "response_headers": (),
    "events": (),
    "report": check_recording(b"", contract=COMPAT_LANE),
}


def failure(*findings: Finding, **changes: Any) -> FailureContext:
    return FailureContext(
        findings=findings or (Finding(rule="terminator.count", message="no [DONE] came"),),
        **{**REST, **changes},
    )


def event(index: int | None, kind: str = "text-delta") -> SeenEvent:
    return SeenEvent(kind=kind, index=index, byte_offset=10 * (index or 0), elapsed=0.001, data="{}")


def test_a_failure_shows_all_facts_and_the_commands_to_repeat_it() -> None:
    head = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"Set-Cookie", b"sid=c00kie-value")]
    head += [(b"x-vercel-ai-ui-message-stream", b"v1")]
    checker, log = ContractChecker(COMPAT_LANE.strict()), EventLog()
    checker.receive_head(200, head, elapsed=0.01)
    start = b'data: {"type":"start"}\n\n'
    for elapsed, piece in ((0.1, b": ping\n\n"), (0.25, start), (0.5, start)):
        checker.receive_data(piece, elapsed=elapsed)
        log.receive_data(piece, elapsed=elapsed)
    checker.receive_eof(elapsed=0.75)
    report = checker.report()
    facts = {
        "report": report,
        "url": "http://app/api/chat/stream",
        "in_process": True,
        "request_headers": {"authorization": "Bearer sk-12345"},
        "response_headers": head,
        "events": log.kept(),
        "replay": "cutover check stream-0.sse",
    }
    assert explain(failure(*report.violations, **facts)).splitlines() == [
        "order.duplicate: expected this kind only once, got start (and 1 more)",
        "",
        "  order.duplicate at event 1, byte 32",
        f"    {RULES['order.duplicate'].why}",
        "    expected: this kind only once",
        "    got:      start",
        "  stream.truncated at byte 56",
        f"    {RULES['stream.truncated'].why}",
        "    expected: the rest of the turn",
        "    got:      end of the body",
        "",
        "  POST http://app/api/chat/stream",
        "  HTTP 200; content-type: text/event-stream; charset=utf-8; x-vercel-ai-ui-message-stream: v1",
        "  contract compat-lane: the turn has started",
        f"  2 events, 1 comments, 56 bytes; {report.timings} (in process, where no proxy can hold them back)",
        "",
        "    event   byte offset          ms",
        "                      0       100.0  (comment)      ping",
        '        0             8       250.0  start          {"type":"start"}',
        '  >     1            32       500.0  start          {"type":"start"}',
        "",
        """  again:  curl -sN -X POST -H 'authorization: Bearer '"$AUTH_TOKEN" "$BASE_URL"/api/chat/stream""",
        "  replay: cutover check stream-0.sse",
    ]
    assert "(in process" not in explain(failure(*report.violations, **{**facts, "in_process": False}))


def test_suppressed_findings_are_counted_in_the_first_line_too() -> None:
    report = check_recording(b'data: {"type":"start"}\n\n' * 30)
    assert explain(failure(*report.violations, report=report)).splitlines()[0].endswith("(and 29 more)")


@given(text=st.text(), data=st.text(), name=st.binary(), value=st.binary())
def test_received_text_reaches_the_terminal_only_escaped(
    text: str, data: str, name: bytes, value: bytes
) -> None:
    finding = Finding(
        rule="chunk.json", message=text, expected=text, actual=text, event_index=0, byte_offset=0
    )
    seen = SeenEvent(kind=text, index=0, byte_offset=0, elapsed=0.0, data=data)
    shown = explain(
        failure(finding, events=(seen,), response_headers=((name, value),), app_error=ValueError(text))
    )
    assert all(char.isprintable() for line in shown.split("\n") for char in line)


def test_a_secret_is_hidden_even_if_the_service_echoes_it() -> None:
    echoed = Finding(
        rule="head.status", message="the token sk-12345 is not known", actual="cookie c00kie-value"
    )
    headers = {"Authorization": "Bearer sk-12345", "Cookie": "c00kie-value", "X-Session-Key": "abcd1234"}
    shown = explain(failure(echoed, request_headers=headers, response_headers=((b"x-echo", b"abcd1234"),)))
    assert not any(secret in shown for secret in ("sk-12345", "c00kie-value", "abcd1234"))


@pytest.mark.parametrize("credentials", ["Bearer sk-12345", "sk-12345"])
def test_the_command_sends_the_same_request(credentials: str) -> None:
    headers = {"authorization": credentials, "x-it's": 'a "quoted" $value', "x-api-key": "abcd1234"}
    command = curl(failure(request_headers=headers, request_body=b'{"a":"it\'s $HOME"}'))
    words = shlex.split(command.replace('"$AUTH_TOKEN"', "sk-12345").replace('"$X_API_KEY"', "abcd1234"))
    assert words == [
        *("curl", "-sN", "-X", "POST"),
        *(word for name, value in headers.items() for word in ("-H", f"{name}: {value}")),
        *("--data-binary", '{"a":"it\'s $HOME"}'),
        REST["url"],
    ]


def test_a_run_of_one_kind_is_folded_except_for_the_event_of_the_finding() -> None:
    finding = Finding(rule="order.duplicate", message="twice", event_index=20, byte_offset=200)
    events = [event(0, "start"), *(event(n) for n in range(1, 40)), event(40, "finish")]
    rows = explain(failure(finding, events=events)).splitlines()
    table = rows[next(n for n, row in enumerate(rows) if "byte offset" in row) + 1 :]
    numbers = [row.replace(">", " ").split()[0] for row in table[:9]]
    assert numbers == ["0", "1", "…", "19", "20", "21", "…", "39", "40"]
    assert [row for row in table if row.strip().startswith(">")] == [table[4]]


def test_events_that_are_no_longer_kept_are_counted_too() -> None:
    assert "… 997 more text-delta" in explain(failure(events=[event(1), event(2), event(3), event(999)]))


def test_far_away_events_are_only_counted() -> None:
    finding = Finding(rule="order.duplicate", message="twice", event_index=50, byte_offset=500)
    events = [event(n, f"kind-{n}") for n in range(100)]
    shown = explain(failure(finding, events=events))
    assert "… 44 rows before" in shown
    assert "… 43 rows after" in shown
    assert "kind-43" not in shown
    assert "kind-44" in shown


def test_the_last_events_are_shown_for_a_finding_without_an_event() -> None:
    shown = explain(failure(events=[event(n, f"kind-{n}") for n in range(100)]))
    assert "kind-99" in shown
    assert "kind-93" in shown
    assert "kind-92" not in shown


def test_warnings_stand_beside_the_failure_since_they_may_be_its_cause() -> None:
    head = {"content-type": "text/event-stream", "content-encoding": "gzip"}
    shown = explain(failure(report=check_recording(b"", contract=AI_SDK_7.strict(), headers=head)))
    assert shown.startswith("terminator.count: no [DONE] came\n")
    assert (
        "\n  warning head.compressed: expected an identity content-encoding, got a stream compressed" in shown
    )


def test_many_findings_are_counted_and_a_few_shown() -> None:
    findings = [Finding(rule=f"rule.{n}", message="m") for n in range(30)]
    shown = explain(failure(*findings))
    assert shown.splitlines()[0] == "rule.0: m (and 29 more)"
    assert "rule.5" in shown
    assert "rule.6" not in shown
    assert "… and 24 more" in shown


@given(pieces=st.lists(st.binary(max_size=30), max_size=20))
def test_read_and_unread_events_are_all_kept(pieces: list[bytes]) -> None:
    """Reading events on the way does not change the events that a failure shows."""
    read, unread = EventLog(), EventLog()

    async def receive() -> None:
        for piece in (*pieces, b'data: {"type":"start"}\n\n: c\n\ndata: [DONE]\n\nretry: 3\n\ndata: x'):
            for log in (read, unread):
                log.receive_data(piece, elapsed=0.5)
            unread_events = read.unread_by(read.readers.cursor())
            assert all(isinstance(event.kind, str) for event in unread_events)
            read.skip()

    anyio.run(receive)
    for log in (read, unread):
        log.receive_eof(elapsed=0.5)
    assert read.kept() == unread.kept()
    indices = [event.index for event in unread.kept() if event.index is not None]
    assert indices == list(range(len(indices)))


def test_a_long_stream_keeps_its_beginning_and_its_end() -> None:
    log = EventLog()

    async def receive() -> None:
        for _ in range(50):
            log.receive_data(b'data: {"type":"text-delta"}\n\n' * 100, elapsed=0.1)
            assert len(list(log.unread_by(log.readers.cursor()))) == 100
            log.skip()

    anyio.run(receive)
    kept = [event.index for event in log.kept()]
    assert kept[:100] == list(range(100))
    assert kept[100:] == list(range(4000, 5000))


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"text":"' + b"x" * (5 << 20) + b'"}', id="too long"),
        pytest.param(b"\xff\xfe binary", id="no text"),
        pytest.param("a\u202eb\x9b[2J".encode(), id="not printable"),
        pytest.param(b"@file", id="a file for curl"),
    ],
)
def test_a_body_that_cannot_stand_in_a_command_comes_from_a_file(body: bytes) -> None:
    context = failure(request_body=body)
    shown = explain(context)
    assert len(shown) < 4000
    assert shlex.split(curl(context))[-3:] == ["--data-binary", "@request-body", REST["url"]]
    assert (
        f"  body:   {len(body)} bytes, not shown; write the body that the test sends to the file request-body first"
        in shown
    )
    assert all(char.isprintable() for line in shown.split("\n") for char in line)


def test_a_body_up_to_two_thousand_bytes_stands_in_the_command() -> None:
    for size, inline in ((2000, True), (2001, False)):
        context = failure(request_body=b"x" * size)
        assert ("x" * size in curl(context)) is inline
        assert ("  body: " in explain(context)) is not inline


@pytest.mark.parametrize("in_process", [True, False])
def test_the_command_has_a_variable_for_each_secret_of_the_url(*, in_process: bool) -> None:
    base = "http://app" if in_process else "https://me:pa55word@chat.example"
    url = f"{base}/x?n=1&key=k3y-value&api-token=t0ken%2Bvalue&note=it's&2fa-key=abc"
    command = curl(failure(url=url, in_process=in_process))
    for variable, value in {
        "BASE_URL": base,
        "LOGIN": "me:pa55word",
        "KEY": "k3y-value",
        "API_TOKEN": "t0ken%2Bvalue",
        "_2FA_KEY": "abc",
    }.items():
        assert in_process or variable == "BASE_URL" or value not in command
        command = command.replace(f'"${variable}"', value)
    assert shlex.split(command)[-1] == url


def test_no_secret_of_the_url_is_in_the_message() -> None:
    url = "https://me:pa55word@chat.example/x?key=k3y-value&access_token=t0ken%2Bvalue&n=1"
    echoed = Finding(
        rule="head.status",
        message=f"no route {url}",
        actual="k3y-value is no key",
        expected="not t0ken+value",
    )
    seen = event(0, "error")
    context = failure(
        echoed,
        url=url,
        unreachable=f"POST {url}: failed",
        status=None,
        app_error=ValueError(f"at {url}" + "x" * 400),
        events=(SeenEvent(kind="error", index=0, byte_offset=0, elapsed=0.0, data="pa55word"), seen),
    )
    for shown in (
        explain(context),
        explain(failure(echoed, url=url, response_headers=((b"location", url.encode()),))),
    ):
        for secret in ("pa55word", "k3y-value", "t0ken"):
            assert secret not in shown
        assert "POST https://chat.example/x?key=***&access_token=***&n=1" in shown


def test_a_secret_that_the_tests_client_adds_is_hidden() -> None:
    echoed = Finding(rule="head.status", message="the token sk-12345 is not known")
    assert "sk-12345" not in explain(failure(echoed, client_headers={"authorization": "Bearer sk-12345"}))


def test_a_path_in_a_finding_is_escaped() -> None:
    assert "\x1b" not in explain(failure(Finding(rule="schema.value", message="m", path="/\x1b[2J")))
