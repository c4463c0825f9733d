"""The outcomes that faults declare, named by the step that fails first, and functions to declare faults."""

import attrs

from cutover.simulation.exchange import NO_REPLY
from cutover.simulation.faults import Effect, Fault, Outcome, Rewrite, Scope, Strike

PASSED = Outcome(exit_code=0, routes="flipped")
NOTHING_WRITTEN = Outcome(exit_code=0)
"""The outcome of a train that only verifies, for a fault of writing overrides."""
NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("preflight",))
PREFLIGHT_FAILS = Outcome(exit_code=1, failed_steps=("preflight",))
SMOKE_HAS_NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("stream-smoke-pre",))
SMOKE_FAILS = Outcome(exit_code=1, failed_steps=("stream-smoke-pre",))
DRILL_FAILS = Outcome(exit_code=1, failed_steps=("canary-rollback-drill",), traffic="stable")
FLIP_FAILS = Outcome(exit_code=1, failed_steps=("route-flip",))
POST_FAILS = Outcome(exit_code=1, failed_steps=("stream-smoke-post",))
DUAL_RUN_FAILS = Outcome(exit_code=1, failed_steps=("dual-run-diff",))

LOST = Rewrite(lambda _: NO_REPLY)
"""Return an effect that loses the reply of a service that has done what was asked."""


def fault(name: str, sentence: str, scope: Scope, effect: Effect, outcome: Outcome) -> Fault:
    """Return a fault with one effect."""
    return Fault(name=name, sentence=sentence, strikes=(Strike(scope, effect),), outcome=outcome)


def once(scope: Scope) -> Scope:
    """Return the scope of the first matching request alone."""
    return attrs.evolve(scope, last=1)
