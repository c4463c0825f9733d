"""The comparison of two services: the requests whose differences count come first, each difference with both sides."""

from collections.abc import Iterator, Mapping

import attrs

from cutover.model import step_ids
from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary

MOST_ROWS = 60
"""Largest number of requests on the page."""
_MOST_DIFFERENCES = 20
_WORDS = {
    StepStatus.PASS: "same",
    StepStatus.FAIL: "differs",
    StepStatus.ERROR: "no evidence",
    StepStatus.SKIP: "not sent",
}
_ORDER = (StepStatus.FAIL, StepStatus.ERROR, StepStatus.PASS, StepStatus.SKIP)


@attrs.frozen(kw_only=True)
class Pair:
    """One difference, with the values of both services."""

    place: str
    new: str
    old: str
    text: str
    """The difference in words, where the journal has no values."""


@attrs.frozen(kw_only=True)
class Compared:
    """One request that was sent to both services, or one check of the comparison as a whole."""

    name: str
    endpoint: str
    is_critical: bool
    status: str
    result: str
    counts: bool
    """True if it counts as a failure."""
    detail: str
    differences: tuple[Pair, ...]
    """The differences; empty if the detail says all."""
    more: int
    """Number of further differences."""
    left_out: tuple[str, ...]
    """The places that were not compared, each with the reason."""


def compared(summary: CutoverSummary) -> tuple[Compared, ...]:
    """Return the requests of the dual run; those that count first, critical ones before others. Empty if it did not run."""
    step = summary.step(step_ids.DUAL_RUN)
    if step is None:
        return ()
    rows = _rows(step.facts.get("requests"))
    noted = {str(row.get("id")): row for row in rows}
    found = [_compared(check, noted.get(check.check_id, {})) for check in step.checks]
    ranks = {status.value: rank for rank, status in enumerate(_ORDER)}
    return tuple(sorted(found, key=lambda each: (ranks[each.status], not each.is_critical)))


def _compared(check: Check, row: Mapping[str, object]) -> Compared:
    pairs = [*_statuses(row), *map(_pair, _rows(row.get("differences")))] if check.status.failed else []
    left_out = _rows(row.get("left_out"))
    return Compared(
        name=check.check_id,
        endpoint=check.endpoint or "",
        is_critical=row.get("critical") is True,
        status=check.status.value,
        result=_WORDS[check.status] if check.endpoint else check.status.value,
        counts=check.status.failed,
        # The places that were not compared have a line of their own, with the reasons.
        detail=check.detail.partition("; not compared: ")[0] if left_out else check.detail,
        differences=tuple(pairs[:_MOST_DIFFERENCES]),
        more=max(0, len(pairs) - _MOST_DIFFERENCES),
        left_out=tuple(f"{each.get('place', '')}: {each.get('reason', '')}" for each in left_out)[
            :_MOST_DIFFERENCES
        ],
    )


def _statuses(row: Mapping[str, object]) -> Iterator[Pair]:
    """Give the statuses of the first answers, if both are known and they differ."""
    new, old = row.get("rust_status"), row.get("legacy_status")
    if new is not None and old is not None and new != old:
        yield Pair(place="status", new=f"HTTP {new}", old=f"HTTP {old}", text="")


def _pair(row: Mapping[str, object]) -> Pair:
    place, text, new, old = (str(row.get(name, "")) for name in ("place", "text", "new", "old"))
    return Pair(place=place, new=new, old=old, text="" if new or old else text)


def _rows(rows: object) -> list[Mapping[str, object]]:
    """Return the objects of a list in the facts of the step."""
    return [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list | tuple) else []
