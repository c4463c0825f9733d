"""A configuration made into peers: clients, control plane, traffic backend, clock; or the simulation, in process."""

from cutover.production.embedded import rehearsal, simulated, simulated_credentials, simulated_layout
from cutover.production.peers import Production, live

__all__ = ["Production", "live", "rehearsal", "simulated", "simulated_credentials", "simulated_layout"]
