"""The compatibility lane as one value: its aliases, headers, bodies, paths and write probes."""

from collections.abc import Mapping

import attrs


@attrs.frozen(kw_only=True)
class Alias:
    """One of the paths that serve the same stream."""

    name: str
    """Name in check ids: ``chat-stream``."""
    template: str
    """The path; ``{id}`` stands for the thread id."""

    def path(self, thread_id: str) -> str:
        """Return the path of a stream on this thread."""
        return self.template.replace("{id}", thread_id)

    @property
    def names_thread(self) -> bool:
        """True if the path contains the thread id. If not, the request body contains it."""
        return "{id}" in self.template

    def body(self, thread_id: str, text: str) -> dict[str, object]:
        """Return the request body that starts one turn with this text."""
        if self.names_thread:
            return {"messages": [{"role": "user", "content": [{"type": "text", "text": text}]}]}
        return {"id": thread_id, "messages": [{"role": "user", "content": text}]}


@attrs.frozen(kw_only=True)
class WriteProbe:
    """A write path that gets an empty object without a token. Any answer passes, except a redirect or a 5xx status."""

    method: str
    path: str


@attrs.frozen(kw_only=True)
class Lane:
    """A stream lane: its paths, and its words in the route-split API."""

    aliases: tuple[Alias, ...]
    status_path: str
    override_path: str
    evaluate_path: str
    session_path: str
    """Path that tells how long the session of a token lives."""
    evaluated_paths: tuple[str, ...]
    """Paths that must lead to the new service after the flip. The aliases are always evaluated as well."""
    write_probes: tuple[WriteProbe, ...]
    new_target: str
    """Name of the new service in the replies of the route-split API."""
    override_words: Mapping[str | None, str]
    """Override in a status reply (None: no override) -> the word that sets this override."""
    header_names: tuple[str, str, str]
    """Names of the headers for client build id, protocol version and schema version."""
    prompt: str
    """The user text that a probe sends."""
    foreign_thread: str
    """The message with which the service refuses the thread of another user. It has the status of a missing permission: 403."""

    def paths_to_evaluate(self, thread_id: str) -> tuple[str, ...]:
        """Return the paths to evaluate, with the stream aliases."""
        return (*self.evaluated_paths, *(alias.path(thread_id) for alias in self.aliases))

    def meaning_of_forbidden(self, message: str) -> str:
        """Return the meaning of a stream's refusal with 403, and the thing to do.

        Args:
            message: The refusal in words, with the service's own message.
        """
        if self.foreign_thread in message:
            return "the thread belongs to another user, and AUTH_TOKEN was not refused: choose another THREAD_ID_PREFIX"
        return "the user of AUTH_TOKEN has no permission for this stream: give the token of a user who has it"


COMPAT = Lane(
    aliases=(
        Alias(name="chat-stream", template="/api/chat/stream"),
        Alias(name="chats-stream", template="/api/chats/{id}/stream"),
    ),
    status_path="/api/v1/control/route-split/status",
    override_path="/api/v1/control/route-split/override",
    evaluate_path="/api/v1/control/route-split/evaluate",
    session_path="/api/auth/session",
    evaluated_paths=(
        "/",
        "/feed",
        "/login",
        "/settings/profile",
        "/l402/paywalls",
        "/admin",
        "/api/auth/email",
        "/api/runtime/tools/execute",
        "/api/runtime/codex/workers",
    ),
    write_probes=(
        WriteProbe(method="POST", path="/api/auth/email"),
        WriteProbe(method="PATCH", path="/api/settings/profile"),
        WriteProbe(method="POST", path="/api/runtime/tools/execute"),
    ),
    new_target="rust_shell",
    override_words={None: "clear", "legacy": "legacy", "rust_shell": "rust", "rust": "rust"},
    header_names=("x-oa-client-build-id", "x-oa-protocol-version", "x-oa-schema-version"),
    prompt="cutover stream probe",
    foreign_thread="Requested thread is not available.",
)
"""The lane of ``POST /api/chat/stream`` and ``POST /api/chats/{id}/stream``."""
