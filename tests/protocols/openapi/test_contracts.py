"""A contract from a document: all cases with every rule, and what the document's promises become."""

import base64
import json
from typing import Any

import pytest

from cutover import ContractReport, StreamContract, check_recording
from cutover.contract import Severity
from cutover.errors import OpenApiError
from cutover.protocols.openapi import contract as openapi_contract
from tests.support.openapi_events import document, json_text
from tests.support.paths import FIXTURES

CASES = json.loads((FIXTURES / "openapi" / "cases.json").read_text())


def name_of(case: dict[str, Any]) -> str:
    return f"{case['document']}-{case['method']}-{case['path']}-{case['name']}".replace(" ", "-")


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_a_case_gives_exactly_its_findings(case: dict[str, Any]) -> None:
    source = (FIXTURES / "openapi" / "documents" / case["document"]).read_text()
    expect = case["expect"]
    if "error" in expect:
        with pytest.raises(OpenApiError) as caught:
            StreamContract.from_openapi(source, case["path"], case["method"])
        assert caught.value.rule == expect["error"]
        return
    contract = StreamContract.from_openapi(source, case["path"], case["method"])
    head = case["head"]
    report = check_recording(
        base64.b64decode(case["body_b64"]), contract=contract, status=head["status"], headers=head["headers"]
    )
    allowed = set(expect.get("allowed", ()))
    assert [each.rule for each in report.violations if each.rule not in allowed] == expect["violations"]
    warnings = {each.rule for each in report.warnings}
    assert warnings - allowed == set(expect["warnings"])
    for place in expect.get("at", ()):
        found = [
            each
            for each in report.findings
            if each.rule == place["rule"] and each.event_index == place["event"]
        ]
        assert [each.path for each in found] == [place.get("path", found[0].path)]
        assert [each.keyword for each in found] == [place.get("keyword", found[0].keyword)]


def rules(report: ContractReport) -> list[str]:
    return [each.rule for each in report.findings]


ITEM = {"type": "object", "required": ["data"], "properties": {"data": json_text({"type": "object"})}}


def promised(**promise: Any) -> StreamContract:
    return StreamContract.from_openapi(document({"itemSchema": ITEM, "x-sse-stream": promise}), "/x")


def test_promises_become_limits_method_and_resumption() -> None:
    contract = promised(within={"first": "500ms", "gap": "7s", "total": "10m"}, resume="id", endless=True)
    limits = contract.limits
    assert (limits.first_event, limits.event_gap, limits.whole) == (0.5, 7.0, 600.0)
    assert (contract.method, contract.resume, contract.endless) == ("GET", "id", True)
    assert contract.name == "GET /x"
    plain = promised()
    assert (plain.limits.first_event, plain.limits.event_gap, plain.limits.whole) == (5.0, 15.0, 120.0)


def test_an_order_with_a_slip_is_an_error_before_any_stream() -> None:
    with pytest.raises(OpenApiError, match=r"openapi\.bad-promise: .* without its \)"):
        promised(order="a (b")


def test_the_method_is_the_one_that_has_a_stream() -> None:
    whole = document({"itemSchema": ITEM})
    item = whole["paths"]["/x"]
    item["post"] = item.pop("get")
    item["get"] = {"responses": {"200": {"content": {"application/json": {}}}}}
    assert StreamContract.from_openapi(whole, "/x").method == "POST"
    del item["post"]
    with pytest.raises(OpenApiError, match=r"openapi\.no-event-stream"):
        StreamContract.from_openapi(whole, "/x")
    with pytest.raises(OpenApiError, match=r"openapi\.no-operation"):
        StreamContract.from_openapi(whole, "/y")
    item["put"] = document({"itemSchema": ITEM})["paths"]["/x"]["get"]
    assert StreamContract.from_openapi(whole, "/x", "put").method == "POST", "a client sends GET or POST"


def test_documents_that_are_referred_to_are_handed_in() -> None:
    whole = document({"itemSchema": {"$ref": "./event.yaml#/Event"}})
    remote = {"./event.yaml": "Event: {type: object, required: [data], properties: {data: {const: x}}}"}
    contract = StreamContract.from_openapi(whole, "/x", remote=remote)
    assert check_recording(b"data: x\n\n", contract=contract).ok
    assert rules(check_recording(b"data: y\n\n", contract=contract)) == ["schema.value"]


def test_an_overlay_and_a_terminator_are_applied() -> None:
    overlay = {
        "overlay": "1.0.0",
        "actions": [
            {
                "target": "$.paths['/x'].get.responses['200'].content['text/event-stream']",
                "update": {"x-sse-stream": {"order": "a b", "kind": "/data/type"}},
            }
        ],
    }
    contract = StreamContract.from_openapi(
        document({"itemSchema": ITEM}), "/x", overlays=[overlay], terminator="END", name="mine"
    )
    body = b'data: {"type":"b"}\n\ndata: END\n\n'
    assert contract.name == "mine"
    assert rules(check_recording(body, contract=contract)) == ["order.unexpected"]


def test_the_reading_can_be_said() -> None:
    payload = {"type": "object", "properties": {"id": {"type": "string"}, "data": {"type": "string"}}}
    whole = document({"itemSchema": payload}, "3.2.0")
    body = b'data: {"id": 5}\n\n'
    as_payload = StreamContract.from_openapi(whole, "/x", reading="payload")
    assert rules(check_recording(body, contract=as_payload)) == ["schema.field-type"]
    as_event = StreamContract.from_openapi(whole, "/x", reading="event")
    assert check_recording(body, contract=as_event).ok


@pytest.mark.parametrize("kind", ["/id", "/event", "/data/type"])
def test_the_kind_may_stand_in_each_field(kind: str) -> None:
    contract = promised(kind=kind, order="a b")
    lines = {"/id": "id: {0}\ndata: {{}}\n\n", "/event": "event: {0}\ndata: {{}}\n\n"}
    line = lines.get(kind, 'data: {{"type":"{0}"}}\n\n')
    good = (line.format("a") + line.format("b")).encode()
    assert check_recording(good, contract=contract).chunk_counts == {"a": 1, "b": 1}
    assert rules(check_recording(line.format("b").encode(), contract=contract)) == ["order.unexpected"]


def test_an_event_without_a_kind_is_still_held_to_its_schema() -> None:
    report = check_recording(b"data: {}\n\n", contract=promised(kind="/data/type", order=".*"))
    assert report.ok
    assert report.chunk_counts == {"message": 1}


def test_a_last_event_that_the_schema_marks_ends_the_stream() -> None:
    branches = [
        {"properties": {"event": {"const": "tick"}}},
        {"properties": {"event": {"const": "done"}}, "x-ms-sse-terminal-event": True},
    ]
    item = {"type": "object", "required": ["event", "data"], "oneOf": branches}
    contract = StreamContract.from_openapi(document({"itemSchema": item}), "/x")
    tick, done = b"event: tick\ndata: x\n\n", b"event: done\ndata: x\n\n"
    for body, expected in (
        (tick + done, []),
        (tick, ["terminator.missing"]),
        (done + tick, ["terminator.trailing"]),
        (done + done, ["terminator.trailing"]),
        (b"", ["stream.empty", "terminator.missing"]),
    ):
        assert sorted(rules(check_recording(body, contract=contract))) == expected


class TestTheWholeStream:
    WHOLE = document({"schema": {"type": "array", "minItems": 2, "items": {"type": "object"}}}, "3.2.0")

    def test_it_is_held_to_the_schema_of_an_array(self) -> None:
        contract = StreamContract.from_openapi(self.WHOLE, "/x")
        assert check_recording(b"data: {}\n\ndata: {}\n\n", contract=contract).ok
        assert rules(check_recording(b"data: {}\n\n", contract=contract)) == ["schema.stream"]

    def test_a_stream_that_is_too_long_to_keep_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openapi_contract, "_ITEM_BYTES", 8 << 20)
        contract = StreamContract.from_openapi(self.WHOLE, "/x")
        report = check_recording(b"data: {}\n\n" * 5, contract=contract)
        assert rules(report) == ["schema.stream"]
        assert report.ok


def test_the_number_of_kinds_is_bounded() -> None:
    contract = StreamContract.from_openapi(document({"itemSchema": {"type": "object"}}), "/x")
    body = b"".join(b"event: k%d\ndata: x\n\n" % number for number in range(1500))
    report = check_recording(body, contract=contract)
    assert report.ok
    assert len(report.chunk_counts) == 1001
    assert report.chunk_counts["(other kinds)"] == 500


def test_one_stream_takes_no_room_from_another() -> None:
    contract = StreamContract.from_openapi(document({"itemSchema": {"type": "object"}}), "/x")
    check_recording(
        b"".join(b"event: k%d\ndata: x\n\n" % number for number in range(1500)), contract=contract
    )
    assert check_recording(b"event: mine\ndata: x\n\n", contract=contract).chunk_counts == {"mine": 1}


@pytest.mark.parametrize("kind", ["done (last)", "k" * 201])
def test_a_kind_that_no_document_would_have_counts_as_one_of_the_others(kind: str) -> None:
    contract = StreamContract.from_openapi(document({"itemSchema": {"type": "object"}}), "/x")
    report = check_recording(f"event: {kind}\ndata: x\n\n".encode(), contract=contract)
    assert report.chunk_counts == {"(other kinds)": 1}


def test_weaknesses_of_the_document_come_with_every_report() -> None:
    contract = StreamContract.from_openapi(document({"schema": {"type": "string"}}, "3.1.0"), "/x")
    finding = check_recording(b"data: x\n\n", contract=contract).findings[0]
    assert (finding.rule, finding.severity, finding.event_index) == (
        "openapi.no-item-schema",
        Severity.WARNING,
        None,
    )


def test_two_streams_of_one_contract_do_not_mix() -> None:
    from cutover.contract import ContractChecker  # noqa: PLC0415  beside its only use

    contract = promised(kind="/data/type", order="a b")
    one, two = ContractChecker(contract), ContractChecker(contract)
    for checker in (one, two):
        checker.receive_data(b'data: {"type":"a"}\n\n', elapsed=0.0)
    for checker in (one, two):
        checker.receive_data(b'data: {"type":"b"}\n\n', elapsed=0.0)
        checker.receive_eof(elapsed=0.0)
        assert checker.report().ok


def test_a_finding_does_not_show_a_value_that_may_be_a_secret() -> None:
    payload = {"type": "object", "properties": {"token": {"type": "string", "writeOnly": True}}}
    whole = document({"itemSchema": {"properties": {"data": json_text(payload)}}})
    contract = StreamContract.from_openapi(whole, "/x")
    (finding,) = check_recording(b'data: {"token": "s3cr3t"}\n\n', contract=contract).warnings
    assert finding.rule == "schema.write-only"
    assert finding.actual == "a value at /data/token"


def test_a_slip_in_the_reading_is_refused() -> None:
    with pytest.raises(ValueError, match="reading='events': give 'event' or 'payload'"):
        StreamContract.from_openapi(document({}), "/x", reading="events")
