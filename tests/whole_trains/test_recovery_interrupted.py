"""A recovery is cut off at each line of its journal and run again; other trains and recoveries are refused meanwhile.

Longer than 300 lines: the cases of an interrupted recovery share one set of starting states.
"""

import os
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.errors import NotStartedError
from cutover.model.summary import fold
from cutover.model.traffic_state import split
from cutover.model.train_events import (
    Answered,
    Decided,
    TrafficIntended,
    TrainEvent,
    TrainFinished,
    UndoFinished,
    UndoStarted,
)
from cutover.model.undo_plan import plan_undo
from cutover.model.undo_policy import RecoveryMode
from cutover.production.routes import control_plane
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import Fate
from cutover.wiring.recover import recover_production
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.unfinished_runs import Scene, scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

LINES = 60
"""A number above the journal lines of a recovery."""


class Killed(BaseException):
    """The end of a process between two lines of its journal."""


async def with_traffic(found: Scene) -> None:
    await found.move_traffic()
    found.kill()


async def with_an_unanswered_write(found: Scene) -> None:
    await found.intend()
    found.kill()


async def with_routes(found: Scene) -> None:
    await found.move_routes()
    found.kill()


async def with_both(found: Scene) -> None:
    await found.move_routes()
    await found.move_traffic()
    found.kill()


async def with_nothing(found: Scene) -> None:
    found.kill()


async def completed(found: Scene) -> None:
    await found.move_routes()
    found.complete()


async def overtaken(found: Scene) -> None:
    await found.move_traffic()
    await found.ask_for(*split(await found.services.traffic.read(label="pre"), {STABLE: 70, CANARY: 30}))
    found.kill()


@attrs.frozen(kw_only=True)
class Case:
    """One unfinished run, and the mode of its recovery."""

    prepare: Callable[[Scene], Awaitable[None]]
    """Leaves the run as the case needs it."""
    mode: RecoveryMode = "finish"
    traffic: dict[str, int] = attrs.Factory(lambda: {STABLE: 100})
    """The traffic after the recovery."""


CASES = {
    "traffic": Case(prepare=with_traffic),
    "a write without an answer": Case(prepare=with_an_unanswered_write),
    "routes": Case(prepare=with_routes),
    "both": Case(prepare=with_both),
    "nothing": Case(prepare=with_nothing),
    "a completed cutover": Case(prepare=completed, mode="revert"),
    "somebody else's, accepted": Case(
        prepare=overtaken, mode="accept-found", traffic={STABLE: 70, CANARY: 30}
    ),
    "somebody else's, written over": Case(prepare=overtaken, mode="restore-captured"),
}


async def _cut_at(number: int, found: Scene, mode: RecoveryMode, *, by: str) -> bool:
    """Recover the run and cut the recovery off at its n-th line. Return True if it wrote so many lines."""
    seen = 0

    def observe(event: TrainEvent) -> None:
        nonlocal seen
        seen += 1
        if seen == number and by == "a kill":
            raise Killed
        if seen == number:
            scope.cancel()

    with anyio.CancelScope() as scope:
        try:
            await found.recover(mode, observe)
        except* Killed:
            # raised alone, or in the group of the tasks that it ended
            pass
    return seen >= number


async def _next_train(directory: Path) -> None:
    await EmbeddedTrain(live_config(directory / "next")).run()


@pytest.mark.parametrize("by", ["a kill", "a cancellation"])
@pytest.mark.parametrize("name", CASES)
async def test_a_recovery_cut_at_any_line_is_finished_by_the_next_one(
    name: str, by: str, tmp_path: Path, anyio_backend_name: str
) -> None:
    case, cut = CASES[name], 0
    # every line for a kill on asyncio, a sample otherwise
    every = 1 if by == "a kill" and anyio_backend_name == "asyncio" else 4
    for number in range(1, LINES, every):
        directory = tmp_path / str(number)
        async with scene(directory) as found:
            await case.prepare(found)
            if not await _cut_at(number, found, case.mode, by=by):
                break
            cut += 1
            is_open = bool(plan_undo(found.told(), stable=STABLE))
            assert found.is_marked() is is_open, number
            if is_open:
                with pytest.raises(NotStartedError) as refused:
                    await _next_train(directory)
                assert f"run: cutover recover {found.folder} " in str(refused.value)
            again = await found.recover(case.mode)
            assert again.closed, number
            assert not found.is_marked()
            await anyio.sleep(30.0)
            assert found.simulation.traffic == case.traffic, number
            assert found.routes == {(None,)}, number
            events = found.told()
            changes = found.changes
            assert (await found.recover()).detail == "nothing was open"
            assert (found.changes, found.told()) == (changes, events)
            summary = fold(events)
            assert (summary.passed, summary.exit_code) == (False, 1), number
            assert (found.folder / "summary.json").exists()
    assert cut >= (1 if every > 1 or name == "nothing" else 3)


async def test_a_plain_recovery_finishes_a_revert_that_was_cut_off(tmp_path: Path) -> None:
    """From the first line of the revert the run is unfinished, like any other, so the next recovery needs no option."""
    async with scene(tmp_path) as found:
        await found.move_routes()
        found.complete()
        assert await _cut_at(2, found, "revert", by="a kill")
        assert isinstance(found.told()[-1], UndoStarted)
        assert (await found.recover()).closed
        assert found.routes == {(None,)}
        assert fold(found.told()).reasons == ("recovered",)


class TestRevert:
    async def test_a_completed_cutover_is_reverted_and_its_summary_says_so(self, tmp_path: Path) -> None:
        train = EmbeddedTrain(live_config(tmp_path))
        before = [row for row in train.production.routes if row["revision"] == STABLE]
        assert (await train.run()).passed
        found = _scene_of(train)
        recovery = await found.recover("revert")
        assert recovery.closed
        assert recovery.detail.startswith("routes are as captured (")
        assert [row for row in train.production.routes if row["revision"] == STABLE] == before
        assert train.production.traffic == {STABLE: 100}
        summary = fold(found.told())
        assert (summary.passed, summary.exit_code, summary.reasons) == (False, 1, ("reverted",))
        assert not found.is_marked()
        assert (await found.recover("revert")).detail == "nothing was open"

    async def test_it_is_refused_when_production_has_changed_and_the_cutover_stays_complete(
        self, tmp_path: Path
    ) -> None:
        async with scene(tmp_path) as found:
            await found.move_routes()
            found.complete()
            await found.override("auth_entry", "legacy")
            changes = found.changes
            await anyio.sleep(30.0)
            recovery = await found.recover("revert")
            assert not recovery.closed
            assert "production has moved on" in recovery.detail
            assert (
                f"found: {control_plane.SAMPLE_READS} of {control_plane.SAMPLE_READS} reads: "
                in recovery.detail
            )
            assert found.changes == changes
            assert [type(event) for event in found.told()[-2:]] == [TrainFinished, Decided]
            # nothing is open, so the next train may start
            assert not found.is_marked()
            assert fold(found.told()).passed
            assert (await found.recover()).closed
            assert fold(found.told()).passed
            assert (await found.recover("restore-captured")).closed
            assert found.routes == {(None,)}

    async def test_a_train_that_only_verified_has_nothing_to_revert(self, tmp_path: Path) -> None:
        train = EmbeddedTrain(live_config(tmp_path, apply_route_flip=False), layout_changes={"flipped": True})
        assert (await train.run()).passed
        found = _scene_of(train)
        changes = found.changes
        assert (await found.recover("revert")).detail == "nothing was open"
        assert found.changes == changes
        assert fold(found.told()).passed


def _scene_of(train: EmbeddedTrain) -> Scene:
    return Scene(train.config, train.production, journal=None)  # type: ignore[arg-type]


async def test_a_write_refused_after_a_change_by_somebody_else_is_decided_again(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        rows = (Target(revision=STABLE, percent=60), Target(revision=CANARY, percent=40))

        def overtake(event: TrainEvent) -> None:
            if isinstance(event, TrafficIntended):
                found.simulation._deployment.update(rows, Fate())

        event_count = len(found.told())
        recovery = await found.recover("finish", overtake)
        assert not recovery.closed
        assert "production has moved on" in recovery.detail
        events = found.told()[event_count:]
        assert [event.action for event in events if isinstance(event, Decided)] == ["write", "touch nothing"]
        answers = [event.outcome for event in events if isinstance(event, Answered)]
        # the etag no longer matches, and the recovery does not write again
        assert answers == ["refused"]
        assert found.simulation.traffic == {STABLE: 60, CANARY: 40}
        assert isinstance(events[-2], UndoFinished)
        assert events[-2].to_do == recovery.to_do


async def test_a_second_operator_sees_who_recovers_and_where(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        found.kill()
        seen: list[str] = []

        async def second() -> None:
            for attempt in (found.recover, lambda: _next_train(tmp_path)):
                with pytest.raises(NotStartedError) as refused:
                    await attempt()
                seen.append(str(refused.value))

        async with anyio.create_task_group() as group:

            def meanwhile(event: TrainEvent) -> None:
                if isinstance(event, UndoStarted):
                    group.start_soon(second)

            recovery = await found.recover("finish", meanwhile)
        assert recovery.closed
        assert len(seen) == 2
        for message in seen:
            assert message.startswith(f"another train is live: pid {os.getpid()} on ")
            assert message.endswith(f"run directory {found.folder}")


async def test_commands_can_be_pasted_with_any_folder_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "a run; with 'quotes'"
    directory.mkdir()
    async with scene(directory) as found:
        await found.move_traffic()
        await found.ask_for(*split(await found.services.traffic.read(label="x"), {STABLE: 50, CANARY: 50}))
        found.kill()
        with pytest.raises(NotStartedError) as refused:
            await _next_train(tmp_path)
        monkeypatch.chdir(directory)
        recovery = await recover_production(found.production, Path("run"))
    shown = [str(refused.value).partition("run: ")[2].partition(" (if that folder")[0]]
    shown += [line.partition(": ")[2] for line in recovery.to_do]
    assert [shlex.split(line)[-1] for line in shown] == [str(directory / "run")] * 3
    assert [shlex.split(line)[:-1] for line in shown] == [
        ["cutover", "recover"],
        ["cutover", "recover", "--accept-found"],
        ["cutover", "recover", "--restore-captured"],
    ]


async def test_a_recovery_gives_up_when_production_does_not_stop_changing(tmp_path: Path) -> None:
    async with scene(tmp_path) as found:
        await found.move_traffic()
        await found.move_traffic(25)
        found.kill()
        shares = [5, 25, 5, 25, 5]

        def overtake(event: TrainEvent) -> None:
            if isinstance(event, TrafficIntended):
                canary = shares.pop()
                rows = (
                    Target(revision=STABLE, percent=100 - canary),
                    Target(revision=CANARY, percent=canary),
                    Target(revision=CANARY, tag="canary"),
                )
                found.simulation._deployment.update(rows, Fate())

        recovery = await found.recover("finish", overtake)
        assert not recovery.closed
        assert "somebody else changed the traffic in the meantime" in recovery.detail
        assert [line.split(": ")[-1].split()[:2] for line in recovery.to_do[-3:]] == [
            ["cutover", "recover"],
        ] * 3
        assert shares == [5]
        # the changes have stopped
        assert (await found.recover()).closed


async def test_a_revision_deployed_while_latest_is_put_back_gets_no_traffic(tmp_path: Path) -> None:
    """LATEST changes between the decision and the write. The write gets a conflict, and the recovery decides again."""
    async with scene(tmp_path, latest=True) as found:
        await found.move_traffic()
        found.kill()
        deployed: list[TrainEvent] = []

        def overtake(event: TrainEvent) -> None:
            if isinstance(event, TrafficIntended) and not deployed:
                deployed.append(event)
                found.simulation._deployment.deploy()

        recovery = await found.recover("finish", overtake)
        assert not recovery.closed
        assert "which nobody tested: pinned on" in recovery.detail
        assert found.simulation.traffic == {STABLE: 100}
        assert (await found.recover("accept-found")).closed
