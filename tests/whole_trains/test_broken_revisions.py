"""Somebody else deploys a revision that does not start: the split is served, so it is a warning, before the train and in it."""

from pathlib import Path

import attrs
import pytest

from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.simulation import VARIANTS, Fault
from cutover.simulation.exchange import Fate
from cutover.simulation.faults import Strike
from tests.support.embedded_trains import STABLE, EmbeddedTrain, live_config
from tests.support.unfinished_runs import scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

WARNING = "; WARNING: the newest revision "
SERVED = "the split is served all the same"


def rows(summary: CutoverSummary, step_id: str) -> dict[str, Check]:
    step = summary.step(step_id)
    assert step is not None
    return {check.check_id: check for check in step.checks}


def in_drill(fault: Fault, *, number: int) -> Fault:
    """Return the fault at this of the updates that give the canary a share."""
    (strike,) = fault.strikes
    scope = attrs.evolve(strike.scope, first=number, last=number)
    return attrs.evolve(fault, strikes=(Strike(scope, strike.effect),))


@pytest.mark.parametrize("latest", [False, True])
async def test_before_the_train_it_is_a_warning_of_the_preflight_and_of_the_drill(
    latest: bool, tmp_path: Path
) -> None:
    trial = EmbeddedTrain(
        live_config(tmp_path), faults=(VARIANTS["broken-revision"],), layout_changes={"latest": latest}
    )
    before = trial.production.traffic_spec
    summary = await trial.run()
    assert summary.passed, summary.reasons
    name = f"{trial.config.service}-00008-other"
    for step_id, check_id in (
        ("preflight", "traffic"),
        ("canary-rollback-drill", "status-pre"),
        ("canary-rollback-drill", "traffic-25"),
        ("canary-rollback-drill", "status-post"),
    ):
        found = rows(summary, step_id)[check_id]
        assert found.status is StepStatus.PASS
        assert f"{WARNING}{name} does not start (Revision '{name}' is not ready" in found.detail
        assert SERVED in found.detail
    # The lines of the steps, which a terminal and the summary show, hold it too.
    for step_id in ("preflight", "canary-rollback-drill"):
        step = summary.step(step_id)
        assert step is not None
        assert f"{WARNING}{name} does not start" in step.detail
    assert trial.production.traffic_spec == before


@pytest.mark.parametrize("name", ["broken-revision-in-drill", "broken-revision-starts-slowly"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
async def test_in_the_drill_it_is_a_warning_at_every_step(name: str, number: int, tmp_path: Path) -> None:
    trial = EmbeddedTrain(live_config(tmp_path), faults=(in_drill(VARIANTS[name], number=number),))
    summary = await trial.run()
    assert summary.passed, summary.reasons
    drill = rows(summary, "canary-rollback-drill")
    steps = [drill[f"traffic-{percent}"].detail for percent in (5, 25, 50, 100)]
    assert [WARNING in detail for detail in steps] == [step >= number for step in (1, 2, 3, 4)]
    state = " is being deployed (" if name.endswith("slowly") else " does not start ("
    assert state in steps[-1]


@pytest.mark.parametrize("seconds", [0.0, 240.0])
async def test_an_undo_and_a_recovery_prove_the_split_all_the_same(seconds: float, tmp_path: Path) -> None:
    broken = Fate(overtaken=True, overtaken_by_broken=True, overtaken_for=seconds)
    fault = in_drill(VARIANTS["broken-revision-in-drill"], number=1)
    fault = attrs.evolve(fault, strikes=(Strike(fault.strikes[0].scope, broken),))
    async with scene(tmp_path, fault) as found:
        await found.move_traffic()
        found.kill()
        recovery = await found.recover()
        assert recovery.closed, recovery
        assert found.simulation.traffic == {STABLE: 100}
