"""The front door: it chooses the revision of a request by the split, and one of its instances."""

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
    """A front door that splits evenly: 5 percent is every twentieth request, never two in a row by chance."""

    size: int
    """Number of instances of each revision."""
    chance: random.Random
    """The random choice among instances."""
    affinity: Affinity = Affinity.NONE
    instances: dict[str, tuple[Instance, ...]] = attrs.field(factory=dict)
    """Revision -> its instances, for each revision that ever got a request."""
    _sessions: dict[str, Instance] = attrs.field(factory=dict)
    _split: Mapping[str, int] = attrs.field(factory=dict)
    _credit: dict[str, int] = attrs.field(factory=dict)

    def session(self, head: Request) -> str:
        """Return the session of a request, or a new one; an empty text without session affinity."""
        if self.affinity is Affinity.CONNECTION:
            return head.client
        if self.affinity is Affinity.COOKIE:
            named = SimpleCookie(head.headers.get("cookie", "")).get(_COOKIE)
            return named.value if named is not None else f"s{len(self._sessions)}"
        return ""

    def admit(self, session: str, split: Mapping[str, int]) -> Instance:
        """Return the instance for a request: the one of its session at any split, or the next one."""
        if not session:
            return self.choose(split)
        if session not in self._sessions:
            self._sessions[session] = self.choose(split)
        return self._sessions[session]

    def keep(self, session: str, reply: Reply) -> Reply:
        """Return a reply that keeps its client in the session."""
        if self.affinity is not Affinity.COOKIE or not session:
            return reply
        return reply.with_header("set-cookie", f"{_COOKIE}={session}; Path=/; HttpOnly")

    def choose(self, split: Mapping[str, int]) -> Instance:
        """Return the instance for the next request.

        The choice is a smooth weighted round robin: each revision earns its share, and the one with the most credit serves and pays.

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
        """Return an instance of one revision."""
        return self.chance.choice(self.all_of(revision))

    def all_of(self, revision: str) -> tuple[Instance, ...]:
        """Return the instances of one revision. New ones start without overrides."""
        if revision not in self.instances:
            self.instances[revision] = tuple(
                Instance(revision=revision, number=number) for number in range(self.size)
            )
        return self.instances[revision]
