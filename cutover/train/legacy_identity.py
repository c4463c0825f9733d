"""The identity of the service at LEGACY_BASE_URL. The new service compared with itself always agrees, and proves nothing.

Before the dual run compares anything, two requests ask the legacy URL: ``GET /`` without a token, and ``GET`` of the route-split status
with the token that the legacy service gets in the dual run, and no other.

Three signs show that the new service answers there. Each is certain enough to end the step:

- The revision header of an answer names the stable or the canary revision of this train. This needs REVISION_HEADER. No other service
  has a reason to send these names. The dual run looks for this sign in each compared answer as well.
- The status path answers with a usable route state: status 2xx, and JSON with ``route_groups`` and ``override_target``. Only the new
  service has the route split. Any other answer is no sign: a legacy service may answer this path with 401, 404, HTML or other JSON.
- Both requests are redirected to the host of BASE_URL, and LEGACY_BASE_URL names another host. One redirect alone is no sign: a legacy
  service may send its start page, or the paths that it does not know, to the new host, and answer everything else itself.

No sign proves the reverse: a new service that refuses the token and sends no revision header is not recognized. Its answers to the
compared requests are then refusals, and these are no evidence either.
"""

from collections.abc import Mapping, Sequence
from urllib.parse import urljoin

import anyio
import attrs

from cutover.errors import PeerError
from cutover.http.outbound import Outbound, Reply
from cutover.http.places import place_of
from cutover.http.tokens import Token
from cutover.production.routes.control_plane import route_state_of
from cutover.text import printable

_TRIES = 2


@attrs.frozen(kw_only=True)
class NewService:
    """The properties by which the new service is recognized."""

    base_url: str
    revision_header: str
    """Name of the response header that names the revision; empty if there is none."""
    revisions: tuple[str, ...]
    """Names of this train's revisions."""
    status_path: str
    """Path of the route-split status."""

    def sign_in(self, headers: Sequence[tuple[bytes, bytes]]) -> str:
        """Return the sign of the new service in the headers of a response, in words; empty if there is none."""
        wanted = self.revision_header.lower().encode()
        for key, value in headers:
            name = value.decode("latin-1").strip()
            if wanted and key.lower() == wanted and name in self.revisions:
                return f"its header {self.revision_header} names {name}, a revision of this train"
        return ""


@attrs.frozen(kw_only=True)
class Identity:
    """The result of the two requests."""

    sign: str
    """The sign that the new service answers at the legacy URL, in words; empty if there is none."""
    seen: str
    """Both answers in words."""
    answered: bool
    """False if neither request got an answer."""


async def who_answers(
    outbound: Outbound, *, url: str, token: Token, headers: Mapping[str, str], new: NewService
) -> Identity:
    """Ask the service at the legacy URL, and return the signs of its identity.

    Args:
        outbound: The client for the legacy service.
        url: LEGACY_BASE_URL.
        token: The token of the legacy service. Only the status path gets it.
        headers: Headers of every request of the dual run.
        new: The properties of the new service.
    """
    requests = {
        "root": ("/", None),
        "status": (new.status_path, token),
    }
    found: dict[str, Reply | PeerError] = {}

    async def ask(name: str) -> None:
        path, authorize = requests[name]
        try:
            found[name] = await outbound.read(
                "GET",
                url + path,
                label=f"dual-identity.{name}",
                headers=headers,
                authorize=authorize,
                attempts=_TRIES,
            )
        except PeerError as error:
            found[name] = error

    async with anyio.create_task_group() as group:
        for name in requests:
            group.start_soon(ask, name)
    replies = {name: reply for name, reply in found.items() if isinstance(reply, Reply)}
    return Identity(
        sign=_sign(replies, url, new),
        seen="; ".join(_seen(found[name]) for name in requests),
        answered=bool(replies),
    )


def _sign(replies: Mapping[str, Reply], url: str, new: NewService) -> str:
    for reply in replies.values():
        if sign := new.sign_in(reply.headers):
            return f"{reply.request_line}: {sign}"
    if "status" in replies and _shows_routes(replies["status"]):
        return f"{replies['status'].request_line} answers with the overrides of the route split, which only the new service has"
    if len(replies) > 1 and all(_leads_to(new.base_url, reply, url) for reply in replies.values()):
        return f"{url} redirects to the host of BASE_URL: {replies['root'].describe()}"
    return ""


def _shows_routes(reply: Reply) -> bool:
    try:
        route_state_of(reply)
    except PeerError:
        return False
    return True


def _leads_to(base_url: str, reply: Reply, url: str) -> bool:
    """Return True if a reply redirects to the host of BASE_URL, and LEGACY_BASE_URL does not have this host itself."""
    location = reply.header("location")
    if not reply.is_redirect or location is None:
        return False
    asked = reply.request_line.partition(" ")[2]
    try:
        target, own, new = place_of(urljoin(asked, location)), place_of(url), place_of(base_url)
    except ValueError:
        return False
    if own.host == new.host:
        # Another port of the same host may be another service.
        return own.port != new.port and target.port == new.port and target.host == new.host
    return target.host == new.host


def _seen(found: Reply | PeerError) -> str:
    return f"{found.request_line}: {found.describe()}" if isinstance(found, Reply) else printable(str(found))
