"""The first lines of the page: the verdict, what broke, and what to do."""

from collections.abc import Sequence
from pathlib import Path

import attrs

from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    CANCELLATIONS,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    UndoStarted,
    changes,
)
from cutover.model.undo_plan import UndoPlan
from cutover.model.undo_policy import REASONS
from cutover.report.page.production_state import last_seen_traffic
from cutover.report.page.spans import streams_of
from cutover.report.page.to_do import Do, ToDo, next_steps, to_do, was_moved_by_others
from cutover.report.page.what_broke import MOST_BROKEN, Broken, what_broke

_UNPROVEN = 4
"""The exit code of a run whose undo could not be proven."""


@attrs.frozen(kw_only=True)
class Story:
    """The first lines of the page."""

    tone: str
    """``good``, ``bad``, ``act`` (an operator must act) or ``none`` (nothing was judged)."""
    verdict: str
    headline: str
    broke: tuple[Broken, ...]
    """The changes with the streams that broke in them, and the failed checks that are not about streams."""
    more_broken: int
    """Number of further ones, which are left out here."""
    streams_broke: bool
    """True if a recorded stream broke."""
    undone: str
    """The result of the undo; empty without one."""
    undo_detail: str
    """The whole text of the undo about its result."""
    to_do: ToDo
    next: tuple[Do, ...]
    """The next steps where nothing must be done now; empty for a run that passed."""


def tell(
    events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan, folder: Path | str | None
) -> Story:
    """Return the first lines of the page."""
    finished = any(isinstance(event, TrainFinished) for event in events)
    broke = what_broke(events, summary)
    undo = summary.undo
    undone = "" if undo is None else "The undo is proven" if undo.proven else "The undo is NOT proven"
    tone, verdict, headline = _verdict(events, summary, plan, finished=finished)
    if broke and tone not in {"good", "none"}:
        headline = f"{broke[0].what}. {headline}"
    return Story(
        tone=tone,
        verdict=verdict,
        headline=headline,
        broke=broke[:MOST_BROKEN],
        more_broken=max(0, len(broke) - MOST_BROKEN),
        streams_broke=any(not stream.ok for stream in streams_of(events)),
        undone=undone,
        undo_detail=undo.detail if undo is not None else "",
        to_do=(must := to_do(events, summary, plan, folder, finished=finished)),
        next=() if must.steps or summary.passed or not finished else next_steps(events, summary),
    )


def _verdict(
    events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan, *, finished: bool
) -> tuple[str, str, str]:
    """Return the tone, the verdict in a few words, and one sentence."""
    if not finished:
        return "act" if plan else "bad", "CUT OFF", _where_it_ends(events, summary, plan)
    if summary.passed:
        return "good", "GO", "Every gate holds."
    if summary.exit_code == _UNPROVEN:
        must = "In a live run an operator" if summary.facts.get("dry_run") else "An operator"
        sentence = (
            f"A change of this run could not be proven undone. {_serving(events, plan)}{must} must act."
        )
        return "act", "NO GO, AND NOT UNDONE", sentence
    if summary.interrupted:
        return "bad", "INTERRUPTED", f"{_how_it_stopped(summary)}, and it left nothing open."
    if summary.judged_nothing:
        sentence = (
            "This run proves nothing, for or against the canary, and production is as the run found it."
        )
        return "none", "NOT JUDGED", sentence
    return _not_passed(events, summary)


def _not_passed(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[str, str, str]:
    """Return the same for a run without a GO that left nothing open: an operator has closed it, or a gate does not hold."""
    closed = summary.closed_by_recovery
    if not closed:
        return "bad", "NO GO", _why_not(events, summary)
    accepted = closed == REASONS["accept-found"]
    ended = "Production stays as it was found." if accepted else _how_it_came_back(events)
    return "none", closed.upper(), f"An operator closed this run with cutover recover. {ended}"


def _where_it_ends(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> str:
    where = f" in {' and '.join(summary.cut_off)}" if summary.cut_off else ""
    undoing = " while it undid its changes" if any(isinstance(event, UndoStarted) for event in events) else ""
    last = events[-1].at[11:19] if events else ""
    left = f"A change is still open. {_serving(events, plan)}" if plan else "No change is open."
    ends = f"The journal ends at {last} UTC{where}{undoing}, without a verdict"
    return f"{ends}: the run was killed, or it still runs. {left}".rstrip()


def _serving(events: Sequence[TrainEvent], plan: UndoPlan) -> str:
    """Return who serves the users, as far as the run knows, for each part that is open; each sentence ends with a space."""
    parts = []
    if plan.traffic is not None:
        seen = last_seen_traffic(events)
        parts.append(
            "Nobody read the traffic after the write. "
            if seen is None
            else f"At {seen[1]} UTC the users were on: {seen[0]}. "
        )
    if plan.routes is not None:
        parts.append("Overrides of the routes may still be set. ")
    return "".join(parts)


def _how_it_stopped(summary: CutoverSummary) -> str:
    how = {1: "by a fault in cutover itself", 130: "by Ctrl-C (SIGINT)", 143: "by SIGTERM or SIGHUP"}
    cause = "" if summary.interrupted in CANCELLATIONS else f" ({summary.interrupted})"
    return f"The run was stopped {how.get(summary.exit_code, 'from outside')}{cause}"


def _why_not(events: Sequence[TrainEvent], summary: CutoverSummary) -> str:
    failed = [gate.name for gate in summary.gates if gate.refuses]
    if not failed:
        why = "; ".join(summary.reasons) or "The run did not pass"
    elif len(failed) == 1:
        why = f"Gate {failed[0]} does not hold"
    else:
        why = f"Gates {', '.join(failed[:-1])} and {failed[-1]} do not hold"
    return f"{why}. {_how_it_came_back(events)}"


def _how_it_came_back(events: Sequence[TrainEvent]) -> str:
    """Return who took the changes of a run back, in one sentence."""
    if not changes(events):
        return "Nothing was changed."
    asked = [event for event in changes(events) if isinstance(event, TrafficIntended)]
    if was_moved_by_others(events) and (seen := last_seen_traffic(events)) is not None:
        # The undo of a part that is as captured writes nothing.
        words, at = seen
        between = f"between {asked[-1].at[11:19]} and {at} UTC"
        return f"This run wrote no way back: somebody else moved the traffic, {between}; it is as before the run: {words}."
    return "Every change was taken back, and that is proven."
