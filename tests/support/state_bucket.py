"""A bucket for the state of trains, and a transport to it whose requests a test can fail by their labels."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch
from warnings import WarningMessage

import anyio
import attrs
import httpx

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.http.outbound import Outbound
from cutover.record.bucket import Bucket
from cutover.simulation import SimulatedProduction
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from tests.support.embedded_trains import TOKENS, EmbeddedTrain, live_config
from tests.support.wire_faults import FaultyTransport

STATE_URL = "gs://simulated-state/trains"
CONFIRMED = {
    "BASE_URL": "https://chat.example",
    **TOKENS,
}
"""Variables of another machine, with which it recovers a run from the bucket."""
HANG = httpx.PoolTimeout("never raised")
"""The answer of a request that hangs."""
Answer = httpx.Response | httpx.TransportError | None


@attrs.define(eq=False)
class StateTransport(httpx.AsyncBaseTransport):
    """The way to the production and its bucket. ``before`` and ``after`` may answer a request instead, by its label."""

    inner: httpx.AsyncBaseTransport
    scene: "StateScene"

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        label = request.extensions["label"]
        self.scene.labels.append(label)
        if (answer := self.scene.before(label)) is None:
            response = await self.inner.handle_async_request(request)
            if (answer := self.scene.after(label)) is None:
                return response
            await response.aread()
        if answer is HANG:
            await anyio.sleep_forever()
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer


@attrs.define(eq=False)
class StateScene:
    """Trains against one production, with their state in its bucket."""

    directory: Path
    simulation: SimulatedProduction
    warnings: list[WarningMessage]
    """The warnings so far."""
    labels: list[str] = attrs.field(factory=list)
    """The labels of all requests, in order."""
    before: Callable[[str], Answer] = lambda _: None
    """Answers a request that the production never sees."""
    after: Callable[[str], Answer] = lambda _: None
    """Answers a request in place of the production, which has carried it out."""

    @classmethod
    def of(cls, directory: Path, warned: list[WarningMessage] | None = None) -> "StateScene":
        embedded = EmbeddedTrain(live_config(directory), layout_changes={"instances": 1})
        return cls(directory, embedded.production, [] if warned is None else warned)

    def config(self, name: str = "run", **changes: object) -> CutoverConfig:
        return live_config(
            self.directory, **{"state_url": STATE_URL, "output_dir": self.directory / name, **changes}
        )

    def production(self, config: CutoverConfig) -> Production:
        plain = simulated(config, self.simulation, clock=EventLoopClock())
        return attrs.evolve(plain, new_client=lambda _: httpx.AsyncClient(transport=self.transport()))

    def transport(self) -> httpx.AsyncBaseTransport:
        return StateTransport(FaultyTransport(self.simulation), self)

    @contextmanager
    def recovering(self, *, here: bool = False) -> Iterator[None]:
        """Let recoveries reach this production: from here, or from another machine with locks and a folder of runs of its own."""
        folder = self.directory / "other"
        with ExitStack() as stack:
            stack.enter_context(patch("cutover.wiring.recover.live", self.production))
            stack.enter_context(patch("cutover.wiring.fetched_run.live", self.production))
            stack.enter_context(patch("cutover.wiring.fetched_run.RUNS", folder / "runs"))
            if not here:
                stack.enter_context(patch.dict("os.environ", {"XDG_STATE_HOME": str(folder / "state")}))
                stack.enter_context(patch("socket.gethostname", lambda: "other"))
            yield

    @property
    def stored(self) -> list[str]:
        """The names of the objects."""
        return sorted(self.simulation.storage.objects)

    @property
    def locks(self) -> list[str]:
        return [name for name in self.stored if "/locks/" in name]


@attrs.define(eq=False)
class Raw(httpx.AsyncBaseTransport):
    """A transport that one function answers."""

    answer: Callable[[httpx.Request], Awaitable[httpx.Response] | httpx.Response]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        found = self.answer(request)
        return found if isinstance(found, httpx.Response) else await found


def bucket_at(transport: httpx.AsyncBaseTransport) -> Bucket:
    client = httpx.AsyncClient(transport=transport)
    return Bucket(
        outbound=Outbound(client=client, clock=EventLoopClock()),
        api_url="https://storage.googleapis.com",
        name="simulated-state",
        token=TOKENS["CLOUD_RUN_ACCESS_TOKEN"],
    )
