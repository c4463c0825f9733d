"""The soak of a canary step: it is watched all the way, and ends at once with the first sign of a fault."""

import gc
from itertools import pairwise
from pathlib import Path

import pytest

from cutover.checking.probe import Probe
from cutover.contract import ContractReport
from cutover.http.connection import StreamRequest
from cutover.model.results import StepStatus
from cutover.model.train_events import CheckRecorded, TrainEvent
from cutover.simulation import Fault, LoggedRequest, Operation, Site
from cutover.simulation.exchange import SILENCE, STREAMS, Fate, problem
from cutover.simulation.faults import Effect, Outcome, Refuse, Role, Scope, Strike
from cutover.train.probe_log import ProbeLog
from cutover.train.soak import confirm_count, look_count, paced_count
from tests.support.embedded_trains import CANARY, STABLE, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

BROKEN = Refuse(problem(404, "not_found", "Not found."))
SILENT = Refuse(SILENCE)
FRONT = frozenset({Site.FRONT})
ONE_ALIAS, OTHER_ALIAS = frozenset({Operation.CHAT_STREAM}), frozenset({Operation.CHATS_STREAM})
TAGS = {"canary": "https://canary---chat.example", "stable": "https://stable---chat.example"}


def struck(*strikes: tuple[Scope, Effect]) -> Fault:
    return Fault(
        name="custom",
        sentence="Custom.",
        strikes=tuple(Strike(scope, effect) for scope, effect in strikes),
        outcome=Outcome(exit_code=1),
    )


def updates(trial: EmbeddedTrain) -> list[LoggedRequest]:
    return [row for row in trial.production.requests if row.operation is Operation.TRAFFIC_UPDATE]


def streams(trial: EmbeddedTrain, site: Site = Site.FRONT) -> list[LoggedRequest]:
    return [row for row in trial.production.requests if row.operation in STREAMS and row.site is site]


def only_canary(trial: EmbeddedTrain) -> float:
    """Return the time of the first stream of the canary through the front door: the evidence of a fault of the canary."""
    return next(row.time for row in streams(trial) if row.revision == CANARY)


@pytest.mark.parametrize(
    ("changes", "most"), [({}, 5.0), ({"canary_look_seconds": 0.7}, 0.7), ({"canary_look_seconds": 90.0}, 60)]
)
async def test_each_alias_is_looked_at_everywhere_all_the_way(
    changes: dict[str, float], most: float, tmp_path: Path
) -> None:
    config = live_config(tmp_path, canary_soak_seconds=60.0, canary_steps=(25,), **changes)
    trial = EmbeddedTrain(config, layout_changes={"tag_urls": TAGS})
    assert (await trial.run()).passed
    begun, ended = (row.time for row in updates(trial))
    assert ended - begun == pytest.approx(60, abs=1)
    for site in (Site.FRONT, Site.TAG):
        for operation in (Operation.CHAT_STREAM, Operation.CHATS_STREAM):
            looks = [row.time for row in streams(trial, site) if row.operation is operation]
            times = [begun, *(time for time in looks if begun <= time <= ended), ended]
            assert max(after - before for before, after in pairwise(times)) <= most + 0.01


async def test_a_look_begins_on_time_also_while_earlier_turns_still_run(tmp_path: Path) -> None:
    config = live_config(tmp_path, canary_soak_seconds=30.0, canary_steps=(25,))
    trial = EmbeddedTrain(config, layout_changes={"chunk_seconds": 1.0})
    assert (await trial.run()).passed
    begun, ended = (row.time for row in updates(trial))
    # The last look begins at the end of the window, and its turns are read to their end.
    assert ended - begun > 35
    times = sorted({row.time for row in streams(trial) if begun <= row.time <= ended - 1})
    assert [time - begun for time in times] == pytest.approx([0, 5, 10, 15, 20, 25, 30], abs=0.1)


async def test_turns_that_never_end_let_no_more_than_eight_looks_wait(tmp_path: Path) -> None:
    config = live_config(
        tmp_path,
        canary_soak_seconds=45.0,
        canary_steps=(25,),
        max_event_gap_seconds=80,
        canary_look_seconds=1.0,
    )
    trial = EmbeddedTrain(config, layout_changes={"chunk_seconds": 5.0})
    assert (await trial.run()).passed
    begun = updates(trial)[0].time
    waiting = [row.time - begun for row in streams(trial) if begun <= row.time < begun + 40]
    assert len(waiting) == 2 * 8


async def test_the_first_bad_probe_ends_the_soak_while_the_others_hang(tmp_path: Path) -> None:
    """A probe may take two minutes: users of a broken canary must not wait for it."""
    trial = EmbeddedTrain(
        live_config(tmp_path, canary_soak_seconds=60.0, canary_steps=(100,)),
        faults=(
            struck(
                (Scope(operations=ONE_ALIAS, sites=FRONT, role=Role.CANARY), BROKEN),
                (Scope(operations=OTHER_ALIAS, sites=FRONT, role=Role.CANARY), SILENT),
            ),
        ),
    )
    summary = await trial.run()
    assert summary.exit_code == 1
    assert updates(trial)[1].time - only_canary(trial) < 0.5
    assert trial.production.traffic == {STABLE: 100}


async def test_the_time_of_the_rollback_counts_from_the_first_evidence(tmp_path: Path) -> None:
    """The first of three looks shows a broken canary, and the rollback settles four seconds after its write."""
    settles_late = Scope(
        operations=frozenset({Operation.TRAFFIC_UPDATE}), sites=frozenset({Site.CLOUD_RUN}), asks="stable"
    )
    trial = EmbeddedTrain(
        live_config(tmp_path, canary_soak_seconds=10.0, canary_steps=(100,)),
        faults=(
            struck(
                (Scope(operations=ONE_ALIAS, sites=FRONT, role=Role.CANARY), BROKEN),
                (Scope(operations=OTHER_ALIAS, sites=FRONT, role=Role.CANARY), SILENT),
                (settles_late, Fate(settles_after=4.0)),
            ),
        ),
    )
    drill = (await trial.run()).step("canary-rollback-drill")
    assert drill is not None
    seen, written = only_canary(trial), updates(trial)[1].time
    assert written - seen == pytest.approx(0.25, abs=0.01)
    seconds = drill.facts["rollback_seconds"]
    assert isinstance(seconds, float)
    # The pauses between the reads that wait for the update come on top.
    assert written - seen + 4 <= seconds < written - seen + 6


async def test_a_look_that_hangs_delays_no_later_look_and_no_end(tmp_path: Path) -> None:
    """The first look hangs on one alias; five seconds later the other alias breaks, and the soak ends then."""
    trial = EmbeddedTrain(
        live_config(tmp_path, canary_soak_seconds=60.0, canary_steps=(100,), max_first_event_seconds=80.0),
        faults=(
            struck(
                (Scope(operations=ONE_ALIAS, sites=FRONT, role=Role.CANARY, first=1, last=1), SILENT),
                (Scope(operations=OTHER_ALIAS, sites=FRONT, role=Role.CANARY, first=2), BROKEN),
            ),
        ),
    )
    summary = await trial.run()
    begun, back, *_ = (row.time for row in updates(trial))
    assert back - begun == pytest.approx(5, abs=0.5)
    row = {check.check_id: check for check in summary.step("canary-rollback-drill").checks}["traffic-100"]  # type: ignore[union-attr]
    assert "404" in row.detail


async def test_a_stall_is_seen_at_its_deadline_and_not_at_the_end_of_the_slowest_probe(
    tmp_path: Path,
) -> None:
    trial = EmbeddedTrain(
        live_config(
            tmp_path,
            canary_soak_seconds=60.0,
            canary_steps=(100,),
            probe_timeout_seconds=120.0,
            max_canary_worse_percent=10.0,
        ),
        faults=(struck((Scope(operations=ONE_ALIAS, sites=FRONT, role=Role.CANARY), SILENT)),),
        layout_changes={"chunk_seconds": 8.0},
    )
    await trial.run()
    # MAX_FIRST_EVENT_SECONDS is 5, and one stall is weighed: the second one comes from the next look, 5 s later. The other alias needs two minutes.
    assert updates(trial)[1].time - only_canary(trial) == pytest.approx(10, abs=0.5)


@pytest.mark.parametrize(("tolerated", "ends_early"), [(0, True), (1, False)])
async def test_a_broken_sentinel_ends_the_soak_at_once_unless_it_is_tolerated(
    tolerated: int, ends_early: bool, tmp_path: Path
) -> None:
    # Through the front door come: 2 smoke streams, 3 around the change, 2 of the looks at 0 s and at 5 s, then a sentinel.
    tenth = Scope(operations=STREAMS, sites=FRONT, first=10, last=10)
    trial = EmbeddedTrain(
        live_config(
            tmp_path,
            canary_soak_seconds=60.0,
            canary_steps=(5,),
            held_streams=1,
            max_broken_streams=tolerated,
        ),
        faults=(struck((tenth, BROKEN)),),
    )
    summary = await trial.run()
    begun, back, *_ = (row.time for row in updates(trial))
    assert back - begun == pytest.approx(6 if ends_early else 60, abs=0.2)
    assert summary.passed is not ends_early
    rows = {check.check_id: check for check in summary.step("canary-rollback-drill").checks}  # type: ignore[union-attr]
    assert rows["traffic-5"].status is (StepStatus.FAIL if ends_early else StepStatus.PASS)
    assert ("traffic-5-sentinels" in rows) is ends_early
    if ends_early:
        assert rows["traffic-5"].detail == "the soak was ended early, because a sentinel stream broke"
        assert rows["traffic-5-sentinels"].detail.startswith("1 of 4 streams broke across traffic-5: ")


async def test_a_sentinel_that_breaks_beside_a_look_that_hangs_ends_the_soak_at_once(tmp_path: Path) -> None:
    tenth = Scope(operations=STREAMS, sites=FRONT, first=10, last=10)
    hangs = Scope(operations=STREAMS, sites=FRONT, first=8, last=9)
    trial = EmbeddedTrain(
        live_config(
            tmp_path,
            canary_soak_seconds=60.0,
            canary_steps=(5,),
            held_streams=1,
            max_first_event_seconds=90.0,
        ),
        faults=(struck((hangs, SILENT), (tenth, BROKEN)),),
    )
    await trial.run()
    begun, back, *_ = (row.time for row in updates(trial))
    assert back - begun == pytest.approx(6, abs=0.2)


async def test_fifty_held_requests_leave_connections_for_slow_looks(tmp_path: Path) -> None:
    config = live_config(
        tmp_path, canary_soak_seconds=10.0, canary_steps=(5,), canary_look_seconds=1.0, held_streams=50
    )
    trial = EmbeddedTrain(config, layout_changes={"chunk_seconds": 2.0, "tag_urls": TAGS})
    summary = await trial.run()
    assert summary.passed, summary.reasons


async def test_a_long_soak_keeps_no_more_than_a_few_probes(tmp_path: Path) -> None:
    """A body may have four megabytes, and an hour at five seconds has thousands of probes."""
    alive: list[int] = []

    def count(event: TrainEvent) -> None:
        if isinstance(event, CheckRecorded) and event.check.check_id == "traffic-100":
            alive.append(sum(isinstance(thing, Probe) for thing in gc.get_objects()))

    config = live_config(tmp_path, canary_soak_seconds=900.0, canary_steps=(100,), held_streams=2)
    summary = await EmbeddedTrain(config).run(count)
    assert summary.passed
    assert alive[0] < 20
    row = {check.check_id: check for check in summary.step("canary-rollback-drill").checks}["traffic-100"]  # type: ignore[union-attr]
    assert f"{181 * 4} probes keep the contract" in row.detail


async def test_the_confirm_window_of_the_flip_has_a_sentinel_at_least_every_few_seconds(
    tmp_path: Path,
) -> None:
    config = live_config(tmp_path, flip_confirm_seconds=120.0, held_streams=1, canary_steps=(100,))
    trial = EmbeddedTrain(config)
    summary = await trial.run()
    assert summary.passed
    flip = max(row.time for row in trial.production.requests if row.operation is Operation.ROUTE_OVERRIDE)
    times = [flip, *(row.time for row in streams(trial) if flip <= row.time <= flip + 120.1)]
    assert max(after - before for before, after in pairwise(times)) <= 5.01
    assert summary.sentinels[-1].streams == 1 + 2 + 24


async def test_a_sentinel_that_breaks_in_the_confirm_window_ends_it_at_once(tmp_path: Path) -> None:
    after_flip = Scope(operations=STREAMS, sites=FRONT, flipped=True, first=2)
    config = live_config(tmp_path, flip_confirm_seconds=120.0, held_streams=1, canary_steps=(100,))
    trial = EmbeddedTrain(config, faults=(struck((after_flip, BROKEN)),))
    summary = await trial.run()
    assert summary.exit_code == 1
    rows = {check.check_id: check for check in summary.step("route-flip").checks}  # type: ignore[union-attr]
    assert rows["route-flip-sentinels"].status is StepStatus.FAIL
    assert "confirm-routes" not in rows
    overrides = [row.time for row in trial.production.requests if row.operation is Operation.ROUTE_OVERRIDE]
    assert overrides[-1] - overrides[0] < 10
    assert set(trial.production.route_targets().values()) == {None}


def test_the_counts_of_a_window() -> None:
    assert [look_count(window, 5.0) for window in (0.0, 0.5, 5.0, 5.1, 30.0, 3600.0)] == [1, 2, 2, 3, 7, 721]
    assert [look_count(3.0, every) for every in (0.1, 1.5, 1e5)] == [31, 3, 2]
    assert [paced_count(window) for window in (0.0, 0.5, 1.9, 5.0, 3600.0)] == [0, 1, 1, 5, 10]
    assert [confirm_count(window, 5.0) for window in (0.0, 0.5, 5.0, 120.0)] == [0, 1, 5, 24]


def test_a_long_log_keeps_its_beginning_and_its_end() -> None:
    report = ContractReport(contract="lane", findings=(), complete=True)
    request = StreamRequest(method="POST", url="https://chat.example/api/chat/stream")
    log = ProbeLog()
    for number in range(1500):
        unreachable = "refused" if number == 700 else None
        log.add(
            Probe(
                request=request,
                status=number,
                headers=(),
                body=b"",
                report=report,
                unreachable=unreachable,
                failure=None,
                elapsed=0.1,
            )
        )
    lines = [line for line in log.text().splitlines() if not line.startswith("    ")]
    assert len(lines) == 1001
    assert lines[500] == "... 500 more probes, of which the log keeps only the counts"
    assert "HTTP 1499" in lines[-1]
    assert (log.count, log.bad, log.without_evidence) == (1500, 1, 1)
    assert log.first is not None
    assert log.first_bad is not None
    assert (log.first.status, log.first_bad.status) == (0, 700)
