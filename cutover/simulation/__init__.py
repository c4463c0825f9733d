"""An embedded production, for rehearsals, tests and demonstrations: one ASGI app that is every peer of a cutover.

It is built from the rules of the wire alone and imports nothing else of this library: what shares code with the checker
proves nothing about it.
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
