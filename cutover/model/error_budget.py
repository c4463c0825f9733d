"""The error budget: the consumed share, its ceiling and who gave the figure; for a measured one its objective and its readings. Pure.

The budget is the part of all events in a window that may fail: 0.1 % of them for an objective of 99.9 %. The burn rate is the part that
failed, divided by the part that may fail: at a burn rate of 1 the budget lasts exactly as long as the window (Google's SRE Workbook,
"Alerting on SLOs").
"""

import enum
import math

import attrs

_WHOLE = 100.0
_DAY = 86_400.0
LEAST_COVERAGE = 0.9
"""Smallest part of a window that must hold samples."""
FRESH_SCRAPES = 3
"""Number of scrape intervals within which the newest sample must lie."""
_ROUNDING = 1.001
"""``increase`` extrapolates each series by itself, so good events may exceed all events by a little."""


class BudgetSource(enum.Enum):
    """The origin of the consumed share."""

    OPERATOR = "operator"
    """A person or a job typed SLO_ERROR_BUDGET_CONSUMED_PERCENT by hand."""
    DEFAULT = "default"
    """Nobody set the consumed share; 0 is assumed."""
    PROMETHEUS = "prometheus"
    """The train measures the share, by a Prometheus server."""
    CLOUD_MONITORING = "cloud-monitoring"
    """The train measures the share, by Cloud Monitoring."""
    REHEARSAL = "rehearsal"
    """A live train would measure the share. A rehearsal reads no metrics; 0 is assumed."""

    @property
    def measured(self) -> bool:
        """True if the train measures the share itself, again and again."""
        return self in {BudgetSource.PROMETHEUS, BudgetSource.CLOUD_MONITORING}


_REMARKS = {
    BudgetSource.OPERATOR: " (a figure typed by hand)",
    BudgetSource.DEFAULT: " (nobody gave a figure: 0 is assumed)",
    BudgetSource.REHEARSAL: " (a rehearsal measures nothing: 0 is assumed)",
}


@attrs.frozen(kw_only=True)
class ErrorBudget:
    """The consumed share of the error budget, and the largest share that a train may start with, in percent."""

    consumed_percent: float | None
    """None if the train measures the share itself."""
    max_consumed_percent: float
    source: BudgetSource

    @property
    def holds(self) -> bool:
        """True if the consumed share is known, and not above the ceiling."""
        return self.consumed_percent is not None and self.consumed_percent <= self.max_consumed_percent

    def describe(self) -> str:
        """Return both shares in words, and a remark about a figure that was not measured."""
        if self.consumed_percent is None:
            return f"measured by {self.source.value}, {self.max_consumed_percent:g} % is allowed"
        return (
            f"{self.consumed_percent:g} % of the error budget is consumed, "
            f"{self.max_consumed_percent:g} % is allowed{_REMARKS.get(self.source, '')}"
        )


@attrs.frozen(kw_only=True)
class Objective:
    """The objective of a measured budget."""

    percent: float
    """The part of all events that must be good, in percent; below 100."""
    window: float
    """Seconds for which the budget lasts."""
    max_consumed_percent: float
    """The ceiling; above 0."""

    @property
    def may_fail(self) -> float:
        """The part of all events that may fail, between 0 and 1."""
        return 1 - self.percent / _WHOLE

    @property
    def events_needed(self) -> float:
        """The number of events at which one bad event alone does not cross the ceiling. With fewer the share says nothing."""
        # 1 - 0.999 is a little less than 0.001, which must not ask for one event more.
        return round(_WHOLE / (self.max_consumed_percent * self.may_fail), 3)

    def burn_rate(self, good: float, events: float) -> float:
        """Return the burn rate of a window with this number of good events and of all events.

        Raises:
            ValueError: These are no counts of one window.
        """
        if not (events > 0 and 0 <= good <= events * _ROUNDING):
            raise ValueError(f"{good:g} good events of {events:g} are no counts of one window")
        return max(0.0, 1 - good / events) / self.may_fail

    def spent_percent(self, burn_rate: float, seconds: float) -> float:
        """Return the part of the budget, in percent, that is spent at a burn rate in this time."""
        return _WHOLE * burn_rate * seconds / self.window


@attrs.frozen(kw_only=True)
class BudgetReading:
    """One reading of a measured budget: every figure belongs to the same moment."""

    consumed_percent: float | None = None
    """The consumed share; None if it is unknown. It may be above 100."""
    unknown: str = ""
    """The reason why the share is unknown; empty if it is known."""
    max_consumed_percent: float
    events: float | None = None
    """Number of all events in the window of the objective."""
    short_burn_rate: float | None = None
    """Burn rate over SLO_SHORT_WINDOW; None if it is unknown. The burn rates decide nothing."""
    long_burn_rate: float | None = None
    """Burn rate over SLO_LONG_WINDOW; None if it is unknown."""
    spent_percent: float | None = None
    """The part of the budget that was spent since the train's first reading, in percent; None if it is unknown, and in the first reading."""

    @property
    def holds(self) -> bool:
        """True if the consumed share is known, and not above the ceiling."""
        return self.consumed_percent is not None and self.consumed_percent <= self.max_consumed_percent

    def describe(self) -> str:
        """Return the reading in words."""
        if self.consumed_percent is None:
            return f"the consumed share of the error budget is unknown: {self.unknown}"
        text = (
            f"{self.consumed_percent:.4g} % of the error budget is consumed, {self.max_consumed_percent:g} % is allowed; "
            f"{self.events or 0:.0f} events; burn rate {_rate(self.short_burn_rate)} over the short window, "
            f"{_rate(self.long_burn_rate)} over the long one"
        )
        if self.spent_percent is not None:
            text += f"; {self.spent_percent:.4g} % was spent since the train began"
        return text


def _rate(burn_rate: float | None) -> str:
    return "unknown" if burn_rate is None else f"{burn_rate:.3g}"


def evidence_problem(
    objective: Objective,
    *,
    events: float,
    age: float,
    coverage: float,
    fresh_seconds: float,
) -> str:
    """Return the reason why a reading proves nothing; empty if it does.

    Args:
        objective: The objective.
        events: Number of all events in its window.
        age: Age of the newest sample in seconds.
        coverage: Part of the window that holds samples, between 0 and 1.
        fresh_seconds: Largest age of the newest sample.
    """
    if age >= fresh_seconds:
        return (
            f"the newest sample is {age:.0f} s old, and less than {fresh_seconds:g} s is allowed: is the service still scraped, "
            "and is the clock of this machine right?"
        )
    if coverage < LEAST_COVERAGE:
        # A share below the limit must not be rounded up to it.
        shown = math.floor(coverage * 1000) / 10
        return (
            f"samples cover only {shown:g} % of the window of {in_words(objective.window)}, and {LEAST_COVERAGE * 100:g} % is needed: "
            "the server has a hole, or keeps its samples for a shorter time"
        )
    if events < objective.events_needed:
        return (
            f"there were {max(events, 0):.0f} events in {in_words(objective.window)}, and {math.ceil(objective.events_needed)} are needed: "
            f"with fewer, one bad event can consume more than {objective.max_consumed_percent:g} %"
        )
    return ""


def in_words(seconds: float) -> str:
    """Return a time in its largest whole unit, such as ``30 d``."""
    for unit, size in (("d", _DAY), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
