"""The report of a checker: findings, counts and times of one stream, and the error that shows them."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from cutover.contract.failure import FailureKind
from cutover.contract.findings import Finding, Severity
from cutover.contract.rules import RULES
from cutover.contract.timing import Timings
from cutover.errors import ContractViolation
from cutover.text import printable

_SHOWN = 20
"""Largest number of findings that a raised violation shows."""


@attrs.frozen(kw_only=True)
class ContractReport:
    """The result of holding one stream to a contract."""

    contract: str
    """The name of the contract."""
    findings: tuple[Finding, ...]
    """The findings, in the order of the stream. Of each rule, only the first 16 are kept."""
    suppressed: Mapping[str, int] = MappingProxyType({})
    """Id of a rule -> the number of its findings that were not kept."""
    complete: bool
    """True if the body came to its end."""
    interrupted: FailureKind | None = None
    """The failure that ended the stream early; None without one."""
    timings: Timings = attrs.field(factory=Timings)
    """The times of the stream."""
    chunk_counts: Mapping[str, int] = MappingProxyType({})
    """Kind of chunk, or the terminator -> the number that came, without refused chunks."""
    event_count: int = 0
    """The number of message events."""
    content_count: int = 0
    """The number of message events of a kind with content, from the first one with content on; 0 if the contract knows no such kind."""
    comment_count: int = 0
    """The number of comments. Servers send them to keep a connection alive."""
    byte_count: int = 0
    """The number of bytes of the body."""
    state: str = ""
    """The last state of the turn, in words."""
    own_reasons: Mapping[str, str] = MappingProxyType({})
    """Id of an own rule of the contract -> its reason."""
    service_error: str | None = None
    """The error code that the service reported, in the stream or in the reply to a refused request; None without one."""

    def why(self, rule: str) -> str | None:
        """Return the reason for a rule: the defect, and its effect on a user; None if nobody knows the rule."""
        known = RULES.get(rule)
        return self.own_reasons.get(rule, None if known is None else known.why)

    @property
    def violations(self) -> tuple[Finding, ...]:
        """Return the findings that fail the contract."""
        return tuple(each for each in self.findings if each.severity is Severity.VIOLATION)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Return the findings that do not fail the contract, but that a person should know of: warnings and losses."""
        return tuple(each for each in self.findings if each.severity is not Severity.VIOLATION)

    @property
    def losses(self) -> tuple[Finding, ...]:
        """Return the findings about which the client says nothing, while the user gets less than was sent, or something else."""
        return tuple(each for each in self.findings if each.severity is Severity.LOSS)

    @property
    def ok(self) -> bool:
        """Return True if the stream came to its end and the contract holds."""
        return self.complete and not self.violations

    def raise_for_violations(self) -> None:
        """Raise an error if the contract does not hold, or cannot be judged yet.

        Raises:
            ContractViolation: If there is a violation, or the stream has not come to its end.
        """
        if not self.ok:
            raise ContractViolation("\n".join(self._lines()), findings=self.violations)

    def _lines(self) -> list[str]:
        """Return the text of the raised violation, as lines: first the first violation, then each with its place."""
        violations = self.violations
        if not violations:
            why = f"the stream has not ended, so the contract {self.contract} cannot be judged yet"
            return [f"stream.unfinished: {why} ({self.state})"]
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        lines = [f"{first.rule}: {printable(first.message)}{more}"]
        for finding in violations[:_SHOWN]:
            where = (
                ""
                if finding.event_index is None
                else f" at event {finding.event_index}, byte {finding.byte_offset}"
            )
            where += f", {finding.path}" if finding.path else ""
            lines.append(f"  {finding.rule}{where}")
            lines += [f"    expected: {printable(finding.expected)}"] if finding.expected is not None else []
            lines += [f"    got:      {printable(finding.actual)}"] if finding.actual is not None else []
        lines += [f"  … and {len(violations) - _SHOWN} more"] if len(violations) > _SHOWN else []
        return [*lines, f"  contract: {self.contract}; {self.state}", f"  {self.timings}"]
