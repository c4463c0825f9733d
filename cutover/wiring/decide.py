"""``decide``: give a waiting train the decision of an operator, from another process on the same machine."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import anyio
import attrs

from cutover.clock import utc_now
from cutover.errors import ConfigurationError, NotDecidedError, NotStartedError
from cutover.model.holds import open_wait, place
from cutover.model.train_events import DecisionTaken, TrainEvent, TrainFinished, TrainStarted, Waiting
from cutover.record.decisions import Decision, DecisionFile, Decisions
from cutover.record.lock import process_of
from cutover.record.lock_file import user_name
from cutover.text import printable, recover_command, status_command
from cutover.wiring.status import read_run

CONFIRM_SECONDS = 15.0
"""Longest time for which the command waits until the train has taken the decision."""
_LOOK_SECONDS = 0.2


@attrs.frozen(kw_only=True)
class Decided:
    """A decision that was written."""

    waiting: Waiting
    """The wait that it is for, with the state that the train shows."""
    decision: Decision
    taken: bool
    """True if the train has taken it; False if the train did not do so within ``CONFIRM_SECONDS``."""


async def decide(
    run_directory: Path, answer: Literal["go", "stop"], *, by: str, because: str, shown: str | None = None
) -> Decided:
    """Write a decision for the wait of the train in a run directory, and wait until the train has taken it.

    Args:
        run_directory: The run directory.
        answer: ``go``: the train goes on; ``stop``: it undoes its changes and ends with NO GO.
        by: The name of the decider.
        because: The reason.
        shown: The id of the wait whose state the decider saw. None: the present one.

    Raises:
        ConfigurationError: The folder holds no run, or ``by`` or ``because`` is wrong.
        NotDecidedError: The train does not wait for this decision, or nothing could be written.
    """
    events = read_run(run_directory)
    _must_be_own(run_directory)
    run_id = next((event.run_id for event in events if isinstance(event, TrainStarted)), "")
    waiting = wait_of(events, run_directory, shown=shown)
    _must_be_alive(run_directory)
    decision = Decision(
        run_id=run_id,
        step_id=waiting.step_id,
        wait=waiting.wait,
        answer=answer,
        by=by,
        because=because,
        at=utc_now(),
    )
    if problem := decision.problem:
        raise ConfigurationError([f"--{problem}"])
    store: Decisions = DecisionFile(folder=run_directory, run_id=run_id)
    await store.put(decision)
    return Decided(waiting=waiting, decision=decision, taken=await _is_taken(run_directory, decision))


def wait_of(events: Sequence[TrainEvent], run_directory: Path | str, *, shown: str | None) -> Waiting:
    """Return the wait that a decision is for.

    Raises:
        NotDecidedError: The train does not wait, or waits for a decision about another state than the one that was shown.
    """
    look = f"nothing was written; to see where it stands: {status_command(run_directory)}"
    waiting = open_wait(events)
    if waiting is None:
        verdict = next((event for event in reversed(events) if isinstance(event, TrainFinished)), None)
        taken = next((event for event in reversed(events) if isinstance(event, DecisionTaken)), None)
        if verdict is not None:
            why = f"the train has ended: {'GO' if verdict.passed else 'NO GO'}"
        elif taken is not None:
            why = f"the train waits for no decision now; the last one was {taken.answer}, by {taken.by}"
        else:
            why = "the train waits for no decision"
        raise NotDecidedError(f"{why}; {look}")
    if shown is not None and shown != waiting.wait:
        raise NotDecidedError(
            f"--shown {printable(shown)} is not the state that the train waits with now: it waits {place(waiting.hold)} with the state "
            f"{waiting.wait}: {waiting.state}; {look}"
        )
    return waiting


def _must_be_own(run_directory: Path) -> None:
    """Refuse a run of another user: the train reads only decisions of its own user.

    Raises:
        NotDecidedError: The run belongs to another user.
    """
    if sys.platform != "win32":
        owner = (run_directory / "journal.jsonl").stat().st_uid
        if owner != os.geteuid():
            raise NotDecidedError(
                f"the train in {printable(str(run_directory), 1000)} belongs to user {user_name(owner)}, and takes decisions of that user "
                f"alone; nothing was written; decide as user {user_name(owner)}"
            )


def _must_be_alive(run_directory: Path) -> None:
    """Refuse a decision that nobody would read.

    Raises:
        NotDecidedError: No process of this machine holds the run's lock.
    """
    try:
        process = process_of(run_directory)
    except NotStartedError as error:
        raise NotDecidedError(f"{error}; nothing was written") from error
    if process is None or not process.alive:
        raise NotDecidedError(
            "no process of this train runs on this machine, so nobody would read the decision; nothing was written; if the train was killed, "
            f"close it: {recover_command(run_directory)}"
        )


async def _is_taken(run_directory: Path, decision: Decision) -> bool:
    with anyio.move_on_after(CONFIRM_SECONDS):
        while True:
            events = read_run(run_directory)
            if any(isinstance(event, DecisionTaken) and event.wait == decision.wait for event in events):
                return True
            if open_wait(events) is None:
                # A fault or the timeout came first.
                return False
            await anyio.sleep(_LOOK_SECONDS)
    return False
