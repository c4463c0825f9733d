"""Trains whose requests go over a faulty transport, one train at a time and in memory.

A scenario is one such train, often with a fault of its own. A test runs a scenario and injects one more fault.
"""

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
from tests.support.embedded_trains import TOKENS, EmbeddedTrain, live_config
from tests.support.run_invariants import contradictions
from tests.support.virtual_time import virtual_backend
from tests.support.wire_faults import FaultyTransport, Injection, WireFault

WHOLE = os.environ.get("CUTOVER_MATRIX") == "whole"
"""True: the tests try every case. False: they try a sample."""
# run directories in memory, because fsync on a disk is slow
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108  the folder is memory, not a shared disk
LANDING_SECONDS = 60.0
"""Seconds after a train in which every late effect lands."""


@attrs.frozen(kw_only=True, eq=False)
class Scenario:
    """A train, and the labels of its requests at which tests inject faults."""

    name: str
    labels: str
    """A regular expression for the labels."""
    exit_code: int = 0
    """Exit code of the train when no fault is injected but the scenario's own."""
    config: dict[str, object] = attrs.field(factory=dict)
    layout: dict[str, object] = attrs.field(factory=dict)
    own_fault: Injection | None = None
    """A fault that every run of the scenario has. It makes the train undo its changes."""
    cancelled_at: str | None = None
    """Id of the check at which the test cancels the train."""


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        # the train evaluates eleven paths side by side; take the first, the second and the last
        Scenario(name="cutover", labels=r"(?!flip\.(evaluate|confirm)\.(?!root|feed|api-chats-)).*"),
        Scenario(
            name="sentinels", labels=r"sentinel\.(traffic-5|route-flip)\..*", config={"held_streams": 1}
        ),
        Scenario(name="untagged canary", labels=r"drill\.tag\..*", layout={"tag_urls": {}}),
        Scenario(
            name="dual run",
            labels=r"dual\..*\.(me|root|chat-stream)|dual-identity\..*",
            config={"run_dual_run": True},
        ),
        Scenario(
            name="promotion",
            labels=r"promotion\.(promotion\.(write|read-back|held|the front door\.chat-stream)|routes\.[05]\..*)",
            config={"promote": True, "canary_steps": (100,)},
        ),
        Scenario(name="LATEST", labels=r"drill\.restore\..*", layout={"latest": True}),
        Scenario(
            name="verify only",
            labels=r"flip\.(control-status|evaluate\.root|confirm)",
            config={"apply_route_flip": False},
        ),
        Scenario(
            name="flip undone",
            labels=r"undo\..*|stream-smoke-undone\..*",
            exit_code=1,
            own_fault=Injection(label="stream-smoke-post.chat-stream", fault=WireFault.HTTP_500, number=None),
        ),
        Scenario(
            name="drill failed",
            labels=r"drill\.(rollback|status-post).*",
            exit_code=1,
            own_fault=Injection(label="drill.traffic-100.write", fault=WireFault.HTTP_409, number=None),
        ),
        Scenario(name="drill cancelled", labels=r"undo\..*", exit_code=130, cancelled_at="traffic-5"),
        Scenario(
            name="rollback refused",
            labels=r"undo\..*",
            exit_code=1,
            own_fault=Injection(label="drill.rollback.write", fault=WireFault.HTTP_403, number=None),
        ),
        Scenario(
            name="drill unread",
            labels=r"undo\..*",
            exit_code=1,
            own_fault=Injection(label="drill.status-post", fault=WireFault.HTTP_403, number=None),
        ),
    )
}


@attrs.define(eq=False)
class FaultyTrain:
    """One train of a scenario, whose requests go over a faulty transport."""

    scenario: Scenario
    embedded: EmbeddedTrain
    transport: FaultyTransport

    @classmethod
    def of(cls, scenario: Scenario, directory: str, *injections: Injection) -> "FaultyTrain":
        """Return a train of the scenario with these faults as well as the scenario's own."""
        watched = {"canary_soak_seconds": 2.0, "flip_confirm_seconds": 2.0, "canary_steps": (5, 100)}
        config = live_config(Path(directory), **{**watched, **scenario.config})
        embedded = EmbeddedTrain(config, layout_changes={"instances": 1, **scenario.layout})
        own = () if scenario.own_fault is None else (scenario.own_fault,)
        return cls(scenario, embedded, FaultyTransport(embedded.production, (*own, *injections)))

    @property
    def folder(self) -> Path:
        """The run directory of the train."""
        assert self.embedded.config.output_dir is not None
        return self.embedded.config.output_dir

    def production_over_transport(self, config: CutoverConfig) -> Production:
        """Return the production of a configuration, reached over the faulty transport."""
        plain = simulated(config, self.embedded.production, clock=EventLoopClock())
        return attrs.evolve(
            plain, new_client=lambda _: httpx.AsyncClient(transport=self.transport), run_id="matrix"
        )

    async def run(self) -> None:
        """Run the train to its end, then wait until late effects have landed."""
        with anyio.CancelScope() as scope:

            def observe(event: TrainEvent) -> None:
                if isinstance(event, CheckRecorded) and event.check.check_id == self.scenario.cancelled_at:
                    scope.cancel()

            # the journal records an unproven undo too
            with suppress(UndoUnprovenError):
                await run_production(self.production_over_transport(self.embedded.config), observer=observe)
        await anyio.sleep(LANDING_SECONDS)

    async def recover(self) -> Recovery:
        """Recover the run without any more faults, then wait until late effects have landed."""
        self.transport.stop_faults()
        with patch("cutover.wiring.recover.live", self.production_over_transport):
            recovery = await recover_cutover(self.folder, env=TOKENS)
        await anyio.sleep(LANDING_SECONDS)
        return recovery


@contextmanager
def run_room() -> Iterator[str]:
    """Yield a folder for one run and for its locks."""
    with (
        TemporaryDirectory(dir=MEMORY) as directory,
        patch.dict(os.environ, {"XDG_STATE_HOME": f"{directory}/state"}),
    ):
        yield directory


def run_on_virtual_time(loop: str, work: Callable[[], Awaitable[object]]) -> None:
    """Run the work on the named event loop, on virtual time."""
    name, options = virtual_backend(loop)
    anyio.run(work, backend=name, backend_options=dict(options))


@cache
def label_counts(scenario: Scenario) -> Counter[str]:
    """Run a scenario without more faults. Return the number of requests that each of its labels had."""
    with run_room() as directory:
        train = FaultyTrain.of(scenario, directory)
        run_on_virtual_time("asyncio", train.run)
        assert fold(read_journal(train.folder / "journal.jsonl")).exit_code == scenario.exit_code
        assert not list(contradictions(train.embedded.production, train.folder))
    counts = train.transport.request_counts
    return Counter({label: count for label, count in counts.items() if re.fullmatch(scenario.labels, label)})
