"""The train events: the only truth about a run.

Progress shows them, the summary folds them, undo and recovery are functions of them.
"""

from collections.abc import Callable, Iterable, Mapping

import attrs

from cutover.model.results import Check, StepResult
from cutover.model.route_state import RouteState
from cutover.model.traffic_state import TrafficState, TrafficTarget

TRAFFIC = "traffic"
"""The key under which a write of the split is answered."""


NOT_SENT = "not sent"
"""The outcome of an intent that was not carried out, for it could not be written down."""


Observer = Callable[["TrainEvent"], None]


@attrs.frozen(kw_only=True)
class _Event:
    at: str = ""
    """When it was recorded: UTC, ISO 8601."""


@attrs.frozen(kw_only=True)
class TrainStarted(_Event):
    """The train sets out; nothing has been read or touched."""

    run_id: str
    facts: Mapping[str, object]
    """The configuration without its secrets, ready for JSON."""


@attrs.frozen(kw_only=True)
class StepStarted(_Event):
    """A step begins."""

    step_id: str


@attrs.frozen(kw_only=True)
class CheckRecorded(_Event):
    """One check of a step is known."""

    step_id: str
    check: Check


@attrs.frozen(kw_only=True)
class TrafficIntended(_Event):
    """The traffic split is about to be written; what undo needs is known by now."""

    step_id: str
    captured: TrafficState
    wanted: tuple[TrafficTarget, ...]
    etag: str | None


@attrs.frozen(kw_only=True)
class CommandStarted(_Event):
    """The process that is to carry out the last intent is there, and waits to be let go."""

    argv: tuple[str, ...]
    pid: int
    """Of the process, and of the group that was made for it."""
    identity: str
    """What tells it from all other processes that ever have this number: the boot, and when it started."""


@attrs.frozen(kw_only=True)
class RouteIntended(_Event):
    """One route override is about to be written, ``times`` times."""

    step_id: str
    key: str
    captured: RouteState
    wanted: str | None
    times: int


@attrs.frozen(kw_only=True)
class Answered(_Event):
    """What the peer said to the last intent of this kind (``traffic``, or a route key)."""

    key: str
    outcome: str
    """``accepted``; ``refused``; ``failed`` with a 5xx; ``no effect`` where the reply says so; ``unknown`` where no reply came;
    ``not sent``.

    After ``failed``, ``no effect`` and ``unknown`` the effect may be there, or still come, late.
    """
    detail: str = ""


@attrs.frozen(kw_only=True)
class TrafficRead(_Event):
    """The traffic was read back after a write."""

    found: TrafficState
    proven: bool
    """Whether it is settled, succeeded and what was wanted."""


@attrs.frozen(kw_only=True)
class RoutesRead(_Event):
    """The routes were sampled after a write."""

    shares: tuple[tuple[RouteState, int], ...]
    """Each state that was seen, and in how many reads."""
    proven: bool


@attrs.frozen(kw_only=True)
class TrafficSettled(_Event):
    """The traffic is where the train means to leave it: nothing is left to undo."""


@attrs.frozen(kw_only=True)
class StepFinished(_Event):
    """A step ended."""

    result: StepResult


@attrs.frozen(kw_only=True)
class Interrupted(_Event):
    """The train was cancelled, or failed by a fault of its own."""

    cause: str


@attrs.frozen(kw_only=True)
class UndoStarted(_Event):
    """What was applied is about to be taken back."""

    reason: str


@attrs.frozen(kw_only=True)
class Decided(_Event):
    """Recovery has looked at one part of production, and decided what to do about it."""

    part: str
    """``traffic`` or ``routes``."""
    action: str
    why: str
    captured: str
    intended: str
    found: str


@attrs.frozen(kw_only=True)
class UndoFinished(_Event):
    """The undo ended."""

    proven: bool
    """Whether nothing is left open: all that had been applied was read back as undone, or accepted by an operator."""
    detail: str
    to_do: tuple[str, ...] = ()
    """What an operator must check and run, where it was not proven."""


@attrs.frozen(kw_only=True)
class TrainFinished(_Event):
    """The last event: the verdict."""

    passed: bool
    exit_code: int
    reasons: tuple[str, ...] = ()


TrainEvent = (
    TrainStarted | StepStarted | CheckRecorded | TrafficIntended | CommandStarted | RouteIntended | Answered | TrafficRead
    | RoutesRead | TrafficSettled | StepFinished | Interrupted | UndoStarted | Decided | UndoFinished | TrainFinished
)  # fmt: skip


def changes(events: Iterable[TrainEvent]) -> list[TrafficIntended | RouteIntended]:
    """Return every change that may have been sent, in order."""
    sent: list[TrafficIntended | RouteIntended] = []
    for event in events:
        match event:
            case TrafficIntended() | RouteIntended():
                sent.append(event)
            case Answered() if event.outcome == NOT_SENT:
                sent.pop()  # the intent that it answers is the last one
            case _:
                pass
    return sent
