"""The source of metrics of a configuration, and the ready queries for Cloud Run."""

from cutover.config.config import CLOUD_MONITORING_SCRAPE_SECONDS, CutoverConfig
from cutover.config.values import parse_window
from cutover.http.outbound import Outbound
from cutover.production.metrics.budget_meter import BudgetMeter, BudgetQueries
from cutover.production.metrics.promql import PromqlApi
from cutover.production.metrics.revision_meter import RevisionMeter, RevisionQueries
from cutover.wiring.token_sources import Tokens

CLOUD_MONITORING_LAG_SECONDS = 240.0
"""Seconds until Cloud Monitoring shows a sample. Knative's own metrics are visible after up to 180 s; Google gives no figure for Cloud Run's."""

NOT_5XX = 'response_code_class!="5xx"'
"""The matcher of the requests that count as good."""


def promql_api(config: CutoverConfig, outbound: Outbound, tokens: Tokens) -> PromqlApi | None:
    """Return the server that a live train asks for metrics; None without one, and in a rehearsal."""
    if config.dry_run or not config.measures_budget:
        return None
    if config.slo_cloud_monitoring:
        url = f"{config.cloud_monitoring_url}/v1/projects/{config.project}/location/global/prometheus"
        return PromqlApi(outbound=outbound, url=url, token=tokens.cloud_run, by_get=True)
    token = tokens.prometheus if config.given("slo_prometheus_token") else None
    return PromqlApi(outbound=outbound, url=config.slo_prometheus_url, token=token)


def budget_meter(config: CutoverConfig, outbound: Outbound, tokens: Tokens) -> BudgetMeter | None:
    """Return the meter of the error budget; None if the train does not measure it."""
    api = promql_api(config, outbound, tokens)
    if api is None:
        return None
    by_google = config.slo_cloud_monitoring
    return BudgetMeter(
        api=api,
        objective=config.objective,
        queries=budget_queries(config),
        scrape_seconds=CLOUD_MONITORING_SCRAPE_SECONDS if by_google else config.slo_scrape_seconds,
        lag_seconds=CLOUD_MONITORING_LAG_SECONDS if by_google else 0.0,
        short_window=parse_window(config.slo_short_window),
        long_window=parse_window(config.slo_long_window),
    )


def budget_queries(config: CutoverConfig) -> BudgetQueries:
    """Return the queries of the configuration, or the ready ones for Cloud Run's request count."""
    if config.slo_all_query:
        return BudgetQueries(
            all_events=config.slo_all_query,
            good_events=config.slo_good_query,
            consumed_percent=config.slo_consumed_query,
            series=config.slo_series,
        )
    every, good = request_count(config), request_count(config, NOT_5XX)
    return BudgetQueries(
        all_events=f"sum(increase({every}[$window]))",
        good_events=f"sum(increase({good}[$window]))",
        series=every,
    )


def revision_meter(config: CutoverConfig, outbound: Outbound, tokens: Tokens) -> RevisionMeter | None:
    """Return the meter of the users' requests of each revision; None without a source, or without queries for a Prometheus server."""
    api = promql_api(config, outbound, tokens)
    queries = revision_queries(config)
    if api is None or queries is None:
        return None
    return RevisionMeter(
        api=api,
        queries=queries,
        min_requests=config.canary_metrics_min_requests,
        required=config.canary_metrics,
        lag_seconds=CLOUD_MONITORING_LAG_SECONDS if config.slo_cloud_monitoring else 0.0,
    )


def revision_queries(config: CutoverConfig) -> RevisionQueries | None:
    """Return the queries of the configuration, or the ready ones for Cloud Run; None without either."""
    if config.canary_all_query:
        return RevisionQueries(
            all_requests=config.canary_all_query,
            good_requests=config.canary_good_query,
            p95_ms=config.canary_latency_query,
        )
    if not config.slo_cloud_monitoring:
        return None
    own = 'revision_name="$revision"'
    every, good = request_count(config, own), request_count(config, own, NOT_5XX)
    times = selector("run_googleapis_com:request_latencies_bucket", config, own)
    return RevisionQueries(
        all_requests=f"sum(increase({every}[$window]))",
        # A revision that failed each request has no series of good ones.
        good_requests=f"sum(increase({good}[$window])) or vector(0)",
        p95_ms=f"histogram_quantile(0.95, sum by (le) (increase({times}[$window])))",
    )


def request_count(config: CutoverConfig, *matchers: str) -> str:
    """Return the selector of Cloud Run's count of requests to the service."""
    return selector("run_googleapis_com:request_count", config, *matchers)


def selector(metric: str, config: CutoverConfig, *matchers: str) -> str:
    """Return the selector of one metric of the Cloud Run service, as Google's mapping to PromQL names it."""
    own = (
        'monitored_resource="cloud_run_revision"',
        f'service_name="{config.service}"',
        f'location="{config.region}"',
    )
    return f"{metric}{{{','.join((*own, *matchers))}}}"
