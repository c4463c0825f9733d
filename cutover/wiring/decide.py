"""``decide``: give a waiting train the decision of an operator, from another process or another machine."""

import contextlib
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import anyio
import attrs

from cutover.clock import utc_now
from cutover.config.config import INPUTS
from cutover.config.files import read_file
from cutover.errors import ConfigurationError, NotDecidedError, NotStartedError
from cutover.http.secrets import Secrets, mask_typed, with_parts
from cutover.http.tokens import read_grant
from cutover.model.holds import open_wait, place
from cutover.model.train_events import DecisionTaken, TrainEvent, TrainFinished, TrainStarted, Waiting
from cutover.record.decisions import Decision, DecisionFile, DecisionStore
from cutover.record.journal_copy import JournalCopy
from cutover.record.lock import process_of
from cutover.record.lock_file import user_name
from cutover.record.state_address import is_state_address
from cutover.text import printable, recover_command, status_command
from cutover.wiring.fetched_run import opened_bucket
from cutover.wiring.run_state import bucket_decisions, journal_copy
from cutover.wiring.status import read_copy, read_run, run_address

CONFIRM_SECONDS = 15.0
"""Longest time for which the command waits until the train has taken the decision."""
_LOOK_SECONDS = 0.2


@attrs.frozen(kw_only=True)
class Decided:
    """A decision that was written."""

    waiting: Waiting
    """The wait that it is for, with the state that the train shows."""
    decision: Decision
    """The decision, with each known secret masked."""
    taken: bool
    """True if the train has taken it; False if the train did not do so within ``CONFIRM_SECONDS``."""


async def decide(
    run: Path | str,
    answer: Literal["go", "stop"],
    *,
    by: str,
    because: str,
    shown: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Decided:
    """Write a decision for the wait of a train, and wait until the train has taken it.

    Args:
        run: The run directory; or the address of the run in STATE_URL, ``gs://bucket/prefix/RUN``.
        answer: ``go``: the train goes on; ``stop``: it undoes its changes and ends with NO GO.
        by: The name of the decider.
        because: The reason. In both texts each secret of ``env``, and what looks like a credential, is masked before anything is written;
            the train masks its own secrets when it reads them.
        shown: The id of the wait whose state the decider saw. None: the present one.
        env: The variables with the token for the bucket, and with the secrets to mask; None for the environment of the process.

    Raises:
        ConfigurationError: There is no such run, or ``by`` or ``because`` is wrong.
        NotDecidedError: The train does not wait for this decision, or nothing could be written.
    """
    given = os.environ if env is None else env
    mask = _mask_of(given)
    by, because = mask(by), mask(because)
    if isinstance(run, str) and is_state_address(run):
        address = run_address(run)
        async with opened_bucket(address.parent, given) as bucket:
            in_bucket = bucket_decisions(bucket, address.parent, address.run)
            copy = journal_copy(bucket, address.parent, address.run)
            return await _decide(run, in_bucket, partial(_copied, copy), answer, by, because, shown)
    folder = Path(run)

    async def read() -> list[TrainEvent]:
        return read_run(folder)

    events = await read()
    _must_be_own(folder)
    run_id = next((event.run_id for event in events if isinstance(event, TrainStarted)), "")
    wait_of(events, folder, shown=shown)
    _must_be_alive(folder)
    here = DecisionFile(folder=folder, run_id=run_id)
    return await _decide(folder, here, read, answer, by, because, shown)


async def _decide(
    run: Path | str,
    store: DecisionStore,
    read: Callable[[], Awaitable[list[TrainEvent]]],
    answer: Literal["go", "stop"],
    by: str,
    because: str,
    shown: str | None,
) -> Decided:
    events = await read()
    waiting = wait_of(events, run, shown=shown)
    decision = Decision(
        run_id=next((event.run_id for event in events if isinstance(event, TrainStarted)), ""),
        step_id=waiting.step_id,
        wait=waiting.wait,
        answer=answer,
        by=by,
        because=because,
        at=utc_now(),
    )
    if problem := decision.problem:
        raise ConfigurationError([f"--{problem}"])
    await store.put(decision)
    taken = await _taken(read, decision)
    if taken is not None:
        # The train has masked its own secrets in it.
        decision = attrs.evolve(decision, by=taken.by, because=taken.because)
    return Decided(waiting=waiting, decision=decision, taken=taken is not None)


async def _copied(copy: JournalCopy) -> list[TrainEvent]:
    """Return the events of a run in the bucket.

    Raises:
        NotDecidedError: There are none, or they cannot be read.
    """
    try:
        return await read_copy(copy)
    except NotStartedError as error:
        raise NotDecidedError(f"{error}; nothing was written") from error


def _mask_of(given: Mapping[str, str]) -> Callable[[str], str]:
    """Return the function that masks what a decider must not have typed: the secrets of these variables, and what looks like a credential."""
    names = [declared.variable for declared in INPUTS if declared.secret]
    values = [given.get(name, "") for name in names]
    for path in filter(None, (given.get(f"{name}_FILE") for name in names)):
        with contextlib.suppress(ValueError):
            values.append(read_grant(read_file(Path(path))).token)
    secrets = Secrets(with_parts(values))
    return lambda text: secrets.mask_text(mask_typed(text))


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


async def _taken(read: Callable[[], Awaitable[list[TrainEvent]]], decision: Decision) -> DecisionTaken | None:
    """Wait until the train has taken the decision, and return its event; None if the train takes another one, or none."""
    with anyio.move_on_after(CONFIRM_SECONDS):
        while True:
            try:
                events = await read()
            except NotDecidedError:
                # The bucket did not answer this once.
                events = []
            for event in events:
                if isinstance(event, DecisionTaken) and event.wait == decision.wait:
                    same = event.answer == decision.answer and _is_masked_form(event.by, decision.by)
                    return event if same else None
            if events and open_wait(events) is None:
                # A fault or the timeout came first.
                return None
            await anyio.sleep(_LOOK_SECONDS)
    return None


def _is_masked_form(shown: str, text: str) -> bool:
    """Return True if a text can have become the shown one when the train masked its secrets."""
    return len(shown) == len(text) and all(
        masked in {char, "*"} for masked, char in zip(shown, text, strict=True)
    )
