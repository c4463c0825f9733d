"""The requests of a dual run, as values; ``config/manifest.py`` reads them from a file."""

import enum
from collections.abc import Mapping

import attrs


class ResponseKind(enum.Enum):
    """The way to compare two replies. ``TEXT`` compares their statuses alone."""

    JSON = "json"
    TEXT = "text"
    SSE = "sse"


@attrs.frozen(kw_only=True)
class ManifestEntry:
    """One request of the dual run."""

    id: str
    method: str
    path: str
    """Path and query. ``{thread_id}`` in the path or the body stands for a thread id; each entry and service has its own."""
    response_kind: ResponseKind
    critical: bool
    """True if both services must answer with success, as for every SSE entry. Otherwise equal 3xx or 4xx answers agree.

    Two answers that refuse a required token never agree.
    """
    requires_auth: bool
    """True sends each service its token."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: object = None
    """A JSON value; None sends no body."""
    mutates: bool = False
    """True if the request changes something. Such an entry runs only with RUN_MUTATING_REQUESTS=1."""
