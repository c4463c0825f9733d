"""PROMOTE=1: after the flip the canary gets all traffic and keeps it, or the captured split comes back."""

from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.clock import EventLoopClock
from cutover.model.results import StepStatus
from cutover.model.summary import CutoverSummary, fold
from cutover.model.train_events import Decided, StepStarted, TrainEvent, UndoStarted
from cutover.model.undo_policy import UNRESOLVED, Action, RecoveryMode
from cutover.record.journal import read_journal
from cutover.simulation import FAULTS, Fault
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import SILENCE, STREAMS, Fate, Operation, problem
from cutover.simulation.faults import Outcome, Refuse, Role, Scope, Strike
from cutover.wiring.embedded import simulated
from cutover.wiring.recover import recover_production
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

PROMOTION = "canary-promotion"
BROKEN_STREAM = Refuse(problem(404, "not_found", "Not found."))


def promotion_of(tmp_path: Path, **changes: object) -> EmbeddedTrain:
    layout = changes.pop("layout", {})
    faults = changes.pop("faults", ())
    config = live_config(tmp_path, promote=True, **changes)
    return EmbeddedTrain(config, faults=faults, layout_changes=layout)  # type: ignore[arg-type]


def broken(scope: Scope) -> Fault:
    return Fault(
        name="broken-streams",
        sentence="Streams answer 404.",
        strikes=(Strike(scope, BROKEN_STREAM),),
        outcome=Outcome(exit_code=1),
    )


def check_of(summary: CutoverSummary, check_id: str) -> str:
    step = summary.step(PROMOTION)
    assert step is not None
    return next(check.detail for check in step.checks if check.check_id == check_id)


def status_of(summary: CutoverSummary, step_id: str) -> StepStatus:
    step = summary.step(step_id)
    assert step is not None
    return step.status


class TestPassed:
    async def test_the_canary_keeps_all_traffic(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)
        summary = await trial.run()
        assert (summary.passed, summary.exit_code) == (True, 0)
        assert trial.production.traffic == {CANARY: 100}
        assert summary.gate("promotion").holds
        assert "the canary at 100 %" in next(
            check.detail for step in summary.steps if step.step_id == "final-state" for check in step.checks if check.check_id == "traffic"
        )  # fmt: skip

    @pytest.mark.many_instances
    async def test_the_canarys_instances_get_the_overrides_of_the_flip(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path, layout={"instances": 3})
        assert (await trial.run()).passed
        canaries = trial.production._front_door.all_of(CANARY)
        assert len(canaries) == 3
        for instance in canaries:
            assert set(instance.overrides.values()) == {"rust_shell"}

    async def test_the_captured_tags_stay_and_a_tag_of_the_train_goes(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path, layout={"tag_urls": {}})
        assert (await trial.run()).passed
        assert trial.production.traffic == {CANARY: 100}
        assert trial.production.tags == {}

    async def test_a_pin_in_the_place_of_latest_is_shown_with_the_command_that_ends_it(
        self, tmp_path: Path
    ) -> None:
        summary = await promotion_of(tmp_path, layout={"latest": True}).run()
        assert summary.passed
        assert "--to-latest" in check_of(summary, "status-post")

    async def test_the_summary_says_that_the_canary_keeps_the_traffic(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)
        await trial.run()
        assert trial.config.output_dir is not None
        text = (trial.config.output_dir / "SUMMARY.md").read_text()
        assert "The canary has all traffic, and keeps it." in text
        assert "captured split again" not in text

    async def test_a_passed_promotion_can_be_reverted(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)
        assert (await trial.run()).passed
        folder = trial.config.output_dir
        assert folder is not None
        again = simulated(trial.config, trial.production, clock=EventLoopClock())
        recovery = await recover_production(again, folder, mode="revert")
        assert (recovery.closed, recovery.to_do) == (True, ())
        assert (folder / "SUMMARY.md").read_text().startswith("# Stream cutover: reverted\n")
        page = (folder / "report.html").read_text()
        assert "An operator closed this run with cutover recover. Every change was taken back" in page
        assert "REVERTED" in page
        assert trial.production.traffic == {STABLE: 100}
        assert set(trial.production.route_targets().values()) == {None}

    async def test_a_kill_switch_set_after_the_promotion_is_left_alone_by_a_revert(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(tmp_path)
        assert (await trial.run()).passed
        folder = trial.config.output_dir
        assert folder is not None
        for instance in trial.production._front_door.all_of(CANARY):
            instance.overrides["chat_pilot"] = "legacy"
        sent = len(trial.production.requests)
        again = simulated(trial.config, trial.production, clock=EventLoopClock())
        recovery = await recover_production(again, folder, mode="revert")
        assert not recovery.closed
        assert "changed by somebody else: chat_pilot" in recovery.detail
        assert trial.production.traffic == {CANARY: 100}
        assert {entry.operation for entry in trial.production.requests[sent:]}.isdisjoint(CHANGES)

    async def test_an_acceptance_after_an_unresolved_revert_waits_for_no_answered_write(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(tmp_path)
        assert (await trial.run()).passed
        rows = Target(revision=STABLE, percent=30), Target(revision=CANARY, percent=70)
        trial.production._deployment.update(rows, Fate())
        outcomes: dict[RecoveryMode, tuple[bool, str]] = {
            "revert": (False, UNRESOLVED),
            "accept-found": (True, "the state that was found was accepted"),
        }
        for mode, (closed, reason) in outcomes.items():
            again = simulated(trial.config, trial.production, clock=EventLoopClock())
            assert (await recover_production(again, tmp_path / "run", mode=mode)).closed is closed
            summary = fold(read_journal(tmp_path / "run" / "journal.jsonl"))
            assert summary.reasons == (reason,)
        decided = [
            event for event in read_journal(tmp_path / "run" / "journal.jsonl") if isinstance(event, Decided)
        ]
        assert Action.ACCEPT.value in {event.action for event in decided}
        assert Action.WAIT.value not in {event.action for event in decided}
        assert trial.production.traffic == {STABLE: 30, CANARY: 70}

    async def test_a_revert_takes_the_overrides_from_the_canarys_instances_too(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)
        assert (await trial.run()).passed
        folder = trial.config.output_dir
        assert folder is not None
        again = simulated(trial.config, trial.production, clock=EventLoopClock())
        assert (await recover_production(again, folder, mode="revert")).closed
        for revision in (STABLE, CANARY):
            for instance in trial.production._front_door.all_of(revision):
                assert not instance.overrides, revision


def before_the_smoke(trial: EmbeddedTrain, act: Callable[[], None]) -> Callable[[TrainEvent], None]:
    """Return an observer that acts when the smoke after the promotion begins, and breaks every stream from then on."""

    def observe(event: TrainEvent) -> None:
        if isinstance(event, StepStarted) and event.step_id == "stream-smoke-post":
            act()
            trial.production._active._faults = (broken(Scope(operations=STREAMS)),)

    return observe


class TestNotPassed:
    async def test_after_a_failed_drill_nothing_is_promoted(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path, faults=(broken(Scope(operations=STREAMS, role=Role.CANARY)),))
        summary = await trial.run()
        assert summary.exit_code == 1
        assert status_of(summary, PROMOTION) is StepStatus.SKIP
        assert not summary.gate("promotion").holds
        assert trial.production.traffic == {STABLE: 100}

    async def test_a_canary_that_breaks_under_all_traffic_after_the_flip_gives_it_back(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(
            tmp_path, faults=(broken(Scope(operations=STREAMS, role=Role.CANARY, flipped=True)),)
        )
        summary = await trial.run()
        assert (status_of(summary, "route-flip"), status_of(summary, PROMOTION)) == (
            StepStatus.PASS,
            StepStatus.FAIL,
        )
        assert summary.exit_code == 1
        assert summary.undo is not None
        assert summary.undo.proven
        assert trial.production.traffic == {STABLE: 100}
        assert set(trial.production.route_targets().values()) == {None}

    async def test_a_later_step_that_fails_takes_the_promotion_back(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)
        broken_post = broken(Scope(operations=STREAMS))

        def break_after_promotion(event: TrainEvent) -> None:
            if isinstance(event, StepStarted) and event.step_id == "stream-smoke-post":
                trial.production._active._faults = (broken_post,)

        summary = await trial.run(observer=break_after_promotion)
        assert status_of(summary, PROMOTION) is StepStatus.PASS
        assert trial.production.traffic == {STABLE: 100}
        assert summary.exit_code == 1

    async def test_a_kill_switch_on_the_canarys_instances_is_told_when_the_traffic_leaves_them(
        self, tmp_path: Path
    ) -> None:
        """A human sets it while the canary has all traffic. Users still get stable back at once."""
        trial = promotion_of(tmp_path)

        def press() -> None:
            for instance in trial.production._front_door.all_of(CANARY):
                instance.overrides["chat_pilot"] = "legacy"

        summary = await trial.run(observer=before_the_smoke(trial, press))
        assert summary.exit_code == 4
        assert summary.undo is not None
        detail, to_do = summary.undo.detail, summary.undo.to_do
        said = "routes: somebody else has set chat_pilot on the instances that the traffic leaves, and it is not in force any more"
        assert said in detail
        assert to_do[0].startswith("to set it on the instances that serve now: curl ")
        assert '"chat_pilot"' in to_do[0]
        assert trial.production.traffic == {STABLE: 100}
        for instance in trial.production._front_door.all_of(STABLE):
            assert not instance.overrides
        # An operator has been told; the recovery finds nothing open any more.
        again = simulated(trial.config, trial.production, clock=EventLoopClock())
        assert (await recover_production(again, tmp_path / "run", mode="accept-found")).closed

        # The switch has taken the place of the train's own value.
        kept = detail.rpartition("keep the overrides of the promotion (")[2].partition(")")[0]
        assert "global=rust_shell" in kept
        assert "chat_pilot" not in kept

    async def test_overrides_that_no_instance_holds_any_more_are_not_called_kept(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(tmp_path)

        def press() -> None:
            for instance in trial.production._front_door.all_of(CANARY):
                instance.overrides.update(dict.fromkeys(instance.overrides, "legacy"))

        summary = await trial.run(observer=before_the_smoke(trial, press))
        assert summary.undo is not None
        assert "it is not in force any more" in summary.undo.detail
        assert "keep the overrides" not in summary.undo.detail

    async def test_a_kill_switch_on_instances_that_serve_all_the_time_is_in_force(
        self, tmp_path: Path
    ) -> None:
        """The promotion's write never takes effect, so the instances that the look asks are those that serve after the undo too."""
        trial = promotion_of(tmp_path)

        def press(event: TrainEvent) -> None:
            if isinstance(event, StepStarted) and event.step_id == PROMOTION:
                for instance in trial.production._front_door.all_of(STABLE):
                    instance.overrides["chat_pilot"] = "legacy"
                trial.production._active._faults = (FAULTS["promotion-never-settles"],)
            if isinstance(event, UndoStarted):
                trial.production._active._faults = ()

        summary = await trial.run(observer=press)
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert "production has moved on" in summary.undo.detail
        assert "not in force any more" not in summary.undo.detail
        assert not any(line.startswith("to set it on the instances") for line in summary.undo.to_do)
        for instance in trial.production._front_door.all_of(STABLE):
            assert instance.overrides["chat_pilot"] == "legacy"

    @pytest.mark.parametrize("rehearsal", [False, True])
    async def test_the_overrides_that_the_canarys_instances_keep_are_told(
        self, *, rehearsal: bool, tmp_path: Path
    ) -> None:
        trial = promotion_of(
            tmp_path,
            dry_run=rehearsal,
            faults=(broken(Scope(operations=STREAMS, role=Role.CANARY, flipped=True)),),
        )
        summary = await trial.run()
        assert summary.undo is not None
        assert summary.undo.proven
        canaries = trial.production._front_door.all_of(CANARY)
        assert {value for each in canaries for value in each.overrides.values()} == {"rust_shell"}
        assert (
            "the canary's instances have no traffic, but keep the overrides of the promotion ("
            in summary.undo.detail
        )
        assert "chat_pilot=rust_shell" in summary.undo.detail
        advice = "deploy the canary as a new revision before it gets traffic again"
        assert summary.undo.to_do == (advice,)
        for page in ("SUMMARY.md", "report.html"):
            assert advice in (tmp_path / "run" / page).read_text().replace("Deploy", "deploy")

    async def test_a_kill_switch_is_not_called_lost_while_the_traffic_may_still_be_there(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(tmp_path)

        def press() -> None:
            for instance in trial.production._front_door.all_of(CANARY):
                instance.overrides["chat_pilot"] = "legacy"
            rows = Target(revision=STABLE, percent=1), Target(revision=CANARY, percent=99)
            trial.production._deployment.update(rows, Fate())

        summary = await trial.run(observer=before_the_smoke(trial, press))
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert "changed by somebody else: chat_pilot" in summary.undo.detail
        assert "not in force any more" not in summary.undo.detail
        assert trial.production.traffic == {STABLE: 1, CANARY: 99}
        for instance in trial.production._front_door.all_of(CANARY):
            assert instance.overrides["chat_pilot"] == "legacy"

    async def test_overrides_that_nobody_could_see_before_the_traffic_left_are_told(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(tmp_path)
        silent = Strike(
            Scope(operations=frozenset({Operation.ROUTE_STATUS}), role=Role.CANARY), Refuse(SILENCE)
        )
        bad = broken(Scope(operations=STREAMS, role=Role.CANARY))

        def hang(event: TrainEvent) -> None:
            if isinstance(event, StepStarted) and event.step_id == "stream-smoke-post":
                trial.production._active._faults = (attrs.evolve(bad, strikes=(silent, *bad.strikes)),)

        summary = await trial.run(observer=hang)
        assert summary.exit_code == 1
        assert summary.undo is not None
        assert summary.undo.proven
        said = "the overrides of the instances that the traffic left are not known (no answer within 5 s)"
        assert said in summary.undo.detail
        assert summary.undo.to_do[0].startswith("nobody has seen if somebody set an override by hand")

    async def test_overrides_that_cannot_be_read_delay_no_traffic(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)
        silent = Fault(
            name="silent",
            sentence="Silent.",
            strikes=(
                Strike(Scope(operations=frozenset({Operation.ROUTE_STATUS})), Refuse(SILENCE)),
                *broken(Scope(operations=STREAMS)).strikes,
            ),
            outcome=Outcome(exit_code=4),
        )
        began: list[float] = []

        def hang(event: TrainEvent) -> None:
            if isinstance(event, StepStarted) and event.step_id == "stream-smoke-post":
                trial.production._active._faults = (silent,)
            if isinstance(event, UndoStarted):
                began.append(anyio.current_time())

        await trial.run(observer=hang)
        back = [row.time for row in trial.production.requests if row.operation is Operation.TRAFFIC_UPDATE]
        assert back[-1] - began[0] == pytest.approx(5, abs=1)
        assert trial.production.traffic == {STABLE: 100}

    async def test_a_split_that_somebody_else_changed_before_it_is_left_alone(self, tmp_path: Path) -> None:
        trial = promotion_of(tmp_path)

        def deploy(event: TrainEvent) -> None:
            if isinstance(event, StepStarted) and event.step_id == PROMOTION:
                trial.production._deployment.update((Target(revision=STABLE, percent=90), Target(revision=CANARY, percent=10)), Fate())  # fmt: skip

        summary = await trial.run(observer=deploy)
        assert status_of(summary, PROMOTION) is StepStatus.FAIL
        assert "not as the drill left it" in check_of(summary, "status-pre")
        assert trial.production.traffic == {STABLE: 90, CANARY: 10}

    async def test_overrides_that_only_stables_instances_have_end_a_promotion_that_may_set_none(
        self, tmp_path: Path
    ) -> None:
        trial = promotion_of(tmp_path, layout={"flipped": True}, apply_route_flip=False)
        for instance in trial.production._front_door.all_of(CANARY):
            instance.overrides.clear()
        summary = await trial.run()
        assert summary.exit_code == 1
        assert "set APPLY_ROUTE_FLIP=1" in check_of(summary, "routes")
        assert trial.production.traffic == {STABLE: 100}
