"""Somebody else changes production while a train runs or is undone: nothing of theirs is written over, and an operator learns of it."""

from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.model.route_state import GLOBAL
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import (
    CheckRecorded,
    RouteIntended,
    RoutesRead,
    StepFinished,
    TrafficRead,
    TrainEvent,
    UndoStarted,
)
from cutover.simulation import FAULTS, Fault, Operation
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import STREAMS, Fate, problem
from cutover.simulation.faults import Outcome, Refuse, Role, Scope, Strike
from cutover.train.undo_executor import UNDO_DEADLINE
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.unfinished_runs import scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

HOTFIX = "openagents-control-service-00008-other"
BROKEN_POST = Fault(
    name="broken-after-the-flip",
    sentence="After the flip, streams fail with 500.",
    strikes=(
        Strike(
            Scope(operations=STREAMS, flipped=True), Refuse(problem(500, "internal", "Something went wrong."))
        ),
    ),
    outcome=Outcome(exit_code=1),
)
BROKEN_CANARY = attrs.evolve(
    BROKEN_POST,
    strikes=(Strike(Scope(operations=STREAMS, role=Role.CANARY), Refuse(problem(500, "internal", "No."))),),
)


async def run_with(
    trial: EmbeddedTrain, when: Callable[[TrainEvent], bool], deed: Callable[[], object]
) -> CutoverSummary:
    """Run a train; somebody else does something once, at the first event that the condition holds for."""
    done: list[TrainEvent] = []

    def observe(event: TrainEvent) -> None:
        if not done and when(event):
            done.append(event)
            deed()

    summary = await trial.run(observer=observe)
    assert done
    return summary


def after(step_id: str) -> Callable[[TrainEvent], bool]:
    return lambda event: isinstance(event, StepFinished) and event.result.step_id == step_id


def served(share: int) -> Callable[[TrainEvent], bool]:
    """Hold for the read that proves the canary's share."""
    return lambda event: isinstance(event, TrafficRead) and event.found.served().get(CANARY) == share


def press_kill_switch(trial: EmbeddedTrain, *keys: str) -> None:
    """Set overrides to legacy on every instance, as a human does."""
    for name in (STABLE, CANARY):
        for instance in trial.production._front_door.all_of(name):
            instance.overrides |= dict.fromkeys(keys or trial.production._route_keys(), "legacy")


def pin_hotfix(trial: EmbeddedTrain) -> None:
    deployment = trial.production._deployment
    deployment.deploy()
    deployment.update((Target(revision=HOTFIX, percent=100),), Fate())


def commands(trial: EmbeddedTrain) -> tuple[str, str]:
    folder = trial.config.output_dir
    return (
        f"to leave production as it is now: cutover recover --accept-found {folder}",
        f"or, to write the captured state over it: cutover recover --restore-captured {folder}",
    )


class TestKillSwitch:
    async def test_overrides_that_a_human_set_to_legacy_after_the_flip_stay(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), faults=(FAULTS["evaluate-legacy"],))
        summary = await run_with(
            trial,
            lambda event: isinstance(event, CheckRecorded) and event.check.check_id == "apply-overrides",
            lambda: press_kill_switch(trial),
        )
        assert set(trial.production.route_targets().values()) == {"legacy"}
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert summary.undo.to_do == commands(trial)
        detail = summary.undo.detail
        assert (
            "routes: production has moved on: somebody else has changed it, and the undo changed nothing. "
            in detail
        )
        for state, override in (("captured", "clear"), ("intended", "rust_shell"), ("found", "legacy")):
            assert f"global={override}" in detail.partition(f"{state}: ")[2].partition(";")[0], state

    async def test_the_other_overrides_are_put_back_key_by_key(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), faults=(BROKEN_POST,))
        summary = await run_with(trial, after("route-flip"), lambda: press_kill_switch(trial, "auth_entry"))
        targets = trial.production.route_targets()
        assert targets.pop("auth_entry") == "legacy"
        assert set(targets.values()) == {None}
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert summary.undo.detail.endswith("; changed by somebody else: auth_entry")
        assert summary.undo.to_do == commands(trial)

    @pytest.mark.many_instances
    async def test_a_kill_switch_in_the_middle_of_the_undo_stays(self, tmp_path: Path) -> None:
        """The undo's first round does not reach every instance, so it writes again: but not over somebody else."""
        one = attrs.evolve(FAULTS["override-one-instance"].strikes[0].scope, asks="clear")
        stubborn = attrs.evolve(
            BROKEN_POST, strikes=(*BROKEN_POST.strikes, Strike(one, Fate(takes_effect=False)))
        )
        trial = EmbeddedTrain(live_config(tmp_path), faults=(stubborn,), layout_changes={"instances": 3})
        undoing: list[TrainEvent] = []

        def observe(event: TrainEvent) -> None:
            if isinstance(event, UndoStarted):
                undoing.append(event)
            if undoing and isinstance(event, RoutesRead) and not event.proven:
                press_kill_switch(trial)

        summary = await trial.run(observer=observe)
        assert set(trial.production.route_targets().values()) == {"legacy"}
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert "production has moved on" in summary.undo.detail

    @pytest.mark.many_instances
    async def test_the_flip_itself_does_not_write_over_a_kill_switch(self, tmp_path: Path) -> None:
        """With three instances the flip needs several rounds; a human acts after the first."""
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"instances": 3})
        pressed: list[TrainEvent] = []

        def observe(event: TrainEvent) -> None:
            if isinstance(event, RoutesRead) and not pressed:
                pressed.append(event)
                press_kill_switch(trial)

        summary = await trial.run(observer=observe)
        assert pressed
        assert summary.exit_code == 4
        flip = summary.step("route-flip")
        assert flip is not None
        assert "somebody else has changed" in flip.detail
        keys = dict(trial.production.route_targets())
        assert set(keys.values()) <= {"legacy", "mixed", None}
        assert keys[GLOBAL] == "legacy"

    async def test_a_kill_switch_while_the_sentinels_start_stays(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path, held_streams=2))
        summary = await run_with(
            trial,
            lambda event: isinstance(event, CheckRecorded) and event.check.check_id == "control-status",
            lambda: press_kill_switch(trial, GLOBAL),
        )
        assert trial.production.route_targets()[GLOBAL] == "legacy"
        assert summary.exit_code == 1

    async def test_a_kill_switch_between_two_overrides_stays(self, tmp_path: Path) -> None:
        """The reply to one override shows the others too."""
        trial = EmbeddedTrain(live_config(tmp_path))
        intended: list[TrainEvent] = []

        def third_override(event: TrainEvent) -> bool:
            if isinstance(event, RouteIntended):
                intended.append(event)
            return len(intended) == 3

        summary = await run_with(trial, third_override, lambda: press_kill_switch(trial, GLOBAL))
        assert trial.production.route_targets()[GLOBAL] == "legacy"
        assert summary.exit_code == 4


class TestHotfix:
    async def test_a_hotfix_that_a_human_pinned_in_mid_drill_stays(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path))
        summary = await run_with(trial, served(25), lambda: pin_hotfix(trial))
        assert trial.production.traffic == {HOTFIX: 100}
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert summary.undo.to_do == commands(trial)
        assert f"found: {HOTFIX} 100 %" in summary.undo.detail
        assert f"captured: {STABLE} 100 %; intended: " in summary.undo.detail

    async def test_a_hotfix_during_the_undo_stays_and_the_routes_go_back(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"latest": True})
        with anyio.CancelScope() as scope:

            def observe(event: TrainEvent) -> None:
                if served(25)(event):
                    scope.cancel()
                if isinstance(event, UndoStarted):
                    pin_hotfix(trial)

            with pytest.raises(Exception, match="production has moved on"):
                await trial.run(observer=observe)
        assert trial.production.traffic == {HOTFIX: 100}


class TestTags:
    async def test_a_tag_of_somebody_else_stays_and_the_tag_of_the_drill_goes(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"tag_urls": {}})
        deployment = trial.production._deployment
        await run_with(
            trial,
            served(25),
            lambda: deployment.update((*deployment.spec, Target(revision=STABLE, tag="debug")), Fate()),
        )
        assert {row.tag for row in trial.production.traffic_spec if row.tag} == {"debug"}
        assert trial.production.traffic == {STABLE: 100}

    async def test_an_operator_learns_how_to_take_the_tag_of_the_drill_away(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"tag_urls": {}})
        deployment = trial.production._deployment
        summary = await run_with(
            trial,
            served(25),
            lambda: deployment.update(
                (
                    Target(revision=STABLE, percent=60),
                    Target(revision=CANARY, percent=40),
                    Target(revision=CANARY, tag="cutover-canary"),
                ),
                Fate(),
            ),
        )
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert any(line.endswith("--remove-tags cutover-canary") for line in summary.undo.to_do)


class TestLatest:
    async def test_a_release_of_latest_in_mid_drill_stays(self, tmp_path: Path) -> None:
        """The specification has the captured rows again, but LATEST is another revision by now."""
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"latest": True})
        deployment = trial.production._deployment

        def release() -> None:
            deployment.deploy()
            tags = tuple(row for row in deployment.spec if row.tag)
            deployment.update((Target(revision=None, percent=100), *tags), Fate())

        summary = await run_with(trial, served(25), release)
        assert trial.production.traffic == {deployment.latest_ready: 100}
        assert STABLE not in trial.production.traffic
        assert summary.exit_code in {1, 4}

    async def test_a_tolerated_drill_failure_and_a_failed_flip_restore_latest(self, tmp_path: Path) -> None:
        once = Strike(
            Scope(operations=STREAMS, first=9, last=9),
            # Not a turn that is weighed: a broken contract, which the drill counts as a failed check.
            Refuse(problem(404, "not_found", "No such path.")),
        )
        trial = EmbeddedTrain(
            live_config(tmp_path, max_canary_drill_failures=1),
            faults=(
                attrs.evolve(BROKEN_POST, strikes=(once,)),
                FAULTS["evaluate-legacy"],
            ),
            layout_changes={"latest": True},
        )
        summary = await trial.run()
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        assert drill.failure_count == 1
        assert summary.gate("canary_drill").holds
        assert summary.exit_code == 1
        assert [row.revision for row in trial.production.traffic_spec if row.percent] == [None]

    async def test_a_drill_that_did_not_hold_leaves_stable_and_says_nothing_of_latest(
        self, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(
            live_config(tmp_path, canary_tag=""),
            faults=(BROKEN_CANARY,),
            layout_changes={"latest": True, "tag_urls": {}},
        )
        summary = await trial.run()
        assert summary.exit_code == 1
        assert [row.revision for row in trial.production.traffic_spec if row.percent] == [STABLE]

    async def test_a_drill_whose_writes_were_all_refused_leaves_latest_as_it_was(
        self, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(
            live_config(tmp_path), faults=(FAULTS["patch-409"],), layout_changes={"latest": True}
        )
        summary = await trial.run()
        assert summary.exit_code == 1
        assert [row.revision for row in trial.production.traffic_spec if row.percent] == [None]


class TestOneBound:
    async def test_an_undo_whose_smoke_hangs_ends_within_the_bound_that_the_operator_hears(
        self, tmp_path: Path
    ) -> None:
        silent = FAULTS["status-silence"].strikes[0].effect
        hanging = attrs.evolve(
            BROKEN_POST,
            strikes=(
                *BROKEN_POST.strikes,
                Strike(Scope(operations=STREAMS, flipped=False, first=40), silent),
            ),
        )
        trial = EmbeddedTrain(
            live_config(tmp_path, probe_timeout_seconds=2000.0, max_first_event_seconds=2000.0),
            faults=(hanging,),
        )
        begun: list[float] = []

        def observe(event: TrainEvent) -> None:
            if isinstance(event, UndoStarted):
                begun.append(anyio.current_time())

        summary = await trial.run(observer=observe)
        assert begun
        assert summary.exit_code == 1
        assert anyio.current_time() - begun[0] <= UNDO_DEADLINE


class TestDeployments:
    """Where LATEST was captured, a deployment of somebody else is released by nobody but its owner."""

    @pytest.mark.parametrize("seconds", [0.0, 3.0, 30.0])
    async def test_one_that_is_under_way_at_the_restore_is_not_released(
        self, seconds: float, tmp_path: Path
    ) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"latest": True})
        summary = await run_with(
            trial,
            lambda event: isinstance(event, CheckRecorded) and event.check.check_id == "rollback",
            lambda: trial.production.deploy(seconds=seconds),
        )
        assert trial.production.traffic == {STABLE: 100}
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert "nobody tested: pinned on" in summary.undo.detail

    async def test_one_that_is_under_way_at_an_undo_is_not_released(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(
            live_config(tmp_path, canary_soak_seconds=10.0), layout_changes={"latest": True}
        )
        with anyio.CancelScope() as scope:

            def observe(event: TrainEvent) -> None:
                if served(25)(event):
                    scope.cancel()
                if isinstance(event, UndoStarted):
                    trial.production.deploy(seconds=10.0)

            with pytest.raises(Exception, match="pinned on"):
                await trial.run(observer=observe)
        assert trial.production.traffic == {STABLE: 100}

    async def test_one_that_is_under_way_at_a_recovery_is_not_released(self, tmp_path: Path) -> None:
        async with scene(tmp_path, latest=True) as found:
            await found.move_traffic(50)
            found.kill()
            found.simulation.deploy(seconds=10.0)
            recovery = await found.recover()
            assert not recovery.closed
            assert "is being deployed, which nobody tested: pinned on" in recovery.detail
            assert found.simulation.traffic == {STABLE: 100}

    @pytest.mark.parametrize("step_id", ["canary-rollback-drill", "route-flip"])
    async def test_a_release_after_the_drill_is_told_and_left_alone(
        self, step_id: str, tmp_path: Path
    ) -> None:
        """The captured split follows LATEST, and LATEST is a revision now that no drill has tried: that is no GO."""
        trial = EmbeddedTrain(live_config(tmp_path), layout_changes={"latest": True})
        summary = await run_with(trial, after(step_id), trial.production.deploy)
        assert summary.exit_code == 1
        final = summary.step("final-state")
        assert final is not None
        assert "somebody else released it, and no drill tried it" in final.detail
        assert [target.revision for target in trial.production.traffic_spec if target.percent] == [None]


class TestWhileAWriteHangs:
    """A write without a reply shows the overrides of nobody, so they are read before the next write."""

    @pytest.mark.parametrize(
        ("write", "others", "exit_code"), [(8, BROKEN_POST.strikes, 4), (2, (), 1)], ids=["undo", "flip"]
    )
    async def test_an_override_that_a_human_sets_meanwhile_stays(
        self, write: int, others: tuple[Strike, ...], exit_code: int, tmp_path: Path
    ) -> None:
        silent = FAULTS["status-silence"].strikes[0].effect
        hanging = Strike(
            Scope(operations=frozenset({Operation.ROUTE_OVERRIDE}), first=write, last=write), silent
        )
        trial = EmbeddedTrain(
            live_config(tmp_path),
            layout_changes={"instances": 1},
            faults=(attrs.evolve(BROKEN_POST, strikes=(*others, hanging)),),
        )
        intended: list[TrainEvent] = []
        sent = anyio.Event()

        def observe(event: TrainEvent) -> None:
            if isinstance(event, RouteIntended):
                intended.append(event)
                if len(intended) == write:
                    sent.set()

        async def human() -> None:
            await sent.wait()
            await anyio.sleep(3)
            press_kill_switch(trial, "auth_entry")

        async with anyio.create_task_group() as group:
            group.start_soon(human)
            summary = await trial.run(observer=observe)
        assert trial.production.route_targets()["auth_entry"] == "legacy"
        assert summary.exit_code == exit_code
