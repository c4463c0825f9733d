"""The log of any number of probes, in bounded memory."""

from collections import deque
from collections.abc import Iterable
from typing import Self

import attrs

from cutover.checking.probe import Probe
from cutover.text import printable

_KEPT = 500
"""Number of entries that are kept from the beginning of a log, and as many from its end."""
_FINDINGS = 50
"""Largest number of findings in one entry."""


@attrs.define(eq=False)
class ProbeLog:
    """The counts and the log of many probes, with the two probes that a check may show. A body may have megabytes."""

    count: int = 0
    bad: int = 0
    without_evidence: int = 0
    """Number of the bad probes that are no evidence about their stream."""
    first: Probe | None = None
    first_bad: Probe | None = None
    _beginning: list[str] = attrs.field(factory=list)
    _end: deque[str] = attrs.field(factory=lambda: deque(maxlen=_KEPT))

    @classmethod
    def of(cls, probes: Iterable[Probe]) -> Self:
        """Return the log of these probes."""
        log = cls()
        for probe in probes:
            log.add(probe)
        return log

    def add(self, probe: Probe) -> None:
        """Add one probe."""
        self.count += 1
        self.first = self.first or probe
        if not probe.ok:
            self.bad += 1
            self.without_evidence += probe.without_evidence
            self.first_bad = self.first_bad or probe
        kept = self._beginning if len(self._beginning) < _KEPT else self._end
        kept.append(_entry(probe))

    def text(self) -> str:
        """Return the log: the timings and findings of the probes, but of a long log only its beginning and its end."""
        left_out = self.count - len(self._beginning) - len(self._end)
        note = [f"... {left_out} more probes, of which the log keeps only the counts"] if left_out else []
        return "\n".join((*self._beginning, *note, *self._end)) + "\n"


def _entry(probe: Probe) -> str:
    findings = probe.report.findings
    more = len(findings) - _FINDINGS
    return "\n".join(
        (
            f"{probe.request.method} {probe.request.url}: {probe.describe()}",
            f"    {probe.report.timings}; {probe.report.byte_count} bytes, {probe.report.state}",
            *(
                f"    {finding.severity.value} {finding.rule}: {printable(finding.message, 400)}"
                for finding in findings[:_FINDINGS]
            ),
            *([f"    ... {more} more findings"] if more > 0 else []),
        )
    )
