"""Whole trains whose canary, or stable, loses some turns: the share is held longer, passes with its claim, or ends."""

from pathlib import Path

import pytest

from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.report.artifacts import render_markdown
from cutover.simulation import FAULTS, VARIANTS, Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import NO_REPLY, STREAMS, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Role, Scope, Strike
from tests.support.embedded_trains import STABLE, USUAL_JUDGEMENT, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

UNAVAILABLE = Refuse(problem(503, "unavailable", "Try again later."))
AT_TAG = frozenset({Site.TAG})
LOAD_BALANCER_ONLY: dict[str, object] = {"ingress": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"}


def lost(scope: Scope, effect: Effect = UNAVAILABLE) -> Fault:
    return Fault(
        name="custom", sentence="Custom.", strikes=(Strike(scope, effect),), outcome=Outcome(exit_code=1)
    )


async def drilled(
    directory: Path, *faults: Fault, layout: dict[str, object] | None = None, **changes: object
) -> tuple[dict[str, Check], CutoverSummary, EmbeddedTrain]:
    """Run a train whose canary is judged as by default; return the checks of its drill by id, the summary and the trial."""
    config = live_config(directory, **{**USUAL_JUDGEMENT, "canary_steps": (5, 100), **changes})
    trial = EmbeddedTrain(config, faults=faults, layout_changes=layout or {})
    summary = await trial.run()
    drill = summary.step("canary-rollback-drill")
    assert drill is not None
    return {check.check_id: check for check in drill.checks}, summary, trial


def updates(trial: EmbeddedTrain) -> list[float]:
    return [row.time for row in trial.production.requests if row.operation is Operation.TRAFFIC_UPDATE]


class TestPass:
    async def test_a_pass_says_what_its_turns_allow_in_check_facts_and_summary(self, tmp_path: Path) -> None:
        rows, summary, _ = await drilled(tmp_path, revision_header="")
        assert rows["traffic-5"].detail.startswith(
            "no worse by 9.9 %, at 95 % (canary: 0 of 32 turns failed); no slower than stable by 50 % (at least 0.25 s), in 30 pairs; "
        )
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        judged = drill.facts["judgement"]
        assert isinstance(judged, dict)
        assert list(judged) == ["traffic-5", "traffic-100"]
        assert (judged["traffic-5"]["verdict"], judged["traffic-5"]["canary_turns"]) == ("no worse", 32)
        assert judged["traffic-100"]["claim"] in render_markdown(summary).replace("\\", "")

    async def test_a_share_without_a_soak_is_held_until_the_turns_are_enough(self, tmp_path: Path) -> None:
        """Two turns came before the share and two at each look, so it needs 14 more looks, a second apart."""
        _, summary, trial = await drilled(tmp_path, revision_header="")
        assert summary.passed
        to_5, to_100, *_ = updates(trial)
        assert to_100 - to_5 == pytest.approx(14.5, abs=1)

    async def test_one_lost_turn_of_the_canary_holds_the_share_longer_and_passes(
        self, tmp_path: Path
    ) -> None:
        scope = Scope(operations=STREAMS, sites=AT_TAG, role=Role.CANARY, first=5, last=5)
        rows, summary, _ = await drilled(tmp_path, lost(scope), revision_header="")
        assert summary.passed, summary.reasons
        assert "canary: 1 of 58 turns failed" in rows["traffic-5"].detail
        assert "1 of 112 probes failed: head.status: expected 200, got 503" in rows["traffic-5"].detail
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        # The lost turn is no evidence of a fault any more, so the time of the rollback does not count from it.
        assert drill.facts["rollback_seconds"] == pytest.approx(0, abs=1)

    @pytest.mark.parametrize("name", ["streams-fail-seldom", "canary-faster"])
    async def test_an_unlucky_or_a_faster_canary_passes(self, name: str, tmp_path: Path) -> None:
        _, summary, _ = await drilled(tmp_path, VARIANTS[name], canary_steps=(5, 25, 50, 100))
        assert summary.passed, summary.reasons


class TestWorse:
    async def test_a_canary_that_loses_every_turn_gets_no_share(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, role=Role.CANARY)
        rows, summary, trial = await drilled(tmp_path, lost(scope))
        assert "traffic-5" not in rows
        assert rows["canary-direct"].status is StepStatus.FAIL
        assert rows["canary-direct"].detail.startswith("the canary fails more turns than stable, at 95 %")
        assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})

    async def test_a_canary_that_loses_every_turn_later_is_rolled_back_within_seconds(
        self, tmp_path: Path
    ) -> None:
        scope = Scope(operations=STREAMS, sites=AT_TAG, role=Role.CANARY, first=7)
        rows, summary, trial = await drilled(
            tmp_path, lost(scope), canary_soak_seconds=60.0, canary_look_seconds=20.0
        )
        assert rows["traffic-5"].status is StepStatus.FAIL
        assert "the canary fails more turns than stable, at 95 %" in rows["traffic-5"].detail
        first = next(row.time for row in trial.production.requests if row.status == 503)
        assert updates(trial)[1] - first < 5
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        # The time of the rollback counts from the first lost turn, and not from the verdict.
        seconds = drill.facts["rollback_seconds"]
        assert isinstance(seconds, float)
        assert 1 <= seconds < 6

    async def test_with_all_traffic_and_nobody_beside_it_the_canary_is_held_against_the_margin(
        self, tmp_path: Path
    ) -> None:
        scope = Scope(operations=STREAMS, role=Role.CANARY, first=3)
        rows, summary, _ = await drilled(tmp_path, lost(scope), canary_steps=(100,))
        assert "the canary fails more than 10 % of its turns, at 95 %" in rows["traffic-100"].detail
        assert summary.exit_code == 1

    async def test_a_slower_canary_is_worse(self, tmp_path: Path) -> None:
        rows, summary, _ = await drilled(tmp_path, FAULTS["canary-slower"])
        assert "is slower than stable: first event by more than 50 %" in rows["traffic-5"].detail
        assert summary.exit_code == 1


class TestUndecided:
    async def test_a_share_that_stays_undecided_does_not_pass(self, tmp_path: Path) -> None:
        """After one lost turn 27 looks are needed, and the time is over after ten."""
        scope = Scope(operations=STREAMS, sites=AT_TAG, role=Role.CANARY, first=5, last=5)
        rows, summary, trial = await drilled(tmp_path, lost(scope), canary_max_soak_seconds=10.0)
        assert rows["traffic-5"].status is StepStatus.ERROR
        assert "undecided: for no worse by 10 %, at 95 %," in rows["traffic-5"].detail
        assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})
        assert updates(trial)[1] - updates(trial)[0] == pytest.approx(10, abs=1.5)

    async def test_where_a_lost_turn_names_nobody_and_the_canary_has_no_url_it_ends_the_share(
        self, tmp_path: Path
    ) -> None:
        """The header is lost with the turn: it may be the canary's."""
        scope = Scope(operations=STREAMS, sites=frozenset({Site.FRONT}), first=5, last=5)
        rows, summary, _ = await drilled(
            tmp_path, lost(scope, Refuse(NO_REPLY)), layout=LOAD_BALANCER_ONLY, canary_steps=(25,)
        )
        assert "a stream through the front door" in rows["traffic-25"].detail
        assert summary.exit_code == 1

    async def test_a_blind_drill_weighs_nothing_and_claims_nothing(self, tmp_path: Path) -> None:
        blind: dict[str, object] = {"revision_header": "", **LOAD_BALANCER_ONLY}
        rows, summary, _ = await drilled(
            tmp_path / "clean", layout=blind, revision_header="", accept_blind_drill=True
        )
        assert summary.passed
        assert "no worse" not in rows["traffic-5"].detail
        scope = Scope(operations=STREAMS, sites=frozenset({Site.FRONT}), first=3, last=3)
        rows, summary, _ = await drilled(
            tmp_path / "lost", lost(scope), layout=blind, revision_header="", accept_blind_drill=True
        )
        assert rows["traffic-5"].status is StepStatus.FAIL
        assert summary.exit_code == 1


class TestBaseline:
    async def test_a_stable_revision_that_fails_by_itself_ends_with_exit_3_after_the_undo(
        self, tmp_path: Path
    ) -> None:
        rows, summary, trial = await drilled(tmp_path, FAULTS["stable-fails-often"])
        assert rows["traffic-5"].status is StepStatus.ERROR
        assert rows["traffic-5"].detail.startswith(
            "baseline unhealthy: stable fails more than 10 % of its turns"
        )
        assert (summary.exit_code, trial.production.traffic) == (3, {STABLE: 100})

    async def test_one_lost_turn_after_the_rollback_is_looked_at_again(self, tmp_path: Path) -> None:
        after = Scope(operations=STREAMS, sites=frozenset({Site.FRONT}), role=Role.STABLE, first=5, last=5)
        rows, summary, _ = await drilled(tmp_path, lost(after), canary_steps=(100,))
        assert rows["rollback"].status is StepStatus.PASS
        assert "1 of 12 probes failed" in rows["rollback"].detail
        assert summary.passed, summary.reasons
