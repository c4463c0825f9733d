"""The inputs of the error budget: one source, with all its parts."""

import pytest

from cutover.config.config import CutoverConfig
from cutover.errors import ConfigurationError
from cutover.model.error_budget import BudgetSource
from cutover.report.preview import describe

PROMETHEUS = {
    "SLO_PROMETHEUS_URL": "https://prometheus.example",
    "SLO_OBJECTIVE_PERCENT": "99.9",
    "SLO_GOOD_QUERY": "sum(increase(good[$window]))",
    "SLO_ALL_QUERY": "sum(increase(all[$window]))",
    "SLO_SERIES": "all",
}
GOOGLE = {"SLO_CLOUD_MONITORING": "1", "SLO_OBJECTIVE_PERCENT": "99.9"}
LIVE = {"DRY_RUN": "0", "AUTH_TOKEN": "marked", "CONTROL_ACCESS_TOKEN": "marked"}


def _config(env: dict[str, str]) -> CutoverConfig:
    return CutoverConfig.from_env(stable_revision="chat-1", canary_revision="chat-2", env=env)


def _problems(env: dict[str, str]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        _config(env)
    return list(caught.value.problems)


def _without(env: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in env.items() if key != name}


@pytest.mark.parametrize(
    ("env", "source"),
    [
        ({}, BudgetSource.DEFAULT),
        ({"SLO_ERROR_BUDGET_CONSUMED_PERCENT": "1"}, BudgetSource.OPERATOR),
        (PROMETHEUS, BudgetSource.REHEARSAL),
        ({**LIVE, **PROMETHEUS}, BudgetSource.PROMETHEUS),
        ({**LIVE, **GOOGLE}, BudgetSource.CLOUD_MONITORING),
    ],
)
def test_the_source_is_named(env: dict[str, str], source: BudgetSource) -> None:
    config = _config(env)
    assert config.budget.source is source
    assert config.facts()["budget"]["source"] == source.value  # type: ignore[index]
    assert (config.budget.consumed_percent is None) is source.measured


@pytest.mark.parametrize(
    "env",
    [
        {**PROMETHEUS, "SLO_ERROR_BUDGET_CONSUMED_PERCENT": "1"},
        {**PROMETHEUS, "SLO_ERROR_BUDGET_CONSUMED_PERCENT": "0"},
        {**PROMETHEUS, "SLO_CLOUD_MONITORING": "1"},
        {**GOOGLE, "SLO_ERROR_BUDGET_CONSUMED_PERCENT": "1", "SLO_PROMETHEUS_URL": "https://p.example"},
    ],
)
def test_two_sources_are_one_clear_problem(env: dict[str, str]) -> None:
    (problem,) = _problems(env)
    assert problem.endswith("each give the consumed error budget: set only one of them")
    names = {"SLO_ERROR_BUDGET_CONSUMED_PERCENT", "SLO_PROMETHEUS_URL", "SLO_CLOUD_MONITORING"} & env.keys()
    assert all(name in problem for name in names)


@pytest.mark.parametrize("name", ["SLO_OBJECTIVE_PERCENT", "SLO_GOOD_QUERY", "SLO_ALL_QUERY", "SLO_SERIES"])
def test_a_source_without_a_part_names_the_part(name: str) -> None:
    assert _problems(_without(PROMETHEUS, name)) == [f"{name} is missing: SLO_PROMETHEUS_URL needs it"]


@pytest.mark.parametrize("name", ["SLO_OBJECTIVE_PERCENT", "SLO_GOOD_QUERY", "SLO_ALL_QUERY", "SLO_SERIES"])
def test_a_part_without_a_source_is_no_silent_loss(name: str) -> None:
    (problem,) = _problems({name: PROMETHEUS[name]})
    assert problem == (
        f"{name}: no source of metrics is set; set SLO_PROMETHEUS_URL or SLO_CLOUD_MONITORING, or leave this out"
    )


@pytest.mark.parametrize("name", ["SLO_GOOD_QUERY", "SLO_ALL_QUERY"])
@pytest.mark.parametrize("query", ["sum(increase(x[30d]))", "sum(increase(x[]))"])
def test_a_query_for_one_window_alone_is_refused(name: str, query: str) -> None:
    (problem,) = _problems({**PROMETHEUS, name: query})
    assert problem.startswith(f"{name} must hold $window in place of a fixed window")
    assert "single quotes" in problem


@pytest.mark.parametrize("name", ["SLO_WINDOW", "SLO_SHORT_WINDOW", "SLO_LONG_WINDOW"])
@pytest.mark.parametrize("value", ["30", "30 d", "0d", "1y", "-1h", "1.5h", "٣d", "thirty days"])
def test_a_window_is_a_whole_number_and_a_unit(name: str, value: str) -> None:
    assert _problems({**PROMETHEUS, name: value})[0].startswith(f"{name} must be a window such as 30d")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30d", 2_592_000), ("6h", 21_600), ("5m", 300), ("2w", 1_209_600)]
)
def test_a_window_has_its_seconds(text: str, seconds: float) -> None:
    assert _config({**PROMETHEUS, "SLO_WINDOW": text}).objective.window == seconds


@pytest.mark.parametrize("value", ["100", "0", "-1", "abc"])
def test_an_objective_is_above_0_and_below_100(value: str) -> None:
    assert "SLO_OBJECTIVE_PERCENT" in _problems({**PROMETHEUS, "SLO_OBJECTIVE_PERCENT": value})[0]


def test_a_measured_budget_needs_a_ceiling_above_0() -> None:
    (problem,) = _problems({**PROMETHEUS, "MAX_ERROR_BUDGET_CONSUMED_PERCENT": "0"})
    assert problem.startswith("MAX_ERROR_BUDGET_CONSUMED_PERCENT must be more than 0 with SLO_PROMETHEUS_URL")
    assert _config({"MAX_ERROR_BUDGET_CONSUMED_PERCENT": "0"}).budget.holds


def test_a_ready_percentage_takes_the_place_of_the_good_events_alone() -> None:
    ready = {**_without(PROMETHEUS, "SLO_GOOD_QUERY"), "SLO_CONSUMED_QUERY": "slo:consumed:percent"}
    assert _config(ready).measures_budget
    (problem,) = _problems({**ready, "SLO_GOOD_QUERY": PROMETHEUS["SLO_GOOD_QUERY"]})
    assert (
        problem
        == "SLO_GOOD_QUERY and SLO_CONSUMED_QUERY both give the share of bad events: set only one of them"
    )
    assert _problems(_without(ready, "SLO_ALL_QUERY")) == [
        "SLO_ALL_QUERY is missing: SLO_PROMETHEUS_URL needs it"
    ]


def test_half_of_the_queries_of_cloud_monitoring_are_refused() -> None:
    (problem,) = _problems({**GOOGLE, "SLO_ALL_QUERY": PROMETHEUS["SLO_ALL_QUERY"]})
    assert problem.startswith("SLO_GOOD_QUERY is missing: give all queries of SLO_CLOUD_MONITORING, or none")


def test_cloud_monitoring_with_gcloud_needs_a_token(tmp_path: object) -> None:
    problems = _problems({**LIVE, **GOOGLE, "TRAFFIC_BACKEND": "gcloud"})
    assert any(
        problem.startswith("CLOUD_RUN_ACCESS_TOKEN is missing: SLO_CLOUD_MONITORING needs it")
        for problem in problems
    )
    token = _problems({**LIVE, **GOOGLE, "CLOUD_MONITORING_URL": "https://other.example"})
    assert "googleapis.com alone" in token[0]


def test_plain_http_to_another_machine_is_refused() -> None:
    (problem,) = _problems({**PROMETHEUS, "SLO_PROMETHEUS_URL": "http://prometheus.example:9090"})
    assert problem.startswith("SLO_PROMETHEUS_URL is plain http to prometheus.example")


def test_the_preview_says_where_the_budget_is_measured() -> None:
    assert any(
        line.startswith("budget    measured by https://prometheus.example")
        for line in describe(_config(PROMETHEUS))
    )
    assert not any(line.startswith("budget") for line in describe(_config({})))


USERS = {
    "CANARY_ALL_QUERY": 'sum(increase(all{revision="$revision"}[$window]))',
    "CANARY_GOOD_QUERY": 'sum(increase(good{revision="$revision"}[$window]))',
}


class TestUsers:
    def test_cloud_monitoring_has_ready_queries_and_prometheus_needs_them(self) -> None:
        assert _config({**GOOGLE, "CANARY_METRICS": "1"}).canary_metrics
        assert _problems({**PROMETHEUS, "CANARY_METRICS": "1"}) == [
            f"{name} is missing: the comparison of both revisions needs it" for name in USERS
        ]
        assert _config({**PROMETHEUS, **USERS, "CANARY_METRICS": "1"}).canary_metrics

    @pytest.mark.parametrize("env", [USERS, {"CANARY_METRICS": "1"}])
    def test_without_a_source_they_are_no_silent_loss(self, env: dict[str, str]) -> None:
        (problem,) = _problems(env)
        assert "no source of metrics is set" in problem
        assert all(name in problem for name in env)

    @pytest.mark.parametrize("place", ["$revision", "$window"])
    def test_a_query_holds_both_places(self, place: str) -> None:
        query = USERS["CANARY_ALL_QUERY"].replace(place, "x")
        (problem,) = _problems({**PROMETHEUS, **USERS, "CANARY_ALL_QUERY": query})
        assert problem.startswith(f"CANARY_ALL_QUERY must hold {place} in place of")
