"""The options of `cutover check` that say how a request is made, how long a stream may take, and how strict the verdict is."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner, Result

from cutover.cli.commands import main

TURN = (
    b'data: {"type":"start"}\n\n',
    b'data: {"type":"text-start","id":"t"}\n\ndata: {"type":"text-delta","id":"t","delta":"hello"}\n\n',
    b'data: {"type":"text-end","id":"t"}\n\ndata: {"type":"finish"}\n\ndata: [DONE]\n\n',
)
CONTINUED = b"".join(
    (
        b'data: {"type":"start"}\n\n',
        b'data: {"type":"tool-output-available","toolCallId":"call-1","output":1}\n\n',
        b'data: {"type":"tool-output-available","toolCallId":"call-2","output":1}\n\n',
        b'data: {"type":"finish"}\n\ndata: [DONE]\n\n',
    )
)
HALF_A_TURN = TURN[0] + TURN[1]
UNREACHED = "http://127.0.0.1:9/x"


@attrs.frozen
class Request:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class _Service(BaseHTTPRequestHandler):
    """A service that streams a turn for any method. `/echo` answers 404 with the request line and the header `x-note`."""

    def stream(self) -> None:
        assert isinstance(self.server, _Server)
        body = self.rfile.read(int(self.headers["content-length"] or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append(Request(self.command, self.path, headers, body))
        is_echo = self.path.startswith("/echo")
        self.send_response(404 if is_echo else 200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("x-vercel-ai-ui-message-stream", "v1")
        self.end_headers()
        pieces: tuple[bytes, ...] = TURN
        if is_echo:
            pieces = (f"no route for {self.path}, {self.headers['x-note']}".encode(),)
        elif self.path == "/continued":
            pieces = (CONTINUED,)
        for piece in pieces:
            if self.path == "/late" or (self.path == "/pause" and piece is not TURN[0]):
                self.wfile.write(b": still here\n\n")
                self.server.left.wait(5.0)
            self.wfile.write(piece)

    do_GET = do_POST = do_PUT = do_QUERY = stream  # noqa: N815  the names that http.server asks for

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Service)
        self.requests: list[Request] = []
        self.left = threading.Event()

    def handle_error(self, *_: object) -> None:
        """Say nothing: the command leaves a stream that takes too long."""


@contextmanager
def service() -> Iterator[tuple[str, list[Request]]]:
    """Serve on loopback, and give the URL and the requests that came. A stream that pauses goes on when the test leaves."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", server.requests
        finally:
            server.left.set()
            server.shutdown()
            thread.join()


def check(*arguments: str, stdin: bytes | None = None, contract: str = "ai-sdk-6", **env: str) -> Result:
    return CliRunner().invoke(main, ["check", "--contract", contract, *arguments], input=stdin, env=env)


@pytest.mark.parametrize("method", ["GET", "put", "QUERY"])
def test_a_request_has_the_given_method(method: str) -> None:
    with service() as (base, requests):
        done = check("--method", method, f"{base}/api/chat/stream")
        assert done.exit_code == 0, done.output
        assert check("--method", method, "--data", '{"a":1}', f"{base}/x").exit_code == 0
    assert [(each.method, each.body) for each in requests] == [
        (method.upper(), b""),
        (method.upper(), b'{"a":1}'),
    ]
    assert "content-type" not in requests[0].headers
    assert requests[1].headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "reason"),
    [
        ("HEAD", "a response to HEAD is no stream"),
        ("trace", "is no stream"),
        ("A B", "no HTTP method"),
        ("", "no HTTP method"),
    ],
)
def test_a_method_that_starts_no_stream_is_refused(method: str, reason: str) -> None:
    done = check("--method", method, UNREACHED)
    assert done.exit_code == 2
    assert reason in " ".join(done.output.split())


def test_a_method_alone_for_a_recording_is_refused() -> None:
    done = check("--method", "GET", "-", stdin=b"")
    assert done.exit_code == 2
    assert "--method needs a URL, because a recording has no request" in done.output


def test_a_method_chooses_the_operation_of_a_document(tmp_path: Path) -> None:
    stream = {"content": {"text/event-stream": {"itemSchema": {"type": "object"}}}, "description": "d"}
    document = {
        "openapi": "3.2.0",
        "info": {"title": "t", "version": "1"},
        "paths": {"/chat": {"put": {"responses": {"200": stream}}}},
    }
    (tmp_path / "api.json").write_text(json.dumps(document))
    arguments = [
        "check",
        "--openapi",
        str(tmp_path / "api.json"),
        "--terminator",
        "[DONE]",
        "--method",
        "PUT",
    ]
    with service() as (base, requests):
        done = CliRunner().invoke(main, [*arguments, f"{base}/chat"])
        assert done.exit_code == 0, done.output
    assert [each.method for each in requests] == ["PUT"]


@pytest.mark.parametrize("name", ["--deadline", "--seconds"])
def test_a_stream_may_take_as_long_as_the_deadline(name: str) -> None:
    with service() as (base, _):
        done = check(name, "0.1", f"{base}/pause")
    assert done.exit_code == 1
    assert "violation timing.deadline (" in done.output


@pytest.mark.parametrize(
    ("option", "path", "rule"),
    [
        ("--gap", "/pause", "timing.event-gap"),
        ("--first-event", "/late", "timing.first-event"),
    ],
)
def test_a_limit_of_time_is_given(option: str, path: str, rule: str) -> None:
    with service() as (base, _):
        done = check(option, "0.1", f"{base}{path}")
        assert check(option, "0.1", f"{base}/x").exit_code == 0
    assert done.exit_code == 1
    assert f"violation {rule} (" in done.output


@pytest.mark.parametrize("option", ["--gap", "--first-event", "--deadline", "--seconds", "--max-event-bytes"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon"])
def test_a_limit_that_is_none_is_refused(option: str, value: str) -> None:
    done = check(option, value, UNREACHED)
    assert done.exit_code == 2
    assert option in done.output


def test_the_bound_of_an_event_is_given_for_urls_and_recordings() -> None:
    body = b"".join(TURN)
    with service() as (base, _):
        assert check("--max-event-bytes", "100", f"{base}/x", "-", stdin=body).exit_code == 0
        done = check("--max-event-bytes", "30", f"{base}/x", "-", stdin=body)
    assert done.exit_code == 1
    assert done.output.count("violation stream.oversized (") == 2 * 3


def test_earlier_tool_calls_are_known_to_urls_and_recordings() -> None:
    with service() as (base, _):
        targets = (f"{base}/continued", "-")
        known = check("--known-call", "call-1", "--known-call", "call-2", *targets, stdin=CONTINUED)
        assert known.exit_code == 0, known.output
        done = check("--known-call", "call-1", *targets, stdin=CONTINUED)
    assert done.exit_code == 1
    assert done.output.count("order.unknown-call") == 2
    assert done.output.count("call-2") == 2


def test_the_verdict_of_the_client_itself_shows_a_loss_and_passes() -> None:
    strict, own = check("-", stdin=HALF_A_TURN), check("--no-strict", "-", stdin=HALF_A_TURN)
    assert (strict.exit_code, own.exit_code) == (1, 0)
    assert "violation stream.truncated" in strict.output
    assert "loss stream.truncated" in own.output


def test_a_dollar_sign_stands_for_itself_unless_a_name_follows() -> None:
    sent = "x-price: $$NAME $5 100$ $-a ${5} $NAME ${NAME}b $$$NAME"
    with service() as (base, requests):
        assert check("--header", sent, f"{base}/x", NAME="value").exit_code == 0
    assert requests[0].headers["x-price"] == "$NAME $5 100$ $-a ${5} value valueb $value"


def test_the_header_accept_is_sent_as_given_else_as_the_standard_says() -> None:
    with service() as (base, requests):
        for more in (("--header", "Accept: application/x-ndjson"), ()):
            assert check(*more, f"{base}/x").exit_code == 0
    assert [each.headers["accept"] for each in requests] == ["application/x-ndjson", "text/event-stream"]


def test_a_variable_that_is_not_set_is_named_with_the_remedy() -> None:
    done = check("--header", "x-price: $NO_SUCH_NAME", UNREACHED)
    assert done.exit_code == 2
    assert "x-price: $NO_SUCH_NAME is not set in the environment; write $$ for the sign itself" in " ".join(
        done.output.split()
    )


@pytest.mark.parametrize("base", ["service", "http://127.0.0.1:9", "http://me:pa55w0rd@127.0.0.1:9"])
def test_no_secret_of_a_url_or_a_header_is_in_any_report(base: str, tmp_path: Path) -> None:
    secrets = {"key": "k3y-value", "access_token": "t0ken%2Bvalue", "sig": "s1gnature", "note": "n0te"}
    report = tmp_path / "report.xml"
    query = "&".join(f"{name}={value}" for name, value in secrets.items())
    with service() as (served, requests):
        target = f"{served if base == 'service' else base}/echo?{query}"
        arguments = (
            "--header",
            "x-note: typed",
            "--header",
            "x-api-key: h3ader-value",
            "--junit-xml",
            str(report),
            target,
        )
        shown = [check(*arguments).output, report.read_text(), check("--json", *arguments).output]
    assert all(f"{name}={value}" in each.path for each in requests for name, value in secrets.items())
    for text in shown:
        assert "/echo?key=***&" in text.replace("&amp;", "&")
        assert "note=n0te" in text
        for secret in ("k3y-value", "t0ken", "s1gnature", "pa55w0rd", "h3ader-value"):
            assert secret not in text
    if base == "service":
        assert "no route for /echo" in shown[0]


def test_a_target_that_is_no_url_is_refused_without_its_login() -> None:
    done = check("http://me:pa55/word@host:port/?key=k3y-value")
    assert done.exit_code == 2
    assert "http://***@host:port/?key=***: not a URL" in " ".join(done.output.split())
