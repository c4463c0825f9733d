"""The faults of the traffic API, and the variants of a deployment that are no faults."""

import math
from collections.abc import Callable

import attrs

from cutover.simulation.addresses import Site
from cutover.simulation.cloud_run import google_error
from cutover.simulation.exchange import CLOUD_RUN, Fate, Operation, html_reply
from cutover.simulation.faults import Fault, Outcome, Refuse, Scope
from cutover.simulation.layout import Affinity, Layout
from cutover.simulation.outcomes import (
    DRILL_FAILS,
    LOST,
    NO_EVIDENCE,
    PASSED,
    PREFLIGHT_FAILS,
    fault,
    once,
)

_API = frozenset({Site.CLOUD_RUN})
_READ = Scope(operations=frozenset({Operation.SERVICE_READ}), sites=_API)
_UPDATE = Scope(operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=_API)
_PROMOTE = attrs.evolve(_UPDATE, asks="canary")
_ROLL_BACK = attrs.evolve(_UPDATE, asks="stable")

_NO_EFFECT = Fate(takes_effect=False)
_HTML = Refuse(html_reply("<!doctype html><title>Sign in</title>\n"))
_CONFLICT = Refuse(google_error(409, "ABORTED", "Conflict for resource: the etag is not the current one."))
_STALE = Refuse(google_error(412, "FAILED_PRECONDITION", "The etag is not the current one."))
_500 = Refuse(google_error(500, "INTERNAL", "Internal."))
_403 = Refuse(google_error(403, "PERMISSION_DENIED", "Permission 'run.services.update' denied."))
_STUCK_ON_CANARY = Outcome(exit_code=4, failed_steps=("canary-rollback-drill", "undo"), traffic="canary")
_CANARY_TAG = {"canary": "https://canary---svc.example"}


def _tagged(tags: dict[str, str]) -> Callable[[Layout], Layout]:
    return lambda layout: attrs.evolve(layout, tag_urls={**tags, **layout.tag_urls})


TRAFFIC_FAULTS = (
    fault(
        "cloud-run-401",
        "The traffic API refuses the token.",
        Scope(operations=CLOUD_RUN, sites=_API),
        Refuse(google_error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")),
        NO_EVIDENCE,
    ),
    fault(
        "service-500",
        "The service cannot be read.",
        _READ,
        _500,
        NO_EVIDENCE,
    ),
    fault(
        "service-503-once",
        "The service cannot be read the first time.",
        once(_READ),
        Refuse(google_error(503, "UNAVAILABLE", "The service is currently unavailable.")),
        PASSED,
    ),
    fault("service-html", "The service is answered as a login page.", _READ, _HTML, NO_EVIDENCE),
    fault("patch-409", "Every update is a conflict.", _UPDATE, _CONFLICT, DRILL_FAILS),
    fault("patch-409-once", "The first update is a conflict.", once(_UPDATE), _CONFLICT, DRILL_FAILS),
    fault("patch-412-once", "The first update is a failed precondition.", once(_UPDATE), _STALE, DRILL_FAILS),
    fault(
        "rollback-409-once",
        "The first update back to stable is a conflict.",
        once(_ROLL_BACK),
        _CONFLICT,
        PASSED,
    ),
    fault(
        "patch-403",
        "Updates are forbidden.",
        _UPDATE,
        _403,
        DRILL_FAILS,
    ),
    fault(
        "patch-500",
        "Updates fail with 500.",
        _UPDATE,
        _500,
        DRILL_FAILS,
    ),
    fault(
        "operation-fails",
        "An update's operation fails at once.",
        _PROMOTE,
        Fate(error="Revision not found."),
        DRILL_FAILS,
    ),
    fault(
        "settles-failed",
        "An update settles as failed.",
        _PROMOTE,
        Fate(fails="Revision is not ready."),
        DRILL_FAILS,
    ),
    fault(
        "promotion-never-settles",
        "An update that gives the canary a share never settles.",
        _PROMOTE,
        Fate(settles_after=math.inf),
        DRILL_FAILS,
    ),
    fault(
        "settles-slowly",
        "Every update takes 20 seconds to settle.",
        _UPDATE,
        Fate(settles_after=20.0),
        PASSED,
    ),
    fault(
        "update-late",
        "An update is accepted, and lands three seconds later.",
        _UPDATE,
        Fate(after=3.0),
        PASSED,
    ),
    fault(
        "update-ignored",
        "An update that gives the canary a share is accepted and does nothing.",
        _PROMOTE,
        _NO_EFFECT,
        DRILL_FAILS,
    ),
    fault("update-reply-lost", "An update takes effect, its reply is lost.", once(_UPDATE), LOST, PASSED),
    fault(
        "rollback-reply-lost",
        "The update back to stable takes effect, its reply is lost.",
        once(_ROLL_BACK),
        LOST,
        PASSED,
    ),
    attrs.evolve(
        fault(
            "update-undone",
            "An update is put back by somebody a second after it settled.",
            _PROMOTE,
            Fate(undone_after=1.0),
            DRILL_FAILS,
        ),
        watch_seconds=2.0,
    ),
    attrs.evolve(
        fault(
            "tags-dropped",
            "Updates drop the tags that they are sent.",
            _PROMOTE,
            Fate(keeps_tags=False),
            DRILL_FAILS,
        ),
        arrange=_tagged(_CANARY_TAG),
    ),
    fault(
        "deployed-meanwhile",
        "Somebody deploys before the second update.",
        attrs.evolve(_PROMOTE, first=2, last=2),
        Fate(overtaken=True),
        DRILL_FAILS,
    ),
    fault(
        "rollback-ignored",
        "Updates back to stable are accepted and do nothing.",
        _ROLL_BACK,
        _NO_EFFECT,
        _STUCK_ON_CANARY,
    ),
    fault(
        "rollback-403",
        "Updates back to stable are forbidden.",
        _ROLL_BACK,
        _403,
        _STUCK_ON_CANARY,
    ),
    fault(
        "never-settles",
        "No update ever settles.",
        _UPDATE,
        Fate(settles_after=math.inf),
        Outcome(exit_code=4, failed_steps=("canary-rollback-drill", "undo"), traffic="stable"),
    ),
    Fault(
        name="canary-missing",
        sentence="The canary revision does not exist.",
        arrange=lambda layout: attrs.evolve(layout, canary_exists=False),
        outcome=PREFLIGHT_FAILS,
    ),
    Fault(
        name="canary-not-ready",
        sentence="The canary revision is not ready.",
        arrange=lambda layout: attrs.evolve(layout, canary_ready=False),
        outcome=PREFLIGHT_FAILS,
    ),
)


DEPLOYMENT_VARIANTS = (
    Fault(
        name="settles-later",
        sentence="Operations are not done at first, updates take 2 seconds.",
        arrange=lambda layout: attrs.evolve(layout, settle_seconds=2.0),
        outcome=PASSED,
    ),
    Fault(
        name="latest",
        sentence="The traffic was on LATEST.",
        arrange=lambda layout: attrs.evolve(layout, latest=True),
        outcome=PASSED,
    ),
    Fault(
        name="tagged-canary",
        sentence="The canary has a tag already.",
        arrange=_tagged(_CANARY_TAG),
        outcome=PASSED,
    ),
    Fault(
        name="extra-tags",
        sentence="Other tags are there.",
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
        sentence="The front door keeps a client on one instance by a cookie.",
        arrange=lambda layout: attrs.evolve(layout, affinity=Affinity.COOKIE),
        outcome=PASSED,
    ),
    Fault(
        name="no-revision-header",
        sentence="No header tells which revision answered.",
        arrange=lambda layout: attrs.evolve(layout, revision_header=""),
        outcome=PASSED,
    ),
)
