"""An embedded production for rehearsals, tests and demonstrations: one ASGI app plays every service that a train calls.

This package imports no other part of this library and follows the wire formats alone: a simulation that shares code with
the checker proves nothing about the checker.

====================================  ==================================================================
Part                                  Files
====================================  ==================================================================
The whole production, one ASGI app    ``production.py``
Its settings at the start             ``layout.py``
Host and path to service              ``addresses.py``
Front door (split, sessions)          ``front_door.py``
Chat service (streams, pages)         ``service.py``; the events of a turn: ``streams.py``
Threads of the chat user              ``threads.py``
Route split (control plane)           ``route_split.py``
Legacy service                        ``legacy.py``
Cloud Run API v2                      ``cloud_run.py``
Cloud Run API v1 (for gcloud)         ``cloud_run_v1.py``
State behind both Cloud Run APIs      ``deployment.py``
Cloud Storage (one bucket)            ``object_store.py``
Changes that happen later             ``timeline.py``
Requests and replies as values        ``exchange.py``; from and to ASGI: ``wire.py``
Log of the requests                   ``request_log.py``
Faults: types and matching            ``faults.py``; the list by name: ``catalog.py``
Faults of streams                     ``stream_faults.py``, made of the functions in ``stream_changes.py``
Faults of routes and write paths      ``control_faults.py``
Faults of Cloud Run traffic           ``traffic_faults.py``
Faults of evidence of the canary      ``evidence_faults.py``
Faults of the legacy service          ``legacy_faults.py``
Faults of tokens that expire          ``token_faults.py``
How a train ends under a fault        ``outcomes.py``
====================================  ==================================================================
"""

from cutover.simulation.addresses import Site
from cutover.simulation.catalog import FAULTS, VARIANTS
from cutover.simulation.exchange import Operation
from cutover.simulation.faults import Fault, Outcome
from cutover.simulation.layout import (
    Affinity,
    ChangeKind,
    Credentials,
    Layout,
    RouteGroup,
    RouteSplitSettings,
)
from cutover.simulation.production import SimulatedProduction
from cutover.simulation.request_log import LoggedRequest
from cutover.simulation.wire import ConnectionBroken, Ending

__all__ = (
    "FAULTS",
    "VARIANTS",
    "Affinity",
    "ChangeKind",
    "ConnectionBroken",
    "Credentials",
    "Ending",
    "Fault",
    "Layout",
    "LoggedRequest",
    "Operation",
    "Outcome",
    "RouteGroup",
    "RouteSplitSettings",
    "SimulatedProduction",
    "Site",
)
