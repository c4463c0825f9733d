"""The requests of a dual run, as values; ``config/manifest.py`` reads them from a file."""

import enum
from collections.abc import Mapping

import attrs


class ResponseKind(enum.Enum):
    """The way to compare two replies: JSON by meaning, text line by line, an event stream by its grammar."""

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
    """True if both services must answer with success, as for every SSE entry. Otherwise equal redirects agree too."""
    requires_auth: bool
    """True sends each service its token."""
    headers: Mapping[str, str] = attrs.field(factory=dict)
    body: object = None
    """A JSON value; None sends no body."""
    mutates: bool = False
    """True if the request changes something. Such an entry is sent only with RUN_MUTATING_REQUESTS=1, and once to each service."""
    expect_status: int | None = None
    """The status that both services must answer, such as 422. None: success; two services that refuse alike do not agree."""
    deterministic: bool = False
    """True if a stream has the same text in each answer. Then its joined text is compared too."""
    ignore: tuple[str, ...] = ()
    """Places that are not compared, each with everything below it: ``.data.build``, ``headers.cache-control``, ``headers``, ``text``."""
