"""One fault in a good stream gives one finding. A second one is told only where it is true by itself, and those are listed here."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from cutover.checking.recording import check_recording
from cutover.contract import StreamContract
from cutover.contract.findings import Severity
from cutover.protocols import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE


def of_kind(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **fields}


SDK_TURN = [
    of_kind("start", messageId="m"), of_kind("start-step"),
    of_kind("reasoning-start", id="r"), of_kind("reasoning-delta", id="r", delta="x"), of_kind("reasoning-end", id="r"),
    of_kind("text-start", id="1"), of_kind("text-delta", id="1", delta="a"), of_kind("text-delta", id="1", delta="b"), of_kind("text-end", id="1"),
    of_kind("tool-input-start", toolCallId="c", toolName="t"), of_kind("tool-input-delta", toolCallId="c", inputTextDelta="{"),
    of_kind("tool-input-available", toolCallId="c", toolName="t", input={}), of_kind("tool-output-available", toolCallId="c", output=1),
    of_kind("finish-step"), of_kind("start-step"),
    of_kind("text-start", id="2"), of_kind("text-delta", id="2", delta="a"), of_kind("text-end", id="2"),
    of_kind("finish-step"), of_kind("finish", finishReason="stop"), "[DONE]",
]  # fmt: skip
LANE_TURN = [
    of_kind("start", threadId="t"), of_kind("start-step", threadId="t", turnId="u"), of_kind("text-start", id="1", turnId="u"),
    of_kind("text-delta", id="1", delta="a", channel="assistant"), of_kind("tool-input", toolCallId="c", toolName="t", input={}),
    of_kind("tool-output", toolCallId="c", delta="x"), of_kind("finish-step", turnId="u"), of_kind("finish"), "[DONE]",
]  # fmt: skip
SHIPPED = [(AI_SDK_5, SDK_TURN), (AI_SDK_6, SDK_TURN), (AI_SDK_7, SDK_TURN), (COMPAT_LANE, LANE_TURN)]

BOTH_ARE_TRUE = {
    # A part under another id: what names the old id finds nothing open, and the new one stays open.
    ("rename", "start"): {"order.unopened-part", "order.part-left-open"},
    ("rename", "end"): {"order.unopened-part", "order.part-left-open"},
    # The second step begins in the first one, and then a step's end leaves the rest outside of any.
    ("swap", "finish-step start-step"): {"order.step-unfinished", "order.outside-step"},
    # Clients of majors 5 and 6 close the part with the step, and refuse its end.
    ("swap", "text-end finish-step"): {"order.part-left-open", "order.outside-step", "order.unopened-part"},
    # The turn ends without its finish, and data follows the end.
    ("swap", "finish [DONE]"): {"order.finish-missing", "terminator.trailing"},
}


def kind_of(chunk: Any) -> str:
    return str(chunk["type"]) if isinstance(chunk, dict) else str(chunk)


def mutations(turn: list[Any]) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield each turn with one fault: the sort of the fault, the kinds that it is about, and the turn."""
    for at, chunk in enumerate(turn):
        before, after, kind = turn[:at], turn[at + 1 :], kind_of(chunk)
        yield "drop", kind, [*before, *after]
        yield "double", kind, [*before, chunk, chunk, *after]
        yield "cut", kind, before
        yield "garble", kind, [*before, "{", *after]
        if after:
            yield "swap", f"{kind} {kind_of(after[0])}", [*before, after[0], chunk, *after[1:]]
        if isinstance(chunk, dict):
            yield "kind", kind, [*before, {**chunk, "type": "strange"}, *after]
            for name in chunk.keys() - {"type"}:
                yield "lose", kind, [*before, {key: chunk[key] for key in chunk if key != name}, *after]
                yield "null", kind, [*before, {**chunk, name: None}, *after]
            for name in chunk.keys() & {"id", "toolCallId"}:
                sort = kind.rpartition("-")[2] if kind.count("-") else kind
                yield "rename", sort, [*before, {**chunk, name: "other"}, *after]


@pytest.mark.parametrize(("contract", "turn"), SHIPPED, ids=[each.name for each, _ in SHIPPED])
def test_one_fault_gives_one_finding(contract: StreamContract, turn: list[Any]) -> None:
    assert findings(contract, turn) == []
    faults = 0
    for sort, kind, broken in mutations(turn):
        found = findings(contract, broken)
        rules = {rule for rule, _ in found}
        if len(found) > 1:
            assert rules <= BOTH_ARE_TRUE.get((sort, kind), set()), (sort, kind, found)
            assert len(found) == len(rules), (sort, kind, found)
        grave = [rule for rule, severity in found if severity is not Severity.WARNING]
        assert len(grave) <= 1 or (sort, kind) == ("swap", "finish [DONE]"), (sort, kind, found)
        faults += bool(found)
    assert faults > len(turn) * 4


def findings(contract: StreamContract, turn: list[Any]) -> list[tuple[str, Severity]]:
    body = "".join(f"data: {each if isinstance(each, str) else json.dumps(each)}\n\n" for each in turn)
    report = check_recording(body.encode(), contract=contract.strict())
    return [(each.rule, each.severity) for each in report.findings]
