"""The copy of a journal in a bucket: in order, waited for, tried again within a bound, and of one writer alone."""

import json
from pathlib import Path

import anyio
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import UnusableReplyError
from cutover.model.train_events import StepStarted, TakenOver, TrainStarted
from cutover.record import journal_copy as module
from cutover.record.journal import Journal, line_of_event
from cutover.record.journal_copy import PATIENCE, WAY_BACK_PATIENCE, JournalCopy, merged, shareable
from cutover.record.state_address import StateAddress, state_url_problem
from tests.support.state_bucket import HANG, StateScene, bucket_at

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]
FOLDER = "trains/run/journal/"


@pytest.fixture
def scene(tmp_path: Path) -> StateScene:
    return StateScene.of(tmp_path)


def copy_of(scene: StateScene) -> JournalCopy:
    return JournalCopy(
        bucket=bucket_at(scene.transport()),
        folder=FOLDER,
        address="gs://simulated-state/trains/run",
        clock=EventLoopClock(),
    )


def journal_of(scene: StateScene) -> Journal:
    return Journal(copy=copy_of(scene))


def kept(scene: StateScene) -> list[str]:
    """Return the step ids of the events in the bucket."""
    objects = scene.simulation.storage.objects
    return [json.loads(objects[name].content)["event"]["step_id"] for name in sorted(objects)]


def reason(journal: Journal) -> str:
    return journal.stopped or ""


def step(name: object) -> StepStarted:
    return StepStarted(step_id=str(name))


async def test_holds_the_events_in_their_order(scene: StateScene) -> None:
    journal = journal_of(scene)
    assert journal.copy is not None
    async with journal.copy.kept():
        for number in range(12):
            journal.record(step(number))
        assert kept(scene) == []
        await journal.durable()
        assert kept(scene) == [str(number) for number in range(12)]
        journal.record(step("last"))
    assert kept(scene)[-1] == "last"
    assert scene.stored[0] == f"{FOLDER}00000001.json"
    assert journal.is_whole
    assert journal.copy.problem(scene.directory) == ""


async def test_lets_a_change_wait_no_longer_than_its_patience(scene: StateScene) -> None:
    scene.before = lambda _: httpx.Response(503)
    journal = journal_of(scene)
    assert journal.copy is not None
    async with journal.copy.kept():
        journal.record(step(1))
        began = anyio.current_time()
        await journal.durable_if_soon()
        assert anyio.current_time() - began == pytest.approx(WAY_BACK_PATIENCE)
        assert reason(journal) == ""
        await journal.durable()
        assert PATIENCE <= anyio.current_time() - began <= PATIENCE + 20
        assert reason(journal).startswith(
            "the journal cannot be written to gs://simulated-state/trains/run: POST https://storage.googleapis.com/upload/"
        )
        # From now on nothing waits, and the copy is tried all the same.
        began = anyio.current_time()
        await journal.durable()
        assert anyio.current_time() == began
        scene.before = lambda _: None
        await anyio.sleep(30)
        assert kept(scene) == ["1"]
        assert reason(journal)
    assert journal.is_whole


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_a_refusal_for_certain_needs_no_patience(scene: StateScene, status: int) -> None:
    scene.before = lambda _: httpx.Response(status)
    journal = journal_of(scene)
    assert journal.copy is not None
    began = anyio.current_time()
    async with journal.copy.kept():
        journal.record(step(1))
        await journal.durable()
        assert anyio.current_time() - began < 1
    assert f"HTTP {status}" in journal.copy.problem(scene.directory)
    assert f"lacks 1 events; to complete it: cutover recover {scene.directory}" in journal.copy.problem(
        scene.directory
    )


async def test_a_bucket_that_hangs_fails_within_its_patience(scene: StateScene) -> None:
    scene.before = lambda _: HANG
    journal = journal_of(scene)
    assert journal.copy is not None
    began = anyio.current_time()
    async with journal.copy.kept():
        journal.record(step(1))
        await journal.durable()
    assert anyio.current_time() - began < 2 * PATIENCE + 10
    assert not journal.is_whole


async def test_an_event_of_another_process_takes_the_run_over(scene: StateScene) -> None:
    journal, other = journal_of(scene), copy_of(scene)
    assert journal.copy is not None
    async with journal.copy.kept():
        journal.record(step(1))
        await journal.durable()
        other.count = 1
        assert await other.create(
            line_of_event(TakenOver(by="pid 7 on\x1b[2J h", before=""), with_version=False)
        )
        assert reason(journal) == ""
        journal.record(step(2))
        journal.record(step(3))
        await journal.durable()
        assert (
            journal.stopped
            == journal.taken_over
            == (
                "a recovery (pid 7 on\\x1b[2J h) has taken this run over in gs://simulated-state/trains/run, so this process changes nothing more"
            )
        )
        journal.record(step(4))
    assert len(scene.stored) == 2
    assert not journal.is_whole


async def test_an_error_of_the_block_comes_out_as_it_is(scene: StateScene) -> None:
    cause = ValueError("cause")
    with pytest.raises(KeyError) as caught:
        async with copy_of(scene).kept():
            raise KeyError("x") from cause
    assert caught.value.__cause__ is cause


async def test_a_cancelled_block_still_copies_its_last_events(scene: StateScene) -> None:
    journal = journal_of(scene)
    assert journal.copy is not None
    with anyio.CancelScope() as scope:
        async with journal.copy.kept():
            scope.cancel()
            try:
                await anyio.sleep(1)
            finally:
                with anyio.CancelScope(shield=True):
                    journal.record(step("undo"))
                    await journal.durable()
                journal.record(step("end"))
    assert scope.cancelled_caught
    assert kept(scene) == ["undo", "end"]


async def test_an_event_that_does_not_count_is_not_copied(scene: StateScene) -> None:
    journal = journal_of(scene)
    assert journal.copy is not None
    async with journal.copy.kept():
        assert not journal.commit(step("no"), ready=lambda _: False)
        assert journal.commit(step("yes"))
    assert kept(scene) == ["yes"]


async def test_is_read_back_as_it_was_written(scene: StateScene, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line_of_event(step(number), with_version=False).rstrip() for number in range(30)]
    copy = copy_of(scene)
    for line in lines:
        assert await copy.create(line)
    assert await copy_of(scene).lines() == lines
    again = copy_of(scene)
    assert await again.lines(after=28) == lines[28:]
    assert again.count == 30
    monkeypatch.setattr(module, "MOST_READ", 100)
    with pytest.raises(UnusableReplyError, match="larger than 100 bytes"):
        await copy_of(scene).lines()


def test_leaves_out_what_belongs_to_one_machine() -> None:
    started = TrainStarted(run_id="r", facts={"a": "é", "token_sources": {"auth_token_command": "x"}})
    line = line_of_event(started, with_version=True)
    assert json.loads(shareable(line)) == {
        "event": "TrainStarted", "at": "", "run_id": "r", "facts": {"a": "é"}, "version": "1.2",
    }  # fmt: skip
    other = line_of_event(StepStarted(step_id="token_sources"), with_version=False)
    assert json.loads(shareable(other)) == json.loads(other)


ONE, TWO, THREE, FOUR = (line_of_event(step(number), with_version=False).rstrip() for number in range(4))


@pytest.mark.parametrize(
    ("local", "copied", "lines", "same"),
    [
        ([], [], [], 0),
        ([ONE, TWO], [ONE, TWO], [ONE, TWO], 2),
        ([ONE, TWO, THREE], [ONE], [ONE, TWO, THREE], 1),
        ([ONE], [ONE, TWO, THREE], [ONE, TWO, THREE], 1),
        ([ONE, TWO, THREE], [ONE, FOUR], [ONE, FOUR], 1),
        ([ONE, TWO], [ONE, FOUR, THREE], [ONE, FOUR, THREE], 1),
        ([ONE], [], [ONE], 0),
        ([], [ONE], [ONE], 0),
        ([TWO], [ONE], [ONE], 0),
    ],
)
def test_the_copy_decides_from_the_first_difference_on(
    local: list[bytes], copied: list[bytes], lines: list[bytes], same: int
) -> None:
    assert merged(local, copied) == (lines, same)


@pytest.mark.parametrize(
    "text",
    [
        "gs://abc",
        "gs://abc/",
        "gs://a.b-c_d/x/y=1/Z.z",
        "gs://abc/20261129T013318Z_abcdef/x",
    ],
)
def test_an_address_of_runs(text: str) -> None:
    assert state_url_problem(text) == ""
    assert str(StateAddress.parse(text)) == text.rstrip("/")


@pytest.mark.parametrize(
    "text",
    [
        "abc", "gs:/abc", "GS://abc", "s3://abc/x", "gs://", "gs:///x", "gs://ab", "gs://Abc/x", "gs://abc//x", "gs://abc/./x",
        "gs://abc/../x", "gs://abc/x?y", "gs://abc/x y", "gs://abc/é", "gs://abc/x#1", "gs://a:b@abc/x", "gs://abc/" + "x/" * 300,
        "gs://abc/x\n", 7,
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: object) -> None:
    assert state_url_problem(text).startswith("must be gs://BUCKET/PREFIX")


def test_the_address_of_a_run_is_not_one_of_all_runs() -> None:
    assert state_url_problem("gs://abc/x/20261129T013318Z_abcdef") == (
        "must not end with the name of a run (20261129T013318Z_abcdef): it names the place of all runs, such as gs://abc/x"
    )
