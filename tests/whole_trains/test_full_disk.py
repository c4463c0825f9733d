"""A disk that fills up, at every line of a train's journal: no further mover, the undo goes on, and it is said."""

import errno
import os
import re
import warnings
from collections import Counter
from typing import Any
from unittest.mock import patch

import anyio
import attrs
import pytest

from cutover.errors import NotStartedError, UndoUnprovenError
from cutover.model.train_events import TrainEvent
from cutover.record import journal, lock
from cutover.record.lock import ServiceLock
from cutover.wiring.run import run_production
from tests.support.faulty_trains import LANDED, SCENES, Ride, room, within
from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, left_behind, state

FORWARD = re.compile(r"drill\.traffic-\d+\.write|flip\.apply\.\d+\..*")
"""Requests that move production on; those that take it back are none of these."""


class Disk:
    """The operating system, as the journal sees it: from some point on nothing is made durable."""

    is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)


@attrs.frozen(kw_only=True)
class Ending:
    """How a train ended whose disk filled up."""

    exit_code: int
    left: str
    moved_on: tuple[str, ...]
    """Requests, by label, that moved production on after that."""
    refused: bool
    """Whether the next run was refused until this one was recovered."""
    recovered: str
    """Where production was after that recovery, with room on the disk."""
    complete: bool
    """Whether that recovery took the cutover for complete."""
    said: tuple[str, ...]


def full_at(number: int) -> Ending | None:
    """Run a train whose disk is full from a line of its journal on; None where it does not write as many."""
    disk, seen = Disk(), 0
    at_first: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    said_then: list[str] = []
    with (
        room() as directory,
        patch.object(journal, "os", disk),
        patch.object(lock, "os", disk),
        warnings.catch_warnings(record=True) as said,
    ):
        warnings.simplefilter("always")
        ride = Ride.of(SCENES["cutover"], directory)
        before = state(ride.trial.production)

        def observe(_: TrainEvent) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                disk.is_full = True
                at_first.update(ride.wire.seen)

        async def play() -> None:
            try:
                code = (await run_production(ride.on_the_wire(ride.trial.config), observer=observe)).exit_code
            except UndoUnprovenError:
                code = 4
            except NotStartedError as error:  # not even the lock could be signed
                code = 3
                warnings.warn(str(error), stacklevel=1)
            await anyio.sleep(LANDED)
            found.append((code, left_behind(ride.trial.production, before)))

        within("asyncio", play)
        later = ride.wire.seen - at_first
        disk.is_full = False
        refused = ServiceLock.left_by(ride.folder) is not None

        async def recover() -> None:
            said_then.append((await ride.recover()).detail)

        within("asyncio", recover)
        assert ServiceLock.left_by(ride.folder) is None
        recovered = left_behind(ride.trial.production, before)
    moved_on = tuple(label for label in later if FORWARD.fullmatch(label))
    told = tuple(str(each.message) for each in said)
    return (
        Ending(
            exit_code=found[0][0],
            left=found[0][1],
            moved_on=moved_on,
            refused=refused,
            recovered=recovered,
            complete="the cutover is complete" in said_then[0],
            said=told,
        )
        if seen >= number
        else None
    )


@pytest.mark.usefixtures("small_samples")
def test_a_disk_that_fills_up_at_any_line_stops_the_movers_and_not_the_undo() -> None:
    number, wrong, codes, silent = 1, [], [], []
    while (ending := full_at(number)) is not None:
        codes.append(ending.exit_code)
        if ending.left != (AS_MEANT if ending.exit_code == 0 else AS_CAPTURED):
            wrong.append(f"line {number}: {ending}")
        if len(ending.moved_on) > 1:  # the one whose intent was durable, and no other
            wrong.append(f"line {number}: {ending.moved_on}")
        if ending.complete != (ending.exit_code == 0):
            wrong.append(f"line {number}: the disk says that it passed: {ending}")
        if ending.recovered != ending.left or (ending.exit_code == 1 and not ending.refused):
            wrong.append(f"line {number}: the disk tells another story: {ending}")
        if not any("cannot be written" in line for line in ending.said):
            silent.append(number)
        number += 1
    # nothing begun; then taken back; and where the line was there that says that it is done, done
    assert codes == sorted(codes, key=[3, 1, 0].index)
    assert {*codes} == {3, 1, 0}
    assert codes.count(0) == 1
    assert silent == [number - 1]  # after the last line only the lock was left to write, and could not be
    assert not wrong, "\n".join(wrong)
