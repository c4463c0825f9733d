"""The overrides of the route split, as values that can be kept, compared and put back."""

from collections.abc import Iterable

import attrs

from cutover.model.differences import describe_differences

GLOBAL = "global"
"""The route key of the override that stands for every domain without one of its own."""
ROUTES_DEADLINE = 60.0
"""Seconds for all the rounds of one change; after them nothing is sent any more, and the routes are read once more."""


@attrs.frozen(kw_only=True)
class RouteState:
    """The overrides of the route split, as one instance of the service told them."""

    overrides: tuple[tuple[str, str | None], ...]
    """(route key, target or None) for each domain, sorted, the global one last."""
    mode: str = ""
    """What decides where nothing is overridden: enabled, mode, cohort percentage, force_legacy."""

    def get(self, key: str) -> str | None:
        """Return what the override of this key is; None when it is clear."""
        return dict(self.overrides).get(key)

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains that the service knows."""
        return tuple(key for key, _ in self.overrides if key != GLOBAL)

    def holds(self, wanted: Iterable[tuple[str, str | None]]) -> bool:
        """Return whether each of these keys has its value here."""
        found = dict(self.overrides)
        return all(found.get(key) == value for key, value in wanted)

    def differences_from(self, found: "RouteState") -> str:
        """Return which overrides are others in a state found later, first what they were; empty where none is."""
        before, now = ({key: value or "clear" for key, value in state.overrides} for state in (self, found))
        return describe_differences(before, now)

    def describe(self) -> str:
        """Write the overrides for a reader."""
        return describe_overrides(self.overrides)


def describe_overrides(overrides: Iterable[tuple[str, str | None]]) -> str:
    """Write overrides for a reader: ``auth_entry=rust_shell, global=clear``."""
    return ", ".join(f"{key}={value or 'clear'}" for key, value in overrides)
