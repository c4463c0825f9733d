"""Decisions in the bucket of STATE_URL: from any machine, once for each wait, and trusted as little as those in a file."""

import json
import warnings
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import pytest

from cutover.errors import ConfigurationError, NotDecidedError, NotStartedError
from cutover.model.holds import open_wait
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import TrainEvent, Waiting
from cutover.record.bucket_decisions import BucketDecisions
from cutover.record.decisions import Decision
from cutover.record.journal import read_journal
from cutover.report.status import status_document, status_lines
from cutover.wiring.decide import decide
from cutover.wiring.run import run_production
from cutover.wiring.status import look_in_bucket
from tests.support.embedded_trains import STABLE
from tests.support.state_bucket import CONFIRMED, HANG, STATE_URL, Answer, StateScene, bucket_at

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
DEAD = httpx.ConnectError("injected")
Operator = Callable[[str], Coroutine[Any, Any, None]]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[StateScene]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield StateScene.of(tmp_path, caught)


async def _held(scene: StateScene, operator: Operator) -> CutoverSummary:
    """Run a train that waits at 100 %, beside an operator who knows the address of the run."""
    config = scene.config(hold_at=("100",), hold_timeout=60.0, canary_steps=(100,))
    production = scene.production(config)
    summary: CutoverSummary | None = None
    with scene.recovering(here=True):
        async with anyio.create_task_group() as group:
            group.start_soon(operator, f"{STATE_URL}/{production.run_id}")
            summary = await run_production(production)
    assert summary is not None
    return summary


async def _waits(scene: StateScene) -> Waiting:
    path = scene.directory / "run" / "journal.jsonl"
    while True:
        events: list[TrainEvent] = read_journal(path) if path.exists() else []
        if (waiting := open_wait(events)) is not None:
            # The copy in the bucket is a moment later.
            await anyio.sleep(2)
            return waiting
        await anyio.sleep(0.5)


@pytest.mark.parametrize("answer", ["go", "stop"])
async def test_another_machine_decides(answer: str, scene: StateScene) -> None:
    said: list[str] = []

    async def operator(address: str) -> None:
        waiting = await _waits(scene)
        assert (
            waiting.decide == f"cutover decide {address} go --shown {waiting.wait} --by NAME --because TEXT"
        )
        view = await look_in_bucket(address, CONFIRMED)
        lines = "\n".join(status_lines(view.folder, view.status, view.process))
        assert "state     waiting for a decision" in lines
        assert "process   named by the lock in STATE_URL, which cannot tell if it is alive: pid " in lines
        assert f"  DO      {waiting.decide}" in lines
        assert status_document(view.folder, view.status, view.process)["run_directory"] == address
        decided = await decide(
            address,
            answer,  # type: ignore[arg-type]
            by="bob",
            because="from afar",
            shown=waiting.wait,
            env=CONFIRMED,
        )
        assert decided.taken
        said.append(address)

    summary = await _held(scene, operator)
    (hold,) = summary.holds
    assert hold.decision is not None
    assert (hold.decision.answer, hold.decision.by, hold.decision.because) == (answer, "bob", "from afar")
    assert said
    assert scene.simulation.traffic == {STABLE: 100}
    assert ("hold at 100 %: stop, decided by bob" in "".join(summary.reasons)) is (answer == "stop")


async def test_a_decision_in_the_run_directory_counts_too_while_the_bucket_gives_no_answer(
    scene: StateScene,
) -> None:
    def before(label: str) -> Answer:
        return HANG if label.startswith("state.decision") else None

    async def operator(_: str) -> None:
        await _waits(scene)
        scene.before = before
        assert (await decide(scene.directory / "run", "go", by="alice", because="here")).taken

    (hold,) = (await _held(scene, operator)).holds
    assert hold.decision is not None
    assert hold.decision.by == "alice"


async def test_a_secret_of_the_train_is_masked_in_the_bucket_too(scene: StateScene) -> None:
    async def operator(address: str) -> None:
        await _waits(scene)
        # The decider knows the token for the bucket alone.
        because = "marked-auth-token and marked-cloud-run-token"
        assert (await decide(address, "go", by="bob", because=because, env=CONFIRMED)).taken

    (hold,) = (await _held(scene, operator)).holds
    assert hold.decision is not None
    (name,) = (each for each in scene.stored if "/decisions/" in each)
    row = json.loads(scene.simulation.storage.objects[name].content)["decision"]
    assert row["because"] == hold.decision.because == f"{'*' * 17} and {'*' * 22}"


async def test_of_two_machines_one_decides_and_a_foreign_object_decides_nothing(scene: StateScene) -> None:
    waiting = Waiting(step_id="s", hold="25", wait="1-abc", state="", until="", decide="")
    store = BucketDecisions(
        bucket=bucket_at(scene.transport()),
        folder="trains/r/decisions/",
        address="gs://simulated-state/trains/r",
        run_id="r",
    )

    def decision(by: str, run_id: str = "r") -> Decision:
        return Decision(run_id=run_id, step_id="s", wait="1-abc", answer="go", by=by, because="b", at="now")

    assert await store.first(waiting) is None
    await store.put(decision("first"))
    with pytest.raises(NotDecidedError, match="has a decision for this wait already: go, by first: b"):
        await store.put(decision("second"))
    found = await store.first(waiting)
    assert found is not None
    assert found.by == "first"
    (name,) = (each for each in scene.stored if "/decisions/" in each)
    objects = scene.simulation.storage.objects
    kept = objects[name].content
    foreign = json.loads(kept)
    foreign["decision"]["run_id"] = "another"
    for content in (b"garbage", b"[]", b'{"writer":"w","decision":[]}', json.dumps(foreign).encode()):
        objects[name] = attrs.evolve(objects[name], content=content)
        assert await store.first(waiting) is None
    assert len(store.complaints) == 1
    assert "is no decision, and it was passed over" in store.complaints[0]


async def test_a_bucket_that_fails_says_that_nothing_is_sure(scene: StateScene) -> None:
    refusals: list[str] = []

    async def operator(address: str) -> None:
        waiting = await _waits(scene)
        scene.before = lambda label: DEAD if label == "state.decision" else None
        with pytest.raises(NotDecidedError) as refused:
            await decide(address, "go", by="bob", because="b", env=CONFIRMED)
        refusals.append(str(refused.value))
        scene.before = lambda _: None
        with pytest.raises(NotDecidedError) as refused:
            await decide(address, "go", by="bob", because="b", shown="9-abc", env=CONFIRMED)
        refusals.append(str(refused.value))
        assert (await decide(address, "go", by="bob", because="b", shown=waiting.wait, env=CONFIRMED)).taken

    assert (await _held(scene, operator)).passed
    assert "may not be written to gs://simulated-state/trains/" in refusals[0]
    assert "--shown 9-abc is not the state that the train waits with now" in refusals[1]


async def test_an_address_without_a_run_is_refused(scene: StateScene) -> None:
    with scene.recovering(here=True):
        with pytest.raises(ConfigurationError, match="must name one run"):
            await decide(STATE_URL, "go", by="bob", because="b", env=CONFIRMED)
        with pytest.raises(NotStartedError, match="holds no run"):
            await look_in_bucket(f"{STATE_URL}/20261129T000000Z_abcdef", CONFIRMED)
        with pytest.raises(NotDecidedError, match="holds no run; nothing was written"):
            await decide(f"{STATE_URL}/20261129T000000Z_abcdef", "go", by="bob", because="b", env=CONFIRMED)
