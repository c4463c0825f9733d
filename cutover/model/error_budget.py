"""Where the consumed error budget comes from, and whether there is enough left to take a risk."""

import enum

import attrs


class BudgetSource(enum.Enum):
    """Who says how much of the error budget is consumed."""

    OPERATOR = "operator"
    """A person or a job set SLO_ERROR_BUDGET_CONSUMED_PERCENT."""
    DEFAULT = "default"
    """Nobody did; the figure is 0, and that is an assumption."""


@attrs.frozen(kw_only=True)
class ErrorBudget:
    """What is consumed of the error budget, what may be, and who says so."""

    consumed_percent: float
    max_consumed_percent: float
    source: BudgetSource

    @property
    def holds(self) -> bool:
        """Whether no more is consumed than may be."""
        return self.consumed_percent <= self.max_consumed_percent

    def describe(self) -> str:
        """Say both figures, and whether the first is only assumed."""
        assumed = " (nobody gave a figure: 0 is an assumption)" if self.source is BudgetSource.DEFAULT else ""
        return (
            f"{self.consumed_percent:g} % of the error budget is consumed, "
            f"{self.max_consumed_percent:g} % may be{assumed}"
        )
