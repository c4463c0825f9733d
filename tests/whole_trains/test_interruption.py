"""A cancelled train undoes its changes, proves the undo and records it, at whichever event the cancellation comes."""

from pathlib import Path

import anyio
import pytest

from cutover.errors import UndoUnprovenError
from cutover.http.outbound import MUTATION_DEADLINE
from cutover.model.summary import fold
from cutover.model.train_events import Answered, TrainEvent, TrainFinished, UndoFinished
from cutover.record.journal import read_journal
from cutover.simulation import FAULTS
from cutover.simulation.exchange import Fate
from cutover.train.engine import STAGES
from cutover.wiring.run import run_production
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.faulty_trains import LANDING_SECONDS, SCENARIOS, WHOLE, FaultyTrain
from tests.support.run_invariants import AS_CAPTURED, left_behind, state
from tests.support.wire_faults import FATES, Injection, WireFault

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

EVENTS = 150
"""A number above the events of a train without soaks."""


def _routes(train: EmbeddedTrain) -> list[dict[str, object]]:
    return [row for row in train.production.routes if row["revision"] == STABLE]


async def _cancelled_at(train: EmbeddedTrain, number: int) -> bool:
    """Run a train and cancel it at its n-th event; return whether it was cancelled."""
    seen = 0

    def observe(event: TrainEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            scope.cancel()

    with anyio.CancelScope() as scope:
        await train.run(observe)
    return scope.cancelled_caught


@pytest.mark.parametrize("apply", [True, False], ids=["apply", "verify"])
async def test_a_train_cancelled_at_any_event_leaves_production_as_it_was(
    apply: bool, tmp_path: Path, anyio_backend_name: str
) -> None:
    cancelled = 0
    # Every other event on asyncio, and a smaller sample on trio; CUTOVER_MATRIX=whole tries every event.
    every = 1 if WHOLE else 2 if anyio_backend_name == "asyncio" else 5
    for number in range(1, EVENTS, every):
        train = EmbeddedTrain(live_config(tmp_path / str(number), apply_route_flip=apply, held_streams=1))
        before = _routes(train)
        was_cancelled = await _cancelled_at(train, number)
        summary = fold(read_journal(tmp_path / str(number) / "run" / "journal.jsonl"))
        assert train.production.traffic == {STABLE: 100}
        assert not train.production.reconciling
        if not was_cancelled or summary.passed:
            # the train has fewer events than this, or waits for nothing between this one and its verdict
            assert summary.passed
            break
        cancelled += 1
        assert summary.exit_code == 130, number
        assert _routes(train) == before, number
        assert (tmp_path / str(number) / "run" / "SUMMARY.md").exists()
    assert cancelled > 50 / every


@pytest.mark.parametrize(
    "fault", ["update-late", "update-reply-lost", "override-late", "override-reply-lost"]
)
async def test_a_change_that_lands_after_the_cancellation_is_undone_too(fault: str, tmp_path: Path) -> None:
    """Cancel a train at some of its events while changes land late. The undo still holds after they have landed."""
    for number in range(10, EVENTS, 4):
        train = EmbeddedTrain(live_config(tmp_path / str(number)), faults=(FAULTS[fault],))
        before = _routes(train)
        cancelled = await _cancelled_at(train, number)
        # longer than any change of the simulation takes
        await anyio.sleep(30.0)
        if not cancelled or fold(read_journal(tmp_path / str(number) / "run" / "journal.jsonl")).passed:
            break
        assert train.production.traffic == {STABLE: 100}, number
        assert _routes(train) == before, number


@pytest.mark.parametrize("label", ["flip.apply.1.account_settings_admin", "drill.traffic-5.write"])
async def test_a_change_without_an_answer_that_lands_as_late_as_it_may_is_undone_too(
    label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks, the operator cancels the train, and the change lands just before its deadline."""
    monkeypatch.setitem(FATES, WireFault.LOST_AND_LATE, Fate(after=MUTATION_DEADLINE - 1.0))
    train = FaultyTrain.of(
        SCENARIOS["cutover"], str(tmp_path), Injection(label=label, fault=WireFault.LOST_AND_LATE, number=1)
    )
    before = state(train.embedded.production)

    def observe(event: TrainEvent) -> None:
        if isinstance(event, Answered) and event.outcome == "unknown":
            scope.cancel()

    with anyio.CancelScope() as scope:
        await run_production(train.production_over_transport(train.embedded.config), observer=observe)
    await anyio.sleep(LANDING_SECONDS)
    assert scope.cancelled_caught
    assert left_behind(train.embedded.production, before) == AS_CAPTURED


async def test_an_exception_in_a_step_is_undone_and_is_no_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("cutover.train.engine.smoke.run", fails)
    # drill and flip run, then the failing step
    monkeypatch.setattr("cutover.train.engine.STAGES", STAGES[:1] + STAGES[2:6])
    train = EmbeddedTrain(live_config(tmp_path))
    before = _routes(train)
    with pytest.raises(ExceptionGroup):
        await train.run()
    assert train.production.traffic == {STABLE: 100}
    assert _routes(train) == before
    summary = fold(read_journal(tmp_path / "run" / "journal.jsonl"))
    assert (summary.exit_code, summary.interrupted) == (1, "KeyError")


@pytest.mark.parametrize("failing", ["undo", "look_again"])
async def test_an_exception_in_the_undo_is_reported(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(f"cutover.train.undo_executor.UndoExecutor.{failing}", fails)
    train = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=30.0))
    with anyio.move_on_after(45.0):
        if failing == "look_again":
            # only the second look fails, so the undo stays proven
            await train.run()
        else:
            with pytest.raises(
                UndoUnprovenError, match=r"the undo itself failed: KeyError\('a bug'\)"
            ) as caught:
                await train.run()
            assert "gcloud run services update-traffic" in str(caught.value)
    summary = fold(read_journal(tmp_path / "run" / "journal.jsonl"))
    assert summary.undo is not None
    assert (summary.exit_code, summary.undo.proven) == (
        (130, True) if failing == "look_again" else (4, False)
    )


async def test_an_outer_timeout_is_a_cancellation(tmp_path: Path) -> None:
    train = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=30.0))
    with anyio.move_on_after(45.0) as scope:
        await train.run()
    assert scope.cancelled_caught
    assert train.production.traffic == {STABLE: 100}
    assert max(row.sequence for row in train.production.requests) > 0


async def test_an_exception_in_the_callers_task_group_is_undone(tmp_path: Path) -> None:
    train = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=30.0))

    async def fail() -> None:
        await anyio.sleep(50.0)
        raise ValueError("the caller's own")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await train.run()
    assert caught.group_contains(ValueError)
    assert train.production.traffic == {STABLE: 100}


async def test_an_undo_that_cannot_be_proven_replaces_the_cancellation(tmp_path: Path) -> None:
    train = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=30.0), faults=(FAULTS["rollback-403"],))
    with (
        pytest.raises(UndoUnprovenError, match="gcloud run services update-traffic"),
        anyio.move_on_after(45.0),
    ):
        await train.run()
    assert train.production.traffic.get(CANARY)
    last = read_journal(tmp_path / "run" / "journal.jsonl")[-1]
    assert isinstance(last, TrainFinished)
    assert last.exit_code == 4


async def test_an_observer_that_raises_does_not_change_the_result(tmp_path: Path) -> None:
    train = EmbeddedTrain(live_config(tmp_path))

    def observe(event: TrainEvent) -> None:
        raise ValueError("a broken progress bar")

    with pytest.warns(RuntimeWarning, match="a broken progress bar"):
        summary = await train.run(observe)
    assert summary.passed
    assert (tmp_path / "run" / "summary.json").exists()


async def test_a_second_cancellation_does_not_cut_the_undo(tmp_path: Path) -> None:
    train = EmbeddedTrain(
        live_config(tmp_path, canary_soak_seconds=30.0), layout_changes={"settle_seconds": 10.0}
    )
    undone: list[UndoFinished] = []

    def observe(event: TrainEvent) -> None:
        if isinstance(event, UndoFinished):
            undone.append(event)

    with anyio.move_on_after(60.0), anyio.move_on_after(50.0), anyio.move_on_after(45.0):
        await train.run(observe)
    assert [event.proven for event in undone] == [True]
    assert train.production.traffic == {STABLE: 100}
