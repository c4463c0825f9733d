"""No artifact, line, warning, exception or repr holds a token, whatever services echo and however a train ends."""

import base64
import json
import traceback
from collections.abc import Sequence
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import CutoverError
from cutover.http.tokens import Grant
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
from tests.support.embedded_trains import EmbeddedTrain, live_config
from tests.support.virtual_time import virtual_backend

pytestmark = pytest.mark.anyio

TOKENS = ("marked-auth-token", "marked-control-token", "marked-cloud-run-token", "marked-legacy-token")
ALL = " ".join(TOKENS)
EVERYWHERE = frozenset(Site)
BASIC = " ".join(base64.b64encode(f"user:{token}".encode()).decode() for token in TOKENS)


@pytest.fixture
def anyio_backend() -> object:
    """Run on asyncio alone: the written text does not depend on the event loop."""
    return virtual_backend("asyncio")


def _echoed(reply: Reply) -> Reply:
    """Return the reply with every token in its headers."""
    return reply.with_header("x-echo", ALL).with_header("set-cookie", f"token={TOKENS[0]}")


def _fault(operations: Sequence[Operation], effect: Refuse | Rewrite) -> Fault:
    scope = Scope(operations=frozenset(operations), sites=EVERYWHERE)
    return Fault(
        name="echo", sentence="Custom.", strikes=(Strike(scope, effect),), outcome=Outcome(exit_code=1)
    )


ECHOES = _fault(tuple(Operation), Rewrite(_echoed))
ENCODED = Refuse(
    problem(
        403,
        "forbidden",
        "not for "
        + " ".join(
            f"{json.dumps(token).replace('-', chr(92) + 'u002d')} {token.replace('-', '%2d')}"
            for token in TOKENS
        ),
        headers=(("location", f"/?t={TOKENS[0].replace('-', '%2D')}"), ("x-echo", BASIC)),
    )
)
"""A refusal whose body and head hold every token, percent-encoded, escaped in JSON that is a text in JSON, and in base64."""
REFUSAL = Refuse(problem(403, TOKENS[1], f"not for {ALL}", headers=(("location", f"/?t={TOKENS[0]}"),)))
REDIRECT = Refuse(attrs.evolve(REFUSAL.reply, status=307))
TRAINS: dict[str, tuple[Fault, ...]] = {
    "good": (),
    "good, and every head echoes": (ECHOES,),
    **{
        f"refused with an echo: {operation.name}": (_fault((operation,), REFUSAL),)
        for operation in (
            Operation.CHAT_STREAM,
            Operation.ROUTE_STATUS,
            Operation.ROUTE_OVERRIDE,
            Operation.ROUTE_EVALUATE,
            Operation.SERVICE_READ,
            Operation.REVISION_READ,
            Operation.TRAFFIC_UPDATE,
            Operation.TRAFFIC_VALIDATE,
            Operation.ACCOUNT,
        )
    },
    # A write path may refuse the probe, and must not redirect it.
    "redirected with an echo: WRITE": (_fault((Operation.WRITE,), REDIRECT),),
    "unproven undo of the traffic": (FAULTS["rollback-403"], ECHOES),
    "unproven undo of the routes": (FAULTS["override-sticks"], ECHOES),
}


def without_tokens(text: str) -> bool:
    return not any(token in text for token in TOKENS)


def all_artifacts(folder: Path) -> str:
    """Return the names and contents of every artifact."""
    return "\n".join(
        f"{path}\n{path.read_bytes().decode('utf-8', 'replace')}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


@pytest.mark.parametrize("name", TRAINS)
async def test_a_train_writes_no_token(name: str, tmp_path: Path) -> None:
    config = live_config(tmp_path, run_dual_run=True, held_streams=1)
    train = EmbeddedTrain(config, faults=TRAINS[name])
    events: list[TrainEvent] = []
    view = LiveView()

    def observe(event: TrainEvent) -> None:
        events.append(event)
        view.observe(event)

    summary = await train.run(observe)
    assert summary.passed is name.startswith("good")
    artifacts = all_artifacts(tmp_path)
    assert without_tokens(artifacts)
    assert "SUMMARY.md" in artifacts
    if "echo" in name and not summary.passed:
        # the token was in the text, and is masked
        assert "*" * len(TOKENS[0]) in artifacts
    shown = "\n".join(
        (*map(line_of, events), *conclusion(summary, evidence="run/SUMMARY.md"), view.progress.last)
    )
    assert without_tokens(shown)
    assert without_tokens(repr(events) + repr(summary) + repr(fold(events)) + repr(view.progress.steps))


@pytest.mark.parametrize("operation", ["CHAT_STREAM", "ROUTE_STATUS", "ROUTE_OVERRIDE", "TRAFFIC_UPDATE"])
async def test_an_encoded_echo_is_masked_too(operation: str, tmp_path: Path) -> None:
    train = EmbeddedTrain(live_config(tmp_path), faults=(_fault((Operation[operation],), ENCODED),))
    summary = await train.run()
    assert not summary.passed
    artifacts = all_artifacts(tmp_path)
    assert "not for **" in artifacts or "not for \\" in artifacts
    # Every token ends in "-token", and every form of it keeps its letters.
    assert "marked" not in artifacts.replace(str(tmp_path), "")
    assert not any(word[8:-4] in artifacts for word in BASIC.split())


@pytest.mark.parametrize("operation", ["SERVICE_READ", "REVISION_READ", "TRAFFIC_UPDATE"])
async def test_a_token_from_a_token_source_is_not_written(operation: str, tmp_path: Path) -> None:
    """Application default credentials give a token during the run, and no configuration holds it."""
    train = EmbeddedTrain(live_config(tmp_path), faults=TRAINS[f"refused with an echo: {operation}"])

    async def token_source(*, refused: str = "") -> Grant:
        return Grant(token=TOKENS[2])

    production = attrs.evolve(
        simulated(train.config, train.production, clock=EventLoopClock()),
        config=attrs.evolve(train.config, cloud_run_access_token=""),
        cloud_run_token=token_source,
    )
    summary = await run_production(production)
    assert not summary.passed
    artifacts = all_artifacts(tmp_path)
    assert without_tokens(artifacts)
    assert "*" * len(TOKENS[2]) in artifacts
    assert without_tokens(repr(summary))


@pytest.mark.parametrize("fault", ["rollback-403", "settles-slowly"])
async def test_an_interrupted_train_shows_no_token(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = EmbeddedTrain(live_config(tmp_path, canary_soak_seconds=30.0), faults=(FAULTS[fault], ECHOES))
    error_text = ""
    with anyio.move_on_after(40.0) as scope:
        try:
            await train.run()
        except CutoverError as error:
            error_text = "".join(traceback.format_exception(error)) + repr(error)
    assert scope.cancel_called
    assert bool(error_text) is (fault == "rollback-403")
    assert without_tokens(error_text)
    assert without_tokens(all_artifacts(tmp_path))
    assert without_tokens("".join(capsys.readouterr()))


async def test_no_token_is_in_the_repr_of_an_object_that_holds_it(tmp_path: Path) -> None:
    config = live_config(tmp_path, run_dual_run=True)
    train = EmbeddedTrain(config)
    production = simulated(config, train.production, clock=EventLoopClock())
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


async def test_a_request_carries_only_the_token_of_its_service(tmp_path: Path) -> None:
    """A token appears only in the headers of requests to its own service."""
    train = EmbeddedTrain(live_config(tmp_path, run_dual_run=True))
    await run_production(simulated(train.config, train.production, clock=EventLoopClock()))
    rows = train.production.requests
    assert {row.token for row in rows if row.site is Site.CLOUD_RUN} == {"cloud_run"}
    control = [row for row in rows if row.path.startswith("/api/v1/control/")]
    assert {row.token for row in control if row.site is not Site.LEGACY} == {"control"}
    # The dual run asks the legacy service for its identity there.
    assert {row.token for row in control if row.site is Site.LEGACY} == {"legacy"}
    assert {row.token for row in rows if row.site is Site.LEGACY} <= {"legacy", None}
    assert all(without_tokens(row.body.decode("utf-8", "replace") + row.path) for row in rows)
