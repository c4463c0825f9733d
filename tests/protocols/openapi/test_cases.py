"""Each case of the fixtures: a stream, its document, and the findings that must come."""

import base64
import json
from functools import cache
from typing import Any

import pytest

from cutover.errors import OpenApiError
from cutover.protocols.openapi import EventValidator, describe_stream, read_document
from cutover.protocols.openapi.faults import WARNINGS
from tests.support.openapi_events import wire_events
from tests.support.paths import FIXTURES

FOLDER = FIXTURES / "openapi"
CASES = json.loads((FOLDER / "cases.json").read_bytes())


@cache
def read(name: str) -> dict[str, Any]:
    return read_document((FOLDER / "documents" / name).read_bytes())


def ours(rules: list[str]) -> list[str]:
    return sorted(rule for rule in rules if rule.startswith(("schema.", "openapi.")) or rule == "json.syntax")


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case['document']} {case['path']} {case['name']}" for case in CASES]
)
def test_the_events_get_the_findings_of_the_case(case: dict[str, Any]) -> None:
    expected = case["expect"]
    if "error" in expected:
        with pytest.raises(OpenApiError) as caught:
            describe_stream(read(case["document"]), case["path"], case["method"])
        assert caught.value.rule == expected["error"]
        return
    description = describe_stream(read(case["document"]), case["path"], case["method"])
    validator = EventValidator(description)
    events = list(wire_events(base64.b64decode(case["body_b64"])))
    assert len(events) == case["events"]
    found = [(index, problem) for index, event in enumerate(events) for problem in validator.check(*event)]
    violations = [problem.rule for _, problem in found if problem.rule not in WARNINGS]
    warnings = [problem.rule for _, problem in found if problem.rule in WARNINGS]
    warnings += [warning.rule for warning in description.warnings]
    assert sorted(violations) == ours(expected["violations"])
    assert set(warnings) - set(expected.get("allowed", ())) == set(ours(expected["warnings"]))
    for place in expected.get("at", ()):
        if ours([place["rule"]]):
            assert any(
                (index, problem.rule) == (place["event"], place["rule"])
                and problem.path == place.get("path", problem.path)
                and problem.keyword == place.get("keyword", problem.keyword)
                for index, problem in found
            ), found
