"""The legacy service: it answers the paths of a dual run like the new one, with ids and a token of its own."""

from cutover.simulation.layout import Credentials, Layout
from cutover.simulation.route_split import Instance
from cutover.simulation.service import ChatService
from cutover.simulation.timeline import Timeline

LEGACY_INSTANCE = Instance(revision="legacy", number=0)
"""The single process of the legacy service, outside Cloud Run."""


def legacy_service(layout: Layout, credentials: Credentials, timeline: Timeline) -> ChatService:
    """Return the legacy service: it has no control plane and no revisions."""
    return ChatService(
        credentials=credentials,
        user="legacy",
        turn_prefix="legacy_",
        preview=layout.preview,
        timeline=timeline,
    )
