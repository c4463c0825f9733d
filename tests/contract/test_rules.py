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
from cutover.contract.joining import JoinJudge
from cutover.protocols import COMPAT_LANE, SHIPPED
from cutover.sse.events import MessageEvent
from cutover.sse.parser import EventStreamParser
from tests.support.own_contracts import OWN
from tests.support.paths import FIXTURES

STREAMS = FIXTURES / "streams"
ONLY_FROM_OPENAPI = {
    "schema.ambiguous",
    "schema.stream",
    "schema.format",
    "schema.inherited-id",
    "schema.write-only",
}
"""Rules that only a contract read from an OpenAPI document can break."""


def contract_of(story: dict[str, Any]) -> StreamContract:
    """Return the contract of a story: a shipped one (`contract`), or one made in Python (`own`)."""
    contract = OWN[story["own"]] if "own" in story else SHIPPED[story.get("contract", "compat-lane")]
    contract = contract.strict() if story.get("strict") else contract
    return attrs.evolve(contract, limits=attrs.evolve(contract.limits, **story.get("limits", {})))


@attrs.define(eq=False)
class JoinedStream:
    """A checker and the judge of the joins side by side, as a session has them."""

    checker: ContractChecker
    join: JoinJudge = attrs.field(init=False)
    parser: EventStreamParser = attrs.field(factory=EventStreamParser, init=False)
    count: int = 0

    @join.default
    def _judge(self) -> JoinJudge:
        return JoinJudge(self.checker.contract)

    def receive_data(self, data: bytes, *, elapsed: float) -> None:
        self.checker.receive_data(data, elapsed=elapsed)
        for event in self.parser.receive_data(data):
            self.join.take(event, index=self.count)
            self.count += isinstance(event, MessageEvent)

    def reconnect(self, story: dict[str, Any]) -> None:
        headers = [(name.encode(), value.encode()) for name, value in story["head"]["headers"]]
        self.checker.receive_reconnect(elapsed=story["elapsed"])
        self.checker.receive_head(story["head"]["status"], headers, elapsed=story["elapsed"])
        self.join.reconnect()
        old, self.parser = self.parser, EventStreamParser()
        self.parser.received, self.parser.last_event_id = old.received, old.last_event_id


def report_on(path: Path, cuts: int | None = None) -> ContractReport:
    """Return the report on a fixture. Its story gives head, times and end; `cuts` is the size of the pieces.

    With `resume` in the story, the body is two bodies: the first is the first piece, and `resume` has the second head.
    """
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
    joined = JoinedStream(checker)
    for elapsed, size in story.get("timings", [[0.1, len(body)]]):
        piece, body = body[:size], body[size:]
        for at in range(0, len(piece), cuts or len(piece) or 1):
            joined.receive_data(piece[at : at + (cuts or len(piece))], elapsed=elapsed)
        if "resume" in story and body:
            joined.reconnect(story["resume"])
    assert body == b"", "the story's pieces are the whole body"
    end = story.get("end", 0.1)
    failure = FailureKind(story["failure"]) if "failure" in story else None
    if failure in {None, FailureKind.APP_ERROR}:
        checker.receive_eof(elapsed=end)
    if failure is not None:
        checker.receive_failure(failure, elapsed=end)
    return joined.join.merged_into(checker.report())


@pytest.mark.parametrize("cuts", [None, 1, 7])
@pytest.mark.parametrize("path", sorted(STREAMS.glob("violations/*.sse")), ids=lambda path: path.stem)
def test_a_violation_yields_its_rule_and_no_other(path: Path, cuts: int | None) -> None:
    report = report_on(path, cuts)
    assert [finding.rule for finding in report.findings] == [path.stem]
    finding = report.findings[0]
    assert finding.actual
    assert finding.actual in finding.message
    # A weakness of the document is a sentence by itself.
    is_about_document = path.stem.startswith("openapi.")
    assert (finding.expected is None) is is_about_document
    assert is_about_document or str(finding.expected) in finding.message
    assert report.ok is (finding.severity is not Severity.VIOLATION and report.complete)


@pytest.mark.parametrize("cuts", [None, 1, 7])
@pytest.mark.parametrize("path", sorted(STREAMS.glob("ok/*.sse")), ids=lambda path: path.stem)
def test_a_good_stream_yields_no_finding(path: Path, cuts: int | None) -> None:
    report = report_on(path, cuts)
    assert report.findings == ()
    assert report.ok


def test_every_rule_has_a_stream_that_breaks_it() -> None:
    broken = {path.stem for path in STREAMS.glob("violations/*.sse")}
    assert broken | ONLY_FROM_OPENAPI == RULES.keys()


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
            "stream.no-content",
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
