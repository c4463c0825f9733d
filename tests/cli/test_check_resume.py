"""`cutover check --resume`: a real service is cut off and asked to go on."""

import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
from anyio.from_thread import start_blocking_portal
from click.testing import CliRunner, Result
from starlette.types import Receive, Scope, Send

from cutover.cli.commands import main
from cutover.protocols import COMPAT_LANE, SHIPPED
from tests.support.loopback_server import served

CHUNKS = (
    '{"type":"start"}',
    '{"type":"start-step"}',
    '{"type":"text-start","id":"x","turnId":"t"}',
    *(f'{{"type":"text-delta","id":"x","delta":"{n} ","channel":"assistant"}}' for n in range(4)),
    '{"type":"finish-step"}',
    '{"type":"finish"}',
    "[DONE]",
)


@attrs.define
class Service:
    """A chat service that keeps its answer: each event has an id, and `/lossy` loses the first event behind the join."""

    asked: list[tuple[str, str, str | None]] = attrs.field(factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = dict(scope["headers"]).get(b"last-event-id")
        last = None if found is None else found.decode()
        self.asked.append((scope["method"], scope["path"], last))
        head = [(b"content-type", b"text/event-stream; charset=utf-8")]
        head.append((b"x-vercel-ai-ui-message-stream", b"v1"))
        await send({"type": "http.response.start", "status": 200, "headers": head})
        first = int(last or "0") + (scope["path"] == "/lossy" and last is not None)
        for n, chunk in enumerate(CHUNKS[first:], first + 1):
            mark = "" if scope["path"] == "/nameless" else f"id: {n}\n"
            body = f"{mark}data: {chunk}\n\n".encode()
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(scope="module")
def service() -> Iterator[tuple[str, Service]]:
    app = Service()
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(served(app)) as url:
        yield url, app


def check(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments])


def test_a_service_that_resumes_well_passes(service: tuple[str, Service]) -> None:
    url, app = service
    app.asked.clear()
    done = check("--resume", f"{url}/good")
    assert done.exit_code == 0, done.output
    assert f": ok  {len(CHUNKS)} events" in done.output
    assert app.asked == [("POST", "/good", None), ("POST", "/good", "3")]


@pytest.mark.parametrize(("path", "rule"), [("/lossy", "resume.lost"), ("/nameless", "resume.no-id")])
def test_a_fault_at_the_join_is_a_violation(service: tuple[str, Service], path: str, rule: str) -> None:
    url, _ = service
    assert check(f"{url}{path}").exit_code == 0
    done = check("--resume", "--json", f"{url}{path}")
    assert done.exit_code == 1
    assert [finding["rule"] for finding in json.loads(done.output)["findings"]] == [rule]


def test_the_ai_sdks_contracts_judge_the_join_too(service: tuple[str, Service]) -> None:
    url, _ = service
    done = check("--resume", "--contract", "ai-sdk-7", f"{url}/lossy")
    assert done.exit_code == 1
    assert "violation resume.lost" in done.output


def test_the_methods_of_the_request_are_those_of_the_contract(
    service: tuple[str, Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, app = service
    by_get = {**SHIPPED, "compat-lane": attrs.evolve(COMPAT_LANE, method="GET")}
    monkeypatch.setattr("cutover.cli.contracts.SHIPPED", by_get)
    app.asked.clear()
    assert check(f"{url}/good").exit_code == 0
    assert app.asked == [("GET", "/good", None)]


def test_a_service_that_cannot_be_reached_is_told_as_such() -> None:
    done = check("--resume", "http://127.0.0.1:9/stream")
    assert done.exit_code == 3
    assert "UNREACHABLE" in done.output


@pytest.mark.parametrize("targets", [["{file}"], ["-"], ["http://127.0.0.1:9/", "{file}"]])
def test_a_recording_cannot_be_resumed(tmp_path: Path, targets: list[str]) -> None:
    recording = tmp_path / "stream.sse"
    recording.write_bytes(b"")
    done = check("--resume", *(target.format(file=recording) for target in targets))
    assert done.exit_code == 2
    assert "--resume needs URLs" in done.output
    assert "Check it without --resume" in " ".join(done.output.split())


def test_the_rules_about_the_join_are_explained() -> None:
    done = check("--explain", "resume.lost")
    assert done.exit_code == 0
    assert done.output.startswith("resume.lost: After a reconnection an event is missing")
    assert "severity in compat-lane: violation" in done.output
