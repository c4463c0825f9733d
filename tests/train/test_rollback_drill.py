"""The rollback drill: the revision that it blames, the failures that end it, and the split that it leaves."""

from pathlib import Path

import pytest

from cutover.model.results import Check, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.simulation import Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.cloud_run import google_error
from cutover.simulation.exchange import NO_REPLY, SILENCE, STREAMS, Fate, Reply, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Rewrite, Role, Scope, Strike
from cutover.train.steps.rollback_drill import ROLLBACK_LOOKS
from cutover.train.stream_proof import LAG_SECONDS
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

BROKEN = Refuse(problem(404, "not_found", "Not found."))
FORBIDDEN = Refuse(google_error(403, "PERMISSION_DENIED", "Denied."))
FRONT, TAG = frozenset({Site.FRONT}), frozenset({Site.TAG})
API = frozenset({Site.CLOUD_RUN})
TAGS = {"canary": "https://canary---chat.example", "stable": "https://stable---chat.example"}


async def drilled(
    directory: Path,
    *strikes: tuple[Scope, Effect],
    layout: dict[str, object] | None = None,
    **changes: object,
) -> tuple[dict[str, Check], CutoverSummary, EmbeddedTrain]:
    """Run a train on a production with these faults; return the checks of its drill by id, the summary and the trial."""
    fault = Fault(
        name="custom",
        sentence="Custom.",
        strikes=tuple(Strike(scope, effect) for scope, effect in strikes),
        outcome=Outcome(exit_code=1),
    )
    trial = EmbeddedTrain(live_config(directory, **changes), faults=(fault,), layout_changes=layout or {})
    summary = await trial.run()
    drill = summary.step("canary-rollback-drill")
    assert drill is not None
    return {check.check_id: check for check in drill.checks}, summary, trial


def named(revision: str) -> Rewrite:
    """Return a fault whose replies name this revision in their header."""

    def change(reply: Reply) -> Reply:
        return reply.with_header("x-cutover-revision", revision)

    return Rewrite(change)


class TestBlame:
    async def test_a_canary_that_breaks_alone_is_blamed(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=FRONT | TAG, role=Role.CANARY, first=3)
        rows, summary, trial = await drilled(tmp_path, (scope, BROKEN), layout={"tag_urls": TAGS})
        assert rows["canary-direct"].status is StepStatus.PASS
        assert f"{CANARY} breaks the contract at its own URL" in rows["traffic-5"].detail
        assert rows["rollback"].status is StepStatus.PASS
        assert (summary.exit_code, trial.production.traffic) == (1, {STABLE: 100})

    async def test_nothing_is_judged_if_stable_breaks_the_contract_too(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=TAG, first=3)
        rows, summary, trial = await drilled(tmp_path, (scope, BROKEN), layout={"tag_urls": TAGS})
        assert rows["traffic-5"].detail.startswith(
            "baseline unhealthy: stable itself breaks the contract, so nothing can be said about the canary"
        )
        assert (summary.exit_code, trial.production.traffic) == (3, {STABLE: 100})

    async def test_the_front_door_is_blamed_if_no_revision_has_its_own_url(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=FRONT, first=3, last=4)
        rows, _, _ = await drilled(tmp_path, (scope, BROKEN), layout={"tag_urls": {}}, canary_tag="")
        assert "a stream through the front door breaks the contract" in rows["traffic-5"].detail
        # The canary has no URL of its own, so it is not probed directly.
        assert "canary-direct" not in rows

    async def test_a_canary_that_fails_at_its_own_url_gets_no_traffic(self, tmp_path: Path) -> None:
        rows, summary, trial = await drilled(tmp_path, (Scope(operations=STREAMS, sites=TAG), BROKEN))
        assert list(rows) == ["status-pre", "canary-direct", "status-post"]
        assert not any(row.operation is Operation.TRAFFIC_UPDATE for row in trial.production.requests)
        assert summary.undo is None
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        assert drill.facts["rollback_seconds"] is None


class TestWhoAnswers:
    async def test_a_canary_with_all_traffic_that_answers_nothing_fails_the_step(
        self, tmp_path: Path
    ) -> None:
        scope = Scope(operations=STREAMS, sites=FRONT, role=Role.CANARY)
        rows, _, _ = await drilled(tmp_path, (scope, named(STABLE)), canary_steps=(100,))
        assert rows["traffic-100"].status is StepStatus.FAIL
        assert rows["traffic-100"].detail == f"the canary has all traffic, but {STABLE} answered"
        assert not rows["traffic-100"].tolerable

    async def test_a_canary_that_still_answers_after_the_rollback_fails_it(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=FRONT, role=Role.STABLE, first=3)
        rows, summary, trial = await drilled(tmp_path, (scope, named(CANARY)), canary_steps=(100,))
        assert rows["rollback"].detail == f"after the rollback {CANARY} still answered a stream"
        # The control plane says that stable serves everything. The undo's own streams say that it does not.
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert f"{CANARY} still answered a stream" in summary.undo.detail
        assert trial.production.traffic == {STABLE: 100}

    async def test_without_a_revision_header_one_look_after_the_rollback_is_enough(
        self, tmp_path: Path
    ) -> None:
        rows, summary, trial = await drilled(tmp_path, layout={"revision_header": ""}, canary_steps=(100,))
        assert summary.passed
        assert rows["traffic-100"].detail.endswith(
            "the canary answered 2 streams (0 at the front door by the header, 2 at its tag)"
        )
        assert streams_by_stable(trial) == SMOKES + 2


SMOKES = 4
"""Number of streams that stable answers before and after the drill."""


def streams_by_stable(trial: EmbeddedTrain) -> int:
    """Return the number of streams through the front door that stable answered."""
    return sum(
        request.operation in STREAMS and request.site is Site.FRONT and request.revision == STABLE
        for request in trial.production.requests
    )


def renamed(*numbers: int, operations: frozenset[Operation] = STREAMS) -> list[tuple[Scope, Effect]]:
    """Return faults that name the canary in these of the streams that stable answers. The first two are the smoke's."""
    return [
        (
            Scope(operations=operations, sites=FRONT, role=Role.STABLE, first=number, last=number),
            named(CANARY),
        )
        for number in numbers
    ]


class TestLooksAfterTheRollback:
    async def test_stable_must_answer_ten_streams_in_a_row_over_every_alias(self, tmp_path: Path) -> None:
        rows, summary, trial = await drilled(tmp_path, canary_steps=(100,))
        assert summary.passed
        assert rows["rollback"].status is StepStatus.PASS
        assert streams_by_stable(trial) == SMOKES + 10

    async def test_an_answer_of_the_canary_starts_the_count_again(self, tmp_path: Path) -> None:
        _, summary, trial = await drilled(tmp_path, *renamed(3, 10), canary_steps=(100,))
        assert summary.passed
        assert streams_by_stable(trial) == SMOKES + 2 * 4 + 10

    async def test_a_front_door_that_gives_the_canary_every_fourth_stream_fails(self, tmp_path: Path) -> None:
        rows, summary, trial = await drilled(
            tmp_path, *renamed(*range(6, 400, 4)), canary_steps=(100,), max_canary_drill_failures=9
        )
        assert rows["rollback"].detail == f"after the rollback {CANARY} still answered a stream"
        assert not rows["rollback"].tolerable
        assert (summary.exit_code, trial.production.traffic) == (4, {STABLE: 100})
        # MAX_ROLLBACK_SECONDS bounds the number of looks, and LAG_SECONDS those of the undo.
        assert streams_by_stable(trial) <= 2 + 2 * (2 * (60 + LAG_SECONDS) + 6 * ROLLBACK_LOOKS)

    async def test_an_answer_of_the_canary_on_the_other_alias_fails(self, tmp_path: Path) -> None:
        strikes = renamed(*range(2, 400), operations=frozenset({Operation.CHATS_STREAM}))
        rows, _, _ = await drilled(tmp_path, *strikes, canary_steps=(100,))
        assert rows["rollback"].status is StepStatus.FAIL

    async def test_a_broken_stream_ends_the_looks_and_fails_the_rollback(self, tmp_path: Path) -> None:
        scope = Scope(operations=STREAMS, sites=FRONT, role=Role.STABLE, first=5, last=5)
        rows, _, trial = await drilled(tmp_path, (scope, BROKEN), canary_steps=(100,))
        assert rows["rollback"].detail.startswith("1 of 4 probes failed: ")
        assert trial.production.traffic == {STABLE: 100}

    async def test_streams_that_all_break_without_a_name_prove_no_undo(self, tmp_path: Path) -> None:
        """The header named every answer before the rollback. Now nobody knows who drops the streams."""
        scope = Scope(operations=STREAMS, sites=FRONT, role=Role.STABLE, first=3)
        rows, summary, _ = await drilled(tmp_path, (scope, Refuse(NO_REPLY)), canary_steps=(100,))
        why = "no stream names the revision that answers any more: transport.reset: "
        assert rows["rollback"].detail.startswith(f"after the rollback {why}")
        assert summary.exit_code == 4
        assert summary.undo is not None
        assert "no stream names the revision that answers any more" in summary.undo.detail


class TestReading:
    async def test_traffic_that_cannot_be_read_is_not_moved(self, tmp_path: Path) -> None:
        scope = Scope(operations=frozenset({Operation.SERVICE_READ}), sites=API, first=2)
        rows, summary, trial = await drilled(tmp_path, (scope, FORBIDDEN))
        assert list(rows) == ["status-pre"]
        assert rows["status-pre"].status is StepStatus.ERROR
        assert summary.exit_code == 3
        assert not any(row.operation is Operation.TRAFFIC_UPDATE for row in trial.production.requests)

    async def test_traffic_that_cannot_be_read_at_the_end_is_not_proven(self, tmp_path: Path) -> None:
        reads = Scope(operations=frozenset({Operation.SERVICE_READ}), sites=API, first=6, last=6)
        rows, summary, trial = await drilled(tmp_path, (reads, FORBIDDEN), canary_steps=(5,))
        # A denied read says nothing about production, but something was moved, so the train has failed.
        assert (rows["status-post"].status, rows["status-post"].tolerable) == (StepStatus.ERROR, False)
        assert "HTTP 403" in rows["status-post"].detail
        assert summary.exit_code == 1
        assert summary.undo is not None
        assert summary.undo.proven
        assert trial.production.traffic == {STABLE: 100}


class TestRollback:
    async def test_a_rollback_that_takes_too_long_fails(self, tmp_path: Path) -> None:
        scope = Scope(operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=API, asks="stable")
        rows, summary, trial = await drilled(
            tmp_path, (scope, Fate(settles_after=12.0)), max_rollback_seconds=10.0
        )
        assert rows["rollback"].status is StepStatus.FAIL
        assert not rows["rollback"].tolerable
        assert summary.exit_code == 1
        assert trial.production.traffic == {STABLE: 100}

    async def test_the_captured_split_is_restored_with_its_tags(self, tmp_path: Path) -> None:
        rows, summary, trial = await drilled(
            tmp_path, layout={"latest": True, "tag_urls": {**TAGS, "preview": "https://p.example"}}
        )
        assert summary.passed
        assert rows["status-post"].detail.endswith(": as captured")
        assert [row.revision for row in trial.production.traffic_spec if row.percent] == [None]
        assert set(trial.production.tags) == {"canary", "stable", "preview"}


class TestRollbackTime:
    """The time runs from the first evidence of a fault to the last look at which the canary still answered."""

    async def test_a_front_door_that_lags_counts(self, tmp_path: Path) -> None:
        _, summary, _ = await drilled(tmp_path, layout={"front_lag_seconds": 12.0}, canary_steps=(100,))
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        seconds = drill.facts["rollback_seconds"]
        assert isinstance(seconds, float)
        assert 11.0 <= seconds <= 14.0
        assert summary.passed, summary.reasons

    async def test_a_front_door_that_lags_too_long_fails_the_rollback(self, tmp_path: Path) -> None:
        rows, summary, _ = await drilled(
            tmp_path, layout={"front_lag_seconds": 12.0}, canary_steps=(100,), max_rollback_seconds=10.0
        )
        assert rows["rollback"].status is StepStatus.FAIL
        # The canary answers no more when the undo looks, so nothing is left open.
        assert summary.exit_code == 1

    async def test_nothing_comes_between_the_evidence_of_a_fault_and_the_write(self, tmp_path: Path) -> None:
        """The other streams of the look hang for as long as a probe may take; sentinels are on."""
        silent = Scope(operations=frozenset({Operation.CHATS_STREAM}), sites=FRONT, role=Role.CANARY)
        broken = Scope(operations=frozenset({Operation.CHAT_STREAM}), sites=FRONT, role=Role.CANARY)
        _, summary, trial = await drilled(
            tmp_path,
            (silent, Refuse(SILENCE)),
            (broken, BROKEN),
            canary_steps=(100,),
            canary_soak_seconds=60.0,
            held_streams=3,
            probe_timeout_seconds=120.0,
            max_first_event_seconds=100.0,
        )
        writes = [row.time for row in trial.production.requests if row.operation is Operation.TRAFFIC_UPDATE]
        shift, rollback = writes[:2]
        assert rollback - shift < 1.0
        drill = summary.step("canary-rollback-drill")
        assert drill is not None
        seconds = drill.facts["rollback_seconds"]
        assert isinstance(seconds, float)
        assert seconds < 1.0
