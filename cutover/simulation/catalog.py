"""Every fault and variant of the simulation, by name."""

from collections.abc import Mapping
from types import MappingProxyType

from cutover.simulation.control_faults import CONTROL_FAULTS, CONTROL_VARIANTS
from cutover.simulation.evidence_faults import EVIDENCE_FAULTS, EVIDENCE_VARIANTS
from cutover.simulation.faults import Fault
from cutover.simulation.legacy_faults import LEGACY_FAULTS, LEGACY_VARIANTS
from cutover.simulation.stream_faults import STREAM_FAULTS, STREAM_VARIANTS
from cutover.simulation.token_faults import TOKEN_FAULTS
from cutover.simulation.traffic_faults import DEPLOYMENT_VARIANTS, TRAFFIC_FAULTS


def _by_name(*groups: tuple[Fault, ...]) -> Mapping[str, Fault]:
    return MappingProxyType({fault.name: fault for group in groups for fault in group})


FAULTS = _by_name(STREAM_FAULTS, CONTROL_FAULTS, TRAFFIC_FAULTS, EVIDENCE_FAULTS, LEGACY_FAULTS, TOKEN_FAULTS)
"""All faults by name: a production with one of them is broken in that way."""
VARIANTS = _by_name(
    STREAM_VARIANTS, CONTROL_VARIANTS, DEPLOYMENT_VARIANTS, EVIDENCE_VARIANTS, LEGACY_VARIANTS
)
"""All variants by name: a production with one of them is unusual but correct, so a train passes."""
