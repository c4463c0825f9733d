"""The matrix: a fault of every kind at the requests of every label of the train; each outcome is declared beforehand.

One instance for each revision, samples of five reads and rounds of one write and four: with one instance a sample of 59, or
a round of 60, says nothing that these do not.
Many instances are the business of the simulation's own faults. A seeded sample runs on trio; ``CUTOVER_MATRIX=whole``
runs everything there too. The tables are written to ``$CUTOVER_ARTIFACTS``, or ``build`` where that is not set.
"""

import os
import random
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import anyio
import attrs
import httpx
import pytest
from declared_outcomes import Outcome, Strike, declared, sort
from matrix_table import record
from proof import AS_CAPTURED, contradictions, left_behind, state
from trains import Trial, live_config
from virtual_time import virtual_backend
from wire_faults import Injection, Kind, Wire

from cutover import control_plane
from cutover.clock import EventLoopClock
from cutover.config import CutoverConfig
from cutover.errors import UndoUnprovenError
from cutover.journal import CheckRecorded, TrainEvent, read_journal
from cutover.production import Production, simulated
from cutover.recover import recover_cutover
from cutover.run import run_production
from cutover.summary import fold

WHOLE = os.environ.get("CUTOVER_MATRIX") == "whole"
ONE_IN = 40
"""The share of the cells that runs on trio."""
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  run directories without a disk's fsync
TOKENS = {
    "CONTROL_ACCESS_TOKEN": "marked-control-token",
    "AUTH_TOKEN": "marked-auth-token",
    "CLOUD_RUN_ACCESS_TOKEN": "marked-cloud-run-token",
}
LANDED = 60.0
"""Seconds after a train until everything late has landed."""


@attrs.frozen(kw_only=True, eq=False)
class Scene:
    """A train whose requests are struck, and which of its labels are of interest."""

    name: str
    labels: str
    """A regular expression."""
    exit_code: int = 0
    """Of a train without any fault beside the scene's own."""
    config: dict[str, object] = attrs.field(factory=dict)
    layout: dict[str, object] = attrs.field(factory=dict)
    first: Injection | None = None
    """What goes wrong in any case, so that there is something to undo."""
    cancelled_at: str | None = None
    """The check at which the train is cancelled."""


SCENES = {
    scene.name: scene
    for scene in (
        # of the eleven paths that are evaluated side by side: the first, the second and the last
        Scene(name="cutover", labels=r"(?!flip\.(evaluate|confirm)\.(?!root|feed|api-chats-)).*"),
        Scene(name="sentinels", labels=r"sentinel\.(traffic-5|route-flip)\..*", config={"held_streams": 1}),
        Scene(name="dual run", labels=r"dual\..*\.(me|root|chat-stream)", config={"run_dual_run": True}),
        Scene(name="LATEST", labels=r"drill\.restore\..*", layout={"latest": True}),
        Scene(
            name="verify only",
            labels=r"flip\.(control-status|evaluate\.root|confirm)",
            config={"apply_route_flip": False},
        ),
        Scene(
            name="flip undone",
            labels=r"undo\..*|stream-smoke-undone\..*",
            exit_code=1,
            first=Injection(label="stream-smoke-post.chat-stream", kind=Kind.HTTP_500, number=None),
        ),
        Scene(
            name="drill failed",
            labels=r"drill\.(rollback|status-post).*",
            exit_code=1,
            first=Injection(label="drill.traffic-100.write", kind=Kind.HTTP_409, number=None),
        ),
        Scene(name="drill cancelled", labels=r"undo\..*", exit_code=130, cancelled_at="traffic-5"),
        Scene(
            name="rollback refused",
            labels=r"undo\..*",
            exit_code=1,
            first=Injection(label="drill.rollback.write", kind=Kind.HTTP_403, number=None),
        ),
        Scene(
            name="drill unread",
            labels=r"undo\..*",
            exit_code=1,
            first=Injection(label="drill.status-post", kind=Kind.HTTP_403, number=None),
        ),
    )
}


@attrs.define(eq=False)
class Ride:
    """One train of a scene, on a wire."""

    scene: Scene
    trial: Trial
    wire: Wire

    @classmethod
    def of(cls, scene: Scene, directory: str, *injections: Injection) -> "Ride":
        watched = {"canary_soak_seconds": 2.0, "flip_confirm_seconds": 2.0, "canary_steps": (5, 100)}
        config = live_config(Path(directory), **{**watched, **scene.config})
        trial = Trial(config, layout_changes={"instances": 1, **scene.layout})
        first = () if scene.first is None else (scene.first,)
        return cls(scene, trial, Wire(trial.production, (*first, *injections)))

    @property
    def folder(self) -> Path:
        assert self.trial.config.output_dir is not None
        return self.trial.config.output_dir

    def on_the_wire(self, config: CutoverConfig) -> Production:
        """Return the production of a configuration, over this wire."""
        plain = simulated(config, self.trial.production, clock=EventLoopClock())
        return attrs.evolve(
            plain, new_client=lambda _: httpx.AsyncClient(transport=self.wire), run_id="matrix"
        )

    async def run(self) -> None:
        """Run the train to its end, and let everything land that is late."""
        with anyio.CancelScope() as scope:

            def observe(event: TrainEvent) -> None:
                if isinstance(event, CheckRecorded) and event.check.check_id == self.scene.cancelled_at:
                    scope.cancel()

            with suppress(UndoUnprovenError):  # the journal says it too
                await run_production(self.on_the_wire(self.trial.config), observer=observe)
        await anyio.sleep(LANDED)

    async def recover(self) -> bool:
        """Recover what is open, now that nothing goes wrong any more; return whether it was closed."""
        self.wire.heal()
        with patch("cutover.recover.live", self.on_the_wire):
            recovery = await recover_cutover(self.folder, env=TOKENS)
        await anyio.sleep(LANDED)
        return recovery.closed


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


def within(loop: str, work: Callable[[], Awaitable[object]]) -> None:
    name, options = virtual_backend(loop)
    anyio.run(work, backend=name, backend_options=dict(options))


def _play(cell: Cell, loop: str) -> tuple[Outcome, list[str]]:
    """Play one cell; return what came of it, and what does not fit together."""
    wrong: list[str] = []
    with (
        TemporaryDirectory(dir=MEMORY) as directory,
        patch.dict(os.environ, {"XDG_STATE_HOME": f"{directory}/state"}),
    ):
        ride = Ride.of(cell.scene, directory, Injection(label=cell.label, kind=cell.kind, number=cell.number))
        production = ride.trial.production
        before = state(production)
        seen: list[Outcome] = []

        async def play() -> None:
            await ride.run()
            wrong.extend(contradictions(production, ride.folder))
            code = fold(read_journal(ride.folder / "journal.jsonl")).exit_code
            seen.append(Outcome(exit_code=code, left=left_behind(production, before)))
            if code == 4 and not (await ride.recover() and left_behind(production, before) == AS_CAPTURED):
                wrong.append(f"the recovery left production {left_behind(production, before)}")

        within(loop, play)
        if not ride.wire.struck[cell.kind]:
            wrong.append("the fault never struck")
    return seen[0], wrong


@cache
def _labels(scene: Scene) -> Counter[str]:
    """Run a scene without a further fault; return how many requests each label of interest had."""
    with (
        TemporaryDirectory(dir=MEMORY) as directory,
        patch.dict(os.environ, {"XDG_STATE_HOME": f"{directory}/state"}),
    ):
        ride = Ride.of(scene, directory)
        within("asyncio", ride.run)
        assert fold(read_journal(ride.folder / "journal.jsonl")).exit_code == scene.exit_code
        assert not list(contradictions(ride.trial.production, ride.folder))
    return Counter({label: n for label, n in ride.wire.seen.items() if re.fullmatch(scene.labels, label)})


def _cells(kind: Kind) -> Iterator[Cell]:
    """Yield where a fault of a kind strikes: the first, second and last request of every label, and all of them."""
    for scene in SCENES.values():
        for label, count in _labels(scene).items():
            if kind in sort(label).kinds:
                each = (1, *((2,) if count > 1 else ()), *((count,) if count > 2 else ()))
                for number in (*each, *((None,) if sort(label).every else ())):
                    yield Cell(scene=scene, label=label, kind=kind, number=number)


@pytest.fixture(autouse=True)
def _small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_plane, "SAMPLE_READS", 5)
    monkeypatch.setattr(control_plane, "ROUNDS", (1, 4))


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
