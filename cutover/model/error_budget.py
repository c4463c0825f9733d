"""The error budget: the consumed share, the ceiling, and who gave the figure."""

import enum

import attrs


class BudgetSource(enum.Enum):
    """The origin of the consumed share."""

    OPERATOR = "operator"
    """A person or a job set SLO_ERROR_BUDGET_CONSUMED_PERCENT."""
    DEFAULT = "default"
    """Nobody set the consumed share; 0 is assumed."""


@attrs.frozen(kw_only=True)
class ErrorBudget:
    """The consumed share of the error budget, and the largest share that a train may start with, in percent."""

    consumed_percent: float
    max_consumed_percent: float
    source: BudgetSource

    @property
    def holds(self) -> bool:
        """True if the consumed share is not above the ceiling."""
        return self.consumed_percent <= self.max_consumed_percent

    def describe(self) -> str:
        """Return both shares in words, and a remark if the consumed share is only assumed."""
        assumed = " (nobody gave a figure: 0 is assumed)" if self.source is BudgetSource.DEFAULT else ""
        return (
            f"{self.consumed_percent:g} % of the error budget is consumed, "
            f"{self.max_consumed_percent:g} % is allowed{assumed}"
        )
