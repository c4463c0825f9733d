"""The notice that train events lead to: one value, whose text every service gets."""

import enum
from collections.abc import Sequence

import attrs

from cutover.model.holds import place
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import TrainEvent, TrainFinished, TrainStarted, UndoFinished, Waiting
from cutover.text import printable, recover_command

UNRESOLVED_CODE = 4
"""The exit code of a run that leaves something open."""
_LONGEST_LINE = 500
"""Characters of the longest line."""
_MOST_LINES = 20


class NoticeKind(enum.Enum):
    """The reason for a notice. The value is its name for machines."""

    STARTED = "started"
    WAITING = "waiting"
    """The train waits for an operator's decision."""
    UNDONE = "undone"
    """The train has undone its changes, and that is proven."""
    PASSED = "passed"
    FAILED = "failed"
    """The train did not pass. It leaves nothing open."""
    UNRESOLVED = "unresolved"
    """An undo could not be proven: an operator must act."""
    RECOVERED = "recovered"
    """A recovery has closed the run."""


_TITLES = {
    NoticeKind.STARTED: "started",
    NoticeKind.WAITING: "WAITING for a decision",
    NoticeKind.UNDONE: "undone: all changes of the train were undone, and that is proven",
    NoticeKind.PASSED: "GO: passed",
    NoticeKind.FAILED: "NO GO: not passed; nothing is left to undo",
    NoticeKind.UNRESOLVED: "UNRESOLVED: production may still hold changes of the train; an operator must act now",
    NoticeKind.RECOVERED: "recovered: the run is closed, and nothing is left to undo",
}


@attrs.frozen(kw_only=True)
class Notice:
    """One notice. Its texts hold no control characters."""

    kind: NoticeKind
    number: int
    """The number of the train event that led to the notice, from 1 on. With ``train`` it names the notice."""
    at: str
    """Time of the event: UTC, ISO 8601."""
    train: str
    """The id of the train."""
    rehearsal: bool
    project: str
    region: str
    service: str
    base_url: str
    stable_revision: str
    canary_revision: str
    exit_code: int | None = None
    """The exit code in the verdict; None before the verdict."""
    lines: tuple[str, ...] = ()
    """The reasons, the state of production and the things to do."""
    run_directory: str = ""
    link: str = ""
    """The URL of the CI job that runs the train; empty if that is not known."""

    @property
    def title(self) -> str:
        """One line: the service, and the news."""
        mark = "[rehearsal] " if self.rehearsal else ""
        return f"{mark}cutover of {self.service} ({self.canary_revision}): {_TITLES[self.kind]}"

    @property
    def text(self) -> str:
        """The whole notice for people, in lines."""
        where = f"project {self.project}, region {self.region}, {self.base_url}"
        about = [f"train {self.train}; stable {self.stable_revision}; {where}"]
        about += [f"run directory: {self.run_directory}"] if self.run_directory else []
        about += [f"job: {self.link}"] if self.link else []
        return "\n".join((self.title, *self.lines, *about))


def notice_of(
    events: Sequence[TrainEvent], *, recovering: bool = False, run_directory: str = "", link: str = ""
) -> Notice | None:
    """Return the notice that the last of these events leads to; None if it leads to none.

    Args:
        events: The events of the run so far.
        recovering: True if a recovery has recorded the last event.
        run_directory: The run directory, for the command that recovers the run.
        link: The URL of the CI job that runs the train.
    """
    kind = _kind_of(events[-1], recovering=recovering)
    started = next((event for event in events if isinstance(event, TrainStarted)), None)
    if kind is None or started is None:
        return None
    facts = {name: printable(str(value)) for name, value in started.facts.items()}
    last = events[-1]
    return Notice(
        kind=kind,
        number=len(events),
        at=last.at,
        train=printable(started.run_id),
        rehearsal=bool(started.facts.get("dry_run")),
        exit_code=last.exit_code if isinstance(last, TrainFinished) else None,
        lines=_bounded(_lines(kind, events, run_directory)),
        run_directory=printable(run_directory, _LONGEST_LINE),
        link=printable(link, _LONGEST_LINE),
        **{
            name: facts.get(name, "")
            for name in (
                "project",
                "region",
                "service",
                "base_url",
                "stable_revision",
                "canary_revision",
            )
        },
    )


def _kind_of(event: TrainEvent, *, recovering: bool) -> NoticeKind | None:  # noqa: PLR0911  one line for each kind
    """Return the kind of notice for one event; None for an event without a notice. A new kind of event needs one case here."""
    match event:
        case TrainStarted():
            return NoticeKind.STARTED
        case Waiting():
            return NoticeKind.WAITING
        case UndoFinished() if event.proven and not recovering:
            return NoticeKind.UNDONE
        case TrainFinished() if event.exit_code == UNRESOLVED_CODE:
            return NoticeKind.UNRESOLVED
        case TrainFinished() if recovering:
            return NoticeKind.RECOVERED
        case TrainFinished():
            return NoticeKind.PASSED if event.passed else NoticeKind.FAILED
        case _:
            return None


def _lines(kind: NoticeKind, events: Sequence[TrainEvent], run_directory: str) -> list[str]:
    """Return the lines of a notice below its title."""
    if kind is NoticeKind.STARTED:
        return []
    if isinstance(last := events[-1], Waiting):
        decide = [f"DO: {last.decide}"] if last.decide else []
        until = f"at {last.until} the train stops waiting, and undoes its changes"
        return [f"it waits {place(last.hold)}, with this state: {last.state}", until, *decide]
    summary = fold(events)
    undo = [] if summary.undo is None else [f"undo: {summary.undo.detail}"]
    match kind:
        case NoticeKind.UNDONE | NoticeKind.RECOVERED:
            return undo
        case NoticeKind.UNRESOLVED:
            return [*_why(summary), *undo, *_to_do(summary, run_directory)]
        case _:
            return _why(summary)


def _why(summary: CutoverSummary) -> list[str]:
    """Return the exit code, and the reasons why a run did not pass."""
    return [
        f"exit code {summary.exit_code}",
        *(f"reason: {reason}" for reason in summary.reasons),
        *(f"cause: {cause}" for cause in summary.causes),
    ]


def _to_do(summary: CutoverSummary, run_directory: str) -> list[str]:
    """Return the things that an operator must do for a run that leaves something open."""
    to_do = list(summary.undo.to_do) if summary.undo is not None else []
    if run_directory and not any("cutover recover" in line for line in to_do):
        to_do.append(f"to close the run: {recover_command(run_directory)}")
    return [f"DO: {line}" for line in to_do]


def _bounded(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the lines safe to print and cut to their bounds; a last line says how many were left out."""
    shown = [printable(line, _LONGEST_LINE) for line in lines[:_MOST_LINES]]
    left_out = len(lines) - len(shown)
    return (*shown, *([f"{left_out} more lines are in SUMMARY.md"] if left_out else []))
