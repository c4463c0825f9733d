"""What a fault is: where it strikes, what it does there, and the outcome of a train that meets it, declared beforehand."""

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
    """Which of the two revisions."""

    STABLE = "stable"
    CANARY = "canary"


@attrs.frozen(kw_only=True)
class Scope:
    """Which requests a fault strikes; what is left out does not matter."""

    operations: frozenset[Operation]
    sites: frozenset[Site] = NEW_SERVICE
    role: Role | None = None
    """The revision that answers."""
    instances: frozenset[int] | None = None
    """Numbers of the instances that answer."""
    flipped: bool | None = None
    """Whether a stable instance has its global override on the new service at that moment."""
    asks: str | None = None
    """An override's target, or ``canary`` for a traffic update that gives it any share, else ``stable``."""
    paths: frozenset[str] | None = None
    first: int = 1
    """Number of the first matching request that is struck."""
    last: int | None = None
    """Number of the last one; None: all that follow."""


@attrs.frozen(kw_only=True)
class Situation:
    """A request in its place, as scopes are held against it."""

    request: Request
    operation: Operation
    site: Site
    instance: Instance | None
    role: Role | None
    flipped: bool
    layout: Layout

    @property
    def asks(self) -> str | None:
        """What a change asks for, in the words of ``Scope.asks``."""
        try:
            body = json.loads(self.request.body)
            if self.operation is Operation.ROUTE_OVERRIDE:
                return str(body["target"])
            if self.operation is Operation.TRAFFIC_UPDATE:
                spec = body.get("spec", body)  # v1 nests it
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
            pass  # a body that the service will refuse asks for nothing
        return None

    def lies_in(self, scope: Scope) -> bool:
        """Whether the scope covers this, whatever it counts."""
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
    """The peer never sees the request: this is the answer."""

    reply: Reply


@attrs.frozen
class Rewrite:
    """The peer does what was asked, and its reply is changed on the way."""

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
    """How a train ends."""

    exit_code: int
    failed_steps: tuple[str, ...] = ()
    """Ids of the steps that fail or have no evidence, in the order of the train; ``undo`` where it is unproven."""
    routes: Routes = "captured"
    """What the overrides are in the end: as they were found, or all on the new service."""
    traffic: Traffic = "captured"
    """Who is served in the end: as it was found; stable at 100 percent, whatever was found; or the canary at 100."""


def _same_without_flip(fault: "Fault") -> Outcome:
    return attrs.evolve(fault.outcome, routes="captured")


@attrs.frozen(kw_only=True)
class Fault:
    """One thing that can be wrong with a production."""

    name: str
    sentence: str
    """What happens, in words for an operator."""
    strikes: tuple[Strike, ...] = ()
    arrange: Callable[[Layout], Layout] | None = None
    """Changes the layout that the production starts with."""
    outcome: Outcome
    """Of a live train with APPLY_ROUTE_FLIP=1 and HELD_STREAMS=0, on routes that are legacy."""
    verify_only: Outcome = attrs.field(default=attrs.Factory(_same_without_flip, takes_self=True))
    """Of one with APPLY_ROUTE_FLIP=0, on routes that are flipped."""
    dual_run: bool = False
    """Whether the outcomes are those of a train with RUN_DUAL_RUN=1, else with 0."""
    watch_seconds: float = 0.0
    """What CANARY_SOAK_SECONDS and FLIP_CONFIRM_SECONDS must be at least: nobody sees in less what comes later."""


@attrs.define(eq=False)
class ActiveFaults:
    """Faults that are on, and how often each of their scopes was met."""

    _faults: tuple[Fault, ...]
    _met: dict[tuple[int, int], int] = attrs.field(factory=dict)

    def strike(self, situation: Situation) -> tuple[Effect, ...]:
        """Count a request, and tell what strikes it."""
        effects = []
        for number, fault in enumerate(self._faults):
            for part, strike in enumerate(fault.strikes):
                scope = strike.scope
                if situation.lies_in(scope):
                    met = self._met[number, part] = self._met.get((number, part), 0) + 1
                    if met >= scope.first and (scope.last is None or met <= scope.last):
                        effects.append(strike.effect)
        return tuple(effects)
