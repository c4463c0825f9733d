"""The front door: which revision gets a request, by the split in force, and which of its instances."""

import random
from collections.abc import Mapping

import attrs

from cutover.simulation.route_split import Instance


@attrs.define(eq=False, kw_only=True)
class FrontDoor:
    """Splits evenly: 5 percent is every twentieth request, never two in a row by chance."""

    size: int
    """Instances of each revision."""
    chance: random.Random
    """Chooses among instances, as nothing here makes a client stick to one."""
    instances: dict[str, tuple[Instance, ...]] = attrs.field(factory=dict)
    """The instances of each revision that was ever asked for."""
    _split: Mapping[str, int] = attrs.field(factory=dict)
    _credit: dict[str, int] = attrs.field(factory=dict)

    def choose(self, split: Mapping[str, int]) -> Instance:
        """The instance that gets the next request.

        Smooth weighted round robin: each revision earns its share, the richest one serves and pays for it.

        Args:
            split: percent by revision; a new split starts afresh.
        """
        if split != self._split:
            self._split, self._credit = dict(split), dict.fromkeys(split, 0)
        for revision, percent in split.items():
            self._credit[revision] += percent
        revision = max(split, key=lambda name: self._credit[name])
        self._credit[revision] -= sum(split.values())
        return self.one_of(revision)

    def one_of(self, revision: str) -> Instance:
        """An instance of one revision."""
        return self.chance.choice(self.all_of(revision))

    def all_of(self, revision: str) -> tuple[Instance, ...]:
        """The instances of one revision, started if it has none: without overrides."""
        if revision not in self.instances:
            self.instances[revision] = tuple(
                Instance(revision=revision, number=number) for number in range(self.size)
            )
        return self.instances[revision]
