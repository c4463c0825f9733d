"""A disk fills up at each line of a train's journal. The train moves nothing more, undoes its changes, and warns."""

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
from tests.support.faulty_trains import LANDING_SECONDS, SCENARIOS, FaultyTrain, run_on_virtual_time, run_room
from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, left_behind, state

FORWARD = re.compile(r"drill\.traffic-\d+\.write|flip\.apply\.\d+\..*")
"""Labels of the requests that move production forward. Requests of a rollback or an undo do not match."""


class Disk:
    """A replacement for ``os`` in the journal. While ``is_full`` is true, every fsync fails with ENOSPC."""

    is_full = False

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(descriptor)


@attrs.frozen(kw_only=True)
class FullDiskResult:
    """The end of a train whose disk filled up, and of its recovery."""

    exit_code: int
    left: str
    """State of production after the train."""
    forward_labels: tuple[str, ...]
    """Labels of the requests that moved production forward after the disk was full."""
    next_is_refused: bool
    """True if the lock refuses the next run until this one is recovered."""
    left_by_recovery: str
    """State of production after the recovery, which had room on the disk."""
    is_complete: bool
    """True if the recovery reported the cutover as complete."""
    warnings: tuple[str, ...]


def full_at(number: int) -> FullDiskResult | None:
    """Run a train whose disk is full from the n-th line of its journal. Return None if the journal has fewer lines."""
    disk, seen = Disk(), 0
    at_first: Counter[str] = Counter()
    found: list[tuple[int, str]] = []
    details: list[str] = []
    with (
        run_room() as directory,
        patch.object(journal, "os", disk),
        patch.object(lock, "os", disk),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        train = FaultyTrain.of(SCENARIOS["cutover"], directory)
        before = state(train.embedded.production)

        def observe(_: TrainEvent) -> None:
            nonlocal seen
            seen += 1
            if seen == number:
                disk.is_full = True
                at_first.update(train.transport.request_counts)

        async def play() -> None:
            try:
                code = (
                    await run_production(
                        train.production_over_transport(train.embedded.config), observer=observe
                    )
                ).exit_code
            except UndoUnprovenError:
                code = 4
            except NotStartedError as error:
                # the train could not sign the lock
                code = 3
                warnings.warn(str(error), stacklevel=1)
            await anyio.sleep(LANDING_SECONDS)
            found.append((code, left_behind(train.embedded.production, before)))

        run_on_virtual_time("asyncio", play)
        later = train.transport.request_counts - at_first
        disk.is_full = False
        next_is_refused = ServiceLock.left_by(train.folder) is not None

        async def recover() -> None:
            details.append((await train.recover()).detail)

        run_on_virtual_time("asyncio", recover)
        assert ServiceLock.left_by(train.folder) is None
        left_by_recovery = left_behind(train.embedded.production, before)
    forward_labels = tuple(label for label in later if FORWARD.fullmatch(label))
    messages = tuple(str(each.message) for each in caught)
    return (
        FullDiskResult(
            exit_code=found[0][0],
            left=found[0][1],
            forward_labels=forward_labels,
            next_is_refused=next_is_refused,
            left_by_recovery=left_by_recovery,
            is_complete="the cutover is complete" in details[0],
            warnings=messages,
        )
        if seen >= number
        else None
    )


@pytest.mark.usefixtures("small_samples")
def test_a_disk_that_fills_up_at_any_line_stops_the_movers_and_not_the_undo() -> None:
    number, wrong, codes, silent = 1, [], [], []
    while (result := full_at(number)) is not None:
        codes.append(result.exit_code)
        if result.left != (AS_MEANT if result.exit_code == 0 else AS_CAPTURED):
            wrong.append(f"line {number}: {result}")
        # one request may follow: the one whose intent is already on the disk
        if len(result.forward_labels) > 1:
            wrong.append(f"line {number}: {result.forward_labels}")
        if result.is_complete != (result.exit_code == 0):
            wrong.append(f"line {number}: the journal and the exit code disagree on a pass: {result}")
        if result.left_by_recovery != result.left or (result.exit_code == 1 and not result.next_is_refused):
            wrong.append(f"line {number}: the disk and production disagree: {result}")
        if not any("cannot be written" in line for line in result.warnings):
            silent.append(number)
        number += 1
    # the train does not start; later it undoes its changes; after its last journal line it passes
    assert codes == sorted(codes, key=[3, 1, 0].index)
    assert {*codes} == {3, 1, 0}
    assert codes.count(0) == 1
    # after the last line only the lock was left to write, and that failed without a warning
    assert silent == [number - 1]
    assert not wrong, "\n".join(wrong)
