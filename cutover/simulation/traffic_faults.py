"""Faults of Cloud Run traffic, and variants of a deployment that are unusual but correct.

The module is a long table: one entry for each fault.
"""

import math
from collections.abc import Callable

import attrs

from cutover.simulation.addresses import Site
from cutover.simulation.cloud_run import google_error
from cutover.simulation.exchange import CLOUD_RUN, NO_REPLY, Fate, Operation, html_reply
from cutover.simulation.faults import Fault, Outcome, Refuse, Scope, Strike
from cutover.simulation.layout import Affinity, Layout
from cutover.simulation.outcomes import (
    DRILL_FAILS,
    LOST,
    NO_EVIDENCE,
    PASSED,
    fault,
    once,
)

_API = frozenset({Site.CLOUD_RUN})
_READ = Scope(operations=frozenset({Operation.SERVICE_READ}), sites=_API)
_UPDATE = Scope(operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=_API)
_VALIDATE = Scope(operations=frozenset({Operation.TRAFFIC_VALIDATE}), sites=_API)
_UPDATE_OR_VALIDATE = attrs.evolve(_UPDATE, operations=_UPDATE.operations | _VALIDATE.operations)
_PROMOTE = attrs.evolve(_UPDATE, asks="canary")
_ROLL_BACK = attrs.evolve(_UPDATE, asks="stable")

_NO_EFFECT = Fate(takes_effect=False)
_HTML = Refuse(html_reply("<!doctype html><title>Sign in</title>\n"))
_CONFLICT = Refuse(google_error(409, "ABORTED", "Conflict for resource: the etag is not the current one."))
_STALE = Refuse(google_error(412, "FAILED_PRECONDITION", "The etag is not the current one."))
_500 = Refuse(google_error(500, "INTERNAL", "Internal."))
_429 = Refuse(
    google_error(429, "RESOURCE_EXHAUSTED", "Quota exceeded for write requests per minute.").with_header(
        "retry-after", "2"
    )
)
_503 = Refuse(google_error(503, "UNAVAILABLE", "The service is currently unavailable."))
_403 = Refuse(google_error(403, "PERMISSION_DENIED", "Permission 'run.services.update' denied."))
_STUCK_ON_CANARY = Outcome(exit_code=4, failed_steps=("canary-rollback-drill", "undo"), traffic="canary")
_CANARY_TAG = {"canary": "https://canary---svc.example"}


def _tagged(tags: dict[str, str]) -> Callable[[Layout], Layout]:
    return lambda layout: attrs.evolve(layout, tag_urls={**tags, **layout.tag_urls})


TRAFFIC_FAULTS = (
    fault(
        "cloud-run-401",
        "The Cloud Run API answers 401: the access token is not valid.",
        Scope(operations=CLOUD_RUN, sites=_API),
        Refuse(google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")),
        NO_EVIDENCE,
    ),
    fault(
        "service-500",
        "Reading the Cloud Run service always fails with 500.",
        _READ,
        _500,
        NO_EVIDENCE,
    ),
    fault(
        "service-503-once",
        "The first read of the Cloud Run service fails with 503; later reads work.",
        once(_READ),
        _503,
        PASSED,
    ),
    fault("service-html", "Reading the Cloud Run service returns a login page.", _READ, _HTML, NO_EVIDENCE),
    fault(
        "patch-409", "Every traffic update is refused with 409 (conflict).", _UPDATE, _CONFLICT, DRILL_FAILS
    ),
    fault(
        "patch-409-once",
        "The first traffic update is refused with 409 (conflict), although nothing has changed.",
        once(_UPDATE),
        _CONFLICT,
        PASSED,
    ),
    fault(
        "patch-412-once",
        "The first traffic update is refused with 412 (failed precondition), although nothing has changed.",
        once(_UPDATE),
        _STALE,
        PASSED,
    ),
    fault(
        "patch-429-once",
        "The first traffic update is refused with 429 (quota) and a retry-after of 2 seconds.",
        once(_UPDATE),
        _429,
        PASSED,
    ),
    fault(
        "patch-429",
        "Every traffic update is refused with 429 (quota) and a retry-after of 2 seconds.",
        _UPDATE,
        _429,
        DRILL_FAILS,
    ),
    fault(
        "patch-503-once",
        "The first traffic update fails with 503 and changes nothing.",
        once(_UPDATE),
        _503,
        PASSED,
    ),
    fault(
        "patch-reset-once",
        "The connection of the first traffic update breaks, and nothing is changed.",
        once(_UPDATE),
        Refuse(NO_REPLY),
        PASSED,
    ),
    fault(
        "rollback-409-once",
        "The first traffic update back to stable is refused with 409 (conflict).",
        once(_ROLL_BACK),
        _CONFLICT,
        PASSED,
    ),
    fault(
        "patch-403",
        "Every traffic update is refused with 403 (forbidden), also one that is only validated.",
        _UPDATE_OR_VALIDATE,
        _403,
        NO_EVIDENCE,
    ),
    fault(
        "promotion-403",
        "A traffic update that gives the canary a share is refused with 403, although its validation was allowed.",
        _PROMOTE,
        _403,
        DRILL_FAILS,
    ),
    fault(
        "validate-429",
        "Every traffic update that is only validated is refused with 429 (quota).",
        _VALIDATE,
        _429,
        NO_EVIDENCE,
    ),
    fault(
        "patch-500",
        "Every traffic update fails with 500.",
        _UPDATE,
        _500,
        DRILL_FAILS,
    ),
    fault(
        "operation-fails",
        "A traffic update that gives the canary a share fails at once.",
        _PROMOTE,
        Fate(error="Revision not found."),
        DRILL_FAILS,
    ),
    fault(
        "settles-failed",
        "A traffic update that gives the canary a share is accepted, then settles as failed.",
        _PROMOTE,
        Fate(fails="Revision is not ready."),
        DRILL_FAILS,
    ),
    fault(
        "promotion-never-settles",
        "A traffic update that gives the canary a share never settles.",
        _PROMOTE,
        Fate(settles_after=math.inf),
        DRILL_FAILS,
    ),
    fault(
        "settles-slowly",
        "Every traffic update takes 20 seconds to settle.",
        _UPDATE,
        Fate(settles_after=20.0),
        PASSED,
    ),
    fault(
        "update-late",
        "Every traffic update is accepted, and takes effect 3 seconds later.",
        _UPDATE,
        Fate(after=3.0),
        PASSED,
    ),
    fault(
        "update-ignored",
        "A traffic update that gives the canary a share is accepted and changes nothing.",
        _PROMOTE,
        _NO_EFFECT,
        DRILL_FAILS,
    ),
    fault(
        "update-reply-lost",
        "The first traffic update takes effect, but its reply is lost.",
        once(_UPDATE),
        LOST,
        PASSED,
    ),
    fault(
        "rollback-reply-lost",
        "The first traffic update back to stable takes effect, but its reply is lost.",
        once(_ROLL_BACK),
        LOST,
        PASSED,
    ),
    attrs.evolve(
        fault(
            "update-undone",
            "One second after the canary gets a share, somebody else puts the old traffic back.",
            _PROMOTE,
            Fate(undone_after=1.0),
            DRILL_FAILS,
        ),
        watch_seconds=2.0,
    ),
    attrs.evolve(
        fault(
            "tags-dropped",
            "A traffic update that gives the canary a share drops all tags.",
            _PROMOTE,
            Fate(keeps_tags=False),
            DRILL_FAILS,
        ),
        arrange=_tagged(_CANARY_TAG),
    ),
    fault(
        "deployed-meanwhile",
        "Somebody else deploys a revision just before the canary gets its second share.",
        attrs.evolve(_PROMOTE, first=2, last=2),
        Fate(overtaken=True),
        PASSED,
    ),
    fault(
        "rollback-ignored",
        "Traffic updates back to stable are accepted and change nothing.",
        _ROLL_BACK,
        _NO_EFFECT,
        _STUCK_ON_CANARY,
    ),
    fault(
        "rollback-403",
        "Traffic updates back to stable are refused with 403 (forbidden).",
        _ROLL_BACK,
        _403,
        _STUCK_ON_CANARY,
    ),
    fault(
        "never-settles",
        "No traffic update ever settles.",
        _UPDATE,
        Fate(settles_after=math.inf),
        Outcome(exit_code=4, failed_steps=("canary-rollback-drill", "undo"), traffic="stable"),
    ),
    Fault(
        name="front-door-lags",
        sentence="Each change of the traffic reaches the front door 3 seconds after the API shows it.",
        arrange=lambda layout: attrs.evolve(layout, front_lag_seconds=3.0),
        outcome=PASSED,
    ),
    Fault(
        name="canary-gets-everything",
        sentence="The front door sends every request to the canary as soon as the canary has any share.",
        arrange=lambda layout: attrs.evolve(layout, canary_takes_all=True),
        outcome=DRILL_FAILS,
        # Two streams in a row of a canary with 5 percent are no proof; four are.
        watch_seconds=5.0,
    ),
    Fault(
        name="canary-missing",
        sentence="The canary revision does not exist.",
        arrange=lambda layout: attrs.evolve(layout, canary_exists=False),
        outcome=NO_EVIDENCE,
    ),
    Fault(
        name="canary-not-ready",
        sentence="The canary revision is not ready.",
        arrange=lambda layout: attrs.evolve(layout, canary_ready=False),
        outcome=NO_EVIDENCE,
    ),
)


DEPLOYMENT_VARIANTS = (
    Fault(
        name="clock-ahead",
        sentence="Every reply has a Date header that is ten minutes ahead of the clock of this machine.",
        arrange=lambda layout: attrs.evolve(layout, clock_ahead=600.0),
        outcome=PASSED,
    ),
    Fault(
        name="settles-later",
        sentence="Every traffic update takes 2 seconds to settle.",
        arrange=lambda layout: attrs.evolve(layout, settle_seconds=2.0),
        outcome=PASSED,
    ),
    Fault(
        name="validate-unknown",
        sentence="The Cloud Run API does not know validateOnly, and answers 400 to it.",
        strikes=(
            Strike(
                _VALIDATE,
                Refuse(
                    google_error(
                        400, "INVALID_ARGUMENT", 'Invalid JSON payload received. Unknown name "validateOnly".'
                    )
                ),
            ),
        ),
        outcome=PASSED,
    ),
    Fault(
        name="broken-revision",
        sentence="Before the train, somebody else has deployed a revision that does not start; the split is served.",
        arrange=lambda layout: attrs.evolve(layout, broken_revision=True),
        outcome=PASSED,
    ),
    Fault(
        name="broken-revision-in-drill",
        sentence="In the drill, somebody else deploys a revision that does not start; the split is served.",
        strikes=(
            Strike(attrs.evolve(_PROMOTE, first=2, last=2), Fate(overtaken=True, overtaken_by_broken=True)),
        ),
        outcome=PASSED,
    ),
    Fault(
        name="broken-revision-starts-slowly",
        sentence="In the drill, somebody else deploys a revision that fails to start after four minutes; the split is served.",
        strikes=(
            Strike(
                attrs.evolve(_PROMOTE, first=2, last=2),
                Fate(overtaken=True, overtaken_by_broken=True, overtaken_for=240.0),
            ),
        ),
        outcome=PASSED,
    ),
    Fault(
        name="latest",
        sentence="Before the train, the traffic is on LATEST.",
        arrange=lambda layout: attrs.evolve(layout, latest=True),
        outcome=PASSED,
    ),
    Fault(
        name="tagged-canary",
        sentence="The canary revision already has a traffic tag.",
        arrange=_tagged(_CANARY_TAG),
        outcome=PASSED,
    ),
    Fault(
        name="extra-tags",
        sentence="Both the stable and the canary revision already have a traffic tag.",
        arrange=_tagged({"preview": "https://preview---svc.example", **_CANARY_TAG}),
        outcome=PASSED,
    ),
    Fault(
        name="five-instances",
        sentence="Each revision has five instances.",
        arrange=lambda layout: attrs.evolve(layout, instances=5),
        outcome=PASSED,
    ),
    Fault(
        name="session-affinity",
        sentence="The front door keeps each client on one instance by a cookie.",
        arrange=lambda layout: attrs.evolve(layout, affinity=Affinity.COOKIE),
        outcome=PASSED,
    ),
)
