"""Evidence that the canary answered: what the preflight finds, the tag that the drill gives, and what makes a step pass."""

from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import pytest

from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import (
    CheckRecorded,
    TrafficIntended,
    TrainEvent,
    TrainStarted,
    UndoFinished,
    may_reach_users,
)
from cutover.model.undo_plan import way_back
from cutover.production.on_refusal import OnRefusal
from cutover.production.traffic.mover import TrafficMover
from cutover.record.journal import read_journal
from cutover.report.terminal import conclusion
from cutover.simulation import Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.cloud_run import google_error
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import CONTROL, STREAMS, Fate, Reply, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Rewrite, Role, Scope, Strike
from cutover.train.canary_answers import StepAnswers
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config
from tests.support.unfinished_runs import Scene, scene

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

TAG = "cutover-canary"
BALANCER_ONLY = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
FRONT, AT_TAG, API = frozenset({Site.FRONT}), frozenset({Site.TAG}), frozenset({Site.CLOUD_RUN})
BROKEN = Refuse(problem(404, "not_found", "Not found."))
UNTAGGED: dict[str, object] = {"tag_urls": {}}
BLIND: dict[str, object] = {"revision_header": "", "ingress": BALANCER_ONLY}


def trial_of(
    directory: Path,
    *strikes: tuple[Scope, Effect],
    layout: dict[str, object] | None = None,
    **changes: object,
) -> EmbeddedTrain:
    fault = Fault(
        name="custom",
        sentence="Custom.",
        strikes=tuple(Strike(scope, effect) for scope, effect in strikes),
        outcome=Outcome(exit_code=1),
    )
    return EmbeddedTrain(live_config(directory, **changes), faults=(fault,), layout_changes=layout or {})


def rows(summary: CutoverSummary, step_id: str) -> dict[str, Check]:
    step = summary.step(step_id)
    assert step is not None
    return {check.check_id: check for check in step.checks}


def drill(summary: CutoverSummary) -> dict[str, Check]:
    return rows(summary, "canary-rollback-drill")


def facts(summary: CutoverSummary) -> dict[str, object]:
    step = summary.step("canary-rollback-drill")
    assert step is not None
    return dict(step.facts)


def intents(trial: EmbeddedTrain) -> list[TrafficIntended]:
    assert trial.config.output_dir is not None
    events = read_journal(trial.config.output_dir / "journal.jsonl")
    return [event for event in events if isinstance(event, TrafficIntended)]


def shares_asked_for(trial: EmbeddedTrain) -> list[dict[str | None, int]]:
    return [{row.revision: row.percent for row in event.wanted if row.percent} for event in intents(trial)]


def writes(trial: EmbeddedTrain) -> int:
    return sum(row.operation is Operation.TRAFFIC_UPDATE for row in trial.production.requests)


def turns(trial: EmbeddedTrain, site: Site, revision: str) -> int:
    return sum(
        row.started_turn and row.site is site and row.revision == revision
        for row in trial.production.requests
    )


def header(name: str | None) -> Rewrite:
    """Return a fault whose replies name this revision in their header; None removes the header."""

    def change(reply: Reply) -> Reply:
        return reply.with_header("x-cutover-revision", name)

    return Rewrite(change)


class TestRefusedSplits:
    """A train starts only from stable at 100 %, asked for and served."""

    @pytest.mark.parametrize(
        ("layout", "why"),
        [
            (
                {"served": {STABLE: 90, CANARY: 10}},
                f"{CANARY} serves already ({STABLE} 90 %, {CANARY} 10 %)",
            ),
            ({"served": {STABLE: 90, "chat-3": 10}}, "other revisions serve too"),
            (
                {"requested": {STABLE: 90, CANARY: 10}, "served": {STABLE: 100}},
                f"asks for {STABLE} 90 %, {CANARY} 10 %, but {STABLE} 100 % is served",
            ),
            ({"served": {CANARY: 100}}, f"{STABLE} serves nothing ({CANARY} 100 %)"),
            ({"latest": True, "latest_ready": "chat-3"}, f"{STABLE} serves nothing (chat-3 100 %)"),
        ],
    )
    async def test_a_split_that_the_drill_would_break_is_refused_with_the_command_that_mends_it(
        self, layout: dict[str, object], why: str, tmp_path: Path
    ) -> None:
        trial = trial_of(tmp_path, layout=layout, project="p", region="r", service="s")
        before = trial.production.traffic_spec
        summary = await trial.run()
        found = rows(summary, "preflight")["traffic"]
        assert (summary.exit_code, found.status, found.tolerable) == (3, StepStatus.ERROR, False)
        assert why in found.detail
        command = f"gcloud run services update-traffic s --project p --region r --to-revisions {STABLE}=100"
        assert found.detail.endswith(command)
        assert rows(summary, "preflight")["canary-evidence"].status is StepStatus.SKIP
        assert writes(trial) == 0
        assert trial.production.traffic_spec == before

    async def test_latest_that_stands_for_stable_is_no_other_split(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"latest": True})
        assert (await trial.run()).passed


class TestEarlierRun:
    LAYOUT: dict[str, object] = {"requested": {STABLE: 90, CANARY: 10}, "served": {STABLE: 100}}  # noqa: RUF012  never changed

    async def _leave(self, directory: Path, *, closed: bool = False) -> Path:
        """Leave the journal of an earlier run that asked for 90 and 10 %."""
        async with scene(directory / "earlier") as found:
            await found.move_traffic(10)
            if closed:
                found.journal.record(UndoFinished(proven=True, detail="undone"))
        folder = directory / "before"
        (directory / "earlier" / "run").rename(folder)
        return folder

    async def test_the_earlier_run_that_may_have_left_the_split_is_named(self, tmp_path: Path) -> None:
        left = await self._leave(tmp_path)
        summary = await trial_of(tmp_path, layout=self.LAYOUT).run()
        detail = rows(summary, "preflight")["traffic"].detail
        assert f"the run in {left} may have left this; to undo that run: cutover recover {left}" in detail

    async def test_a_closed_run_is_named_with_the_command_that_writes_what_it_found(
        self, tmp_path: Path
    ) -> None:
        left = await self._leave(tmp_path, closed=True)
        summary = await trial_of(tmp_path, layout=self.LAYOUT).run()
        detail = rows(summary, "preflight")["traffic"].detail
        assert (
            f"the run in {left} may have left this, although its journal shows nothing open; to write back"
            in detail
        )
        assert f"--restore-captured {left}" in detail

    async def test_a_run_of_another_service_is_not_named(self, tmp_path: Path) -> None:
        await self._leave(tmp_path)
        summary = await trial_of(tmp_path, layout=self.LAYOUT, region="elsewhere").run()
        assert "may have left this" not in rows(summary, "preflight")["traffic"].detail

    async def test_what_is_no_journal_is_passed_over(self, tmp_path: Path) -> None:
        left = await self._leave(tmp_path)
        for name, content in (("a", b"\x00" * 100), ("b", b'{"event":"TrainStarted"}\n'), ("c", b"")):
            (tmp_path / name).mkdir()
            (tmp_path / name / "journal.jsonl").write_bytes(content)
        (tmp_path / "d" / "journal.jsonl").mkdir(parents=True)
        summary = await trial_of(tmp_path, layout=self.LAYOUT).run()
        assert f"the run in {left} may have left this" in rows(summary, "preflight")["traffic"].detail


class TestPreflight:
    async def test_without_a_tag_url_and_a_header_no_train_starts(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout=BLIND)
        summary = await trial.run()
        found = rows(summary, "preflight")["canary-evidence"]
        assert (summary.exit_code, found.status, found.tolerable) == (3, StepStatus.ERROR, False)
        for words in ("HTTP 404", f"ingress is {BALANCER_ONLY}", "REVISION_HEADER", "ACCEPT_BLIND_DRILL=1"):
            assert words in found.detail
        assert writes(trial) == 0

    @pytest.mark.parametrize(
        ("layout", "changes", "why"),
        [
            (BLIND | UNTAGGED, {}, f"no tag URL answers: the service's ingress is {BALANCER_ONLY}"),
            (
                {"revision_header": "", "default_uri_disabled": True, **UNTAGGED},
                {},
                "the service's default URL is disabled",
            ),
            ({"revision_header": "", **UNTAGGED}, {"canary_tag": ""}, "CANARY_TAG is empty"),
            (
                {"revision_header": "", **UNTAGGED},
                {"service": "s" * 33},
                f"CANARY_TAG {TAG} is too long: with the service's name it has 47 characters",
            ),
            (
                {"revision_header": "", "tag_opens_after": 1e9, "tag_urls": {"old": "https://old.example"}},
                {},
                "no tag URL answers: GET https://old.example",
            ),
        ],
    )
    async def test_a_tag_that_would_not_answer_is_not_given(
        self, layout: dict[str, object], changes: dict[str, object], why: str, tmp_path: Path
    ) -> None:
        trial = trial_of(tmp_path, layout=layout, **changes)
        summary = await trial.run()
        found = rows(summary, "preflight")["canary-evidence"]
        assert (summary.exit_code, found.status) == (3, StepStatus.ERROR)
        assert why in found.detail
        assert writes(trial) == 0

    async def test_a_tag_of_another_revision_is_not_taken_from_it(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"tag_urls": {TAG: "https://taken.example"}})
        summary = await trial.run()
        found = rows(summary, "preflight")["canary-evidence"]
        assert (summary.exit_code, found.status) == (3, StepStatus.ERROR)
        assert f"is on {STABLE}: choose another name for CANARY_TAG" in found.detail
        assert trial.production.tags == {TAG: STABLE}

    async def test_another_name_mends_that(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"tag_urls": {TAG: "https://taken.example"}}, canary_tag="drill")
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert facts(summary)["canary_tag_given"] == "drill"
        assert trial.production.tags == {TAG: STABLE}

    async def test_a_header_on_streams_alone_costs_one_turn_to_find(self, tmp_path: Path) -> None:
        quiet = Scope(operations=CONTROL, sites=FRONT)
        trial = trial_of(tmp_path, (quiet, header(None)), layout={"ingress": BALANCER_ONLY})
        summary = await trial.run()
        assert summary.passed, summary.reasons
        found = rows(summary, "preflight")["canary-evidence"]
        assert "the header x-cutover-revision names the revision that answered" in found.detail
        asked = [row for row in trial.production.requests if row.started_turn]
        assert len(asked) > 1

    async def test_a_header_that_names_something_else_is_no_evidence(self, tmp_path: Path) -> None:
        everywhere = Scope(operations=CONTROL | STREAMS)
        trial = trial_of(tmp_path, (everywhere, header("v2.1")))
        summary = await trial.run()
        found = rows(summary, "preflight")["canary-evidence"]
        assert (summary.exit_code, found.status) == (3, StepStatus.ERROR)
        assert f"names v2.1, although {STABLE} serves everything" in found.detail

    async def test_a_canary_that_is_broken_behind_its_tag_is_still_probed_there_first(
        self, tmp_path: Path
    ) -> None:
        """An error of the canary itself is no closed door: nobody is to be given to it."""
        broken = Scope(operations=CONTROL | STREAMS, sites=AT_TAG, role=Role.CANARY)
        trial = trial_of(tmp_path, (broken, Refuse(problem(500, "internal", "Something went wrong."))))
        summary = await trial.run()
        assert drill(summary)["canary-direct"].status is StepStatus.FAIL
        assert writes(trial) == 0

    async def test_a_tag_url_that_only_the_load_balancer_hides_is_not_probed(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"ingress": BALANCER_ONLY})
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert "canary-direct" not in drill(summary)
        assert not any(row.started_turn for row in trial.production.requests if row.site is Site.TAG)
        counts = facts(summary)["canary_streams"]
        assert isinstance(counts, dict)
        assert all(each["front"] > 0 and each["tag"] == 0 for each in counts.values())


class TestBlindDrill:
    async def test_it_runs_where_it_is_accepted_and_the_first_lines_say_so(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout=BLIND, accept_blind_drill=True)
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert "ACCEPT_BLIND_DRILL=1 accepts that" in rows(summary, "preflight")["canary-evidence"].detail
        assert drill(summary)["traffic-5"].detail.endswith(
            "nothing shows that the canary answered a stream; ACCEPT_BLIND_DRILL=1 accepts that"
        )
        assert facts(summary)["blind"] is True
        assert summary.facts["accept_blind_drill"] is True
        text = (tmp_path / "run" / "SUMMARY.md").read_text().splitlines()
        assert text[2].startswith("**The drill was blind:** nothing showed whether the canary answered")
        assert conclusion(summary, evidence=None)[1].startswith("BLIND     nothing showed")

    async def test_one_that_sees_is_not_called_blind(self, tmp_path: Path) -> None:
        summary = await trial_of(tmp_path, accept_blind_drill=True).run()
        assert summary.passed
        assert facts(summary)["blind"] is False
        assert "blind" not in (tmp_path / "run" / "SUMMARY.md").read_text()
        assert not any(line.startswith("BLIND") for line in conclusion(summary, evidence=None))


async def cancelled_at(trial: EmbeddedTrain, moment: Callable[[TrainEvent], bool]) -> None:
    """Run a train and cancel it at the first event of which this holds."""
    with anyio.CancelScope() as scope:

        def observe(event: TrainEvent) -> None:
            if moment(event):
                scope.cancel()

        await trial.run(observe)


class TestTagOfTheDrill:
    @pytest.mark.parametrize("latest", [False, True])
    async def test_an_untagged_canary_gets_a_tag_first_and_loses_it_after_go(
        self, latest: bool, tmp_path: Path
    ) -> None:
        trial = trial_of(tmp_path, layout={"latest": latest, "revision_header": "", **UNTAGGED})
        before = trial.production.traffic_spec
        summary = await trial.run()
        assert summary.passed, summary.reasons
        first, *steps, back = [event.wanted for event in intents(trial)][: 1 + 4 + 1]
        assert {row.revision: row.percent for row in first if row.percent} == {
            None if latest else STABLE: 100
        }
        assert all(
            any(row.tag == TAG and row.revision == CANARY for row in split) for split in (first, *steps)
        )
        assert not any(row.tag for row in back)
        assert (trial.production.traffic_spec, trial.production.tags) == (before, {})
        assert drill(summary)["canary-direct"].status is StepStatus.PASS
        assert drill(summary)["traffic-5"].detail.endswith(
            "the canary answered 2 streams (0 at the front door by the header, 2 at its tag)"
        )
        # the turns at the tag: two before the first share, and two at each step
        assert turns(trial, Site.TAG, CANARY) == 2 + 4 * 2

    async def test_it_is_gone_after_no_go(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=AT_TAG, role=Role.CANARY, first=3)
        trial = trial_of(tmp_path, (scope, BROKEN), layout=UNTAGGED)
        summary = await trial.run()
        assert (summary.exit_code, trial.production.traffic, trial.production.tags) == (1, {STABLE: 100}, {})
        assert f"{CANARY} breaks the contract at its own URL" in drill(summary)["traffic-5"].detail

    @pytest.mark.parametrize("at", ["canary-tag", "canary-direct", "traffic-25"])
    @pytest.mark.parametrize("latest", [False, True])
    async def test_it_is_gone_after_a_ctrl_c(self, at: str, latest: bool, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"latest": latest, **UNTAGGED})
        before = trial.production.traffic_spec
        await cancelled_at(
            trial, lambda event: isinstance(event, CheckRecorded) and event.check.check_id == at
        )
        assert (trial.production.traffic_spec, trial.production.tags) == (before, {})
        assert len(intents(trial)) > 1

    async def test_a_canary_that_breaks_at_its_new_tag_gets_no_share(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=AT_TAG)
        trial = trial_of(tmp_path, (scope, BROKEN), layout={"latest": True, **UNTAGGED})
        before = trial.production.traffic_spec
        summary = await trial.run()
        assert drill(summary)["canary-direct"].status is StepStatus.FAIL
        assert shares_asked_for(trial) == [{None: 100}, {None: 100}]
        assert (trial.production.traffic_spec, trial.production.tags) == (before, {})
        assert summary.exit_code == 1
        assert summary.undo is None

    @pytest.mark.parametrize("latest", [False, True])
    async def test_a_tag_that_never_answers_ends_the_drill_without_evidence(
        self, latest: bool, tmp_path: Path
    ) -> None:
        layout = {"latest": latest, "revision_header": "", "tag_opens_after": 1e9, **UNTAGGED}
        trial = trial_of(tmp_path, layout=layout)
        before = trial.production.traffic_spec
        summary = await trial.run()
        found = drill(summary)
        assert "nothing answers at its URL" in found["canary-tag"].detail
        assert (found["canary-evidence"].status, found["canary-evidence"].tolerable) == (
            StepStatus.ERROR,
            False,
        )
        assert "as captured, no share was moved" in found["status-post"].detail
        assert (summary.exit_code, summary.undo) == (3, None)
        assert (trial.production.traffic_spec, trial.production.tags) == (before, {})
        assert turns(trial, Site.FRONT, CANARY) == 0

    async def test_that_is_accepted_in_a_blind_drill(self, tmp_path: Path) -> None:
        layout = {"revision_header": "", "tag_opens_after": 1e9, **UNTAGGED}
        trial = trial_of(tmp_path, layout=layout, accept_blind_drill=True)
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert facts(summary)["blind"] is True
        assert trial.production.tags == {}

    async def test_the_header_serves_where_the_new_tag_does_not_answer(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"tag_opens_after": 1e9, **UNTAGGED})
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert facts(summary)["blind"] is False
        assert trial.production.tags == {}

    async def test_a_tag_that_may_not_be_given_is_no_evidence(self, tmp_path: Path) -> None:
        scope = Scope(operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=API)
        denied = Refuse(google_error(403, "PERMISSION_DENIED", "Denied."))
        trial = trial_of(tmp_path, (scope, denied), layout=UNTAGGED)
        summary = await trial.run()
        found = drill(summary)["canary-tag"]
        assert (found.status, found.tolerable) == (StepStatus.ERROR, False)
        assert "PERMISSION_DENIED" in found.detail
        assert summary.exit_code == 3

    async def test_a_tag_that_cannot_be_taken_away_is_left_to_an_operator(self, tmp_path: Path) -> None:
        scope = Scope(operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=API, first=2)
        layout = {"revision_header": "", "tag_opens_after": 1e9, **UNTAGGED}
        trial = trial_of(tmp_path, (scope, Fate(takes_effect=False)), layout=layout)
        summary = await trial.run()
        assert summary.exit_code == 4
        assert trial.production.tags == {TAG: CANARY}

    async def test_somebody_elses_split_is_not_written_over_to_take_the_tag_away(
        self, tmp_path: Path
    ) -> None:
        layout = {"revision_header": "", "tag_opens_after": 1e9, **UNTAGGED}
        trial = trial_of(tmp_path, layout=layout)

        def observe(event: TrainEvent) -> None:
            if isinstance(event, CheckRecorded) and event.check.check_id == "canary-tag":
                deployment = trial.production._deployment
                deployment.update(
                    (Target(revision=STABLE, percent=60), Target(revision=CANARY, percent=40)), Fate()
                )
                seen.append(len(intents(trial)))

        seen: list[int] = []
        await trial.run(observe)
        assert seen == [1]
        drill_writes = [event for event in intents(trial) if event.step_id != "undo"]
        assert len(drill_writes) == 2


class TestTagThatLags:
    async def test_the_canary_is_asked_again_until_it_answers_itself(self, tmp_path: Path) -> None:
        trial = trial_of(tmp_path, layout={"tag_lags": 10.0})
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert turns(trial, Site.TAG, STABLE) > 0

    async def test_a_broken_canary_behind_a_lagging_tag_reaches_nobody(self, tmp_path: Path) -> None:
        broken = Scope(operations=STREAMS, role=Role.CANARY)
        trial = trial_of(tmp_path, (broken, BROKEN), layout={"tag_lags": 1e9})
        summary = await trial.run()
        found = drill(summary)["canary-direct"]
        assert found.status is StepStatus.ERROR
        assert f"{STABLE} answers at the canary's tag URL " in found.detail
        assert found.detail.endswith("still after 15 s; when that tag leads to the canary, start again")
        assert (summary.exit_code, writes(trial)) == (3, 0)

    async def test_streams_of_another_revision_at_the_tag_are_not_the_canarys(self, tmp_path: Path) -> None:
        """Two good streams before the drill; from then on stable answers at the canary's tag."""
        late = Scope(operations=STREAMS, sites=AT_TAG, first=3)
        trial = trial_of(tmp_path, (late, header(STABLE)), canary_steps=(100,))
        summary = await trial.run()
        assert summary.passed, summary.reasons
        assert facts(summary)["canary_streams"] == {"traffic-100": {"front": 2, "tag": 0}}
        assert f"at its tag {STABLE} (2) answered instead" in drill(summary)["traffic-100"].detail

    async def test_a_bad_stream_of_another_revision_at_the_tag_is_not_blamed_on_the_canary(
        self, tmp_path: Path
    ) -> None:
        late = Scope(operations=STREAMS, sites=AT_TAG, first=3)
        trial = trial_of(tmp_path, (late, BROKEN), (late, header(STABLE)), canary_steps=(100,))
        detail = drill(await trial.run())["traffic-100"].detail
        assert "stable itself breaks the contract" in detail
        assert "at its own URL" not in detail


class TestStep:
    async def test_without_a_stream_of_the_canary_a_step_is_an_error(self, tmp_path: Path) -> None:
        """The header tells before the drill and falls silent at the canary, whose tag is hidden."""
        silent = Scope(operations=STREAMS, role=Role.CANARY)
        trial = trial_of(
            tmp_path, (silent, header(None)), layout={"ingress": BALANCER_ONLY}, canary_steps=(100,)
        )
        summary = await trial.run()
        found = drill(summary)["traffic-100"]
        assert (found.status, found.tolerable) == (StepStatus.ERROR, True)
        assert found.detail == (
            "the canary has 100 % of the traffic, but nothing shows that the canary answered a stream"
        )
        assert not summary.passed
        assert trial.production.traffic == {STABLE: 100}

    async def test_where_only_the_header_tells_the_front_door_is_asked_until_the_canary_answers(
        self, tmp_path: Path
    ) -> None:
        trial = trial_of(tmp_path, layout={"ingress": BALANCER_ONLY}, canary_steps=(5,))
        summary = await trial.run()
        assert summary.passed, summary.reasons
        # Two clean turns are enough for the margin of these tests.
        assert turns(trial, Site.FRONT, CANARY) == 2
        assert "the canary answered 2 streams (" in drill(summary)["traffic-5"].detail

    async def test_a_canary_that_never_answers_is_asked_for_within_a_bound(self, tmp_path: Path) -> None:
        hidden = Scope(operations=STREAMS, sites=FRONT, role=Role.CANARY)
        trial = trial_of(
            tmp_path, (hidden, header(STABLE)), layout={"ingress": BALANCER_ONLY}, canary_steps=(5,)
        )
        summary = await trial.run()
        found = drill(summary)["traffic-5"]
        assert found.status.failed
        front = sum(row.started_turn and row.site is Site.FRONT for row in trial.production.requests)
        # two smokes, the early looks, 200 late streams against the early ones, and the looks after the rollback
        assert 180 < front < 200 + 4 + 2 * 15 + 2 * 6

    async def test_a_broken_stream_while_it_is_asked_for_stands_in_the_check(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=FRONT, first=6, last=6)
        trial = trial_of(tmp_path, (scope, BROKEN), layout={"ingress": BALANCER_ONLY}, canary_steps=(5,))
        found = drill(await trial.run())["traffic-5"]
        assert found.status is StepStatus.FAIL
        assert "1 of 4 probes failed" in found.detail


class TestShareServed:
    @pytest.mark.parametrize("soak", [10.0, 30.0, 60.0])
    async def test_a_canary_that_gets_everything_fails_the_step(self, soak: float, tmp_path: Path) -> None:
        everything = Scope(operations=STREAMS, sites=FRONT, first=3)
        trial = trial_of(tmp_path, (everything, header(CANARY)), canary_steps=(5,), canary_soak_seconds=soak)
        summary = await trial.run()
        found = drill(summary)["traffic-5"]
        assert (found.status, found.tolerable) == (StepStatus.FAIL, False)
        assert "the canary has 5 % of the traffic, but it answered " in found.detail
        assert "less than 1 in 10,000" in found.detail
        # The canary answers on after the undo too, whatever the control plane says.
        assert summary.exit_code == 4

    async def test_a_quarter_that_is_everything_fails_the_step_in_a_soak_of_default_length(
        self, tmp_path: Path
    ) -> None:
        everything = Scope(operations=STREAMS, sites=FRONT, first=3)
        trial = trial_of(tmp_path, (everything, header(CANARY)), canary_steps=(25,), canary_soak_seconds=30.0)
        found = drill(await trial.run())["traffic-25"]
        assert (found.status, found.tolerable) == (StepStatus.FAIL, False)

    async def test_a_front_door_that_lags_at_first_passes(self, tmp_path: Path) -> None:
        """Right after the shift the canary answers nothing; once it may no longer lag, it has its share."""
        lag = Scope(operations=STREAMS, sites=FRONT, role=Role.CANARY, last=2)
        trial = trial_of(tmp_path, (lag, header(STABLE)), canary_steps=(100,))
        summary = await trial.run()
        assert summary.passed, summary.reasons
        counts = facts(summary)["canary_streams"]
        assert counts == {"traffic-100": {"front": 4, "tag": 2}}

    async def test_a_stranger_beside_a_canary_that_has_everything_fails_the_step(
        self, tmp_path: Path
    ) -> None:
        one_alias = Scope(operations=frozenset({Operation.CHATS_STREAM}), sites=FRONT, role=Role.CANARY)
        trial = trial_of(tmp_path, (one_alias, header(STABLE)), canary_steps=(100,))
        found = drill(await trial.run())["traffic-100"]
        assert (found.status, found.detail) == (
            StepStatus.FAIL,
            f"the canary has all traffic, but {STABLE} answered",
        )

    async def test_the_share_as_asked_for_passes_at_every_step(self, tmp_path: Path) -> None:
        summary = await trial_of(tmp_path, canary_soak_seconds=600.0, held_streams=2).run()
        assert summary.passed, summary.reasons


def answers(percent: int) -> StepAnswers:
    return StepAnswers(canary="c", percent=percent, lag_ends=15.0)


class TestAnswers:
    def test_early_streams_alone_contradict_nothing_and_ask_for_as_many_again(self) -> None:
        found = answers(25)
        found.count_front(["c"] * 8, began=3.0)
        found.end_soak()
        assert not found.share_problem()
        assert found.asks_for_more()
        found.count_front(["s"] * 7 + ["c"], began=15.0)
        assert not found.asks_for_more()
        assert not found.share_problem()

    def test_a_soak_whose_halves_are_too_small_is_decided_by_as_many_late_streams(self) -> None:
        found = answers(25)
        found.count_front(["c"] * 2, began=0.0)
        found.count_front(["c"] * 6, began=15.0)
        found.end_soak()
        assert not found.share_problem()
        assert found.asks_for_more()
        found.count_front(["c"] * 2, began=31.0)
        assert "it answered 8 of 8 streams" in found.share_problem()

    def test_late_streams_contradict(self) -> None:
        found = answers(25)
        found.count_front(["c"] * 7, began=15.0)
        assert "it answered 7 of 7 streams" in found.share_problem()
        assert not found.asks_for_more()

    def test_streams_without_a_header_make_the_named_ones_no_sample(self) -> None:
        found = answers(25)
        found.count_front(["c"] * 50 + [None], began=20.0)
        assert not found.share_problem()

    def test_at_a_tag_a_missing_header_is_the_canarys(self) -> None:
        found = answers(5)
        found.count_tag([None, "c", "s"])
        assert (found.at_tag, dict(found.strangers)) == (2, {"s": 1})

    def test_a_canary_seen_at_its_tag_is_not_looked_for_at_the_front_door(self) -> None:
        found = answers(5)
        found.count_front(["s", "s"], began=0.0)
        assert found.asks_for_more()
        found.count_tag(["c"])
        assert not found.asks_for_more()


def test_the_start_of_a_run_names_its_tag(tmp_path: Path) -> None:
    event = TrainStarted(run_id="r", facts=live_config(tmp_path).facts())
    assert event.facts["canary_tag"] == TAG


class TestRecovery:
    @pytest.mark.parametrize("latest", [False, True])
    async def test_a_tag_that_a_killed_drill_left_is_taken_away(self, latest: bool, tmp_path: Path) -> None:
        async with scene(tmp_path, latest=latest, **UNTAGGED) as found:
            before = found.simulation.traffic_spec
            await give_tag(found)
            assert found.simulation.tags == {TAG: CANARY}
            found.kill()
            recovery = await found.recover()
            assert recovery.closed, recovery.detail
            assert (found.simulation.traffic_spec, found.simulation.tags) == (before, {})

    async def test_a_failed_drill_that_moved_no_share_gives_latest_back(self, tmp_path: Path) -> None:
        async with scene(tmp_path, latest=True, **UNTAGGED) as found:
            before = found.simulation.traffic_spec
            await give_tag(found)
            failed = Check(check_id="canary-evidence", status=StepStatus.ERROR)
            found.journal.record(CheckRecorded(step_id="canary-rollback-drill", check=failed))
            assert not may_reach_users(found.journal.events)
            found.kill()
            assert (await found.recover()).closed
            assert found.simulation.traffic_spec == before

    def test_shares_that_were_never_served_are_not_restored(self) -> None:
        """The journal of an older train may hold a capture whose specification was stale."""
        captured = TrafficState(
            targets=split_of(s=90, c=10),
            statuses=(*split_of(s=100), TrafficTarget(revision="s", tag="t", uri="u")),
        )
        assert way_back((), captured, "s") == split_of(s=100)
        served = attrs.evolve(captured, statuses=split_of(s=90, c=10))
        assert way_back((), served, "s") == split_of(s=90, c=10)


def split_of(**percents: int) -> tuple[TrafficTarget, ...]:
    return tuple(TrafficTarget(revision=name, percent=percent) for name, percent in percents.items())


async def give_tag(found: Scene) -> None:
    """Give the canary its tag, as the drill does."""
    captured = await found.services.traffic.read(label="pre")
    mover = TrafficMover(
        backend=found.services.traffic,
        journal=found.journal,
        clock=found.services.clock,
        captured=captured,
        step_id="canary-rollback-drill",
    )
    row = TrafficTarget(revision=CANARY, tag=TAG)
    shift = await mover.shift(
        (*captured.targets, row), current=captured, label="drill.tag", on_refusal=OnRefusal.STOP
    )
    assert shift.proven


class TestHeaderAtTheStart:
    """A header that names anybody but stable at the start can prove no step and no rollback: exit 3, and nothing moves."""

    @pytest.mark.parametrize("operations", [CONTROL | STREAMS, STREAMS])
    @pytest.mark.parametrize("named", ["build-7", STABLE.upper(), f"projects/p/revisions/{STABLE}", CANARY])
    async def test_a_header_that_does_not_name_stable_is_refused(
        self, named: str, operations: frozenset[Operation], tmp_path: Path
    ) -> None:
        strikes = [
            (Scope(operations=operations, sites=FRONT), header(named)),
            (Scope(operations=CONTROL | STREAMS, sites=AT_TAG), header(None)),
            (Scope(operations=CONTROL - operations, sites=FRONT), header(None)),
        ]
        trial = trial_of(tmp_path, *strikes, apply_route_flip=False)
        summary = await trial.run()
        assert (summary.exit_code, writes(trial)) == (3, 0)
        details = [check.detail for step in summary.steps for check in step.checks if check.status.failed]
        (detail,) = [detail for detail in details if f"(REVISION_HEADER) names {named}" in detail]
        assert "correct the header or REVISION_HEADER" in detail

    @pytest.mark.parametrize("layout", [{"ingress": BALANCER_ONLY}, {}])
    async def test_streams_that_name_the_canary_are_refused_whatever_the_control_plane_says(
        self, layout: dict[str, object], tmp_path: Path
    ) -> None:
        strike = (Scope(operations=STREAMS, sites=FRONT), header(CANARY))
        trial = trial_of(tmp_path, strike, layout=layout, apply_route_flip=False)
        summary = await trial.run()
        assert (summary.exit_code, writes(trial)) == (3, 0)

    async def test_one_answer_of_another_revision_is_enough(self, tmp_path: Path) -> None:
        once = Scope(operations=frozenset({Operation.ROUTE_STATUS}), sites=FRONT, first=3, last=3)
        trial = trial_of(tmp_path, (once, header("chat-9")), apply_route_flip=False)
        summary = await trial.run()
        assert (summary.exit_code, writes(trial)) == (3, 0)
        assert "names chat-9" in rows(summary, "preflight")["canary-evidence"].detail


async def test_streams_without_a_header_are_counted_beside_those_of_others() -> None:
    answers = StepAnswers(canary=CANARY, percent=5, lag_ends=0.0)
    answers.count_front([STABLE, None, None], began=1.0)
    assert answers.describe() == (
        "the canary answered no stream (others answered all 1 at the front door); 2 more had no header"
    )
