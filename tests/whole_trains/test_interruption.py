"""Cancellation is a normal path: whenever it comes, what was applied is undone, proven, and written down."""

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
from tests.support.embedded_trains import CANARY, STABLE, Trial, live_config
from tests.support.faulty_trains import LANDED, SCENES, Ride
from tests.support.run_invariants import AS_CAPTURED, left_behind, state
from tests.support.wire_faults import FATES, Injection, Kind

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

EVENTS = 150
"""More than a train without soaks has."""


def _routes(trial: Trial) -> list[dict[str, object]]:
    return [row for row in trial.production.routes if row["revision"] == STABLE]


async def _cancelled_at(trial: Trial, number: int) -> bool:
    """Run a train and cancel it at its n-th event; return whether it was cancelled."""
    seen = 0

    def observe(event: TrainEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            scope.cancel()

    with anyio.CancelScope() as scope:
        await trial.run(observe)
    return scope.cancelled_caught


@pytest.mark.parametrize("apply", [True, False], ids=["apply", "verify"])
async def test_a_train_cancelled_at_any_event_leaves_production_as_it_was(
    apply: bool, tmp_path: Path, anyio_backend_name: str
) -> None:
    cancelled = 0
    every = 1 if anyio_backend_name == "asyncio" else 3  # all of them on one loop, a sample on the other
    for number in range(1, EVENTS, every):
        trial = Trial(live_config(tmp_path / str(number), apply_route_flip=apply, held_streams=1))
        before = _routes(trial)
        was_cancelled = await _cancelled_at(trial, number)
        summary = fold(read_journal(tmp_path / str(number) / "run" / "journal.jsonl"))
        assert trial.production.traffic == {STABLE: 100}
        assert not trial.production.reconciling
        if not was_cancelled:
            assert summary.passed  # it was over before the event came, or the last one had come
            break
        cancelled += 1
        assert summary.exit_code == 130, number
        assert _routes(trial) == before, number
        assert (tmp_path / str(number) / "run" / "SUMMARY.md").exists()
    assert cancelled > 50 / every


@pytest.mark.parametrize(
    "fault", ["update-late", "update-reply-lost", "override-late", "override-reply-lost"]
)
async def test_a_change_that_lands_after_the_cancellation_is_undone_too(fault: str, tmp_path: Path) -> None:
    """Cancelled at each event while changes take effect late: what was proven still holds when they have landed."""
    for number in range(10, EVENTS, 4):
        trial = Trial(live_config(tmp_path / str(number)), faults=(FAULTS[fault],))
        before = _routes(trial)
        cancelled = await _cancelled_at(trial, number)
        await anyio.sleep(30.0)  # longer than any change of the simulation takes
        if not cancelled:
            break
        assert trial.production.traffic == {STABLE: 100}, number
        assert _routes(trial) == before, number


@pytest.mark.parametrize("label", ["flip.apply.1.account_settings_admin", "drill.traffic-5.write"])
async def test_a_change_without_an_answer_that_lands_as_late_as_it_may_is_undone_too(
    label: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks, the operator stops the train, and the effect comes just before the change's deadline."""
    monkeypatch.setitem(FATES, Kind.LOST_AND_LATE, Fate(after=MUTATION_DEADLINE - 1.0))
    ride = Ride.of(
        SCENES["cutover"], str(tmp_path), Injection(label=label, kind=Kind.LOST_AND_LATE, number=1)
    )
    before = state(ride.trial.production)

    def observe(event: TrainEvent) -> None:
        if isinstance(event, Answered) and event.outcome == "unknown":
            scope.cancel()

    with anyio.CancelScope() as scope:
        await run_production(ride.on_the_wire(ride.trial.config), observer=observe)
    await anyio.sleep(LANDED)
    assert scope.cancelled_caught
    assert left_behind(ride.trial.production, before) == AS_CAPTURED


async def test_a_fault_of_a_steps_own_is_undone_and_is_no_interruption(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("cutover.train.engine.smoke.run", fails)
    monkeypatch.setattr(
        "cutover.train.engine.STAGES", STAGES[:1] + STAGES[2:5]
    )  # drill and flip, then the bug
    trial = Trial(live_config(tmp_path))
    before = _routes(trial)
    with pytest.raises(ExceptionGroup):
        await trial.run()
    assert trial.production.traffic == {STABLE: 100}
    assert _routes(trial) == before
    summary = fold(read_journal(tmp_path / "run" / "journal.jsonl"))
    assert (summary.exit_code, summary.interrupted) == (1, "KeyError")


@pytest.mark.parametrize("failing", ["carry_out", "look_again"])
async def test_a_fault_of_the_undos_own_is_told(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(f"cutover.train.engine.{failing}", fails)
    trial = Trial(live_config(tmp_path, canary_soak_seconds=30.0))
    with anyio.move_on_after(45.0):
        if failing == "look_again":  # no more than a second look
            await trial.run()
        else:
            with pytest.raises(
                UndoUnprovenError, match=r"the undo itself failed: KeyError\('a bug'\)"
            ) as caught:
                await trial.run()
            assert "gcloud run services update-traffic" in str(caught.value)
    summary = fold(read_journal(tmp_path / "run" / "journal.jsonl"))
    assert summary.undo is not None
    assert (summary.exit_code, summary.undo.proven) == (
        (130, True) if failing == "look_again" else (4, False)
    )


async def test_an_outer_timeout_is_a_cancellation(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path, canary_soak_seconds=30.0))
    with anyio.move_on_after(45.0) as scope:
        await trial.run()
    assert scope.cancelled_caught
    assert trial.production.traffic == {STABLE: 100}
    assert max(row.sequence for row in trial.production.requests) > 0


async def test_a_fault_in_the_callers_own_task_group_is_undone(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path, canary_soak_seconds=30.0))

    async def fail() -> None:
        await anyio.sleep(50.0)
        raise ValueError("the caller's own")

    with pytest.raises(ExceptionGroup) as caught:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            await trial.run()
    assert caught.group_contains(ValueError)
    assert trial.production.traffic == {STABLE: 100}


async def test_an_undo_that_cannot_be_proven_replaces_the_cancellation(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path, canary_soak_seconds=30.0), faults=(FAULTS["rollback-403"],))
    with (
        pytest.raises(UndoUnprovenError, match="gcloud run services update-traffic"),
        anyio.move_on_after(45.0),
    ):
        await trial.run()
    assert trial.production.traffic.get(CANARY)
    last = read_journal(tmp_path / "run" / "journal.jsonl")[-1]
    assert isinstance(last, TrainFinished)
    assert last.exit_code == 4


async def test_an_observer_that_raises_decides_nothing(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path))

    def observe(event: TrainEvent) -> None:
        raise ValueError("a broken progress bar")

    with pytest.warns(RuntimeWarning, match="a broken progress bar"):
        summary = await trial.run(observe)
    assert summary.passed
    assert (tmp_path / "run" / "summary.json").exists()


async def test_a_second_cancellation_does_not_cut_the_undo(tmp_path: Path) -> None:
    trial = Trial(live_config(tmp_path, canary_soak_seconds=30.0), layout_changes={"settle_seconds": 10.0})
    undone: list[UndoFinished] = []

    def observe(event: TrainEvent) -> None:
        if isinstance(event, UndoFinished):
            undone.append(event)

    with anyio.move_on_after(60.0), anyio.move_on_after(50.0), anyio.move_on_after(45.0):
        await trial.run(observe)
    assert [event.proven for event in undone] == [True]
    assert trial.production.traffic == {STABLE: 100}
