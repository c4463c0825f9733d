"""The lines that an operator reads while a train runs, and the last lines of a run.

Output is best effort: a closed terminal must not stop an undo, so a closed stream raises no error here.
"""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TextIO

import attrs

from cutover.model.gates import NOT_EVALUATED
from cutover.model.holds import place
from cutover.model.results import StepStatus
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import describe_shares, shares
from cutover.model.train_events import (
    CheckRecorded,
    Decided,
    DecisionTaken,
    Interrupted,
    RouteIntended,
    StepFinished,
    StepStarted,
    TakenOver,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    Waiting,
)
from cutover.model.undo_plan import UndoPlan
from cutover.model.undo_policy import UNRESOLVED, closed_by_recovery
from cutover.report.page.file_name import FILE
from cutover.text import printable

_MARKS = {StepStatus.PASS: "ok", StepStatus.FAIL: "FAIL", StepStatus.ERROR: "ERROR", StepStatus.SKIP: "skip"}


class View(Protocol):
    """A picture that redraws itself on the terminal."""

    def say(self, line: str) -> None:
        """Show one more line, and keep it in the picture."""

    def close(self) -> None:
        """Draw the picture a last time."""


@attrs.define(eq=False)
class Terminal:
    """A writer of single lines to one text stream; escapes control characters, ignores a closed stream."""

    stream: TextIO = attrs.field(factory=lambda: sys.stderr)
    """The stream to write to; standard error by default."""
    view: View | None = attrs.field(default=None, kw_only=True)
    """The view that is open on the same terminal. It gets the lines, because it draws over any other line."""
    _traffic_lines: set[str] = attrs.field(factory=set, init=False)
    """The lines about the traffic since the last other line. A write that is refused again and again says the same again."""

    def line(self, text: str = "") -> None:
        """Write one line of at most 2000 characters; control characters are shown escaped."""
        if self.view is not None:
            self.view.say(text)
            return
        shown = printable(text, 2000)
        encoding = getattr(self.stream, "encoding", None) or "utf-8"
        with suppress(OSError, ValueError):
            self.stream.write(shown.encode(encoding, "backslashreplace").decode(encoding) + "\n")
            self.stream.flush()

    def command(self, text: str) -> None:
        """Write a line of any length that a CI server reads as a command; it is safe to print already."""
        with suppress(OSError, ValueError):
            self.stream.write(text.encode("ascii", "backslashreplace").decode() + "\n")
            self.stream.flush()

    def close_view(self) -> None:
        """Close the view, if one is open. Later lines are written below it."""
        if self.view is not None:
            self.view.close()
            self.view = None

    def observe(self, event: TrainEvent) -> None:
        """Write the line of one train event, with its time of day in UTC; events without a line are skipped."""
        line = line_of(event)
        if not line:
            return
        if not isinstance(event, TrafficIntended | TrafficRead):
            self._traffic_lines.clear()
        elif line in self._traffic_lines:
            return
        else:
            self._traffic_lines.add(line)
        self.line(f"{event.at[11:19]} {line}")
        if isinstance(event, Waiting) and event.decide:
            self.line(f"  DO      {event.decide}")
            self.line("          (with stop in place of go, the train undoes its changes)")


def line_of(event: TrainEvent) -> str:  # noqa: C901, PLR0911, PLR0912  one line for each type of event
    """Return the progress line of one train event; empty if the event has none."""
    match event:
        case TrainStarted():
            return f"train {event.run_id}: {'rehearsal' if event.facts.get('dry_run') else 'LIVE'}"
        case StepStarted():
            return f"{event.step_id} ..."
        case CheckRecorded() if event.check.status.failed:
            return f"{event.step_id}   {event.check.check_id}: {_MARKS[event.check.status]}  {event.check.detail}"
        case CheckRecorded() if event.check.warns:
            return f"{event.step_id}   {event.check.check_id}: warn  {event.check.detail}"
        case TrafficIntended():
            return f"{event.step_id}   asking for {describe_shares(shares(event.wanted, latest=None))}"
        case TrafficRead():
            return f"traffic   {describe_shares(event.found.served())}{'' if event.proven else '  (NOT as asked)'}"
        case Waiting():
            return f"{event.step_id}   WAITING {place(event.hold)} until {event.until[11:19]} for a decision: {event.state}"
        case DecisionTaken():
            return f"{event.step_id}   {event.answer}, decided by {event.by}: {event.because}"
        case RouteIntended() if event.times == 1:
            return f"{event.step_id}   setting {event.key} to {event.wanted or 'clear'}"
        case StepFinished():
            return f"{event.result.step_id} {_MARKS[event.result.status]}  {event.result.detail}"
        case TakenOver():
            return f"taken over in STATE_URL from {event.before}" if event.before else ""
        case Interrupted():
            return event.why
        case UndoStarted():
            return f"undo ...  {event.reason}"
        case Decided():
            return f"{event.part}   {event.action}: {event.why} (found: {event.found})"
        case UndoFinished():
            return f"undo {'ok' if event.proven else 'NOT PROVEN'}  {event.detail}"
        case TrainFinished():
            return _verdict(event)
        case _:
            return ""


def _verdict(event: TrainFinished) -> str:
    """Return the verdict of a train; of a recovery, whose verdict judges no service, the way in which it ended."""
    if UNRESOLVED in event.reasons:
        return f"not closed: {UNRESOLVED}"
    if closed := closed_by_recovery(event.reasons, proven=True):
        return f"closed: {closed}"
    return f"verdict: {'GO' if event.passed else 'NO GO'}"


def describe_undo(plan: UndoPlan) -> str:
    """Return what an undo restores, in words; empty if there is nothing to undo."""
    parts = []
    if plan.traffic is not None:
        restored = shares(plan.traffic.targets, latest=plan.traffic.captured.latest_ready)
        parts.append(f"traffic back to {describe_shares(restored)}")
    if plan.routes is not None:
        for captured in dict.fromkeys(value for _, value in plan.routes.values):
            keys = ", ".join(key for key, value in plan.routes.values if value == captured)
            parts.append(f"overrides back to {captured or 'clear'}: {keys}")
    return "; ".join(parts)


def conclusion(summary: CutoverSummary, *, evidence: str | None) -> list[str]:
    """Return the last lines of a run: verdict, gates, reasons, evidence, undo, and the tasks of an operator.

    Args:
        summary: The summary of the run.
        evidence: The path of the evidence to name; None if nothing was written.
    """
    kind = "rehearsal" if summary.facts.get("dry_run") else "live run"
    lines = [f"verdict   {summary.overall_status} ({kind}), exit {summary.exit_code}"]
    if summary.judged_nothing:
        lines.append("state     this run proves nothing, and production is as it was found")
    if summary.blind_drill:
        lines.append(
            "BLIND     nothing showed whether the canary answered a stream, and ACCEPT_BLIND_DRILL=1 accepted that"
        )
    if summary.claims:
        check, claim = summary.claims[-1]
        lines.append(f"canary    {check}: {claim}")
    if summary.user_claims:
        check, claim = summary.user_claims[-1]
        lines.append(f"users     {check}: {claim}")
    lines.append("gates")
    for gate in summary.gates:
        state = "not part of this run" if not gate.configured else "holds" if gate.holds else "DOES NOT HOLD"
        counts = gate.counts if gate.evaluated or gate.refuses or not gate.configured else NOT_EVALUATED
        lines.append(f"  {gate.name:15} {state} ({counts})")
    lines += [f"reason    {reason}" for reason in summary.reasons]
    lines += [f"cause     {cause}" for cause in summary.causes]
    if evidence:
        lines.append(f"evidence  {evidence}")
        lines.append(f"report    {Path(evidence).with_name(FILE)}")
    if summary.undo is not None:
        lines.append(f"undo      {'proven' if summary.undo.proven else 'NOT PROVEN'}: {summary.undo.detail}")
        lines += [f"  DO      {line}" for line in summary.undo.to_do]
    return lines
