"""The requests of a dual run, as values; ``config/manifest.py`` reads them from a file."""

import enum
from collections.abc import Mapping

import attrs


class ResponseKind(enum.Enum):
    """The way to compare two replies."""

    JSON = "json"
    TEXT = "text"
    SSE = "sse"


@attrs.frozen(kw_only=True)
class ManifestEntry:
    """One request of the dual run."""

    id: str
    method: str
    path: str
    """Path and query. ``{thread_id}`` in it, and in the body, stands for the thread id of the run."""
    response_kind: ResponseKind
    critical: bool
    """True if both services must answer with success; an SSE entry must in any case. Otherwise equal 3xx or 4xx answers agree."""
    requires_auth: bool
    """True sends each service its token."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: object = None
    """A JSON value; None sends no body."""
    mutates: bool = False
    """True if the request changes something. Such an entry runs only with RUN_MUTATING_REQUESTS=1."""
