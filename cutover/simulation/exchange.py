"""One request and one reply, as values: what every peer of the simulation takes and gives.

A reply is told before it is sent, pauses and breaks included, so that peers need no task and no clock, and a fault is a
function from one reply to another.
"""

import enum
import json
from collections.abc import Mapping

import attrs


class Operation(enum.Enum):
    """What a request asks for, whoever answers it."""

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
    """What becomes of a change after it was accepted; the default is what should."""

    takes_effect: bool = True
    """Whether anything changes at all; the reply says so in any case."""
    after: float = 0.0
    """Seconds until it lands; a traffic update that is overtaken meanwhile is dropped."""
    undone_after: float | None = None
    """Seconds after which it is taken back; for an override: the instance restarts, and forgets all of them."""
    settles_after: float | None = None
    """Seconds until a traffic update settles, infinity for never; left out, what the layout says."""
    fails: str = ""
    """Message with which a traffic update settles as failed: the spec keeps the target, the statuses do not follow."""
    error: str = ""
    """Message of the failed operation that a traffic update ends in at once, changing nothing."""
    keeps_tags: bool = True
    """Whether the tags that a traffic update sends are kept."""
    overtaken: bool = False
    """Whether somebody deploys a revision between the reading of the request and its handling."""


@attrs.frozen(kw_only=True)
class Request:
    """A request, complete."""

    method: str
    path: str
    """Decoded, below the base path of its peer's URL."""
    query: Mapping[str, str]
    headers: Mapping[str, str]
    """Names in lower case; of repeated ones the last."""
    body: bytes
    client: str = ""
    """The address and port at the other end of the connection."""
    fate: Fate = Fate()
    """What is to become of the change that it asks for."""

    @property
    def token(self) -> str | None:
        """The bearer token; None where there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" and token.strip() else None

    def json_object(self) -> dict[str, object]:
        """The body as a JSON object.

        Raises:
            ValueError: it is not one.
        """
        value = json.loads(self.body)
        if not isinstance(value, dict):
            raise ValueError("the body is not a JSON object")  # noqa: TRY004  both are a body that cannot be read
        return value


@attrs.frozen
class Event:
    """One event of a turn, not yet written: a chunk, or a text such as ``[DONE]``."""

    data: Mapping[str, object] | str


@attrs.frozen
class Pause:
    """Nothing is sent for so many seconds."""

    seconds: float


class Halt(enum.Enum):
    """Where a body stops short of its end."""

    STALL = "nothing more comes, and the connection stays open"
    RESET = "the connection breaks"


Piece = Event | bytes | Pause | Halt


@attrs.frozen(kw_only=True)
class Reply:
    """A reply, with its course."""

    status: int | None = 200
    """None: no head is sent at all, the body's halt says why."""
    headers: tuple[tuple[str, str], ...] = ()
    """Names in lower case."""
    body: tuple[Piece, ...] = ()
    streamed: bool = False
    """Whether the pieces are sent one by one; else as one body with a content-length."""
    held: float = 0.0
    """Seconds before the head is sent."""
    started_turn: bool = False
    """Whether a chat turn was started for it."""

    def with_header(self, name: str, value: str | None) -> "Reply":
        """The same with one header set, or without it."""
        kept = tuple(pair for pair in self.headers if pair[0] != name)
        return attrs.evolve(self, headers=kept if value is None else (*kept, (name, value)))


NO_REPLY = Reply(status=None, body=(Halt.RESET,))
"""The connection breaks before a head."""
SILENCE = Reply(status=None, body=(Halt.STALL,))
"""Nothing is ever answered."""


def json_reply(value: object, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A JSON document."""
    body = json.dumps(value, separators=(",", ":")).encode()
    return Reply(status=status, headers=(("content-type", "application/json"), *headers), body=(body,))


def html_reply(text: str, *, status: int = 200) -> Reply:
    """An HTML page."""
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
    """A refusal as the chat service and its control plane word it."""
    value = {"message": message, "error": {"code": code, "message": message}, **(more or {})}
    return json_reply(value, status=status, headers=headers)
