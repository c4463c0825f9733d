"""The real gcloud against the simulation: its requests, its changes to a split, and its end at a deadline.

Each command takes one to four seconds, so there are few tests.
"""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from cutover.errors import NoAnswerError
from cutover.model.traffic_state import TrafficTarget
from cutover.model.train_events import CommandStarted, TrainEvent
from cutover.production.traffic.gcloud import Patience
from cutover.production.traffic.processes import members
from cutover.simulation import FAULTS, VARIANTS, Fault, Operation, SimulatedProduction
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import SILENCE
from cutover.simulation.faults import Outcome, Refuse, Scope, Strike
from cutover.wiring.run import run_production
from tests.interop import requirements
from tests.support.embedded_trains import CANARY, STABLE
from tests.support.served_production import fake_gcloud, served

pytestmark = pytest.mark.anyio

QUICK: dict[str, Any] = {
    "canary_steps": (100,),
    "apply_route_flip": False,
    "layout": {"instances": 1, "latest": True},
}
SPLITS = (
    (
        TrafficTarget(revision=STABLE, percent=60, tag="blue"),
        TrafficTarget(revision=None, percent=35),
        TrafficTarget(revision=CANARY, percent=5),
        TrafficTarget(revision=None, tag="next"),
    ),
    (TrafficTarget(revision=None, percent=100),),
)


@pytest.fixture(autouse=True)
def _gcloud() -> None:
    requirements.program("gcloud", of="gcloud")


@pytest.fixture
def anyio_backend() -> str:
    """Run on asyncio alone: the tests with the fake gcloud cover both event loops."""
    return "asyncio"


def targets(production: SimulatedProduction) -> Counter[object]:
    return Counter((row.revision, row.percent, row.tag) for row in production.traffic_spec)


async def test_a_train_passes_and_leaves_the_traffic_as_it_was(tmp_path: Path) -> None:
    with served(tmp_path, **QUICK) as found:
        before = targets(found.production)
        summary = await run_production(found.live())
        assert summary.passed, summary.reasons
        assert targets(found.production) == before
        rows = [row for row in found.production.requests if row.site is Site.CLOUD_RUN]
        assert {row.token for row in rows} == {"cloud_run"}
        assert all(row.path.startswith("/apis/serving.knative.dev/v1/") for row in rows)
        assert [row.method for row in rows if row.operation is Operation.TRAFFIC_UPDATE] == ["PUT"] * 3


async def test_a_train_passes_while_a_revision_of_somebody_else_does_not_start(tmp_path: Path) -> None:
    with served(tmp_path, VARIANTS["broken-revision"], **QUICK) as found:
        before = targets(found.production)
        summary = await run_production(found.live())
        assert summary.passed, summary.reasons
        assert targets(found.production) == before


async def test_an_update_that_somebody_else_overtakes_is_written_again(tmp_path: Path) -> None:
    """The API refuses gcloud's update with 409, and gcloud ends with exit code 1."""
    with served(tmp_path, FAULTS["patch-409-once"], **QUICK) as found:
        summary = await run_production(found.live())
        assert summary.passed, summary.reasons
        assert [r.status for r in found.production.requests if r.operation is Operation.TRAFFIC_UPDATE] == [
            409, 200, 200, 200,
        ]  # fmt: skip


async def test_an_interrupted_train_is_undone(tmp_path: Path) -> None:
    with served(tmp_path, **QUICK) as found, anyio.CancelScope() as scope:
        before = targets(found.production)

        def observe(event: TrainEvent) -> None:
            if isinstance(event, CommandStarted):
                scope.cancel()

        try:
            await run_production(found.live(), observer=observe)
        finally:
            assert targets(found.production) == before
            assert sum(row.operation is Operation.TRAFFIC_UPDATE for row in found.production.requests) > 1
    assert scope.cancelled_caught


@pytest.mark.parametrize("fake", [False, True], ids=["real", "fake"])
async def test_shares_tags_and_latest_are_replaced_together(fake: bool, tmp_path: Path) -> None:
    """The real gcloud and the fake do the same, so tests with the fake count for the real one."""
    with served(tmp_path) as found, fake_gcloud(tmp_path) if fake else nullcontext():
        for rows in SPLITS:
            await found.gcloud().write(rows, etag=None, label="write")
            state = await found.gcloud().read(label="read")
            assert state.asks_for(rows)
            assert state.serves(rows)


async def test_a_command_whose_request_hangs_is_ended_at_its_deadline(tmp_path: Path) -> None:
    scope = Scope(operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=frozenset({Site.CLOUD_RUN}))
    hangs = Fault(
        name="hangs",
        sentence="Custom.",
        strikes=(Strike(scope, Refuse(SILENCE)),),
        outcome=Outcome(exit_code=1),
    )
    commands: list[CommandStarted] = []
    with served(tmp_path, hangs) as found:
        with pytest.raises(NoAnswerError, match="did not end within 8 s, and was ended"):
            await found.gcloud(Patience(write=8.0)).write(
                (TrafficTarget(revision=CANARY, percent=100),),
                etag=None,
                label="write",
                on_start=commands.append,
            )
        assert any(row.operation is Operation.TRAFFIC_UPDATE for row in found.production.requests)
        assert not list(members(commands[0].pid))


async def test_an_error_of_gcloud_is_reported_in_its_own_words(tmp_path: Path) -> None:
    with served(tmp_path) as found:
        gcloud = found.gcloud()
        revision = await gcloud.revision("chat-00099-none", label="revision")
        assert (revision.exists, revision.message) == (False, f"{found.config.service} has none of this name")
        with pytest.raises(NoAnswerError, match="Revision chat-00099-none does not exist"):
            await gcloud.write(
                (TrafficTarget(revision="chat-00099-none", percent=100),), etag=None, label="write"
            )
        gcloud = attrs.evolve(gcloud, token="another")
        with pytest.raises(NoAnswerError, match="UNAUTHENTICATED"):
            await gcloud.read(label="read")
