"""The changes whose streams broke, and the failed checks, in words."""

from collections import Counter
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime

import attrs

from cutover.model import step_ids
from cutover.model.gates import SENTINELS
from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.seen_stream import SeenStream
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    RouteIntended,
    TrainEvent,
    changes,
)
from cutover.report.page.scale import seconds_of
from cutover.report.page.spans import KINDS, span_of, streams_of, writes_of_change
from cutover.text import timestamp

_PERCENT = "traffic-"
_LOOKS = ("stream-smoke", "canary-direct", step_ids.UNDO, "recover")
"""The beginnings of the names of what makes no change that could break a stream, or takes one back."""
MOST_BROKEN = 6
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


@attrs.frozen(kw_only=True)
class Broken:
    """One change with the streams that broke in it, or one failed check."""

    what: str
    details: tuple[str, ...]


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
        "undo": "The undo of the traffic",
        "recover": "The recovery of the traffic",
        "restore": "Restoring the captured split",
    }.get(change, change)


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
                    filter(
                        None,
                        (
                            _around(events, change, flipped=flipped),
                            *_first(bad, of_change, change),
                            _by_kind(events, of_change, change),
                        ),
                    )
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
    return f"{subject} {'found broken' if change.startswith(_LOOKS) else 'broke'} {count}"


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


def _by_kind(events: Sequence[TrainEvent], streams: Sequence[SeenStream], change: str) -> str:
    """Return how many streams of each kind broke, in words; empty if there is one kind."""
    written = writes_of_change(change, events)[:1]
    rows = []
    for kind, words in KINDS.items():
        of_kind = [stream for stream in streams if stream.kind == kind]
        if not of_kind:
            continue
        missed = sum(span_of(stream)[2] < at for stream in of_kind for at in written)
        # A turn may be short: a response that nobody reads ends all the same.
        note = f" ({missed} ended before the change)" if missed and kind in {"held", "response"} else ""
        rows.append(f"{words}, {sum(not stream.ok for stream in of_kind)} of {len(of_kind)}{note}")
    return f"Broken by kind: {'; '.join(rows)}." if len(rows) > 1 else ""


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
    """Return a stream in words: its alias, its kind, the place, who answered, and the thread of one that broke."""
    place = f"at {stream.place}" if stream.place else "at the front door"
    who = f"answered by {stream.revision}" if stream.revision else "nothing names who answered"
    thread = f", thread {stream.thread}" if stream.thread else ""
    return f"{stream.alias}, a {KINDS.get(stream.kind, stream.kind)} {place}, {who}{thread}"
