"""The route split: the overrides of each instance, the decision for a path, and the API of the control plane."""

import json
import zlib
from collections.abc import Callable

import attrs

from cutover.simulation.exchange import Fate, Operation, Reply, Request, json_reply, problem
from cutover.simulation.layout import RouteGroup, RouteSplitSettings
from cutover.simulation.timeline import Timeline

GLOBAL = "global"
"""Key of the global override, which belongs to no domain."""
LEGACY = "legacy"
RUST = "rust_shell"
_PREFIX = "/api/v1/control/route-split/"
OPERATIONS = {
    ("GET", _PREFIX + "status"): Operation.ROUTE_STATUS,
    ("POST", _PREFIX + "override"): Operation.ROUTE_OVERRIDE,
    ("POST", _PREFIX + "evaluate"): Operation.ROUTE_EVALUATE,
}
_TARGETS = frozenset({"legacy", "rust", "clear", "rollback"})
_HTMX_TARGETS = frozenset({"htmx_fragment", "htmx_full_page", "htmx_rollback", "htmx_clear"})
"""Targets of a later version. They set the way in which a domain is rendered, and no route."""
_HTMX_MODES = {"htmx_fragment": "fragment", "htmx_full_page": "full_page", "htmx_rollback": "full_page"}


def with_body(operation: Operation, body: bytes) -> Operation:
    """Return the operation of a request whose body is known: an override to an unknown target is one that changes nothing."""
    if operation is not Operation.ROUTE_OVERRIDE:
        return operation
    try:
        target = json.loads(body)["target"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return operation
    unknown = isinstance(target, str) and target not in _TARGETS | _HTMX_TARGETS
    return Operation.ROUTE_PERMISSION if unknown else operation


@attrs.define(eq=False, kw_only=True)
class Instance:
    """One process of one revision. Its overrides are in its own memory, and no other instance sees them."""

    revision: str
    number: int
    """Position among the instances of the revision, counted from 0."""
    overrides: dict[str, str] = attrs.field(factory=dict)
    """Target by domain; the global override has the key ``global``."""
    htmx: dict[str, str] = attrs.field(factory=dict)
    """Way of rendering by domain, in a later version."""


_AUTHORITIES = ("codex_worker_control_rust_authority", "api_rust_authority")
"""Reasons of the paths that no override moves."""


@attrs.frozen
class Decision:
    """The decision for a path: its target, the reason, and the domain and cohort bucket if there are any."""

    target: str
    reason: str
    group: RouteGroup | None = None
    bucket: int | None = None

    @property
    def domain(self) -> str:
        """Return the domain in the reply; a path outside all domains has a name too."""
        if self.group is not None:
            return self.group.domain
        return "api_rust_authority" if self.reason in _AUTHORITIES else "unclassified"


def _covers(prefix: str, path: str) -> bool:
    """Return True if a prefix covers a path: the prefix itself or a path below it. ``/`` covers only itself."""
    return path == prefix or (prefix != "/" and path.startswith(prefix + "/"))


def group_of(settings: RouteSplitSettings, path: str) -> RouteGroup | None:
    """Return the domain that a path belongs to, or None."""
    for group in settings.groups:
        if any(_covers(prefix, path) for prefix in group.prefixes):
            return group
    return None


def decide(settings: RouteSplitSettings, overrides: dict[str, str], path: str, cohort_key: str) -> Decision:
    """Return the decision for a path.

    The first rule that applies decides: paths below ``/api`` go to the new service; then the domain's override,
    ``force_legacy``, the global override, ``enabled``, and last ``rust_routes`` with ``mode``.

    Args:
        settings: the deployed configuration.
        overrides: the overrides of one instance.
        path: the path; a query is ignored.
        cohort_key: text that chooses the cohort bucket in mode ``cohort``.
    """
    path = path.partition("?")[0]
    group = group_of(settings, path)
    decided = _authority(path) or _override(settings, overrides, group)
    if decided is not None:
        return Decision(*decided, group)
    if not any(prefix == "/" or _covers(prefix, path) for prefix in settings.rust_routes):
        return Decision(LEGACY, "legacy_route_default", group)
    if settings.mode == "cohort":
        bucket = zlib.crc32(cohort_key.encode()) % 100
        target = RUST if bucket < settings.cohort_percentage else LEGACY
        return Decision(target, "mode_cohort", group, bucket)
    return Decision(RUST if settings.mode == "rust" else LEGACY, f"mode_{settings.mode}", group)


def _authority(path: str) -> tuple[str, str] | None:
    workers, api = _AUTHORITIES
    if _covers("/api/runtime/codex/workers", path):
        return RUST, workers
    return (RUST, api) if _covers("/api", path) else None


def _override(
    settings: RouteSplitSettings, overrides: dict[str, str], group: RouteGroup | None
) -> tuple[str, str] | None:
    if group is not None and group.domain in overrides:
        return overrides[group.domain], "domain_override"
    if settings.force_legacy:
        return LEGACY, "force_legacy"
    if GLOBAL in overrides:
        return overrides[GLOBAL], "runtime_override"
    return None if settings.enabled else (LEGACY, "route_split_disabled")


@attrs.define(eq=False, kw_only=True)
class RouteSplit:
    """The API of the control plane. The instance that gets a request answers from its own overrides."""

    settings: RouteSplitSettings
    legacy_url: str
    timeline: Timeline
    when_changed: Callable[[], None] = lambda: None
    """Function to call after an override of an instance has changed."""
    later_version: bool = False
    """True if the API also sets and shows the way in which a domain is rendered."""

    def answer(self, request: Request, operation: Operation, instance: Instance) -> Reply:
        """Return the reply to a request whose body and token were accepted."""
        if operation is Operation.ROUTE_STATUS:
            return self._status(instance.overrides, instance.htmx)
        body = request.json_object()
        if operation is Operation.ROUTE_EVALUATE:
            return self._evaluate(body, instance)
        return self._change(body, request.fate, instance)

    def _status(self, overrides: dict[str, str], htmx: dict[str, str]) -> Reply:
        settings = self.settings
        data: dict[str, object] = {
            "enabled": settings.enabled,
            "mode": settings.mode,
            "cohort_percentage": settings.cohort_percentage,
            "rust_routes": list(settings.rust_routes),
            "force_legacy": settings.force_legacy,
            "legacy_base_url": self.legacy_url,
            "override_target": overrides.get(GLOBAL),
            "route_groups": [
                {
                    "domain": group.domain,
                    "route_prefixes": list(group.prefixes),
                    "rollback_target": group.rollback_target,
                    "override_target": overrides.get(group.domain),
                }
                for group in settings.groups
            ],
            "rollback_matrix": {group.domain: group.rollback_target for group in settings.groups},
            "domain_overrides": {key: target for key, target in overrides.items() if key != GLOBAL},
        }
        if self.later_version:
            domains = [group.domain for group in settings.groups]
            data["htmx_modes"] = {domain: htmx.get(domain, "full_page") for domain in domains}
            data["htmx_rollback_matrix"] = dict.fromkeys(domains, _HTMX_MODES["htmx_rollback"])
        return json_reply({"data": data})

    def _evaluate(self, body: dict[str, object], instance: Instance) -> Reply:
        path, cohort_key = body.get("path"), body.get("cohort_key", "")
        if not isinstance(path, str) or not path.startswith("/") or not isinstance(cohort_key, str):
            return _invalid("path", "A path that starts with / is required.")
        decision = decide(self.settings, instance.overrides, path, cohort_key)
        data: dict[str, object] = {
            "path": path,
            "target": decision.target,
            "reason": decision.reason,
            "route_domain": decision.domain,
            "cohort_key": cohort_key,
        }
        if decision.group is not None:
            data["rollback_target"] = decision.group.rollback_target
        if decision.bucket is not None:
            data["cohort_bucket"] = decision.bucket
        return json_reply({"data": data})

    def _change(self, body: dict[str, object], fate: Fate, instance: Instance) -> Reply:
        domain = body.get("domain")
        group = next((group for group in self.settings.groups if group.domain == domain), None)
        if domain is not None and group is None:
            return _invalid("domain", "Unknown route domain.")
        key = group.domain if group else GLOBAL
        targets: dict[str, str | None] = {
            "legacy": LEGACY,
            "rust": RUST,
            "clear": None,
            "rollback": group.rollback_target if group else LEGACY,
        }
        wanted = body.get("target")
        if self.later_version and wanted in _HTMX_TARGETS:
            return self._render(str(wanted), group, instance)
        if not isinstance(wanted, str) or wanted not in targets:
            return _invalid("target", "The target must be legacy, rust, clear or rollback.")
        target = targets[wanted]
        reported = dict(instance.overrides)
        override(reported, key, target)
        if fate.takes_effect and fate.after:
            self.timeline.after(fate.after, lambda: self._override(instance, key, target))
        elif fate.takes_effect:
            self._override(instance, key, target)
        if fate.undone_after is not None:
            self.timeline.after(fate.undone_after, instance.overrides.clear)
        return self._status(reported, instance.htmx)

    def _override(self, instance: Instance, key: str, target: str | None) -> None:
        before = instance.overrides.get(key)
        override(instance.overrides, key, target)
        if target != before:
            self.when_changed()

    def _render(self, wanted: str, group: RouteGroup | None, instance: Instance) -> Reply:
        """Set the way in which a domain is rendered, which is no route, and return the status."""
        if group is None:
            return _invalid("domain", "Domain is required for HTMX overrides.")
        override(instance.htmx, group.domain, _HTMX_MODES.get(wanted))
        return self._status(instance.overrides, instance.htmx)


def _invalid(field: str, message: str) -> Reply:
    return problem(422, "invalid_request", message, more={"errors": {field: [message]}})


def override(overrides: dict[str, str], key: str, target: str | None) -> None:
    """Set one override of an instance, or remove it if ``target`` is None."""
    if target is None:
        overrides.pop(key, None)
    else:
        overrides[key] = target
