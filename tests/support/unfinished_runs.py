"""Runs that were killed, or completed, to recover: in process, on the event loop's own clock."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

import attrs
import httpx

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.model.route_state import GLOBAL
from cutover.model.traffic_state import TrafficTarget, split
from cutover.model.train_events import (
    TRAFFIC,
    Answered,
    Observer,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    TrainStarted,
)
from cutover.model.undo_policy import RecoveryMode
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.writer import set_routes
from cutover.production.services import Services
from cutover.production.traffic.mover import TrafficMover
from cutover.record.journal import Journal, read_journal
from cutover.simulation import Fault, SimulatedProduction
from cutover.wiring import embedded
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production, live
from cutover.wiring.recover import Recovery, recover_production
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, EmbeddedTrain, live_config


async def move_traffic(services: Services, journal: Journal, canary: int = 5) -> None:
    """Give the canary a share, as the drill does."""
    captured = await services.traffic.read(label="pre")
    mover = TrafficMover(
        backend=services.traffic,
        journal=journal,
        clock=services.clock,
        captured=captured,
        step_id="canary-rollback-drill",
    )
    targets = split(captured, {STABLE: 100 - canary, CANARY: canary})
    shift = await mover.shift(targets, current=captured, label="drill", on_refusal=OnRefusal.STOP)
    assert shift.proven


async def move_routes(services: Services, journal: Journal) -> None:
    """Set one domain and the global override, as a flip does that is cut in the middle."""
    change = await set_routes(
        services.control,
        [(GLOBAL, None), ("auth_entry", "rust_shell"), (GLOBAL, "rust_shell")],
        captured=await services.control.status(label="pre"),
        step_id="route-flip",
        label="flip",
        on_refusal=OnRefusal.STOP,
        journal=journal,
        clock=services.clock,
    )
    assert change.proven


@attrs.define(eq=False)
class Gate(httpx.AsyncBaseTransport):
    """What stands before the production, and refuses the next so many requests."""

    inner: httpx.AsyncBaseTransport
    scene: "Scene"

    async def __aenter__(self) -> Self:
        await self.inner.__aenter__()
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.inner.__aexit__(*raised)  # type: ignore[arg-type]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.scene.refusals:
            self.scene.refusals -= 1
            return httpx.Response(self.scene.refusal_status)
        return await self.inner.handle_async_request(request)


@attrs.define(eq=False)
class Scene:
    """A production, and a run against it that got so far and no further."""

    config: CutoverConfig
    simulation: SimulatedProduction
    journal: Journal
    services: Services = attrs.field(init=False)
    refusals: int = 0
    """How many requests are refused from now on."""
    refusal_status: int = 403
    """The HTTP status of these refusals."""

    @property
    def production(self) -> Production:
        """The services that a recovery finds."""
        inner = simulated(self.config, self.simulation, clock=EventLoopClock())

        def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
            client = inner.new_client(limits)
            client._transport = Gate(client._transport, self)
            return client

        return attrs.evolve(inner, new_client=new_client)

    @property
    def folder(self) -> Path:
        assert self.config.output_dir is not None
        return self.config.output_dir

    @property
    def changes(self) -> int:
        """How many requests asked production to change."""
        return sum(entry.operation in CHANGES for entry in self.simulation.requests)

    @property
    def routes(self) -> set[object]:
        """Every set of overrides that any stable instance holds."""
        rows = [row for row in self.simulation.routes if row["revision"] == STABLE]
        return {(row["global"], *row["domains"].items()) for row in rows}  # type: ignore[attr-defined]

    async def move_traffic(self, canary: int = 5) -> None:
        await move_traffic(self.services, self.journal, canary)

    async def move_routes(self) -> None:
        await move_routes(self.services, self.journal)

    async def intend(self, *outcomes: str) -> None:
        """Write down that the canary was to get 5 %, and what the answers were."""
        captured = await self.services.traffic.read(label="pre")
        wanted = split(captured, {STABLE: 95, CANARY: 5})
        self.journal.record(
            TrafficIntended(
                step_id="canary-rollback-drill", captured=captured, wanted=wanted, etag=captured.etag
            )
        )
        for outcome in outcomes:
            self.journal.record(Answered(key=TRAFFIC, outcome=outcome))

    def kill(self) -> None:
        """Leave what a killed train leaves: its journal and the lock's content."""
        self.journal.close()
        with live(self.config).lock().held() as lock:
            lock.sign(self.folder)

    def complete(self) -> None:
        """Leave what a train leaves that passed: its journal, and no mark in the lock."""
        self.journal.record(TrainFinished(passed=True, exit_code=0))
        self.journal.close()

    def told(self) -> list[TrainEvent]:
        return read_journal(self.folder / "journal.jsonl")

    async def recover(self, way: RecoveryMode = "finish", observer: Observer | None = None) -> Recovery:
        return await recover_production(self.production, self.folder, mode=way, observer=observer)

    async def ask_for(self, *rows: TrafficTarget) -> None:
        """Change the split as somebody else would."""
        state = await self.services.traffic.read(label="somebody-else")
        await self.services.traffic.write(rows, etag=state.etag, label="somebody-else")

    async def override(self, key: str, word: str) -> None:
        """Set an override on every instance, as somebody else would."""
        # Any instance may answer.
        for _ in range(60):
            await self.services.control.override(key, word, label="somebody-else")

    def is_marked(self) -> bool:
        """Whether the lock says that a run is unfinished."""
        return live(self.config).lock().path.read_bytes() != b""


@asynccontextmanager
async def scene(directory: Path, *faults: Fault, **layout: object) -> AsyncIterator[Scene]:
    """Begin a run against a production."""
    trial = EmbeddedTrain(
        live_config(directory),
        faults=faults,
        layout_changes={"instances": min(2, embedded.INSTANCES), **layout},
    )
    (directory / "run").mkdir(parents=True)
    journal = Journal.create(directory / "run" / "journal.jsonl")
    journal.record(TrainStarted(run_id="r1", facts=trial.config.facts()))
    found = Scene(trial.config, trial.production, journal)
    async with found.production.services() as services:
        found.services = services
        try:
            yield found
        finally:
            journal.close()
