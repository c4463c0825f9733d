"""The rules that a configuration must keep: each input by itself, and inputs that depend on each other."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cutover.config import values
from cutover.config.files import read_file
from cutover.config.inputs import Input
from cutover.http.places import place_of
from cutover.http.tokens import read_grant
from cutover.model.holds import FLIP, PROMOTE

if TYPE_CHECKING:
    from cutover.config.config import CutoverConfig

_RUN_FILES = ("journal.jsonl", "summary.json", "steps.jsonl", "SUMMARY.md", "report.html")
"""Files that show that a folder holds a run already."""


def problems_of(config: "CutoverConfig", inputs: Sequence[Input]) -> Iterator[str]:
    """Give every problem of a configuration, each by the name of its input as the user typed it."""
    for name, revision in (("STABLE", config.stable_revision), ("CANARY", config.canary_revision)):
        if problem := values.revision(revision):
            yield f"{name} {problem}"
    if config.stable_revision == config.canary_revision:
        yield f"STABLE and CANARY must differ; both are {config.stable_revision!r}"
    wrong: set[str] = set()
    for declared in inputs:
        if problem := declared.rule(getattr(config, declared.field)):
            wrong.add(declared.field)
            yield f"{config.name_of(declared.field)} {problem}"
    yield from _soak_problems(config, wrong)
    yield from _plain_http_problems(config)
    if wrong.isdisjoint({"hold_at", "canary_steps"}):
        yield from _hold_problems(config)
    yield from _secret_problems(config, inputs, wrong)
    yield from _notice_problems(config, wrong)
    yield from _budget_problems(config)
    yield from _canary_metrics_problems(config)
    if config.run_dual_run:
        yield from _dual_run_problems(config, wrong)
    if not config.dry_run:
        yield from _live_problems(config)
    if config.output_dir is not None and "output_dir" not in wrong and "output_dir" in config.needs:
        yield from directory_problems(config.output_dir, config.name_of("output_dir"))


def _soak_problems(config: "CutoverConfig", wrong: set[str]) -> Iterator[str]:
    """Give the problem of a longest soak that was set and is shorter than the soak. The default is no limit for a longer soak."""
    longest, soak = "canary_max_soak_seconds", "canary_soak_seconds"
    if longest in config.sources and wrong.isdisjoint({longest, soak}):
        most, least = getattr(config, longest), getattr(config, soak)
        if most < least:
            yield f"{config.name_of(longest)} is {most:g}, less than {config.name_of(soak)}, which is {least:g}: raise it, or shorten the soak"


def _plain_http_problems(config: "CutoverConfig") -> Iterator[str]:
    if config.allow_insecure_http:
        return
    notices = ("notify_webhook_url", "notify_slack_url", "notify_google_chat_url", "notify_pagerduty_url")
    legacy = ["legacy_base_url"] if config.run_dual_run else []
    state = ["state_api_url"] if config.state_url else []
    monitoring = ["cloud_monitoring_url"] if config.slo_cloud_monitoring else []
    for field in (
        "base_url",
        "cloud_run_api_url",
        "slo_prometheus_url",
        *legacy,
        *state,
        *monitoring,
        *notices,
    ):
        url, rule = getattr(config, field), values.notice_url if field in notices else values.url
        if url and not rule(url) and (problem := values.plain_http(url)):
            yield f"{config.name_of(field)} {problem}"


def _hold_problems(config: "CutoverConfig") -> Iterator[str]:
    """Give the problems of holds at which this train never comes by."""
    name = config.name_of("hold_at")
    steps = ",".join(map(str, config.canary_steps))
    for hold in config.hold_at:
        if hold.isdecimal() and int(hold) not in config.canary_steps:
            yield f"{name} has {hold}, and {config.name_of('canary_steps')} has no step of {hold} %: {steps}"
    if FLIP in config.hold_at and not config.apply_route_flip:
        flip = config.source_of("apply_route_flip")
        yield f"{name} has {FLIP}, but this train sets no override: set {flip.set_to(value=True)}, or leave {FLIP} out"
    if PROMOTE in config.hold_at and not config.promote:
        promotion = config.source_of("promote")
        yield f"{name} has {PROMOTE}, but this train promotes nothing: set {promotion.set_to(value=True)}, or leave {PROMOTE} out"


def _secret_problems(config: "CutoverConfig", inputs: Sequence[Input], wrong: set[str]) -> Iterator[str]:
    """Give the problems of the inputs that give secrets: two for one secret; a file or a program that does not exist."""
    for declared in inputs:
        if not declared.secret:
            continue
        given = config.given(declared.field)
        if len(given) > 1:
            names = " and ".join(config.name_of(field) for field in given)
            yield f"{names} both give {declared.variable}: set only one of them"
        elif given and given[0] not in wrong and _takes(config, declared):
            yield from _source_problems(config, declared, given[0])


def _takes(config: "CutoverConfig", secret: Input) -> bool:
    """Return True if the run reads this secret: a live run its tokens, and every run that sends notices their addresses."""
    if secret.token:
        return not config.dry_run and secret.field in config.needs
    return not config.dry_run or config.notify_rehearsals


def _notice_problems(config: "CutoverConfig", wrong: set[str]) -> Iterator[str]:
    """Give the problem of a command for notices whose program does not exist."""
    if config.notify_command and "notify_command" not in wrong:
        yield from _program_problems(config, "notify_command")


def _source_problems(config: "CutoverConfig", secret: Input, field: str) -> Iterator[str]:
    """Give the problem of a file without the secret, or of a command whose program does not exist."""
    value, name = getattr(config, field), config.name_of(field)
    if field == secret.field:
        return
    if field.endswith("_command"):
        yield from _program_problems(config, field)
        return
    try:
        given = read_grant(read_file(Path(value))).token
    except ValueError as error:
        yield f"{name}: {value} {error}"
        return
    if not secret.token and (problem := notice_problem(secret, given, insecure=config.allow_insecure_http)):
        yield f"{name}: {value} gives a wrong {secret.variable}: it {problem}"


def notice_problem(secret: Input, value: str, *, insecure: bool) -> str:
    """Return the problem of an address or a key for notices that a file or a command gave; empty if there is none."""
    problem = secret.rule(value)
    if not problem and secret.rule is values.notice_url and not insecure:
        problem = values.plain_http(value)
    return problem


def _program_problems(config: "CutoverConfig", field: str) -> Iterator[str]:
    """Give the problem of a command whose program does not exist."""
    program = shlex.split(getattr(config, field))[0]
    if shutil.which(program) is None:
        yield f"{config.name_of(field)} needs the program {program}, and there is none: give its full path, or add its folder to PATH"


def _budget_problems(config: "CutoverConfig") -> Iterator[str]:
    """Give the problems of the source of the error budget: two sources for one figure, or a source that lacks a part."""
    given = [
        config.name_of(field)
        for field, is_set in (
            ("slo_error_budget_consumed_percent", config.slo_error_budget_consumed_percent is not None),
            ("slo_prometheus_url", bool(config.slo_prometheus_url)),
            ("slo_cloud_monitoring", config.slo_cloud_monitoring),
        )
        if is_set
    ]
    if len(given) > 1:
        yield f"{' and '.join(given)} each give the consumed error budget: set only one of them"
        return
    if not config.measures_budget:
        parts = (
            "slo_objective_percent",
            "slo_good_query",
            "slo_all_query",
            "slo_consumed_query",
            "slo_series",
        )
        alone = [config.name_of(field) for field in parts if getattr(config, field)]
        if alone:
            url, flag = config.name_of("slo_prometheus_url"), config.name_of("slo_cloud_monitoring")
            yield f"{', '.join(alone)}: no source of metrics is set; set {url} or {flag}, or leave this out"
        return
    yield from _measured_problems(config, given[0])


def _measured_problems(config: "CutoverConfig", source: str) -> Iterator[str]:
    if not config.slo_objective_percent:
        yield f"{config.name_of('slo_objective_percent')} is missing: {source} needs it"
    if not config.max_error_budget_consumed_percent:
        yield (
            f"{config.name_of('max_error_budget_consumed_percent')} must be more than 0 with {source}: with 0 no number of events could "
            "ever be enough"
        )
    if config.slo_good_query and config.slo_consumed_query:
        names = f"{config.name_of('slo_good_query')} and {config.name_of('slo_consumed_query')}"
        yield f"{names} both give the share of bad events: set only one of them"
    if not config.slo_cloud_monitoring or config.slo_good_query or config.slo_consumed_query:
        share = "slo_consumed_query" if config.slo_consumed_query else "slo_good_query"
        for field in (share, "slo_all_query", "slo_series"):
            if not getattr(config, field):
                yield f"{config.name_of(field)} is missing: {source} needs it"
    elif config.slo_all_query or config.slo_series:
        yield f"{config.name_of('slo_good_query')} is missing: give all queries of {source}, or none for the ready ones"
    if config.slo_cloud_monitoring and not config.dry_run and not config.given("cloud_run_access_token"):
        yield from _monitoring_token_problems(config, source)


def _monitoring_token_problems(config: "CutoverConfig", source: str) -> Iterator[str]:
    """Give the problem of Cloud Monitoring without CLOUD_RUN_ACCESS_TOKEN: only Google gets Google's default credentials."""
    token = config.name_of("cloud_run_access_token")
    if config.traffic_backend == "gcloud":
        yield f"{token} is missing: {source} needs it, because gcloud keeps its own token to itself"
    elif not values.is_google(config.cloud_monitoring_url) or not values.is_google(config.cloud_run_api_url):
        yield (
            f"{token} is missing: {source} needs it, because application default credentials go to addresses of googleapis.com alone, "
            f"not with {config.cloud_run_api_url} and {config.cloud_monitoring_url}"
        )


def _canary_metrics_problems(config: "CutoverConfig") -> Iterator[str]:
    """Give the problems of the queries for the users' requests of each revision."""
    queries = ("canary_all_query", "canary_good_query", "canary_latency_query")
    given = [field for field in queries if getattr(config, field)]
    asked = [config.source_of("canary_metrics").set_to(value=True)] if config.canary_metrics else []
    if (asked or given) and not config.measures_budget:
        url, flag = config.name_of("slo_prometheus_url"), config.name_of("slo_cloud_monitoring")
        names = ", ".join((*asked, *map(config.name_of, given)))
        yield f"{names}: no source of metrics is set; set {url} or {flag}, or leave this out"
    elif given or (asked and not config.slo_cloud_monitoring):
        why = "the comparison of both revisions"
        for field in queries[:2]:
            if not getattr(config, field):
                yield f"{config.name_of(field)} is missing: {why} needs it"


def _dual_run_problems(config: "CutoverConfig", wrong: set[str]) -> Iterator[str]:
    legacy = config.legacy_base_url
    if not legacy:
        asked = config.source_of("run_dual_run").set_to(value=True)
        yield f"{config.name_of('legacy_base_url')} is missing: {asked} needs it"
    elif not wrong.isdisjoint({"base_url", "legacy_base_url"}):
        return
    elif place_of(legacy) == place_of(config.base_url):
        off = config.source_of("run_dual_run").set_to(value=False)
        yield (
            f"{config.name_of('legacy_base_url')} names the same place as {config.name_of('base_url')}, so the dual run would compare "
            f"the new service with itself: {legacy} and {config.base_url}; give the URL of the legacy service, or set {off}"
        )
    elif (
        not config.dry_run
        and not config.given("legacy_auth_token")
        and not values.same_site(config.base_url, legacy)
    ):
        yield (
            f"LEGACY_AUTH_TOKEN is missing: {config.name_of('legacy_base_url')} is on another site than {config.name_of('base_url')}, "
            "and AUTH_TOKEN is not sent there"
        )


def _live_problems(config: "CutoverConfig") -> Iterator[str]:
    live = config.source_of("dry_run").set_to(value=False)
    if sys.platform == "win32":
        yield f"{live} is refused on Windows, which has no flock and no process groups; use Linux or macOS"
    for field in ("control_access_token", "auth_token"):
        if field in config.needs and not config.given(field):
            yield f"{config.name_of(field)} is missing: {live} needs it"
    if config.traffic_backend == "gcloud" and "gcloud" in config.needs and shutil.which("gcloud") is None:
        backend = config.source_of("traffic_backend")
        yield (
            f"{backend.set_to(value='gcloud')} needs the program gcloud, and there is none on the PATH: "
            f"install the Google Cloud CLI, or use {backend.set_to(value='cloud-run-api')}"
        )
    if config.output_dir is None:
        yield f"{config.name_of('output_dir')} is missing: a live run needs a durable run directory"
    if config.what_if:
        yield f"what_if is for rehearsals: it needs {config.source_of('dry_run').set_to(value=True)}"


def directory_problems(path: Path, name: str) -> Iterator[str]:
    """Give the problem of a run directory that cannot be made or written, or that holds a run already."""
    try:
        if not values.is_utf8(path.resolve()):
            yield (
                f"{name} leads to a folder whose path is not UTF-8: {str(path.resolve())!a}; the journal, the lock and the artifacts "
                f"cannot hold such a path; give {name} as an absolute path that is UTF-8"
            )
        elif path.exists() and not path.is_dir():
            yield f"{name} is not a folder: {path}"
        elif any((path / file).exists() for file in _RUN_FILES):
            yield f"{name} already holds a run: {path}; a run never overwrites another one"
        else:
            parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
                yield f"{name} cannot be written: {path} ({parent} is not writable)"
    except OSError as error:
        yield f"{name} cannot be used: {error}"
