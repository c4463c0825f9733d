"""Session affinity: a load balancer keeps a client on one instance, and a sample of reads must still reach every instance.

Each test has a counterpart that proves the affinity: a client that accepts it samples too few instances and wrongly finds
agreement. There are twelve instances, and the last one differs. The simulation reaches it with the twenty-first session,
the same in every run; a client that keeps its session has eight.
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
from tests.support.embedded_trains import EmbeddedTrain, live_config
from tests.support.served_production import served
from tests.support.virtual_time import virtual_backend

pytestmark = [pytest.mark.anyio, pytest.mark.many_instances]

ONE_INSTANCE_DIFFERS = {"instances": 12, "odd_instance": True}


async def sample_routes(production: Production) -> RouteSample:
    async with production.services() as services:
        return await services.control.sample(label="preflight.routes")


def with_clients(production: Production, change: Callable[[httpx.AsyncClient], None]) -> Production:
    """Return the production with a change in each new client."""

    def new_client(limits: httpx.Limits) -> httpx.AsyncClient:
        client = production.new_client(limits)
        change(client)
        return client

    return attrs.evolve(production, new_client=new_client)


def with_cookie_jar(production: Production) -> Production:
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
        train = EmbeddedTrain(
            live_config(tmp_path), layout_changes={**ONE_INSTANCE_DIFFERS, "affinity": Affinity.COOKIE}
        )
        return simulated(train.config, train.production, clock=EventLoopClock())

    async def test_a_train_refuses_a_production_whose_instances_disagree_behind_a_cookie(
        self, production: Production
    ) -> None:
        summary = await run_production(production)
        assert summary.exit_code == 3
        assert "instances disagree" in {step.step_id: step.detail for step in summary.steps}["preflight"]

    async def test_a_client_that_keeps_the_cookie_finds_agreement(self, production: Production) -> None:
        assert (await sample_routes(with_cookie_jar(production))).agreed is not None


class TestOverASocket:
    """The clients of a live run. Only over sockets does the simulation see separate connections."""

    @pytest.fixture(params=[Affinity.COOKIE, Affinity.CONNECTION])
    def affinity(self, request: pytest.FixtureRequest) -> Affinity:
        found: Affinity = request.param
        return found

    @pytest.fixture
    def production(self, affinity: Affinity, tmp_path: Path) -> Iterator[Production]:
        with served(
            tmp_path, layout={**ONE_INSTANCE_DIFFERS, "affinity": affinity}, backend="cloud-run-api"
        ) as found:
            yield found.live()

    async def test_the_sample_finds_the_instance_that_differs(self, production: Production) -> None:
        assert (await sample_routes(production)).agreed is None

    async def test_a_client_that_keeps_its_session_finds_agreement(
        self, production: Production, affinity: Affinity
    ) -> None:
        with_affinity = {Affinity.COOKIE: with_cookie_jar, Affinity.CONNECTION: with_kept_connections}[
            affinity
        ]
        assert (await sample_routes(with_affinity(production))).agreed is not None


@pytest.mark.parametrize("affinity", [Affinity.COOKIE, Affinity.CONNECTION])
async def test_each_stream_of_the_drill_is_a_new_draw_from_the_split(
    affinity: Affinity, tmp_path: Path
) -> None:
    """On kept connections every stream would reach the revision of the first one, and the canary would never be seen."""
    hidden = {"ingress": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER", "affinity": affinity, "instances": 1}
    with served(
        tmp_path, layout=hidden, backend="cloud-run-api", canary_steps=(25, 100), apply_route_flip=False
    ) as found:
        summary = await run_production(found.live())
    assert summary.passed, summary.reasons
    drill = summary.step("canary-rollback-drill")
    assert drill is not None
    counts = drill.facts["canary_streams"]
    assert isinstance(counts, dict)
    assert all(each["front"] for each in counts.values())
