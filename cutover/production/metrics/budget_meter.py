"""The meter of the error budget: it asks a server of metrics, and makes one reading of all its answers.

All queries of a reading are for one moment. Freshness and holes are asked apart, because ``increase`` over a long window hides a target that
is gone.
"""

import math
import time
from collections.abc import Callable, Mapping

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model.error_budget import FRESH_SCRAPES, BudgetReading, Objective, evidence_problem, in_words
from cutover.production.metrics.promql import NO_SAMPLE, PromqlApi

WINDOW = "$window"
"""The place in a query where a window such as ``3600s`` is put."""
AGE, COVERAGE, EVENTS = "the age of the newest sample", "the coverage of the window", "events"
_EVIDENCE = (AGE, COVERAGE, EVENTS)
"""The figures without which a reading proves nothing."""
_GOOD = "good"
_NO_GOOD = (
    f"{NO_SAMPLE}; if each event may have been bad, let SLO_GOOD_QUERY say 0 then: end it with `or vector(0)`"
)
"""The reason for a query of the good events without a series."""
_AGE_WINDOW = 900.0
"""Seconds in which the newest sample is looked for."""
_STEPS = 1000
"""Largest number of moments at which a window is looked at for holes."""


def duration(seconds: float) -> str:
    """Return a time as PromQL writes it: whole seconds, or else milliseconds."""
    return f"{seconds:.0f}s" if seconds == round(seconds) else f"{math.ceil(seconds * 1000)}ms"


@attrs.frozen(kw_only=True)
class BudgetQueries:
    """The queries of a budget. ``$window`` in them is replaced by a window."""

    all_events: str
    """Number of all events in ``$window``."""
    good_events: str = ""
    """Number of good events in ``$window``; empty if ``consumed_percent`` is given."""
    consumed_percent: str = ""
    """The consumed share in percent; with ``$window`` it also gives the burn rates."""
    series: str
    """Selector of the series that the queries count."""


@attrs.define(eq=False, kw_only=True)
class BudgetMeter:
    """The meter of one train. It remembers its first reading, from which the consumption during the train counts."""

    api: PromqlApi
    objective: Objective
    queries: BudgetQueries
    scrape_seconds: float
    """Seconds between two samples of a series."""
    lag_seconds: float = 0.0
    """Seconds until a sample is visible."""
    short_window: float
    long_window: float
    wall: Callable[[], float] = time.time
    """The wall clock, in seconds since 1970. The server's samples bear such times."""
    _first_at: float | None = None
    _first_percent: float | None = None

    async def read(self) -> BudgetReading:
        """Return a reading for this moment. It never raises for a server without a usable answer: the reading is then unknown."""
        at = self.wall()
        since = None if self._first_at is None else at - self._first_at
        found = await self._ask(self._all_queries(since), at)
        reading = self._reading(found, since)
        if self._first_at is None:
            self._first_at, self._first_percent = at, reading.consumed_percent
        return reading

    def _all_queries(self, since: float | None) -> dict[str, str]:
        step = max(self.scrape_seconds, self.objective.window / _STEPS)
        series, scrape = self.queries.series, duration(self.scrape_seconds)
        fresh = f"{FRESH_SCRAPES * self.scrape_seconds:.3f}"
        queries = {
            AGE: (
                f"time() - (max(timestamp({series})) "
                f"or max(max_over_time(timestamp({series})[{duration(_AGE_WINDOW)}:{scrape}])))"
            ),
            COVERAGE: (
                f"count_over_time((count(time() - timestamp({series}) < {fresh}))"
                f"[{duration(self.objective.window)}:{duration(step)}])"
                f" * {step:.3f} / {self.objective.window:.3f}"
            ),
            EVENTS: self.queries.all_events.replace(WINDOW, duration(self.objective.window)),
            **self._share("", self.objective.window),
        }
        if self.queries.good_events or WINDOW in self.queries.consumed_percent:
            queries |= self._share("short ", self.short_window) | self._share("long ", self.long_window)
            if since is not None and since > 0:
                queries |= self._share("train ", since)
        return queries

    def _share(self, name: str, window: float) -> dict[str, str]:
        """Return the queries for the share of bad events in a window."""
        queries, text = self.queries, duration(window)
        if queries.consumed_percent:
            return {f"{name}percent": queries.consumed_percent.replace(WINDOW, text)}
        return {
            f"{name}{_GOOD}": queries.good_events.replace(WINDOW, text),
            f"{name}{EVENTS}": queries.all_events.replace(WINDOW, text),
        }

    async def _ask(self, queries: Mapping[str, str], at: float) -> dict[str, float | str]:
        """Ask all queries side by side; return each number, or the reason why there is none."""
        found: dict[str, float | str] = {}

        async def ask(name: str, query: str) -> None:
            try:
                no_series = _NO_GOOD if name.endswith(_GOOD) else NO_SAMPLE
                found[name] = await self.api.number(query, at=at, label="budget", no_series=no_series)
            except PeerError as error:
                found[name] = str(error)

        async with anyio.create_task_group() as group:
            for name, query in queries.items():
                group.start_soon(ask, name, query)
        return found

    def _reading(self, found: Mapping[str, float | str], since: float | None) -> BudgetReading:
        ceiling = self.objective.max_consumed_percent
        for name in _EVIDENCE:
            if isinstance(why := found[name], str):
                return BudgetReading(max_consumed_percent=ceiling, unknown=f"{name}: {why}")
        age, coverage, events = (float(found[name]) for name in _EVIDENCE)
        burn = self._burn_rate(found, "")
        reading = BudgetReading(
            max_consumed_percent=ceiling,
            events=events,
            short_burn_rate=_known(self._burn_rate(found, "short ")),
            long_burn_rate=_known(self._burn_rate(found, "long ")),
        )
        problem = evidence_problem(
            self.objective,
            events=events,
            age=age,
            coverage=coverage,
            fresh_seconds=FRESH_SCRAPES * self.scrape_seconds + self.lag_seconds,
        )
        if problem or isinstance(burn, str):
            why = problem or f"the share over {in_words(self.objective.window)}: {burn}"
            return attrs.evolve(reading, unknown=why)
        percent = 100 * burn
        return attrs.evolve(
            reading, consumed_percent=percent, spent_percent=self._spent(found, percent, since)
        )

    def _burn_rate(self, found: Mapping[str, float | str], name: str) -> float | str:
        """Return the burn rate over a window, or the reason why there is none."""
        if self.queries.consumed_percent:
            percent = found.get(f"{name}percent", "not asked")
            if isinstance(percent, str) or percent >= 0:
                return percent if isinstance(percent, str) else percent / 100
            return f"{percent:g} % is no consumed share"
        good, events = (found.get(f"{name}{kind}", "not asked") for kind in (_GOOD, EVENTS))
        if isinstance(good, str) or isinstance(events, str):
            return good if isinstance(good, str) else str(events)
        try:
            return self.objective.burn_rate(good, events)
        except ValueError as error:
            return str(error)

    def _spent(self, found: Mapping[str, float | str], percent: float, since: float | None) -> float | None:
        """Return the part of the budget that was spent since the first reading; None in the first reading, or if it is unknown."""
        if since is None:
            return None
        burn = _known(self._burn_rate(found, "train "))
        if burn is not None:
            return self.objective.spent_percent(burn, since)
        if self.queries.consumed_percent and self._first_percent is not None:
            return percent - self._first_percent
        return None


def _known(figure: float | str) -> float | None:
    return None if isinstance(figure, str) else figure
