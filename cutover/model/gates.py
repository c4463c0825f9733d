"""From results to gates to a verdict; and whether a mover may start. Pure."""

from collections.abc import Sequence

import attrs

from cutover.model import step_ids
from cutover.model.results import StepResult, StepStatus


@attrs.frozen(kw_only=True)
class Ceilings:
    """How many failed observations each gate tolerates."""

    route_flip: int = 0
    stream_smoke: int = 0
    canary_drill: int = 0
    dual_run: int = 0
    broken_streams: int = 0


@attrs.frozen(kw_only=True)
class Gate:
    """One hard gate."""

    name: str
    observed_failed: int
    max_failed: int
    evaluated: bool
    """Whether everything it rests on was observed. A gate that was not evaluated does not hold."""
    configured: bool = True
    """False where its step was left out by configuration, which is neutral."""
    intolerable: bool = False
    """Whether something failed that no figure excuses."""

    @property
    def holds(self) -> bool:
        """Whether the train may go on as far as this gate is concerned."""
        if not self.configured:
            return True
        return self.evaluated and not self.intolerable and self.observed_failed <= self.max_failed

    @property
    def refuses(self) -> bool:
        """Whether what was observed so far already says no."""
        return self.configured and (self.intolerable or self.observed_failed > self.max_failed)

    def describe(self) -> str:
        """Say why it does not hold."""
        if not self.evaluated and not self.refuses:
            return f"{self.name}: not evaluated, for something before it failed"
        return f"{self.name}: {self.observed_failed} failed, {self.max_failed} may"


GATES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("preflight", (step_ids.PREFLIGHT,), None),
    ("error_budget", (step_ids.ERROR_BUDGET,), None),
    ("stream_smoke", (step_ids.SMOKE_PRE, step_ids.SMOKE_POST), "stream_smoke"),
    ("canary_drill", (step_ids.DRILL,), "canary_drill"),
    ("route_flip", (step_ids.FLIP,), "route_flip"),
    ("dual_run", (step_ids.DUAL_RUN,), "dual_run"),
    ("final_state", (step_ids.FINAL_STATE,), None),
)
"""(gate, the steps it adds up, the ceiling that applies; None: nothing is tolerated)."""


def judge(results: Sequence[StepResult], ceilings: Ceilings) -> tuple[Gate, ...]:
    """Add the results up to the gates."""
    by_id = {result.step_id: result for result in results}
    gates = []
    for name, ids, ceiling in GATES:
        steps = [by_id[step_id] for step_id in ids if step_id in by_id]
        ran = [step for step in steps if step.status is not StepStatus.SKIP]
        gates.append(
            Gate(
                name=name,
                observed_failed=sum(step.failure_count for step in ran),
                max_failed=getattr(ceilings, ceiling) if ceiling else 0,
                evaluated=len(ran) == len(ids),
                configured=not any(step.by_configuration for step in steps),
                intolerable=any(step.intolerable for step in ran),
            )
        )
    tallies = [tally for result in results for tally in result.sentinels]
    gates.append(
        Gate(
            name="broken_streams",
            observed_failed=sum(tally.broken for tally in tallies),
            max_failed=ceilings.broken_streams,
            evaluated=bool(tallies),
            configured=bool(tallies),
        )
    )
    return tuple(gates)


def may_go_on(results: Sequence[StepResult], ceilings: Ceilings) -> bool:
    """Return whether no gate says no so far."""
    return not any(gate.refuses for gate in judge(results, ceilings))


def reasons(gates: Sequence[Gate]) -> tuple[str, ...]:
    """Return why the verdict is no; empty where it is go."""
    return tuple(gate.describe() for gate in gates if not gate.holds)


def exit_code(results: Sequence[StepResult], *, touched: bool, undone: bool, recorded: bool = True) -> int:
    """Return the exit code of a train that ran to its end, and is not to go.

    1 the evidence says no, and what had been applied was undone; 3 no evidence could be had before anything
    was touched, or none could be written down; 4 what had been applied could not be proven undone.
    """
    if not undone:
        return 4
    statuses = {check.status for result in results for check in result.checks}
    without_evidence = StepStatus.ERROR in statuses and StepStatus.FAIL not in statuses
    return 3 if (without_evidence or not recorded) and not touched else 1
