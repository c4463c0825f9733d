"""What if: every fault of the simulation ends as its declaration says, on both event loops, on virtual time."""

from pathlib import Path

import attrs
import pytest

from cutover.model.traffic_state import TrafficTarget
from cutover.simulation import FAULTS, VARIANTS, Fault, Outcome
from tests.support.embedded_trains import CANARY, STABLE, Trial, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def _trial(fault: Fault, directory: Path, *, apply: bool) -> Trial:
    config = live_config(
        directory,
        apply_route_flip=apply,
        run_dual_run=fault.dual_run,
        canary_soak_seconds=fault.watch_seconds,
        flip_confirm_seconds=fault.watch_seconds,
    )
    return Trial(config, faults=(fault,))


def _traffic_as(outcome: Outcome) -> object:
    """What the declared traffic means here: as served."""
    if outcome.traffic == "canary":
        return {CANARY: 100}
    return {STABLE: 100}


def _routes(trial: Trial) -> list[dict[str, object]]:
    """The overrides of stable's instances, whoever serves."""
    return [row for row in trial.production.routes if row["revision"] == STABLE]


@pytest.mark.parametrize("apply", [True, False], ids=["apply", "verify"])
@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_a_fault_ends_as_declared(name: str, apply: bool, tmp_path: Path) -> None:
    fault = FAULTS[name]
    outcome = fault.outcome if apply else fault.verify_only
    trial = _trial(fault, tmp_path, apply=apply)
    before = _routes(trial)
    summary = await trial.run()
    failed = tuple(step.step_id for step in summary.steps if step.status.failed)
    if summary.undo is not None and not summary.undo.proven:
        failed += ("undo",)
    assert (summary.exit_code, failed) == (outcome.exit_code, outcome.failed_steps), summary.reasons
    assert trial.production.traffic == _traffic_as(outcome)
    if outcome.routes == "flipped":
        assert set(trial.production.route_targets().values()) == {"rust_shell"}
    else:
        assert _routes(trial) == before


@pytest.mark.parametrize("apply", [True, False], ids=["apply", "verify"])
@pytest.mark.parametrize("name", sorted(VARIANTS))
async def test_what_is_unusual_and_right_passes(name: str, apply: bool, tmp_path: Path) -> None:
    trial = _trial(VARIANTS[name], tmp_path, apply=apply)
    summary = await trial.run()
    assert summary.exit_code == 0, summary.reasons
    assert trial.production.traffic == {STABLE: 100}
    if apply:
        assert set(trial.production.route_targets().values()) == {"rust_shell"}
    captured = Trial(
        attrs.evolve(trial.config, output_dir=tmp_path / "other"), faults=trial.faults
    ).production
    assert trial.production.traffic_spec == captured.traffic_spec


def test_every_fault_is_declared() -> None:
    assert len(FAULTS) >= 45
    assert all(fault.sentence and fault.outcome for fault in FAULTS.values())
    assert TrafficTarget(revision=None).percent == 0
