"""From results to gates to a verdict: what is tolerated, what never is, and what it means that nobody looked."""

from collections.abc import Iterable

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.model.gates import BASELINE, GATES, Ceilings, Gate, exit_code, judge, may_go_on, reasons
from cutover.model.results import Check, SentinelTally, StepResult, StepStatus, combined_status

PASS, FAIL, ERROR, SKIP = StepStatus.PASS, StepStatus.FAIL, StepStatus.ERROR, StepStatus.SKIP
STEPS = tuple(step_id for _, step_ids, _ in GATES for step_id in step_ids)
TOLERANT = tuple((name, step_ids[0], ceiling) for name, step_ids, ceiling in GATES if ceiling)
STRICT = tuple((name, step_ids[0]) for name, step_ids, ceiling in GATES if not ceiling)


def step(step_id: str, *statuses: StepStatus, tolerable: bool = True) -> StepResult:
    """Return a step with a check for each status."""
    checks = tuple(
        Check(check_id=f"check-{number}", status=status, tolerable=tolerable)
        for number, status in enumerate(statuses or (PASS,))
    )
    return StepResult(step_id=step_id, status=combined_status(checks), checks=checks)


def skipped(step_id: str, *, by_configuration: bool) -> StepResult:
    return StepResult(step_id=step_id, status=SKIP, by_configuration=by_configuration)


def train(*changed: StepResult) -> list[StepResult]:
    """Return the results of a train that passes, but for these steps."""
    by_id = {step_id: step(step_id) for step_id in STEPS} | {result.step_id: result for result in changed}
    return list(by_id.values())


def gate(results: Iterable[StepResult], name: str, ceilings: Ceilings | None = None) -> Gate:
    return {gate.name: gate for gate in judge(list(results), ceilings or Ceilings())}[name]


def tally(broken: int) -> StepResult:
    drill = step("canary-rollback-drill")
    return attrs.evolve(drill, sentinels=(SentinelTally(change="traffic-5", streams=12, broken=broken),))


class TestGates:
    def test_where_everything_passes_every_gate_holds(self) -> None:
        gates = judge(train(), Ceilings())
        assert [found.name for found in gates] == [
            "preflight", "error_budget", "stream_smoke", "canary_drill", "route_flip", "promotion", "dual_run",
            "final_state", "broken_streams",
        ]  # fmt: skip
        assert all(found.holds for found in gates)
        assert reasons(gates) == ()

    def test_a_run_of_an_earlier_version_has_no_promotion(self) -> None:
        earlier = [result for result in train() if result.step_id != "canary-promotion"]
        found = gate(earlier, "promotion")
        assert (found.configured, found.holds) == (False, True)

    @pytest.mark.parametrize(("name", "step_id", "ceiling"), TOLERANT)
    @given(failed=st.integers(0, 6), tolerated=st.integers(0, 6), kind=st.sampled_from([FAIL, ERROR]))
    def test_so_many_failed_checks_are_truly_tolerated(
        self, name: str, step_id: str, ceiling: str, failed: int, tolerated: int, kind: StepStatus
    ) -> None:
        results = train(step(step_id, PASS, *[kind] * failed))
        ceilings = attrs.evolve(Ceilings(), **{ceiling: tolerated})
        found = gate(results, name, ceilings)
        assert (found.observed_failed, found.max_failed) == (failed, tolerated)
        assert found.holds == (failed <= tolerated)
        assert may_go_on(results, ceilings) == (failed <= tolerated)
        assert (reasons(judge(results, ceilings)) == ()) == (failed <= tolerated)

    @pytest.mark.parametrize(("name", "step_id", "ceiling"), TOLERANT)
    def test_an_unproven_change_is_never_tolerated(self, name: str, step_id: str, ceiling: str) -> None:
        results = train(step(step_id, FAIL, tolerable=False))
        ceilings = attrs.evolve(Ceilings(), **{ceiling: 1000})
        assert not gate(results, name, ceilings).holds
        assert not may_go_on(results, ceilings)
        assert reasons(judge(results, ceilings)) == (
            f"{name}: 1 failed, 1000 allowed, but one of them is never tolerated",
        )

    @pytest.mark.parametrize(("name", "step_id"), STRICT)
    def test_preflight_budget_and_final_state_tolerate_nothing(self, name: str, step_id: str) -> None:
        most = Ceilings(route_flip=9, stream_smoke=9, canary_drill=9, dual_run=9, broken_streams=9)
        assert not gate(train(step(step_id, ERROR)), name, most).holds

    def test_both_smokes_add_up_to_one_figure(self) -> None:
        results = train(step("stream-smoke-pre", FAIL, PASS), step("stream-smoke-post", ERROR, PASS))
        assert gate(results, "stream_smoke").observed_failed == 2
        assert not gate(results, "stream_smoke", Ceilings(stream_smoke=1)).holds
        assert gate(results, "stream_smoke", Ceilings(stream_smoke=2)).holds

    def test_a_step_that_failed_without_a_check_counts_once(self) -> None:
        broken = StepResult(step_id="route-flip", status=ERROR)
        assert gate(train(broken), "route_flip").observed_failed == 1

    def test_broken_streams_of_all_changes_add_up(self) -> None:
        flip = attrs.evolve(tally(1), step_id="route-flip")
        results = train(tally(1), flip)
        assert gate(results, "broken_streams").observed_failed == 2
        assert not gate(results, "broken_streams", Ceilings(broken_streams=1)).holds
        assert gate(results, "broken_streams", Ceilings(broken_streams=2)).holds

    def test_without_sentinels_nobody_asks_for_them(self) -> None:
        found = gate(train(), "broken_streams")
        assert (found.configured, found.holds) == (False, True)


class TestSkipped:
    def test_by_configuration_it_is_neutral(self) -> None:
        results = train(skipped("dual-run-diff", by_configuration=True))
        found = gate(results, "dual_run")
        assert (found.configured, found.evaluated, found.holds, found.refuses) == (False, False, True, False)
        assert reasons(judge(results, Ceilings())) == ()

    @pytest.mark.parametrize(
        ("name", "step_id"), [(name, step_id) for name, ids, _ in GATES for step_id in ids]
    )
    def test_a_step_skipped_after_a_failure_is_no_pass(self, name: str, step_id: str) -> None:
        results = train(skipped(step_id, by_configuration=False))
        found = gate(results, name)
        assert (found.configured, found.evaluated, found.holds) == (True, False, False)
        assert reasons(judge(results, Ceilings())) == (
            f"{name}: not evaluated, because not all of its steps ran",
        )

    def test_a_gate_without_results_neither_holds_nor_refuses(self) -> None:
        gates = judge([], Ceilings())
        assert not any(found.holds for found in gates if found.configured)
        assert may_go_on([], Ceilings())

    def test_a_failed_step_counts_although_the_other_step_was_skipped(self) -> None:
        results = train(step("stream-smoke-pre", FAIL), skipped("stream-smoke-post", by_configuration=False))
        assert reasons([gate(results, "stream_smoke")]) == ("stream_smoke: 1 failed, 0 allowed",)


class TestExitCode:
    @pytest.mark.parametrize(
        ("statuses", "touched", "undone", "code"),
        [
            ((FAIL,), False, True, 1),
            ((FAIL,), True, True, 1),
            ((ERROR,), False, True, 3),
            ((ERROR, PASS), False, True, 3),
            ((ERROR,), True, True, 1),
            ((ERROR, FAIL), False, True, 1),
            ((FAIL,), True, False, 4),
            ((ERROR,), True, False, 4),
            ((PASS,), True, False, 4),
            ((PASS,), False, True, 1),
        ],
    )
    def test_of_a_train_that_did_not_pass(
        self, statuses: tuple[StepStatus, ...], touched: bool, undone: bool, code: int
    ) -> None:
        assert exit_code([step("preflight", *statuses)], touched=touched, undone=undone) == code

    @pytest.mark.parametrize(("undone", "code"), [(True, 3), (False, 4)])
    def test_of_a_train_whose_baseline_was_unhealthy(self, undone: bool, code: int) -> None:
        """Shares were moved, and a sentinel broke too: stable is the cause, so nothing was judged."""
        checks = (
            Check(check_id="traffic-5", status=ERROR, kind=BASELINE, tolerable=False),
            Check(check_id="traffic-5-sentinels", status=FAIL),
        )
        result = StepResult(step_id="canary-rollback-drill", status=FAIL, checks=checks)
        assert exit_code([result], touched=True, undone=undone) == code


class TestResults:
    @pytest.mark.parametrize(
        ("statuses", "status"),
        [
            ((PASS, PASS), PASS),
            ((PASS, FAIL, ERROR), FAIL),
            ((PASS, ERROR), ERROR),
            ((PASS, SKIP), PASS),
            ((SKIP,), ERROR),
            ((), ERROR),
        ],
    )
    def test_a_step_is_what_its_checks_are(
        self, statuses: tuple[StepStatus, ...], status: StepStatus
    ) -> None:
        checks = [Check(check_id="c", status=each) for each in statuses]
        assert combined_status(checks) is status

    @pytest.mark.parametrize(
        ("streams", "broken", "bound"),
        [(12, 0, 0.25), (300, 0, 0.01), (2, 0, 1.0), (12, 1, None), (0, 0, None)],
    )
    def test_no_break_in_k_streams_bounds_the_rate(
        self, streams: int, broken: int, bound: float | None
    ) -> None:
        assert SentinelTally(change="c", streams=streams, broken=broken).break_rate_bound == bound
