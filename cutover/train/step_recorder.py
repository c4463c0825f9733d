"""The steps of the train: each a plan, its evidence, one coroutine."""

from collections.abc import Mapping, Sequence
from typing import TypedDict, Unpack

import attrs

from cutover.checking.probe import Probe
from cutover.clock import utc_now
from cutover.contract.findings import Finding
from cutover.errors import PeerError, RefusedError
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus, combined_status
from cutover.model.train_events import CheckRecorded
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.text import printable


class CheckFields(TypedDict, total=False):
    """The fields of ``Check`` that a step may set beside the first three."""

    kind: str
    endpoint: str
    http_status: int | None
    headers_path: str | None
    body_path: str | None
    findings: tuple[Finding, ...]
    tolerable: bool


@attrs.define(eq=False)
class StepRecorder:
    """What a step leaves behind while it runs: checks in the journal, replies in its folder."""

    step_id: str
    journal: Journal
    evidence: EvidenceFolder
    checks: list[Check] = attrs.field(factory=list)

    def check(
        self, check_id: str, status: StepStatus, detail: str = "", **more: Unpack[CheckFields]
    ) -> Check:
        """Record one row."""
        check = Check(
            check_id=check_id,
            status=status,
            detail=self.evidence.secrets.mask_text(detail),
            recorded_at=utc_now(),
            **more,
        )
        self.checks.append(check)
        self.journal.record(CheckRecorded(step_id=self.step_id, check=check))
        return check

    def failure(self, check_id: str, error: PeerError, **more: Unpack[CheckFields]) -> Check:
        """Record a row for which a peer gave no usable answer: a refusal is evidence, silence is none."""
        status = StepStatus.FAIL if isinstance(error, RefusedError) else StepStatus.ERROR
        return self.check(check_id, status, str(error), **more)

    def budget_check(self, budget: ErrorBudget) -> Check:
        """Record whether the consumed error budget is below its ceiling."""
        status = StepStatus.PASS if budget.holds else StepStatus.FAIL
        return self.check("error-budget", status, budget.describe(), tolerable=False)

    def stream_check(
        self,
        check_id: str,
        probes: Sequence[Probe],
        *,
        detail: str = "",
        blame: str = "",
        **more: Unpack[CheckFields],
    ) -> Check:
        """Record one row for one or more probes of the same thing; the first bad one is what it shows.

        Args:
            check_id: The row.
            probes: At least one.
            detail: What to say where all are good.
            blame: What to say before the first bad one's own words.
            more: Further fields of ``Check``.
        """
        shown = next((probe for probe in probes if not probe.ok), probes[0])
        if shown.ok:
            status = StepStatus.PASS
        else:
            status = (
                StepStatus.ERROR
                if all(probe.without_evidence for probe in probes if not probe.ok)
                else StepStatus.FAIL
            )
        bad = sum(not probe.ok for probe in probes)
        said = detail if detail and not bad else shown.describe()
        if bad and len(probes) > 1:
            said = f"{bad} of {len(probes)} probes failed: {said}"
        if bad and blame:
            said = f"{blame}: {said}"
        self.evidence.write(f"{self.step_id}/{check_id}.log", _probe_log(probes).encode())
        head_path, body_path = self.keep(check_id, shown)
        more["endpoint"], more["http_status"] = shown.request.url, shown.status
        more["headers_path"], more["body_path"] = head_path, body_path
        more["findings"] = tuple(self._masked(finding) for finding in shown.report.findings[:20])
        return self.check(check_id, status, said, **more)

    def keep(self, check_id: str, probe: Probe) -> tuple[str | None, str | None]:
        """Keep a probe's head and body as evidence, where there are any."""
        if probe.status is None:
            return None, None
        return self.evidence.keep_reply(
            self.step_id, check_id, status_line=f"HTTP {probe.status}", headers=probe.headers, body=probe.body
        )

    def finish(
        self,
        detail: str = "",
        *,
        facts: Mapping[str, object] | None = None,
        sentinels: Sequence[SentinelTally] = (),
    ) -> StepResult:
        """Sum the checks up."""
        failed = [check for check in self.checks if check.status.failed]
        if failed:
            detail = f"{failed[0].check_id}: {failed[0].detail}" + (
                f" (and {len(failed) - 1} more)" if failed[1:] else ""
            )
        return StepResult(
            step_id=self.step_id,
            status=combined_status(self.checks),
            detail=detail,
            checks=tuple(self.checks),
            facts=dict(facts or {}),
            sentinels=tuple(tally for tally in sentinels if tally.streams),
            recorded_at=utc_now(),
        )

    def _masked(self, finding: Finding) -> Finding:
        """Return a finding as evidence may hold it: no secret, no control character, no endless quote."""

        def clean(text: str | None) -> str | None:
            return None if text is None else printable(self.evidence.secrets.mask_text(text), 400)

        return attrs.evolve(
            finding,
            message=clean(finding.message) or "",
            expected=clean(finding.expected),
            actual=clean(finding.actual),
        )


def _probe_log(probes: Sequence[Probe]) -> str:
    """Write down what each probe of a row saw, when, and what was found."""
    lines: list[str] = []
    for probe in probes:
        lines.append(f"{probe.request.method} {probe.request.url}: {probe.describe()}")
        lines.append(f"    {probe.report.timings}; {probe.report.byte_count} bytes, {probe.report.state}")
        lines += [
            f"    {finding.severity.value} {finding.rule}: {printable(finding.message, 400)}"
            for finding in probe.report.findings
        ]
    return "\n".join(lines) + "\n"
