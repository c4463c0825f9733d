"""The facts of a dual run, as its artifact holds them: the thresholds, the totals, the latencies, and a row for each request."""

from collections.abc import Mapping, Sequence

from cutover.model.comparison import Answer, Verdict, p95
from cutover.model.manifest import ManifestEntry, ResponseKind


def row_of(entry: ManifestEntry, new: Answer, old: Answer, verdict: Verdict) -> dict[str, object]:
    """Return the row of one compared request."""
    return {
        "id": entry.id,
        "method": entry.method,
        "path": entry.path,
        "response_kind": entry.response_kind.value,
        "critical": entry.critical,
        "match": not verdict.why,
        "detail": verdict.describe(),
        "rust_status": new.status,
        "legacy_status": old.status,
        "rust_ms": None if new.seconds is None else round(new.seconds * 1000, 3),
        "legacy_ms": None if old.seconds is None else round(old.seconds * 1000, 3),
    }


def facts_of(
    rows: Sequence[Mapping[str, object]],
    *,
    mismatched: Sequence[ManifestEntry],
    skipped: int,
    new_seconds: Sequence[float],
    old_seconds: Sequence[float],
    max_failures: int,
    max_p95_delta_ms: float,
) -> dict[str, object]:
    """Return the facts of a dual run.

    Args:
        rows: The rows of the compared requests.
        mismatched: The entries that do not match.
        skipped: Number of entries that were not sent.
        new_seconds: Latencies of the new service.
        old_seconds: Latencies of the legacy service.
        max_failures: Number of tolerated mismatches.
        max_p95_delta_ms: Largest number of milliseconds by which the new p95 latency may exceed the legacy one; 0 means no check.
    """
    new, old = p95(new_seconds), p95(old_seconds)
    return {
        "thresholds": {
            "max_critical_mismatches": max_failures,
            "max_total_mismatches": max_failures,
            "max_stream_mismatches": max_failures,
            "max_p95_latency_delta_ms": max_p95_delta_ms,
        },
        "totals": {
            "request_count": len(rows),
            "skipped": skipped,
            "mismatches": len(mismatched),
            "critical_mismatches": sum(entry.critical for entry in mismatched),
            "stream_mismatches": sum(entry.response_kind is ResponseKind.SSE for entry in mismatched),
        },
        "latency_ms": {
            "rust_p95": new,
            "legacy_p95": old,
            "p95_delta": None if new is None or old is None else round(new - old, 3),
        },
        "requests": list(rows),
    }
