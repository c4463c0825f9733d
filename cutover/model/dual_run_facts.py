"""The facts of a dual run, as its artifact holds them: the thresholds, the totals, the latencies, and a row for each request."""

from collections.abc import Sequence

import attrs

from cutover.model.asking import TIMED_ANSWERS
from cutover.model.comparison import Answer, Verdict
from cutover.model.latency_interval import LatencyIntervals, intervals, percentile
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.results import StepStatus

_SHOWN = 20
"""Differences, and places that were left out, in the row of one request. The evidence file of the request has more."""


@attrs.frozen(kw_only=True)
class Compared:
    """One request of the manifest, with the answers of both services in order, and the result."""

    entry: ManifestEntry
    new: tuple[Answer, ...]
    old: tuple[Answer, ...]
    asks: int
    """The number of times that the request went to both services."""
    verdict: Verdict

    @property
    def timed(self) -> tuple[tuple[float, float], ...]:
        """The seconds of both services, side by side, where both answered."""
        pairs = ((one.seconds, other.seconds) for one, other in zip(self.new, self.old, strict=True))
        return tuple((new, old) for new, old in pairs if new is not None and old is not None)

    def row(self) -> dict[str, object]:
        """Return the row of this request. Status and milliseconds are those of the first answers."""
        new, old = self.new[0], self.old[0]
        return {
            "id": self.entry.id,
            "method": self.entry.method,
            "path": self.entry.path,
            "response_kind": self.entry.response_kind.value,
            "critical": self.entry.critical,
            "match": not self.verdict.why,
            "detail": self.verdict.describe(),
            "rust_status": new.status,
            "legacy_status": old.status,
            "rust_ms": _milliseconds(new.seconds),
            "legacy_ms": _milliseconds(old.seconds),
            "asks": self.asks,
            "answers": len(self.new),
            "differences": [
                {"place": each.place, "text": each.text, "new": each.new, "old": each.old}
                for each in self.verdict.differences[:_SHOWN]
            ],
            "left_out": [attrs.asdict(each) for each in self.verdict.left_out[:_SHOWN]],
        }

    def evidence(self) -> dict[str, object]:
        """Return the content of the evidence file of this request: each difference with its diff, and each place that was left out."""
        return {
            **self.row(),
            "differences": [attrs.asdict(each) for each in self.verdict.differences],
            "left_out": [attrs.asdict(each) for each in self.verdict.left_out],
        }


@attrs.frozen(kw_only=True)
class Latency:
    """The latencies of both services, in milliseconds, over all requests."""

    new_p50: float | None
    new_p95: float | None
    old_p50: float | None
    old_p95: float | None
    answers: int
    """Number of answers of each service that stand side by side with one of the other."""
    intervals: LatencyIntervals | None

    @property
    def delta(self) -> float | None:
        """The p95 of the new service minus that of the legacy service; None without a measurement of both."""
        if self.new_p95 is None or self.old_p95 is None:
            return None
        return round(self.new_p95 - self.old_p95, 3)

    def judged(self, most: float) -> tuple[StepStatus, str]:
        """Return the status and the text of the check that the new p95 exceeds the legacy one by at most ``most`` milliseconds.

        It passes if the whole interval of the difference is within the limit, and fails if the whole interval is above it. Anything
        else, and too few answers, proves nothing.
        """
        if self.delta is None or self.intervals is None:
            return StepStatus.ERROR, "no latency was measured on both sides"
        bounds = self.intervals.p95_delta
        detail = (
            f"the new service's p95 is {self.delta:+g} ms against the legacy service's ({bounds.low:+g} to {bounds.high:+g} ms, "
            f"each bound at 95 %, from {self.answers} answers of each), {most:g} ms is allowed"
        )
        if self.answers < TIMED_ANSWERS:
            return (
                StepStatus.ERROR,
                f"inconclusive, because {TIMED_ANSWERS} answers of each service are needed: {detail}",
            )
        if bounds.high <= most:
            return StepStatus.PASS, detail
        if bounds.low > most:
            return StepStatus.FAIL, detail
        advice = "set MAX_P95_LATENCY_DELTA_MS above it, or choose requests with steadier latencies"
        return StepStatus.ERROR, f"inconclusive: {detail}; the limit lies inside the interval: {advice}"

    def document(self) -> dict[str, object]:
        """Return the section ``latency_ms`` of the facts."""
        found = self.intervals
        bounds = (
            {}
            if found is None
            else {
                "rust_p50_interval": [found.new_p50.low, found.new_p50.high],
                "rust_p95_interval": [found.new_p95.low, found.new_p95.high],
                "legacy_p50_interval": [found.old_p50.low, found.old_p50.high],
                "legacy_p95_interval": [found.old_p95.low, found.old_p95.high],
                "p95_delta_interval": [found.p95_delta.low, found.p95_delta.high],
            }
        )
        return {
            "rust_p50": self.new_p50,
            "rust_p95": self.new_p95,
            "legacy_p50": self.old_p50,
            "legacy_p95": self.old_p95,
            "p95_delta": self.delta,
            "answers": self.answers,
            **bounds,
        }


def latency_of(compared: Sequence[Compared]) -> Latency:
    """Return the latencies over all requests."""
    new = [answer.seconds for each in compared for answer in each.new if answer.seconds is not None]
    old = [answer.seconds for each in compared for answer in each.old if answer.seconds is not None]
    timed = [each.timed for each in compared]
    return Latency(
        new_p50=percentile(new, 0.5),
        new_p95=percentile(new, 0.95),
        old_p50=percentile(old, 0.5),
        old_p95=percentile(old, 0.95),
        answers=sum(map(len, timed)),
        intervals=intervals(timed),
    )


def facts_of(
    compared: Sequence[Compared],
    latency: Latency,
    *,
    skipped: int,
    max_failures: int,
    max_p95_delta_ms: float,
) -> dict[str, object]:
    """Return the facts of a dual run.

    Args:
        compared: The compared requests.
        latency: Their latencies.
        skipped: Number of entries that were not sent.
        max_failures: Number of tolerated mismatches.
        max_p95_delta_ms: Largest number of milliseconds by which the new p95 latency may exceed the legacy one; 0 means no check.
    """
    mismatched = [each.entry for each in compared if each.verdict.why]
    return {
        "thresholds": {
            "max_critical_mismatches": max_failures,
            "max_total_mismatches": max_failures,
            "max_stream_mismatches": max_failures,
            "max_p95_latency_delta_ms": max_p95_delta_ms,
        },
        "totals": {
            "request_count": len(compared),
            "skipped": skipped,
            "mismatches": len(mismatched),
            "critical_mismatches": sum(entry.critical for entry in mismatched),
            "stream_mismatches": sum(entry.response_kind is ResponseKind.SSE for entry in mismatched),
        },
        "latency_ms": latency.document(),
        "requests": [each.row() for each in compared],
    }


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
