"""The permissions of a run: the finding of the preflight against the answers to the writes, where these two disagree."""

import re
from collections.abc import Iterator, Sequence

from cutover.model import step_ids
from cutover.model.results import Check
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import TRAFFIC, Answered, TrainEvent

_MISSING = re.compile(r"\bHTTP 40[13]\b")
"""The words of a refusal for a token or a permission."""
_PARTS = (("traffic", "permission-traffic"), ("overrides", "permission-routes"))


def permissions(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[str, ...]:
    """Return a sentence for each permission about which two parts of the page say different things."""
    return tuple(filter(None, (_permission(part, check_id, events, summary) for part, check_id in _PARTS)))


def _permission(part: str, check_id: str, events: Sequence[TrainEvent], summary: CutoverSummary) -> str:
    answers = [
        event
        for event in events
        if isinstance(event, Answered) and (event.key == TRAFFIC) == (part == "traffic")
    ]
    accepted = [answer.at for answer in answers if answer.outcome == "accepted"]
    refused = [
        answer.at for answer in answers if answer.outcome == "refused" and _MISSING.search(answer.detail)
    ]
    trial = _trial(check_id, summary)
    if refused:
        return " ".join(_refused(part, refused, accepted, trial))
    if accepted and trial is not None and (trial.status.failed or trial.warns):
        found = "could not try" if trial.warns else "found no proof of"
        return (
            f"The preflight {found} the permission to change the {part}. The write that production accepted at {_time(accepted[0])} "
            "proves that the run had it by then."
        )
    return ""


def _refused(
    part: str, refused: Sequence[str], accepted: Sequence[str], trial: Check | None
) -> Iterator[str]:
    """Give what speaks for the permission before a refusal, then the ways in which both can be true; nothing if nothing does."""
    before = [at for at in accepted if at < refused[0]]
    after = [at for at in accepted if at > refused[-1]]
    was_allowed = trial is not None and not trial.status.failed and not trial.warns and bool(trial.detail)
    for_it = [
        *(
            [f"the preflight tried it{_at(trial)}, by a request that changes nothing, and it was allowed"]
            if was_allowed
            else []
        ),
        *([f"production accepted a write at {_time(before[-1])}"] if before else []),
    ]
    if for_it:
        yield (
            f"Before the refusal at {_time(refused[0])} the run had the permission to change the {part}: {', and '.join(for_it)}. "
            "So the permission or the token was taken away after that, or a rule refuses just this write, which no trial can show."
        )
    if after:
        yield f"Production accepted a write again at {_time(after[0])}."


def _trial(check_id: str, summary: CutoverSummary) -> Check | None:
    preflight = summary.step(step_ids.PREFLIGHT)
    checks = preflight.checks if preflight is not None else ()
    return next((check for check in checks if check.check_id == check_id), None)


def _at(check: Check | None) -> str:
    return f" at {_time(check.recorded_at)}" if check is not None and check.recorded_at else ""


def _time(at: str) -> str:
    return f"{at[11:23]} UTC"
