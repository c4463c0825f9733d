"""An embedded production, for rehearsals, tests and demonstrations: one ASGI app that is every peer of a cutover.

It is built from the rules of the wire alone and imports nothing else of this library: what shares code with the checker
proves nothing about it.
"""

from collections.abc import Mapping
from types import MappingProxyType

from cutover.simulation.addresses import Site
from cutover.simulation.control_faults import CONTROL_FAULTS
from cutover.simulation.exchange import Operation
from cutover.simulation.faults import Fault, Outcome
from cutover.simulation.layout import Affinity, Credentials, Layout, RouteGroup, RouteSplitSettings
from cutover.simulation.legacy_faults import LEGACY_FAULTS
from cutover.simulation.production import SimulatedProduction
from cutover.simulation.request_log import LoggedRequest
from cutover.simulation.stream_faults import STREAM_FAULTS, STREAM_VARIANTS
from cutover.simulation.traffic_faults import DEPLOYMENT_VARIANTS, TRAFFIC_FAULTS
from cutover.simulation.wire import ConnectionBroken, Ending


def _by_name(*groups: tuple[Fault, ...]) -> Mapping[str, Fault]:
    return MappingProxyType({fault.name: fault for group in groups for fault in group})


FAULTS = _by_name(STREAM_FAULTS, CONTROL_FAULTS, TRAFFIC_FAULTS, LEGACY_FAULTS)
"""Everything that can be wrong, by name."""
VARIANTS = _by_name(STREAM_VARIANTS, DEPLOYMENT_VARIANTS)
"""What is unusual and right, by name: a train passes all the same."""

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
