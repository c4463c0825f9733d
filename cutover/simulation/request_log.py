"""The log of the production: one entry for each request, with its reply and its end."""

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
    """One request, as the production saw it. An entry contains no token."""

    sequence: int
    """Position in the order of arrival, counted from 0."""
    time: float
    """Time at which the head arrived, in seconds of the production's clock."""
    authority: str
    """Host of the request, with its port if it has one."""
    method: str
    path: str
    """Path as the client sent it."""
    query: Mapping[str, str]
    token: str | None
    """Name of the token: ``auth``, ``control``, ``cloud_run``, ``legacy`` or ``unknown``; None without ``authorization``."""
    site: Site | None
    """Service that the request arrived at; None if no service has such a URL."""
    operation: Operation
    revision: str | None
    """Name of the revision that the request was routed to; None if it was not for the new service."""
    instance: int | None
    """Number of the instance that the request was routed to; None if it was not for the new service."""
    body: bytes = b""
    """First 4096 bytes of the body."""
    status: int | None = None
    """Status code of the reply; None before the reply, and for a reply without a head."""
    started_turn: bool = False
    """True if the request started a chat turn."""
    ending: Ending | None = None
    """End of the exchange; None while it is under way."""


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
    """Return the entry of a request that has just arrived. The entry keeps the token's name, not the token."""
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


def answered(
    entry: LoggedRequest,
    *,
    operation: Operation,
    body: bytes,
    status: int | None,
    started_turn: bool,
) -> LoggedRequest:
    """Return the entry with the facts that are known once there is a reply. The body may tell the operation more exactly."""
    return attrs.evolve(
        entry, operation=operation, body=body[:_LOGGED_BYTES], status=status, started_turn=started_turn
    )
