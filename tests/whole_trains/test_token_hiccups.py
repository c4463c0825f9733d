"""Where a train's token comes from may fail: once is not noticed, for good is named, and nothing is left half done."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import NoAnswerError
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import Answered
from cutover.record.journal import read_journal
from cutover.wiring.embedded import simulated
from cutover.wiring.recover import recover_production
from cutover.wiring.run import run_production
from tests.support.embedded_trains import STABLE, Trial, live_config
from tests.support.virtual_time import virtual_backend

pytestmark = pytest.mark.anyio

SAID = "application default credentials gave no token (connection reset)"
FIRST_WRITE = 5
"""Which call is for it: after the preflight's, for the split and two revisions, and the drill's look."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_backend(request.param)


async def ridden(trial: Trial, fails: Callable[[int], bool]) -> tuple[CutoverSummary, int]:
    """Run a train whose token fails at some calls, counted from 1; return how many calls there were, as well."""
    calls = 0

    async def token() -> str:
        nonlocal calls
        calls += 1
        if fails(calls):
            raise NoAnswerError(SAID)
        return trial.config.cloud_run_access_token

    production = simulated(trial.config, trial.production, clock=EventLoopClock())
    summary = await run_production(attrs.evolve(production, cloud_run_token=token))
    return summary, calls


async def test_one_hiccup_fails_no_train_wherever_it_comes(tmp_path: Path) -> None:
    _, calls = await ridden(Trial(live_config(tmp_path / "good")), lambda _: False)
    for bad in (1, FIRST_WRITE, *range(FIRST_WRITE + 3, calls + 1, 4)):
        summary, _ = await ridden(Trial(live_config(tmp_path / str(bad))), bad.__eq__)
        assert summary.passed, f"at call {bad} of {calls}: {summary.reasons}"


async def test_none_from_the_start_is_no_evidence_and_is_named(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path))
    before = trial.production.generation
    summary, _ = await ridden(trial, lambda _: True)
    assert summary.exit_code == 3
    assert SAID in (tmp_path / "run" / "journal.jsonl").read_text()
    assert trial.production.generation == before


async def test_none_for_the_first_write_nor_for_the_undo_is_named_and_sends_nothing(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path))
    before = trial.production.generation
    summary, _ = await ridden(trial, lambda call: call >= FIRST_WRITE)
    assert summary.exit_code == 4
    assert trial.production.generation == before
    journal = tmp_path / "run" / "journal.jsonl"
    answers = [event for event in read_journal(journal) if isinstance(event, Answered)]
    assert {event.outcome for event in answers} == {"refused"}
    assert all("nothing was sent" in event.detail and SAID in event.detail for event in answers)
    recovery = await recover_production(
        simulated(trial.config, trial.production, clock=EventLoopClock()), journal.parent
    )
    assert recovery.closed
    assert trial.production.traffic == {STABLE: 100}
