"""The fault matrix: every wire fault at the requests of every label of the train. Each outcome is declared beforehand.

Each revision has one instance, a sample has five reads, and a round has one or four writes. With one instance, larger
figures prove nothing more; ``test_faults`` covers many instances. On trio a seeded sample runs; ``CUTOVER_MATRIX=whole``
runs every cell there too. The tables are written to the folder ``$CUTOVER_ARTIFACTS``, by default ``build``.
"""

import random
from collections.abc import Iterator

import attrs
import pytest

from cutover.model.summary import fold
from cutover.record.journal import read_journal
from tests.support.declared_outcomes import InjectedFault, Outcome, declared_outcome, request_group
from tests.support.faulty_trains import (
    SCENARIOS,
    WHOLE,
    FaultyTrain,
    Scenario,
    label_counts,
    run_on_virtual_time,
    run_room,
)
from tests.support.matrix_table import record
from tests.support.run_invariants import AS_CAPTURED, contradictions, left_behind, state
from tests.support.wire_faults import Injection, WireFault

ONE_IN = 40
"""Number of cells of which one runs on trio."""


@attrs.frozen(kw_only=True)
class Cell:
    """One fault in one train of a scenario."""

    scenario: Scenario
    label: str
    fault: WireFault
    number: int | None
    """Number of the request that meets the fault, among those of the label; None: every request."""

    def __str__(self) -> str:
        which = "every" if self.number is None else f"request {self.number} of"
        return f"{self.scenario.name}: {self.fault.value} at {which} {self.label}"

    def declared(self) -> Outcome:
        """Return the outcome that the train must have."""
        outcome = declared_outcome(
            InjectedFault(
                label=self.label,
                fault=self.fault,
                at_every_request=self.number is None,
                exit_code_without_fault=self.scenario.exit_code,
            )
        )
        verifies = not self.scenario.config.get("apply_route_flip", True)
        return attrs.evolve(outcome, left=AS_CAPTURED) if verifies else outcome


def _run(cell: Cell, loop: str) -> tuple[Outcome, list[str]]:
    """Run the train of one cell. Return its outcome and a list of contradictions."""
    wrong: list[str] = []
    injection = Injection(label=cell.label, fault=cell.fault, number=cell.number)
    with run_room() as directory:
        train = FaultyTrain.of(cell.scenario, directory, injection)
        production = train.embedded.production
        before = state(production)
        outcomes: list[Outcome] = []

        async def play() -> None:
            await train.run()
            wrong.extend(contradictions(production, train.folder))
            code = fold(read_journal(train.folder / "journal.jsonl")).exit_code
            outcomes.append(Outcome(exit_code=code, left=left_behind(production, before)))
            if code == 4 and not (
                (await train.recover()).closed and left_behind(production, before) == AS_CAPTURED
            ):
                wrong.append(f"the recovery left production {left_behind(production, before)}")

        run_on_virtual_time(loop, play)
        if not train.transport.fault_counts[cell.fault]:
            wrong.append("no request met the fault")
    return outcomes[0], wrong


ALIKE = {
    WireFault.REFUSED: WireFault.RESET,
    WireFault.HTTP_401: WireFault.HTTP_403,
    WireFault.HTTP_500: WireFault.HTTP_503,
}
"""Fault -> the fault with the same declared outcomes. It strikes first requests alone, unless ``CUTOVER_MATRIX`` is ``whole``."""


def _cells(fault: WireFault) -> Iterator[Cell]:
    """Yield the cells of one fault: at the first, second and last request of every label, and at all of its requests."""
    for scenario in SCENARIOS.values():
        for label, count in label_counts(scenario).items():
            group = request_group(label)
            if fault in group.faults:
                numbers = (1, *((2,) if count > 1 else ()), *((count,) if count > 2 else ()))
                every: tuple[int | None, ...] = (*numbers, *((None,) if group.is_repeated else ()))
                for number in every if WHOLE or fault not in ALIKE else (1,):
                    yield Cell(scenario=scenario, label=label, fault=fault, number=number)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("fault", list(WireFault), ids=lambda fault: fault.value)
def test_a_fault_ends_as_declared_at_every_request(fault: WireFault, loop: str) -> None:
    cells = list(_cells(fault))
    assert cells
    whole = WHOLE or loop == "asyncio"
    if not whole:
        chance = random.Random(fault.value)  # noqa: S311  the same sample in every run
        cells = chance.sample(cells, max(1, len(cells) // ONE_IN))
    table: dict[str, list[str]] = {}
    failures: list[str] = []
    for cell in cells:
        outcome, wrong = _run(cell, loop)
        table.setdefault(f"{cell.scenario.name}: {cell.label}", []).append(str(outcome))
        declared = cell.declared()
        if outcome != declared:
            wrong.insert(0, f"{outcome}, {outcome.left}; declared is {declared}, {declared.left}")
        failures += [f"{cell}: {'; '.join(wrong)}"] if wrong else []
    if whole:
        rows = {
            row: outcomes[0] if len(set(outcomes)) == 1 else ", ".join(outcomes)
            for row, outcomes in table.items()
        }
        record(loop, fault.value, rows)
    assert not failures, f"{len(failures)} of {len(cells)} cells:\n" + "\n".join(failures)
