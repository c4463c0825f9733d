"""The results of `cutover check`: as text for an operator, as JSON for a script, as JUnit XML for a CI server."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import msgspec

from cutover.checking.masked_report import masked_report
from cutover.contract import ContractReport
from cutover.contract.findings import Finding
from cutover.http.secrets import Secrets, mask_urls
from cutover.report.junit import LONGEST, junit_bytes
from cutover.text import printable

if TYPE_CHECKING:
    from junitparser import Failure, TestCase

EXIT_UNREACHABLE = 3
"""Exit code of a target that cannot be reached."""


@attrs.frozen(kw_only=True)
class Verdict:
    """The result of checking one target."""

    target: str
    """The URL or file name, as the user typed it; `masked` replaces its secrets."""
    report: ContractReport
    unreachable: str | None = None
    """The reason why the target could not be reached; None if it was reached."""

    @property
    def exit_code(self) -> int:
        """The exit code for this target: 0 if the contract holds, 1 if it does not, 3 if the target is unreachable."""
        return EXIT_UNREACHABLE if self.unreachable else 0 if self.report.ok else 1

    def masked(self, secrets: Secrets) -> "Verdict":
        """Return this verdict with every secret masked, also those in URLs; a server may echo what it received."""
        unreachable = None if self.unreachable is None else secrets.mask_text(mask_urls(self.unreachable))
        report = masked_report(self.report, secrets)
        return attrs.evolve(self, target=mask_urls(self.target), report=report, unreachable=unreachable)


def as_lines(verdict: Verdict) -> list[str]:
    """Return the verdict as text: one line for the target, then one line for each finding.

    Findings that the report left out have one line for each rule. An unreachable target has its first line alone.
    """
    if verdict.unreachable:
        return [f"{verdict.target}: UNREACHABLE  {verdict.unreachable}"]
    report = verdict.report
    state = "ok" if report.ok else "BROKEN"
    times = "" if report.timings.end is None else f"; {report.timings}"
    return [
        f"{verdict.target}: {state}  {report.event_count} events, {len(report.violations)} violations{times}",
        *(f"  {finding.severity.value} {_finding_line(finding)}" for finding in report.findings),
        *(f"  and {count} more of {rule}" for rule, count in report.suppressed.items()),
    ]


def as_document(finding: Finding) -> dict[str, object]:
    """Return a finding as a document for JSON. It has a path and a keyword only if the finding is about one value."""
    document = attrs.asdict(finding) | {"severity": finding.severity.value}
    return {
        name: value
        for name, value in document.items()
        if value is not None or name not in {"path", "keyword"}
    }


def as_json(verdict: Verdict) -> bytes:
    """Return the verdict as one JSON object on one line."""
    report = verdict.report
    document = {
        "target": verdict.target.encode("utf-8", "backslashreplace").decode(),
        "contract": report.contract,
        "ok": verdict.exit_code == 0,
        "unreachable": verdict.unreachable,
        "event_count": report.event_count,
        "findings": [as_document(finding) for finding in report.findings],
        "suppressed": dict(report.suppressed),
        "timings": attrs.asdict(report.timings),
    }
    return msgspec.json.encode(document)


def as_junit(verdicts: Iterable[Verdict]) -> bytes:
    """Return the verdicts as JUnit XML: one test case for each target, one failure for each violation.

    An unreachable target has one error. Warnings are in the output of the test case. The extra ``junit`` must be installed.
    """
    from junitparser import TestSuite  # noqa: PLC0415  an extra that only this report needs

    suite = TestSuite("cutover check")
    suite.add_testcases([_case(verdict) for verdict in verdicts])
    return junit_bytes(suite)


def _case(verdict: Verdict) -> "TestCase":
    from junitparser import Error, TestCase  # noqa: PLC0415  an extra

    report = verdict.report
    case = TestCase(printable(verdict.target, LONGEST), report.contract, report.timings.end)
    if verdict.unreachable:
        case.result = Error(printable(verdict.unreachable, LONGEST), "unreachable")
        return case
    case.result = [_failure(finding, report.why(finding.rule)) for finding in report.violations]
    notes = [_finding_line(finding) for finding in report.warnings]
    notes += [f"and {count} more of {rule}" for rule, count in report.suppressed.items()]
    if notes:
        case.system_out = "\n".join(printable(line, LONGEST) for line in notes)
    return case


def _failure(finding: Finding, why: str | None) -> "Failure":
    """Return a violation as a JUnit failure: the reason for its rule, its place, the expected and the actual value."""
    from junitparser import Failure  # noqa: PLC0415  an extra

    lines = [] if why is None else [why]
    lines += [f"at: {place}"] if (place := _place(finding)) else []
    lines += [f"expected: {finding.expected}"] if finding.expected is not None else []
    lines += [f"got: {finding.actual}"] if finding.actual is not None else []
    failure = Failure(printable(finding.message, LONGEST), finding.rule)
    failure.text = "\n".join(printable(line, LONGEST) for line in lines)
    return failure


def _finding_line(finding: Finding) -> str:
    """Return rule, place and message of a finding; the message names the expected and the actual value."""
    place = _place(finding)
    return f"{finding.rule}{f' ({place})' if place else ''}: {finding.message}"


def _place(finding: Finding) -> str:
    """Return the event, the byte and the path of a value that a finding is about; empty if it is about none."""
    parts = [f"event {finding.event_index}"] if finding.event_index is not None else []
    parts += [f"byte {finding.byte_offset}"] if finding.byte_offset is not None else []
    parts += [f"at {finding.path}"] if finding.path else []
    return ", ".join(parts)
