"""What a simulated production looks like before anything happens to it."""

import enum
from collections.abc import Mapping
from types import MappingProxyType

import attrs


@attrs.frozen(kw_only=True)
class RouteGroup:
    """One domain of the route split."""

    domain: str
    """Its name, such as ``auth_entry``."""
    prefixes: tuple[str, ...]
    """The paths it covers, each with everything below it; ``/`` covers itself alone."""
    rollback_target: str
    """Where ``rollback`` sends it: ``legacy`` or ``rust_shell``."""


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
    """How the route split is deployed: what a new instance starts with, and no override changes."""

    enabled: bool = True
    """Where it is not, everything that no override covers is legacy."""
    mode: str = "legacy"
    """``legacy``, ``rust`` or ``cohort``."""
    cohort_percentage: int = 0
    """Share of cohort buckets, in percent, that the new service gets in mode ``cohort``."""
    rust_routes: tuple[str, ...] = ("/",)
    """Prefixes the mode may decide about; ``/`` stands for every path; others are legacy by default."""
    force_legacy: bool = False
    """Outranks the global override and the mode, not a domain's override."""
    groups: tuple[RouteGroup, ...] = DEFAULT_GROUPS
    """The domains."""


class Affinity(enum.Enum):
    """What the front door goes by where it keeps a client on one instance."""

    NONE = "nothing: each request may reach another one"
    COOKIE = "a cookie that it sets"
    CONNECTION = "the connection: only over a socket is one told from another"


def _frozen_mapping(urls: Mapping[str, str]) -> Mapping[str, str]:
    return MappingProxyType(dict(urls))


@attrs.frozen(kw_only=True)
class Layout:
    """A production: names, addresses, and the state it is found in."""

    stable: str = "openagents-control-service-00041-stable"
    """The revision that serves everything at the start."""
    canary: str = "openagents-control-service-00042-canary"
    """The revision that is to be drilled; serves nothing at the start."""
    project: str = "openagentsgemini"
    region: str = "us-central1"
    service: str = "openagents-control-service"
    instances: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """Instances of each revision; every one remembers its own overrides."""
    front_url: str = "https://openagents.com"
    """Where the front door is."""
    cloud_run_url: str = "https://run.googleapis.com"
    """Where the Cloud Run Admin API is; may share its authority with the front door."""
    legacy_url: str = "https://legacy.openagents.com"
    """Where the legacy service is."""
    tag_urls: Mapping[str, str] = attrs.field(factory=dict, converter=_frozen_mapping)
    """Tags at the start, each with the URL it answers at: ``canary`` tags the canary, any other the stable."""
    flipped: bool = False
    """Whether the stable instances start with all domains and the global override on the new service."""
    odd_instance: bool = False
    """Whether the last stable instance starts with a global override that the others do not have."""
    affinity: Affinity = Affinity.NONE
    """Whether a client is kept on one instance; that outranks the split."""
    latest: bool = False
    """Whether the traffic at the start is on LATEST, instead of pinned on the stable revision."""
    latest_ready: str | None = None
    """The latest ready revision; left out, the stable one where traffic is on LATEST, else the canary."""
    canary_exists: bool = True
    canary_ready: bool = True
    settle_seconds: float = 0.0
    """How long a traffic update takes to settle; where it takes no time, its operation is done at once."""
    chunk_seconds: float = 0.0
    """Pause between two chunks of a stream."""
    preview: bool = False
    """Whether turns are answered as the lane's short preview: one body with a content-length."""
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
        """Which of ``auth``, ``control``, ``cloud_run`` and ``legacy`` a token is; none when nobody knows it."""
        return tuple(
            name
            for name in ("auth", "control", "cloud_run", "legacy")
            if token is not None and getattr(self, f"{name}_token") == token
        )
