"""The source of a train's token fails. One failure changes nothing; a lasting one is named and leaves no half change."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import NoAnswerError
from cutover.http import tokens
from cutover.http.tokens import Grant
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import Answered
from cutover.record.journal import read_journal
from cutover.wiring.embedded import simulated
from cutover.wiring.recover import recover_production
from cutover.wiring.run import run_production
from tests.support.embedded_trains import STABLE, EmbeddedTrain, live_config
from tests.support.virtual_time import virtual_backend

pytestmark = pytest.mark.anyio

MESSAGE = "application default credentials gave no token (connection reset)"
FIRST_WRITE = 6
"""Number of the token call for the first write, after three reads and a trial of the preflight, and a read of the drill."""


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return virtual_backend(request.param)


@pytest.fixture(autouse=True)
def _each_request_asks_for_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "LEAST_PAUSE", 0.0)


async def run_train(train: EmbeddedTrain, fails: Callable[[int], bool]) -> tuple[CutoverSummary, int]:
    """Run a train whose token source fails at some calls, counted from 1. Return the summary and the number of calls."""
    calls = 0

    async def token(*, refused: str = "") -> Grant:
        nonlocal calls
        calls += 1
        if fails(calls):
            raise NoAnswerError(MESSAGE)
        # The token has expired, so each request asks again.
        return Grant(token=train.config.cloud_run_access_token, expires_at=0.0)

    production = simulated(train.config, train.production, clock=EventLoopClock())
    summary = await run_production(attrs.evolve(production, cloud_run_token=token))
    return summary, calls


async def test_one_failed_call_at_any_point_fails_no_train(tmp_path: Path) -> None:
    _, calls = await run_train(EmbeddedTrain(live_config(tmp_path / "good")), lambda _: False)
    for bad in (1, FIRST_WRITE, *range(FIRST_WRITE + 3, calls + 1, 4)):
        summary, _ = await run_train(EmbeddedTrain(live_config(tmp_path / str(bad))), bad.__eq__)
        assert summary.passed, f"at call {bad} of {calls}: {summary.reasons}"


async def test_no_token_from_the_start_is_no_evidence_and_is_named(tmp_path: Path) -> None:
    train = EmbeddedTrain(live_config(tmp_path))
    before = train.production.generation
    summary, _ = await run_train(train, lambda _: True)
    assert summary.exit_code == 3
    assert MESSAGE in (tmp_path / "run" / "journal.jsonl").read_text()
    assert train.production.generation == before


async def test_no_token_for_the_first_write_and_for_the_undo_is_named_and_sends_nothing(
    tmp_path: Path,
) -> None:
    train = EmbeddedTrain(live_config(tmp_path))
    before = train.production.generation
    summary, _ = await run_train(train, lambda call: call >= FIRST_WRITE)
    assert summary.exit_code == 4
    assert train.production.generation == before
    journal = tmp_path / "run" / "journal.jsonl"
    answers = [event for event in read_journal(journal) if isinstance(event, Answered)]
    assert {event.outcome for event in answers} == {"refused"}
    assert all("nothing was sent" in event.detail and MESSAGE in event.detail for event in answers)
    recovery = await recover_production(
        simulated(train.config, train.production, clock=EventLoopClock()), journal.parent
    )
    assert recovery.closed
    assert train.production.traffic == {STABLE: 100}
