"""A disk fills up at each line of a train's journal, or at one of its artifacts. The train moves nothing more, undoes its changes, and warns."""

import errno
import json
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import anyio
import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import NotStartedError, UndoUnprovenError
from cutover.model.train_events import StepStarted, TrainEvent, TrainFinished, changes
from cutover.record import evidence, journal, lock
from cutover.record.journal import read_journal
from cutover.record.lock import ServiceLock
from cutover.report.page.file_name import FILE as PAGE
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from cutover.wiring.recover import recover_cutover
from cutover.wiring.run import run_production
from tests.support.embedded_trains import TOKENS, EmbeddedTrain, live_config
from tests.support.faulty_trains import (
    LANDING_SECONDS,
    SCENARIOS,
    WHOLE,
    FaultyTrain,
    run_on_virtual_time,
    run_room,
)
from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, contradictions, left_behind, state

if TYPE_CHECKING:
    from cutover.model.summary import CutoverSummary

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


class Quota:
    """A replacement for ``os`` in the evidence folder. The fsync of artifacts fails, from a first one to a last one."""

    def __init__(self, error: int, first: int, last: float) -> None:
        self.error, self.first, self.last = error, first, last
        self.seen = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fsync(self, descriptor: int) -> None:
        self.seen += 1
        if self.first <= self.seen <= self.last:
            raise OSError(self.error, os.strerror(self.error))
        os.fsync(descriptor)


def first_failure(caught: Sequence[warnings.WarningMessage]) -> str:
    """Return the first warning about a file that could not be written."""
    return next(str(each.message) for each in caught if "cannot be written: " in str(each.message))


def wrong_at(quota: Quota) -> Iterator[str]:
    """Run a train under this quota, and yield what is wrong with its end, if any artifact could not be written."""
    summaries: list[CutoverSummary] = []
    at_first: Counter[str] = Counter()
    with (
        run_room() as directory,
        patch.object(evidence, "os", quota),
        warnings.catch_warnings(record=True) as caught,
    ):
        warnings.simplefilter("always")
        train = FaultyTrain.of(SCENARIOS["cutover"], directory)
        before = state(train.embedded.production)

        def observe(_: TrainEvent) -> None:
            if quota.seen >= quota.first and not at_first:
                at_first.update(train.transport.request_counts)

        async def play() -> None:
            production = train.production_over_transport(train.embedded.config)
            summaries.append(await run_production(production, observer=observe))
            await anyio.sleep(LANDING_SECONDS)

        run_on_virtual_time("asyncio", play)
        summary = summaries[0]
        failed = "" if quota.seen < quota.first else first_failure(caught)
        file = failed.partition(" cannot")[0]
        if file in {"", PAGE}:
            # The page is made from the journal after the verdict, so its failure is a warning alone.
            yield from [] if file == "" or summary.passed else [f"{file}: exit {summary.exit_code}"]
            return
        was_touched = bool(changes(read_journal(train.folder / "journal.jsonl")))
        if summary.passed or summary.exit_code != (1 if was_touched else 3):
            yield f"{file}: exit {summary.exit_code}"
        if not any(file in reason and os.strerror(quota.error) in reason for reason in summary.reasons):
            yield f"{file}: the reasons do not name it: {summary.reasons}"
        if left_behind(train.embedded.production, before) != AS_CAPTURED:
            yield f"{file}: production is {left_behind(train.embedded.production, before)}"
        later = train.transport.request_counts - at_first
        # One request may follow: the one whose intent was on the disk by then.
        if len([label for label in later if FORWARD.fullmatch(label)]) > 1:
            yield f"{file}: moved on after it: {sorted(later)}"
        yield from (
            f"{file}: {step.step_id} names an artifact that is not there"
            for step in summary.steps
            if step.artifact is not None and not (train.folder / step.artifact).exists()
        )
        yield from (f"{file}: {name} is left" for name in leftovers(train.folder))
        if quota.last != float("inf"):
            yield from (f"{file}: {each}" for each in contradictions(train.embedded.production, train.folder))


def leftovers(folder: Path) -> list[str]:
    """Return the temporary files that are left."""
    return sorted(path.name for path in folder.rglob(".*"))


@pytest.mark.parametrize(
    ("error", "for_good"), [(errno.EDQUOT, False), (errno.ENOSPC, True)], ids=["once", "for good"]
)
def test_an_artifact_that_cannot_be_written_is_no_go(error: int, for_good: bool) -> None:
    """Evidence, or no pass: also for the last artifacts, which tell the verdict."""
    every = 1 if WHOLE else 4
    number, tried, wrong = 1, 0, []
    while True:
        quota = Quota(error, number, float("inf") if for_good else number)
        wrong += [f"artifact {number}: {each}" for each in wrong_at(quota)]
        if quota.seen < number:
            break
        tried, number = tried + 1, number + every
    assert tried > 50 / every
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("from_the_end", [1, 2, 3])
def test_a_summary_that_cannot_be_written_withdraws_the_verdict(from_the_end: int) -> None:
    """The last artifacts of a GO before the page are the steps' rows, SUMMARY.md and summary.json."""
    whole = Quota(errno.EDQUOT, 10_000, 10_000)
    assert not list(wrong_at(whole))
    quota = Quota(errno.EDQUOT, whole.seen - from_the_end, whole.seen - from_the_end)
    assert not list(wrong_at(quota))
    assert quota.seen > whole.seen


def test_a_page_that_cannot_be_written_withdraws_no_verdict() -> None:
    whole = Quota(errno.EDQUOT, 10_000, 10_000)
    assert not list(wrong_at(whole))
    quota = Quota(errno.EDQUOT, whole.seen, whole.seen)
    assert not list(wrong_at(quota))
    assert quota.seen == whole.seen


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_an_artifact_whose_place_is_taken_is_no_go(tmp_path: Path) -> None:
    """EACCES, a file in the place of a folder: whatever the reason is."""
    train = EmbeddedTrain(live_config(tmp_path))

    def observe(event: TrainEvent) -> None:
        if isinstance(event, StepStarted) and event.step_id == "route-flip":
            (tmp_path / "run" / "route-flip").write_text("in the way")

    with pytest.warns(RuntimeWarning, match="route-flip/"):
        summary = await run_production(simulated_production(train), observer=observe)
    assert summary.exit_code == 1
    step = summary.step("route-flip")
    assert step is not None
    assert step.artifact is None
    assert all(check.headers_path is None for check in step.checks)
    assert any("route-flip/" in reason for reason in summary.reasons)


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_fault_in_an_artifact_costs_the_pass_as_a_full_disk_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An artifact that cutover itself cannot make is missing all the same."""

    def broken(_: object) -> str:
        raise ValueError("a template that does not render")

    monkeypatch.setattr("cutover.report.artifacts.render_markdown", broken)
    train = EmbeddedTrain(live_config(tmp_path))
    with pytest.warns(RuntimeWarning, match="a template that does not render"):
        summary = await train.run()
    assert summary.exit_code == 1
    assert isinstance(read_journal(tmp_path / "run" / "journal.jsonl")[-1], TrainFinished)


@pytest.mark.anyio
@pytest.mark.virtual_time
async def test_a_summary_that_cannot_get_its_name_after_the_verdict_is_told_and_written_later(
    tmp_path: Path,
) -> None:
    """Its content was on the disk before the verdict. The cutover is complete and stays; the command says how to get the file."""
    train = EmbeddedTrain(live_config(tmp_path))
    place = tmp_path / "run" / "summary.json"

    def observe(event: TrainEvent) -> None:
        if isinstance(event, StepStarted) and event.step_id == "final-state":
            place.mkdir()

    with pytest.warns(RuntimeWarning) as caught:
        summary = await run_production(simulated_production(train), observer=observe)
    assert summary.exit_code == 0
    said = next(str(each.message) for each in caught)
    assert said.startswith("summary.json cannot be written: ")
    assert said.endswith(
        f"; the journal holds the verdict, and the cutover is complete; to write the file: cutover recover {tmp_path / 'run'}"
    )
    assert leftovers(tmp_path / "run") == []
    place.rmdir()
    with patch("cutover.wiring.recover.live", lambda _: simulated_production(train)):
        recovery = await recover_cutover(tmp_path / "run", env=TOKENS)
    assert recovery.written[-1] == "summary.json"
    assert json.loads(place.read_text())["overall_status"] == "passed"


def simulated_production(train: EmbeddedTrain) -> Production:
    return simulated(train.config, train.production, clock=EventLoopClock())
