"""A Locust user holds streams to a contract: in this process without Locust's runners, and in Locust's own processes.

In this process, Locust must not replace parts of the standard library, which other tests use.
"""

import contextlib
import csv
import importlib.metadata
import importlib.util
import json
import ssl
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import gevent
import gevent.ssl
import httpx
import pytest
from gevent import socket
from geventhttpclient.client import HTTPClient
from geventhttpclient.response import HTTPParseError
from packaging.requirements import Requirement

from cutover import AI_SDK_6, COMPAT_LANE, ContractReport, ContractViolation, StreamContract, check_stream
from cutover.contract import Limits, Severity, StreamContext
from cutover.testing import gevent_stream
from tests.support.load_server import BROKEN, streams, turn
from tests.support.load_tests import environment, free_port, load_server, locust
from tests.support.paths import ROOT

with pytest.MonkeyPatch.context() as patch:
    patch.setenv("LOCUST_SKIP_MONKEY_PATCH", "1")
    from locust.env import Environment

    from cutover.testing import locust as testing_locust
    from cutover.testing.locust import StreamUser

LIMITS = Limits(first_event=5, event_gap=0.6, held_back_after=60)
CONTRACT = attrs.evolve(COMPAT_LANE, limits=LIMITS)
GOOD = ("/good", "/small-pieces", "/length", "/close", "/beyond", "/interim", "/gzip", "/none")
UNLIKE_HTTPX = {"/bomb", "/unknown-coding"}
"""Streams of which httpx reads the first member of gzip only, or that it decompresses where a package for that is installed."""
BODY = {"id": "t1", "messages": []}


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    with load_server(deltas=3) as url:
        yield url


class Statistics(list[dict[str, Any]]):
    """The entries that Locust was asked to count."""

    @property
    def names(self) -> list[str]:
        return [each["name"] for each in self]


def user_of(
    host: str, contract: StreamContract = CONTRACT, **attributes: Any
) -> tuple[StreamUser, Statistics]:
    """Return a user outside any run, and what is counted for it."""
    seen = Statistics()
    surroundings = Environment()
    surroundings.events.request.add_listener(lambda **entry: seen.append(entry))  # type: ignore[no-untyped-call]
    user_class = type("Chat", (StreamUser,), {"host": host, "contract": contract, **attributes})
    return user_class(surroundings), seen


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Answer one request on a socket of gevent. The dictionary gets the request, and what came until the client closed."""
    seen: dict[str, bytes] = {}

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            seen["request"] = peer.recv(1 << 16)
            peer.sendall(answer)
            with contextlib.suppress(ConnectionResetError):
                seen["rest"] = peer.recv(1)

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = gevent.spawn(serve)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
            server.get(timeout=5)
        finally:
            server.kill()


class TestStreams:
    @pytest.mark.parametrize("path", GOOD)
    def test_a_good_stream_is_no_failure_however_it_is_cut_and_framed(self, base_url: str, path: str) -> None:
        user, seen = user_of(base_url)
        report = user.check_stream(path, json=BODY)
        assert report.ok
        assert report.violations == ()
        assert report.event_count == 9
        assert [each["exception"] for each in seen] == [None, None, None, None]

    @pytest.mark.parametrize(("path", "rule"), BROKEN.items())
    def test_a_broken_stream_is_a_failure_that_is_named_by_its_rule(
        self, base_url: str, path: str, rule: str
    ) -> None:
        user, seen = user_of(base_url)
        report = user.check_stream(path, json=BODY)
        assert report.violations[0].rule == rule
        failure = seen[0]["exception"]
        assert isinstance(failure, ContractViolation)
        assert str(failure).startswith(f"{rule}: ")
        assert failure.findings == report.violations
        assert [each["exception"] for each in seen[1:]] == [None] * (len(seen) - 1)

    @pytest.mark.parametrize("path", sorted(streams(1).keys() - {*GOOD} - UNLIKE_HTTPX))
    def test_a_stream_has_the_findings_of_check_stream(self, base_url: str, path: str) -> None:
        async def check() -> ContractReport:
            async with httpx.AsyncClient(base_url=base_url) as client:
                return await check_stream(client, path, contract=contract.strict(), json=BODY, deadline=2)

        contract = attrs.evolve(CONTRACT, limits=attrs.evolve(LIMITS, first_event=0.3))
        user, _ = user_of(base_url, contract)
        found, wanted = user.check_stream(path, json=BODY, deadline=2), anyio.run(check)
        assert [(each.rule, each.event_index) for each in found.findings] == [
            (each.rule, each.event_index) for each in wanted.findings
        ]
        assert (found.event_count, found.interrupted) == (wanted.event_count, wanted.interrupted)

    @pytest.mark.parametrize(
        ("path", "failure"),
        [
            (
                "/reset",
                "transport.reset: The connection broke before the end of the body (Connection reset by peer)",
            ),
            ("/short", "transport.reset: The connection broke before the end of the body (Incomplete response.)"),
            ("/no-answer", "transport.reset: The connection broke before the end of the body (connection closed)"),
            ("/failed", "head.status: The contract does not allow this status (503)"),
            ("/redirect", "head.redirect: The response is a redirect (302)"),
            ("/silent", "timing.first-event: No event came within the first_event limit of this check"),
        ],
    )  # fmt: skip
    def test_equal_failures_have_equal_messages_that_say_why(
        self, base_url: str, path: str, failure: str
    ) -> None:
        user, seen = user_of(base_url, attrs.evolve(CONTRACT, limits=attrs.evolve(LIMITS, first_event=0.2)))
        for _ in range(2):
            user.check_stream(path, json=BODY)
        assert [str(each["exception"]) for each in seen if each["name"] == path] == [failure, failure]

    def test_no_connection_is_a_failure_of_its_own(self) -> None:
        user, seen = user_of(f"http://127.0.0.1:{free_port()}")
        assert [each.rule for each in user.check_stream("/good").violations] == ["transport.unreachable"]
        assert str(seen[0]["exception"]).endswith("(Connection refused)")

    def test_tls_where_there_is_none_is_no_connection(self) -> None:
        # In a run of Locust, every context is one of gevent's.
        context = staticmethod(lambda: gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as (url, _):
            user, seen = user_of(url.replace("http:", "https:"), ssl_context_factory=context)
            found = user.check_stream("/").violations
        assert [each.rule for each in found] == ["transport.unreachable"]
        assert "WRONG_VERSION_NUMBER" in str(seen[0]["exception"])

    def test_a_body_that_cannot_be_decompressed_is_a_failure(self, base_url: str) -> None:
        user, seen = user_of(base_url)
        assert not user.check_stream("/unknown-coding").ok
        assert not user.check_stream("/no-gzip").ok
        failures = [str(each["exception"]) for each in seen]
        assert all(failure.startswith("transport.decoding: ") for failure in failures)
        assert "its content-encoding is compress, which cannot be decoded here" in failures[0]
        assert failures[1].endswith("Error -3 while decompressing data: incorrect header check)")

    def test_a_stream_that_grows_without_end_when_decompressed_is_bounded(self, base_url: str) -> None:
        user, _ = user_of(base_url)
        assert [each.rule for each in user.check_stream("/bomb").violations] == ["stream.oversized"]

    def test_comments_do_not_fill_a_gap(self, base_url: str) -> None:
        user, _ = user_of(base_url)
        report = user.check_stream("/comments", json=BODY)
        assert [each.rule for each in report.violations] == ["timing.event-gap"]
        assert report.timings.end == pytest.approx(0.6, abs=0.3)

    def test_the_deadline_holds_for_the_whole_stream(self, base_url: str) -> None:
        user, _ = user_of(base_url)
        report = user.check_stream("/endless", json=BODY, deadline=0.3)
        assert {each.rule for each in report.violations} == {"timing.deadline"}

    def test_a_stream_without_an_end_is_left_at_the_deadline_and_that_is_no_failure(
        self, base_url: str
    ) -> None:
        user, seen = user_of(base_url, StreamContract(name="events", kind="type", endless=True))
        report = user.check_stream("/endless", deadline=0.3)
        assert report.ok
        assert seen[0]["response_time"] == pytest.approx(300)
        assert seen[0]["exception"] is None
        assert not user.check_stream("/silent", deadline=0.2).ok

    def test_a_limit_without_end_is_none(self, base_url: str) -> None:
        endless = attrs.evolve(
            CONTRACT, limits=attrs.evolve(LIMITS, first_event=float("inf"), event_gap=float("inf"))
        )
        user, _ = user_of(base_url, endless)
        assert user.check_stream("/good", deadline=float("inf")).ok

    def test_a_loss_is_a_violation_unless_the_client_alone_judges(self, base_url: str) -> None:
        user, seen = user_of(base_url, attrs.evolve(AI_SDK_6, limits=LIMITS))
        assert user.check_stream("/cut", strict=False).ok
        assert not user.check_stream("/cut").ok
        assert [each["exception"] is None for each in seen if each["name"] == "/cut"] == [True, False]


class TestRequests:
    def test_the_request_is_that_of_a_client_of_event_streams(self) -> None:
        headers = {"Accept": "text/event-stream, text/html", "X-Team": "blue", "accept-encoding": "identity"}
        user, _ = user_of("http://none", default_headers={"x-team": "red", "x-run": "1"})
        with answering(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, seen):
            user.check_stream(f"{url}/a b?q=ü", method="PUT", json={"q": "ü"}, headers=headers)
        head, _, body = seen["request"].partition(b"\r\n\r\n")
        first, *fields = head.decode("latin-1").lower().split("\r\n")
        assert first == "put /a%20b?q=%c3%bc http/1.1"
        assert {
            "accept: text/event-stream, text/html",
            "cache-control: no-store",
            "x-team: blue",
            "x-run: 1",
        } <= {*fields}
        assert {"content-type: application/json", "content-length: 10", "accept-encoding: identity"} <= {
            *fields
        }
        assert json.loads(body) == {"q": "ü"}
        assert seen["rest"] == b""

    def test_the_method_is_the_contract_s_and_credentials_of_the_host_are_sent(self) -> None:
        contract = attrs.evolve(CONTRACT, method="GET")
        with answering(b"") as (url, seen):
            user, _ = user_of(url.replace("http://", "http://me:secret@") + "/", contract)
            # The socket of the answer stays open: the first event does not come.
            user.check_stream("/chat", deadline=0.1)
        assert seen["request"].startswith(b"GET /chat HTTP/1.1\r\n")
        assert b"authorization: Basic bWU6c2VjcmV0\r\n" in seen["request"]

    def test_the_thread_of_the_request_is_the_thread_of_the_stream(self) -> None:
        stream = b'data: {"type":"start","threadId":"other"}\n\n'
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: %d\r\n\r\n" % len(
            stream
        )
        for options in ({"json": BODY}, {"context": StreamContext(thread_id="t1")}):
            with answering(head + stream) as (url, _):
                user, _ = user_of(url)
                found = user.check_stream("/", **options).violations
            assert "identity.thread" in {each.rule for each in found}

    def test_a_secret_that_comes_back_is_masked_in_the_report(self) -> None:
        body = b'{"error":{"code":"unauthorized","message":"no user has t0ps3cret"}}'
        head = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: %d\r\n\r\n" % len(body)
        with answering(head + body) as (url, _):
            user, seen = user_of(url)
            report = user.check_stream("/", headers={"authorization": "Bearer t0ps3cret"})
        assert "no user has" in report.findings[0].message
        assert "t0ps3cret" not in report.findings[0].message
        assert str(seen[0]["exception"]) == "head.status: The contract does not allow this status (401)"

    def test_no_cookie_is_kept_and_no_connection_used_again(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n"
        user, _ = user_of("http://none")
        for _ in range(2):
            with answering(head) as (url, seen):
                user.check_stream(url)
            assert b"cookie" not in seen["request"].lower()
            assert seen["rest"] == b""

    def test_all_users_of_a_class_share_one_http_client(self, base_url: str) -> None:
        first, _ = user_of(base_url)
        second = type(first)(Environment())
        for user in (first, second):
            assert user.check_stream("/length", json=BODY).ok
        assert len(first.client.client.clientpool.clients) == 1
        assert second.client.client.clientpool.clients == {}

    def test_a_host_without_a_scheme_and_a_header_that_cannot_be_sent_are_refused(self) -> None:
        user, seen = user_of("localhost:8000")
        with pytest.raises(ValueError, match="no host in localhost:8000/chat: set `host`"):
            user.check_stream("/chat")
        user, seen = user_of("http://127.0.0.1:9")
        with pytest.raises(ValueError, match="x-a"):
            user.check_stream("/chat", headers={"x-a": "1\r\nx-b: 2"})
        assert seen == []


class TestStatistics:
    def test_a_stream_has_an_entry_of_its_own_and_one_for_each_time(self, base_url: str) -> None:
        user, seen = user_of(base_url, context=lambda self: {"tenant": "blue"})
        report = user.check_stream("/good?run=1", json=BODY, name="chat")
        assert seen.names == ["chat", "chat: first event", "chat: first content", "chat: longest gap"]
        assert {each["request_type"] for each in seen} == {"SSE"}
        times = report.timings
        assert [each["response_time"] for each in seen] == [
            pytest.approx(seconds * 1000)
            for seconds in (times.end, times.first_event, times.first_content, times.max_gap)
            if seconds is not None
        ]
        assert [each["response_length"] for each in seen] == [report.byte_count, 0, 0, 0]
        assert {each["url"] for each in seen} == {f"{base_url}/good?run=1"}
        assert [each["context"] for each in seen] == [{"tenant": "blue"}] * 4
        assert all(time.time() - 60 < each["start_time"] <= time.time() for each in seen)

    @pytest.mark.parametrize("path", ["/failed", "/html", "/no-answer", "/redirect"])
    def test_a_stream_that_never_began_has_no_first_event_and_no_longest_gap(
        self, base_url: str, path: str
    ) -> None:
        user, seen = user_of(base_url)
        user.check_stream(path)
        assert seen.names == [path]

    def test_a_stream_that_did_not_end_is_a_failure_even_if_no_rule_says_so(self) -> None:
        contract = attrs.evolve(CONTRACT, severities={"head.status": Severity.IGNORED})
        with answering(b"HTTP/1.1 500 Failed\r\ncontent-length: 9\r\n\r\nx") as (url, _):
            user, seen = user_of(url, attrs.evolve(contract, limits=attrs.evolve(LIMITS, first_event=0.1)))
            assert user.check_stream("/").violations == ()
        assert str(seen[0]["exception"]) == "stream.unfinished: The stream has not ended"


class TestStopping:
    def test_a_stream_in_flight_is_closed_and_counts_nowhere(self) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
        with answering(head + b'data: {"type":"start"}\n\n') as (url, seen):
            user, counted = user_of(url)
            task = gevent.spawn(user.check_stream, "/")
            gevent.sleep(0.1)
            assert not task.ready()
            task.kill()
        assert seen["rest"] == b""
        assert counted == []

    def test_a_timeout_of_the_caller_is_the_caller_s(self, base_url: str) -> None:
        user, counted = user_of(base_url)
        mine = gevent.Timeout(0.1)
        with pytest.raises(gevent.Timeout) as raised, mine:
            user.check_stream("/silent")
        assert raised.value is mine
        assert counted == []

    def test_a_stream_that_never_pauses_lets_others_run(self) -> None:
        turns = 0

        def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                gevent.sleep(0)

        peer, mine = socket.socketpair()
        connection = gevent_stream.GeventConnection(HTTPClient("none"), "GET", "/", {}, b"")
        connection._socket = mine
        peer.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        connection.receive_head()
        other = gevent.spawn(count)
        for _ in range(100):
            # The byte is there before it is asked for.
            peer.sendall(b"x")
            assert connection.receive() == b"x"
        other.kill()
        assert turns >= 3
        connection.close()
        peer.close()


class TestInstallation:
    def test_the_installed_versions_are_the_ones_that_the_extra_allows(self) -> None:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        pinned = {each.name: each.specifier for each in map(Requirement, extras["locust"])}
        assert pinned.keys() == {"locust", "geventhttpclient"}
        for name, allowed in pinned.items():
            assert importlib.metadata.version(name) in allowed

    def test_a_second_response_is_no_part_of_the_first(self) -> None:
        parser = gevent_stream._ResponseParser()
        response = b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n"
        with pytest.raises(HTTPParseError):
            parser.feed(response + b"x" + response + b"y")
        assert (parser.is_over, parser.take_body(), parser.take_body()) == (True, b"x", b"")
        assert parser.info()["content-length"] == "1"

    def test_without_locust_the_import_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "locust", None)
        spec = importlib.util.spec_from_file_location("another", testing_locust.__file__)
        assert spec is not None
        assert spec.loader is not None
        with pytest.raises(ImportError, match=r"pip install 'stream-cutover\[locust\]'"):
            spec.loader.exec_module(importlib.util.module_from_spec(spec))

    @pytest.mark.parametrize(
        "code",
        [
            "import cutover.testing; assert not {'locust', 'gevent'} & set(sys.modules)",
            # Without a warning that gevent came too late.
            "import cutover.testing.locust",
            "import locust, cutover, cutover.testing as t; [getattr(m, n) for m in (cutover, t) for n in m.__all__]",
        ],
    )
    def test_importing_is_safe_in_any_order(self, code: str) -> None:
        command = [sys.executable, "-W", "error", "-c", f"import sys; {code}"]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
class TestLocust:
    def test_a_master_and_two_workers_name_every_broken_stream(self, base_url: str, tmp_path: Path) -> None:
        port = str(free_port())
        run = ("--headless", "--users", "40", "--spawn-rate", "40", "--run-time", "3s", "--host", base_url)
        with (
            locust(tmp_path / "one", "--worker", "--master-port", port) as one,
            locust(tmp_path / "two", "--worker", "--master-port", port) as two,
            locust(
                tmp_path / "master",
                *("--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port),
                *("--expect-workers", "2", *run, "--csv", "run"),
            ) as master,
        ):
            # A failure of the load test is Locust's exit code 1.
            assert master.wait(timeout=60) == 1, (tmp_path / "master").read_text()
            assert (one.wait(timeout=20), two.wait(timeout=20)) == (0, 0)
        streams_seen = {row["Name"]: row for row in _rows(tmp_path / "run_stats.csv") if row["Type"] == "SSE"}
        failures = [
            (row["Name"], row["Error"], int(row["Occurrences"]))
            for row in _rows(tmp_path / "run_failures.csv")
        ]
        assert int(streams_seen["/good"]["Request Count"]) > 40
        assert int(streams_seen["/good"]["Failure Count"]) == 0
        assert float(streams_seen["/good"]["Average Content Size"]) == sum(map(len, turn(3)))
        for path, rule in BROKEN.items():
            count = int(streams_seen[path]["Request Count"])
            assert count > 0
            assert int(streams_seen[path]["Failure Count"]) == count
            named = [(error, times) for name, error, times in failures if name == path]
            assert [(rule in error, times) for error, times in named] == [(True, count)]
        assert {name for name, _, _ in failures} == BROKEN.keys()
        for time_of in ("first event", "longest gap"):
            assert (
                streams_seen[f"/good: {time_of}"]["Request Count"] == streams_seen["/good"]["Request Count"]
            )
            assert f"/failed: {time_of}" not in streams_seen
        assert "Traceback" not in "".join((tmp_path / name).read_text() for name in ("one", "two", "master"))

    def test_the_web_ui_starts_and_stops_users_and_shows_the_rules(
        self, base_url: str, tmp_path: Path
    ) -> None:
        web = f"http://127.0.0.1:{(port := free_port())}"
        form = {"user_count": "20", "spawn_rate": "20", "host": base_url}
        with locust(tmp_path / "said", "--web-host", "127.0.0.1", "--web-port", str(port)) as process:
            with httpx.Client(base_url=web) as browser:
                for _ in range(200):
                    with contextlib.suppress(httpx.ConnectError):
                        browser.post("/swarm", data=form).raise_for_status()
                        break
                    time.sleep(0.1)
                shown: Any = {}
                after: Any = {}
                for _ in range(200):
                    shown = browser.get("/stats/requests").json()
                    if {each["name"] for each in shown["errors"]} == BROKEN.keys():
                        break
                    time.sleep(0.1)
                assert shown["state"] == "running"
                assert shown["user_count"] == 20
                assert browser.post("/stop").json()["success"]
                for _ in range(200):
                    after = browser.get("/stats/requests").json()
                    if after["user_count"] == 0:
                        break
                    time.sleep(0.1)
            process.terminate()
            process.wait(timeout=20)
        assert after["user_count"] == 0
        assert {each["name"] for each in after["errors"]} == BROKEN.keys()
        rows = {each["name"]: each for each in after["stats"]}
        assert rows["/good"]["num_failures"] == 0
        for path, rule in BROKEN.items():
            assert rows[path]["num_failures"] == rows[path]["num_requests"]
            assert [rule in each["error"] for each in after["errors"] if each["name"] == path] == [True]
        assert "Traceback" not in (tmp_path / "said").read_text()


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
