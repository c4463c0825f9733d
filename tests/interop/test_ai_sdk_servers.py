"""The AI SDK's own servers, majors 5, 6 and 7, live over HTTP. Each server keeps its contract; each client agrees."""

from collections.abc import Iterator, Mapping

import pytest

from tests.interop import ai_sdk

pytestmark = pytest.mark.anyio

KINDS: Mapping[str, frozenset[str]] = {
    "text": frozenset(
        {"start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish", "[DONE]"}
    ),
    "reasoning": frozenset({"reasoning-start", "reasoning-delta", "reasoning-end", "text-delta"}),
    "tools": frozenset(
        {"tool-input-start", "tool-input-delta", "tool-input-available", "tool-output-available"}
    ),
    "tool-without-a-result": frozenset({"tool-output-available"}),
    "tool-error": frozenset({"tool-output-error"}),
    "tool-input-refused": frozenset({"tool-input-error"}),
    "client-side-tool": frozenset({"tool-input-available"}),
    "dynamic-tool": frozenset({"tool-output-available"}),
    "approval": frozenset({"tool-input-available"}),
    "error-in-the-stream": frozenset({"text-delta", "error", "finish"}),
    "error-at-once": frozenset({"start", "error"}),
    "abort": frozenset({"text-delta", "abort"}),
    "sources": frozenset({"source-url", "source-document", "file"}),
    "unknown-finish": frozenset({"finish"}),
    "new-in-7": frozenset({"text-end"}),
    "data": frozenset({"data-progress", "data-note", "message-metadata"}),
    "connection-lost": frozenset({"text-delta"}),
    "nothing-there": frozenset(),
}
"""Scenario -> kinds that its stream must contain."""
MORE_KINDS: Mapping[tuple[str, int], frozenset[str]] = {
    ("approval", 6): frozenset({"tool-approval-request"}),
    ("approval", 7): frozenset({"tool-approval-request"}),
    ("new-in-7", 7): frozenset({"custom", "reasoning-file"}),
}
"""(scenario, major) -> kinds that only this major sends."""
WARNED: Mapping[str, frozenset[str]] = {
    "error-in-the-stream": frozenset({"stream.service-error"}),
    "error-at-once": frozenset({"stream.service-error"}),
}
"""Scenario -> rules that warn: the client accepts the stream, but a user sees an error."""
REFUSED: Mapping[str, str] = {"connection-lost": "transport.reset", "nothing-there": "head.status"}
"""Scenario -> the rule that the stream breaks, so that every client refuses it."""
SKEWED: Mapping[tuple[str, int, int], str] = {
    ("approval", 6, 5): "schema",
    ("approval", 7, 5): "schema",
    ("unknown-finish", 5, 6): "schema",
    ("unknown-finish", 5, 7): "schema",
    ("new-in-7", 7, 5): "schema",
    ("new-in-7", 7, 6): "schema",
}
"""(scenario, major of the server, major of the client) -> the stage at which this client refuses the stream."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ai_sdk.mock_server() as url:
        yield url


@pytest.mark.parametrize("scenario", KINDS)
async def test_a_server_keeps_the_contract_of_its_own_major(server: str, scenario: str) -> None:
    refused = {REFUSED[scenario]} if scenario in REFUSED else set()
    warned = WARNED.get(scenario, frozenset())
    for major, contract in ai_sdk.CONTRACTS.items():
        url = f"{server}/{major}/{scenario}"
        report, strict = await ai_sdk.check_all(
            ((url, each) for each in (contract, contract.strict())), json={}
        )
        skew = {"schema.version-skew"} if (scenario, major) == ("unknown-finish", 5) else set()
        assert {finding.rule for finding in report.violations} == refused, url
        assert {finding.rule for finding in report.warnings} == warned | skew, url
        assert {finding.rule for finding in strict.violations} == refused | warned, url
        assert report.ok is not bool(refused)
        assert set(report.chunk_counts) >= KINDS[scenario] | MORE_KINDS.get((scenario, major), frozenset()), (
            url
        )
        assert report.timings.streamed or not report.chunk_counts
        assert ("[DONE]" in report.chunk_counts) is not bool(refused)


# the test is about the clients, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("major", ai_sdk.CONTRACTS)
async def test_each_client_agrees_with_its_contract_on_every_server(server: str, major: int) -> None:
    streams = [(scenario, sender) for scenario in KINDS for sender in ai_sdk.CONTRACTS]
    urls = [f"{server}/{sender}/{scenario}" for scenario, sender in streams]
    readings = ai_sdk.read(major, [ai_sdk.asking(url) for url in urls])
    reports = await ai_sdk.check_all(((url, ai_sdk.CONTRACTS[major]) for url in urls), json={})
    for (scenario, sender), reading, report in zip(streams, readings, reports, strict=True):
        expected = SKEWED.get((scenario, sender, major))
        if scenario in REFUSED:
            expected = REFUSED[scenario].partition(".")[0]
        assert (reading.stage, ai_sdk.stage(report)) == (expected, expected), (
            scenario,
            sender,
            reading,
            report.findings,
        )
        service_error = "stream.service-error" in {finding.rule for finding in report.findings}
        assert (reading.error is not None) == (service_error or expected is not None)
        if scenario in {"text", "data"}:
            assert reading.text == "Hello, wörld 🌍"
