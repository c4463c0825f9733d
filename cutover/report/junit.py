"""A JUnit report as bytes, and a train's report. The extra ``junit`` must be installed."""

import io
from typing import TYPE_CHECKING

from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.text import printable

if TYPE_CHECKING:
    from junitparser import Error, Failure, TestCase, TestSuite

LONGEST = 2000
"""Largest number of characters of one text in a report."""
_GATE_FAILED = 1
"""The exit code of a verdict that evidence decided: a failure. All other codes but 0 are errors."""


def junit_bytes(suite: "TestSuite") -> bytes:
    """Return a report with one suite."""
    from junitparser import JUnitXml  # noqa: PLC0415  an extra

    document = JUnitXml()
    document.add_testsuite(suite)
    written = io.BytesIO()
    document.write(written)
    return written.getvalue()


def train_junit(summary: CutoverSummary | None, *, exit_code: int) -> bytes:
    """Return a train's report: one test case for each check, one for each step without checks, and one for the verdict.

    A check that failed is a failure, one without evidence an error, one that did not run skipped. In a run that passed, a failed check
    was tolerated: its case passes and says so. The verdict is a failure for the exit code 1, and an error for every other one but 0.

    Args:
        summary: The summary of the train; None for a train that did not start.
        exit_code: The exit code of the command.
    """
    from junitparser import TestCase, TestSuite  # noqa: PLC0415  an extra

    suite = TestSuite("cutover run")
    for step in summary.steps if summary is not None else ():
        suite.add_testcases(_cases(step, tolerated=summary is not None and summary.passed))
    verdict = TestCase("verdict", "cutover")
    if exit_code:
        verdict.result = _verdict(summary, exit_code)
    suite.add_testcase(verdict)
    return junit_bytes(suite)


def _cases(step: StepResult, *, tolerated: bool) -> "list[TestCase]":
    rows = step.checks or (Check(check_id=step.step_id, status=step.status, detail=step.detail),)
    return [_case(step.step_id, row, tolerated=tolerated) for row in rows]


def _case(step_id: str, check: Check, *, tolerated: bool) -> "TestCase":
    from junitparser import Error, Failure, Skipped, TestCase  # noqa: PLC0415  an extra

    case = TestCase(printable(check.check_id, LONGEST), step_id)
    detail = printable(check.detail, LONGEST)
    if check.status.failed and tolerated:
        case.system_out = f"tolerated: {detail}"
    elif check.status is StepStatus.PASS:
        if detail:
            case.system_out = detail
    else:
        kinds = {StepStatus.FAIL: Failure, StepStatus.ERROR: Error, StepStatus.SKIP: Skipped}
        result = kinds[check.status](detail, check.status.value)
        result.text = "\n".join(printable(f"{each.rule}: {each.message}", LONGEST) for each in check.findings)
        case.result = result
    return case


def _verdict(summary: CutoverSummary | None, exit_code: int) -> "Failure | Error":
    from junitparser import Error, Failure  # noqa: PLC0415  an extra

    kind = Failure if exit_code == _GATE_FAILED else Error
    result = kind(f"not passed, exit code {exit_code}", f"exit-{exit_code}")
    if summary is None:
        result.text = "the train did not start; the log of the command says why"
    else:
        to_do = summary.undo.to_do if summary.undo is not None else ()
        lines = (*summary.reasons, *summary.causes, *(f"DO: {line}" for line in to_do))
        result.text = "\n".join(printable(line, LONGEST) for line in lines)
    return result
