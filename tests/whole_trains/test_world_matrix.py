"""The matrix of a world that moves: somebody else acts, a token ends, the clock jumps, at each step of a train.

A row is a moment of the train, a column is what happens then. Each outcome is declared before it is measured. The table is written to the
folder ``$CUTOVER_ARTIFACTS``, by default ``build``. On asyncio every cell runs, on trio one in eight.
"""

import random
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import attrs
import pytest

from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    CheckRecorded,
    RoutesRead,
    StepFinished,
    TrafficRead,
    TrainEvent,
)
from cutover.record import journal
from cutover.simulation import SimulatedProduction
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import CLOUD_RUN, CONTROL, STREAMS, Fate, problem
from cutover.simulation.faults import Effect, Refuse
from cutover.text import timestamp
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.faulty_trains import WHOLE, run_on_virtual_time, run_room
from tests.support.matrix_table import record

HOTFIX = "openagents-control-service-00008-other"
Condition = Callable[[TrainEvent], bool]


def finished(step_id: str) -> Condition:
    return lambda event: isinstance(event, StepFinished) and event.result.step_id == step_id


def checked(check_id: str) -> Condition:
    return lambda event: isinstance(event, CheckRecorded) and event.check.check_id == check_id


def served(share: int) -> Condition:
    return lambda event: (
        isinstance(event, TrafficRead) and event.proven and event.found.served().get(CANARY) == share
    )


def rolled_back(event: TrainEvent) -> bool:
    """Hold for the check of the rollback: the split is stable's alone, and nothing is restored yet."""
    return isinstance(event, CheckRecorded) and event.check.check_id == "rollback"


MOMENTS: Mapping[str, Condition] = {
    "after the preflight": finished("preflight"),
    "after the first smoke": finished("stream-smoke-pre"),
    "at 5 %": served(5),
    "at 25 %": served(25),
    "at 50 %": served(50),
    "at 100 %": served(100),
    "after the rollback": rolled_back,
    "after the drill": finished("canary-rollback-drill"),
    "in the flip": lambda event: isinstance(event, RoutesRead) and event.proven,
    "after the flip": finished("route-flip"),
    "after the second smoke": finished("stream-smoke-post"),
    "after the final state": finished("final-state"),
}
IN_DRILL = ("at 5 %", "at 25 %", "at 50 %", "at 100 %")
BEFORE_DRILL = ("after the preflight", "after the first smoke")


@attrs.define(eq=False)
class World:
    """A train, its production, and the things that somebody else can do to them."""

    trial: EmbeddedTrain
    refused: list[str] = attrs.field(factory=list)
    """The tokens that have ended."""
    jump: float = 0.0
    """Seconds by which the wall clock is wrong."""

    @property
    def production(self) -> SimulatedProduction:
        return self.trial.production

    def press_kill_switch(self) -> None:
        """Set every override to legacy on every instance."""
        for name in (STABLE, CANARY):
            for instance in self.production._front_door.all_of(name):
                instance.overrides |= dict.fromkeys(self.production._route_keys(), "legacy")

    def pin_hotfix(self) -> None:
        """Deploy a revision and give it all traffic."""
        deployment = self.production._deployment
        deployment.deploy()
        deployment.update((Target(revision=HOTFIX, percent=100),), Fate())

    def deploy_broken(self) -> None:
        """Deploy a revision that fails to start."""
        self.production._deployment.deploy(ready=False)

    def end_token(self, name: str) -> None:
        self.refused.append(name)

    def jump_clock(self, seconds: float) -> None:
        self.jump += seconds


@attrs.frozen(kw_only=True)
class Column:
    """One thing that happens, and the declared exit code of a train at each moment."""

    name: str
    deed: Callable[[World], None]
    exit_codes: Callable[[str], int]
    left: Callable[[World, str], bool]
    """Return True if production holds, at the end, what it must hold for this moment."""
    says: Mapping[int, str] = attrs.field(factory=dict)
    """Exit code -> a text that the summary must contain."""


def kill_switch_code(moment: str) -> int:
    if moment == "after the final state":
        return 0
    # Before the flip it sees the overrides of somebody else and sets none; later the undo leaves them alone.
    return 4 if moment in {"in the flip", "after the flip", "after the second smoke"} else 1


def hotfix_code(moment: str) -> int:
    if moment == "after the final state":
        return 0
    if moment == "after the preflight":
        # The smoke sees that another revision than stable answers, before anything is moved.
        return 3
    # Once the drill has put the split back, a later one is not this train's to undo.
    return 4 if moment in {*IN_DRILL, "after the rollback"} else 1


def control_code(moment: str) -> int:
    if moment == "after the final state":
        return 0
    return 4 if moment in {"in the flip", "after the flip", "after the second smoke"} else 1


def cloud_run_code(moment: str) -> int:
    if moment in BEFORE_DRILL:
        return 3
    if moment == "after the final state":
        return 0
    return 4 if moment in {*IN_DRILL, "after the rollback"} else 1


def auth_code(moment: str) -> int:
    if moment in {"after the second smoke", "after the final state"}:
        return 0
    # A stream without a token is no evidence, and nothing was touched before the smoke.
    return 3 if moment == "after the preflight" else 3 if moment == "after the first smoke" else 1


def flipped(world: World) -> bool:
    return set(world.production.route_targets().values()) == {"rust_shell"}


def put_back(world: World, moment: str) -> bool:
    del moment
    return set(world.production.route_targets().values()) == {None} and world.production.traffic == {
        STABLE: 100
    }


COLUMNS = {
    column.name: column
    for column in (
        Column(
            name="a human presses the kill switch",
            deed=World.press_kill_switch,
            exit_codes=kill_switch_code,
            left=lambda world, _: (
                set(world.production.route_targets().values()) == {"legacy"}
                and world.production.traffic == {STABLE: 100}
            ),
            says={4: "production has moved on"},
        ),
        Column(
            name="a human pins a hotfix",
            deed=World.pin_hotfix,
            exit_codes=hotfix_code,
            left=lambda world, _: world.production.traffic == {HOTFIX: 100},
            says={4: "production has moved on"},
        ),
        Column(
            name="somebody deploys a revision that fails to start",
            deed=World.deploy_broken,
            exit_codes=lambda _: 0,
            left=lambda world, _: flipped(world) and world.production.traffic == {STABLE: 100},
        ),
        Column(
            name="the control token ends",
            deed=lambda world: world.end_token("control"),
            exit_codes=control_code,
            left=lambda world, moment: (
                flipped(world) if control_code(moment) in {0, 4} else put_back(world, moment)
            ),
            says={4: "renew CONTROL_ACCESS_TOKEN first"},
        ),
        Column(
            name="the Cloud Run token ends",
            deed=lambda world: world.end_token("cloud_run"),
            exit_codes=cloud_run_code,
            left=lambda world, moment: (
                moment in IN_DRILL or flipped(world) if cloud_run_code(moment) == 0 else True
            ),
            says={4: "renew CLOUD_RUN_ACCESS_TOKEN first"},
        ),
        Column(
            name="the chat token ends",
            deed=lambda world: world.end_token("auth"),
            exit_codes=auth_code,
            left=lambda world, moment: flipped(world) if auth_code(moment) == 0 else put_back(world, moment),
        ),
        Column(
            name="the clock jumps a minute ahead",
            deed=lambda world: world.jump_clock(60.0),
            exit_codes=lambda _: 0,
            left=lambda world, _: flipped(world) and world.production.traffic == {STABLE: 100},
        ),
        Column(
            name="the clock jumps a minute back",
            deed=lambda world: world.jump_clock(-60.0),
            exit_codes=lambda _: 0,
            left=lambda world, _: flipped(world) and world.production.traffic == {STABLE: 100},
        ),
    )
}
_REFUSED = {
    "control": (CONTROL, Refuse(problem(401, "unauthorized", "Unauthenticated."))),
    "cloud_run": (CLOUD_RUN, Refuse(problem(401, "unauthorized", "Unauthenticated."))),
    "auth": (STREAMS, Refuse(problem(401, "unauthorized", "Unauthenticated."))),
}


@attrs.define(eq=False)
class EndedTokens:
    """The production's faults: a token that has ended gets 401 from its service."""

    world: World

    def strike(self, situation: object) -> tuple[Effect, ...]:
        operation = situation.operation  # type: ignore[attr-defined]
        return tuple(
            effect
            for name in self.world.refused
            for operations, effect in [_REFUSED[name]]
            if operation in operations
        )


def _run(column: Column, moment: str, loop: str) -> list[str]:
    """Run the train of one cell; return its exit code in words and everything that is not as declared."""
    wrong: list[str] = []
    found: list[int] = []
    with run_room() as directory:
        config = live_config(Path(directory), canary_soak_seconds=2.0, flip_confirm_seconds=2.0)
        world = World(EmbeddedTrain(config, layout_changes={"instances": 1}))
        world.production._active = EndedTokens(world)  # type: ignore[assignment]
        happened: list[TrainEvent] = []

        def observe(event: TrainEvent) -> None:
            if not happened and MOMENTS[moment](event):
                happened.append(event)
                column.deed(world)

        async def play() -> None:
            summary = await world.trial.run(observer=observe)
            found.append(summary.exit_code)
            wrong.extend(_not_as_declared(column, moment, world, summary))

        def now() -> str:
            return timestamp(datetime.now(UTC) + timedelta(seconds=world.jump))

        with patch.object(journal, "utc_now", now):
            run_on_virtual_time(loop, play)
        if not happened:
            wrong.append("this moment never came")
    return [str(found[0]), *wrong]


def _not_as_declared(column: Column, moment: str, world: World, summary: CutoverSummary) -> list[str]:
    wrong = []
    declared = column.exit_codes(moment)
    told = summary.undo
    if summary.exit_code != declared:
        wrong.append(f"exit code {summary.exit_code}, declared is {declared}: {summary.reasons}, {told}")
    if not column.left(world, moment):
        wrong.append(f"left {world.production.traffic}, {world.production.route_targets()}")
    text = column.says.get(summary.exit_code, "")
    if text and (told is None or text not in " ".join((told.detail, *told.to_do))):
        wrong.append(f"{text!r} is missing in {told}")
    return wrong


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
@pytest.mark.parametrize("name", COLUMNS)
def test_a_world_that_moves_ends_as_declared_at_every_moment(name: str, loop: str) -> None:
    column, whole = COLUMNS[name], WHOLE or loop == "asyncio"
    moments = list(MOMENTS)
    if not whole:
        chance = random.Random(name)  # noqa: S311  the same sample in every run
        moments = chance.sample(moments, max(1, len(moments) // 8))
    failures: list[str] = []
    rows: dict[str, str] = {}
    for moment in moments:
        code, *wrong = _run(column, moment, loop)
        rows[f"a healthy train: {moment}"] = code
        failures += [f"{moment}: {'; '.join(wrong)}"] if wrong else []
    if whole:
        record(f"world-{loop}", name, rows)
    assert not failures, f"{len(failures)} of {len(moments)} moments:\n" + "\n".join(failures)
