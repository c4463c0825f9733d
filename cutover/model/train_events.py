"""The train events: the only record of a run.

Progress lines, the live view, the summary, undo and recovery are all computed from them. ``record/journal.py`` keeps them on disk.

The module is longer than most, because all events stand side by side.
"""

from collections.abc import Callable, Iterable, Mapping

import attrs

from cutover.model.error_budget import BudgetReading
from cutover.model.results import Check, StepResult
from cutover.model.route_state import RouteState
from cutover.model.seen_stream import SeenStream
from cutover.model.traffic_state import TrafficState, TrafficTarget

TRAFFIC = "traffic"
"""The key of ``Answered`` for a write of the split; a write of an override has its route key."""
NOT_SENT = "not sent"
"""The outcome of an intended change that was never sent, because the journal could not be written or the run was cancelled."""
NOT_KNOWN = "not known"
"""The beginning of the state in a ``Decided`` about a part that could not be read."""

CANCELLATIONS = frozenset({"CancelledError", "Cancelled"})
"""The names of the exceptions that cancel a run, on asyncio and on trio. They tell an operator nothing more."""

Observer = Callable[["TrainEvent"], None]


@attrs.frozen(kw_only=True)
class _Event:
    at: str = ""
    """Time of recording: UTC, ISO 8601."""
    tick: float | None = attrs.field(default=None, eq=False)
    """Time of recording in seconds on the monotonic clock of this process. The file does not hold it, so it is None in an event that was read."""


@attrs.frozen(kw_only=True)
class TrainStarted(_Event):
    """The train starts. It has not read or changed anything yet."""

    run_id: str
    facts: Mapping[str, object]
    """The configuration without its secrets, ready for JSON."""


@attrs.frozen(kw_only=True)
class StepStarted(_Event):
    """A step starts."""

    step_id: str


@attrs.frozen(kw_only=True)
class CheckRecorded(_Event):
    """One check of a step has a result."""

    step_id: str
    check: Check


@attrs.frozen(kw_only=True)
class BudgetRead(_Event):
    """The train measured the error budget."""

    step_id: str
    moment: str
    """The change after which it was measured, such as ``traffic-25``; the id of the step for a reading at no change."""
    reading: BudgetReading


@attrs.frozen(kw_only=True)
class TrafficIntended(_Event):
    """The train, or its undo, is about to write the split."""

    step_id: str
    captured: TrafficState
    """The split before the train's first change."""
    wanted: tuple[TrafficTarget, ...]
    etag: str | None
    """The etag of the state that the write replaces; None writes over any state."""


@attrs.frozen(kw_only=True)
class CommandStarted(_Event):
    """The process that will carry out the last intended change has started, and waits for permission to make the change."""

    argv: tuple[str, ...]
    pid: int
    """Number of the process, and of its process group."""
    identity: str
    """The boot of the machine and the start time of the process. A later process with the same number has another identity."""


@attrs.frozen(kw_only=True)
class RouteIntended(_Event):
    """The train, or its undo, is about to write one override."""

    step_id: str
    key: str
    """The route key: the name of a domain, or the key of the global override."""
    captured: RouteState
    """The overrides before the train's first change."""
    wanted: str | None
    """The target to set; None clears the override."""
    times: int
    """Largest number of times that the write is sent, since each write reaches one instance."""


@attrs.frozen(kw_only=True)
class Answered(_Event):
    """The last intended change of one key has an outcome."""

    key: str
    """``traffic``, or a route key. All writes of one ``RouteIntended`` have one outcome together."""
    outcome: str
    """One of: ``accepted``; ``refused``; ``failed`` (a 5xx status); ``no effect`` (the reply shows another value); ``unknown`` (no
    usable reply); ``not sent``.

    After ``failed``, ``no effect`` and ``unknown`` the change may have taken effect, or may still do so later.
    """
    detail: str = ""


@attrs.frozen(kw_only=True)
class TrafficRead(_Event):
    """The train, or its undo, read the split: after a write, or once more later."""

    found: TrafficState
    proven: bool
    """True if the change has settled and succeeded, and the split is as wanted."""


@attrs.frozen(kw_only=True)
class RoutesRead(_Event):
    """The train, or its undo, read the overrides back after a write: by many reads, since each reply comes from one instance."""

    shares: tuple[tuple[RouteState, int], ...]
    """(state, number of reads that saw it)."""
    proven: bool
    """True if every read saw the wanted overrides."""


@attrs.frozen(kw_only=True)
class TrafficSettled(_Event):
    """The split is proven to be as the train leaves it, so the undo need not change it."""


@attrs.frozen(kw_only=True)
class Waiting(_Event):
    """The train waits for an operator's decision. Streams and split are watched meanwhile."""

    step_id: str
    hold: str
    """The place of HOLD_AT: a share of the canary in percent, such as ``25``, or the name of a step's beginning, such as ``flip``."""
    wait: str
    """The id of this wait: its number in the train, and a digest of the state that is shown. A decision names it."""
    state: str
    """The state that the operator decides about, in words."""
    until: str
    """Time at which the train stops waiting, and undoes: UTC, ISO 8601."""
    decide: str
    """The shell command that lets the train go on, with NAME and TEXT to fill in; empty where nobody can decide."""


@attrs.frozen(kw_only=True)
class DecisionTaken(_Event):
    """The train has read the decision that it waits for."""

    step_id: str
    hold: str
    wait: str
    """The id of the wait that the decision ends."""
    answer: str
    """``go`` or ``stop``."""
    by: str
    """The name that was given as the decider's. Nothing proves it."""
    because: str


@attrs.frozen(kw_only=True)
class StreamsSeen(_Event):
    """Streams have come to their ends. They are recorded some at a time, and of very many streams a part."""

    streams: tuple[SeenStream, ...]
    left_out: tuple[tuple[str, int], ...] = ()
    """(change, number of further streams that ended since the last such event and of which nothing else is recorded)."""


@attrs.frozen(kw_only=True)
class StepFinished(_Event):
    """A step has ended, or was skipped."""

    result: StepResult


@attrs.frozen(kw_only=True)
class Interrupted(_Event):
    """The train was cancelled, or stopped by a fault in cutover itself."""

    cause: str
    """Name of the exception class."""

    @property
    def why(self) -> str:
        """The cause in words."""
        if self.cause in CANCELLATIONS:
            return "interrupted: the run was cancelled"
        return f"interrupted by an error in cutover itself ({self.cause})"


@attrs.frozen(kw_only=True)
class TakenOver(_Event):
    """A recovery has taken the run over in STATE_URL. The process that wrote the events before writes no more, and changes nothing more."""

    by: str
    """The process of the recovery, in words."""
    before: str
    """The process that held the lock before it, in words; empty if none did."""


@attrs.frozen(kw_only=True)
class UndoStarted(_Event):
    """The undo of the train's changes starts."""

    reason: str


@attrs.frozen(kw_only=True)
class Decided(_Event):
    """Recovery looked at one part of production and chose an action. Each look is one event, even if the part could not be read."""

    part: str
    """``traffic`` or ``routes``."""
    action: str
    """A value of ``undo_policy.Action``."""
    why: str
    captured: str
    """The state before the train's first change, in words."""
    intended: str
    """The state that the train asked for, in words."""
    found: str
    """The state at this look, in words; it begins with ``NOT_KNOWN`` if it could not be read."""


@attrs.frozen(kw_only=True)
class UndoFinished(_Event):
    """The undo has ended."""

    proven: bool
    """True if nothing is left open: every change was read back as undone, or an operator accepted the state that was found."""
    detail: str
    to_do: tuple[str, ...] = ()
    """Checks and commands for an operator, where the undo was not proven."""


@attrs.frozen(kw_only=True)
class TrainFinished(_Event):
    """The verdict: the last event of a train, and of each recovery that found the run open or wrote to production."""

    passed: bool
    exit_code: int
    reasons: tuple[str, ...] = ()


@attrs.frozen(kw_only=True)
class UnknownEvent(_Event):
    """An event of a kind that this version does not know, from the journal of a newer minor version. Everything passes over it."""

    name: str
    """The kind, as it stands in the journal."""
    fields: Mapping[str, object]
    """The event's fields as they stand in the journal."""


TrainEvent = (
    TrainStarted | StepStarted | CheckRecorded | BudgetRead | TrafficIntended | CommandStarted | RouteIntended | Answered
    | TrafficRead | RoutesRead | TrafficSettled | Waiting | DecisionTaken | StreamsSeen | StepFinished | Interrupted | TakenOver | UndoStarted | Decided
    | UndoFinished | TrainFinished | UnknownEvent
)  # fmt: skip


def may_reach_users(events: Iterable[TrainEvent]) -> bool:
    """Return True if a change that may have been sent can reach a user: an override, or other shares than the captured ones.

    A tag at 0 % reaches nobody.
    """
    return any(
        isinstance(event, RouteIntended) or not event.captured.splits_as(event.wanted)
        for event in changes(events)
    )


def changes(events: Iterable[TrainEvent]) -> list[TrafficIntended | RouteIntended]:
    """Return the changes that may have been sent, in order."""
    sent: list[TrafficIntended | RouteIntended] = []
    for event in events:
        match event:
            case TrafficIntended() | RouteIntended():
                sent.append(event)
            case Answered() if event.outcome == NOT_SENT:
                # The answer belongs to the last intended change.
                sent.pop()
            case _:
                pass
    return sent
