"""Faults of the split and the tags before a train, and variants in which a canary is known by a tag or a header alone."""

import math

import attrs

from cutover.simulation.faults import Fault
from cutover.simulation.outcomes import DRILL_HAS_NO_EVIDENCE, NO_EVIDENCE, PASSED

_BALANCER_ONLY = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"

EVIDENCE_FAULTS = (
    Fault(
        name="canary-serves-already",
        sentence="Before the train, the canary has 10 % of the traffic.",
        arrange=lambda layout: attrs.evolve(layout, served={layout.stable: 90, layout.canary: 10}),
        outcome=NO_EVIDENCE,
    ),
    Fault(
        name="other-revision-serves",
        sentence="Before the train, a third revision has 10 % of the traffic.",
        arrange=lambda layout: attrs.evolve(
            layout, served={layout.stable: 90, f"{layout.service}-00039-other": 10}
        ),
        outcome=NO_EVIDENCE,
    ),
    Fault(
        name="specification-stale",
        sentence="Before the train, 10 % for the canary is asked for, and stable serves everything.",
        arrange=lambda layout: attrs.evolve(
            layout, requested={layout.stable: 90, layout.canary: 10}, served={layout.stable: 100}
        ),
        outcome=NO_EVIDENCE,
    ),
    Fault(
        name="no-header-no-tag",
        sentence="No response header names the revision, and the ingress lets only the load balancer in, so no tag URL answers.",
        arrange=lambda layout: attrs.evolve(layout, revision_header="", ingress=_BALANCER_ONLY),
        outcome=NO_EVIDENCE,
    ),
    Fault(
        name="tag-name-taken",
        sentence="The canary has no traffic tag, and stable has the tag that the train would give it.",
        arrange=lambda layout: attrs.evolve(
            layout,
            tag_urls={"cutover-canary": next(iter(layout.tag_urls.values()), "https://tag---svc.example")},
        ),
        outcome=NO_EVIDENCE,
    ),
    Fault(
        name="new-tag-never-answers",
        sentence="No response header names the revision, the canary has no traffic tag, and the URL of a new tag never answers.",
        arrange=lambda layout: attrs.evolve(
            layout, tag_urls={}, revision_header="", tag_opens_after=math.inf
        ),
        outcome=DRILL_HAS_NO_EVIDENCE,
    ),
    Fault(
        name="tag-stays-on-stable",
        sentence="Stable answers at the canary's tag URL, for ever.",
        arrange=lambda layout: attrs.evolve(layout, tag_lags=math.inf),
        outcome=DRILL_HAS_NO_EVIDENCE,
    ),
)


EVIDENCE_VARIANTS = (
    Fault(
        name="no-revision-header",
        sentence="No response header names the revision that answered; the canary's tag URL does.",
        arrange=lambda layout: attrs.evolve(layout, revision_header=""),
        outcome=PASSED,
    ),
    Fault(
        name="untagged-canary",
        sentence="The canary has no traffic tag; a response header names the revision that answered.",
        arrange=lambda layout: attrs.evolve(layout, tag_urls={}),
        outcome=PASSED,
    ),
    Fault(
        name="untagged-no-header",
        sentence="The canary has no traffic tag, and no response header names the revision that answered.",
        arrange=lambda layout: attrs.evolve(layout, tag_urls={}, revision_header=""),
        outcome=PASSED,
    ),
    Fault(
        name="new-tag-answers-late",
        sentence="The canary has no traffic tag, no header names the revision, and the URL of a new tag answers after 5 seconds.",
        arrange=lambda layout: attrs.evolve(layout, tag_urls={}, revision_header="", tag_opens_after=5.0),
        outcome=PASSED,
    ),
    Fault(
        name="tag-lags",
        sentence="For 10 seconds stable answers at the canary's tag URL.",
        arrange=lambda layout: attrs.evolve(layout, tag_lags=10.0),
        outcome=PASSED,
    ),
    Fault(
        name="load-balancer-only",
        sentence="The ingress lets only the load balancer in, so no tag URL answers; a header names the revision.",
        arrange=lambda layout: attrs.evolve(layout, ingress=_BALANCER_ONLY),
        outcome=PASSED,
    ),
)
