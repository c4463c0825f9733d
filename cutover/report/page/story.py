"""The first lines of the page: the verdict, which change broke which stream, and what to do."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from pathlib import Path

import attrs

from cutover.model import step_ids
from cutover.model.gates import SENTINELS
from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.seen_stream import SeenStream
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    RouteIntended,
    StreamsSeen,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    UndoStarted,
    changes,
)
from cutover.model.undo_plan import UndoPlan
from cutover.report.page.production_state import last_seen_traffic
from cutover.report.page.scale import seconds_of
from cutover.report.page.to_do import Do, ToDo, next_steps, to_do, was_moved_by_others
from cutover.text import timestamp

_PERCENT = "traffic-"
_MOST_BROKEN = 6
_MOST_DETAILS = 5
_UNPROVEN_UNDO = " could not be proven undone: "
_ENDED_BY_A_STREAM = "was ended early, because a sentinel stream broke"
_AROUND_THE_FLIP = {
    step_ids.SMOKE_PRE: "before any change",
    step_ids.FLIP: "across the flip",
    step_ids.SMOKE_POST: "after it",
    step_ids.SMOKE_UNDONE: "after the undo",
}
"""The streams that tell what the flip did, in their order."""
_UNPROVEN = 4
"""The exit code of a run whose undo could not be proven."""


@attrs.frozen(kw_only=True)
class Broken:
    """One change with the streams that broke in it, or one failed check."""

    what: str
    details: tuple[str, ...]


@attrs.frozen(kw_only=True)
class Story:
    """The first lines of the page."""

    tone: str
    """``good``, ``bad``, ``act`` (an operator must act) or ``none`` (nothing was judged)."""
    verdict: str
    headline: str
    broke: tuple["Broken", ...]
    """The changes with the streams that broke in them, and the failed checks that are not about streams."""
    more_broken: int
    """Number of further ones, which are left out here."""
    streams_broke: bool
    """True if a recorded stream broke."""
    undone: str
    """The result of the undo; empty without one."""
    undo_detail: str
    """What the undo says about itself, at length."""
    to_do: ToDo
    next: tuple[Do, ...]
    """What comes next where nothing must be done now; empty for a run that passed."""


def streams_of(events: Iterable[TrainEvent]) -> list[SeenStream]:
    """Return the recorded streams, in the order of their ends."""
    return [stream for event in events if isinstance(event, StreamsSeen) for stream in event.streams]


def change_in_words(change: str, *, canary: str, flipped: bool) -> str:
    """Return a change, or the part of a step that is none, as the subject of a sentence."""
    percent = change.removeprefix(_PERCENT)
    if percent != change and percent.isdecimal():
        return f"Giving {canary} {percent} % of the traffic"
    return {
        step_ids.FLIP: "The route flip",
        step_ids.SMOKE_PRE: "The smoke before any change",
        step_ids.PROMOTION: f"Promoting {canary} to all of the traffic",
        step_ids.SMOKE_POST: "The smoke after the route flip" if flipped else "The smoke after the drill",
        step_ids.SMOKE_UNDONE: "The smoke after the undo",
        "canary-direct": f"The look at {canary} at its own URL, before it had any traffic,",
        "rollback": "The rollback to stable",
        "restore": "Restoring the captured split",
    }.get(change, change)


def tell(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan, folder: Path | None) -> Story:
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
        broke=broke[:_MOST_BROKEN],
        more_broken=max(0, len(broke) - _MOST_BROKEN),
        streams_broke=any(not stream.ok for stream in streams_of(events)),
        undone=undone,
        undo_detail=undo.detail if undo is not None else "",
        to_do=(must := to_do(events, summary, plan, folder, finished=finished)),
        next=() if must.steps or summary.passed or not finished else next_steps(events, summary),
    )


def what_broke(events: Sequence[TrainEvent], summary: CutoverSummary) -> tuple[Broken, ...]:
    """Return which change broke which stream, in order, then the failed checks that no broken stream explains."""
    canary = str(summary.facts.get("canary_revision", "the canary"))
    flipped = any(isinstance(event, RouteIntended) for event in changes(events))
    streams = streams_of(events)
    found: list[Broken] = []
    for change in dict.fromkeys(stream.change for stream in streams if not stream.ok):
        of_change = [stream for stream in streams if stream.change == change]
        bad = [stream for stream in of_change if not stream.ok]
        found.append(
            Broken(
                what=_what(change, len(bad), len(of_change), canary=canary, flipped=flipped),
                details=tuple(
                    filter(None, (_around(events, change, flipped=flipped), *_first(bad, of_change, change)))
                ),
            )
        )
    explained = {stream.change for stream in streams if not stream.ok}
    return (*found, *_failed_checks(summary, explained))


def _what(change: str, bad: int, of_change: int, *, canary: str, flipped: bool) -> str:
    """Return a change and how many of its streams broke, in words."""
    noun = "recorded stream" if of_change == 1 else "recorded streams"
    count = f"{bad} of {of_change} {noun}"
    if change == step_ids.SMOKE_POST and flipped:
        return f"After the route flip, {count} of the smoke broke"
    subject = change_in_words(change, canary=canary, flipped=flipped)
    return f"{subject} {'found broken' if change.startswith(('stream-smoke', 'canary-direct')) else 'broke'} {count}"


def _first(bad: Sequence[SeenStream], of_change: Sequence[SeenStream], change: str) -> Iterator[str]:
    """Give the first break of a change, and who answered; another stream may have broken as its consequence."""
    first = bad[0]
    ended = seconds_of(first.began)
    at = (
        ""
        if ended is None
        else f" It ended at {timestamp(datetime.fromtimestamp(ended + (first.held + first.ended) / 1000, UTC))[11:23]} UTC."
    )
    yield f"First: {describe_stream(first)}. {_once(first.reason).rstrip('.')}.{at}"
    if change not in _AROUND_THE_FLIP:
        yield _by_revision(of_change)


def _around(events: Sequence[TrainEvent], change: str, *, flipped: bool) -> str:
    """Return how many streams were whole before, across and after the route flip, for what broke at it; else an empty text.

    The revision that answered is the same all the time: the flip is what changed.
    """
    if not flipped or change not in _AROUND_THE_FLIP:
        return ""
    streams = streams_of(events)
    counts = []
    for name, words in _AROUND_THE_FLIP.items():
        seen = [stream.ok for stream in streams if stream.change == name]
        if seen:
            counts.append(f"{words} {sum(seen)} of {len(seen)}")
    targets = dict.fromkeys(
        event.wanted
        for event in changes(events)
        if isinstance(event, RouteIntended) and event.step_id == step_ids.FLIP and event.wanted
    )
    to = f" The flip sent the routes to {', '.join(targets)}." if targets else ""
    return f"Whole streams: {', '.join(counts)}.{to}"


def _once(text: str) -> str:
    """Return a reason in which no part is said twice."""
    said: list[str] = []
    for part in text.split("; "):
        if not any(earlier.endswith(part) for earlier in said):
            said.append(part)
    return "; ".join(said)


def _failed_checks(summary: CutoverSummary, explained: AbstractSet[str]) -> Iterator[Broken]:
    """Give one entry for each step with failed checks that no broken stream of these changes explains."""
    for step in summary.steps:
        failed = [
            check
            for check in step.checks
            if check.status.failed and not any(_explains(change, step.step_id, check) for change in explained)
        ]
        if not failed:
            continue
        yield Broken(what=_what_failed(step, failed), details=_details(step, failed))


def _what_failed(step: StepResult, failed: Sequence[Check]) -> str:
    evidence = [check for check in failed if check.status is StepStatus.FAIL]
    if step.step_id == step_ids.DUAL_RUN and evidence:
        requests = sum(check.endpoint is not None for check in step.checks)
        return f"The comparison with the legacy service found differences in {len(evidence)} of {requests} requests"
    noun = f"{len(failed)} checks" if len(failed) > 1 else f"the check {failed[0].check_id}"
    return f"In {step.step_id}, {noun} {'failed' if evidence else 'gave no evidence'}"


def _details(step: StepResult, failed: Sequence[Check]) -> tuple[str, ...]:
    """Return a line for each failed check of a step."""
    shown = [f"{check.check_id}: {_in_short(check.detail)}" for check in failed[:_MOST_DETAILS]]
    more = len(failed) - _MOST_DETAILS
    return (
        *shown,
        *([f"and {more} more checks"] if more > 0 else []),
        *(["Every difference stands in the comparison below."] if step.step_id == step_ids.DUAL_RUN else []),
    )


def _in_short(detail: str) -> str:
    """Return a detail without what the page tells elsewhere: the reason why an undo is not proven, and the places that were not compared."""
    before, unproven, _ = detail.partition(_UNPROVEN_UNDO)
    return _once(f"{before}{unproven.rstrip(': ')}" if unproven else detail.partition("; not compared: ")[0])


def _by_revision(streams: Sequence[SeenStream]) -> str:
    """Return how many streams of each revision broke, in words."""
    counts = Counter((stream.revision or "no name", stream.ok) for stream in streams)
    names = sorted({name for name, _ in counts}, key=lambda name: -counts[name, False])
    rows = (f"{name}, {counts[name, False]} of {counts[name, False] + counts[name, True]}" for name in names)
    return f"Broken by who answered: {'; '.join(rows)}."


def _explains(change: str, step_id: str, check: Check) -> bool:
    """Return True if a check is about streams, and shows the broken ones of a change."""
    about_streams = check.body_path is not None or check.kind == SENTINELS
    names_change = change in {step_id, check.check_id} or check.check_id.startswith(f"{change}-")
    # The end of a wait is the result of the break that ended it.
    return names_change and (about_streams or check.detail.endswith(_ENDED_BY_A_STREAM))


def describe_stream(stream: SeenStream) -> str:
    """Return a stream in words: its alias, its kind, the place, and who answered."""
    kind = {
        "held": "a held request",
        "response": "a held response",
        "paced": "a sentinel after the change",
    }.get(stream.kind, "a probe")
    place = f"at {stream.place}" if stream.place else "at the front door"
    who = f"answered by {stream.revision}" if stream.revision else "nothing names who answered"
    return f"{stream.alias}, {kind} {place}, {who}"


def _verdict(
    events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan, *, finished: bool
) -> tuple[str, str, str]:
    """Return the tone, the verdict in a few words, and one sentence."""
    if not finished:
        return "act" if plan else "bad", "CUT OFF", _where_it_ends(events, summary, plan)
    if summary.passed:
        return "good", "GO", "Every gate holds."
    if summary.exit_code == _UNPROVEN:
        sentence = (
            f"A change of this run could not be proven undone. {_serving(events, plan)}An operator must act."
        )
        return "act", "NO GO, AND NOT UNDONE", sentence
    if summary.interrupted:
        return "bad", "INTERRUPTED", f"{_how_it_stopped(summary)}, and it left nothing open."
    if summary.judged_nothing:
        sentence = (
            "This run proves nothing, for or against the canary, and production is as the run found it."
        )
        return "none", "NOT JUDGED", sentence
    return "bad", "NO GO", _why_not(events, summary)


def _where_it_ends(events: Sequence[TrainEvent], summary: CutoverSummary, plan: UndoPlan) -> str:
    running = [step.step_id for step in summary.steps if step.detail == "it was interrupted"]
    where = f" in {' and '.join(running)}" if running else ""
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
    return f"The run was stopped {how.get(summary.exit_code, 'from outside')} ({summary.interrupted})"


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
