"""The matrix: a fault of every kind at the requests of every label of the train; each outcome is declared beforehand.

One instance for each revision, samples of five reads and rounds of one write and four: with one instance a sample of 59, or
a round of 60, says nothing that these do not.
Many instances are the business of the simulation's own faults. A seeded sample runs on trio; ``CUTOVER_MATRIX=whole``
runs everything there too. The tables are written to ``$CUTOVER_ARTIFACTS``, or ``build`` where that is not set.
"""

import random
from collections.abc import Iterator

import attrs
import pytest

from cutover.model.summary import fold
from cutover.record.journal import read_journal
from tests.support.declared_outcomes import Outcome, Strike, declared, sort
from tests.support.faulty_trains import SCENES, WHOLE, Ride, Scene, labels, room, within
from tests.support.matrix_table import record
from tests.support.run_invariants import AS_CAPTURED, contradictions, left_behind, state
from tests.support.wire_faults import Injection, Kind

pytestmark = pytest.mark.usefixtures("small_samples")

ONE_IN = 40
"""The share of the cells that runs on trio."""


@attrs.frozen(kw_only=True)
class Cell:
    """One fault in one train."""

    scene: Scene
    label: str
    kind: Kind
    number: int | None
    """Which request of the label is struck; None: every one."""

    def __str__(self) -> str:
        which = "every" if self.number is None else f"request {self.number} of"
        return f"{self.scene.name}: {self.kind.value} at {which} {self.label}"

    def declared(self) -> Outcome:
        """Return what must come of it."""
        outcome = declared(
            Strike(label=self.label, kind=self.kind, always=self.number is None, base=self.scene.exit_code)
        )
        verifies = not self.scene.config.get("apply_route_flip", True)
        return attrs.evolve(outcome, left=AS_CAPTURED) if verifies else outcome


def _play(cell: Cell, loop: str) -> tuple[Outcome, list[str]]:
    """Play one cell; return what came of it, and what does not fit together."""
    wrong: list[str] = []
    with room() as directory:
        ride = Ride.of(cell.scene, directory, Injection(label=cell.label, kind=cell.kind, number=cell.number))
        production = ride.trial.production
        before = state(production)
        seen: list[Outcome] = []

        async def play() -> None:
            await ride.run()
            wrong.extend(contradictions(production, ride.folder))
            code = fold(read_journal(ride.folder / "journal.jsonl")).exit_code
            seen.append(Outcome(exit_code=code, left=left_behind(production, before)))
            if code == 4 and not (
                (await ride.recover()).closed and left_behind(production, before) == AS_CAPTURED
            ):
                wrong.append(f"the recovery left production {left_behind(production, before)}")

        within(loop, play)
        if not ride.wire.struck[cell.kind]:
            wrong.append("the fault never struck")
    return seen[0], wrong


def _cells(kind: Kind) -> Iterator[Cell]:
    """Yield where a fault of a kind strikes: the first, second and last request of every label, and all of them."""
    for scene in SCENES.values():
        for label, count in labels(scene).items():
            if kind in sort(label).kinds:
                each = (1, *((2,) if count > 1 else ()), *((count,) if count > 2 else ()))
                for number in (*each, *((None,) if sort(label).every else ())):
                    yield Cell(scene=scene, label=label, kind=kind, number=number)


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("kind", list(Kind), ids=lambda kind: kind.value)
def test_a_fault_ends_as_declared_at_every_request(kind: Kind, loop: str) -> None:
    cells = list(_cells(kind))
    assert cells
    whole = WHOLE or loop == "asyncio"
    if not whole:
        chance = random.Random(kind.value)  # noqa: S311  the same sample in every run
        cells = chance.sample(cells, max(1, len(cells) // ONE_IN))
    table: dict[str, list[str]] = {}
    differ: list[str] = []
    for cell in cells:
        seen, wrong = _play(cell, loop)
        table.setdefault(f"{cell.scene.name}: {cell.label}", []).append(str(seen))
        if seen != cell.declared():
            wrong.insert(0, f"{seen}, {seen.left}; declared was {cell.declared()}, {cell.declared().left}")
        differ += [f"{cell}: {'; '.join(wrong)}"] if wrong else []
    if whole:
        rows = {row: told[0] if len(set(told)) == 1 else ", ".join(told) for row, told in table.items()}
        record(loop, kind.value, rows)
    assert not differ, f"{len(differ)} of {len(cells)} cells:\n" + "\n".join(differ)
