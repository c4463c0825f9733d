"""The expected outcomes of trains, named by the step that fails first, and functions that declare a fault."""

import attrs

from cutover.simulation.exchange import NO_REPLY
from cutover.simulation.faults import Effect, Fault, Outcome, Rewrite, Scope, Strike

PASSED = Outcome(exit_code=0, routes="flipped")
NOTHING_WRITTEN = Outcome(exit_code=0)
"""Outcome of a train that only verifies the routes, with a fault of override writes."""
NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("preflight",))
SMOKE_HAS_NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("stream-smoke-pre",))
SMOKE_FAILS = Outcome(exit_code=1, failed_steps=("stream-smoke-pre",))
DRILL_HAS_NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("canary-rollback-drill",))
DRILL_FAILS = Outcome(exit_code=1, failed_steps=("canary-rollback-drill",), traffic="stable")
BASELINE_UNHEALTHY = Outcome(exit_code=3, failed_steps=("canary-rollback-drill",), traffic="stable")
FLIP_FAILS = Outcome(exit_code=1, failed_steps=("route-flip",))
POST_FAILS = Outcome(exit_code=1, failed_steps=("stream-smoke-post",))
DUAL_RUN_FAILS = Outcome(exit_code=1, failed_steps=("dual-run-diff",))

LOST = Rewrite(lambda _: NO_REPLY)
"""An effect: the service handles the request, but the reply is lost."""


def fault(name: str, sentence: str, scope: Scope, effect: Effect, outcome: Outcome) -> Fault:
    """Return a fault with one effect in one scope."""
    return Fault(name=name, sentence=sentence, strikes=(Strike(scope, effect),), outcome=outcome)


def once(scope: Scope) -> Scope:
    """Return the scope of only the first request that matches ``scope``."""
    return attrs.evolve(scope, last=1)
