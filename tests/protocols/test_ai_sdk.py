"""The AI SDK contracts agree with the real clients on the same bytes. A break that those clients tolerate is a warning."""

import itertools
import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

from cutover.checking.recording import check_recording
from cutover.contract import ContractChecker, ContractReport, StreamContract
from cutover.contract.findings import Severity
from cutover.protocols import AI_SDK_5, AI_SDK_6, AI_SDK_7
from tests.support.paths import FIXTURES

client_verdict = partial(check_recording, strict=False)
DATA = FIXTURES / "ui-message-stream"
CASES = json.loads((DATA / "cases.json").read_bytes())
MATRIX = json.loads((DATA / "schema_matrix.json").read_bytes())
CAPTURES = sorted(DATA.glob("captures/*/*.json"))
CONTRACTS = {"5.0.277": AI_SDK_5, "6.0.326": AI_SDK_6, "7.0.173": AI_SDK_7}


def verdict(report: ContractReport) -> str:
    return f"reject:{report.violations[0].rule.split('.')[0]}" if report.violations else "accept"


def at_splits(body: bytes, contract: StreamContract) -> Iterator[ContractReport]:
    """Give the report for the body in one piece, byte by byte, with one cut at each of some 150 places, and with several random cuts."""
    one_by_one = range(1, len(body))
    several = random.Random(len(body))  # noqa: S311  seeded, so each run cuts at the same places
    many = (
        [sorted(several.sample(one_by_one, min(5, len(one_by_one)))) for _ in range(20)]
        if len(body) > 1
        else []
    )
    for places in ([], list(one_by_one), *([at] for at in one_by_one[:: 1 + len(body) // 150]), *many):
        checker = ContractChecker(contract)
        for start, end in itertools.pairwise([0, *places, len(body)]):
            checker.receive_data(body[start:end], elapsed=0.0)
        checker.receive_eof(elapsed=0.0)
        yield checker.report()


@pytest.mark.parametrize("version", CONTRACTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_labelled_stream_gets_the_clients_verdict(case: dict[str, Any], version: str) -> None:
    body = (DATA / "cases" / f"{case['name']}.body").read_bytes()
    assert verdict(client_verdict(body, contract=CONTRACTS[version])) == case["verdicts"][version]


@pytest.mark.slow
@pytest.mark.parametrize("version", CONTRACTS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_labelled_stream_gets_the_same_findings_at_any_split(case: dict[str, Any], version: str) -> None:
    body = (DATA / "cases" / f"{case['name']}.body").read_bytes()
    whole = client_verdict(body, contract=CONTRACTS[version])
    for report in at_splits(body, CONTRACTS[version]):
        assert report.findings == whole.findings
        assert report.chunk_counts == whole.chunk_counts


@pytest.mark.parametrize("version", CONTRACTS)
@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_captured_stream_gets_the_clients_verdict(path: Path, version: str) -> None:
    capture = json.loads(path.read_bytes())
    body, headers = path.with_suffix(".body").read_bytes(), dict(capture["head"]["headers"])
    report = client_verdict(
        body, contract=CONTRACTS[version], status=capture["head"]["status"], headers=headers
    )
    assert bool(report.violations) is (capture["verdicts"][version][0] == "reject")
    assert not any(finding.rule.startswith("head.") for finding in report.findings)


PROBES: dict[str, object] = {
    "null": None,
    "true": True,
    "number": 1,
    "string": "x",
    "{}": {},
    "{p:{}}": {"p": {}},
    "{p:{a:null}}": {"p": {"a": None}},
    "{p:1}": {"p": 1},
    "[]": [],
}
GOOD = {
    "string": "x", "true": True, "missing": None, "missing {} {p:{}} {p:{a:null}}": {}, "[]": [],
    "null true number string {} {p:{}} {p:{a:null}} {p:1} []": 1,
}  # fmt: skip


def schema_rows() -> Iterator[tuple[str, str, str]]:
    for version, (kind, fields) in itertools.product(CONTRACTS, MATRIX["7.0.173"].items()):
        for field in fields if isinstance(fields, dict) else ():
            yield version, kind, field


def is_refused(chunk: dict[str, Any], version: str) -> bool:
    event = f"data: {json.dumps(chunk)}\n\n".encode()
    rules = {finding.rule for finding in client_verdict(event, contract=CONTRACTS[version]).violations}
    return any(rule.startswith("schema.") for rule in rules)


@pytest.mark.parametrize(("version", "kind", "field"), list(schema_rows()))
def test_a_field_takes_what_the_real_schema_takes(version: str, kind: str, field: str) -> None:
    row = MATRIX[version][kind]
    known = isinstance(row, dict) and "UNKNOWN KIND" not in row.values()
    fields = row if isinstance(row, dict) else {}
    needed = {
        name: GOOD[accepted]
        for name, accepted in fields.items()
        if isinstance(accepted, str) and accepted in GOOD and not accepted.startswith(("missing", "any"))
    }
    if not known:
        assert is_refused({"type": kind, field: "x"}, version)
        return
    accepted = fields[field]
    if field == "finishReasonValues":
        for reason in (*accepted, "tool_calls", "Stop", ""):
            assert is_refused({"type": kind, "finishReason": reason}, version) is (reason not in accepted)
        return
    base = {"type": kind, **needed}
    base.pop(field, None)
    assert is_refused(base, version) is not (accepted == "any" or accepted.startswith("missing"))
    for name, value in PROBES.items():
        refused = is_refused({**base, field: value}, version)
        assert refused is not (accepted == "any" or name in accepted.split())


def sse(*chunks: object) -> bytes:
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk, ensure_ascii=False) for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


START, STEP, END_STEP = {"type": "start"}, {"type": "start-step"}, {"type": "finish-step"}
TEXT = [
    {"type": "text-start", "id": "1"},
    {"type": "text-delta", "id": "1", "delta": "a"},
    {"type": "text-end", "id": "1"},
]
FINISH, DONE = {"type": "finish", "finishReason": "stop"}, "[DONE]"
CALL = {"type": "tool-input-available", "toolCallId": "c", "toolName": "t", "input": {}}
OUTPUT = {"type": "tool-output-available", "toolCallId": "c", "output": 1}


@pytest.mark.parametrize("contract", CONTRACTS.values(), ids=lambda contract: contract.name)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>It works</body></html>",
        b'{"error": "no such model"}',
        b'{"type":"start"}\n{"type":"finish"}\n',
        b'0:"hello"\nd:{"finishReason":"stop"}\n',
        b"\x1f\x8b\x08\x00\x00",
    ],
)
def test_a_body_that_a_client_shows_as_an_empty_message_is_a_warning_and_strictly_a_violation(
    body: bytes, contract: StreamContract
) -> None:
    report = client_verdict(body, contract=contract)
    assert "stream.empty" in {finding.rule for finding in report.warnings}
    assert report.ok
    strict = client_verdict(body, contract=contract.strict())
    assert "stream.empty" in {finding.rule for finding in strict.violations}
    assert not strict.ok


@pytest.mark.parametrize(
    ("rule", "chunks"),
    [
        ("terminator.missing", [START, STEP, *TEXT, END_STEP, FINISH]),
        ("order.finish-missing", [START, STEP, *TEXT, END_STEP, DONE]),
        ("stream.truncated", [START, STEP, *TEXT[:2]]),
        ("stream.service-error", [START, {"type": "error", "errorText": "overloaded"}, DONE]),
    ],
)
def test_a_break_that_a_user_sees_is_a_warning_and_strictly_a_violation(
    rule: str, chunks: list[object]
) -> None:
    report = client_verdict(sse(*chunks), contract=AI_SDK_7)
    assert [finding.rule for finding in report.warnings] == [rule]
    assert report.ok
    assert [
        finding.rule for finding in client_verdict(sse(*chunks), contract=AI_SDK_7.strict()).violations
    ] == [rule]


@pytest.mark.parametrize(
    ("rule", "chunks"),
    [
        ("order.duplicate", [START, START, STEP, *TEXT, END_STEP, FINISH, DONE]),
        ("order.duplicate", [START, STEP, *TEXT, END_STEP, FINISH, FINISH, DONE]),
        ("order.start-missing", [STEP, *TEXT, END_STEP, FINISH, DONE]),
        ("order.outside-step", [START, *TEXT, FINISH, DONE]),
        ("order.step-missing", [START, STEP, *TEXT, END_STEP, END_STEP, FINISH, DONE]),
        ("order.step-unfinished", [START, STEP, *TEXT, STEP, END_STEP, FINISH, DONE]),
        ("order.finish-before-step", [START, STEP, *TEXT, FINISH, DONE]),
        ("order.after-finish", [START, STEP, *TEXT, END_STEP, FINISH, *TEXT[:1], TEXT[2], DONE]),
        ("order.part-left-open", [START, STEP, *TEXT[:2], END_STEP, FINISH, DONE]),
        ("terminator.count", [START, STEP, *TEXT, END_STEP, FINISH, DONE, DONE]),
        ("terminator.trailing", [START, STEP, *TEXT, END_STEP, FINISH, DONE, {"type": "data-x", "data": 1}]),
    ],
)
def test_a_break_that_a_client_tolerates_is_a_warning_even_strictly(rule: str, chunks: list[object]) -> None:
    for contract in (AI_SDK_5.strict(), AI_SDK_6.strict(), AI_SDK_7.strict()):
        findings = client_verdict(sse(*chunks), contract=contract).findings
        assert {finding.rule for finding in findings} == {rule}
        assert {finding.severity for finding in findings} == {Severity.WARNING}


def test_finish_step_closes_open_parts_for_majors_5_and_6_only() -> None:
    body = sse(START, STEP, *TEXT[:2], END_STEP, STEP, *TEXT[1:], END_STEP, FINISH, DONE)
    for contract in (AI_SDK_5, AI_SDK_6):
        assert [finding.rule for finding in client_verdict(body, contract=contract).violations] == [
            "order.unopened-part"
        ]
    assert client_verdict(body, contract=AI_SDK_7).ok


def test_an_output_needs_a_call_and_for_major_5_one_with_the_same_dynamic_flag() -> None:
    dynamic = sse(START, STEP, CALL, {**OUTPUT, "dynamic": True}, END_STEP, FINISH, DONE)
    violations = client_verdict(dynamic, contract=AI_SDK_5).violations
    assert [(finding.rule, finding.actual) for finding in violations] == [
        ("order.unknown-call", "tool-output-available for c (dynamic)")
    ]
    assert client_verdict(dynamic, contract=AI_SDK_6).ok
    assert client_verdict(
        sse(START, STEP, {**CALL, "dynamic": True}, {**OUTPUT, "dynamic": True}), contract=AI_SDK_5
    ).ok


def test_reset_step_forgets_the_calls_of_its_step_and_all_open_parts() -> None:
    reset = {"type": "reset-step"}
    earlier = sse(START, STEP, CALL, END_STEP, STEP, reset, OUTPUT, END_STEP, FINISH, DONE)
    assert client_verdict(earlier, contract=AI_SDK_7).ok
    same = sse(START, STEP, CALL, reset, OUTPUT, END_STEP, FINISH, DONE)
    assert [finding.rule for finding in client_verdict(same, contract=AI_SDK_7).violations] == [
        "order.unknown-call"
    ]
    text = sse(START, STEP, TEXT[0], reset, TEXT[1], END_STEP, FINISH, DONE)
    assert [finding.rule for finding in client_verdict(text, contract=AI_SDK_7).violations] == [
        "order.unopened-part"
    ]
    found = {finding.rule for finding in client_verdict(sse(reset), contract=AI_SDK_7).warnings}
    assert "schema.version-skew" in found


def test_a_break_after_an_error_is_a_warning_because_the_client_has_stopped_reading() -> None:
    body = sse(START, {"type": "error", "errorText": "x"}, TEXT[1], {"type": "nonsense"}, "not JSON", DONE)
    report = client_verdict(body, contract=AI_SDK_7)
    assert report.ok
    assert {finding.rule for finding in report.warnings} == {
        "stream.service-error",
        "order.unopened-part",
        "schema.unknown-kind",
        "json.syntax",
    }
    assert report.service_error == "x"


def test_an_unknown_field_is_one_finding_that_names_the_versions_that_refuse_it() -> None:
    odd = [{**TEXT[1], "seq": number} for number in range(50)]
    for contract, version in ((AI_SDK_5, "5.0.217"), (AI_SDK_6, "6.0.231"), (AI_SDK_7, "7.0.32")):
        report = client_verdict(
            sse(START, STEP, TEXT[0], *odd, TEXT[2], END_STEP, FINISH, DONE), contract=contract
        )
        assert [finding.rule for finding in report.findings] == ["schema.unknown-field"]
        assert version in str(report.findings[0].actual)
        assert report.chunk_counts["text-delta"] == 50


def test_finish_reasons_of_other_majors() -> None:
    def rules(reason: str, contract: StreamContract) -> list[tuple[str, Severity]]:
        body = sse(START, STEP, *TEXT, END_STEP, {"type": "finish", "finishReason": reason}, DONE)
        return [
            (finding.rule, finding.severity)
            for finding in client_verdict(body, contract=contract.strict()).findings
        ]

    assert rules("unknown", AI_SDK_5) == [("schema.version-skew", Severity.WARNING)]
    assert rules("unknown", AI_SDK_6) == [("schema.field-type", Severity.VIOLATION)]
    assert rules("interrupted", AI_SDK_6) == [("schema.field-type", Severity.VIOLATION)]
    assert rules("interrupted", AI_SDK_7) == [("schema.version-skew", Severity.WARNING)]


CITED = {"type": "source", "sourceType": "url", "id": "s", "url": "https://example.com"}
PAPER = {"type": "source", "sourceType": "document", "id": "s", "mediaType": "text/plain", "title": "t"}


@pytest.mark.parametrize(
    ("citation", "taken"),
    [
        ({"source": CITED}, True),
        ({"source": PAPER, "startIndex": 1, "endIndex": 2.0, "citedText": "x", "more": 1}, True),
        ({"source": {**CITED, "sourceType": "page"}}, False),
        ({"source": {**CITED, "sourceType": 1}}, False),
        ({"source": {**CITED, "url": None}}, False),
        ({"source": CITED, "startIndex": -1}, False),
        ({"source": CITED, "startIndex": 1.5}, False),
        ({"source": CITED, "startIndex": "1"}, False),
        ({"source": 1}, False),
        ({}, False),
        ("source", False),
    ],
)
def test_citations_are_checked_inside(citation: object, taken: bool) -> None:
    body = sse(START, STEP, *TEXT[:2], {**TEXT[2], "citations": [citation]}, END_STEP, FINISH, DONE)
    assert client_verdict(body, contract=AI_SDK_7).ok is taken


@pytest.mark.parametrize(
    ("part", "taken"),
    [
        ({"type": "text", "text": "x"}, True),
        ({"type": "file", "mediaType": "a/b", "url": "u", "providerReference": {"a": "b"}}, True),
        ({"type": "file", "mediaType": "a/b", "url": "u", "providerReference": {"a": 1}}, False),
        ({"type": "file", "mediaType": "a/b"}, False),
        ({"type": "image"}, False),
        (None, False),
    ],
)
def test_steering_messages_are_checked_inside(part: object, taken: bool) -> None:
    body = sse(START, STEP, {"type": "steering-message", "id": "m", "parts": [part]}, END_STEP, FINISH, DONE)
    report = client_verdict(body, contract=AI_SDK_7)
    assert report.ok is taken
    assert ("schema.version-skew" in {finding.rule for finding in report.findings}) is taken


def test_many_kinds_of_data_parts_are_taken_and_counted() -> None:
    chunks = [{"type": f"data-{number % 100}", "data": {"n": number}} for number in range(300)]
    report = client_verdict(sse(START, STEP, *chunks, *TEXT, END_STEP, FINISH, DONE), contract=AI_SDK_7)
    assert report.findings == ()
    assert sum(count for kind, count in report.chunk_counts.items() if kind.startswith("data-")) == 300
    assert report.chunk_counts["data-7"] == 3
    assert report.chunk_counts["data-"] == 3 * 36, "kinds beyond the limit of a reader are counted together"


def test_a_call_of_the_continued_message_is_known() -> None:
    contract = attrs.evolve(AI_SDK_6, name="ours")
    assert contract.strict().name == "ours"
    body = sse(START, OUTPUT, STEP, END_STEP, FINISH, DONE)
    assert [finding.rule for finding in client_verdict(body, contract=contract).violations] == [
        "order.unknown-call"
    ]
