"""The AI SDK's own chat clients, majors 5, 6 and 7, accept and refuse the same streams as their contracts."""

import functools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from cutover import COMPAT_LANE, check_recording, check_stream
from cutover.simulation import FAULTS, VARIANTS, Layout, SimulatedProduction
from tests.interop import ai_sdk
from tests.interop.mutations import mutations
from tests.interop.serving import served
from tests.support.asgi_caller import CHAT, CHATS, COMPATIBLE, CREDENTIALS
from tests.support.paths import FIXTURES

STREAMS = FIXTURES / "ui-message-stream"
VERSIONS = {5: "5.0.277", 6: "6.0.326", 7: "7.0.173"}
"""Major -> the version in package.json, which also gave the verdicts in the fixtures."""
SEED, MUTATIONS = 20260221, 300
AFTER_AN_ERROR = (
    (b'{"type":"start"}', b'{"type":"error","errorText":"boom"}', b'{"type":"nonsense"}'),
    (b'{"type":"error","errorText":"boom"}', b"[DONE]", b"not JSON"),
    (
        b'{"type":"error","errorText":"boom"}',
        b"[DONE]",
        b'{"type":"text-delta","id":"1","delta":"x"}',
        b"[DONE]",
    ),
    (b"[DONE]", b'{"type":"error","errorText":"boom"}', b'{"type":"nonsense"}'),
)
"""Data of streams with a fault after a reported error. No client reads beyond that error."""

NO_STREAMS = (
    b"",
    b"<!doctype html><p>Bad gateway</p>",
    b'{"error": {"code": "internal"}}',
    # the protocol of major 4
    b'0:"Hel"\n0:"lo"\n',
    # gzip that nobody decoded
    b"\x1f\x8b\x08\x00\x00",
)

majors = pytest.mark.parametrize("major", ai_sdk.CONTRACTS)


def assert_agreement(major: int, bodies: Sequence[bytes]) -> list[ai_sdk.Reading]:
    """Assert that client and contract of one major refuse the same bodies for the same reason. Return the readings."""
    readings = ai_sdk.read(major, [ai_sdk.recorded(body) for body in bodies])
    for body, reading in zip(bodies, readings, strict=True):
        report = check_recording(body, contract=ai_sdk.CONTRACTS[major], strict=False)
        assert ai_sdk.stage(report) == reading.stage, (reading, report.findings, body)
    return readings


@majors
def test_client_and_contract_agree_on_every_labelled_body(major: int) -> None:
    cases = json.loads((STREAMS / "cases.json").read_text())
    readings = assert_agreement(
        major, [(STREAMS / "cases" / f"{case['name']}.body").read_bytes() for case in cases]
    )
    verdicts = ["accept" if each.stage is None else f"reject:{each.stage}" for each in readings]
    assert verdicts == [case["verdicts"][VERSIONS[major]] for case in cases]


@majors
def test_client_and_contract_agree_on_captures_of_real_servers(major: int) -> None:
    captures = sorted((STREAMS / "captures").rglob("*.body"))
    readings = assert_agreement(major, [capture.read_bytes() for capture in captures])
    labels = [
        json.loads(each.with_suffix(".json").read_text())["verdicts"][VERSIONS[major]] for each in captures
    ]
    assert [each.stage for each in readings] == [reason for _, reason in labels]


@majors
def test_client_and_contract_agree_on_bodies_with_small_faults(major: int) -> None:
    readings = assert_agreement(major, list(mutations(_bodies(), seed=SEED, count=MUTATIONS)))
    assert {each.stage for each in readings} == {None, "json", "schema", "order"}


@majors
def test_neither_client_nor_contract_reads_beyond_an_error(major: int) -> None:
    bodies = [b"".join(b"data: %s\n\n" % each for each in data) for data in AFTER_AN_ERROR]
    for reading in assert_agreement(major, bodies):
        assert (reading.stage, reading.error) == (None, "boom")


@majors
def test_client_and_contract_agree_on_a_refused_chunk_of_a_dynamic_tool(major: int) -> None:
    chunk = b'{"type":"tool-input-available","toolCallId":"c","input":{},"dynamic":true}'
    (reading,) = assert_agreement(major, [b"data: %s\n\ndata: [DONE]\n\n" % chunk])
    assert reading.stage == "schema"


@majors
def test_a_body_that_a_client_shows_as_an_empty_answer_fails_the_strict_contract(major: int) -> None:
    for body, reading in zip(NO_STREAMS, assert_agreement(major, NO_STREAMS), strict=True):
        assert (reading.stage, reading.kinds, reading.text) == (None, (), "")
        strict = check_recording(body, contract=ai_sdk.CONTRACTS[major])
        assert "stream.empty" in {finding.rule for finding in strict.violations}


@functools.cache
def _bodies() -> tuple[bytes, ...]:
    return tuple(
        path.read_bytes() for path in sorted(STREAMS.rglob("*.body")) if path.stat().st_size < 10_000
    )


@pytest.fixture
def lane(request: pytest.FixtureRequest) -> Iterator[str]:
    """Serve the lane's service. The parameter names its fault or variant; an empty name means none."""
    faults = tuple(fault for name, fault in {**FAULTS, **VARIANTS}.items() if name == request.param)
    assert len(faults) == len(request.param.split())

    def production(url: str) -> Any:
        layout = Layout(front_url=url)
        return SimulatedProduction(layout=layout, credentials=CREDENTIALS, faults=faults).app

    with served(production) as url:
        yield url


def _ask(url: str, *, major: int) -> list[ai_sdk.Reading]:
    headers = {**COMPATIBLE, "authorization": f"Bearer {CREDENTIALS.auth_token}"}
    aliases = {"/api/chat/stream": CHAT, "/api/chats/t1/stream": CHATS}
    return ai_sdk.read(
        major, [ai_sdk.asking(url + path, headers=headers, body=body) for path, body in aliases.items()]
    )


async def _rules(url: str, *, major: int | None) -> set[str]:
    contract = COMPAT_LANE if major is None else ai_sdk.CONTRACTS[major]
    headers = {**COMPATIBLE, "authorization": f"Bearer {CREDENTIALS.auth_token}"}
    async with httpx.AsyncClient(base_url=url) as client:
        report = await check_stream(
            client, "/api/chat/stream", contract=contract, strict=False, json=CHAT, headers=headers
        )
    return {finding.rule for finding in report.violations}


@pytest.mark.anyio
# the test is about the clients, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@majors
@pytest.mark.parametrize(
    ("lane", "text"),
    [
        ("", "You said: hello there "),
        ("preview", ""),
        ("one-body", "You said: hello there "),
    ],
    indirect=["lane"],
)
async def test_clients_read_plain_and_text_turns_of_the_lane(lane: str, text: str, major: int) -> None:
    for reading in _ask(lane, major=major):
        assert (reading.stage, reading.error, reading.text) == (None, None, text)
        assert (reading.kinds[:2], reading.kinds[-2:]) == (("start", "start-step"), ("finish-step", "finish"))
    assert await _rules(lane, major=major) == await _rules(lane, major=None) == set()


@pytest.mark.anyio
# the test is about the clients, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@majors
@pytest.mark.parametrize(
    ("lane", "theirs", "own"),
    [
        ("tool-turn", {"schema.unknown-kind"}, set()),
        ("service-error", {"schema.missing-field"}, {"stream.service-error"}),
    ],
    indirect=["lane"],
)
async def test_clients_refuse_the_tools_and_errors_of_the_lane(
    lane: str, theirs: set[str], own: set[str], major: int
) -> None:
    """The UI message stream has no kinds `tool-input` and `tool-output`, and no `error` without errorText."""
    for reading in _ask(lane, major=major):
        assert reading.stage == "schema"
        assert set(reading.kinds) <= {"start", "start-step", "text-start", "text-delta", "text-end"}
    assert await _rules(lane, major=major) == theirs
    assert await _rules(lane, major=None) == own
