"""The log of every request and its answer."""

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
    """One request as the production received it, without its token."""

    sequence: int
    """Number in the order of arrival, from 0."""
    time: float
    """Seconds on the production's clock, when the head arrived."""
    authority: str
    method: str
    path: str
    """The path as sent."""
    query: Mapping[str, str]
    token: str | None
    """Kind of the token: ``auth``, ``control``, ``cloud_run``, ``legacy`` or ``unknown``; None without a token."""
    site: Site | None
    """The service; None if no service has this authority and path."""
    operation: Operation
    revision: str | None
    """The revision that the request was routed to."""
    instance: int | None
    body: bytes = b""
    """The first 4096 bytes of the body."""
    status: int | None = None
    """The status; None before the answer, and if no head was sent."""
    started_turn: bool = False
    ending: Ending | None = None
    """The end of the exchange; None while it lasts."""


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
    """Return the entry of a request that has just arrived. It names the kind of the token and forgets the token."""
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
    """Return the entry with its answer."""
    return attrs.evolve(entry, body=body[:_LOGGED_BYTES], status=status, started_turn=started_turn)
