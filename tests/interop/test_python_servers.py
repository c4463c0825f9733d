"""Python servers under uvicorn keep the contracts: pydantic-ai's Vercel adapter, sse-starlette, FastAPI and Starlette."""

from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any

import anyio
import pytest
from fastapi import Depends, FastAPI
from fastapi.sse import EventSourceResponse as FastAPIEventSourceResponse
from fastapi.sse import ServerSentEvent
from pydantic_ai import Agent
from pydantic_ai.messages import ModelMessage
from pydantic_ai.models.function import AgentInfo, DeltaThinkingPart, DeltaToolCall, FunctionModel
from pydantic_ai.ui.vercel_ai import VercelAIAdapter
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from cutover import ContractReport
from tests.interop import ai_sdk
from tests.interop.serving import served

pytestmark = pytest.mark.anyio

PROTOCOL = {"x-vercel-ai-ui-message-stream": "v1"}
CHUNKS = (
    '{"type":"start"}',
    '{"type":"start-step"}',
    '{"type":"text-start","id":"1"}',
    *(f'{{"type":"text-delta","id":"1","delta":"{word} "}}' for word in ("Grüezi", "mitenand")),
    '{"type":"text-end","id":"1"}',
    '{"type":"finish-step"}',
    '{"type":"finish","finishReason":"stop"}',
    "[DONE]",
)
GAP = 0.01
MESSAGE = {"id": "m1", "role": "user", "parts": [{"type": "text", "text": "What is the weather?"}]}
CLIENT_REQUEST = {"trigger": "submit-message", "id": "c1", "messages": [MESSAGE]}
"""The request body of the AI SDK's client."""


async def _chunks() -> AsyncIterator[str]:
    for chunk in CHUNKS:
        yield chunk
        await anyio.sleep(GAP)


async def _starlette(_: Request) -> Response:
    events = (f"data: {chunk}\n\n" async for chunk in _chunks())
    return StreamingResponse(events, media_type="text/event-stream", headers=PROTOCOL)


async def _sse_starlette(_: Request) -> Response:
    events = ({"data": chunk} async for chunk in _chunks())
    return EventSourceResponse(events, headers=PROTOCOL, ping=3600)


async def _named_events(_: Request) -> Response:
    """Stream events with a name. The AI SDK's client ignores the name; a browser's EventSource does not."""
    events = ({"event": "chunk", "id": "1", "data": chunk} async for chunk in _chunks())
    return EventSourceResponse(events, headers=PROTOCOL, ping=3600)


def _fastapi() -> FastAPI:
    app = FastAPI()

    def protocol(response: Response) -> None:
        response.headers.update(PROTOCOL)

    @app.post("/fastapi", response_class=FastAPIEventSourceResponse, dependencies=[Depends(protocol)])
    async def chat() -> AsyncIterator[ServerSentEvent]:
        yield ServerSentEvent(comment="stream-open")
        async for chunk in _chunks():
            yield ServerSentEvent(raw_data=chunk)

    @app.post("/header-too-late", response_class=FastAPIEventSourceResponse)
    async def late(response: Response) -> AsyncIterator[ServerSentEvent]:
        response.headers.update(PROTOCOL)
        async for chunk in _chunks():
            yield ServerSentEvent(raw_data=chunk)

    return app


def _agent(scenario: str) -> Agent[None, str]:
    """Return an agent whose model thinks, calls the tool that the scenario names, and answers."""

    async def model(messages: list[ModelMessage], _: AgentInfo) -> AsyncIterator[Any]:
        if len(messages) == 1 and scenario != "text":
            yield {0: DeltaThinkingPart(content="I should look.")}
            yield {1: DeltaToolCall(name=scenario, json_args='{"city":', tool_call_id="c")}
            yield {1: DeltaToolCall(json_args='"Bern"}')}
            return
        for word in ("It ", "is ", "warm."):
            yield word
            await anyio.sleep(GAP)

    agent = Agent(FunctionModel(stream_function=model), retries=0)

    @agent.tool_plain
    def weather(city: str) -> dict[str, str | int]:
        return {"city": city, "degrees": 21}

    @agent.tool_plain
    def nothing(city: str) -> None:
        """Return None. Version 2.68 of pydantic-ai then sends no `output`, and every client refuses that."""

    @agent.tool_plain
    def failing(city: str) -> str:
        raise RuntimeError("no such city")

    return agent


async def _pydantic_ai(request: Request) -> Response:
    major, scenario = request.path_params["major"], request.path_params["scenario"]
    return await VercelAIAdapter.dispatch_request(request, agent=_agent(scenario), sdk_version=major)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    app = _fastapi()
    app.mount(
        "/",
        Starlette(
            routes=[
                Route("/starlette", _starlette, methods=["POST"]),
                Route("/sse-starlette", _sse_starlette, methods=["POST"]),
                Route("/named-events", _named_events, methods=["POST"]),
                Route("/pydantic-ai/{major:int}/{scenario}", _pydantic_ai, methods=["POST"]),
            ]
        ),
    )
    with served(lambda _: app) as url:
        yield url


async def _check(url: str, major: int) -> ContractReport:
    (report,) = await ai_sdk.check_all([(url, ai_sdk.CONTRACTS[major].strict())], json=CLIENT_REQUEST)
    return report


def _rules(findings: Iterable[Any]) -> set[str]:
    return {finding.rule for finding in findings}


@pytest.mark.parametrize("major", ai_sdk.CONTRACTS)
@pytest.mark.parametrize("framework", ["starlette", "sse-starlette", "fastapi"])
async def test_a_stream_of_each_framework_keeps_the_contract(server: str, framework: str, major: int) -> None:
    report = await _check(f"{server}/{framework}", major)
    assert (report.ok, report.findings) == (True, ())
    assert report.event_count == len(CHUNKS)
    assert report.comment_count == (framework == "fastapi")
    assert report.timings.streamed


@pytest.mark.parametrize(
    ("path", "rule"), [("named-events", "stream.event-type"), ("header-too-late", "head.header-missing")]
)
async def test_a_fault_that_only_some_clients_refuse_is_a_warning(server: str, path: str, rule: str) -> None:
    report = await _check(f"{server}/{path}", 7)
    assert report.ok
    assert _rules(report.findings) == {rule}


@pytest.mark.parametrize("major", ai_sdk.CONTRACTS)
@pytest.mark.parametrize(("scenario", "kind"), [("text", "text-delta"), ("weather", "tool-output-available")])
async def test_pydantic_ai_keeps_the_contract_of_each_major(
    server: str, scenario: str, kind: str, major: int
) -> None:
    report = await _check(f"{server}/pydantic-ai/{major}/{scenario}", major)
    assert report.ok, report.findings
    assert report.chunk_counts[kind] > 0
    assert report.chunk_counts["[DONE]"] == 1


async def test_a_failed_agent_is_a_service_error(server: str) -> None:
    url, contract = f"{server}/pydantic-ai/6/failing", ai_sdk.CONTRACTS[6]
    report, strict = await ai_sdk.check_all([(url, contract), (url, contract.strict())], json=CLIENT_REQUEST)
    assert report.ok
    assert _rules(report.findings) == _rules(strict.violations) == {"stream.service-error"}


# the test is about the clients, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("major", ai_sdk.CONTRACTS)
async def test_the_real_clients_agree_with_their_contracts_on_every_server(server: str, major: int) -> None:
    paths = ["starlette", "sse-starlette", "fastapi", "named-events", "header-too-late"]
    paths += [
        f"pydantic-ai/{sdk}/{each}"
        for sdk in ai_sdk.CONTRACTS
        for each in ("text", "weather", "nothing", "failing")
    ]
    urls = [f"{server}/{path}" for path in paths]
    readings = ai_sdk.read(major, [ai_sdk.asking(url) for url in urls])
    reports = await ai_sdk.check_all(((url, ai_sdk.CONTRACTS[major]) for url in urls), json=CLIENT_REQUEST)
    for path, reading, report in zip(paths, readings, reports, strict=True):
        assert ai_sdk.stage(report) == reading.stage, (path, reading, report.findings)
        if not path.startswith("pydantic-ai"):
            assert reading.text == "Grüezi mitenand "
