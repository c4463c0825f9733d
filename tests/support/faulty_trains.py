"""Trains on a wire, one at a time and in memory, each with something that goes wrong in any case: for whoever strikes more."""

import os
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import anyio
import attrs
import httpx

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.errors import UndoUnprovenError
from cutover.model.summary import fold
from cutover.model.train_events import CheckRecorded, TrainEvent
from cutover.record.journal import read_journal
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from cutover.wiring.recover import Recovery, recover_cutover
from cutover.wiring.run import run_production
from tests.support.embedded_trains import TOKENS, Trial, live_config
from tests.support.run_invariants import contradictions
from tests.support.virtual_time import virtual_backend
from tests.support.wire_faults import Injection, Kind, Wire

WHOLE = os.environ.get("CUTOVER_MATRIX") == "whole"
"""Whether everything is tried, where otherwise a sample is."""
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  run directories without a disk's fsync
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

    async def recover(self) -> Recovery:
        """Recover what is open, now that nothing goes wrong any more."""
        self.wire.heal()
        with patch("cutover.wiring.recover.live", self.on_the_wire):
            recovery = await recover_cutover(self.folder, env=TOKENS)
        await anyio.sleep(LANDED)
        return recovery


@contextmanager
def room() -> Iterator[str]:
    """Give a folder for one run, and for the locks that go with it."""
    with (
        TemporaryDirectory(dir=MEMORY) as directory,
        patch.dict(os.environ, {"XDG_STATE_HOME": f"{directory}/state"}),
    ):
        yield directory


def within(loop: str, work: Callable[[], Awaitable[object]]) -> None:
    name, options = virtual_backend(loop)
    anyio.run(work, backend=name, backend_options=dict(options))


@cache
def labels(scene: Scene) -> Counter[str]:
    """Run a scene without a further fault; return how many requests each label of interest had."""
    with room() as directory:
        ride = Ride.of(scene, directory)
        within("asyncio", ride.run)
        assert fold(read_journal(ride.folder / "journal.jsonl")).exit_code == scene.exit_code
        assert not list(contradictions(ride.trial.production, ride.folder))
    return Counter({label: n for label, n in ride.wire.seen.items() if re.fullmatch(scene.labels, label)})
