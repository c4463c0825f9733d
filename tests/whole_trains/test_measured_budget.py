"""A train that measures its error budget: before the first change, after each, and at the end."""

from collections.abc import Callable
from pathlib import Path

import attrs
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import BudgetRead
from cutover.record.journal import read_journal
from cutover.report.artifacts import summary_document
from cutover.simulation import SimulatedProduction
from cutover.wiring.embedded import simulated
from cutover.wiring.run import run_production
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, EmbeddedTrain, live_config
from tests.support.fake_prometheus import ALL, GOOD, SERIES, URL, USERS, FakePrometheus, answered

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time, pytest.mark.slow]

MEASURED = {
    "slo_prometheus_url": URL,
    "slo_prometheus_token": "marked-prometheus-token",
    "slo_objective_percent": 99.9,
    "slo_good_query": GOOD,
    "slo_all_query": ALL,
    "slo_series": SERIES,
    "canary_steps": (5, 100),
}
MOMENTS = ["slo-error-budget-gate", "traffic-5", "traffic-100", "route-flip", "final-state"]


@attrs.define(eq=False)
class Measured:
    """A train, its production, and the Prometheus server that it asks."""

    folder: Path
    server: FakePrometheus = attrs.field(factory=FakePrometheus)
    changes: dict[str, object] = attrs.field(factory=dict)
    production: SimulatedProduction = attrs.field(init=False)

    async def run(self) -> CutoverSummary:
        config = live_config(self.folder, **{**MEASURED, **self.changes})
        trial = EmbeddedTrain(config)
        self.production = trial.production
        production = simulated(config, self.production, clock=EventLoopClock())
        inner = production.new_client

        def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
            client = inner(limits)
            client._transport = attrs.evolve(self.server, elsewhere=client._transport)
            return client

        return await run_production(attrs.evolve(production, new_client=new_client))


def after_the_first(
    count: int, answer: Callable[[str], httpx.Response | None]
) -> Callable[[str], httpx.Response | None]:
    """Return answers that begin with the reading after this many."""
    asked = 0

    def override(query: str) -> httpx.Response | None:
        nonlocal asked
        asked += 1
        # The first reading has no figures since the train began, which are two queries.
        return answer(query) if asked > 10 * count - 2 else None

    return override


def budget_checks(summary: CutoverSummary) -> list[tuple[str, str]]:
    return [
        (check.check_id, check.status.value)
        for step in summary.steps
        for check in step.checks
        if check.check_id.endswith("error-budget")
    ]


async def test_a_train_within_its_budget_passes_and_journals_each_reading(tmp_path: Path) -> None:
    trial = Measured(tmp_path, FakePrometheus(bad=20))
    summary = await trial.run()
    assert (summary.passed, summary.reasons) == (True, ())
    events = read_journal(tmp_path / "run" / "journal.jsonl")
    readings = [event for event in events if isinstance(event, BudgetRead)]
    assert [event.moment for event in readings] == MOMENTS
    assert fold(events).budget_readings == tuple(readings)
    gate = summary_document(summary)["gates"]["error_budget"]  # type: ignore[index]
    assert (gate["observed_consumed_percent"], gate["max_consumed_percent"]) == (pytest.approx(2.0), 5.0)
    assert (gate["source"], len(gate["readings"])) == ("prometheus", 5)
    assert gate["readings"][-1]["spent_percent"] is not None
    page = (tmp_path / "run" / "SUMMARY.md").read_text()
    assert "## Error budget, measured" in page
    assert "| final\\-state | 2 % |" in page or "| final-state | 2 % |" in page


async def test_over_the_ceiling_before_the_train_nothing_moves(tmp_path: Path) -> None:
    trial = Measured(tmp_path, FakePrometheus(bad=51))
    summary = await trial.run()
    assert (summary.passed, summary.exit_code) == (False, 1)
    assert not [entry for entry in trial.production.requests if entry.operation in CHANGES]
    assert budget_checks(summary) == [("error-budget", "fail")]


async def test_an_unknown_budget_before_the_train_is_no_evidence_and_nothing_moves(tmp_path: Path) -> None:
    trial = Measured(tmp_path, FakePrometheus(override=lambda _: answered()))
    summary = await trial.run()
    assert (summary.passed, summary.exit_code) == (False, 3)
    assert not [entry for entry in trial.production.requests if entry.operation in CHANGES]
    assert "no series" in summary.causes[0]


# the test is about the train, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(
    ("readings", "moment"),
    [(1, "traffic-5-error-budget"), (3, "route-flip-error-budget"), (4, "error-budget")],
)
@pytest.mark.parametrize(
    ("query", "answer", "status"),
    [(GOOD.partition("[")[0], answered("900000"), "fail"), ("time()", answered("NaN"), "error")],
    ids=["over", "unknown"],
)
async def test_a_reading_that_does_not_hold_later_ends_the_train_and_undoes_it(
    tmp_path: Path, readings: int, moment: str, query: str, answer: httpx.Response, status: str
) -> None:
    override = after_the_first(readings, lambda asked: answer if asked.startswith(query) else None)
    trial = Measured(tmp_path, FakePrometheus(override=override))
    summary = await trial.run()
    assert (summary.passed, summary.exit_code) == (False, 1)
    assert budget_checks(summary)[-1] == (moment, status)
    assert trial.production.traffic == {STABLE: 100}
    assert CANARY not in trial.production.traffic
    assert set(trial.production.route_targets().values()) <= {None, "legacy"}


async def test_after_a_promotion_the_budget_is_measured_too(tmp_path: Path) -> None:
    trial = Measured(tmp_path, changes={"promote": True})
    summary = await trial.run()
    assert summary.passed
    assert [event.moment for event in summary.budget_readings] == [*MOMENTS[:4], "promotion", "final-state"]


async def test_the_token_reaches_the_server_and_no_file(tmp_path: Path) -> None:
    trial = Measured(tmp_path)
    await trial.run()
    assert {request.headers["authorization"] for request in trial.server.requests} == {
        "Bearer marked-prometheus-token"
    }
    for file in (tmp_path / "run").rglob("*"):
        assert not file.is_file() or b"marked-prometheus-token" not in file.read_bytes(), file


def users_checks(summary: CutoverSummary) -> dict[str, tuple[str, str]]:
    """Return the checks of the users' requests: id -> status and detail."""
    return {
        check.check_id: (check.status.value, check.detail)
        for step in summary.steps
        for check in step.checks
        if check.check_id.endswith("-users")
    }


# the tests are about the train, not the event loop
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
class TestUsers:
    async def test_a_canary_that_serves_its_users_as_stable_does_passes(self, tmp_path: Path) -> None:
        server = FakePrometheus(users={STABLE: (4000, 8, 900.0), CANARY: (200, 0, 950.0)})
        summary = await Measured(tmp_path, server, {**USERS, "canary_metrics": True, "promote": True}).run()
        assert summary.passed
        checks = users_checks(summary)
        assert [(name, status) for name, (status, _) in checks.items()] == [
            ("traffic-5-users", "pass"), ("traffic-100-users", "pass"), ("promotion-users", "pass"),
        ]  # fmt: skip
        assert "0 of 200 requests failed, p95 950 ms; stable: 8 of 4000" in checks["traffic-5-users"][1]
        assert "stable has no share" in checks["promotion-users"][1]

    @pytest.mark.parametrize("canary", [(200, 40, 900.0), (200, 0, 2000.0)], ids=["fails", "slow"])
    async def test_a_canary_that_is_worse_for_its_users_is_rolled_back(
        self, tmp_path: Path, canary: tuple[float, float, float]
    ) -> None:
        trial = Measured(
            tmp_path,
            FakePrometheus(users={STABLE: (4000, 8, 900.0), CANARY: canary}),
            {**USERS, "max_canary_slower_percent": 50.0},
        )
        summary = await trial.run()
        assert (summary.passed, summary.exit_code) == (False, 1)
        assert [status for status, _ in users_checks(summary).values()] == ["fail"]
        assert trial.production.traffic == {STABLE: 100}

    @pytest.mark.parametrize(("required", "passed"), [(True, False), (False, True)])
    async def test_too_few_requests_are_inconclusive_and_pass_only_where_they_are_not_required(
        self, tmp_path: Path, required: bool, passed: bool
    ) -> None:
        server = FakePrometheus(users={STABLE: (4000, 8, 900.0), CANARY: (99, 0, 900.0)})
        summary = await Measured(tmp_path, server, {**USERS, "canary_metrics": required}).run()
        assert summary.passed is passed
        status, detail = users_checks(summary)["traffic-5-users"]
        assert status == ("error" if required else "skip")
        assert "inconclusive: the canary has fewer than 100 requests in the window" in detail

    async def test_a_revision_without_metrics_is_inconclusive(self, tmp_path: Path) -> None:
        server = FakePrometheus(
            users={STABLE: (4000, 8, 900.0)},
            override=lambda query: answered() if f'"{CANARY}"' in query else None,
        )
        summary = await Measured(tmp_path, server, {**USERS, "canary_metrics": True}).run()
        assert not summary.passed
        assert f"inconclusive: {CANARY}: " in users_checks(summary)["traffic-5-users"][1]

    async def test_a_canary_without_a_good_request_is_inconclusive_and_the_remedy_is_named(
        self, tmp_path: Path
    ) -> None:
        def no_good(query: str) -> httpx.Response | None:
            return answered() if "good{" in query and f'"{CANARY}"' in query else None

        server = FakePrometheus(users={STABLE: (4000, 8, 900.0), CANARY: (200, 200, 900.0)}, override=no_good)
        summary = await Measured(tmp_path, server, {**USERS, "canary_metrics": True}).run()
        status, detail = users_checks(summary)["traffic-5-users"]
        assert (summary.passed, status) == (False, "error")
        assert (
            "no series: 200 requests were counted, and no good one; if each of them may have failed, let CANARY_GOOD_QUERY say 0 then: "
            "end it with `or vector(0)`" in detail
        )

    async def test_both_revisions_are_asked_for_the_same_window_and_moment(self, tmp_path: Path) -> None:
        server = FakePrometheus(users={STABLE: (4000, 8, 900.0), CANARY: (200, 0, 950.0)})
        await Measured(tmp_path, server, {**USERS, "canary_steps": (5,), "canary_soak_seconds": 30.0}).run()
        asked = [(query, time) for query, time in server.asked if "revision=" in query]
        assert len(asked) == 6
        assert len({time for _, time in asked}) == 1
        assert len({query.partition("[")[2].strip(")") for query, _ in asked}) == 1
