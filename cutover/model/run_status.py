"""The status of a run, computed from its train events alone."""

from collections.abc import Mapping, Sequence

import attrs

from cutover.model.holds import open_wait
from cutover.model.traffic_state import describe_shares
from cutover.model.train_events import (
    NOT_KNOWN,
    Decided,
    Interrupted,
    StepFinished,
    StepStarted,
    TrafficIntended,
    TrafficRead,
    TrainEvent,
    TrainFinished,
    TrainStarted,
    UndoFinished,
    UndoStarted,
    UnknownEvent,
    Waiting,
)
from cutover.model.undo_plan import plan_undo


@attrs.frozen(kw_only=True)
class RunStatus:
    """The status of a run at its latest event."""

    run_id: str = ""
    facts: Mapping[str, object] = attrs.field(factory=dict)
    started_at: str = ""
    steps: tuple[tuple[str, str], ...] = ()
    """The steps that have started and not ended, and the time of their start."""
    split: str = ""
    """The split that was read last, in words; empty if the train has read none since its first change."""
    split_since: str = ""
    """The time of the first read that showed this split without another one after it."""
    waiting: Waiting | None = None
    """The wait for a decision; None if there is none."""
    undo_since: str = ""
    """The time at which the undo started; empty if none runs."""
    verdict: TrainFinished | None = None
    """The verdict; None while the run, or a recovery of it, goes on."""
    undo: UndoFinished | None = None
    """The end of the last undo; None if none has ended."""
    open: bool = False
    """True if a change may be left to undo."""
    latest_at: str = ""
    """The time of the latest event."""


def run_status(events: Sequence[TrainEvent]) -> RunStatus:  # noqa: C901  one case for each type of event
    """Return the status of a run from its events."""
    status = RunStatus(waiting=open_wait(events), latest_at=events[-1].at if events else "")
    running: dict[str, str] = {}
    for event in events:
        match event:
            case UnknownEvent():
                # It tells nothing about the steps, the undo and the verdict.
                continue
            case TrainStarted():
                status = attrs.evolve(status, run_id=event.run_id, facts=event.facts, started_at=event.at)
            case StepStarted():
                running[event.step_id] = event.at
            case StepFinished():
                running.pop(event.result.step_id, None)
            case TrafficIntended() if not status.split:
                status = _with_split(status, describe_shares(event.captured.served()), event.at)
            case TrafficRead():
                status = _with_split(status, describe_shares(event.found.served()), event.at)
            case Decided(part="traffic") if not event.found.startswith(NOT_KNOWN):
                status = _with_split(status, event.found, event.at)
            case Interrupted() | TrainFinished():
                # A step that was cut off has no end of its own.
                running.clear()
            case UndoStarted():
                running.clear()
                status = attrs.evolve(status, undo_since=event.at)
            case UndoFinished():
                status = attrs.evolve(status, undo=event, undo_since="")
            case _:
                pass
        status = attrs.evolve(status, verdict=event if isinstance(event, TrainFinished) else None)
    stable = str(status.facts.get("stable_revision", ""))
    return attrs.evolve(status, steps=tuple(running.items()), open=bool(plan_undo(events, stable=stable)))


def _with_split(status: RunStatus, split: str, at: str) -> RunStatus:
    return status if split == status.split else attrs.evolve(status, split=split, split_since=at)
