"""Faults that a dual run detects: faults of the legacy service, and faults that both services share."""

import attrs

from cutover.simulation.addresses import Site
from cutover.simulation.exchange import NO_REPLY, STREAMS, Operation, Reply, problem
from cutover.simulation.faults import Effect, Fault, Refuse, Rewrite, Scope
from cutover.simulation.outcomes import DUAL_RUN_FAILS, PASSED, fault
from cutover.simulation.stream_changes import dropped

_LEGACY = frozenset({Site.LEGACY})
_BOTH = frozenset({Site.LEGACY, Site.FRONT})
_DOCUMENTS = frozenset({Operation.PAGE, Operation.ACCOUNT})


def _dual_run(name: str, sentence: str, scope: Scope, effect: Effect) -> Fault:
    return attrs.evolve(fault(name, sentence, scope, effect, DUAL_RUN_FAILS), dual_run=True)


_LEGACY_EVERYTHING = Scope(operations=STREAMS | _DOCUMENTS, sites=_LEGACY)

LEGACY_FAULTS = (
    _dual_run(
        "legacy-down", "The legacy service breaks every connection.", _LEGACY_EVERYTHING, Refuse(NO_REPLY)
    ),
    _dual_run(
        "legacy-503",
        "The legacy service answers 503.",
        _LEGACY_EVERYTHING,
        Refuse(problem(503, "unavailable", "Down.")),
    ),
    _dual_run(
        "legacy-401",
        "The legacy service answers 401: the token is not valid.",
        _LEGACY_EVERYTHING,
        Refuse(problem(401, "unauthorized", "Unauthenticated.")),
    ),
    _dual_run(
        "legacy-differs",
        "The legacy service has a different /manifest.json.",
        Scope(operations=_DOCUMENTS, sites=_LEGACY, paths=frozenset({"/manifest.json"})),
        Refuse(Reply(headers=(("content-type", "application/json"),), body=(b'{"name":"Legacy"}',))),
    ),
    _dual_run(
        "legacy-stream-differs",
        "Streams of the legacy service leave out the finish-step event.",
        attrs.evolve(_LEGACY_EVERYTHING, operations=STREAMS),
        Rewrite(dropped("finish-step")),
    ),
    _dual_run(
        "both-503",
        "Both services answer 503 for /openapi.json and /manifest.json.",
        Scope(operations=_DOCUMENTS, sites=_BOTH, paths=frozenset({"/openapi.json", "/manifest.json"})),
        Refuse(problem(503, "unavailable", "Down.")),
    ),
    _dual_run(
        "both-401",
        "Both services answer 401 for the JSON of a user, such as /api/me.",
        Scope(operations=frozenset({Operation.ACCOUNT}), sites=_BOTH),
        Refuse(problem(401, "unauthorized", "Unauthenticated.")),
    ),
)

LEGACY_VARIANTS = (
    Fault(
        name="generated-answers",
        sentence="Both services generate their answers: text, ids, times and latencies are new in each answer.",
        arrange=lambda layout: attrs.evolve(layout, generated_seed=1),
        outcome=PASSED,
        dual_run=True,
    ),
)
