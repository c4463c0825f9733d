"""The state of a simulated production before anything happens to it."""

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
    """Paths that the domain covers, each with everything below it; ``/`` covers itself alone."""
    rollback_target: str
    """Target of a ``rollback``: ``legacy`` or ``rust_shell``."""


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
    """The deployed settings of the route split: a new instance starts with them, and no override changes them."""

    enabled: bool = True
    """False: every path without an override goes to legacy."""
    mode: str = "legacy"
    """The mode: ``legacy``, ``rust`` or ``cohort``."""
    cohort_percentage: int = 0
    """Share of cohort buckets, in percent, that the new service gets in mode ``cohort``."""
    rust_routes: tuple[str, ...] = ("/",)
    """Prefixes of the paths that the mode decides; ``/`` stands for every path; other paths go to legacy."""
    force_legacy: bool = False
    """True: legacy wins over the global override and over the mode, but not over the override of a domain."""
    groups: tuple[RouteGroup, ...] = DEFAULT_GROUPS
    """The domains."""


class Affinity(enum.Enum):
    """The way the front door recognises a client that it keeps on one instance."""

    NONE = "nothing: each request may reach another one"
    COOKIE = "a cookie that it sets"
    CONNECTION = "the connection: only over a socket is one told from another"


def _frozen_mapping(urls: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(urls))


@attrs.frozen(kw_only=True)
class Layout:
    """A production: its names, its addresses and its state at the start."""

    stable: str = "openagents-control-service-00041-stable"
    """The revision that serves everything at the start."""
    canary: str = "openagents-control-service-00042-canary"
    """The revision that is drilled; it serves nothing at the start."""
    project: str = "openagentsgemini"
    region: str = "us-central1"
    service: str = "openagents-control-service"
    instances: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """Number of instances of each revision; each remembers its own overrides."""
    front_url: str = "https://openagents.com"
    """URL of the front door."""
    cloud_run_url: str = "https://run.googleapis.com"
    """URL of the Cloud Run Admin API; it may share its authority with the front door."""
    legacy_url: str = "https://legacy.openagents.com"
    """URL of the legacy service."""
    tag_urls: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen_mapping)
    """Tag -> URL at the start. The tag ``canary`` is on the canary, any other tag is on stable."""
    flipped: bool = False
    """True: the stable instances start with all domains and the global override on the new service."""
    odd_instance: bool = False
    """True: the last stable instance starts with a global override that the others do not have."""
    affinity: Affinity = Affinity.NONE
    """The session affinity of the front door, which wins over the split; None for no affinity."""
    latest: bool = False
    """True: the traffic at the start is on LATEST. False: it is pinned to the stable revision."""
    latest_ready: str | None = None
    """The latest ready revision. Empty: the stable one if the traffic is on LATEST, else the canary."""
    canary_exists: bool = True
    canary_ready: bool = True
    settle_seconds: float = 0.0
    """Seconds until a traffic update settles; 0: its operation is done at once."""
    chunk_seconds: float = 0.0
    """Seconds between two chunks of a stream."""
    preview: bool = False
    """True: turns are the lane's short preview, one body with a content-length."""
    revision_header: str = "x-cutover-revision"
    """Header, lower-case, that names the revision on every answer of the chat service; empty for none."""
    route_split: RouteSplitSettings = attrs.field(factory=RouteSplitSettings)

    @property
    def latest_ready_revision(self) -> str:
        """The revision that LATEST means at the start."""
        if self.latest_ready is not None:
            return self.latest_ready
        return self.stable if self.latest or not self.canary_exists else self.canary

    @property
    def service_path(self) -> str:
        """The service's resource name in the Admin API."""
        return f"projects/{self.project}/locations/{self.region}/services/{self.service}"


@attrs.frozen(kw_only=True)
class Credentials:
    """The four tokens that exist."""

    auth_token: str = attrs.field(repr=False)
    """A chat user's token."""
    control_token: str = attrs.field(repr=False)
    """An operator's token for the route-split API."""
    cloud_run_token: str = attrs.field(repr=False)
    """An access token for the Cloud Run Admin API."""
    legacy_token: str = attrs.field(repr=False)
    """A chat user's token at the legacy service; may be the same as ``auth_token``."""

    def names(self, token: str | None) -> tuple[str, ...]:
        """Return the kinds of a token: ``auth``, ``control``, ``cloud_run``, ``legacy``; empty for an unknown token."""
        return tuple(
            name
            for name in ("auth", "control", "cloud_run", "legacy")
            if token is not None and getattr(self, f"{name}_token") == token
        )
