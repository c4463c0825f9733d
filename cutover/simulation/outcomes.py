"""How trains end, by the step that fails first: what faults are declared to lead to, and how they are declared."""

import attrs

from cutover.simulation.exchange import NO_REPLY
from cutover.simulation.faults import Effect, Fault, Outcome, Rewrite, Scope, Strike

PASSED = Outcome(exit_code=0, routes="flipped")
NOTHING_WRITTEN = Outcome(exit_code=0)
"""Of a train that only verifies, where the fault is one of applying."""
NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("preflight",))
PREFLIGHT_FAILS = Outcome(exit_code=1, failed_steps=("preflight",))
SMOKE_HAS_NO_EVIDENCE = Outcome(exit_code=3, failed_steps=("stream-smoke-pre",))
SMOKE_FAILS = Outcome(exit_code=1, failed_steps=("stream-smoke-pre",))
DRILL_FAILS = Outcome(exit_code=1, failed_steps=("canary-rollback-drill",), traffic="stable")
FLIP_FAILS = Outcome(exit_code=1, failed_steps=("route-flip",))
POST_FAILS = Outcome(exit_code=1, failed_steps=("stream-smoke-post",))
DUAL_RUN_FAILS = Outcome(exit_code=1, failed_steps=("dual-run-diff",))

LOST = Rewrite(lambda _: NO_REPLY)
"""The peer did what was asked, and nobody hears of it."""


def fault(name: str, sentence: str, scope: Scope, effect: Effect, outcome: Outcome) -> Fault:
    """A fault that strikes in one way."""
    return Fault(name=name, sentence=sentence, strikes=(Strike(scope, effect),), outcome=outcome)


def once(scope: Scope) -> Scope:
    """The first request of a scope alone."""
    return attrs.evolve(scope, last=1)
