"""The services that a train talks to."""

from collections.abc import Mapping

import attrs

from cutover.clock import Clock
from cutover.http.outbound import Outbound
from cutover.http.tokens import Token
from cutover.production.lane_prober import LaneProber
from cutover.production.metrics.budget_meter import BudgetMeter
from cutover.production.metrics.revision_meter import RevisionMeter
from cutover.production.routes.control_plane import ControlPlane
from cutover.production.traffic.backend import TrafficBackend


@attrs.frozen(kw_only=True)
class Services:
    """The services that a train talks to, and its clock."""

    prober: LaneProber
    """The prober of the streams through the front door."""
    control: ControlPlane
    traffic: TrafficBackend
    service: Outbound
    """The client for requests to the new service. It adds no token: a request that needs a token must bring its own."""
    legacy: Outbound
    clock: Clock
    budget: BudgetMeter | None = None
    """The meter of the error budget; None if no source of metrics is set."""
    revisions: RevisionMeter | None = None
    """The meter of the users' requests of each revision; None without a source of metrics, or without queries for it."""
    tokens: Mapping[str, Token] = attrs.field(factory=dict)
    """The tokens in use, by role: ``control``, ``auth``, ``cloud-run`` and, for a dual run, ``legacy``."""

    def token_name(self, role: str) -> str:
        """Return the name of the input that gives the token of a role, such as ``AUTH_TOKEN_FILE``, for messages."""
        return self.tokens[role].name if role in self.tokens else "the token"
