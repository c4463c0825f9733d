"""Requests and replies as values: every service of the simulation takes a request and returns a reply.

A reply describes its whole course before it is sent, with its pauses and breaks. So a service needs no task and never waits,
and a fault can be a function that turns one reply into another.
"""

import enum
import json
from collections.abc import Mapping

import attrs


class Operation(enum.Enum):
    """The operation that a request asks for, at any of the services."""

    CHAT_STREAM = "POST /api/chat/stream"
    CHATS_STREAM = "POST /api/chats/{id}/stream"
    PAGE = "a public page or document"
    ACCOUNT = "a user's JSON"
    SESSION = "a user's session"
    WRITE = "a write path"
    ROUTE_STATUS = "route-split status"
    ROUTE_OVERRIDE = "route-split override"
    ROUTE_PERMISSION = "route-split override to an unknown target, which changes nothing"
    ROUTE_EVALUATE = "route-split evaluate"
    SERVICE_READ = "Cloud Run service"
    REVISION_READ = "Cloud Run revision"
    TRAFFIC_UPDATE = "Cloud Run traffic update"
    TRAFFIC_VALIDATE = "Cloud Run traffic update that is only validated"
    OPERATION_READ = "Cloud Run operation"
    LIFETIME = "how long a token of Google lives"
    OBJECT_WRITE = "Cloud Storage object write"
    OBJECT_READ = "Cloud Storage object"
    OBJECT_LIST = "Cloud Storage list of objects"
    OBJECT_PERMISSION = "Cloud Storage question about a permission, which changes nothing"
    OBJECT_DELETE = "Cloud Storage object delete"
    OTHER = "anything else"


STREAMS = frozenset({Operation.CHAT_STREAM, Operation.CHATS_STREAM})
CONTROL = frozenset(
    {
        Operation.ROUTE_STATUS,
        Operation.ROUTE_OVERRIDE,
        Operation.ROUTE_PERMISSION,
        Operation.ROUTE_EVALUATE,
    }
)
CLOUD_RUN = frozenset(
    {
        Operation.SERVICE_READ,
        Operation.REVISION_READ,
        Operation.TRAFFIC_UPDATE,
        Operation.TRAFFIC_VALIDATE,
        Operation.OPERATION_READ,
    }
)


@attrs.frozen(kw_only=True)
class Fate:
    """The course of a change (a traffic update or an override); the defaults are the correct course."""

    takes_effect: bool = True
    """False if nothing changes, although the reply reports success."""
    after: float = 0.0
    """Seconds until the change takes effect. A late traffic update is dropped if the service changes before then."""
    undone_after: float | None = None
    """Seconds until the change is lost: the old traffic comes back, or the instance loses all its overrides. None: never."""
    settles_after: float | None = None
    """Seconds until a traffic update settles; infinity for never, None for the layout's ``settle_seconds``."""
    fails: str = ""
    """Message of an update that settles as failed: the spec changes, the served traffic does not. Empty: no failure."""
    error: str = ""
    """Message of a traffic update whose operation fails at once, so that nothing changes. Empty: no failure."""
    keeps_tags: bool = True
    """False if a traffic update drops the tags that it sends."""
    overtaken: bool = False
    """True if somebody else deploys a revision just before the request is handled, which may be a request that only reads."""
    overtaken_by_broken: bool = False
    """True if that revision does not start."""
    overtaken_for: float = 0.0
    """Seconds until that revision is ready, or has failed to start."""


@attrs.frozen(kw_only=True)
class Request:
    """A request: the complete request, or its head alone with an empty body."""

    method: str
    path: str
    """Decoded path. In the complete request it is relative to the URL of the service that the request is for."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Value by name in lower case; the last value of a repeated name."""
    body: bytes
    client: str = ""
    """Address and port of the client's end of the connection; empty if the server does not tell them."""
    fate: Fate = Fate()
    """The course of the change that the request asks for."""

    @property
    def token(self) -> str | None:
        """Return the bearer token, or None if the request has none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    @property
    def is_json(self) -> bool:
        """True if the content type says that the body is JSON."""
        essence = self.headers.get("content-type", "").partition(";")[0].strip().lower()
        return essence == "application/json" or (
            essence.startswith("application/") and essence.endswith("+json")
        )

    def json_object(self) -> dict[str, object]:
        """Return the body as a JSON object.

        Raises:
            ValueError: the body is not a JSON object, or is nested too deeply to read.
        """
        try:
            value = json.loads(self.body)
        except RecursionError as error:
            raise ValueError("the body is nested too deeply") from error
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004  callers catch one error for all bad bodies
        return value


@attrs.frozen
class Event:
    """One event of a turn, not yet written as bytes. Its data is a chunk, or a text such as ``[DONE]``."""

    data: Mapping[str, object] | str


@attrs.frozen
class Pause:
    """A pause of the body: nothing is sent for ``seconds`` seconds."""

    seconds: float


class Halt(enum.Enum):
    """The way in which a body stops before its end."""

    STALL = "nothing more comes, and the connection stays open"
    RESET = "the connection breaks"


Piece = Event | bytes | Pause | Halt


@attrs.frozen(kw_only=True)
class Reply:
    """A reply, with the course of its sending."""

    status: int | None = 200
    """Status code; None if no head is sent: then the body's ``Halt`` describes the course."""
    headers: tuple[tuple[str, str], ...] = ()
    """Pairs of name and value; names are in lower case."""
    body: tuple[Piece, ...] = ()
    streamed: bool = False
    """True if the pieces are sent one by one; False for one body with a content-length, sent without its pauses and halts."""
    held: float = 0.0
    """Seconds before the head is sent."""
    started_turn: bool = False
    """True if the request started a chat turn."""

    def with_header(self, name: str, value: str | None) -> "Reply":
        """Return this reply with one header set to ``value``, or without the header if ``value`` is None."""
        kept = tuple(pair for pair in self.headers if pair[0] != name)
        return attrs.evolve(self, headers=kept if value is None else (*kept, (name, value)))


NO_REPLY = Reply(status=None, body=(Halt.RESET,))
"""A reply that breaks the connection before the head."""
SILENCE = Reply(status=None, body=(Halt.STALL,))
"""A reply that never comes; the connection stays open."""


def json_reply(value: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a reply with a JSON document."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status=status, headers=(("content-type", "application/json"), *headers), body=(body,))


def text_reply(text: str, *, status: int) -> Reply:
    """Return a reply in plain text: the form in which the service's framework refuses a body."""
    return Reply(
        status=status, headers=(("content-type", "text/plain; charset=utf-8"),), body=(text.encode(),)
    )


def html_reply(text: str, *, status: int = 200) -> Reply:
    """Return a reply with an HTML page."""
    return Reply(
        status=status, headers=(("content-type", "text/html; charset=utf-8"),), body=(text.encode(),)
    )


def problem(
    status: int,
    code: str,
    message: str,
    *,
    headers: tuple[tuple[str, str], ...] = (),
    more: Mapping[str, object] | None = None,
) -> Reply:
    """Return an error reply in the form of the chat service and its control plane.

    Args:
        status: the status code.
        code: the error code for programs.
        message: the error message for people.
        headers: more headers.
        more: more members of the JSON body.
    """
    value = {"message": message, "error": {"code": code, "message": message}, **(more or {})}
    return json_reply(value, status=status, headers=headers)
