"""One request and one reply, as values. Every service of the simulation takes a request and returns a reply.

A reply is complete before it is sent, with its pauses and breaks. So services need no task and no clock, and a fault is a function
from one reply to another.
"""

import enum
import json
from collections.abc import Mapping

import attrs


class Operation(enum.Enum):
    """The operation that a request asks for."""

    CHAT_STREAM = "POST /api/chat/stream"
    CHATS_STREAM = "POST /api/chats/{id}/stream"
    PAGE = "a public page or document"
    ACCOUNT = "a user's JSON"
    WRITE = "a write path"
    ROUTE_STATUS = "route-split status"
    ROUTE_OVERRIDE = "route-split override"
    ROUTE_EVALUATE = "route-split evaluate"
    SERVICE_READ = "Cloud Run service"
    REVISION_READ = "Cloud Run revision"
    TRAFFIC_UPDATE = "Cloud Run traffic update"
    OPERATION_READ = "Cloud Run operation"
    OTHER = "anything else"


STREAMS = frozenset({Operation.CHAT_STREAM, Operation.CHATS_STREAM})
CONTROL = frozenset({Operation.ROUTE_STATUS, Operation.ROUTE_OVERRIDE, Operation.ROUTE_EVALUATE})
CLOUD_RUN = frozenset(
    {Operation.SERVICE_READ, Operation.REVISION_READ, Operation.TRAFFIC_UPDATE, Operation.OPERATION_READ}
)


@attrs.frozen(kw_only=True)
class Fate:
    """The course of a change after it was accepted. The default is a change that works."""

    takes_effect: bool = True
    """False: nothing changes, although the reply says so."""
    after: float = 0.0
    """Seconds until the change takes effect. A newer traffic update meanwhile drops it."""
    undone_after: float | None = None
    """Seconds after which the change is lost. For an override: the instance restarts and forgets all its overrides."""
    settles_after: float | None = None
    """Seconds until a traffic update settles; infinity for never; None for the layout's figure."""
    fails: str = ""
    """Message of a traffic update that settles as failed: the spec has the new target, the statuses keep the old one."""
    error: str = ""
    """Message of an operation that fails at once and changes nothing."""
    keeps_tags: bool = True
    """False: the tags of a traffic update are lost."""
    overtaken: bool = False
    """True: somebody deploys a revision just before the request is handled."""


@attrs.frozen(kw_only=True)
class Request:
    """A complete request."""

    method: str
    path: str
    """The decoded path below the base path of the service's URL."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Header name in lower case -> value; the last one of repeated headers."""
    body: bytes
    client: str = ""
    """The address and port at the other end of the connection."""
    fate: Fate = Fate()
    """The course of the change that the request asks for."""

    @property
    def token(self) -> str | None:
        """The bearer token; None if there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def json_object(self) -> dict[str, object]:
        """Return the body as a JSON object.

        Raises:
            ValueError: the body is not a JSON object.
        """
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004  both are a body that cannot be read
        return value


@attrs.frozen
class Event:
    """One event of a turn, not yet encoded: a chunk, or a text such as ``[DONE]``."""

    data: Mapping[str, object] | str


@attrs.frozen
class Pause:
    """A pause of this many seconds."""

    seconds: float


class Halt(enum.Enum):
    """An early end of a body."""

    STALL = "nothing more comes, and the connection stays open"
    RESET = "the connection breaks"


Piece = Event | bytes | Pause | Halt


@attrs.frozen(kw_only=True)
class Reply:
    """A reply, with its pauses and breaks."""

    status: int | None = 200
    """None: no head is sent; the halt in the body says why."""
    headers: tuple[tuple[str, str], ...] = ()
    """Header names in lower case."""
    body: tuple[Piece, ...] = ()
    streamed: bool = False
    """True: the pieces are sent one by one. False: as one body with a content-length."""
    held: float = 0.0
    """Seconds before the head is sent."""
    started_turn: bool = False
    """True if the request started a chat turn."""

    def with_header(self, name: str, value: str | None) -> "Reply":
        """Return the reply with one header set, or removed."""
        kept = tuple(pair for pair in self.headers if pair[0] != name)
        return attrs.evolve(self, headers=kept if value is None else (*kept, (name, value)))


NO_REPLY = Reply(status=None, body=(Halt.RESET,))
"""Return a reply whose connection breaks before the head."""
SILENCE = Reply(status=None, body=(Halt.STALL,))
"""Return a reply that never comes."""


def json_reply(value: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """Return a JSON reply."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status=status, headers=(("content-type", "application/json"), *headers), body=(body,))


def html_reply(text: str, *, status: int = 200) -> Reply:
    """Return an HTML page."""
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
    """Return a refusal in the words of the chat service and its control plane."""
    value = {"message": message, "error": {"code": code, "message": message}, **(more or {})}
    return json_reply(value, status=status, headers=headers)
