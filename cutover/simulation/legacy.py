"""The legacy service: answers the same paths as the new service, with its own ids and its own token."""

from cutover.simulation.layout import Credentials, Layout
from cutover.simulation.route_split import Instance
from cutover.simulation.service import ChatService
from cutover.simulation.timeline import Timeline

LEGACY_INSTANCE = Instance(revision="legacy", number=0)
"""The only instance of the legacy service, which does not run on Cloud Run."""


def legacy_service(layout: Layout, credentials: Credentials, timeline: Timeline) -> ChatService:
    """Return the legacy service: a chat service without control plane and without revisions."""
    return ChatService(
        credentials=credentials,
        user="legacy",
        turn_prefix="legacy_",
        layout=layout,
        timeline=timeline,
    )
