"""The types of a fault: the requests that it affects, its effect, and the expected outcome of a train that runs into it."""

import enum
import json
import random
from collections.abc import Callable
from typing import Literal

import attrs

from cutover.simulation.addresses import Site
from cutover.simulation.exchange import Fate, Operation, Reply, Request
from cutover.simulation.layout import Layout
from cutover.simulation.route_split import Instance

NEW_SERVICE = frozenset({Site.FRONT, Site.TAG})


class Role(enum.Enum):
    """One of the two revisions that a train works with."""

    STABLE = "stable"
    CANARY = "canary"


@attrs.frozen(kw_only=True)
class Scope:
    """The requests that a fault affects. A condition that is None holds for every request."""

    operations: frozenset[Operation]
    sites: frozenset[Site] = NEW_SERVICE
    role: Role | None = None
    """The revision that the request is routed to."""
    instances: frozenset[int] | None = None
    """Numbers of the instances whose requests the fault affects."""
    flipped: bool | None = None
    """True: only while a stable instance has its global override on the new service. False: only while none has."""
    asks: str | None = None
    """Change that a request asks for: an override's target; ``canary`` for traffic that gives it a share, else ``stable``."""
    paths: frozenset[str] | None = None
    """Paths of the requests, relative to the URL of their service."""
    first: int = 1
    """Number of the first matching request that the fault affects, counted from 1."""
    last: int | None = None
    """Number of the last matching request that the fault affects; None for no end."""
    part: float = 1.0
    """Part of the requests from ``first`` to ``last`` that the fault affects, drawn by chance; the same ones in every production."""


@attrs.frozen(kw_only=True)
class Situation:
    """A request and the state of the production at that moment, to be compared with scopes."""

    request: Request
    operation: Operation
    site: Site
    instance: Instance | None
    role: Role | None
    flipped: bool
    layout: Layout

    @property
    def asks(self) -> str | None:
        """Return the change that the request asks for, as a value of ``Scope.asks``; None if it asks for none."""
        try:
            body = json.loads(self.request.body)
            if self.operation is Operation.ROUTE_OVERRIDE:
                return str(body["target"])
            if self.operation is Operation.TRAFFIC_UPDATE:
                # The Cloud Run API v1 puts the traffic list inside `spec`, v2 at the top.
                spec = body.get("spec", body)
                shares = (
                    (target.get("revisionName", target.get("revision")), target.get("percent", 0))
                    for target in spec["traffic"]
                )
                return (
                    "canary"
                    if any(name == self.layout.canary and share for name, share in shares)
                    else "stable"
                )
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            # The service will refuse this body, so it asks for no change.
            pass
        return None

    def lies_in(self, scope: Scope) -> bool:
        """Return True if the request meets all conditions of a scope, apart from ``first`` and ``last``."""
        return (
            self.operation in scope.operations
            and self.site in scope.sites
            and scope.role in (None, self.role)
            and (
                scope.instances is None
                or (self.instance is not None and self.instance.number in scope.instances)
            )
            and scope.flipped in (None, self.flipped)
            and (scope.paths is None or self.request.path in scope.paths)
            and (scope.asks is None or scope.asks == self.asks)
        )


@attrs.frozen
class Refuse:
    """An effect: the service never sees the request, and the client gets this reply."""

    reply: Reply


@attrs.frozen
class Rewrite:
    """An effect: the service handles the request, and its reply is changed on the way to the client."""

    change: Callable[[Reply], Reply]


Effect = Refuse | Rewrite | Fate


@attrs.frozen
class Strike:
    """One effect on the requests of one scope."""

    scope: Scope
    effect: Effect


Routes = Literal["captured", "flipped"]
Traffic = Literal["captured", "stable", "canary"]


@attrs.frozen(kw_only=True)
class Outcome:
    """The end of a train."""

    exit_code: int
    """Exit code of the command."""
    failed_steps: tuple[str, ...] = ()
    """Ids of the steps that fail or have no evidence, in the order of the train; ``undo`` if the undo is not proven."""
    routes: Routes = "captured"
    """The overrides at the end: as they were before the train, or all on the new service."""
    traffic: Traffic = "captured"
    """The split at the end: as it was before the train, stable at 100 percent, or the canary at 100 percent."""


def _same_without_flip(fault: "Fault") -> Outcome:
    return attrs.evolve(fault.outcome, routes="captured")


@attrs.frozen(kw_only=True)
class Fault:
    """One fault or variant of a production, and the expected outcome of a train."""

    name: str
    """Name that the user types, such as ``stream-500``."""
    sentence: str
    """One sentence for an operator: the behaviour of the production with this fault."""
    strikes: tuple[Strike, ...] = ()
    """The effects on requests."""
    arrange: Callable[[Layout], Layout] | None = None
    """Function that changes the layout which the production starts with; None for no change."""
    outcome: Outcome
    """Outcome of a live train with APPLY_ROUTE_FLIP=1 and HELD_STREAMS=0 that starts with all routes on legacy."""
    verify_only: Outcome = attrs.field(default=attrs.Factory(_same_without_flip, takes_self=True))
    """Outcome of a live train with APPLY_ROUTE_FLIP=0 and HELD_STREAMS=0 that starts with flipped routes."""
    with_sentinels: Outcome | None = None
    """Outcome of the train of ``outcome`` with HELD_STREAMS=2; None if it is ``outcome``."""
    dual_run: bool = False
    """True if the outcomes need a train with RUN_DUAL_RUN=1; False for RUN_DUAL_RUN=0."""
    watch_seconds: float = 0.0
    """Lower bound of CANARY_SOAK_SECONDS and of FLIP_CONFIRM_SECONDS: a train that watches less long misses the effect."""
    weighed: bool = False
    """True if the outcome needs a train with the usual MAX_CANARY_WORSE_PERCENT and MAX_CANARY_SLOWER_PERCENT."""


@attrs.define(eq=False)
class ActiveFaults:
    """The faults of one production, with a count of the requests that matched each scope."""

    _faults: tuple[Fault, ...]
    _matches: dict[tuple[int, int], int] = attrs.field(factory=dict)
    """Number of matching requests so far, by the positions of fault and strike."""
    _chance: random.Random = attrs.field(factory=lambda: random.Random(0))  # noqa: S311  tests need the same choices in every run

    def strike(self, situation: Situation) -> tuple[Effect, ...]:
        """Count a request, and return the effects that it gets."""
        effects = []
        for number, fault in enumerate(self._faults):
            for position, strike in enumerate(fault.strikes):
                scope = strike.scope
                if situation.lies_in(scope):
                    count = self._matches.get((number, position), 0) + 1
                    self._matches[number, position] = count
                    in_range = count >= scope.first and (scope.last is None or count <= scope.last)
                    if in_range and (scope.part == 1.0 or self._chance.random() < scope.part):
                        effects.append(strike.effect)
        return tuple(effects)
