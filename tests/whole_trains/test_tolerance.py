"""What a whole train tolerates: failed observations up to their figure, and never a change that was not proven."""

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import StepStarted, TrafficRead, TrainEvent
from cutover.simulation import FAULTS, Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import STREAMS, Reply, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Rewrite, Role, Scope, Strike
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.full_disk import disk_with_room_for

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

BROKEN = Refuse(problem(404, "not_found", "Not found."))


def fault(scope: Scope, effect: Effect = BROKEN) -> Fault:
    return Fault(
        name="custom", sentence="Custom.", strikes=(Strike(scope, effect),), outcome=Outcome(exit_code=1)
    )


def checks(summary: CutoverSummary, step_id: str) -> dict[str, Check]:
    step = summary.step(step_id)
    assert step is not None
    return {check.check_id: check for check in step.checks}


ONE_SMOKE_ROW = fault(Scope(operations=frozenset({Operation.CHATS_STREAM}), first=1, last=1))
ONE_EVALUATION = fault(
    Scope(operations=frozenset({Operation.ROUTE_EVALUATE}), first=1, last=1),
    Refuse(problem(422, "invalid_request", "Unknown path.")),
)
ONE_DRILL_ROW = fault(Scope(operations=STREAMS, sites=frozenset({Site.TAG}), first=1, last=1))


@pytest.mark.parametrize(
    ("variable", "struck", "gate", "row"),
    [
        (
            "max_stream_smoke_failures",
            ONE_SMOKE_ROW,
            "stream_smoke",
            ("stream-smoke-pre", "pre-cutover-chats-stream"),
        ),
        ("max_route_flip_failures", ONE_EVALUATION, "route_flip", ("route-flip", "evaluate-")),
        (
            "max_canary_drill_failures",
            ONE_DRILL_ROW,
            "canary_drill",
            ("canary-rollback-drill", "canary-direct"),
        ),
        (
            "max_dual_run_failures",
            FAULTS["legacy-differs"],
            "dual_run",
            ("dual-run-diff", ""),
        ),
    ],
)
async def test_a_failed_row_is_tolerated_up_to_its_figure(
    variable: str, struck: Fault, gate: str, row: tuple[str, str], tmp_path: Path
) -> None:
    for tolerated in (0, 1):
        config = live_config(tmp_path / str(tolerated), run_dual_run=True, **{variable: tolerated})
        trial = EmbeddedTrain(config, faults=(struck,))
        summary = await trial.run()
        assert summary.passed is bool(tolerated), summary.reasons
        found = summary.gate(gate)
        assert (found.observed_failed, found.max_failed, found.holds) == (1, tolerated, bool(tolerated))
        rows = checks(summary, row[0])
        (failing,) = (check_id for check_id in rows if rows[check_id].status.failed)
        assert failing.startswith(row[1])
        assert trial.production.traffic == {STABLE: 100}


async def test_the_two_smokes_add_up_to_one_figure(tmp_path: Path) -> None:
    """One row before and one after are two."""
    pre = ONE_SMOKE_ROW.strikes[0]
    post = Strike(attrs.evolve(pre.scope, flipped=True, role=Role.STABLE), BROKEN)
    both = attrs.evolve(ONE_SMOKE_ROW, strikes=(pre, post))
    summary = await EmbeddedTrain(live_config(tmp_path, max_stream_smoke_failures=1), faults=(both,)).run()
    assert summary.gate("stream_smoke").observed_failed == 2
    assert summary.reasons[0] == "stream_smoke: 2 failed, 1 allowed"
    assert summary.undo is not None
    assert summary.undo.proven


@pytest.mark.parametrize("name", ["promotion-403", "update-ignored", "override-403", "rollback-403"])
async def test_a_change_that_was_not_proven_is_never_tolerated(name: str, tmp_path: Path) -> None:
    figures = dict.fromkeys(
        ("max_route_flip_failures", "max_stream_smoke_failures", "max_canary_drill_failures"), 1000
    )
    summary = await EmbeddedTrain(live_config(tmp_path, **figures), faults=(FAULTS[name],)).run()
    assert not summary.passed


class TestSentinels:
    async def test_one_that_breaks_is_counted_and_stops_the_train(self, tmp_path: Path) -> None:
        config = live_config(tmp_path, held_streams=3, canary_soak_seconds=5.0)
        trial = EmbeddedTrain(config, faults=(_breaks_sentinels(),))
        summary = await trial.run()
        assert summary.exit_code == 1
        gate = summary.gate("broken_streams")
        assert (gate.observed_failed > 0, gate.max_failed, gate.holds) == (True, 0, False)
        assert any(reason.startswith("broken_streams: ") for reason in summary.reasons)
        broken = [tally for tally in summary.sentinels if tally.broken]
        assert broken[0].change == "traffic-5"
        assert broken[0].break_rate_bound is None
        assert "404" in broken[0].details[0]
        assert summary.step("route-flip").status is StepStatus.SKIP  # type: ignore[union-attr]

    async def test_those_that_may_break_are_counted_and_tolerated(self, tmp_path: Path) -> None:
        config = live_config(tmp_path, held_streams=3, canary_soak_seconds=5.0, max_broken_streams=1000)
        summary = await EmbeddedTrain(config, faults=(_breaks_sentinels(),)).run()
        gate = summary.gate("broken_streams")
        assert gate.observed_failed > 0
        assert gate.holds
        assert summary.passed, summary.reasons

    async def test_each_change_has_a_tally_and_whole_ones_a_bound(self, tmp_path: Path) -> None:
        config = live_config(tmp_path, held_streams=2, canary_soak_seconds=3.0, flip_confirm_seconds=3.0)
        summary = await EmbeddedTrain(config).run()
        assert summary.passed
        tallies = {tally.change: tally for tally in summary.sentinels}
        assert list(tallies) == [
            "traffic-5",
            "traffic-25",
            "traffic-50",
            "traffic-100",
            "rollback",
            "route-flip",
        ]
        assert tallies["traffic-5"].streams == 2 + 2 + 3
        assert tallies["rollback"].streams == 2 + 2
        assert tallies["traffic-5"].break_rate_bound == 3 / 7
        assert dict(tallies["traffic-100"].revisions).get(CANARY)


def _breaks_sentinels() -> Fault:
    """Break the third stream at the front door: the smoke has two, then the first sentinel comes."""
    return fault(Scope(operations=STREAMS, sites=frozenset({Site.FRONT}), first=3, last=3))


class TestLatency:
    @pytest.mark.parametrize(("allowed", "passes"), [(100.0, False), (1000.0, True)])
    async def test_a_service_that_is_slower_than_may_be_fails_the_gate(
        self, allowed: float, passes: bool, tmp_path: Path
    ) -> None:
        def slow(reply: Reply) -> Reply:
            return attrs.evolve(reply, held=reply.held + 0.5)

        scope = Scope(operations=STREAMS | {Operation.PAGE, Operation.ACCOUNT}, sites=frozenset({Site.FRONT}))
        config = live_config(tmp_path, run_dual_run=True, max_p95_latency_delta_ms=allowed)
        summary = await EmbeddedTrain(config, faults=(fault(scope, Rewrite(slow)),)).run()
        assert summary.passed is passes, summary.reasons
        row = checks(summary, "dual-run-diff")["p95-latency"]
        assert row.status is (StepStatus.PASS if passes else StepStatus.FAIL)
        assert row.detail.startswith("the new service's p95 is +500 ms")


class TestFullDisk:
    async def test_the_train_goes_no_further_and_the_undo_goes_on(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        with pytest.warns(RuntimeWarning) as warned:
            summary = await _ride_onto_a_full_disk(
                trial,
                lambda event: (
                    isinstance(event, TrafficRead) and event.found.served() == {STABLE: 95, CANARY: 5}
                ),
            )
        said = [str(warning.message) for warning in warned]
        assert any(line.startswith("the journal cannot be written") for line in said)
        # The first artifact that is missing is named.
        assert any(line.startswith("canary-rollback-drill/") and "cannot be written" in line for line in said)
        assert summary.exit_code == 1
        assert trial.production.traffic == {STABLE: 100}
        drill = checks(summary, "canary-rollback-drill")
        assert drill["traffic-25"].status is StepStatus.FAIL
        assert "the journal cannot be written" in drill["traffic-25"].detail
        assert "traffic-50" not in drill
        assert summary.step("route-flip").status is StepStatus.SKIP  # type: ignore[union-attr]
        assert not any(row.operation is Operation.ROUTE_OVERRIDE for row in trial.production.requests)

    async def test_a_disk_that_fills_up_before_the_drill_lets_nothing_be_moved(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        with pytest.warns(RuntimeWarning, match="cannot be written"):
            summary = await _ride_onto_a_full_disk(
                trial, lambda event: isinstance(event, StepStarted) and event.step_id == "stream-smoke-pre"
            )
        assert not summary.passed
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        assert drill.status is StepStatus.SKIP
        assert "the journal cannot be written" in drill.detail
        assert summary.exit_code == 3
        changes = {Operation.TRAFFIC_UPDATE, Operation.ROUTE_OVERRIDE}
        assert not any(row.operation in changes for row in trial.production.requests)

    async def test_an_intent_that_cannot_be_written_down_is_not_carried_out_and_nothing_is_undone(
        self, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        with pytest.warns(RuntimeWarning, match="cannot be written"):
            summary = await _ride_onto_a_full_disk(
                trial,
                lambda event: isinstance(event, StepStarted) and event.step_id == "canary-rollback-drill",
            )
        assert summary.exit_code == 3
        assert summary.undo is None
        assert checks(summary, "canary-rollback-drill")["traffic-5"].status is StepStatus.FAIL
        changes = {Operation.TRAFFIC_UPDATE, Operation.ROUTE_OVERRIDE}
        assert not any(row.operation in changes for row in trial.production.requests)


async def _ride_onto_a_full_disk(
    trial: EmbeddedTrain, full_at: Callable[[TrainEvent], bool]
) -> CutoverSummary:
    """Run a train; from the first event on of which this holds, the disk has no room."""
    full = disk_with_room_for(0)
    entered: list[TrainEvent] = []

    def observe(event: TrainEvent) -> None:
        if not entered and full_at(event):
            entered.append(event)
            full.__enter__()

    try:
        return await trial.run(observe)
    finally:
        if entered:
            full.__exit__(None, None, None)
