"""The interface of a traffic backend: the Cloud Run Admin API, or gcloud."""

from collections.abc import Callable, Sequence
from typing import Protocol

import attrs

from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import CommandStarted

CONFLICT = 409
_UNAUTHORIZED, _FORBIDDEN = 401, 403
CommandObserver = Callable[[CommandStarted], None]
"""A function that is called with a command before the command runs. If the function raises, the command never runs."""


@attrs.frozen(kw_only=True)
class Revision:
    """One revision of the service."""

    name: str
    exists: bool
    ready: bool
    message: str = ""


class TrafficBackend(Protocol):
    """A way to read and write the split of one service."""

    project: str
    region: str
    service: str
    """The names of the service, for commands and for advice."""

    async def read(self, *, label: str) -> TrafficState:
        """Return the traffic as it is now: the split that is asked for and the one that is served, with tags and etag.

        Raises:
            PeerError: There was no usable answer.
        """
        ...

    async def revision(self, name: str, *, label: str) -> Revision:
        """Return a revision: its existence and its readiness.

        Raises:
            PeerError: There was no usable answer.
        """
        ...

    async def may_write(self, current: TrafficState, *, label: str) -> str:
        """Try the permission to write the split, without a change.

        Args:
            current: The split as it was read, which the trial asks for.
            label: Name of the request.

        Returns:
            The reason why the permission could not be tried; an empty text if it was tried and granted.

        Raises:
            PeerError: A write was refused, or there was no usable answer.
        """
        ...

    async def write(
        self,
        targets: Sequence[TrafficTarget],
        *,
        etag: str | None,
        label: str,
        on_start: CommandObserver | None = None,
    ) -> None:
        """Send one write of the split. An accepted write may still have no effect; only a read shows that.

        Args:
            targets: The whole split, with all tags.
            etag: Etag of the state that the write replaces; None writes over any state.
            label: Name of the request.
            on_start: If a command (gcloud) carries out the write: called with the command before it runs.

        Raises:
            NoAnswerError: There was no reply; the write may have taken effect.
            RefusedError: The write was refused; status 409 or 412 means that the etag is stale.
            UnusableReplyError: The reply was not usable; the write may have taken effect.
        """
        ...


def role_of(backend: TrafficBackend) -> str:
    """Return the permission that moves the traffic of this service, and the role that has it."""
    return f"run.services.update on {backend.service} in {backend.region} (roles/run.developer has it)"


def advice(status: int, backend: TrafficBackend) -> str:
    """Return what an operator does about a refusal with this HTTP status, as the end of a sentence; empty for other statuses."""
    return {
        _UNAUTHORIZED: "; renew CLOUD_RUN_ACCESS_TOKEN (or the application default credentials, if that is not set)",
        _FORBIDDEN: (
            f"; ask the owner of the project {backend.project} to grant {role_of(backend)} to the account that moves the traffic: "
            "of CLOUD_RUN_ACCESS_TOKEN, of the application default credentials, or of gcloud"
        ),
    }.get(status, "")
