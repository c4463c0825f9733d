"""Excerpts: the bytes of a body around the place of a finding, safe to print."""

import attrs

from cutover.contract import ContractReport
from cutover.contract.findings import Finding
from cutover.text import escaped

AROUND = 80
"""Largest number of bytes on each side of the place."""
MOST_EXCERPTS = 5
"""Largest number of findings of one stream that get an excerpt. Violations come first."""


@attrs.frozen(kw_only=True)
class Excerpt:
    """A finding, and the bytes around its place. A finding without a place has the first bytes of the body."""

    finding: Finding
    before: str
    """The bytes before the place, escaped."""
    after: str
    """The bytes from the place on, escaped. Empty at the end of the body."""


def excerpts(report: ContractReport, body: bytes) -> tuple[Excerpt, ...]:
    """Return the excerpts of the first findings of a report. A place behind the kept part of the body has no bytes."""
    findings = (*report.violations, *report.warnings)[:MOST_EXCERPTS]
    return tuple(_excerpt(finding, body) for finding in findings)


def _excerpt(finding: Finding, body: bytes) -> Excerpt:
    place = finding.byte_offset or 0
    return Excerpt(
        finding=finding,
        before=escaped(body[max(0, place - AROUND) : place], 4 * AROUND),
        after=escaped(body[place : place + AROUND], 4 * AROUND),
    )
