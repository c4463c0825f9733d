"""The search for earlier runs that may have left a split or an override behind, in the journals beside the run directory."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from cutover.config.config import CutoverConfig
from cutover.model.traffic_state import TrafficState, shares
from cutover.model.train_events import TrafficIntended, TrainStarted
from cutover.model.undo_plan import plan_undo
from cutover.record.earlier_runs import earlier_runs
from cutover.text import recover_command


def run_that_asked_for(config: CutoverConfig, splits: Sequence[Mapping[str, int]]) -> str:
    """Return a sentence that names the newest live run of this service which asked for one of these splits; empty if there is none.

    A run that left something open comes first: ``cutover recover`` puts its split back. A closed run is named with the
    command only if it found another split before its first change.
    """
    # A rehearsal says nothing about the production outside.
    if config.output_dir is None or config.dry_run:
        return ""
    closed = ""
    for folder, events in earlier_runs(config.output_dir):
        started = next((event for event in events if isinstance(event, TrainStarted)), None)
        if started is None or not _same_service(config, started.facts):
            continue
        asked = [event for event in events if isinstance(event, TrafficIntended)]
        if not any(_shares(event) in splits for event in asked):
            continue
        if plan_undo(events, stable=str(started.facts.get("stable_revision"))).traffic is not None:
            return f"the run in {folder} may have left this; to undo that run: {recover_command(folder)}"
        closed = closed or _closed(str(folder), asked[0].captured, splits)
    return closed


def unfinished_runs(config: CutoverConfig) -> Sequence[Path]:
    """Return the directories of the live runs of this service beside the run directory whose journals leave a change open, the newest first."""
    if config.output_dir is None or config.dry_run:
        return ()
    found = []
    for folder, events in earlier_runs(config.output_dir):
        started = next((event for event in events if isinstance(event, TrainStarted)), None)
        if started is None or not _same_service(config, started.facts):
            continue
        if plan_undo(events, stable=str(started.facts.get("stable_revision"))):
            found.append(folder)
    return found


def _closed(folder: str, captured: TrafficState, splits: Sequence[Mapping[str, int]]) -> str:
    """Return the sentence for a run whose journal leaves nothing open, and which found ``captured`` before its first change."""
    text = f"the run in {folder} may have left this, although its journal shows nothing open"
    if shares(captured.targets, latest=captured.latest_ready) in splits:
        return text
    return f"{text}; to write back the split that it found: {recover_command(folder, '--restore-captured')}"


def _same_service(config: CutoverConfig, facts: Mapping[str, object]) -> bool:
    """Return True if these are the facts of a live run of the same service."""
    same = all(facts.get(name) == getattr(config, name) for name in ("project", "region", "service"))
    return same and not facts.get("dry_run")


def _shares(event: TrafficIntended) -> Mapping[str, int]:
    return shares(event.wanted, latest=event.captured.latest_ready)
