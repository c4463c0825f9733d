"""The settings that a simulated production starts with."""

import datetime as dt
import enum
from collections.abc import Mapping
from types import MappingProxyType

import attrs


@attrs.frozen(kw_only=True)
class RouteGroup:
    """One domain of the route split."""

    domain: str
    """Name of the domain, such as ``auth_entry``."""
    prefixes: tuple[str, ...]
    """Paths of the domain. Each covers every path below it, except ``/``, which covers only itself."""
    rollback_target: str
    """Target of a ``rollback`` of this domain: ``legacy`` or ``rust_shell``."""


DEFAULT_GROUPS = (
    RouteGroup(
        domain="auth_entry",
        prefixes=("/login", "/register", "/authenticate", "/onboarding"),
        rollback_target="legacy",
    ),
    RouteGroup(
        domain="account_settings_admin",
        prefixes=("/account", "/settings", "/admin"),
        rollback_target="legacy",
    ),
    RouteGroup(domain="billing_l402", prefixes=("/billing", "/l402"), rollback_target="legacy"),
    RouteGroup(domain="chat_pilot", prefixes=("/chat", "/feed", "/"), rollback_target="rust_shell"),
)


@attrs.frozen(kw_only=True)
class RouteSplitSettings:
    """The deployed configuration of the route split. Every instance has it, and no override changes it."""

    enabled: bool = True
    """True if ``mode`` decides a path without override; False if such a path goes to legacy."""
    mode: str = "legacy"
    """Default decision for a path: ``legacy``, ``rust`` or ``cohort``."""
    cohort_percentage: int = 0
    """Percentage of cohort buckets that go to the new service in mode ``cohort``."""
    rust_routes: tuple[str, ...] = ("/",)
    """Prefixes of the paths that ``mode`` decides; ``/`` stands for every path. All other paths go to legacy."""
    force_legacy: bool = False
    """True if all paths without a domain override, except ``/api``, go to legacy despite the global override and the mode."""
    groups: tuple[RouteGroup, ...] = DEFAULT_GROUPS
    """The domains of the route split."""


class ChangeKind(enum.Enum):
    """A kind of change of the production."""

    TRAFFIC = "the split by which the front door routes"
    ROUTES = "an override of an instance"


class Affinity(enum.Enum):
    """The way in which the front door keeps a client on one instance."""

    NONE = "none: each request may reach a different instance"
    COOKIE = "by a cookie that the front door sets"
    CONNECTION = "by connection: only a served production can distinguish connections"


def _frozen_mapping(urls: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(urls))


def _frozen_seconds(seconds: Mapping[str, float]) -> Mapping[str, float]:
    return MappingProxyType(dict(seconds))


def _frozen_split(percents: Mapping[str, int]) -> Mapping[str, int]:
    return MappingProxyType(dict(percents))


@attrs.frozen(kw_only=True)
class Layout:
    """The names, the URLs and the starting state of a production."""

    stable: str = "openagents-control-service-00041-stable"
    """Name of the revision that serves all traffic at the start."""
    canary: str = "openagents-control-service-00042-canary"
    """Name of the revision that the train tries; it serves no traffic at the start."""
    project: str = "openagentsgemini"
    """Google Cloud project."""
    region: str = "us-central1"
    """Google Cloud region."""
    service: str = "openagents-control-service"
    """Name of the Cloud Run service."""
    instances: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """Number of instances of each revision; each instance remembers only its own overrides."""
    front_url: str = "https://openagents.com"
    """URL of the front door."""
    cloud_run_url: str = "https://run.googleapis.com"
    """URL of the Cloud Run Admin API; may have the same host as the front door."""
    legacy_url: str = "https://legacy.openagents.com"
    """URL of the legacy service."""
    storage_url: str = "https://storage.googleapis.com"
    """URL of the Cloud Storage JSON API."""
    bucket: str = "simulated-state"
    """Name of the only bucket of Cloud Storage."""
    tag_urls: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen_mapping)
    """URL by traffic tag at the start: the tag ``canary`` is on the canary, all other tags are on stable."""
    tag_url_form: str = "https://{tag}---{service}.a.run.app"
    """URL of a tag that ``tag_urls`` does not list; ``{tag}`` and ``{service}`` stand for the names."""
    tag_opens_after: float = 0.0
    """Seconds from the first request at a tag's URL until the URL leads to an instance; before then it answers 404. Infinity: never."""
    tag_lags: float = 0.0
    """Seconds from the first request at a tag's URL for which stable answers there instead of the tag's revision."""
    ingress: str = "INGRESS_TRAFFIC_ALL"
    """The callers that reach the service. With any other value than ``INGRESS_TRAFFIC_ALL`` a tag URL answers 404."""
    default_uri_disabled: bool = False
    """True if the service has no URL of its own, so that a tag URL answers 404."""
    clock_ahead: float = 0.0
    """Seconds by which the Date header of every reply is ahead of the clock of this machine; negative if it is behind."""
    served: Mapping[str, int] = attrs.field(factory=dict, converter=_frozen_split)
    """Served percent by revision at the start; empty: stable, or LATEST, has everything."""
    requested: Mapping[str, int] = attrs.field(factory=dict, converter=_frozen_split)
    """Requested percent by revision at the start, if it differs from the served traffic; empty: it does not."""
    flipped: bool = False
    """True if the stable instances start with every override on the new service."""
    odd_instance: bool = False
    """True if the last stable instance starts with a different global override than the other instances."""
    affinity: Affinity = Affinity.NONE
    """The way in which a client stays on one instance, even if the split changes."""
    latest: bool = False
    """True if the traffic is on LATEST at the start; False if it is on the stable revision by name."""
    latest_ready: str | None = None
    """Name of the latest ready revision; None for stable if traffic is on LATEST or no canary exists, else for the canary."""
    canary_exists: bool = True
    """True if the canary revision exists."""
    canary_ready: bool = True
    """True if the canary revision is ready to serve."""
    broken_revision: bool = False
    """True if somebody else has deployed a revision that does not start, so that the service is not Ready."""
    settle_seconds: float = 0.0
    """Seconds until a traffic update settles; with 0, its operation is done at once."""
    chunk_seconds: float = 0.0
    """Seconds of pause after each sent piece of a stream, which is one event if no fault cuts the stream differently."""
    front_lag_seconds: float = 0.0
    """Seconds until a change of the served traffic reaches the front door; the Cloud Run API shows the change at once."""
    canary_takes_all: bool = False
    """True if the front door sends every request to the canary while the canary has any share of the traffic."""
    cuts_responses_at: frozenset[ChangeKind] = frozenset()
    """Kinds of change at which the front door breaks the connection of every stream that it is sending."""
    preview: bool = False
    """True if each turn is the short preview of the lane: one body with a content-length, without text."""
    revision_header: str = "x-cutover-revision"
    """Lower-case name of the response header that names the revision of the chat service; empty for no header."""
    instance_header: str = "x-cutover-instance"
    """Lower-case name of the response header that names the instance of the chat service; empty for no header."""
    token_lifetimes: Mapping[str, float] = attrs.field(factory=dict, converter=_frozen_seconds)
    """Seconds from the first request until a token expires, by the token's name; a token without an entry never expires."""
    tells_sessions: bool = True
    """True if the chat service, and Google for its own tokens, tell when a token expires; False if they have no such page."""
    route_split: RouteSplitSettings = attrs.field(factory=RouteSplitSettings)
    """Deployed configuration of the route split."""
    enforces_compatibility: bool = False
    """True if the control plane refuses a client without the compatibility headers, as the streams always do."""
    later_version: bool = False
    """True if the new service is a later version: it announces its end, knows htmx overrides, and some pages are gone."""
    sunset: dt.date = dt.date(2026, 6, 30)
    """Day on which the compatibility lane ends, as a later version announces it."""
    lists_threads: bool = False
    """True if the lists of a user name the threads of the user's streams. Each service has its own store."""
    generated_seed: int | None = None
    """Seed of generated answers: text, ids, times and latencies that are new in each answer of both services. None: fixed answers."""
    session_seconds: float = 3600.0
    """Seconds that the session of a token lives, as the service says, if the token has no entry in ``token_lifetimes``."""

    @property
    def latest_ready_revision(self) -> str:
        """Return the name of the revision that LATEST stands for at the start."""
        if self.latest_ready is not None:
            return self.latest_ready
        return self.stable if self.latest or not self.canary_exists else self.canary

    @property
    def service_path(self) -> str:
        """Return the resource name of the service in the Admin API."""
        return f"projects/{self.project}/locations/{self.region}/services/{self.service}"


@attrs.frozen(kw_only=True)
class Credentials:
    """The four tokens that the production knows."""

    auth_token: str = attrs.field(repr=False)
    """Token of a chat user at the new service."""
    control_token: str = attrs.field(repr=False)
    """Token of an operator at the route-split API."""
    cloud_run_token: str = attrs.field(repr=False)
    """Access token at the Cloud Run Admin API."""
    legacy_token: str = attrs.field(repr=False)
    """Token of a chat user at the legacy service; may equal ``auth_token``."""
    renewed: dict[str, str] = attrs.field(factory=dict, repr=False, eq=False)
    """Name by token: tokens that are accepted besides the four, and never expire."""

    def names(self, token: str | None) -> tuple[str, ...]:
        """Return the names of a token: ``auth``, ``control``, ``cloud_run``, ``legacy``; empty for an unknown token."""
        return tuple(
            name
            for name in ("auth", "control", "cloud_run", "legacy")
            if token is not None and (self.renewed.get(token) == name or self.first(name) == token)
        )

    def first(self, name: str) -> str:
        """Return the token that has this name from the start."""
        token: str = getattr(self, f"{name}_token")
        return token
