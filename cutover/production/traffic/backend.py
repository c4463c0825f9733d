"""The interface of a traffic backend."""

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import CommandStarted

CONFLICT = 409


CommandObserver = Callable[[CommandStarted], None]
"""Told of a command before it runs; where it raises, the command never does."""


@attrs.frozen(kw_only=True)
class Revision:
    """One revision of the service."""

    name: str
    exists: bool
    ready: bool
    message: str = ""


class TrafficBackend(Protocol):
    """How the split is read and written; the Cloud Run Admin API, or gcloud."""

    async def read(self, *, label: str) -> TrafficState:
        """Read the split.

        Raises:
            PeerError: No usable answer.
        """
        ...

    async def revision(self, name: str, *, label: str) -> Revision:
        """Read whether a revision exists and is ready.

        Raises:
            PeerError: No usable answer.
        """
        ...

    async def write(
        self,
        targets: Sequence[TrafficTarget],
        *,
        etag: str | None,
        label: str,
        begun: CommandObserver | None = None,
    ) -> None:
        """Ask for a split; that it was accepted says nothing about its effect.

        Args:
            targets: All there is to be.
            etag: Of the state that the split is meant to follow; None writes whatever is there.
            label: Names the request.
            begun: Told of the command that carries it out, where it is one.

        Raises:
            NoAnswerError: No reply came; it may have taken effect.
            RefusedError: It was refused; a status of 409 or 412 means that the etag is stale.
        """
        ...
