"""The chat service: stream aliases, pages, the JSON of a user, and write paths. The legacy service has them too."""

import datetime as dt
import re
from collections.abc import Callable

import attrs

from cutover.simulation.exchange import (
    CONTROL,
    STREAMS,
    Operation,
    Reply,
    Request,
    html_reply,
    json_reply,
    problem,
)
from cutover.simulation.layout import Credentials
from cutover.simulation.route_split import OPERATIONS as CONTROL_OPERATIONS
from cutover.simulation.route_split import Instance, RouteSplit
from cutover.simulation.streams import preview_events, stream_reply, turn_events
from cutover.simulation.timeline import Timeline

PROTOCOL_VERSION = "openagents.control.v1"
MIN_BUILD_ID = "20260101T000000Z"
MIN_SCHEMA_VERSION = MAX_SCHEMA_VERSION = 1
_EPOCH = 1_771_000_000
"""Unix time of second 0 on the clock of the simulation; documents need a date, and the clock only counts seconds."""

_OPERATIONS = {
    ("POST", "/api/chat/stream"): Operation.CHAT_STREAM,
    ("GET", "/openapi.json"): Operation.PAGE,
    ("GET", "/manifest.json"): Operation.PAGE,
    ("GET", "/"): Operation.PAGE,
    ("GET", "/feed"): Operation.PAGE,
    ("GET", "/api/me"): Operation.ACCOUNT,
    ("GET", "/api/runtime/threads"): Operation.ACCOUNT,
    ("GET", "/api/chats"): Operation.ACCOUNT,
    ("GET", "/api/auth/session"): Operation.ACCOUNT,
    ("POST", "/api/auth/email"): Operation.WRITE,
    ("PATCH", "/api/settings/profile"): Operation.WRITE,
    ("POST", "/api/runtime/tools/execute"): Operation.WRITE,
}
_CHATS_STREAM = re.compile(r"/api/chats/(?P<thread>[^/]+)/stream")
_REQUIRED_FIELD = {
    "/api/auth/email": "email",
    "/api/settings/profile": "name",
    "/api/runtime/tools/execute": "tool",
}
_DOCUMENTS: dict[str, dict[str, object]] = {
    "/openapi.json": {
        "openapi": "3.1.0",
        "info": {"title": "OpenAgents control", "version": "1"},
        "paths": {path: {method.lower(): {}} for method, path in _OPERATIONS},
    },
    "/manifest.json": {"name": "OpenAgents", "short_name": "OpenAgents", "start_url": "/", "icons": []},
    "/api/me": {"data": {"user": {"id": "user_1", "email": "operator@openagents.com"}}},
    "/api/runtime/threads": {"data": [{"id": "thread_1", "title": "Hello"}]},
    "/api/chats": {"data": [{"id": "thread_1", "messages": 2}]},
}
_PAGE = "<!doctype html>\n<html><head><title>OpenAgents</title></head><body><main>{}</main></body></html>\n"


@attrs.define(eq=False, kw_only=True)
class ChatService:
    """The new or the legacy chat service. Only the new one has a route split and its control plane."""

    credentials: Credentials
    user: str
    """Name of the token that its users have: ``auth`` or ``legacy``."""
    turn_prefix: str
    """Prefix of its turn ids and request ids."""
    preview: bool
    """True if each turn is the short preview of the lane."""
    timeline: Timeline
    routes: RouteSplit | None = None
    """The control plane; None for the legacy service."""
    session_seconds: Callable[[str | None], float | None] = lambda _: None
    """Function that returns the seconds until a token expires; None if the service does not tell."""
    turns: int = 0
    """Number of chat turns started so far."""
    _answered: int = 0

    def operation(self, method: str, path: str) -> Operation:
        """Return the operation that a request asks for."""
        if self.routes is not None and (method, path) in CONTROL_OPERATIONS:
            return CONTROL_OPERATIONS[method, path]
        if method == "POST" and _CHATS_STREAM.fullmatch(path):
            return Operation.CHATS_STREAM
        return _OPERATIONS.get((method, path), Operation.OTHER)

    def answer(self, request: Request, operation: Operation, instance: Instance) -> Reply:
        """Return the reply of one instance to one request."""
        self._answered += 1
        if operation in CONTROL and self.routes is not None:
            return self._refusal(request, "control") or self.routes.answer(request, operation, instance)
        if operation in STREAMS:
            return self._refusal(request, self.user) or _incompatible(request) or self._turn(request)
        if operation is Operation.PAGE:
            return self._document(request.path)
        if operation is Operation.ACCOUNT:
            return self._account(request)
        if operation is Operation.WRITE:
            public = request.path == "/api/auth/email"
            return (None if public else self._refusal(request, self.user)) or _write_reply(request)
        return problem(404, "not_found", "Not found.")

    def _account(self, request: Request) -> Reply:
        if request.path != "/api/auth/session":
            return self._refusal(request, self.user) or self._document(request.path)
        if not self.credentials.names(request.token):
            return problem(401, "unauthorized", "Unauthenticated.")
        seconds = self.session_seconds(request.token)
        if seconds is None:
            return problem(404, "not_found", "Not found.")
        # A client compares this time with its own clock, which is not the one of the simulation.
        expires_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        return json_reply({"data": {"session": {"accessExpiresAt": expires_at.isoformat()}}})

    def _refusal(self, request: Request, wanted: str) -> Reply | None:
        """Return a 401 without a known token, a 403 for a known token of another name, or None for a token of the wanted name."""
        names = self.credentials.names(request.token)
        if wanted in names:
            return None
        if names:
            return problem(403, "forbidden", "This token may not do that.")
        return problem(401, "unauthorized", "Unauthenticated.", headers=(("www-authenticate", "Bearer"),))

    def _document(self, path: str) -> Reply:
        if path not in _DOCUMENTS:
            return html_reply(_PAGE.format("OpenAgents" if path == "/" else "Feed"))
        now = dt.datetime.fromtimestamp(_EPOCH + self.timeline.catch_up(), tz=dt.UTC)
        stamp = {"generated_at": now.isoformat(), "request_id": f"{self.turn_prefix}req_{self._answered}"}
        return json_reply({**_DOCUMENTS[path], **stamp})

    def _turn(self, request: Request) -> Reply:
        try:
            body = request.json_object()
        except ValueError:
            return problem(400, "invalid_json", "The request body is not JSON.")
        by_id = _CHATS_STREAM.fullmatch(request.path)
        thread_id = by_id["thread"] if by_id else body.get("id")
        text = user_text(body.get("messages"))
        if not text:
            return _invalid("messages", "User text is required.")
        if not isinstance(thread_id, str) or not thread_id:
            return _invalid("id", "The thread's id is required.")
        self.turns += 1
        turn_id = f"{self.turn_prefix}turn_{self.turns}"
        if self.preview:
            return stream_reply(preview_events(thread_id=thread_id, turn_id=turn_id), one_body=True)
        return stream_reply(turn_events(thread_id=thread_id, turn_id=turn_id, text=text), one_body=False)


def user_text(messages: object) -> str:
    """Return the text of the last user message, whose content is a string or a list of text parts; empty for no text."""
    last: object = None
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user":
            last = message.get("content")
    if isinstance(last, str):
        return last.strip()
    parts = last if isinstance(last, list) else ()
    texts = (part.get("text") for part in parts if isinstance(part, dict) and part.get("type") == "text")
    return " ".join(text for text in texts if isinstance(text, str)).strip()


def _invalid(field: str, message: str) -> Reply:
    return problem(422, "invalid_request", message, more={"errors": {field: [message]}})


def _write_reply(request: Request) -> Reply:
    try:
        body = request.json_object()
    except ValueError:
        return problem(400, "invalid_json", "The request body is not JSON.")
    field = _REQUIRED_FIELD[request.path]
    return (
        json_reply({"data": {"accepted": True}})
        if body.get(field)
        else _invalid(field, f"{field} is required.")
    )


def _incompatible(request: Request) -> Reply | None:
    """Return a 426 if the compatibility headers of a client are missing or not supported; None if they are supported."""
    build = request.headers.get("x-oa-client-build-id", "")
    protocol = request.headers.get("x-oa-protocol-version", "")
    schema = request.headers.get("x-oa-schema-version", "")
    supported = {str(version) for version in range(MIN_SCHEMA_VERSION, MAX_SCHEMA_VERSION + 1)}
    tests = (
        ("invalid_client_build", re.fullmatch(r"\d{8}T\d{6}Z", build) is not None),
        ("unsupported_protocol_version", protocol == PROTOCOL_VERSION),
        ("unsupported_schema_version", schema in supported),
        ("upgrade_required", build >= MIN_BUILD_ID),
    )
    code = next((code for code, holds in tests if not holds), None)
    return None if code is None else upgrade_required(code)


def upgrade_required(code: str) -> Reply:
    """Return a 426 whose ``code`` is the reason."""
    compatibility = {
        "upgrade_required": True,
        "protocol_version": PROTOCOL_VERSION,
        "min_client_build_id": MIN_BUILD_ID,
        "min_schema_version": MIN_SCHEMA_VERSION,
        "max_schema_version": MAX_SCHEMA_VERSION,
    }
    return problem(
        426,
        code,
        "This client is not compatible.",
        headers=(("x-oa-compatibility-code", code),),
        more={"compatibility": compatibility},
    )
