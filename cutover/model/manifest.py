"""One request of the dual run, as a value."""

import enum
from collections.abc import Mapping

import attrs


class ResponseKind(enum.Enum):
    """How two replies are compared."""

    JSON = "json"
    TEXT = "text"
    SSE = "sse"


@attrs.frozen(kw_only=True)
class ManifestEntry:
    """One request of the dual run."""

    id: str
    method: str
    path: str
    response_kind: ResponseKind
    critical: bool
    """Whether both services must answer it with success."""
    requires_auth: bool
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: object = None
    """JSON, or None for no body."""
    mutates: bool = False
    """Whether it changes something; such an entry runs with RUN_MUTATING_REQUESTS=1 alone."""
