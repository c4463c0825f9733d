"""An embedded production, for rehearsals, tests and demonstrations: one ASGI app that plays every service of a cutover.

It is built from the rules of the wire alone and imports nothing else of this library, because a simulation that shared code with the
checker would prove nothing.

| file | part |
|---|---|
| ``production.py``, ``wire.py``, ``addresses.py`` | the ASGI app: finds the service that a request is for, lets faults act, sends the reply |
| ``front_door.py`` | chooses the revision and the instance of a request, by the split |
| ``service.py``, ``streams.py`` | the chat service and the turns that it streams |
| ``route_split.py`` | the overrides of each instance, and the route-split API |
| ``deployment.py``, ``cloud_run.py``, ``cloud_run_v1.py`` | the Cloud Run service, and its Admin API v2 and v1 |
| ``legacy.py`` | the legacy service |
| ``layout.py``, ``timeline.py`` | the state at the start, and changes that take effect later |
| ``exchange.py``, ``request_log.py`` | requests and replies as values, and the log of all of them |
| ``catalog.py``, ``faults.py``, ``*_faults.py``, ``stream_changes.py``, ``outcomes.py`` | the faults, and the outcome declared for each |
"""

from cutover.simulation.addresses import Site
from cutover.simulation.catalog import FAULTS, VARIANTS
from cutover.simulation.exchange import Operation
from cutover.simulation.faults import Fault, Outcome
from cutover.simulation.layout import Affinity, Credentials, Layout, RouteGroup, RouteSplitSettings
from cutover.simulation.production import SimulatedProduction
from cutover.simulation.request_log import LoggedRequest
from cutover.simulation.wire import ConnectionBroken, Ending

__all__ = (
    "FAULTS",
    "VARIANTS",
    "Affinity",
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
