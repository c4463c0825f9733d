"""Faults of the route-split API (the control plane) and of the write paths."""

import attrs

from cutover.simulation.exchange import (
    CONTROL,
    SILENCE,
    Fate,
    Operation,
    Reply,
    html_reply,
    json_reply,
    problem,
    text_reply,
)
from cutover.simulation.faults import Effect, Fault, Outcome, Refuse, Rewrite, Scope, Strike
from cutover.simulation.outcomes import (
    FLIP_FAILS,
    LOST,
    NO_EVIDENCE,
    NOTHING_WRITTEN,
    PASSED,
    fault,
    once,
)
from cutover.simulation.service import upgrade_required

_FLIP = Scope(operations=frozenset({Operation.ROUTE_OVERRIDE}), asks="rust")
_ANY_OVERRIDE = Scope(operations=frozenset({Operation.ROUTE_OVERRIDE, Operation.ROUTE_PERMISSION}))
_PERMISSION = Scope(operations=frozenset({Operation.ROUTE_PERMISSION}))
_STATUS = Scope(operations=frozenset({Operation.ROUTE_STATUS}))
_EVALUATE = Scope(operations=frozenset({Operation.ROUTE_EVALUATE}))
_WRITE = Scope(operations=frozenset({Operation.WRITE}))

_NO_EFFECT = Fate(takes_effect=False)
_500 = Refuse(problem(500, "internal", "Something went wrong."))
_BUSY = Refuse(problem(429, "too_many_requests", "Wait.", headers=(("retry-after", "1"),)))
_MOVED = Refuse(Reply(status=302, headers=(("location", "/login"),)))
_HTML = Refuse(html_reply("<!doctype html><title>Sign in</title>\n"))


def _flip_fault(
    name: str, sentence: str, scope: Scope, effect: Effect, outcome: Outcome = FLIP_FAILS
) -> Fault:
    """Return a fault of override writes. A train that only verifies the routes writes nothing, so it passes."""
    return attrs.evolve(fault(name, sentence, scope, effect, outcome), verify_only=NOTHING_WRITTEN)


def _evaluates_legacy(reply: Reply) -> Reply:
    swapped = (
        piece.replace(b'"target":"rust_shell"', b'"target":"legacy"') if isinstance(piece, bytes) else piece
        for piece in reply.body
    )
    return attrs.evolve(reply, body=tuple(swapped))


def _halved(reply: Reply) -> Reply:
    halves = (piece[: len(piece) // 2] if isinstance(piece, bytes) else piece for piece in reply.body)
    return attrs.evolve(reply, body=tuple(halves))


CONTROL_FAULTS = (
    fault(
        "control-401",
        "The route-split API answers 401: the operator's token is not valid.",
        Scope(operations=CONTROL),
        Refuse(problem(401, "unauthorized", "Unauthenticated.")),
        NO_EVIDENCE,
    ),
    fault(
        "control-403",
        "The route-split API answers 403: the operator's token has no permission.",
        Scope(operations=CONTROL),
        Refuse(problem(403, "forbidden", "This token may not do that.")),
        NO_EVIDENCE,
    ),
    fault(
        "control-426",
        "The route-split API answers 426: the client is too old.",
        Scope(operations=CONTROL),
        Refuse(upgrade_required("upgrade_required")),
        NO_EVIDENCE,
    ),
    fault(
        "status-html",
        "Reading the route-split status returns a login page with status 200.",
        _STATUS,
        _HTML,
        NO_EVIDENCE,
    ),
    fault("status-500", "Reading the route-split status always fails with 500.", _STATUS, _500, NO_EVIDENCE),
    fault(
        "status-truncated",
        "The JSON of the route-split status is cut in the middle.",
        _STATUS,
        Rewrite(_halved),
        NO_EVIDENCE,
    ),
    fault(
        "status-429-once",
        "The first read of the route-split status answers 429 with a wait of one second.",
        once(_STATUS),
        _BUSY,
        PASSED,
    ),
    fault(
        "status-silence",
        "Reading the route-split status never gets an answer.",
        _STATUS,
        Refuse(SILENCE),
        NO_EVIDENCE,
    ),
    fault(
        "status-500-once",
        "The first read of the route-split status fails with 500; later reads work.",
        once(_STATUS),
        _500,
        PASSED,
    ),
    _flip_fault(
        "override-422",
        "Overrides to the new service are refused with 422 as invalid.",
        _FLIP,
        Refuse(problem(422, "invalid_request", "Unknown.")),
    ),
    _flip_fault(
        "override-403",
        "Every override is refused with 403: the operator's token belongs to no administrator.",
        _ANY_OVERRIDE,
        Refuse(problem(403, "forbidden", "Administrator access is required.")),
        NO_EVIDENCE,
    ),
    _flip_fault(
        "override-403-at-flip",
        "Overrides to the new service are refused with 403, although the token may set overrides.",
        _FLIP,
        Refuse(problem(403, "forbidden", "Read only.")),
    ),
    _flip_fault(
        "unknown-target-accepted",
        "An override to an unknown target answers 200, so nothing tells if the token may set overrides.",
        _PERMISSION,
        Refuse(json_reply({"data": {}})),
        NO_EVIDENCE,
    ),
    _flip_fault(
        "unknown-target-in-text",
        "An override to an unknown target is refused in plain text, before the token is looked at.",
        _PERMISSION,
        Refuse(text_reply("Failed to deserialize the JSON body into the target type", status=422)),
        NO_EVIDENCE,
    ),
    _flip_fault(
        "unknown-target-500-once",
        "The first override to an unknown target fails with 500; later ones are refused as they should be.",
        once(_PERMISSION),
        _500,
        PASSED,
    ),
    _flip_fault("override-500", "Overrides to the new service fail with 500.", _FLIP, _500),
    _flip_fault(
        "override-html", "Overrides to the new service return a login page with status 200.", _FLIP, _HTML
    ),
    _flip_fault(
        "override-ignored", "Overrides to the new service answer 200 and change nothing.", _FLIP, _NO_EFFECT
    ),
    attrs.evolve(
        _flip_fault(
            "override-forgotten",
            "One second after an override to the new service, the instance restarts and loses all its overrides.",
            _FLIP,
            Fate(undone_after=1.0),
        ),
        watch_seconds=2.0,
    ),
    _flip_fault(
        "override-late",
        "Overrides to the new service take effect two seconds after the answer.",
        _FLIP,
        Fate(after=2.0),
        PASSED,
    ),
    _flip_fault(
        "override-reply-lost",
        "The first override to the new service takes effect, but its reply is lost.",
        once(_FLIP),
        LOST,
        PASSED,
    ),
    attrs.evolve(
        _flip_fault(
            "override-one-instance",
            "One of three instances accepts overrides; the other two answer 200 and change nothing.",
            attrs.evolve(_FLIP, instances=frozenset({1, 2})),
            _NO_EFFECT,
        ),
        arrange=lambda layout: attrs.evolve(layout, instances=3),
    ),
    Fault(
        name="override-sticks",
        sentence="After the flip, evaluations answer legacy, and writes that take an override back change nothing.",
        strikes=(
            Strike(attrs.evolve(_EVALUATE, flipped=True), Rewrite(_evaluates_legacy)),
            Strike(attrs.evolve(_FLIP, asks="clear", flipped=True), _NO_EFFECT),
            Strike(attrs.evolve(_FLIP, asks="legacy", flipped=True), _NO_EFFECT),
            Strike(attrs.evolve(_FLIP, asks="rollback", flipped=True), _NO_EFFECT),
        ),
        outcome=Outcome(exit_code=4, failed_steps=("route-flip", "undo"), routes="flipped"),
        verify_only=FLIP_FAILS,
    ),
    Fault(
        name="instances-disagree",
        sentence="One of three instances has a global override that the other two do not have.",
        arrange=lambda layout: attrs.evolve(layout, instances=3, odd_instance=True),
        outcome=NO_EVIDENCE,
    ),
    fault(
        "evaluate-legacy",
        "Every route evaluation answers legacy.",
        _EVALUATE,
        Rewrite(_evaluates_legacy),
        FLIP_FAILS,
    ),
    fault("evaluate-500", "Route evaluations fail with 500.", _EVALUATE, _500, FLIP_FAILS),
    attrs.evolve(
        fault(
            "status-html-after-flip",
            "After the flip, reading the route-split status returns a login page.",
            attrs.evolve(_STATUS, flipped=True),
            _HTML,
            FLIP_FAILS,
        ),
        verify_only=NO_EVIDENCE,
    ),
    fault("write-redirected", "The write paths redirect to the login page.", _WRITE, _MOVED, FLIP_FAILS),
    fault(
        "write-500",
        "The write path /api/runtime/tools/execute fails with 500.",
        attrs.evolve(_WRITE, paths=frozenset({"/api/runtime/tools/execute"})),
        _500,
        FLIP_FAILS,
    ),
)


CONTROL_VARIANTS = (
    Fault(
        name="compatibility-enforced",
        sentence="The route-split API refuses a client without the three compatibility headers, before it looks at the token.",
        arrange=lambda layout: attrs.evolve(layout, enforces_compatibility=True),
        outcome=PASSED,
    ),
    Fault(
        name="later-version",
        sentence="The service is a later version: it announces the end of the lane, and its status has htmx keys.",
        arrange=lambda layout: attrs.evolve(layout, later_version=True),
        outcome=PASSED,
    ),
    Fault(
        name="thread-lists",
        sentence="Each stream leaves its thread in the lists of the user.",
        arrange=lambda layout: attrs.evolve(layout, lists_threads=True),
        outcome=PASSED,
    ),
)
