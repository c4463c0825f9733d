"""A real Prometheus that scrapes the simulation: each state of its samples gives a reading with evidence, or the reason why there is none.

The live cases share one server, because its first scrape comes some five seconds after its start. The others are samples of the past.
"""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import attrs
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cutover.clock import EventLoopClock
from cutover.config.config import CutoverConfig
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets
from cutover.model.error_budget import BudgetReading
from cutover.model.revision_metrics import RevisionFigures
from cutover.simulation import Credentials, Layout, SimulatedProduction
from cutover.simulation.exchange import Operation, problem
from cutover.simulation.faults import Fault, Outcome, Refuse, Scope, Strike
from cutover.wiring.metrics import budget_meter, revision_meter
from cutover.wiring.token_sources import tokens_of
from tests.interop import requirements
from tests.interop.serving import HOST, await_port, free_port, served

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROJECT, SERVICE, REGION = "chat-production", "chat", "us-central1"
COUNT = "run_googleapis_com:request_count"
LIVE = {
    "DRY_RUN": "0",
    "AUTH_TOKEN": "marked",
    "CONTROL_ACCESS_TOKEN": "marked",
    "CLOUD_RUN_ACCESS_TOKEN": "marked-google-token",
    "PROJECT": PROJECT,
    "SERVICE": SERVICE,
    "REGION": REGION,
    # One event in ten may fail; 20 events are enough for a ceiling of 50 %.
    "SLO_OBJECTIVE_PERCENT": "90",
    "MAX_ERROR_BUDGET_CONSUMED_PERCENT": "50",
}
HOUR = 3600


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """The tests are about Prometheus, not the event loop."""
    return "asyncio"


@attrs.define(eq=False)
class Scene:
    """A simulation, and the Prometheus server that scrapes it and holds samples of the past."""

    prometheus: str
    simulation: str
    stop_simulation: Callable[[], None]

    def config(self, name: str = "", **env: str) -> CutoverConfig:
        """Return a configuration for one metric of the past, or for the live one."""
        series = f'{name}{{job="past"}}' if name else COUNT
        bad = series.replace("}", ',code="500"}') if name else f'{COUNT}{{response_code_class="5xx"}}'
        every = f"sum(increase({series}[$window]))"
        variables = {
            **LIVE,
            "SLO_PROMETHEUS_URL": self.prometheus,
            "SLO_ALL_QUERY": every,
            "SLO_GOOD_QUERY": f"{every} - (sum(increase({bad}[$window])) or vector(0))",
            "SLO_SERIES": series,
            "SLO_WINDOW": "1h",
            **env,
        }
        return CutoverConfig.from_env(stable_revision="chat-1", canary_revision="chat-2", env=variables)

    async def reading(self, config: CutoverConfig) -> BudgetReading:
        """Return one reading of the budget, as a train takes it."""
        clock, secrets = EventLoopClock(), Secrets()
        async with httpx.AsyncClient(trust_env=False) as client:
            outbound = Outbound(client=client, clock=clock, secrets=secrets)
            meter = budget_meter(config, outbound, tokens_of(config, clock=clock, secrets=secrets))
            assert meter is not None
            return await meter.read()

    async def users(self, config: CutoverConfig) -> dict[str, RevisionFigures | str]:
        """Return the users' requests of both revisions in the last four seconds."""
        own = f'{COUNT}{{revision_name="$revision"'
        config = attrs.evolve(
            config,
            canary_all_query=f"sum(increase({own}}}[$window]))",
            canary_good_query=f'sum(increase({own},response_code_class!="5xx"}}[$window]))',
        )
        clock, secrets = EventLoopClock(), Secrets()
        async with httpx.AsyncClient(trust_env=False) as client:
            outbound = Outbound(client=client, clock=clock, secrets=secrets)
            meter = revision_meter(config, outbound, tokens_of(config, clock=clock, secrets=secrets))
            assert meter is not None
            return await meter.read((Layout().stable, Layout().canary), 4.0)


def _past(now: float) -> Iterator[str]:
    """Yield samples of the last hour, one each 15 s: 2 events a second, of which 1 in 40 is bad."""

    def series(name: str, *, until: float = now, hole: range = range(0)) -> Iterator[str]:
        yield f"# TYPE {name} counter"
        for code, step in (("200", 29.25), ("500", 0.75)):
            for number in range(2 * HOUR // 15):
                at = int(now) - 2 * HOUR + 15 * number
                if at <= until and number not in hole:
                    yield f'{name}_total{{job="past",code="{code}"}} {1000 + number * step} {at}'

    yield from series("steady", until=now)
    yield from series("stale", until=now - 120)
    # A hole of ten minutes is a sixth of the hour.
    yield from series("partial", hole=range(300, 340))
    yield f'# TYPE sparse counter\nsparse_total{{job="past",code="200"}} 1 {int(now) - HOUR}'
    for number in range(HOUR // 15):
        yield f'sparse_total{{job="past",code="200"}} {1 + number // 60} {int(now) - HOUR + 15 * (number + 1)}'
    yield "# EOF"


@contextmanager
def _prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run a private Prometheus that scrapes one target each second, and holds the samples of ``_past``."""
    server = requirements.program("prometheus", of="prometheus")
    tool = requirements.program("promtool", of="prometheus")
    (folder / "past.txt").write_text("\n".join(_past(time.time())) + "\n")
    made = subprocess.run(
        [str(tool), "tsdb", "create-blocks-from", "openmetrics", "past.txt", "data"],
        cwd=folder, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: simulation, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    port = free_port()
    command = [
        str(server), "--config.file=prometheus.yml", "--storage.tsdb.path=data", f"--web.listen-address={HOST}:{port}",
    ]  # fmt: skip
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log) as process,
    ):
        try:
            await_port(port, process)
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()
            try:
                process.wait(10)
            finally:
                process.kill()


def _simulation(url: str) -> SimulatedProduction:
    """Return a production whose page /feed answers 500."""
    failing = Fault(
        name="some-fail",
        sentence="One page fails.",
        strikes=(
            Strike(
                Scope(operations=frozenset({Operation.PAGE}), paths=frozenset({"/feed"})),
                Refuse(problem(500, "internal", "Something went wrong.")),
            ),
        ),
        outcome=Outcome(exit_code=1),
    )
    layout = Layout(front_url=url, cloud_run_url=url, project=PROJECT, service=SERVICE, region=REGION)
    credentials = Credentials(auth_token="a", control_token="c", cloud_run_token="r", legacy_token="l")
    return SimulatedProduction(layout=layout, credentials=credentials, faults=(failing,))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    running = served(lambda url: _simulation(url).app)
    simulation = running.__enter__()
    stopped = False

    def stop() -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            running.__exit__(None, None, None)

    try:
        with _prometheus(tmp_path_factory.mktemp("prometheus"), simulation.removeprefix("http://")) as url:
            yield Scene(prometheus=url, simulation=simulation, stop_simulation=stop)
    finally:
        stop()


async def test_steady_samples_are_evidence(scene: Scene) -> None:
    reading = await scene.reading(scene.config("steady_total"))
    assert reading.unknown == ""
    # 1 in 40 of the events is bad, and 1 in 10 may be.
    assert reading.consumed_percent == pytest.approx(25, rel=0.02)
    assert reading.short_burn_rate == pytest.approx(0.25, rel=0.05)
    assert reading.long_burn_rate == pytest.approx(0.25, rel=0.02)
    assert reading.events == pytest.approx(2 * HOUR, rel=0.02)
    assert reading.holds


async def test_the_same_samples_are_a_no_under_a_lower_ceiling(scene: Scene) -> None:
    reading = await scene.reading(scene.config("steady_total", MAX_ERROR_BUDGET_CONSUMED_PERCENT="20"))
    assert (reading.holds, reading.unknown) == (False, "")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stale_total", "the newest sample is 1"),
        ("partial_total", "samples cover only 8"),
        ("sparse_total", "and 20 are needed"),
        ("none_total", "the age of the newest sample: "),
    ],
)
async def test_samples_without_evidence_are_unknown(scene: Scene, name: str, words: str) -> None:
    reading = await scene.reading(scene.config(name))
    assert words in reading.unknown
    assert not reading.holds


async def test_a_window_that_is_longer_than_the_samples_is_unknown(scene: Scene) -> None:
    reading = await scene.reading(scene.config("steady_total", SLO_WINDOW="6h"))
    assert "samples cover only 3" in reading.unknown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"SLO_ALL_QUERY": "sum(increase(steady_total[$window])"}, "bad_data"),
        ({"SLO_ALL_QUERY": "increase(steady_total[$window])"}, "2 series, where one was expected"),
        ({"SLO_ALL_QUERY": "sum(increase(steady_total[$window])) / 0"}, "+Inf, no finite number"),
        ({"SLO_GOOD_QUERY": "scalar(none[$window:]) or vector(0)"}, "bad_data"),
        ({"SLO_GOOD_QUERY": "sum(increase(none[$window]))"}, "no series"),
    ],
)
async def test_a_query_without_one_number_is_unknown(
    scene: Scene, changes: dict[str, str], words: str
) -> None:
    reading = await scene.reading(scene.config("steady_total", **changes))
    assert words in reading.unknown
    assert not reading.holds


async def test_cloud_monitoring_has_ready_queries_and_wants_its_token(scene: Scene) -> None:
    """A real Prometheus stands behind Cloud Monitoring's path, and lets in the right token alone."""
    path = f"/v1/projects/{PROJECT}/location/global/prometheus/api/v1/query"
    asked: list[str] = []

    async def query(request: Request) -> Response:
        if request.headers.get("authorization") != "Bearer marked-google-token":
            return Response('{"error":{"code":401,"status":"UNAUTHENTICATED","message":"no"}}', 401)
        asked.append(request.query_params["query"])
        async with httpx.AsyncClient(trust_env=False) as client:
            found = await client.get(f"{scene.prometheus}/api/v1/query", params=dict(request.query_params))
        return Response(found.content, found.status_code, media_type="application/json")

    with served(lambda _: Starlette(routes=[Route(path, query, methods=["GET"])])) as url:
        env = {**LIVE, "SLO_CLOUD_MONITORING": "1", "CLOUD_MONITORING_URL": url, "SLO_WINDOW": "1h"}
        config = CutoverConfig.from_env(stable_revision="chat-1", canary_revision="chat-2", env=env)
        reading = await scene.reading(config)
        own = f'{COUNT}{{monitored_resource="cloud_run_revision",service_name="{SERVICE}",location="{REGION}"'
        assert f"sum(increase({own}}}[3600s]))" in asked
        assert f'sum(increase({own},response_code_class!="5xx"}}[3600s]))' in asked
        # The simulation is not yet scraped for an hour, or not at all.
        assert not reading.holds
        wrong = attrs.evolve(config, cloud_run_access_token="marked-wrong")
        assert "HTTP 401" in (await scene.reading(wrong)).unknown


async def test_a_scraped_simulation_is_evidence_until_it_stops(scene: Scene) -> None:
    config = scene.config(
        SLO_WINDOW="4s", SLO_SHORT_WINDOW="2s", SLO_LONG_WINDOW="4s", SLO_SCRAPE_SECONDS="1"
    )
    async with httpx.AsyncClient(trust_env=False) as client:
        assert (await client.get(f"{scene.simulation}/feed")).status_code == 500
        with anyio.fail_after(45):
            # A series counts from its second sample on, so the bad requests show a little later than the others.
            while not (reading := await scene.reading(config)).consumed_percent:
                for number in range(20):
                    await client.get(f"{scene.simulation}/{'feed' if number == 0 else 'manifest.json'}")
    # 1 in 20 requests fails, and 1 in 10 may.
    assert reading.consumed_percent is not None
    assert 0 < reading.consumed_percent < 100
    users = await scene.users(config)
    stable, canary = users[Layout().stable], users[Layout().canary]
    assert isinstance(stable, RevisionFigures)
    assert stable.requests > stable.failed > 0
    # No user has reached the canary, so it has no series.
    assert isinstance(canary, str)
    assert "no series" in canary
    await anyio.to_thread.run_sync(scene.stop_simulation)
    # Its last samples still lie in the window for a while: without a look at their age they would pass.
    with anyio.fail_after(30):
        while True:
            await anyio.sleep(0.5)
            reading = await scene.reading(scene.config(SLO_WINDOW="1h", SLO_SCRAPE_SECONDS="1"))
            if "the newest sample is" in reading.unknown:
                break
    assert not (await scene.reading(config)).holds
