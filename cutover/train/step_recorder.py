"""The recorder of one step: its checks go to the journal, its evidence to the step's folder."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict, Unpack

import attrs

from cutover.checking.probe import Probe
from cutover.clock import utc_now
from cutover.contract.findings import Finding
from cutover.errors import PeerError
from cutover.model.error_budget import ErrorBudget
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus, combined_status
from cutover.model.train_events import CheckRecorded
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.text import printable
from cutover.train.probe_log import ProbeLog


class CheckFields(TypedDict, total=False):
    """The fields of ``Check`` that a step may set besides the first three."""

    kind: str | None
    endpoint: str
    http_status: int | None
    headers_path: str | None
    body_path: str | None
    findings: tuple[Finding, ...]
    tolerable: bool
    warns: bool


@attrs.define(eq=False)
class StepRecorder:
    """A recorder of the checks of one step, and of the replies that are kept as evidence."""

    step_id: str
    journal: Journal
    evidence: EvidenceFolder
    before_check: Callable[[], None] = lambda: None
    """Called before each check, so that the streams that it is about are in the journal when it is."""
    checks: list[Check] = attrs.field(factory=list)

    def check(
        self, check_id: str, status: StepStatus, detail: str = "", **more: Unpack[CheckFields]
    ) -> Check:
        """Record one check; return it."""
        check = Check(
            check_id=check_id,
            status=status,
            detail=self.evidence.secrets.mask_text(detail),
            recorded_at=utc_now(),
            **more,
        )
        self.checks.append(check)
        self.before_check()
        self.journal.record(CheckRecorded(step_id=self.step_id, check=check))
        return check

    def failure(self, check_id: str, error: PeerError, **more: Unpack[CheckFields]) -> Check:
        """Record a check whose request had no usable answer, as ``error``.

        Nothing was learned about production, whether the request was not sent, not answered, or refused with any status.
        """
        return self.check(check_id, StepStatus.ERROR, str(error), **more)

    def budget_check(self, budget: ErrorBudget) -> Check:
        """Record the check of the error budget against its ceiling."""
        status = StepStatus.PASS if budget.holds else StepStatus.FAIL
        return self.check("error-budget", status, budget.describe(), tolerable=False)

    def stream_check(
        self,
        check_id: str,
        probes: Sequence[Probe] | ProbeLog,
        *,
        detail: str = "",
        blame: str = "",
        **more: Unpack[CheckFields],
    ) -> Check:
        """Record one check for one or more probes; keep their log and the reply that the check shows as evidence.

        The check shows the first bad probe, else the first probe. Its status is ``error`` if all bad probes lack evidence.

        Args:
            check_id: Id of the check.
            probes: At least one probe, or the log of at least one.
            detail: Text of the check if all probes are good; empty for the description of the first probe.
            blame: Text before the description of the first bad probe, if a bad probe is evidence.
            more: Further fields of ``Check``.
        """
        log = probes if isinstance(probes, ProbeLog) else ProbeLog.of(probes)
        if not log.bad:
            status = StepStatus.PASS
        else:
            status = StepStatus.ERROR if log.without_evidence == log.bad else StepStatus.FAIL
        failures = _describe_failures(log)
        # A probe without evidence, such as one whose token was refused, shows nobody's fault.
        text = f"{blame}: {failures}" if blame and status is StepStatus.FAIL else failures or detail
        return self._show(check_id, log, status, text, **more)

    def judged_check(
        self,
        check_id: str,
        probes: Sequence[Probe] | ProbeLog,
        status: StepStatus,
        detail: str,
        **more: Unpack[CheckFields],
    ) -> Check:
        """Record one check for one or more probes with a status that another judge gave; its text names the first bad probe too."""
        log = probes if isinstance(probes, ProbeLog) else ProbeLog.of(probes)
        failures = _describe_failures(log)
        return self._show(check_id, log, status, f"{detail}; {failures}" if failures else detail, **more)

    def _show(
        self, check_id: str, log: ProbeLog, status: StepStatus, text: str, **more: Unpack[CheckFields]
    ) -> Check:
        """Keep the log of the probes and one reply as evidence, and record the check."""
        shown = log.first_bad or log.first
        assert shown is not None  # noqa: S101  the caller gives at least one probe
        # As a text, because a finding may quote a token that was cut short; evidence masks whole ones alone.
        lines = self.evidence.secrets.mask_text(log.text())
        self.evidence.write(f"{self.step_id}/{check_id}.log", lines.encode())
        head_path, body_path = self.keep(check_id, shown)
        more["endpoint"], more["http_status"] = shown.request.url, shown.status
        more["headers_path"], more["body_path"] = head_path, body_path
        more["findings"] = tuple(self._masked(finding) for finding in shown.report.findings[:20])
        return self.check(check_id, status, text or shown.describe(), **more)

    def keep(self, check_id: str, probe: Probe) -> tuple[str | None, str | None]:
        """Keep the head and body of a probe as evidence; return both paths, None for a file that was not written."""
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
        """Return the result of the step from its checks. If a check failed, its text replaces ``detail``."""
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
        """Return a finding for the evidence: its texts are masked, escaped, and cut at 400 characters."""

        def clean(text: str | None) -> str | None:
            return None if text is None else printable(self.evidence.secrets.mask_text(text), 400)

        return attrs.evolve(
            finding,
            message=clean(finding.message) or "",
            expected=clean(finding.expected),
            actual=clean(finding.actual),
        )


def _describe_failures(log: ProbeLog) -> str:
    """Return the number of bad probes and the first of them, in words; empty without one."""
    if log.first_bad is None:
        return ""
    text = log.first_bad.describe()
    return f"{log.bad} of {log.count} probes failed: {text}" if log.count > 1 else text
