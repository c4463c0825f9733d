"""A front door that keeps a client on one instance: a proof by a sample must reach the others all the same.

Each test has its counterpart, which shows that the affinity is there: with a client that gives in to it, the sample agrees,
and is wrong. Twelve instances, of which the last one is at odds: the simulation's choice, which is the same in every run,
comes to it with the twenty-first session, and a client that sticks has eight.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.production.routes.control_plane import RouteSample
from cutover.simulation import Affinity
from cutover.wiring.embedded import simulated
from cutover.wiring.production import Production
from cutover.wiring.run import run_production
from tests.support.embedded_trains import Trial, live_config
from tests.support.served_production import served
from tests.support.virtual_time import virtual_backend

pytestmark = pytest.mark.anyio

AT_ODDS = {"instances": 12, "odd_instance": True}


async def sampled(production: Production) -> RouteSample:
    async with production.services() as services:
        return await services.control.sample(label="preflight.routes")


def with_clients(production: Production, change: Callable[[httpx.AsyncClient], None]) -> Production:
    """Return the same with another kind of client."""

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        client = production.new_client(limits)
        change(client)
        return client

    return attrs.evolve(production, new_client=new_client)


def with_a_jar(production: Production) -> Production:
    def give(client: httpx.AsyncClient) -> None:
        client.cookies = httpx.Cookies()

    return with_clients(production, give)


def with_kept_connections(production: Production) -> Production:
    kept = httpx.Limits(max_keepalive_connections=20)
    return attrs.evolve(production, new_client=lambda _: production.new_client(kept))


class TestInProcess:
    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> object:
        return virtual_backend(request.param)

    @pytest.fixture
    def production(self, tmp_path: Path) -> Production:
        trial = Trial(live_config(tmp_path), layout_changes={**AT_ODDS, "affinity": Affinity.COOKIE})
        return simulated(trial.config, trial.production, clock=EventLoopClock())

    async def test_a_train_refuses_a_production_at_odds_behind_a_cookie(self, production: Production) -> None:
        summary = await run_production(production)
        assert summary.exit_code == 3
        assert "instances disagree" in {step.step_id: step.detail for step in summary.steps}["preflight"]

    async def test_a_client_that_takes_the_cookie_finds_them_agreed(self, production: Production) -> None:
        assert (await sampled(with_a_jar(production))).agreed is not None


class TestOverASocket:
    """The clients that a live run has; connections can be told apart here alone."""

    @pytest.fixture(params=[Affinity.COOKIE, Affinity.CONNECTION])
    def affinity(self, request: pytest.FixtureRequest) -> Affinity:
        found: Affinity = request.param
        return found

    @pytest.fixture
    def production(self, affinity: Affinity, tmp_path: Path) -> Iterator[Production]:
        with served(tmp_path, layout={**AT_ODDS, "affinity": affinity}, backend="cloud-run-api") as found:
            yield found.live()

    async def test_the_odd_instance_is_found(self, production: Production) -> None:
        assert (await sampled(production)).agreed is None

    async def test_a_client_that_sticks_finds_them_agreed(
        self, production: Production, affinity: Affinity
    ) -> None:
        sticking = {Affinity.COOKIE: with_a_jar, Affinity.CONNECTION: with_kept_connections}[affinity]
        assert (await sampled(sticking(production))).agreed is not None
