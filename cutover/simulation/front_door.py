"""The front door: chooses the revision for a request by the served split, then one of its instances."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.cookies import SimpleCookie

import anyio
import attrs

from cutover.simulation.exchange import Reply, Request
from cutover.simulation.layout import Affinity
from cutover.simulation.route_split import Instance

_COOKIE = "front-door-session"


@attrs.define(eq=False, kw_only=True)
class FrontDoor:
    """A load balancer. Without sessions, a revision with 5 percent gets exactly every twentieth request."""

    size: int
    """Number of instances of each revision."""
    chance: random.Random
    """Source of the choice among instances."""
    affinity: Affinity = Affinity.NONE
    """The way in which a client stays on one instance."""
    instances: dict[str, tuple[Instance, ...]] = attrs.field(factory=dict)
    """The instances of each revision that was started."""
    split: Mapping[str, int] = attrs.field(factory=dict)
    """Percent by revision, by which the front door routes. It may lag behind the served traffic."""
    _streams: set[anyio.CancelScope] = attrs.field(factory=set)
    """One scope for each stream that is being sent; to cancel it breaks the connection of the stream."""
    _sessions: dict[str, Instance] = attrs.field(factory=dict)
    _credited: Mapping[str, int] = attrs.field(factory=dict)
    """Split that the credits belong to."""
    _credit: dict[str, int] = attrs.field(factory=dict)
    """Credit by revision; 100 is one request. See ``choose``."""

    @contextmanager
    def stream(self) -> Iterator[anyio.CancelScope]:
        """Send a stream inside this context. If the front door cuts it, the context ends early, and its scope is cancelled."""
        with anyio.CancelScope() as scope:
            self._streams.add(scope)
            try:
                yield scope
            finally:
                self._streams.discard(scope)

    def cut(self) -> None:
        """Break the connection of every stream that is being sent."""
        for scope in self._streams:
            scope.cancel()

    def session(self, head: Request) -> str:
        """Return the name of the session that a request belongs to or begins; empty if there are no sessions."""
        if self.affinity is Affinity.CONNECTION:
            return head.client
        if self.affinity is Affinity.COOKIE:
            cookie = SimpleCookie(head.headers.get("cookie", "")).get(_COOKIE)
            return cookie.value if cookie is not None else f"s{len(self._sessions)}"
        return ""

    def admit(self, session: str, split: Mapping[str, int]) -> Instance:
        """Return the instance for a request: its session's, or a choice by the split if the session is new or empty."""
        if not session:
            return self.choose(split)
        if session not in self._sessions:
            self._sessions[session] = self.choose(split)
        return self._sessions[session]

    def with_session(self, session: str, reply: Reply) -> Reply:
        """Return the reply, with the session cookie if sessions go by cookie."""
        if self.affinity is not Affinity.COOKIE or not session:
            return reply
        return reply.with_header("set-cookie", f"{_COOKIE}={session}; Path=/; HttpOnly")

    def choose(self, split: Mapping[str, int]) -> Instance:
        """Return the instance that gets the next request.

        This is smooth weighted round robin. On each request every revision gains its percentage as credit. The revision
        with the most credit serves the request and loses the sum of all percentages.

        Args:
            split: percent by revision. When it differs from the last call's, all credits start at 0.
        """
        if split != self._credited:
            self._credited, self._credit = dict(split), dict.fromkeys(split, 0)
        for revision, percent in split.items():
            self._credit[revision] += percent
        revision = max(split, key=lambda name: self._credit[name])
        self._credit[revision] -= sum(split.values())
        return self.one_of(revision)

    def one_of(self, revision: str) -> Instance:
        """Return one instance of a revision, chosen at random."""
        return self.chance.choice(self.all_of(revision))

    def all_of(self, revision: str) -> tuple[Instance, ...]:
        """Return the instances of a revision. The first call starts them, without overrides."""
        if revision not in self.instances:
            self.instances[revision] = tuple(
                Instance(revision=revision, number=number) for number in range(self.size)
            )
        return self.instances[revision]
