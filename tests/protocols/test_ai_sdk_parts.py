"""Parts and calls as the AI SDK's client shows them: opened twice, never finished, without an id."""

from typing import Any

import attrs
import pytest

from cutover.contract import StreamContract
from cutover.contract.findings import Severity
from cutover.protocols import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE
from tests.support.own_streams import DONE, chunk, found, piecewise, report_on, rules_of
from tests.support.paths import FIXTURES

REPORTED = FIXTURES / "reported"
SDK = pytest.mark.parametrize("contract", [AI_SDK_5, AI_SDK_6, AI_SDK_7], ids=lambda each: each.name)
BEGIN = [chunk("start"), chunk("start-step")]
END = [chunk("finish-step"), chunk("finish"), DONE]


def called(kind: str, call: str = "c", **fields: Any) -> str:
    needed: dict[str, dict[str, Any]] = {
        "tool-input-start": {"toolName": "t"},
        "tool-input-delta": {"inputTextDelta": "{"},
        "tool-input-available": {"toolName": "t", "input": {}},
        "tool-input-error": {"toolName": "t", "input": 1, "errorText": "e"},
        "tool-output-available": {"output": 1},
        "tool-output-error": {"errorText": "e"},
    }
    return chunk(kind, toolCallId=call, **needed.get(kind, {}), **fields)


def part(kind: str, name: str = "t1") -> str:
    return chunk(kind, id=name, **({"delta": "a"} if kind.endswith("delta") else {}))


def by_every_cut(contract: StreamContract, body: bytes) -> list[tuple[str, Severity, int | None]]:
    """Return the findings, which must not depend on the cut: whole, byte by byte, and event by event."""
    pieces = [
        [body],
        [body[at : at + 1] for at in range(len(body))],
        [each + b"\n\n" for each in body.split(b"\n\n") if each],
    ]
    reports = [piecewise(contract, each) for each in pieces]
    assert reports[0] == reports[1] == reports[2]
    return [(each.rule, each.severity, each.event_index) for each in reports[0].findings]


@SDK
@pytest.mark.parametrize(
    ("name", "findings"),
    [
        ("dup-text-start", [("order.part-reopened", Severity.WARNING, 4)]),
        ("tool-input-unfinished", [("order.part-left-open", Severity.WARNING, None)]),
        ("delta-after-end", [("order.unopened-part", Severity.VIOLATION, 6)]),
    ],
)
def test_a_reported_stream_gets_its_one_finding(
    contract: StreamContract, name: str, findings: list[Any]
) -> None:
    body = (REPORTED / f"{name}.sse").read_bytes()
    assert by_every_cut(contract.strict(), body) == findings


@SDK
@pytest.mark.parametrize("sort", ["text", "reasoning"])
def test_a_part_that_opens_again_while_open_is_a_warning(contract: StreamContract, sort: str) -> None:
    start, delta, end = (part(f"{sort}-{each}") for each in ("start", "delta", "end"))
    assert found(contract, *BEGIN, start, delta, start, delta, end, *END) == [
        (
            "order.part-reopened",
            4,
            f"expected the id of a new {sort} part, got {sort}-start for t1, which is open already",
        )
    ]
    assert rules_of(contract, *BEGIN, start, delta, end, start, delta, end, *END) == []


@SDK
def test_a_call_that_starts_again_is_a_warning(contract: StreamContract) -> None:
    start, delta, whole, result = map(
        called, ("tool-input-start", "tool-input-delta", "tool-input-available", "tool-output-available")
    )
    for again in (
        [start, start, whole],
        [start, delta, start, delta, whole],
        [start, whole, start, whole],
        [whole, start, whole],
        [start, whole, result, start, whole],
    ):
        at = 2 + max(index for index, each in enumerate(again) if each == start)
        body = "".join((*BEGIN, *again, *END)).encode()
        assert by_every_cut(contract.strict(), body) == [("order.part-reopened", Severity.WARNING, at)]
    for good in (
        [start, delta, whole, result],
        [start, delta, whole, delta],
        [whole, whole],
        [whole, result, result],
    ):
        assert rules_of(contract.strict(), *BEGIN, *good, *END) == []


@SDK
def test_an_input_ends_with_what_the_client_takes_for_its_end(contract: StreamContract) -> None:
    start, delta = called("tool-input-start"), called("tool-input-delta")
    for kind in ("tool-input-available", "tool-input-error", "tool-output-available", "tool-output-error"):
        for between in ([], [delta, delta]):
            assert rules_of(contract.strict(), *BEGIN, start, *between, called(kind), *END) == []
    two = [called("tool-input-start", "d"), called("tool-input-available", "d")]
    assert (
        found(contract, *BEGIN, start, *two, delta, *END)[-1][2]
        .removesuffix(" (not dynamic)")
        .endswith("no end for c")
    )
    for last in (chunk("abort"), chunk("error", errorText="e")):
        assert "order.part-left-open" not in rules_of(contract, *BEGIN, start, delta, last, DONE)
    if contract is not AI_SDK_5:
        asks = chunk("tool-approval-request", approvalId="a", toolCallId="c")
        assert rules_of(contract, *BEGIN, start, delta, asks, *END) == []
    if contract is AI_SDK_7:
        assert "order.part-left-open" not in rules_of(
            contract, *BEGIN, start, chunk("reset-step"), called("tool-input-available"), *END
        )


@SDK
@pytest.mark.parametrize(
    "parts",
    [
        [part(each, "") for each in ("text-start", "text-delta", "text-end")],
        [called("tool-input-start", ""), called("tool-input-delta", ""), called("tool-input-available", "")],
        [called("tool-input-available", ""), called("tool-output-available", "")],
    ],
    ids=["text", "input", "call"],
)
def test_an_empty_id_is_a_warning_where_it_opens_something(
    contract: StreamContract, parts: list[str]
) -> None:
    body = "".join((*BEGIN, *parts, *END)).encode()
    assert by_every_cut(contract.strict(), body) == [("order.empty-id", Severity.WARNING, 2)]


@SDK
def test_the_second_thing_without_an_id_opens_the_first_again(contract: StreamContract) -> None:
    twice = [part("text-start", "")] * 2
    assert rules_of(contract, *BEGIN, *twice, part("text-delta", ""), part("text-end", ""), *END) == [
        "order.empty-id",
        "order.part-reopened",
    ]


def test_the_lane_reports_an_empty_id_and_no_part_that_comes_again() -> None:
    """Its page says nothing about an end of a text, so the same id may come again."""
    text = [chunk("text-start", id="1", turnId="t")] * 2
    assert rules_of(COMPAT_LANE, *BEGIN, *text, *END) == []
    assert rules_of(COMPAT_LANE, *BEGIN, chunk("tool-input", toolCallId="", toolName="t", input=1), *END) == [
        "order.empty-id"
    ]


@SDK
def test_an_opening_that_comes_late_is_no_second_opening(contract: StreamContract) -> None:
    late = [part("text-delta"), part("text-start"), part("text-end")]
    assert rules_of(contract, *BEGIN, *late, *END) == ["order.unopened-part"]
    late = [called("tool-output-available"), called("tool-input-start"), called("tool-input-available")]
    assert rules_of(contract, *BEGIN, *late, *END) == ["order.unknown-call"]


def test_no_more_is_opened_than_there_is_room_for() -> None:
    small = attrs.evolve(AI_SDK_7, limits=attrs.evolve(AI_SDK_7.limits, max_open_bytes=500))
    calls = [called("tool-input-start", str(number)) for number in range(9)]
    wholes = [called("tool-input-available", str(number)) for number in range(9)]
    report = report_on(small, *BEGIN, *calls, *wholes, *END)
    assert [each.rule for each in report.findings] == ["order.too-many-open"]
