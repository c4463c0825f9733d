"""The configuration: one frozen value, read from the environment by one table of variables.

All that is wrong is told at once, each with the variable or argument that it is about.
"""

import difflib
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import attrs

from cutover.config import values
from cutover.config.manifest import parse_manifest, shipped_manifest
from cutover.config.values import is_loopback, same_site
from cutover.config.variables import GOOGLE_API, RUNS, VARIABLES, Variable
from cutover.errors import ConfigurationError
from cutover.model.error_budget import BudgetSource, ErrorBudget
from cutover.model.gates import Ceilings
from cutover.model.manifest import ManifestEntry

__all__ = ["GOOGLE_API", "RUNS", "VARIABLES", "CutoverConfig", "Variable", "is_loopback", "same_site"]

_LIKE = 0.9
"""How like one of ours a name is that was meant to be it: a letter that is missing, doubled, swapped, or of the other case."""
_COMMON = {"PROJECT", "REGION", "SERVICE", "AUTH_TOKEN"}
"""Of ours those that others have names like."""
_RUN_FILES = ("journal.jsonl", "summary.json", "steps.jsonl", "SUMMARY.md")


@attrs.frozen(kw_only=True)
class CutoverConfig:
    """What to cut over, how carefully, and where the evidence goes; see ``VARIABLES`` for the meaning of each field.

    Raises:
        ConfigurationError: Something is wrong; every problem is listed.
    """

    stable_revision: str
    """The Cloud Run revision that serves now."""
    canary_revision: str
    """The revision that is drilled."""
    dry_run: bool = True
    base_url: str = attrs.field(default="https://openagents.com", converter=values.parse_url)
    control_access_token: str = attrs.field(default="", repr=False)
    auth_token: str = attrs.field(default="", repr=False)
    apply_route_flip: bool = False
    project: str = "openagentsgemini"
    region: str = "us-central1"
    service: str = "openagents-control-service"
    traffic_backend: str = "cloud-run-api"
    cloud_run_api_url: str = attrs.field(default=GOOGLE_API, converter=values.parse_url)
    cloud_run_access_token: str = attrs.field(default="", repr=False)
    canary_steps: tuple[int, ...] = attrs.field(default=(5, 25, 50, 100), converter=tuple)
    canary_soak_seconds: float = 30.0
    flip_confirm_seconds: float = 5.0
    held_streams: int = 2
    run_dual_run: bool = False
    legacy_base_url: str = attrs.field(default="", converter=values.parse_url)
    legacy_auth_token: str = attrs.field(default="", repr=False)
    requests_file: str = ""
    run_mutating_requests: bool = False
    max_route_flip_failures: int = 0
    max_stream_smoke_failures: int = 0
    max_canary_drill_failures: int = 0
    max_dual_run_failures: int = 0
    max_broken_streams: int = 0
    max_rollback_seconds: float = 60.0
    max_error_budget_consumed_percent: float = 5.0
    slo_error_budget_consumed_percent: float | None = None
    """None: nobody gave a figure; 0 is assumed, and the summary says so."""
    max_p95_latency_delta_ms: float = 0.0
    probe_timeout_seconds: float = 120.0
    max_first_event_seconds: float = 5.0
    max_event_gap_seconds: float = 15.0
    revision_header: str = ""
    cohort_key: str = "prod-rust-route-flip"
    thread_id_prefix: str = "thread_prod_stream_smoke"
    compat_client_build_id: str = "20260221T130000Z"
    compat_protocol_version: str = "openagents.control.v1"
    compat_schema_version: str = "1"
    allow_insecure_http: bool = False
    output_dir: Path | None = attrs.field(default=None, converter=attrs.converters.optional(Path))
    """The run directory. None: a rehearsal writes nothing; a live run is refused."""
    what_if: tuple[str, ...] = attrs.field(default=(), converter=tuple)
    """Faults that a rehearsal's simulated production shows; names of ``cutover.simulation.FAULTS``."""
    manifest: tuple[ManifestEntry, ...] = attrs.field(init=False, default=(), repr=False)
    """The dual run's requests, where it is asked for."""

    def __attrs_post_init__(self) -> None:
        """Check everything at once."""
        problems = list(_problems(self))
        if self.run_dual_run:
            try:
                object.__setattr__(self, "manifest", _manifest(self.requests_file))
            except ConfigurationError as error:
                problems += error.problems
        if problems:
            raise ConfigurationError(problems)

    @classmethod
    def from_env(
        cls,
        *,
        stable_revision: str,
        canary_revision: str,
        env: Mapping[str, str] | None = None,
        **more: object,
    ) -> "CutoverConfig":
        """Read the configuration as the command does; ``output_dir`` then has its default under ``storage/``.

        Args:
            stable_revision: The revision that serves now.
            canary_revision: The revision that is drilled.
            env: The variables; the process's environment where it is None.
            more: Fields that no variable sets, such as ``what_if``.

        Raises:
            ConfigurationError: Something is wrong; every problem is listed, and nothing was read or written.
        """
        given = os.environ if env is None else env
        problems = list(_mistyped(given))
        values: dict[str, object] = dict(more)
        rehearsed = given.get("DRY_RUN", "1") != "0"
        for variable in VARIABLES:
            if variable.secret and rehearsed:
                continue  # a rehearsal needs no token, and reads none
            text = given.get(variable.name)
            if text is None or (text == "" and variable.is_text):
                continue
            try:
                values[variable.field] = variable.parse(text)
            except ValueError as error:
                problems.append(f"{variable.name} {error}, not {text!r}")
        values.setdefault("output_dir", _new_run_directory())
        try:
            config = cls(stable_revision=stable_revision, canary_revision=canary_revision, **values)  # type: ignore[arg-type]
        except ConfigurationError as error:
            raise ConfigurationError([*problems, *error.problems]) from None
        if problems:
            raise ConfigurationError(problems)
        return config

    @property
    def budget(self) -> ErrorBudget:
        """What is consumed of the error budget, and who says so."""
        consumed = self.slo_error_budget_consumed_percent
        return ErrorBudget(
            consumed_percent=consumed or 0.0,
            max_consumed_percent=self.max_error_budget_consumed_percent,
            source=BudgetSource.DEFAULT if consumed is None else BudgetSource.OPERATOR,
        )

    @property
    def ceilings(self) -> Ceilings:
        """What the gates tolerate."""
        return Ceilings(
            route_flip=self.max_route_flip_failures,
            stream_smoke=self.max_stream_smoke_failures,
            canary_drill=self.max_canary_drill_failures,
            dual_run=self.max_dual_run_failures,
            broken_streams=self.max_broken_streams,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        """Every token that was given."""
        tokens = (
            self.control_access_token,
            self.auth_token,
            self.cloud_run_access_token,
            self.legacy_auth_token,
        )
        return tuple(token for token in tokens if token)

    @property
    def legacy_token(self) -> str:
        """The token for the legacy service: its own, or AUTH_TOKEN where both are one site."""
        return self.legacy_auth_token or self.auth_token

    def facts(self) -> dict[str, object]:
        """Return the configuration as the journal and the artifacts hold it: no secret, ready for JSON."""
        return {
            "base_url": self.base_url,
            "dry_run": self.dry_run,
            "apply_route_flip": self.apply_route_flip,
            "stable_revision": self.stable_revision,
            "canary_revision": self.canary_revision,
            "project": self.project,
            "region": self.region,
            "service": self.service,
            "traffic_backend": self.traffic_backend,
            "cloud_run_api_url": self.cloud_run_api_url,
            "run_dual_run": self.run_dual_run,
            "legacy_base_url": self.legacy_base_url or None,
            "canary_steps": list(self.canary_steps),
            "budget": attrs.asdict(self.budget) | {"source": self.budget.source.value},
            "ceilings": attrs.asdict(self.ceilings),
            "what_if": list(self.what_if),
        }


def _mistyped(given: Iterable[str]) -> Iterable[str]:
    """Tell of each variable that is none of ours and all but looks like one: left out in silence, it would be a default."""
    ours = {variable.name for variable in VARIABLES}
    missing = ours - set(given) - _COMMON
    for name in sorted(set(given) - ours):
        for meant in difflib.get_close_matches(name.upper(), missing, n=1, cutoff=_LIKE):
            yield f"{name} is no variable of cutover; {meant} is: set that one, or unset {name}"


def _problems(config: CutoverConfig) -> Iterable[str]:
    for name, revision in (("STABLE", config.stable_revision), ("CANARY", config.canary_revision)):
        if problem := values.revision(revision):
            yield f"{name} {problem}"
    if config.stable_revision == config.canary_revision:
        yield f"STABLE and CANARY must differ; both are {config.stable_revision!r}"
    for variable in VARIABLES:
        if problem := variable.rule(getattr(config, variable.field)):
            yield f"{variable.name} {problem}"
    yield from _plain_http_problems(config)
    if config.run_dual_run:
        yield from _dual_run_problems(config)
    if not config.dry_run:
        yield from _live_problems(config)
    if config.output_dir is not None:
        yield from _directory_problems(config.output_dir)


def _plain_http_problems(config: CutoverConfig) -> Iterable[str]:
    if config.allow_insecure_http:
        return
    for name in ("BASE_URL", "CLOUD_RUN_API_URL", *(["LEGACY_BASE_URL"] if config.run_dual_run else [])):
        url = getattr(config, name.lower())
        if not values.url(url) and (problem := values.plain_http(url)):
            yield f"{name} {problem}"


def _dual_run_problems(config: CutoverConfig) -> Iterable[str]:
    legacy = config.legacy_base_url
    if not legacy:
        yield "LEGACY_BASE_URL is missing: RUN_DUAL_RUN=1 needs it"
    elif problem := values.url(legacy):
        yield f"LEGACY_BASE_URL {problem}"
    elif not config.dry_run and not config.legacy_auth_token and not same_site(config.base_url, legacy):
        yield (
            "LEGACY_AUTH_TOKEN is missing: LEGACY_BASE_URL is on another site than BASE_URL, "
            "and AUTH_TOKEN is not sent there"
        )


def _live_problems(config: CutoverConfig) -> Iterable[str]:
    if sys.platform == "win32":
        yield "DRY_RUN=0 is refused on Windows, which has no flock and no process groups; use Linux or macOS"
    for name in ("CONTROL_ACCESS_TOKEN", "AUTH_TOKEN"):
        if not getattr(config, name.lower()):
            yield f"{name} is missing: DRY_RUN=0 needs it"
    if config.traffic_backend == "gcloud" and shutil.which("gcloud") is None:
        yield (
            "TRAFFIC_BACKEND=gcloud needs the program gcloud, and there is none on the PATH: install the Google Cloud CLI, "
            "or use TRAFFIC_BACKEND=cloud-run-api"
        )
    if config.output_dir is None:
        yield "OUTPUT_DIR is missing: a live run needs a durable run directory"
    if config.what_if:
        yield "what_if is for rehearsals: it needs DRY_RUN=1"


def _directory_problems(path: Path) -> Iterable[str]:
    try:
        if path.exists() and not path.is_dir():
            yield f"OUTPUT_DIR is not a folder: {path}"
        elif any((path / name).exists() for name in _RUN_FILES):
            yield f"OUTPUT_DIR already holds a run: {path}; a run never overwrites another one"
        else:
            parent = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
            if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
                yield f"OUTPUT_DIR cannot be written: {path} ({parent} is not writable)"
    except OSError as error:
        yield f"OUTPUT_DIR cannot be used: {error}"


def _manifest(path: str) -> tuple[ManifestEntry, ...]:
    if not path:
        return shipped_manifest()
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ConfigurationError([f"REQUESTS_FILE cannot be read: {error}"]) from error
    return parse_manifest(data, name="REQUESTS_FILE")


def _new_run_directory() -> Path:
    return RUNS / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
