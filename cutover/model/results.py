"""The results of a train: checks, tallies of sentinel streams, and step results."""

import enum
from collections.abc import Mapping, Sequence

import attrs

from cutover.contract.findings import Finding

USERS = "canary_metrics"
"""The kind of a check of the requests of real users at the canary and at stable."""


class StepStatus(enum.Enum):
    """The outcome of a step, or of one check."""

    PASS = "pass"  # noqa: S105  a status
    FAIL = "fail"
    """The evidence says no."""
    ERROR = "error"
    """There is no evidence, for or against."""
    SKIP = "skip"
    """The step or the check did not run."""

    @property
    def failed(self) -> bool:
        """True if this status counts as a failure: ``fail`` or ``error``."""
        return self in {StepStatus.FAIL, StepStatus.ERROR}


@attrs.frozen(kw_only=True)
class Check:
    """One check: a named row of a step's evidence."""

    check_id: str
    status: StepStatus
    detail: str = ""
    kind: str | None = None
    """The sort of observation, such as ``route_evaluate``."""
    endpoint: str | None = None
    http_status: int | None = None
    headers_path: str | None = None
    """File of the reply's head, relative to the run directory."""
    body_path: str | None = None
    findings: tuple[Finding, ...] = ()
    tolerable: bool = True
    """True if a limit (MAX_*) may tolerate a failure. False in the preflight, the budget and the final state, and for each change."""
    warns: bool = False
    """True if the check passes and its detail is a warning, with the thing to do. A warning fails no train."""
    recorded_at: str = ""


@attrs.frozen(kw_only=True)
class SentinelTally:
    """The counts of the sentinel streams around one change."""

    change: str
    """Name of the change: ``traffic-25``, ``rollback``, ``route-flip`` ..."""
    streams: int
    """Number of streams that came to an end: held in flight across the change, and paced after it."""
    broken: int
    """Number of streams that got no answer, broke off, stalled, or broke the contract in any way."""
    by_chance: int = 0
    """Number of the broken streams that failed on their way, as a stream now and then does without a change: they do not count."""
    revisions: tuple[tuple[str, int], ...] = ()
    """(revision, number of streams it answered), where a header names the revision."""
    details: tuple[str, ...] = ()
    """Reasons of the first few broken streams."""
    responses: int = 0
    """Number of streams that began before the change and were to be read across it."""
    in_flight: int = 0
    """Number of these streams that began before the change's first write was sent, and of which a part came, or broke, after it."""

    @property
    def counted(self) -> int:
        """The number of broken streams that MAX_BROKEN_STREAMS is held against."""
        return self.broken - self.by_chance

    @property
    def shown_broken(self) -> str:
        """The number of broken streams in words."""
        return f"{self.broken}, {self.by_chance} of them by chance" if self.by_chance else str(self.broken)

    @property
    def shown_in_flight(self) -> str:
        """The number of responses that the change met in flight, in words; empty if none was to be."""
        if not self.responses:
            return ""
        why = "" if self.in_flight else ": the turns ended before the change"
        return f"{self.in_flight} of {self.responses} responses were in flight{why}"

    def describe_broken(self, change: str) -> str:
        """Return the number of streams that broke across a change, and the reasons of the first few, in words."""
        text = f"{self.broken} of {self.streams} streams broke across {change}: {'; '.join(self.details)}"
        return f"{text} ({self.shown_in_flight})" if self.shown_in_flight else text

    @property
    def break_rate_bound(self) -> float | None:
        """Upper bound of the break rate at 95 % confidence, by the rule of three; None if a stream broke or no stream ran."""
        return min(1.0, 3 / self.streams) if self.streams and not self.broken else None


@attrs.frozen(kw_only=True)
class StepResult:
    """The result of one step of the train."""

    step_id: str
    status: StepStatus
    detail: str = ""
    checks: tuple[Check, ...] = ()
    sentinels: tuple[SentinelTally, ...] = ()
    facts: Mapping[str, object] = attrs.field(factory=dict)
    """The step's own figures, ready for JSON."""
    by_configuration: bool = False
    """True if the configuration skips the step; its gate then holds. False for a skip after an earlier failure."""
    artifact: str | None = None
    """File of the step's summary, relative to the run directory."""
    recorded_at: str = ""

    @property
    def failure_count(self) -> int:
        """Number of failed checks; at least 1 if the step failed."""
        failed = sum(check.status.failed for check in self.checks)
        return max(failed, 1) if self.status.failed else failed

    @property
    def intolerable(self) -> bool:
        """True if a check failed that no limit (MAX_*) tolerates."""
        return any(check.status.failed and not check.tolerable for check in self.checks)


def combined_status(checks: Sequence[Check]) -> StepStatus:
    """Return the status of a step from its checks. ``fail`` outweighs ``error``, and ``error`` outweighs ``pass``.

    Without checks, or if all checks were skipped, the status is ``error``.
    """
    statuses = {check.status for check in checks}
    for status in (StepStatus.FAIL, StepStatus.ERROR, StepStatus.PASS):
        if status in statuses:
            return status
    return StepStatus.ERROR
