"""What a step brings home."""

import enum
from collections.abc import Mapping, Sequence

import attrs

from cutover.contract.findings import Finding


class StepStatus(enum.Enum):
    """How a step, or one check of it, ended."""

    PASS = "pass"  # noqa: S105  a status
    FAIL = "fail"
    """The evidence says no."""
    ERROR = "error"
    """No evidence could be had."""
    SKIP = "skip"
    """It did not run."""

    @property
    def failed(self) -> bool:
        """Whether it counts as a failure."""
        return self in {StepStatus.FAIL, StepStatus.ERROR}


@attrs.frozen(kw_only=True)
class Check:
    """One named row of a step's evidence."""

    check_id: str
    status: StepStatus
    detail: str = ""
    kind: str | None = None
    """What sort of observation it is, such as ``route_evaluate``."""
    endpoint: str | None = None
    http_status: int | None = None
    headers_path: str | None = None
    """Where the head that came back was kept, relative to the run directory."""
    body_path: str | None = None
    findings: tuple[Finding, ...] = ()
    tolerable: bool = True
    """Whether a MAX_* figure may excuse it; False for a change, a rollback or an undo that was not proven."""
    recorded_at: str = ""


@attrs.frozen(kw_only=True)
class SentinelTally:
    """What the sentinel streams around one change saw."""

    change: str
    """Which change: ``traffic-25``, ``rollback``, ``route-flip`` ..."""
    streams: int
    """How many were kept going: before it, in flight across it, and paced after it."""
    broken: int
    """How many of them broke, stalled, repeated or were never answered."""
    revisions: tuple[tuple[str, int], ...] = ()
    """Which revision answered how many, where a header tells."""
    details: tuple[str, ...] = ()
    """Why those that broke did, the first few."""

    @property
    def break_rate_bound(self) -> float | None:
        """Upper bound of the break rate, at 95 % confidence, when none broke: the rule of three; None otherwise."""
        return min(1.0, 3 / self.streams) if self.streams and not self.broken else None


@attrs.frozen(kw_only=True)
class StepResult:
    """What became of one step of the train."""

    step_id: str
    status: StepStatus
    detail: str = ""
    checks: tuple[Check, ...] = ()
    sentinels: tuple[SentinelTally, ...] = ()
    facts: Mapping[str, object] = attrs.field(factory=dict)
    """The step's own figures, ready for JSON."""
    by_configuration: bool = False
    """Whether a skip was asked for, which is neutral; a skip because something before failed is not."""
    artifact: str | None = None
    """Where the step's summary is, relative to the run directory."""
    recorded_at: str = ""

    @property
    def failure_count(self) -> int:
        """Failed checks; at least one where the step failed."""
        failed = sum(check.status.failed for check in self.checks)
        return max(failed, 1) if self.status.failed else failed

    @property
    def intolerable(self) -> bool:
        """Whether something failed that no MAX_* figure excuses."""
        return any(check.status.failed and not check.tolerable for check in self.checks)


def combined_status(checks: Sequence[Check]) -> StepStatus:
    """Return a step's status from its checks: a missing piece of evidence weighs less than evidence that says no."""
    statuses = {check.status for check in checks}
    for status in (StepStatus.FAIL, StepStatus.ERROR, StepStatus.PASS):
        if status in statuses:
            return status
    return StepStatus.ERROR
