"""Whole trains with the gcloud backend. The outcome of a fault does not depend on the backend that writes the split."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from cutover.model.results import StepStatus
from cutover.model.train_events import CommandStarted, TrafficIntended, TrafficRead, TrainEvent
from cutover.simulation import VARIANTS, Fault, Operation, SimulatedProduction
from cutover.simulation.evidence_faults import EVIDENCE_FAULTS
from cutover.simulation.outcomes import DRILL_FAILS, PASSED
from cutover.simulation.traffic_faults import TRAFFIC_FAULTS
from cutover.wiring.run import run_production
from tests.support.embedded_trains import CANARY, STABLE
from tests.support.served_production import fake_gcloud, served

pytestmark = pytest.mark.anyio

FAULTS = {
    fault.name: fault
    for fault in (
        *TRAFFIC_FAULTS,
        *EVIDENCE_FAULTS,
        *(
            VARIANTS[name]
            for name in (
                "latest",
                "settles-later",
                "broken-revision",
                "broken-revision-in-drill",
                "broken-revision-starts-slowly",
                "untagged-canary",
                "load-balancer-only",
            )
        ),
    )
}
WITHOUT_DRY_RUN = {"patch-403": DRILL_FAILS, "validate-429": PASSED}
"""Outcomes that differ with gcloud, which cannot try the permission before something moves."""
QUICK: dict[str, Any] = {"canary_steps": (5, 100), "apply_route_flip": False, "layout": {"instances": 1}}


def targets(production: SimulatedProduction) -> Counter[object]:
    """Return the split that was asked for last, without an order."""
    return Counter((row.revision, row.percent, row.tag) for row in production.traffic_spec)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("name", sorted(FAULTS))
async def test_a_fault_ends_as_declared(name: str, tmp_path: Path) -> None:
    """With gcloud a fault ends as with the Admin API, for which `test_faults` checks the same declarations, but for a dry run."""
    fault: Fault = FAULTS[name]
    watch: dict[str, Any] = {
        "canary_soak_seconds": fault.watch_seconds,
        "flip_confirm_seconds": fault.watch_seconds,
    }
    with fake_gcloud(tmp_path), served(tmp_path, fault, **QUICK, **watch) as found:
        before = targets(found.production)
        summary = await run_production(found.live())
        failed = tuple(step.step_id for step in summary.steps if step.status.failed)
        if summary.undo is not None and not summary.undo.proven:
            failed += ("undo",)
        outcome = attrs.evolve(WITHOUT_DRY_RUN.get(name, fault.verify_only), routes="captured")
        assert (summary.exit_code, failed) == (outcome.exit_code, outcome.failed_steps), summary.reasons
        if outcome.traffic == "captured":
            assert targets(found.production) == before
        else:
            assert found.production.traffic == {CANARY if outcome.traffic == "canary" else STABLE: 100}


async def test_a_train_records_each_command_between_its_intent_and_its_proof(tmp_path: Path) -> None:
    events: list[TrainEvent] = []
    with fake_gcloud(tmp_path), served(tmp_path, **QUICK) as found:
        summary = await run_production(found.live(), observer=events.append)
        assert summary.passed, summary.reasons
        assert found.production.traffic == {STABLE: 100}
    kinds = [
        type(event) for event in events if isinstance(event, TrafficIntended | CommandStarted | TrafficRead)
    ]
    # 5 %, 100 %, and the rollback; the last read is the final state's
    moves = [TrafficIntended, CommandStarted, TrafficRead] * 3
    assert kinds == [*moves, TrafficRead]
    commands = [event for event in events if isinstance(event, CommandStarted)]
    assert commands[0].argv == (
        "gcloud", "run", "services", "update-traffic", found.config.service,
        f"--to-revisions={STABLE}=95,{CANARY}=5", f"--set-tags=canary={CANARY}", "--async",
        f"--project={found.config.project}", f"--region={found.config.region}",
    )  # fmt: skip
    assert len({event.pid for event in commands}) == 3


@pytest.mark.parametrize("mode", ["", "update-traffic:fails-after", "update-traffic:grandchild"])
async def test_an_interrupted_train_is_undone(mode: str, tmp_path: Path) -> None:
    with fake_gcloud(tmp_path, mode), served(tmp_path, **QUICK) as found:
        before = targets(found.production)
        events: list[TrainEvent] = []
        with anyio.CancelScope() as scope:

            def observe(event: TrainEvent) -> None:
                events.append(event)
                if isinstance(event, CommandStarted):
                    scope.cancel()

            await run_production(found.live(), observer=observe)
        assert scope.cancelled_caught
        assert [type(event).__name__ for event in events[-2:]] == ["UndoFinished", "TrainFinished"]
        assert getattr(events[-2], "proven", False), events[-2]
        assert targets(found.production) == before


@pytest.mark.parametrize("mode", ["fails", "html", "killed"])
async def test_a_gcloud_that_fails_is_no_evidence_and_no_change_is_sent(mode: str, tmp_path: Path) -> None:
    with fake_gcloud(tmp_path, f"all:{mode}"), served(tmp_path, **QUICK) as found:
        summary = await run_production(found.live())
        assert summary.exit_code == 3
        preflight = summary.step("preflight")
        assert preflight is not None
        rows = {row.check_id: row for row in preflight.checks}
        for name in ("traffic", "revision-stable", "revision-canary"):
            assert rows[name].status is StepStatus.ERROR
            assert rows[name].detail.startswith("gcloud run ")
        assert not any(row.operation is Operation.TRAFFIC_UPDATE for row in found.production.requests)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("mode", ["", "update-traffic:fails", "all:fails"])
async def test_a_train_leaves_no_token_behind(mode: str, tmp_path: Path) -> None:
    with fake_gcloud(tmp_path, mode) as calls, served(tmp_path, **QUICK) as found:
        summary = await run_production(found.live())
        assert summary.passed is (mode == "")
    assert found.config.output_dir is not None
    left = "".join(path.read_text("latin-1") for path in found.config.output_dir.rglob("*") if path.is_file())
    arguments = [" ".join(json.loads(line).get("argv", [])) for line in calls.read_text().splitlines()]
    assert "gcloud" in left
    assert not any(token in text for token in found.config.secrets for text in (left, *arguments))
