"""The route split: the overrides of each instance, the decision for a path, and the API of the control plane."""

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


@attrs.define(eq=False, kw_only=True)
class Instance:
    """One process of one revision. Its overrides are in its own memory, and no other instance sees them."""

    revision: str
    number: int
    """Position among the instances of the revision, counted from 0."""
    overrides: dict[str, str] = attrs.field(factory=dict)
    """Target by domain; the global override has the key ``global``."""


@attrs.frozen
class Decision:
    """The decision for a path: its target, the reason, and the domain and cohort bucket if there are any."""

    target: str
    reason: str
    group: RouteGroup | None = None
    bucket: int | None = None


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
    if _covers("/api/runtime/codex/workers", path):
        return RUST, "codex_worker_control_rust_authority"
    return (RUST, "api_rust_authority") if _covers("/api", path) else None


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

    def answer(self, request: Request, operation: Operation, instance: Instance) -> Reply:
        """Return the reply to a request whose token was accepted."""
        if operation is Operation.ROUTE_STATUS:
            return self._status(instance.overrides)
        try:
            body = request.json_object()
        except ValueError:
            return problem(400, "invalid_json", "The request body is not JSON.")
        if operation is Operation.ROUTE_EVALUATE:
            return self._evaluate(body, instance)
        return self._change(body, request.fate, instance)

    def _status(self, overrides: dict[str, str]) -> Reply:
        settings = self.settings
        data = {
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
        return json_reply({"data": data})

    def _evaluate(self, body: dict[str, object], instance: Instance) -> Reply:
        path, cohort_key = body.get("path"), body.get("cohort_key", "")
        if not isinstance(path, str) or not path.startswith("/") or not isinstance(cohort_key, str):
            return problem(422, "invalid_request", "A path that starts with / is required.")
        decision = decide(self.settings, instance.overrides, path, cohort_key)
        data: dict[str, object] = {
            "path": path,
            "target": decision.target,
            "reason": decision.reason,
            "route_domain": decision.group.domain if decision.group else None,
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
            return problem(422, "invalid_request", "Unknown route domain.")
        key = group.domain if group else GLOBAL
        targets: dict[str, str | None] = {
            "legacy": LEGACY,
            "rust": RUST,
            "clear": None,
            "rollback": group.rollback_target if group else LEGACY,
        }
        wanted = body.get("target")
        if not isinstance(wanted, str) or wanted not in targets:
            return problem(422, "invalid_request", "The target must be legacy, rust, clear or rollback.")
        target = targets[wanted]
        reported = dict(instance.overrides)
        override(reported, key, target)
        if fate.takes_effect and fate.after:
            self.timeline.after(fate.after, lambda: self._override(instance, key, target))
        elif fate.takes_effect:
            self._override(instance, key, target)
        if fate.undone_after is not None:
            self.timeline.after(fate.undone_after, instance.overrides.clear)
        return self._status(reported)

    def _override(self, instance: Instance, key: str, target: str | None) -> None:
        before = instance.overrides.get(key)
        override(instance.overrides, key, target)
        if target != before:
            self.when_changed()


def override(overrides: dict[str, str], key: str, target: str | None) -> None:
    """Set one override of an instance, or remove it if ``target`` is None."""
    if target is None:
        overrides.pop(key, None)
    else:
        overrides[key] = target
