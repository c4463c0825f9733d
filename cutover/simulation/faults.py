"""The parts of a fault: its scope, its effect, and the declared outcome of a train that meets it."""

import enum
import json
from collections.abc import Callable
from typing import Literal

import attrs

from cutover.simulation.addresses import Site
from cutover.simulation.exchange import Fate, Operation, Reply, Request
from cutover.simulation.layout import Layout
from cutover.simulation.route_split import Instance

NEW_SERVICE = frozenset({Site.FRONT, Site.TAG})


class Role(enum.Enum):
    """The two revisions."""

    STABLE = "stable"
    CANARY = "canary"


@attrs.frozen(kw_only=True)
class Scope:
    """The requests that a fault acts on. A field that is None matches every request."""

    operations: frozenset[Operation]
    sites: frozenset[Site] = NEW_SERVICE
    role: Role | None = None
    """Role of the revision that answers."""
    instances: frozenset[int] | None = None
    """Numbers of the instances that answer."""
    flipped: bool | None = None
    """True: only while a stable instance has its global override on the new service. False: only while none has."""
    asks: str | None = None
    """The wanted change: an override's target, or ``canary`` for a traffic update that gives it a share, else ``stable``."""
    paths: frozenset[str] | None = None
    first: int = 1
    """Number of the first matching request that the fault acts on, from 1."""
    last: int | None = None
    """Number of the last one; None means all that follow."""


@attrs.frozen(kw_only=True)
class Situation:
    """A request and the state around it, which scopes are compared with."""

    request: Request
    operation: Operation
    site: Site
    instance: Instance | None
    role: Role | None
    flipped: bool
    layout: Layout

    @property
    def asks(self) -> str | None:
        """The change that the request asks for, in the words of ``Scope.asks``."""
        try:
            body = json.loads(self.request.body)
            if self.operation is Operation.ROUTE_OVERRIDE:
                return str(body["target"])
            if self.operation is Operation.TRAFFIC_UPDATE:
                # The API v1 nests the traffic in ``spec``.
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
        except (ValueError, TypeError, KeyError, AttributeError):
            # The service will refuse this body, so it asks for nothing.
            pass
        return None

    def lies_in(self, scope: Scope) -> bool:
        """Return True if the scope covers this situation; its counts are not considered."""
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
    """An effect that replies in place of the service, which never sees the request."""

    reply: Reply


@attrs.frozen
class Rewrite:
    """An effect that changes the reply of the service, which has done what was asked."""

    change: Callable[[Reply], Reply]


Effect = Refuse | Rewrite | Fate


@attrs.frozen
class Strike:
    """One effect in one scope."""

    scope: Scope
    effect: Effect


Routes = Literal["captured", "flipped"]
Traffic = Literal["captured", "stable", "canary"]


@attrs.frozen(kw_only=True)
class Outcome:
    """The end of a train."""

    exit_code: int
    failed_steps: tuple[str, ...] = ()
    """Ids of the steps that fail or have no evidence, in the order of the train; ``undo`` if the undo is not proven."""
    routes: Routes = "captured"
    """The overrides at the end: as found, or all on the new service."""
    traffic: Traffic = "captured"
    """The split at the end: as found, stable at 100 %, or the canary at 100 %."""


def _same_without_flip(fault: "Fault") -> Outcome:
    return attrs.evolve(fault.outcome, routes="captured")


@attrs.frozen(kw_only=True)
class Fault:
    """One fault: something that can be wrong with a production."""

    name: str
    sentence: str
    """The fault in one sentence, for an operator."""
    strikes: tuple[Strike, ...] = ()
    arrange: Callable[[Layout], Layout] | None = None
    """Changes the layout that the production starts with."""
    outcome: Outcome
    """The outcome of a live train with APPLY_ROUTE_FLIP=1 and HELD_STREAMS=0, on routes that lead to legacy."""
    verify_only: Outcome = attrs.field(default=attrs.Factory(_same_without_flip, takes_self=True))
    """The outcome of a live train with APPLY_ROUTE_FLIP=0, on routes that are flipped already."""
    dual_run: bool = False
    """True: the outcomes are those of a train with RUN_DUAL_RUN=1."""
    watch_seconds: float = 0.0
    """Smallest CANARY_SOAK_SECONDS and FLIP_CONFIRM_SECONDS with which a train can see the fault."""


@attrs.define(eq=False)
class ActiveFaults:
    """The faults of a production, and the number of requests that matched each of their scopes."""

    _faults: tuple[Fault, ...]
    _met: dict[tuple[int, int], int] = attrs.field(factory=dict)

    def strike(self, situation: Situation) -> tuple[Effect, ...]:
        """Count a request; return the effects that act on it."""
        effects = []
        for number, fault in enumerate(self._faults):
            for part, strike in enumerate(fault.strikes):
                scope = strike.scope
                if situation.lies_in(scope):
                    met = self._met[number, part] = self._met.get((number, part), 0) + 1
                    if met >= scope.first and (scope.last is None or met <= scope.last):
                        effects.append(strike.effect)
        return tuple(effects)
