"""The chat service: stream aliases, pages, the JSON of a user, and write paths. The legacy service has them too.

The module is a little longer than most, because all answers of one service stand here.
"""

import datetime as dt
import email.utils
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
    text_reply,
)
from cutover.simulation.generated import Generator, generator
from cutover.simulation.layout import Credentials, Layout
from cutover.simulation.route_split import OPERATIONS as CONTROL_OPERATIONS
from cutover.simulation.route_split import Instance, RouteSplit
from cutover.simulation.streams import preview_events, stream_reply, turn_events
from cutover.simulation.threads import FOREIGN_THREAD, Threads
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
    ("GET", "/api/auth/session"): Operation.SESSION,
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
_CONTROL_PREFIX = "/api/v1/control/"
_FIELDS_OF_CONTROL = {
    Operation.ROUTE_OVERRIDE: "target",
    Operation.ROUTE_PERMISSION: "target",
    Operation.ROUTE_EVALUATE: "path",
}
"""The text that the body of a control request must hold."""
_GONE_LATER = frozenset({"/feed", "/manifest.json"})
"""Pages that a later version no longer has. Route evaluations still name them."""
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
    layout: Layout
    timeline: Timeline
    routes: RouteSplit | None = None
    """The control plane; None for the legacy service."""
    threads: Threads = attrs.field(factory=Threads)
    """The threads of its user. The two services have separate stores."""
    session_seconds: Callable[[str | None], float] | None = None
    """Function that returns the seconds until the session of a token ends; None for a service that does not say."""
    turns: int = 0
    """Number of chat turns started so far."""
    _answered: int = 0
    _generator: Generator | None = attrs.field(
        init=False,
        default=attrs.Factory(lambda self: generator(self.layout.generated_seed, self.user), takes_self=True),
    )

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
        on_lane = operation in STREAMS or request.path.startswith(_CONTROL_PREFIX)
        reply = self._incompatible(request, operation) or self._reply(request, operation, instance)
        if on_lane and self.routes is not None and self.layout.later_version:
            for name, value in _announced_end(self.layout.sunset):
                reply = reply.with_header(name, value)
        return reply if self._generator is None else self._generator.vary(reply, operation)

    def _incompatible(self, request: Request, operation: Operation) -> Reply | None:
        """Return a 426 for a client that is not compatible. This comes before everything else, also before the token."""
        of_control = self.routes is not None and request.path.startswith(_CONTROL_PREFIX)
        enforced = operation in STREAMS or (of_control and self.layout.enforces_compatibility)
        return incompatible(request) if enforced else None

    def _reply(self, request: Request, operation: Operation, instance: Instance) -> Reply:
        if operation in CONTROL and self.routes is not None:
            return self._control(request, operation, instance, self.routes)
        if operation in STREAMS:
            return self._refusal(request, self.user) or _bad_body(request) or self._turn(request)
        if operation in {Operation.PAGE, Operation.ACCOUNT}:
            public = operation is Operation.PAGE
            return (None if public else self._refusal(request, self.user)) or self._document(request.path)
        if operation is Operation.SESSION and self.session_seconds is not None:
            seconds = self.session_seconds(request.token)
            return self._refusal(request, self.user, "control") or self._session(seconds)
        if operation is Operation.WRITE:
            return self._write(request)
        return self._not_found(request.path)

    def _control(
        self, request: Request, operation: Operation, instance: Instance, routes: RouteSplit
    ) -> Reply:
        """Return the reply of the control plane. Every user may read it; only an operator may set overrides."""
        field = _FIELDS_OF_CONTROL.get(operation)
        # The framework refuses a body before the service looks at the token.
        bad = None if field is None else _bad_body(request, field)
        wanted = ("control", self.user) if field != "target" else ("control",)
        return bad or self._refusal(request, *wanted) or routes.answer(request, operation, instance)

    def _not_found(self, path: str) -> Reply:
        """Return a 404, or an empty 405 if the path exists for another method."""
        known = _OPERATIONS if self.routes is None else _OPERATIONS | CONTROL_OPERATIONS
        methods = [
            method
            for (method, place), operation in known.items()
            if place == path and (operation is not Operation.SESSION or self.session_seconds is not None)
        ]
        if _CHATS_STREAM.fullmatch(path):
            methods.append("POST")
        if not methods:
            return problem(404, "not_found", "Not found.")
        return Reply(status=405, headers=(("allow", ",".join(sorted(methods))),))

    def _refusal(self, request: Request, *wanted: str) -> Reply | None:
        """Return a 401 without a known token, a 403 for a known token of another name, or None for a token of a wanted name."""
        names = self.credentials.names(request.token)
        if not set(names).isdisjoint(wanted):
            return None
        if names:
            return problem(403, "forbidden", "This token may not do that.")
        return problem(401, "unauthorized", "Unauthenticated.", headers=(("www-authenticate", "Bearer"),))

    def _document(self, path: str) -> Reply:
        if self.routes is not None and self.layout.later_version and path in _GONE_LATER:
            return problem(404, "not_found", "Not found.")
        if path not in _DOCUMENTS:
            return html_reply(_PAGE.format("OpenAgents" if path == "/" else "Feed"))
        document = _DOCUMENTS[path]
        if self.layout.lists_threads:
            document = self.threads.documents().get(path, document)
        now = dt.datetime.fromtimestamp(_EPOCH + self.timeline.catch_up(), tz=dt.UTC)
        stamp = {"generated_at": now.isoformat(), "request_id": f"{self.turn_prefix}req_{self._answered}"}
        return json_reply({**document, **stamp})

    def _session(self, seconds: float) -> Reply:
        # A client compares this time with its own wall clock, so it does not follow the clock of the simulation.
        ends = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=seconds)
        return json_reply({"data": {"session": {"accessExpiresAt": ends.isoformat()}}})

    def _write(self, request: Request) -> Reply:
        """Return the reply of a write path. The public one lacks a field before anybody looks at a token."""
        field = _REQUIRED_FIELD[request.path]
        if request.path == "/api/auth/email":
            refused = _bad_body(request, field)
        else:
            refused = self._refusal(request, self.user) or _bad_body(request)
        if refused is not None:
            return refused
        if not request.json_object().get(field):
            return _invalid(field, f"{field} is required.")
        return json_reply({"data": {"accepted": True}})

    def _turn(self, request: Request) -> Reply:
        body = request.json_object()
        by_id = _CHATS_STREAM.fullmatch(request.path)
        thread_id = by_id["thread"] if by_id else body.get("id")
        text = user_text(body.get("messages"))
        if not text:
            return _invalid("messages", "User text is required.")
        if not isinstance(thread_id, str) or not thread_id:
            return _invalid("id", "The thread's id is required.")
        if thread_id == FOREIGN_THREAD:
            return foreign_thread()
        self.turns += 1
        self.threads.add_turn(thread_id)
        turn_id = f"{self.turn_prefix}turn_{self.turns}"
        if self.layout.preview:
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


def _bad_body(request: Request, field: str | None = None) -> Reply | None:
    """Return the framework's refusal of a body, in plain text; None for a JSON object that holds the text ``field``."""
    if not request.is_json:
        return text_reply("Expected request with `Content-Type: application/json`", status=415)
    try:
        body = request.json_object()
    except ValueError as error:
        return text_reply(f"Failed to parse the request body as JSON: {error}", status=400)
    if field is not None and not isinstance(body.get(field), str):
        missing = "Failed to deserialize the JSON body into the target type"
        return text_reply(f"{missing}: missing field `{field}`", status=422)
    return None


def _announced_end(day: dt.date) -> tuple[tuple[str, str], ...]:
    """Return the headers with which a later version announces the end of the compatibility lane (RFC 8594)."""
    moment = dt.datetime.combine(day, dt.time(), tzinfo=dt.UTC)
    return (
        ("sunset", email.utils.format_datetime(moment, usegmt=True)),
        ("x-oa-compat-sunset-date", day.isoformat()),
        ("x-oa-compat-migration-doc", "docs/compatibility-lane.md"),
    )


def foreign_thread() -> Reply:
    """Return the refusal of a thread that belongs to another user."""
    return problem(403, "forbidden", "Requested thread is not available.")


def incompatible(request: Request) -> Reply | None:
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
    if code is None:
        return None
    return upgrade_required(code) if build else upgrade_required(code, "client_build_id is required")


def upgrade_required(code: str, message: str = "This client is not compatible.") -> Reply:
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
        message,
        headers=(("x-oa-compatibility-code", code),),
        more={"compatibility": compatibility},
    )
