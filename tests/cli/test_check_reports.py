"""The reports of `cutover check` for CI servers and scripts: JUnit XML and JSON lines. Neither shows a secret."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from cutover.checking.recording import check_recording
from cutover.cli.commands import main
from cutover.contract import RULES, FailureKind
from cutover.contract.checker import ContractChecker
from cutover.http.secrets import Secrets
from cutover.protocols import AI_SDK_7, COMPAT_LANE
from cutover.report.check_verdicts import Verdict, as_json, as_junit, as_lines
from tests.support.paths import FIXTURES

STREAMS = FIXTURES / "streams"
GOOD, BAD = STREAMS / "ok" / "compat-lane-plain.sse", STREAMS / "violations" / "schema.unknown-kind.sse"
NOWHERE = "http://127.0.0.1:9/api/chat/stream"
TOKEN = "marked-token-of-the-environment"


def check(*arguments: object, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)], env={"TOKEN": TOKEN}, input=stdin)


def cases(path: Path) -> list[ET.Element]:
    root = ET.fromstring(path.read_bytes())  # noqa: S314  it is our own
    (suite,) = root
    assert (root.tag, suite.tag, suite.get("name")) == ("testsuites", "testsuite", "cutover check")
    return list(suite)


def test_junit_has_one_case_for_each_target_in_the_given_order(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    done = check("--junit-xml", report, BAD, NOWHERE, GOOD, BAD)
    assert done.exit_code == 3
    found = cases(report)
    assert [case.get("name") for case in found] == [str(BAD), NOWHERE, str(GOOD), str(BAD)]
    assert {case.get("classname") for case in found} == {"compat-lane"}
    assert [[each.tag for each in case] for case in found] == [["failure"], ["error"], [], ["failure"]]
    assert [case.get("time") is None for case in found] == [True, False, True, True], (
        "recordings have no time"
    )
    failure, error = found[0][0], found[1][0]
    assert failure.get("type") == "schema.unknown-kind"
    assert failure.get("message") == 'expected a known type, got type: "text-dleta"'
    assert (failure.text or "").splitlines() == [
        RULES["schema.unknown-kind"].why,
        "at: event 2, byte 127",
        "expected: a known type",
        'got: type: "text-dleta"',
    ]
    assert error.get("type") == "unreachable"
    assert NOWHERE in (error.get("message") or "")


def test_junit_holds_warnings_and_the_number_of_suppressed_findings(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    body = b'data: {"type":"start"}\n\n' * 20
    done = check("--contract", "ai-sdk-7", "--junit-xml", report, "-", stdin=body)
    assert done.exit_code == 1
    (case,) = cases(report)
    notes = case.findtext("system-out") or ""
    assert notes.count("order.duplicate (event ") == 16
    assert "and 3 more of order.duplicate" in notes
    assert "and 3 more of order.duplicate" in done.output


def test_a_violation_without_an_event_has_no_place_in_junit() -> None:
    checker = ContractChecker(COMPAT_LANE)
    checker.receive_failure(FailureKind.UNREACHABLE, elapsed=0.1)
    xml = ET.fromstring(as_junit([Verdict(target="x", report=checker.report())]))  # noqa: S314  it is our own
    (failure,) = xml.iter("failure")
    assert "at: " not in (failure.text or "")


@given(body=st.binary(max_size=300), text=st.text(max_size=30), target=st.text(max_size=30))
def test_every_report_can_be_parsed_for_any_input(body: bytes, text: str, target: str) -> None:
    """XML 1.0 allows neither a lone surrogate (from a file name) nor a control character (from a stream)."""
    chunk = json.dumps({"type": text, text: 1}).encode()
    bodies = (body, b"data: " + body + b"\n\n", b"event: " + body + b"\ndata: " + chunk + b"\n\n")
    verdicts = [
        Verdict(target=target, report=check_recording(each, contract=contract), unreachable=unreachable)
        for each in bodies
        for contract in (AI_SDK_7, COMPAT_LANE.strict())
        for unreachable in (None, text)
    ]
    (suite,) = ET.fromstring(as_junit(verdicts))  # noqa: S314  it is our own
    assert [case.get("name") for case in suite] == [suite[0].get("name")] * len(verdicts)
    failures = [[each.get("type") for each in case.iter("failure")] for case in suite]
    assert failures == [
        [] if verdict.unreachable else [each.rule for each in verdict.report.violations]
        for verdict in verdicts
    ]
    for verdict in verdicts:
        line = as_json(verdict)
        assert b"\n" not in line
        assert json.loads(line)["ok"] is (verdict.exit_code == 0)
        assert as_lines(verdict)


def test_json_is_one_object_on_one_line_for_each_target_even_if_a_target_repeats() -> None:
    done = check("--json", GOOD, BAD, NOWHERE, GOOD)
    documents = [json.loads(line) for line in done.output.splitlines()]
    assert [document["target"] for document in documents] == [str(GOOD), str(BAD), NOWHERE, str(GOOD)]
    assert [document["ok"] for document in documents] == [True, False, False, True]
    assert {document["contract"] for document in documents} == {"compat-lane"}
    assert documents[0]["timings"]["end"] is None, "a recording holds no times"
    assert documents[2]["timings"]["end"] is not None


def test_json_holds_the_severity_of_each_finding_and_the_number_of_suppressed_ones() -> None:
    body = b'data: {"type":"start"}\n\n' * 20
    document = json.loads(check("--contract", "ai-sdk-7", "--json", "-", stdin=body).output)
    assert [finding["severity"] for finding in document["findings"]] == ["warning"] * 16 + ["violation"]
    assert document["suppressed"] == {"order.duplicate": 3}


def test_a_name_with_control_characters_is_shown_escaped(tmp_path: Path) -> None:
    path = tmp_path / "\x07\x9b.sse"
    path.write_bytes(GOOD.read_bytes())
    done = check(path)
    assert done.exit_code == 0
    assert r"\x07\x9b.sse: ok" in done.output


def test_a_verdict_shows_the_timings_or_the_reason_for_no_connection() -> None:
    with turns("t1") as base:
        output = check(f"{base}/x", NOWHERE).output
    assert re.search(
        r": ok  5 events, 0 violations; head \d+ ms, first byte \d+ ms, first event \d+ ms, ", output
    )
    assert f"UNREACHABLE  POST {NOWHERE}: " in output


def test_the_report_of_an_earlier_run_is_emptied_before_a_run(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text("<testsuites/>")
    assert check("--junit-xml", report, "no-such-file").exit_code == 2
    assert report.read_bytes() == b""


def test_a_report_that_cannot_be_written_is_one_error_before_any_request(tmp_path: Path) -> None:
    done = check("--junit-xml", tmp_path / "nowhere" / "report.xml", NOWHERE)
    assert done.exit_code == 2
    assert "report.xml cannot be written (No such file or directory)" in done.output
    assert "UNREACHABLE" not in done.output


def test_without_junitparser_the_error_names_the_extra_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    done = check("--junit-xml", tmp_path / "report.xml", GOOD)
    assert done.exit_code == 2
    assert "pip install 'stream-cutover[junit]'" in done.output
    assert not (tmp_path / "report.xml").exists()


class _Echo(BaseHTTPRequestHandler):
    """A server that answers 401 with the credentials in the body, after as many characters as the path says."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, _EchoServer)
        self.server.bodies.append(body)
        reply = b"x" * int(self.path[1:]) + (self.headers["authorization"] or "").encode() * 2
        self.send_response(401)
        self.send_header("content-length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _EchoServer(HTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Echo)
        self.bodies: list[bytes] = []


@contextmanager
def echo() -> Iterator[tuple[str, list[bytes]]]:
    with _EchoServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.bodies
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("header", ["authorization: Bearer $TOKEN", "Authorization:${TOKEN}"])
def test_a_token_that_the_server_echoes_is_masked_even_if_the_quote_is_cut_inside_it(
    header: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.xml"
    with echo() as (base, _):
        targets = [f"{base}/{before}" for before in (0, 120, 160, 175, 180, 185, 190)]
        shown = check("--header", header, "--junit-xml", report, *targets)
        assert shown.exit_code == 1
        everything = shown.output + check("--header", header, "--json", *targets).output + report.read_text()
    assert "***" in everything
    for size in range(4, len(TOKEN) + 1):
        assert TOKEN[:size] not in everything


class _Turn(BaseHTTPRequestHandler):
    """A server that streams one chat turn, after ``together`` requests have arrived."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.server, _TurnServer)
        if self.path == "/json-only" and self.headers["content-type"] != "application/json":
            return self.send_error(415)
        try:
            self.server.together.wait(10.0)
        except threading.BrokenBarrierError:
            return self.send_error(503)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream; charset=utf-8")
        self.send_header("x-vercel-ai-ui-message-stream", "v1")
        self.end_headers()
        self.wfile.write(self.server.turn)
        return None

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _TurnServer(ThreadingHTTPServer):
    def __init__(self, thread_id: str, together: int) -> None:
        super().__init__(("127.0.0.1", 0), _Turn)
        self.together = threading.Barrier(together)
        chunks = [
            {"type": "start", "threadId": thread_id},
            *({"type": kind} for kind in ("start-step", "finish-step", "finish")),
        ]
        self.turn = "".join(f"data: {each}\n\n" for each in (*map(json.dumps, chunks), "[DONE]")).encode()


@contextmanager
def turns(thread_id: str, *, together: int = 1) -> Iterator[str]:
    with _TurnServer(thread_id, together) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_turn_at_an_alias_must_name_the_requested_thread() -> None:
    with turns("thread_mine") as base:
        mine, other = (
            f"{base}/api/chats/{thread_id}/stream" for thread_id in ("thread_mine", "thread_other")
        )
        assert check(mine).exit_code == 0
        done = check(other)
        assert done.exit_code == 1
        assert "identity.thread" in done.output
        assert check("--data", "{}", other).exit_code == 0, (
            "cutover cannot know the thread of a body that the user gives"
        )


def test_several_targets_are_requested_in_parallel() -> None:
    with turns("t1", together=3) as base:
        done = check(*(f"{base}/{number}" for number in range(3)))
    assert done.exit_code == 0, done.output


def test_a_secret_is_masked_even_if_the_text_is_cut_inside_it() -> None:
    secrets = Secrets((TOKEN, "abc"))
    assert secrets.mask_text("a marked-tok… and mar…, abc") == "a **********… and mar…, abc"


def test_a_body_is_read_from_a_file_or_from_standard_input(tmp_path: Path) -> None:
    body = tmp_path / "turn.json"
    body.write_bytes(b'{"id": "t1"}')
    with echo() as (base, bodies):
        for data in (f"@{body}", "@-", '{"id": "t1"}'):
            assert check("--data", data, f"{base}/0", stdin=b'{"id": "t1"}').exit_code == 1
    assert bodies == [b'{"id": "t1"}'] * 3


def test_a_body_is_sent_with_the_json_content_type() -> None:
    with turns("t1") as base:
        assert check("--data", "{}", f"{base}/json-only").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "@no-such-file", NOWHERE], "no-such-file cannot be read (No such file or directory)"),
        (["--data", "\udcff", NOWHERE], "not JSON"),
        (["--data", "@-", "-"], "standard input (`-`) can be read only once"),
        (["-", "-"], "standard input (`-`) can be read only once"),
        (["--header", "a: 1", "--header", "A: 2", NOWHERE], "a is given twice"),
        (["http://"], "not a URL with a host"),
        (["http://[::1"], "not a URL with a host"),
        (["HTTPS://host:99999/"], "not a URL with a host"),
        ([STREAMS], "Is a directory"),
        (
            ["--explain", "terminator.cuont"],
            "no rule is named 'terminator.cuont'; did you mean terminator.count or",
        ),
        (["--explain", "redirect"], "did you mean head.redirect?"),
        (["--explain", ""], "no rule is named ''; known rules: app.error, "),
    ],
)
def test_wrong_usage_names_the_problem(arguments: list[object], message: str) -> None:
    done = check(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.replace("│", "").split())


def test_closed_standard_input_is_a_usage_error() -> None:
    command = ["sh", "-c", 'exec "$0" -m cutover check - <&-', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "standard input is closed" in done.stderr


def test_an_explanation_shows_the_reason_and_the_severity_of_the_rule() -> None:
    assert check("--explain", "timing.first-event", "--contract", "ai-sdk-7").output.splitlines() == [
        f"timing.first-event: {RULES['timing.first-event'].why}",
        "severity in ai-sdk-7: loss; in `cutover check` and in the pytest fixture: violation",
    ]


def test_the_explanation_of_a_shape_rule_says_which_clients_refuse_the_lanes_shapes() -> None:
    assert "the AI SDK's clients refuse them" in check("--explain", "schema.field-type").output
    assert "refuse them" not in check("--explain", "order.duplicate").output
    assert "refuse them" not in check("--explain", "schema.field-type", "--contract", "ai-sdk-6").output
