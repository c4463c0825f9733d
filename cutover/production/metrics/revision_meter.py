"""The meter of real users' requests: it counts, for both revisions and the same window, all requests, the good ones, and their p95."""

import time
from collections.abc import Callable
from contextlib import suppress

import anyio
import attrs

from cutover.errors import PeerError
from cutover.http.outbound import READ_LIMIT
from cutover.model.revision_metrics import RevisionFigures
from cutover.production.metrics.budget_meter import WINDOW, duration
from cutover.production.metrics.promql import NO_SAMPLE, PromqlApi

REVISION = "$revision"
"""The place in a query where the name of a revision is put."""
_ROUNDING = 1.001
"""``increase`` extrapolates each series by itself, so good requests may exceed all requests by a little."""


@attrs.frozen(kw_only=True)
class RevisionQueries:
    """The queries of one revision. ``$revision`` and ``$window`` in them are replaced."""

    all_requests: str
    good_requests: str
    p95_ms: str = ""
    """Empty: times are not asked for."""


@attrs.frozen(kw_only=True)
class RevisionMeter:
    """The meter of a train."""

    api: PromqlApi
    queries: RevisionQueries
    min_requests: int
    """Smallest number of requests of each revision for a verdict."""
    required: bool
    """True: an inconclusive comparison does not pass."""
    lag_seconds: float = 0.0
    """Seconds until a request is visible."""
    wall: Callable[[], float] = time.time

    async def read(self, revisions: tuple[str, ...], window: float) -> dict[str, RevisionFigures | str]:
        """Return for each revision its figures over the last ``window`` seconds, or the reason why there are none."""
        at = self.wall()
        found: dict[str, RevisionFigures | str] = dict.fromkeys(
            revisions, f"no answer within {READ_LIMIT:g} s"
        )

        async def ask(revision: str) -> None:
            try:
                found[revision] = await self._figures(revision, max(window, 1.0), at)
            except (PeerError, ValueError) as error:
                found[revision] = str(error)

        # The canary has its share meanwhile, so one limit is for all queries together.
        with anyio.move_on_after(READ_LIMIT):
            async with anyio.create_task_group() as group:
                for revision in revisions:
                    group.start_soon(ask, revision)
        return found

    async def _figures(self, revision: str, window: float, at: float) -> RevisionFigures:
        async def number(query: str, no_series: str = NO_SAMPLE) -> float:
            text = query.replace(REVISION, revision).replace(WINDOW, duration(window))
            return await self.api.number(text, at=at, label="canary-metrics", no_series=no_series)

        every = await number(self.queries.all_requests)
        good = await number(self.queries.good_requests, _no_good(every))
        if not 0 <= good <= every * _ROUNDING:
            raise ValueError(f"{good:g} good requests of {every:g} are no counts of one window")
        p95 = None
        if self.queries.p95_ms:
            # A missing time is missing evidence about times alone.
            with suppress(PeerError):
                p95 = await number(self.queries.p95_ms)
        requests = round(every)
        return RevisionFigures(requests=requests, failed=max(0, requests - round(good)), p95_ms=p95)


def _no_good(every: float) -> str:
    """Return the reason for a query of the good requests without a series, beside this number of all requests."""
    if not every:
        return NO_SAMPLE
    return (
        f"{every:.0f} requests were counted, and no good one; if each of them may have failed, let CANARY_GOOD_QUERY say 0 then: "
        "end it with `or vector(0)`"
    )
