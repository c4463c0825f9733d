"""The legacy service: answers the paths of a dual run as the new one does, with ids and a token of its own."""

from cutover.simulation.layout import Credentials, Layout
from cutover.simulation.route_split import Instance
from cutover.simulation.service import ChatService
from cutover.simulation.timeline import Timeline

LEGACY_INSTANCE = Instance(revision="legacy", number=0)
"""It is one process, outside Cloud Run."""


def legacy_service(layout: Layout, credentials: Credentials, timeline: Timeline) -> ChatService:
    """The service as it was before: no control plane, no revision."""
    return ChatService(
        credentials=credentials,
        user="legacy",
        turn_prefix="legacy_",
        preview=layout.preview,
        timeline=timeline,
    )
