"""The front door: which revision gets a request, by the split in force, and which of its instances."""

import random
from collections.abc import Mapping
from http.cookies import SimpleCookie

import attrs

from cutover.simulation.exchange import Reply, Request
from cutover.simulation.layout import Affinity
from cutover.simulation.route_split import Instance

_COOKIE = "front-door-session"


@attrs.define(eq=False, kw_only=True)
class FrontDoor:
    """Splits evenly: 5 percent is every twentieth request, never two in a row by chance."""

    size: int
    """Instances of each revision."""
    chance: random.Random
    """Chooses among instances."""
    affinity: Affinity = Affinity.NONE
    instances: dict[str, tuple[Instance, ...]] = attrs.field(factory=dict)
    """The instances of each revision that was ever asked for."""
    _sessions: dict[str, Instance] = attrs.field(factory=dict)
    _split: Mapping[str, int] = attrs.field(factory=dict)
    _credit: dict[str, int] = attrs.field(factory=dict)

    def session(self, head: Request) -> str:
        """The name of the session that a request belongs to, or begins; empty where there are none."""
        if self.affinity is Affinity.CONNECTION:
            return head.client
        if self.affinity is Affinity.COOKIE:
            named = SimpleCookie(head.headers.get("cookie", "")).get(_COOKIE)
            return named.value if named is not None else f"s{len(self._sessions)}"
        return ""

    def admit(self, session: str, split: Mapping[str, int]) -> Instance:
        """The instance that a request goes to: the one of its session, whatever the split says, or the next."""
        if not session:
            return self.choose(split)
        if session not in self._sessions:
            self._sessions[session] = self.choose(split)
        return self._sessions[session]

    def keep(self, session: str, reply: Reply) -> Reply:
        """A reply that keeps its client in the session."""
        if self.affinity is not Affinity.COOKIE or not session:
            return reply
        return reply.with_header("set-cookie", f"{_COOKIE}={session}; Path=/; HttpOnly")

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
