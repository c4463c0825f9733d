"""The comparison of two services: each request with its differences, and with the places that were left out."""

from collections.abc import Mapping

import attrs

from cutover.model import step_ids
from cutover.model.results import StepStatus
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


@attrs.frozen(kw_only=True)
class Compared:
    """One request that was sent to both services, or one check of the comparison as a whole."""

    name: str
    endpoint: str
    status: str
    result: str
    detail: str
    differences: tuple[str, ...]
    """The differences, each with its place; empty if the detail says all."""
    more: int
    """Number of further differences."""
    left_out: tuple[str, ...]
    """The places that were not compared, each with the reason."""


def compared(summary: CutoverSummary) -> tuple[Compared, ...]:
    """Return the requests of the dual run; those that differ first. Empty if it did not run."""
    step = summary.step(step_ids.DUAL_RUN)
    if step is None:
        return ()
    rows = step.facts.get("requests")
    noted = (
        {row.get("id"): row for row in rows if isinstance(row, Mapping)}
        if isinstance(rows, list | tuple)
        else {}
    )
    found = []
    for check in sorted(step.checks, key=lambda check: not check.status.failed):
        row = noted.get(check.check_id, {})
        differences = _texts(row.get("differences"), "text")
        places = _texts(row.get("left_out"), "place")
        reasons = _texts(row.get("left_out"), "reason")
        found.append(
            Compared(
                name=check.check_id,
                endpoint=check.endpoint or "",
                status=check.status.value,
                result=_WORDS[check.status] if check.endpoint else check.status.value,
                # The places that were not compared have a line of their own, with the reasons.
                detail=check.detail.partition("; not compared: ")[0] if places else check.detail,
                differences=differences[:_MOST_DIFFERENCES],
                more=max(0, len(differences) - _MOST_DIFFERENCES),
                left_out=tuple(f"{place}: {reason}" for place, reason in zip(places, reasons, strict=False))[
                    :_MOST_DIFFERENCES
                ],
            )
        )
    return tuple(found)


def _texts(rows: object, key: str) -> tuple[str, ...]:
    """Return one text of each row of a list in the facts of the step."""
    if not isinstance(rows, list | tuple):
        return ()
    return tuple(str(row.get(key, "")) for row in rows if isinstance(row, Mapping))
