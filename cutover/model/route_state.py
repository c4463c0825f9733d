"""The overrides of the route split: values to keep, compare and write again."""

from collections.abc import Iterable

import attrs

from cutover.model.differences import describe_differences

GLOBAL = "global"
"""Route key of the override for every domain that has none of its own."""
ROUTES_DEADLINE = 60.0
"""Seconds within which one change of the overrides starts all its writes. After the last write the change reads the routes."""


@attrs.frozen(kw_only=True)
class RouteState:
    """The overrides of the route split on one instance of the service."""

    overrides: tuple[tuple[str, str | None], ...]
    """(route key, target or None) for each domain, sorted, the global one last."""
    mode: str = ""
    """The settings that route a path without an override: enabled, mode, cohort percentage, force_legacy."""

    def get(self, key: str) -> str | None:
        """Return the override of a route key; None if the override is clear or the key is unknown."""
        return dict(self.overrides).get(key)

    @property
    def domains(self) -> tuple[str, ...]:
        """The route keys without the global one."""
        return tuple(key for key, _ in self.overrides if key != GLOBAL)

    def holds(self, wanted: Iterable[tuple[str, str | None]]) -> bool:
        """Return True if each of these (route key, override) pairs is set here."""
        found = dict(self.overrides)
        return all(found.get(key) == value for key, value in wanted)

    def differences_from(self, found: "RouteState") -> str:
        """Return the differences between this state and ``found``; an empty text if there are none."""
        before, now = ({key: value or "clear" for key, value in state.overrides} for state in (self, found))
        return describe_differences(before, now)

    def describe(self) -> str:
        """Return the overrides in words."""
        return describe_overrides(self.overrides)


def describe_overrides(overrides: Iterable[tuple[str, str | None]]) -> str:
    """Return overrides in words: ``auth_entry=rust_shell, global=clear``."""
    return ", ".join(f"{key}={value or 'clear'}" for key, value in overrides)
