"""The resume drill of `check_stream`: a stream is cut and resumed; whatever the ids look like, a loss is seen."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import attrs
import httpx
import pytest
from starlette.types import Message, Receive, Scope, Send

from cutover import check_stream
from cutover.contract import ContractReport
from cutover.http.asgi.transport import StreamingASGITransport
from cutover.protocols import COMPAT_LANE
from tests.support.ticker import JOB, PATH, TICKER, Ticker, numbered, opaque

pytestmark = pytest.mark.anyio

HUNG = 20.0


async def drill(app: Any, **options: Any) -> ContractReport:
    options = {"contract": JOB, "resume": True, **options}
    with anyio.fail_after(HUNG):
        async with httpx.AsyncClient(transport=StreamingASGITransport(app), base_url="http://app") as client:
            return await check_stream(client, PATH, **options)


def rules(report: ContractReport) -> list[str]:
    return [finding.rule for finding in report.findings]


@pytest.mark.parametrize("id_of", [numbered, opaque], ids=["numbered", "opaque"])
@pytest.mark.parametrize("count", [2, 3, 4, 5, 20])
async def test_a_stream_that_resumes_well_passes(id_of: Any, count: int) -> None:
    app = Ticker(count=count, id_of=id_of)
    report = await drill(app)
    assert report.findings == ()
    assert report.ok
    assert report.event_count == count + 1
    assert app.asked == [None, id_of(3)]


async def test_an_endless_stream_is_read_for_some_events_behind_the_join() -> None:
    app = Ticker(id_of=opaque)
    report = await drill(app, contract=TICKER)
    assert report.ok
    assert 13 <= report.event_count <= 20
    assert app.asked == [None, opaque(3)]


async def test_all_events_may_come_in_one_piece() -> None:
    ticker = Ticker(count=9, id_of=opaque)

    async def at_once(scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()

        async def keep(message: Message) -> None:
            body.extend(message.get("body", b""))

        await ticker({**scope}, receive, keep)
        head: Message = {"type": "http.response.start", "status": 200}
        await send({**head, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": bytes(body)})

    report = await drill(at_once)
    assert report.ok
    assert report.event_count == 10


@pytest.mark.parametrize("id_of", [numbered, opaque], ids=["numbered", "opaque"])
@pytest.mark.parametrize(
    ("fault", "found"),
    [
        ({"ignore_id": True}, ["resume.lost", "resume.replayed"]),
        ({"double": True}, ["resume.replayed"]),
        ({"overlap": True}, ["resume.replayed"]),
        ({"forget": [1]}, ["resume.lost"]),
        ({"forget": [2]}, ["resume.lost"]),
        ({"forget": [1, 2]}, ["resume.lost"]),
        ({"refuse": 503}, ["resume.refused"]),
        ({"refuse": 204}, ["resume.refused"]),
        ({"html": True}, ["head.content-type"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
async def test_each_fault_at_the_join_is_found(fault: Any, found: list[str], id_of: Any) -> None:
    # The pause lets two events come behind the cut, and no more.
    report = await drill(Ticker(count=9, id_of=id_of, every=0.02, **fault))
    assert set(rules(report)) <= set(found)
    assert found[-1] in rules(report)
    assert not report.ok


async def test_a_loss_names_the_event_that_was_sent_before_the_cut() -> None:
    report = await drill(Ticker(count=9, id_of=opaque, every=0.02, forget=[1]))
    [finding] = report.findings
    assert finding.expected == f"the id {opaque(4)}, which the service had sent before the cut"
    assert finding.actual == f"the id {opaque(5)}"


async def test_events_that_do_not_come_again_at_all_are_lost() -> None:
    report = await drill(Ticker(count=5, id_of=opaque, every=0.02, forget=[1, 2]))
    assert rules(report) == ["resume.lost"]


@pytest.mark.virtual_time
async def test_a_slow_stream_is_cut_without_withheld_events() -> None:
    app = Ticker(count=5, every=1.2)
    report = await drill(app)
    assert report.ok
    assert app.asked == [None, "3"]


@pytest.mark.parametrize("ids", ["none", "some"])
async def test_a_stream_without_ids_is_a_finding(ids: str) -> None:
    def id_of(n: int) -> str | None:
        return None if ids == "none" or n == 2 else str(n)

    report = await drill(Ticker(count=6, id_of=id_of))
    assert rules(report) == ["resume.no-id"]
    assert report.event_count == 7


async def test_a_short_stream_is_resumed_behind_its_end() -> None:
    def id_of(n: int) -> str | None:
        return str(n) if n < 3 else None

    contract = attrs.evolve(JOB, resume=None)
    app = Ticker(count=2, id_of=id_of, refuse=204)
    report = await drill(app, contract=contract)
    assert report.ok
    assert app.asked == [None, "2"]
    report = await drill(Ticker(count=2, id_of=id_of, ignore_id=True), contract=contract)
    assert "resume.replayed" in rules(report)


async def test_a_first_response_that_is_no_stream_is_not_resumed() -> None:
    class Gone(Ticker):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            self.asked.append(None)
            await self._head(send, 404, b"text/plain")
            await send({"type": "http.response.body", "body": b"nothing here"})

    app = Gone()
    assert rules(await drill(app)) == ["head.status"]
    assert app.asked == [None]


async def test_a_first_stream_that_breaks_by_itself_is_not_resumed() -> None:
    asked = []

    async def body() -> AsyncIterator[bytes]:
        yield Ticker().tick(1).encode()
        raise httpx.ReadError("the instance is gone")

    async def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://a") as client:
        report = await check_stream(client, PATH, contract=JOB, resume=True)
    assert rules(report) == ["transport.reset"]
    assert len(asked) == 1


async def test_a_service_that_is_gone_at_the_reconnection_is_a_finding() -> None:
    calls = 0

    async def body() -> AsyncIterator[bytes]:
        for n in range(1, 9):
            yield Ticker().tick(n).encode()

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise httpx.ConnectError("connection refused")
        return httpx.Response(200, headers={"content-type": "text/event-stream"}, content=body())

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://a") as client:
        report = await check_stream(client, PATH, contract=JOB, resume=True)
    assert rules(report) == ["transport.unreachable"]


async def test_an_echoed_credential_is_masked() -> None:
    class Echoes(Ticker):
        def tick(self, n: int) -> str:
            return super().tick(n).replace('"tick"', '"marked-secret"')

    report = await drill(Echoes(count=5), headers={"authorization": "Bearer marked-secret"})
    assert report.violations
    assert "marked" not in repr(report)


async def test_the_order_is_judged_as_of_one_stream() -> None:
    """Each body alone would break the order: only both together are one turn."""
    chunks = [
        '{"type":"start"}',
        '{"type":"start-step"}',
        '{"type":"text-start","id":"x","turnId":"t"}',
        '{"type":"text-delta","id":"x","delta":"a","channel":"assistant"}',
        '{"type":"finish-step"}',
        '{"type":"finish"}',
        "[DONE]",
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        last = dict(scope["headers"]).get(b"last-event-id", b"0")
        head = [(b"content-type", b"text/event-stream; charset=utf-8")]
        head.append((b"x-vercel-ai-ui-message-stream", b"v1"))
        await send({"type": "http.response.start", "status": 200, "headers": head})
        for n, chunk in enumerate(chunks[int(last) :], int(last) + 1):
            text = f"id: {n}\ndata: {chunk}\n\n".encode()
            await send({"type": "http.response.body", "body": text, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    assert (await drill(app, contract=COMPAT_LANE.strict(), method="POST")).findings == ()


@pytest.mark.parametrize("size", [1, 2, 7, 33, 34, 35, 100])
@pytest.mark.parametrize("double", [False, True])
async def test_the_bytes_may_be_cut_anywhere(size: int, double: bool) -> None:
    ticker = Ticker(count=9, id_of=opaque, double=double)

    async def in_pieces(scope: Scope, receive: Receive, send: Send) -> None:
        async def cut(message: Message) -> None:
            body = message.get("body", b"")
            if message["type"] != "http.response.body" or not body:
                await send(message)
            for at in range(0, len(body), size):
                await send({**message, "body": b": ping\n" * (at == 0) + body[at : at + size]})

        await ticker({**scope}, receive, cut)

    report = await drill(in_pieces)
    assert rules(report) == ["resume.replayed"] * double
    assert report.event_count == 10 + double
