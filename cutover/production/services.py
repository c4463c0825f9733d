"""The services that a train talks to."""

import attrs

from cutover.clock import Clock
from cutover.http.outbound import Outbound
from cutover.production.lane_prober import LaneProber
from cutover.production.routes.control_plane import ControlPlane
from cutover.production.traffic.backend import TrafficBackend


@attrs.frozen(kw_only=True)
class Services:
    """The services that a train talks to, and its clock."""

    prober: LaneProber
    """Probes the streams through the front door."""
    control: ControlPlane
    traffic: TrafficBackend
    service: Outbound
    """The new service. It gets no token unless a request carries one."""
    legacy: Outbound
    clock: Clock
