"""Trains for tests: a live configuration against an embedded production, on the event loop's own clock."""

from pathlib import Path
from typing import Any

import attrs

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import Observer
from cutover.simulation import Fault, Operation, SimulatedProduction
from cutover.wiring.embedded import simulated, simulated_credentials, simulated_layout
from cutover.wiring.run import run_production

STABLE, CANARY = "chat-00041-stable", "chat-00042-canary"
USUAL_JUDGEMENT = {"max_canary_worse_percent": 10.0, "max_canary_slower_percent": 50.0}
"""Changes of ``live_config`` with which a canary is judged as by default."""
CHANGES = {Operation.TRAFFIC_UPDATE, Operation.ROUTE_OVERRIDE}
"""Operations that change production."""
TOKENS = {
    "CONTROL_ACCESS_TOKEN": "marked-control-token",
    "AUTH_TOKEN": "marked-auth-token",
    "CLOUD_RUN_ACCESS_TOKEN": "marked-cloud-run-token",
}
"""Environment variables of a recovery. The tokens are those of ``live_config``."""


def live_config(directory: Path, **changes: object) -> CutoverConfig:
    """Return the configuration of a live train with marked tokens and short soaks.

    Two clean turns of the canary are enough for a share, so that trains in tests send no more probes than they need.
    """
    values: dict[str, object] = {
        "stable_revision": STABLE,
        "canary_revision": CANARY,
        "dry_run": False,
        "apply_route_flip": True,
        "base_url": "https://chat.example",
        "legacy_base_url": "https://legacy.chat.example",
        **{name.lower(): token for name, token in TOKENS.items()},
        "legacy_auth_token": "marked-legacy-token",
        "revision_header": "x-cutover-revision",
        "canary_soak_seconds": 0.0,
        "max_canary_worse_percent": 90.0,
        "max_canary_slower_percent": 0.0,
        "flip_confirm_seconds": 0.0,
        "held_streams": 0,
        "output_dir": directory / "run",
    }
    return CutoverConfig(**{**values, **changes})  # type: ignore[arg-type]


@attrs.define(eq=False)
class EmbeddedTrain:
    """A train and the embedded production that it runs against."""

    config: CutoverConfig
    faults: tuple[Fault, ...] = ()
    layout_changes: dict[str, Any] = attrs.field(factory=dict)
    """Fields of the simulated layout that differ from the default."""
    production: SimulatedProduction = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        clock = EventLoopClock()
        self.production = SimulatedProduction(
            layout=attrs.evolve(simulated_layout(self.config), **self.layout_changes),
            credentials=simulated_credentials(self.config),
            faults=self.faults,
            now=clock.now,
            sleep=clock.sleep,
        )

    async def run(self, observer: Observer | None = None) -> CutoverSummary:
        """Run the train to its end."""
        return await run_production(
            simulated(self.config, self.production, clock=EventLoopClock()), observer=observer
        )
