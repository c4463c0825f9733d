"""No token is left behind: in no artifact, line, warning, exception or repr, whatever services echo and however a train ends."""

import traceback
from collections.abc import Sequence
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import CutoverError
from cutover.model.summary import fold
from cutover.model.train_events import TrainEvent
from cutover.report.live_view import LiveView
from cutover.report.terminal import conclusion, line_of
from cutover.simulation import FAULTS, Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import Reply, problem
from cutover.simulation.faults import Outcome, Refuse, Rewrite, Scope, Strike
from cutover.wiring.embedded import simulated
from cutover.wiring.production import live
from cutover.wiring.run import run_production
from tests.support.embedded_trains import Trial, live_config
from tests.support.virtual_time import virtual_backend

pytestmark = pytest.mark.anyio

TOKENS = ("marked-auth-token", "marked-control-token", "marked-cloud-run-token", "marked-legacy-token")
ALL = " ".join(TOKENS)
EVERYWHERE = frozenset(Site)


@pytest.fixture
def anyio_backend() -> object:
    """One loop is enough: what is written does not depend on it."""
    return virtual_backend("asyncio")


def _echoed(reply: Reply) -> Reply:
    """Return the reply with every token in its head."""
    return reply.with_header("x-echo", ALL).with_header("set-cookie", f"token={TOKENS[0]}")


def _fault(operations: Sequence[Operation], effect: Refuse | Rewrite) -> Fault:
    scope = Scope(operations=frozenset(operations), sites=EVERYWHERE)
    return Fault(
        name="echo", sentence="Custom.", strikes=(Strike(scope, effect),), outcome=Outcome(exit_code=1)
    )


ECHOES = _fault(tuple(Operation), Rewrite(_echoed))
SAYS_NO = Refuse(problem(403, TOKENS[1], f"not for {ALL}", headers=(("location", f"/?t={TOKENS[0]}"),)))
TRAINS: dict[str, tuple[Fault, ...]] = {
    "good": (),
    "good, and every head echoes": (ECHOES,),
    **{
        f"refused with an echo: {operation.name}": (_fault((operation,), SAYS_NO),)
        for operation in (
            Operation.CHAT_STREAM,
            Operation.ROUTE_STATUS,
            Operation.ROUTE_OVERRIDE,
            Operation.ROUTE_EVALUATE,
            Operation.SERVICE_READ,
            Operation.REVISION_READ,
            Operation.TRAFFIC_UPDATE,
            Operation.ACCOUNT,
            Operation.WRITE,
        )
    },
    "unproven undo of the traffic": (FAULTS["rollback-403"], ECHOES),
    "unproven undo of the routes": (FAULTS["override-sticks"], ECHOES),
}


def without_tokens(text: str) -> bool:
    return not any(token in text for token in TOKENS)


def left_behind(folder: Path) -> str:
    """Return every artifact, names and contents."""
    return "\n".join(
        f"{path}\n{path.read_bytes().decode('utf-8', 'replace')}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


@pytest.mark.parametrize("name", TRAINS)
async def test_a_train_leaves_none_behind(name: str, tmp_path: Path) -> None:
    config = live_config(tmp_path, run_dual_run=True, held_streams=1)
    trial = Trial(config, faults=TRAINS[name])
    events: list[TrainEvent] = []
    view = LiveView()

    def observe(event: TrainEvent) -> None:
        events.append(event)
        view.observe(event)

    summary = await trial.run(observe)
    assert summary.passed is name.startswith("good")
    artifacts = left_behind(tmp_path)
    assert without_tokens(artifacts)
    assert "SUMMARY.md" in artifacts
    if "echo" in name and not summary.passed:
        assert "*" * len(TOKENS[0]) in artifacts  # it was there, and is masked
    said = "\n".join((*map(line_of, events), *conclusion(summary, evidence="run/SUMMARY.md"), view.last))
    assert without_tokens(said)
    assert without_tokens(repr(events) + repr(summary) + repr(fold(events)) + repr(view.steps))


@pytest.mark.parametrize("operation", ["SERVICE_READ", "REVISION_READ", "TRAFFIC_UPDATE"])
async def test_a_token_that_a_run_is_handed_on_its_way_is_not_left_behind(
    operation: str, tmp_path: Path
) -> None:
    """Default credentials: no configuration holds them."""
    trial = Trial(live_config(tmp_path), faults=TRAINS[f"refused with an echo: {operation}"])

    async def handed_over() -> str:
        return TOKENS[2]

    production = attrs.evolve(
        simulated(trial.config, trial.production, clock=EventLoopClock()),
        config=attrs.evolve(trial.config, cloud_run_access_token=""),
        cloud_run_token=handed_over,
    )
    summary = await run_production(production)
    assert not summary.passed
    artifacts = left_behind(tmp_path)
    assert without_tokens(artifacts)
    assert "*" * len(TOKENS[2]) in artifacts
    assert without_tokens(repr(summary))


@pytest.mark.parametrize("fault", ["rollback-403", "settles-slowly"])
async def test_an_interrupted_train_raises_none(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trial = Trial(live_config(tmp_path, canary_soak_seconds=30.0), faults=(FAULTS[fault], ECHOES))
    told = ""
    with anyio.move_on_after(40.0) as scope:
        try:
            await trial.run()
        except CutoverError as error:
            told = "".join(traceback.format_exception(error)) + repr(error)
    assert scope.cancel_called
    assert bool(told) is (fault == "rollback-403")
    assert without_tokens(told)
    assert without_tokens(left_behind(tmp_path))
    assert without_tokens("".join(capsys.readouterr()))


async def test_none_is_in_the_repr_of_what_holds_them(tmp_path: Path) -> None:
    config = live_config(tmp_path, run_dual_run=True)
    trial = Trial(config)
    production = simulated(config, trial.production, clock=EventLoopClock())
    async with production.services() as services:
        shown = [
            config,
            production.plan(),
            production.secrets,
            services,
            services.prober,
            services.control,
            services.traffic,
        ]
        assert without_tokens("".join(map(repr, (*shown, production, live(config)))))
        assert without_tokens(repr(attrs.asdict(production.plan().drill)))


async def test_a_request_bears_the_token_of_its_peer_alone(tmp_path: Path) -> None:
    """The one place where tokens may be: the head of a request to the peer that each is for."""
    trial = Trial(live_config(tmp_path, run_dual_run=True))
    await run_production(simulated(trial.config, trial.production, clock=EventLoopClock()))
    rows = trial.production.requests
    assert {row.token for row in rows if row.site is Site.CLOUD_RUN} == {"cloud_run"}
    assert {row.token for row in rows if row.path.startswith("/api/v1/control/")} == {"control"}
    assert {row.token for row in rows if row.site is Site.LEGACY} <= {"legacy", None}
    assert all(without_tokens(row.body.decode("utf-8", "replace") + row.path) for row in rows)
