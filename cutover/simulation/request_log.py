"""Every request that came in, and what became of it."""

from collections.abc import Mapping

import attrs

from cutover.simulation.addresses import Place, Site
from cutover.simulation.exchange import Operation, Request
from cutover.simulation.layout import Credentials
from cutover.simulation.route_split import Instance
from cutover.simulation.wire import Ending

_LOGGED_BYTES = 4096


@attrs.frozen(kw_only=True)
class LoggedRequest:
    """One request, as the production saw it; no token is in it."""

    sequence: int
    """Zero-based, in the order of arrival."""
    time: float
    """Seconds on the production's clock, when the head arrived."""
    authority: str
    method: str
    path: str
    """As it was sent."""
    query: Mapping[str, str]
    token: str | None
    """``auth``, ``control``, ``cloud_run``, ``legacy`` or ``unknown``; None where it carried none."""
    site: Site | None
    """None where the authority or path is nobody's."""
    operation: Operation
    revision: str | None
    """The revision that it was routed to."""
    instance: int | None
    body: bytes = b""
    """The first 4096 bytes."""
    status: int | None = None
    """None before the answer, and where there was no head."""
    started_turn: bool = False
    ending: Ending | None = None
    """None while it is under way."""


def logged(
    head: Request,
    *,
    sequence: int,
    time: float,
    credentials: Credentials,
    place: Place | None,
    operation: Operation,
    instance: Instance | None,
) -> LoggedRequest:
    """A request that has just arrived: what it carries is named, and forgotten."""
    names = credentials.names(head.token)
    return LoggedRequest(
        sequence=sequence,
        time=time,
        authority=head.headers.get("host", ""),
        method=head.method,
        path=head.path,
        query=head.query,
        token=names[0] if names else "unknown" if "authorization" in head.headers else None,
        site=place.site if place is not None else None,
        operation=operation,
        revision=instance.revision if instance is not None else None,
        instance=instance.number if instance is not None else None,
    )


def answered(entry: LoggedRequest, *, body: bytes, status: int | None, started_turn: bool) -> LoggedRequest:
    """The same once its answer is known."""
    return attrs.evolve(entry, body=body[:_LOGGED_BYTES], status=status, started_turn=started_turn)
