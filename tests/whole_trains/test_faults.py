"""Every fault of the simulation ends as its declaration says, on virtual time.

On asyncio each of them is tried, on trio every third one; ``CUTOVER_MATRIX=whole`` tries each there too.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import attrs
import pytest

from cutover.model.traffic_state import TrafficTarget
from cutover.simulation import FAULTS, VARIANTS, Fault, Outcome
from tests.support.embedded_trains import CANARY, STABLE, USUAL_JUDGEMENT, EmbeddedTrain, live_config
from tests.support.faulty_trains import WHOLE, run_on_virtual_time

pytestmark = pytest.mark.many_instances
TRIO_EVERY = 1 if WHOLE else 3


def _cases(faults: Iterable[str]) -> Iterator[object]:
    """Yield a test for each fault, with the flip applied and only verified: the event loop, the fault, and True if it is applied."""
    cases = [(name, apply) for name in sorted(faults) for apply in (True, False)]
    for loop, chosen in (("asyncio", cases), ("trio", cases[::TRIO_EVERY])):
        for name, apply in chosen:
            yield pytest.param(loop, name, apply, id=f"{loop}-{name}-{'apply' if apply else 'verify'}")


def _train(fault: Fault, directory: Path, *, apply: bool) -> EmbeddedTrain:
    config = live_config(
        directory,
        apply_route_flip=apply,
        run_dual_run=fault.dual_run,
        canary_soak_seconds=fault.watch_seconds,
        flip_confirm_seconds=fault.watch_seconds,
        **(USUAL_JUDGEMENT if fault.weighed else {}),
    )
    return EmbeddedTrain(config, faults=(fault,))


def _traffic_as(outcome: Outcome, before: object) -> object:
    """Return the served traffic that the outcome declares."""
    return {"canary": {CANARY: 100}, "stable": {STABLE: 100}, "captured": before}[outcome.traffic]


def _routes(train: EmbeddedTrain) -> list[dict[str, object]]:
    """Return the overrides of stable's instances, with any split."""
    return [row for row in train.production.routes if row["revision"] == STABLE]


@pytest.mark.parametrize(("loop", "name", "apply"), list(_cases(FAULTS)))
def test_a_fault_ends_as_declared(loop: str, name: str, apply: bool, tmp_path: Path) -> None:
    run_on_virtual_time(loop, partial(_ends_as_declared, FAULTS[name], apply, tmp_path))


async def _ends_as_declared(fault: Fault, apply: bool, tmp_path: Path) -> None:
    outcome = fault.outcome if apply else fault.verify_only
    train = _train(fault, tmp_path, apply=apply)
    before, traffic = _routes(train), train.production.traffic
    summary = await train.run()
    failed = tuple(step.step_id for step in summary.steps if step.status.failed)
    if summary.undo is not None and not summary.undo.proven:
        failed += ("undo",)
    assert (summary.exit_code, failed) == (outcome.exit_code, outcome.failed_steps), summary.reasons
    assert train.production.traffic == _traffic_as(outcome, traffic)
    if outcome.routes == "flipped":
        assert set(train.production.route_targets().values()) == {"rust_shell"}
    else:
        assert _routes(train) == before


@pytest.mark.anyio
@pytest.mark.virtual_time
@pytest.mark.parametrize("name", sorted(name for name, fault in FAULTS.items() if fault.with_sentinels))
async def test_a_fault_that_only_sentinels_show_ends_as_declared(name: str, tmp_path: Path) -> None:
    fault = FAULTS[name]
    assert fault.with_sentinels is not None
    trial = EmbeddedTrain(live_config(tmp_path, held_streams=2), faults=(fault,))
    before = trial.production.traffic
    summary = await trial.run()
    failed = tuple(step.step_id for step in summary.steps if step.status.failed)
    assert (summary.exit_code, failed) == (
        fault.with_sentinels.exit_code,
        fault.with_sentinels.failed_steps,
    ), summary.reasons
    assert trial.production.traffic == _traffic_as(fault.with_sentinels, before)
    assert set(trial.production.route_targets().values()) == {None}


@pytest.mark.parametrize(("loop", "name", "apply"), list(_cases(VARIANTS)))
def test_an_unusual_but_correct_production_passes(loop: str, name: str, apply: bool, tmp_path: Path) -> None:
    run_on_virtual_time(loop, partial(_passes, VARIANTS[name], apply, tmp_path))


async def _passes(variant: Fault, apply: bool, tmp_path: Path) -> None:
    train = _train(variant, tmp_path, apply=apply)
    summary = await train.run()
    assert summary.exit_code == 0, summary.reasons
    assert train.production.traffic == {STABLE: 100}
    if apply:
        assert set(train.production.route_targets().values()) == {"rust_shell"}
    captured = EmbeddedTrain(
        attrs.evolve(train.config, output_dir=tmp_path / "other"), faults=train.faults
    ).production
    assert train.production.traffic_spec == captured.traffic_spec


def test_every_fault_is_declared() -> None:
    assert len(FAULTS) >= 45
    assert all(fault.sentence and fault.outcome for fault in FAULTS.values())
    assert TrafficTarget(revision=None).percent == 0
