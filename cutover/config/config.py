"""The configuration of a run: one frozen value. Each field with a help text is an input.

To add an input, add its field here and use it in its step: the step's plan takes it by a field of the same name. The module is long
because every input stands here with its default and its help.
"""

import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import attrs

from cutover.config import problems, values
from cutover.config.inputs import (
    Input,
    count_field,
    flag_field,
    holds_field,
    inputs_of,
    number_field,
    optional_text_field,
    path_field,
    secret_command_field,
    secret_field,
    secret_file_field,
    steps_field,
    text_field,
    token_command_field,
    token_field,
    token_file_field,
    url_field,
    written,
)
from cutover.config.manifest import read_manifest
from cutover.config.sources import Source, open_sources
from cutover.errors import ConfigurationError
from cutover.http.secrets import with_parts
from cutover.model.error_budget import BudgetSource, ErrorBudget, Objective
from cutover.model.gates import Ceilings
from cutover.model.manifest import ManifestEntry
from cutover.record.state_address import state_url_problem

RUNS = Path("storage/app/production-stream-cutover")
"""The folder in which each run gets a new run directory, unless OUTPUT_DIR names the run directory."""
GOOGLE_API = "https://run.googleapis.com"
GOOGLE_TOKEN_INFO = "https://oauth2.googleapis.com/tokeninfo"  # noqa: S105  an address
"""The page where Google tells how long an access token lives (``expires_in``)."""
GOOGLE_STORAGE_API = "https://storage.googleapis.com"
GOOGLE_MONITORING = "https://monitoring.googleapis.com"
CLOUD_MONITORING_SCRAPE_SECONDS = 60.0
"""Seconds between two samples of Cloud Monitoring's series of Cloud Run."""
DAY = 86_400.0
"""Seconds in a day."""
TOLERATED = "failed checks that are tolerated"
ALL_NEEDS = frozenset(
    {
        "control_access_token",
        "auth_token",
        "cloud_run_access_token",
        "legacy_auth_token",
        "gcloud",
        "output_dir",
        "slo_prometheus_token",
    }
)
"""Everything from outside that a live run can use: the tokens, by field, the program gcloud, and a folder that can be written."""


@attrs.frozen(kw_only=True)
class CutoverConfig:
    """The inputs of a run: what to cut over, how carefully, and where the evidence goes.

    `cutover run --help` explains each input.

    Raises:
        ConfigurationError: At least one input is wrong; every problem is listed.
    """

    stable_revision: str
    """The Cloud Run revision that serves now."""
    canary_revision: str
    """The revision that is drilled."""
    dry_run: bool = flag_field(default=True, help="1: rehearse, and change nothing; 0: live")
    base_url: str = url_field(default="https://openagents.com", help="URL of the service whose streams move")
    control_access_token: str = token_field(help="for the route-split API; required when DRY_RUN=0")
    control_access_token_file: str = token_file_field("CONTROL_ACCESS_TOKEN")
    control_access_token_command: str = token_command_field("CONTROL_ACCESS_TOKEN")
    auth_token: str = token_field(help="for the streams; required when DRY_RUN=0")
    auth_token_file: str = token_file_field("AUTH_TOKEN")
    auth_token_command: str = token_command_field("AUTH_TOKEN")
    apply_route_flip: bool = flag_field(default=False, help="1: set the overrides; 0: only verify them")
    project: str = text_field(default="openagentsgemini", rule=values.project, help="Cloud Run project")
    region: str = text_field(default="us-central1", rule=values.name, help="Cloud Run region")
    service: str = text_field(
        default="openagents-control-service", rule=values.name, help="Cloud Run service"
    )
    traffic_backend: str = text_field(
        default="cloud-run-api",
        rule=values.backend,
        help="the way to move traffic: cloud-run-api (Admin API), or gcloud (the program on the PATH)",
    )
    cloud_run_api_url: str = url_field(
        default=GOOGLE_API, help="URL of the Admin API v2; gcloud uses its own settings"
    )
    cloud_run_access_token: str = token_field(
        help="for Cloud Run; without it application default credentials, or gcloud's account"
    )
    cloud_run_access_token_file: str = token_file_field("CLOUD_RUN_ACCESS_TOKEN")
    cloud_run_access_token_command: str = token_command_field("CLOUD_RUN_ACCESS_TOKEN")
    canary_steps: tuple[int, ...] = steps_field(
        default=(5, 25, 50, 100), help="the canary's share at each step: whole percents, rising"
    )
    canary_soak_seconds: float = number_field(
        default=30.0, most=DAY, help="seconds for which each share is held and watched"
    )
    canary_look_seconds: float = number_field(
        default=5.0,
        most=DAY,
        above=True,
        help="longest time between two probes of each alias while a share is held",
    )
    canary_max_soak_seconds: float = number_field(
        default=600.0,
        most=DAY,
        help="longest time for which a share is held while nobody can say if the canary is worse; at least CANARY_SOAK_SECONDS",
    )
    max_canary_worse_percent: float = number_field(
        default=10.0,
        most=90,
        above=True,
        help="a share passes when, at 95 %, the canary fails less than this percentage of its turns",
    )
    max_canary_slower_percent: float = number_field(
        default=50.0,
        most=1e6,
        help="percentage by which the canary's first event and whole turn may be slower than stable's; 0: times are not judged",
    )
    canary_metrics: bool = flag_field(
        default=False,
        help="1: a share passes only if the users' requests, by the source of metrics, show that the canary is no worse",
    )
    canary_metrics_min_requests: int = count_field(
        default=100,
        help="smallest number of users' requests of each revision in a share; below it nothing is concluded",
    )
    canary_all_query: str = text_field(
        rule=values.revision_query,
        help="PromQL: number of all requests of $revision in $window; Cloud Monitoring has a ready one",
    )
    canary_good_query: str = text_field(
        rule=values.revision_query,
        help="PromQL: number of its requests that did not fail, 0 where all did (`or vector(0)`); Cloud Monitoring has a ready one",
    )
    canary_latency_query: str = text_field(
        rule=values.revision_query,
        help="PromQL: its p95 in milliseconds; without it times are not compared; Cloud Monitoring has a ready one",
    )
    canary_tag: str = optional_text_field(
        default="cutover-canary",
        rule=values.optional_tag,
        help="traffic tag at 0 % that the drill gives to a canary without a tag, and takes away at the end; empty: no tag is given",
    )
    accept_blind_drill: bool = flag_field(
        default=False,
        help="1: drill even if neither a tag URL nor REVISION_HEADER can show whether the canary answers",
    )
    promote: bool = flag_field(
        default=False,
        help="1: after a passed drill and the flip the canary gets 100 % and keeps it; 0: the captured split stays",
    )
    flip_confirm_seconds: float = number_field(
        default=5.0, most=DAY, help="seconds after the flip until the routes are read again"
    )
    held_streams: int = count_field(
        default=2,
        most=50,
        help="requests held in flight across each change, besides the held responses; 0: no sentinels",
    )
    hold_at: tuple[str, ...] = holds_field(
        help="places where the train waits for `cutover decide`: shares of CANARY_STEPS after their soak, flip (before the first override), promote (before the promotion)"
    )
    hold_timeout: float = number_field(
        default=900.0,
        most=DAY,
        above=True,
        help="longest time in seconds for one wait at HOLD_AT; without a decision the train then undoes its changes",
    )
    run_dual_run: bool = flag_field(default=False, help="1: compare with the legacy service")
    legacy_base_url: str = url_field(
        rule=values.optional_url, help="the legacy service; required when RUN_DUAL_RUN=1"
    )
    legacy_auth_token: str = token_field(
        help="for a legacy service on another site, where AUTH_TOKEN is not sent"
    )
    legacy_auth_token_file: str = token_file_field("LEGACY_AUTH_TOKEN")
    legacy_auth_token_command: str = token_command_field("LEGACY_AUTH_TOKEN")
    requests_file: str = text_field(
        rule=values.path, help="file with the manifest of the dual run; without it the one that ships"
    )
    run_mutating_requests: bool = flag_field(
        default=False, help='1: send manifest entries with "mutates": true as well'
    )
    max_route_flip_failures: int = count_field(help=TOLERATED)
    max_stream_smoke_failures: int = count_field(help=TOLERATED)
    max_canary_drill_failures: int = count_field(help=TOLERATED)
    max_dual_run_failures: int = count_field(help=TOLERATED)
    max_broken_streams: int = count_field(
        help="broken sentinel streams that are tolerated, besides those that chance explains"
    )
    max_rollback_seconds: float = number_field(
        default=60.0,
        most=DAY,
        above=True,
        help="longest time of a rollback: from the first evidence of a fault, or else from its first write, until the canary answers no more",
    )
    max_error_budget_consumed_percent: float = number_field(
        default=5.0, most=100, help="largest consumed share of the error budget"
    )
    slo_error_budget_consumed_percent: float | None = number_field(
        default=None,
        most=1e9,
        help="consumed share of the error budget, typed by hand; may be above 100; without it, and without a source of metrics, 0 is assumed",
    )
    slo_prometheus_url: str = url_field(
        rule=values.optional_url,
        help="Prometheus server by which the train measures the error budget; the address above /api/v1",
    )
    slo_prometheus_token: str = token_field(help="for SLO_PROMETHEUS_URL, if the server wants one")
    slo_prometheus_token_file: str = token_file_field("SLO_PROMETHEUS_TOKEN")
    slo_prometheus_token_command: str = token_command_field("SLO_PROMETHEUS_TOKEN")
    slo_cloud_monitoring: bool = flag_field(
        default=False,
        help="1: the train measures the error budget by Cloud Monitoring, with Cloud Run's token",
    )
    cloud_monitoring_url: str = url_field(default=GOOGLE_MONITORING, help="URL of Cloud Monitoring's API v1")
    slo_objective_percent: float | None = number_field(
        default=None,
        most=99.9999,
        above=True,
        help="objective in percent of all events, such as 99.9; required where the budget is measured",
    )
    slo_window: str = text_field(
        default="30d", rule=values.window, help="window of the objective, such as 30d or 6h"
    )
    slo_short_window: str = text_field(
        default="5m", rule=values.window, help="short window of the burn rate, which is only reported"
    )
    slo_long_window: str = text_field(
        default="1h", rule=values.window, help="long window of the burn rate, which is only reported"
    )
    slo_good_query: str = text_field(
        rule=values.query, help="PromQL: number of good events in $window; Cloud Monitoring has a ready one"
    )
    slo_all_query: str = text_field(
        rule=values.query, help="PromQL: number of all events in $window; Cloud Monitoring has a ready one"
    )
    slo_consumed_query: str = text_field(
        help="PromQL: the consumed share of the budget in percent, in place of SLO_GOOD_QUERY; with $window it also gives burn rates"
    )
    slo_series: str = text_field(
        help="PromQL selector of the series that the queries count, to see old samples and holes; Cloud Monitoring has a ready one"
    )
    slo_scrape_seconds: float = number_field(
        default=15.0,
        most=3600,
        above=True,
        help="seconds between two scrapes of these series by Prometheus; Cloud Monitoring has 60",
    )
    max_p95_latency_delta_ms: float = number_field(
        default=0.0,
        most=1e9,
        help="largest p95 latency that the new service may have above the legacy one; 0: no gate",
    )
    probe_timeout_seconds: float = number_field(
        default=120.0, most=DAY, above=True, help="longest time for one stream, from connect to end"
    )
    max_first_event_seconds: float = number_field(
        default=5.0, most=DAY, above=True, help="longest time until the first event of a stream"
    )
    max_event_gap_seconds: float = number_field(
        default=15.0, most=DAY, above=True, help="longest time between two events of a stream"
    )
    revision_header: str = text_field(
        rule=values.header_name, help="response header that names the revision that answered"
    )
    instance_header: str = text_field(
        rule=values.header_name,
        help="response header that names the instance that answered, for `cutover watch`",
    )
    cohort_key: str = text_field(default="prod-rust-route-flip", help="cohort key of the route evaluations")
    thread_id_prefix: str = text_field(
        default="thread_prod_stream_smoke", rule=values.thread_prefix, help="prefix of the probes' thread ids"
    )
    compat_client_build_id: str = text_field(default="20260221T130000Z", help="value of x-oa-client-build-id")
    compat_protocol_version: str = text_field(
        default="openagents.control.v1", help="value of x-oa-protocol-version"
    )
    compat_schema_version: str = text_field(default="1", help="value of x-oa-schema-version")
    notify_webhook_url: str = secret_field(
        rule=values.notice_url, help="gets each notice as a CloudEvent (structured JSON)"
    )
    notify_webhook_url_file: str = secret_file_field("NOTIFY_WEBHOOK_URL")
    notify_webhook_url_command: str = secret_command_field("NOTIFY_WEBHOOK_URL")
    notify_slack_url: str = secret_field(
        rule=values.notice_url, help="Slack's incoming webhook that gets each notice"
    )
    notify_slack_url_file: str = secret_file_field("NOTIFY_SLACK_URL")
    notify_slack_url_command: str = secret_command_field("NOTIFY_SLACK_URL")
    notify_google_chat_url: str = secret_field(
        rule=values.notice_url, help="Google Chat's incoming webhook that gets each notice"
    )
    notify_google_chat_url_file: str = secret_file_field("NOTIFY_GOOGLE_CHAT_URL")
    notify_google_chat_url_command: str = secret_command_field("NOTIFY_GOOGLE_CHAT_URL")
    notify_pagerduty_key: str = secret_field(
        rule=values.token, help="PagerDuty's routing key (Events API v2): pages somebody on exit 4 alone"
    )
    notify_pagerduty_key_file: str = secret_file_field("NOTIFY_PAGERDUTY_KEY")
    notify_pagerduty_key_command: str = secret_command_field("NOTIFY_PAGERDUTY_KEY")
    notify_pagerduty_url: str = url_field(
        default="https://events.pagerduty.com", help="PagerDuty's events service; another one in the EU"
    )
    notify_command: str = text_field(
        rule=values.command, help="command that gets each notice as a CloudEvent on its standard input"
    )
    notify_rehearsals: bool = flag_field(
        default=False, help="1: rehearsals send notices too, marked as a rehearsal's"
    )
    allow_insecure_http: bool = flag_field(
        default=False, help="1: allow plain http to a host that is not loopback"
    )
    output_dir: Path | None = path_field(  # noqa: RUF009  attrs, and a field
        default=None, help=f"the run directory; default {RUNS}/<UTC second>-<random>/"
    )
    state_url: str = text_field(
        rule=state_url_problem,
        help="gs://bucket/prefix: a live run keeps its lock and its journal there too, so that another machine can recover it",
    )
    state_api_url: str = url_field(
        default=GOOGLE_STORAGE_API, help="URL of the Cloud Storage JSON API, for STATE_URL"
    )
    what_if: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    """Faults that a rehearsal's simulated production has: names of ``FAULTS`` or ``VARIANTS`` in ``cutover.simulation``."""
    needs: frozenset[str] = attrs.field(default=ALL_NEEDS, repr=False)
    """The part of ``ALL_NEEDS`` that is checked in a live configuration; a recovery needs less than a run."""
    sources: Mapping[str, Source] = attrs.field(factory=dict, repr=False, eq=False)
    """Field -> the place that gave its value. A problem names this place, or, if there is none, the input's variable."""
    manifest: tuple[ManifestEntry, ...] = attrs.field(init=False, default=(), repr=False)
    """The requests of the dual run; empty without a dual run."""

    def __attrs_post_init__(self) -> None:
        """Check every input, and read the manifest of a dual run."""
        found = list(problems.problems_of(self, INPUTS))
        # A wrong path is a problem already.
        if self.run_dual_run and not values.path(self.requests_file):
            try:
                manifest = read_manifest(self.requests_file, name=self.name_of("requests_file"))
                object.__setattr__(self, "manifest", manifest)
            except ConfigurationError as error:
                found += error.problems
        if found:
            raise ConfigurationError(found)

    @classmethod
    def from_env(
        cls,
        *,
        stable_revision: str,
        canary_revision: str,
        env: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
        file: Path | None = None,
        live_as: str = "",
        **more: object,
    ) -> "CutoverConfig":
        """Read the configuration from options, variables and a file. Without OUTPUT_DIR, ``output_dir`` is a new name under ``RUNS``.

        An option wins over a variable, a variable over the file, the file over the default. The text of a token comes from a
        variable alone; every source can name a file or a command that gives it. A rehearsal takes no token.

        Args:
            stable_revision: The revision that serves now.
            canary_revision: The revision that is drilled.
            env: The variables; None means the process's environment.
            options: Texts of options, by field.
            file: A TOML file whose keys are the fields; None means no file, even if there is a ``cutover.toml``.
            live_as: The name of a command that asks production unless DRY_RUN=1 is set; empty: DRY_RUN is 1 unless it is set.
            more: Values of fields that win over every source, such as ``what_if``.

        Raises:
            ConfigurationError: At least one input is wrong; every problem is listed, and nothing was written.
        """
        reading = open_sources(
            INPUTS, options=options or {}, variables=os.environ if env is None else env, file=file
        )
        reading.values |= more
        for declared in INPUTS:
            if not declared.token:
                reading.read(declared)
        if live_as and "dry_run" not in reading.sources:
            reading.values["dry_run"] = False
            reading.sources["dry_run"] = Source(name=live_as, assignment=live_as)
        # A rehearsal needs no token and takes none.
        take = reading.note if reading.values.get("dry_run", True) else reading.read
        for declared in INPUTS:
            if declared.token:
                take(declared)
        reading.values.setdefault("output_dir", _new_run_directory())
        try:
            config = cls(
                stable_revision=stable_revision,
                canary_revision=canary_revision,
                sources=reading.sources,
                **reading.values,  # type: ignore[arg-type]
            )
        except ConfigurationError as error:
            raise ConfigurationError([*reading.problems, *error.problems]) from None
        if reading.problems:
            raise ConfigurationError(reading.problems)
        return config

    def source_of(self, field: str) -> Source:
        """Return the place that set an input; the variable of the input if nothing set it."""
        return self.sources.get(field) or Source.variable(_BY_FIELD[field])

    def name_of(self, field: str) -> str:
        """Return the name of an input as the user typed it."""
        return self.source_of(field).name

    @property
    def measures_budget(self) -> bool:
        """True if a source of metrics is set."""
        return bool(self.slo_prometheus_url) or self.slo_cloud_monitoring

    @property
    def budget(self) -> ErrorBudget:
        """The consumed share of the error budget, its ceiling, and who gives the figure."""
        consumed = self.slo_error_budget_consumed_percent
        if self.measures_budget and self.dry_run:
            source = BudgetSource.REHEARSAL
        elif self.measures_budget:
            source = BudgetSource.CLOUD_MONITORING if self.slo_cloud_monitoring else BudgetSource.PROMETHEUS
        else:
            source = BudgetSource.DEFAULT if consumed is None else BudgetSource.OPERATOR
        return ErrorBudget(
            consumed_percent=None if source.measured else consumed or 0.0,
            max_consumed_percent=self.max_error_budget_consumed_percent,
            source=source,
        )

    @property
    def objective(self) -> Objective:
        """The objective of a measured budget."""
        return Objective(
            percent=self.slo_objective_percent or 0.0,
            window=values.parse_window(self.slo_window),
            max_consumed_percent=self.max_error_budget_consumed_percent,
        )

    @property
    def ceilings(self) -> Ceilings:
        """The number of failed checks, or of broken streams, that each gate tolerates."""
        return Ceilings(
            route_flip=self.max_route_flip_failures,
            stream_smoke=self.max_stream_smoke_failures,
            canary_drill=self.max_canary_drill_failures,
            dual_run=self.max_dual_run_failures,
            broken_streams=self.max_broken_streams,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every secret of this configuration: tokens, keys, and addresses that are secrets, with their parts."""
        return with_parts(getattr(self, declared.field) for declared in INPUTS if declared.secret)

    @property
    def legacy_token(self) -> str:
        """The token for the legacy service: LEGACY_AUTH_TOKEN, else AUTH_TOKEN."""
        return self.legacy_auth_token or self.auth_token

    def given(self, secret: str) -> tuple[str, ...]:
        """Return the inputs that give a secret: the field itself, its file, its command. A valid configuration has one at most.

        A rehearsal takes no token, but a variable that holds one counts.
        """
        noted = self.dry_run and secret in self.sources
        return tuple(
            field for field in secret_inputs(secret) if getattr(self, field) or (field == secret and noted)
        )

    @property
    def notice_urls(self) -> tuple[str, ...]:
        """The addresses that get notices, as far as the configuration holds them; one that a file or a command gives counts as https."""
        urls = [
            getattr(self, given[0]) if given[0] == field else "https:"
            for field in NOTICE_SECRETS
            if field != "notify_pagerduty_key" and (given := self.given(field))
        ]
        return (*urls, *([self.notify_pagerduty_url] if self.given("notify_pagerduty_key") else []))

    def facts(self) -> dict[str, object]:
        """Return the facts that the journal and the artifacts hold: no secret, ready for JSON."""
        return {
            "base_url": self.base_url,
            "dry_run": self.dry_run,
            "apply_route_flip": self.apply_route_flip,
            "promote": self.promote,
            "stable_revision": self.stable_revision,
            "canary_revision": self.canary_revision,
            "project": self.project,
            "region": self.region,
            "service": self.service,
            "traffic_backend": self.traffic_backend,
            "cloud_run_api_url": self.cloud_run_api_url,
            "compat_client_build_id": self.compat_client_build_id,
            "compat_protocol_version": self.compat_protocol_version,
            "compat_schema_version": self.compat_schema_version,
            "revision_header": self.revision_header,
            "instance_header": self.instance_header,
            "run_dual_run": self.run_dual_run,
            "legacy_base_url": self.legacy_base_url or None,
            "canary_steps": list(self.canary_steps),
            "canary_tag": self.canary_tag,
            "accept_blind_drill": self.accept_blind_drill,
            "hold_at": list(self.hold_at),
            "hold_timeout": self.hold_timeout,
            "budget": self._budget_facts(),
            "ceilings": attrs.asdict(self.ceilings),
            "what_if": list(self.what_if),
            "state_url": self.state_url or None,
            "state_api_url": self.state_api_url,
            # What a report needs to say how to start the same run. A command may print a token, so no source of a token is here.
            "inputs": {
                declared.field: written(value)
                for declared in INPUTS
                if not declared.secret
                and declared.field not in (*TOKEN_SOURCES, *NOTICE_SOURCES, "output_dir")
                and (value := getattr(self, declared.field)) != declared.default
            },
            # A recovery reads its tokens from the same sources.
            "token_sources": {
                field: value for field in TOKEN_SOURCES if (value := self._token_source(field))
            },
        }

    def _budget_facts(self) -> dict[str, object]:
        facts = attrs.asdict(self.budget) | {"source": self.budget.source.value}
        if self.measures_budget:
            facts |= {"objective_percent": self.slo_objective_percent, "window": self.slo_window}
            facts |= {"short_window": self.slo_short_window, "long_window": self.slo_long_window}
        return facts

    def _token_source(self, field: str) -> str:
        """Return the file or the command of a token, as a recovery in any folder can use it."""
        value: str = getattr(self, field)
        return str(Path(value).absolute()) if value and field.endswith("_file") else value


def secret_inputs(secret: str) -> tuple[str, str, str]:
    """Return the three inputs that can give a secret: itself, its file and its command."""
    return secret, f"{secret}_file", f"{secret}_command"


INPUTS: tuple[Input, ...] = inputs_of(CutoverConfig)
"""Every input, in the order of the fields."""
TOKEN_INPUTS = tuple(declared.field for declared in INPUTS if declared.token)
"""The fields of the five tokens."""
TOKEN_SOURCES = tuple(field for token in TOKEN_INPUTS for field in secret_inputs(token)[1:])
"""The fields of the files and commands that give tokens."""
NOTICE_INPUTS = tuple(declared for declared in INPUTS if declared.field.startswith("notify_"))
"""The inputs that say where notices go."""
NOTICE_SECRETS = tuple(declared.field for declared in NOTICE_INPUTS if declared.secret)
"""The fields of the addresses and the key for notices, each of which is a secret."""
NOTICE_SOURCES = tuple(field for secret in NOTICE_SECRETS for field in secret_inputs(secret)[1:])
"""The fields of the files and commands that give them."""
_BY_FIELD = {declared.field: declared for declared in INPUTS}


def _new_run_directory() -> Path:
    return RUNS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
