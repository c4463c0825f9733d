"""The gates: they add up step results, and decide the verdict and the start of the next step."""

from collections.abc import Iterable, Sequence

import attrs

from cutover.model import step_ids
from cutover.model.results import Check, StepResult, StepStatus

JUDGED_NOTHING = 3
"""Exit code of a run that proves nothing and changed nothing that reaches users."""
SENTINELS = "sentinels"
"""The ``kind`` of a check that failed because too many sentinel streams broke."""

BASELINE = "baseline"
"""The ``kind`` of a check that judged nothing, because stable failed by itself."""


@attrs.frozen(kw_only=True)
class Ceilings:
    """The number of failed checks (of broken streams) that the gate of each name tolerates. The other gates tolerate none."""

    route_flip: int = 0
    stream_smoke: int = 0
    canary_drill: int = 0
    dual_run: int = 0
    broken_streams: int = 0


NOT_EVALUATED = "not evaluated, because not all of its steps ran"
"""The reason why a gate does not hold although no more checks failed than it allows."""


@attrs.frozen(kw_only=True)
class Gate:
    """A hard gate: a limit for the failed checks of some steps, or for broken streams. A gate that does not hold means NO GO."""

    name: str
    observed_failed: int
    max_failed: int
    evaluated: bool
    """True if every step of the gate ran. A gate that is configured but was not evaluated does not hold."""
    configured: bool = True
    """False if the gate does not apply to this run: its step is left out, or no sentinel was sent. The gate then holds."""
    intolerable: bool = False
    """True if a check failed that is never tolerated, whatever the limit is."""

    @property
    def holds(self) -> bool:
        """True if this gate allows GO."""
        if not self.configured:
            return True
        return self.evaluated and not self.intolerable and self.observed_failed <= self.max_failed

    @property
    def refuses(self) -> bool:
        """True if the results so far are enough for NO GO."""
        return self.configured and (self.intolerable or self.observed_failed > self.max_failed)

    @property
    def counts(self) -> str:
        """The number of failed checks and the limit, in words."""
        beyond_limit = self.observed_failed > self.max_failed
        never = ", but one of them is never tolerated" if self.intolerable and not beyond_limit else ""
        return f"{self.observed_failed} failed, {self.max_failed} allowed{never}"

    def describe(self) -> str:
        """Return the reason why the gate does not hold."""
        if not self.evaluated and not self.refuses:
            return f"{self.name}: {NOT_EVALUATED}"
        return f"{self.name}: {self.counts}"


GATES: tuple[tuple[str, tuple[str, ...], str | None], ...] = (
    ("preflight", (step_ids.PREFLIGHT,), None),
    ("error_budget", (step_ids.ERROR_BUDGET,), None),
    ("stream_smoke", (step_ids.SMOKE_PRE, step_ids.SMOKE_POST), "stream_smoke"),
    ("canary_drill", (step_ids.DRILL,), "canary_drill"),
    ("route_flip", (step_ids.FLIP,), "route_flip"),
    ("promotion", (step_ids.PROMOTION,), None),
    ("dual_run", (step_ids.DUAL_RUN,), "dual_run"),
    ("final_state", (step_ids.FINAL_STATE,), None),
)
"""(gate, the steps that it adds up, the field of ``Ceilings`` that applies); with None no failure is tolerated."""
_LATER = frozenset({"promotion"})
"""The gates that the journals of earlier versions have no step for; without the step such a gate is not part of the run."""


def judge(results: Sequence[StepResult], ceilings: Ceilings) -> tuple[Gate, ...]:
    """Return all gates for these results: those of ``GATES``, and ``broken_streams``."""
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
                configured=not any(step.by_configuration for step in steps)
                and (bool(steps) or name not in _LATER),
                intolerable=any(step.intolerable for step in ran),
            )
        )
    tallies = [tally for result in results for tally in result.sentinels]
    gates.append(
        Gate(
            name="broken_streams",
            observed_failed=sum(tally.counted for tally in tallies),
            max_failed=ceilings.broken_streams,
            evaluated=bool(tallies),
            configured=bool(tallies),
        )
    )
    return tuple(gates)


def may_go_on(results: Sequence[StepResult], ceilings: Ceilings) -> bool:
    """Return True if no gate says NO GO so far."""
    return not any(gate.refuses for gate in judge(results, ceilings))


def drill_holds(checks: Iterable[Check], *, max_failed: int) -> bool:
    """Return True if the drill may go on, or has held, with these checks; then a way back leads to the captured split.

    A failed check of the sentinels says that more streams broke than MAX_BROKEN_STREAMS tolerates.
    """
    failed = [check for check in checks if check.status.failed]
    return len(failed) <= max_failed and all(check.tolerable and check.kind != SENTINELS for check in failed)


def reasons(gates: Sequence[Gate]) -> tuple[str, ...]:
    """Return the reasons for NO GO; empty if every gate holds."""
    return tuple(gate.describe() for gate in gates if not gate.holds)


def exit_code(results: Sequence[StepResult], *, touched: bool, undone: bool, recorded: bool = True) -> int:
    """Return the exit code of a train that ended with NO GO.

    1: the evidence says no, or a change that can reach users was sent; every change was undone. 3: no such change was sent, and
    there was no evidence or the journal could not be written; or stable failed by itself, and every change was undone. 4: a change
    could not be proven undone.

    Args:
        results: The results of all steps.
        touched: True if a share or an override may have been changed. A tag at 0 % reaches no user and does not count.
        undone: True if every change was proven undone.
        recorded: True if the journal reached the disk.
    """
    if not undone:
        return 4
    if any(check.kind == BASELINE and check.status.failed for result in results for check in result.checks):
        return JUDGED_NOTHING
    statuses = {check.status for result in results for check in result.checks}
    without_evidence = StepStatus.ERROR in statuses and StepStatus.FAIL not in statuses
    return JUDGED_NOTHING if (without_evidence or not recorded) and not touched else 1
