"""Every rule has one explanation and one stream that breaks only this rule; a good stream breaks none."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest

from cutover.contract import (
    RULES,
    ContractChecker,
    ContractReport,
    FailureKind,
    StreamContext,
    StreamContract,
)
from cutover.contract.findings import Severity
from cutover.protocols import COMPAT_LANE, SHIPPED
from tests.support.paths import FIXTURES

STREAMS = FIXTURES / "streams"


def contract_of(story: dict[str, Any]) -> StreamContract:
    contract = SHIPPED[story.get("contract", "compat-lane")]
    contract = contract.strict() if story.get("strict") else contract
    return attrs.evolve(contract, limits=attrs.evolve(contract.limits, **story.get("limits", {})))


def report_on(path: Path, cuts: int | None = None) -> ContractReport:
    """Return the report on a fixture. Its story gives head, times and end; `cuts` is the size of the pieces."""
    story_path = path.with_suffix(".json")
    story: dict[str, Any] = json.loads(story_path.read_text("utf-8")) if story_path.exists() else {}
    context = story.get("context", {})
    checker = ContractChecker(
        contract_of(story),
        context=StreamContext(
            thread_id=context.get("thread_id"),
            known_tool_calls=frozenset(context.get("known_tool_calls", ())),
            asked_at=datetime.fromisoformat(context["asked_at"]) if "asked_at" in context else None,
        ),
    )
    if "head" in story:
        headers = [(name.encode(), value.encode()) for name, value in story["head"]["headers"]]
        checker.receive_head(story["head"]["status"], headers, elapsed=story["head"].get("elapsed", 0.05))
    body = path.read_bytes()
    for elapsed, size in story.get("timings", [[0.1, len(body)]]):
        piece, body = body[:size], body[size:]
        for at in range(0, len(piece), cuts or len(piece) or 1):
            checker.receive_data(piece[at : at + (cuts or len(piece))], elapsed=elapsed)
    assert body == b"", "the story's pieces are the whole body"
    end = story.get("end", 0.1)
    if "failure" in story:
        checker.receive_failure(FailureKind(story["failure"]), elapsed=end)
    else:
        checker.receive_eof(elapsed=end)
    return checker.report()


@pytest.mark.parametrize("cuts", [None, 1, 7])
@pytest.mark.parametrize("path", sorted(STREAMS.glob("violations/*.sse")), ids=lambda path: path.stem)
def test_a_violation_yields_its_rule_and_no_other(path: Path, cuts: int | None) -> None:
    report = report_on(path, cuts)
    assert [finding.rule for finding in report.findings] == [path.stem]
    finding = report.findings[0]
    assert finding.expected
    assert finding.actual
    assert finding.expected in finding.message
    assert report.ok is (finding.severity is not Severity.VIOLATION and report.complete)


@pytest.mark.parametrize("cuts", [None, 1, 7])
@pytest.mark.parametrize("path", sorted(STREAMS.glob("ok/*.sse")), ids=lambda path: path.stem)
def test_a_good_stream_yields_no_finding(path: Path, cuts: int | None) -> None:
    report = report_on(path, cuts)
    assert report.findings == ()
    assert report.ok


def test_every_rule_has_a_stream_that_breaks_it() -> None:
    assert {path.stem for path in STREAMS.glob("violations/*.sse")} == RULES.keys()


@pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.id)
def test_every_rule_explains_the_defect_on_one_line(rule: Any) -> None:
    assert rule.why.endswith(".")
    assert rule.why[0].isupper() or rule.why[0].isdigit()
    assert "\n" not in rule.why


@pytest.mark.parametrize(
    "contract", [each for each in SHIPPED.values() if each is not COMPAT_LANE], ids=lambda each: each.name
)
def test_a_strict_contract_makes_each_defect_that_a_user_sees_a_violation(contract: StreamContract) -> None:
    """The client itself accepts all of these, except for a broken connection, which is a violation anyway."""
    seen = {
        *("timing.first-event", "timing.event-gap", "timing.deadline", "timing.not-streamed"),
        *(
            "stream.empty",
            "stream.truncated",
            "stream.oversized",
            "stream.invalid-utf8",
            "stream.service-error",
        ),
        *("order.finish-missing", "terminator.missing"),
    }
    strict = contract.strict()
    raised = {rule for rule in RULES if strict.severity(rule) is not contract.severity(rule)}
    assert raised == seen
    assert {strict.severity(rule) for rule in (*seen, "transport.reset")} == {Severity.VIOLATION}


def test_a_contract_cannot_set_the_severity_of_an_unknown_rule() -> None:
    with pytest.raises(ValueError, match=r"no such rule: order\.nonsense"):
        attrs.evolve(COMPAT_LANE, severities={"order.nonsense": Severity.WARNING})
