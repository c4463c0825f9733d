"""A FastAPI app is held to its own document: `stream_contract(app, path, contract="openapi")`."""

from collections.abc import AsyncIterable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from cutover import ContractViolation, StreamContract, stream_contract
from cutover.errors import OpenApiError
from cutover.testing import assert_stream


class Item(BaseModel):
    name: str
    price: float


app = FastAPI()


@app.get("/items", response_class=EventSourceResponse)
async def items() -> AsyncIterable[Item]:
    yield Item(name="a", price=1.5)
    yield Item(name="b", price=2)


PROMISE = {"kind": "/data/type", "order": "start delta* finish", "terminator": "[DONE]"}
SCHEMA = {
    "type": "object",
    "required": ["type"],
    "properties": {"type": {"enum": ["start", "delta", "finish"]}},
}
EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": SCHEMA}
    },
}
DECLARED = {"200": {"content": {"text/event-stream": {"itemSchema": EVENT, "x-sse-stream": PROMISE}}}}


@app.post("/chat/{fault}", openapi_extra={"responses": DECLARED}, response_class=StreamingResponse)
async def chat(fault: str) -> Any:
    kinds = ["start", "delta", "finish"]
    if fault != "none":
        kinds.remove(fault)
    events = [*(f'data: {{"type":"{kind}"}}\n\n' for kind in kinds), "data: [DONE]\n\n"]
    return StreamingResponse(iter(events), media_type="text/event-stream")


@app.get("/plain")
async def plain() -> str:
    return "no stream"


@pytest.mark.anyio
async def test_a_typed_stream_keeps_the_document_that_fastapi_writes() -> None:
    async with stream_contract(app, "/items", contract="openapi") as stream:
        report = await stream.drain()
    assert report.ok
    assert report.contract == "GET /items"
    assert report.event_count == 2


@pytest.mark.anyio
async def test_a_promise_in_the_document_is_held() -> None:
    async with stream_contract(app, "/chat/none?x=1", contract="openapi") as stream:
        assert (await stream.expect("delta")).json() == {"type": "delta"}
    with pytest.raises(ContractViolation, match=r"^order\.finish-missing"):
        async with stream_contract(app, "/chat/finish", contract="openapi", method="POST"):
            pass


def test_it_works_without_async_too() -> None:
    assert assert_stream(app, "/items", contract="openapi").ok


@pytest.mark.parametrize(
    ("path", "method", "rule"),
    [
        ("/nothing", None, "openapi.no-operation"),
        ("/items", "POST", "openapi.no-operation"),
        ("/plain", None, "openapi.no-event-stream"),
    ],
)
def test_a_path_without_a_stream_is_named(path: str, method: str | None, rule: str) -> None:
    with pytest.raises(OpenApiError, match=rule):
        assert_stream(app, path, contract="openapi", method=method)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """An ASGI app that cannot describe itself."""


@pytest.mark.parametrize("peer", [bare, "http://127.0.0.1:9", httpx.AsyncClient()])
def test_a_peer_without_a_document_is_refused_with_the_way_out(peer: Any) -> None:
    with pytest.raises(TypeError, match=r"contract=StreamContract\.from_openapi"):
        assert_stream(peer, "/items", contract="openapi")


def test_the_same_document_can_be_given() -> None:
    contract = StreamContract.from_openapi(app.openapi(), "/chat/none", name="the chat")
    assert (contract.name, contract.method, contract.terminator) == ("the chat", "POST", "[DONE]")
    assert assert_stream(app, "/chat/none", contract=contract).ok
