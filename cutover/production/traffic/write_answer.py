"""The answer to one write of the split, and the ways to go on that it leaves."""

import attrs

from cutover.http.statuses import TOO_MANY_REQUESTS
from cutover.model.train_events import NOT_SENT
from cutover.production.traffic.backend import CONFLICT

_CONFLICTS = frozenset({CONFLICT, 412})


@attrs.frozen(kw_only=True)
class WriteAnswer:
    """The answer to one write."""

    outcome: str
    """An outcome of ``Answered``."""
    detail: str = ""
    status: int | None = None
    """HTTP status of a refusal; None otherwise."""
    retry_after: float = 0.0
    """Least number of seconds before the next write."""

    @property
    def refusal(self) -> bool:
        """True if the write was refused, failed, or was not sent."""
        return self.had_no_effect or self.outcome == "failed"

    @property
    def had_no_effect(self) -> bool:
        """True if the write certainly had no effect."""
        return self.outcome in {"refused", NOT_SENT}

    @property
    def is_conflict(self) -> bool:
        """True if the etag was stale. A service that only reconciles changes its etag too."""
        return self.status in _CONFLICTS

    @property
    def is_hiccup(self) -> bool:
        """True if the same write may succeed later: after a conflict, a 429, a 5xx, or without a usable answer."""
        unclear = self.outcome in {"failed", "unknown"}
        return unclear or self.is_conflict or self.status == TOO_MANY_REQUESTS
