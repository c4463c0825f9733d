"""What a checker has to say."""

from collections.abc import Mapping
from types import MappingProxyType

import attrs

from cutover.contract.failure import FailureKind
from cutover.contract.findings import Finding, Severity
from cutover.contract.timing import Timings
from cutover.errors import ContractViolation
from cutover.text import printable

_SHOWN = 20
"""Findings that a raised violation spells out."""


@attrs.frozen(kw_only=True)
class ContractReport:
    """What became of a contract."""

    contract: str
    """Name of the contract."""
    findings: tuple[Finding, ...]
    """All that was found, in the order of the stream; of one rule only the first few."""
    suppressed: Mapping[str, int] = MappingProxyType({})
    """Rule -> how many more findings of it there were."""
    complete: bool
    """The body came to its end."""
    interrupted: FailureKind | None = None
    """What broke the stream off before its end."""
    timings: Timings = attrs.field(factory=Timings)
    """When things came."""
    chunk_counts: Mapping[str, int] = MappingProxyType({})
    """Kind of chunk, or the terminator -> how many came."""
    event_count: int = 0
    """Message events."""
    comment_count: int = 0
    """Comments: what kept the connection alive."""
    byte_count: int = 0
    """Bytes of the body."""
    state: str = ""
    """Where the turn stood, in words."""
    service_error: str | None = None
    """Code of the error that the service itself reported, in the stream or in the body of a refusal."""

    @property
    def violations(self) -> tuple[Finding, ...]:
        """What fails the contract."""
        return tuple(each for each in self.findings if each.severity is Severity.VIOLATION)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What somebody should know."""
        return tuple(each for each in self.findings if each.severity is Severity.WARNING)

    @property
    def ok(self) -> bool:
        """Whether the stream came to its end and the contract holds."""
        return self.complete and not self.violations

    def raise_for_violations(self) -> None:
        """Raise if the contract does not hold.

        Raises:
            ContractViolation: It does not, or the stream has not come to its end.
        """
        if not self.ok:
            raise ContractViolation("\n".join(self._lines()), findings=self.violations)

    def _lines(self) -> list[str]:
        violations = self.violations
        if not violations:
            return [
                f"stream.unfinished: the contract {self.contract} cannot be judged before the body's end ({self.state})"
            ]
        first = violations[0]
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        lines = [f"{first.rule}: {printable(first.message)}{more}"]
        for finding in violations[:_SHOWN]:
            where = (
                ""
                if finding.event_index is None
                else f" at event {finding.event_index}, byte {finding.byte_offset}"
            )
            lines.append(f"  {finding.rule}{where}")
            lines += [f"    expected: {printable(finding.expected)}"] if finding.expected is not None else []
            lines += [f"    came:     {printable(finding.actual)}"] if finding.actual is not None else []
        lines += [f"  … and {len(violations) - _SHOWN} more"] if len(violations) > _SHOWN else []
        return [*lines, f"  contract: {self.contract}; {self.state}", f"  {self.timings}"]
