"""An embedded production, served on loopback for live services and real commands. Its clock skips waits."""

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest
import uvicorn
from anyio.lowlevel import checkpoint

from cutover.cli.simulate import gcloud_environment
from cutover.config.config import CutoverConfig
from cutover.production.traffic.gcloud import Gcloud, Patience
from cutover.simulation import Fault, SimulatedProduction
from cutover.wiring.embedded import simulated_credentials, simulated_layout
from cutover.wiring.production import Production, live
from tests.support.embedded_trains import live_config

_HOST = "127.0.0.1"
_STOP_SECONDS = 10
FAKE_GCLOUD = Path(__file__).parent / "fake_gcloud.py"


@attrs.define(eq=False)
class SharedClock:
    """One clock for a train and for the production in another thread. A sleep of the train advances it at once for both."""

    skipped: float = 0.0

    def now(self) -> float:
        return time.monotonic() + self.skipped

    async def sleep(self, seconds: float) -> None:
        self.skipped += max(0.0, seconds)
        await checkpoint()


@attrs.frozen(kw_only=True)
class ServedProduction:
    """A production on loopback, and the configuration of a train that reaches it."""

    config: CutoverConfig
    production: SimulatedProduction
    clock: SharedClock

    def live(self) -> Production:
        """Return the production of a live run, with the shared clock."""
        return attrs.evolve(live(self.config), clock=self.clock)

    def gcloud(self, patience: Patience | None = None) -> Gcloud:
        """Return the traffic backend that runs gcloud."""
        return Gcloud(
            project=self.config.project,
            region=self.config.region,
            service=self.config.service,
            clock=self.clock,
            secrets=self.live().secrets,
            token=self.config.cloud_run_access_token,
            patience=patience or Patience(),
        )


@contextmanager
def served(
    directory: Path,
    *faults: Fault,
    layout: Mapping[str, object] | None = None,
    backend: str = "gcloud",
    host: str = _HOST,
    **changes: object,
) -> Iterator[ServedProduction]:
    """Serve a production with uvicorn in its own thread. The environment of this process points gcloud to it.

    ``host`` is the address of loopback to serve on: 127.0.0.1 or ::1.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]" if ":" in host else host
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        listeners = [stack.enter_context(socket.create_server((host, 0), family=family)) for _ in range(4)]
        front, cloud_run, legacy, tag = (
            f"http://{shown}:{listener.getsockname()[1]}" for listener in listeners
        )
        for name, value in gcloud_environment(cloud_run).items():
            patch.setenv(name, value)
        patch.setenv("CLOUDSDK_CONFIG", str(directory / "gcloud"))
        urls = {"base_url": front, "cloud_run_api_url": cloud_run, "legacy_base_url": legacy}
        config = live_config(directory, **{**urls, "traffic_backend": backend, **changes})
        clock = SharedClock()
        tags = {"tag_urls": {"canary": tag}, "tag_url_form": tag + "/tags/{tag}"}
        start = attrs.evolve(simulated_layout(config), **{**tags, **(layout or {})})  # type: ignore[arg-type]
        production = SimulatedProduction(
            layout=start, credentials=simulated_credentials(config), faults=faults, now=clock.now
        )
        server = uvicorn.Server(
            uvicorn.Config(
                production.app,
                interface="asgi3",
                lifespan="off",
                log_level="critical",
                access_log=False,
                # The simulation sends its own.
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": listeners}, daemon=True)
        thread.start()
        try:
            yield ServedProduction(config=config, production=production, clock=clock)
        finally:
            server.should_exit = True
            thread.join(_STOP_SECONDS)
            assert not thread.is_alive(), "uvicorn did not stop"


@contextmanager
def fake_gcloud(directory: Path, mode: str = "") -> Iterator[Path]:
    """Put the fake gcloud first on the path. Yield the log file of its calls."""
    program = directory / "bin" / "gcloud"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!{sys.executable} -ISE\n{FAKE_GCLOUD.read_text()}")
    program.chmod(0o755)
    calls = directory / "calls.jsonl"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.pathsep.join((str(program.parent), os.environ["PATH"])))
        patch.setenv("FAKE_GCLOUD", mode)
        patch.setenv("FAKE_GCLOUD_LOG", str(calls))
        yield calls
