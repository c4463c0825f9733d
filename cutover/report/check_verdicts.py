"""What `cutover check` found, as an operator, a script or a CI server reads it: text, JSON, JUnit XML."""

import io
from collections.abc import Iterable
from typing import TYPE_CHECKING

import attrs
import msgspec

from cutover.contract import RULES, ContractReport
from cutover.contract.findings import Finding
from cutover.http.secrets import Secrets
from cutover.text import printable

if TYPE_CHECKING:
    from junitparser import Failure, TestCase

EXIT_UNREACHABLE = 3
_LONGEST = 2000
"""Characters of one text that a report shows."""


@attrs.frozen(kw_only=True)
class Verdict:
    """What became of one target."""

    target: str
    report: ContractReport
    unreachable: str | None = None

    @property
    def exit_code(self) -> int:
        """0 the contract holds, 1 it does not, 3 unreachable."""
        return EXIT_UNREACHABLE if self.unreachable else 0 if self.report.ok else 1

    def masked(self, secrets: Secrets) -> "Verdict":
        """Return it without the secrets that the peer may have echoed."""
        findings = tuple(_masked(finding, secrets) for finding in self.report.findings)
        return attrs.evolve(self, report=attrs.evolve(self.report, findings=findings))


def _masked(finding: Finding, secrets: Secrets) -> Finding:
    def mask(text: str | None) -> str | None:
        return None if text is None else secrets.mask_text(text)

    return attrs.evolve(
        finding,
        message=secrets.mask_text(finding.message),
        expected=mask(finding.expected),
        actual=mask(finding.actual),
    )


def as_lines(verdict: Verdict) -> list[str]:
    """Return the verdict in words: one line for the target, one for each finding."""
    if verdict.unreachable:
        return [f"{verdict.target}: UNREACHABLE  {verdict.unreachable}"]
    report = verdict.report
    state = "ok" if report.ok else "BROKEN"
    times = "" if report.timings.end is None else f"; {report.timings}"
    return [
        f"{verdict.target}: {state}  {report.event_count} events, {len(report.violations)} violations{times}",
        *(f"  {finding.severity.value} {_told(finding)}" for finding in report.findings),
        *(f"  and {count} more of {rule}" for rule, count in report.suppressed.items()),
    ]


def as_json(verdict: Verdict) -> bytes:
    """Return the verdict as one JSON object on one line."""
    report = verdict.report
    document = {
        "target": verdict.target.encode("utf-8", "backslashreplace").decode(),
        "contract": report.contract,
        "ok": verdict.exit_code == 0,
        "unreachable": verdict.unreachable,
        "event_count": report.event_count,
        "findings": [
            attrs.asdict(finding) | {"severity": finding.severity.value} for finding in report.findings
        ],
        "suppressed": dict(report.suppressed),
        "timings": attrs.asdict(report.timings),
    }
    return msgspec.json.encode(document)


def as_junit(verdicts: Iterable[Verdict]) -> bytes:
    """Return the verdicts as JUnit XML: a test case a target, a failure a violation."""
    from junitparser import JUnitXml, TestSuite  # noqa: PLC0415  an extra, for this report alone

    suite = TestSuite("cutover check")
    suite.add_testcases([_case(verdict) for verdict in verdicts])
    document = JUnitXml()
    document.add_testsuite(suite)
    written = io.BytesIO()
    document.write(written)
    return written.getvalue()


def _case(verdict: Verdict) -> "TestCase":
    from junitparser import Error, TestCase  # noqa: PLC0415  an extra

    report = verdict.report
    case = TestCase(printable(verdict.target, _LONGEST), report.contract, report.timings.end)
    if verdict.unreachable:
        case.result = Error(printable(verdict.unreachable, _LONGEST), "unreachable")
        return case
    case.result = [_failure(finding) for finding in report.violations]
    said = [_told(finding) for finding in report.warnings]
    said += [f"and {count} more of {rule}" for rule, count in report.suppressed.items()]
    if said:
        case.system_out = "\n".join(printable(line, _LONGEST) for line in said)
    return case


def _failure(finding: Finding) -> "Failure":
    """Return the violation with why its rule is there, and where it did not hold."""
    from junitparser import Failure  # noqa: PLC0415  an extra

    lines = [RULES[finding.rule].why]
    lines += [f"at: {place}"] if (place := _place(finding)) else []
    lines += [f"expected: {finding.expected}"] if finding.expected is not None else []
    lines += [f"came: {finding.actual}"] if finding.actual is not None else []
    failure = Failure(printable(finding.message, _LONGEST), finding.rule)
    failure.text = "\n".join(printable(line, _LONGEST) for line in lines)
    return failure


def _told(finding: Finding) -> str:
    """Return rule, place and message; the message says what was expected and what came."""
    place = _place(finding)
    return f"{finding.rule}{f' ({place})' if place else ''}: {finding.message}"


def _place(finding: Finding) -> str:
    where = [f"event {finding.event_index}"] if finding.event_index is not None else []
    where += [f"byte {finding.byte_offset}"] if finding.byte_offset is not None else []
    return ", ".join(where)
