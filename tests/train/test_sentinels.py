"""Sentinels: requests and responses that are in flight while the traffic or the routes change."""

import re
from collections import Counter
from pathlib import Path

import anyio
import pytest

from cutover.model.results import SentinelTally, StepStatus
from cutover.model.summary import CutoverSummary
from cutover.model.train_events import RouteIntended, TrafficIntended, TrainEvent
from cutover.simulation import FAULTS, ChangeKind, Operation, Site
from cutover.simulation.exchange import SILENCE, STREAMS
from cutover.simulation.faults import Fault, Outcome, Refuse, Scope, Strike
from tests.support.embedded_trains import STABLE, EmbeddedTrain, live_config
from tests.support.faulty_trains import FaultyTrain, Scenario

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


def labels(directory: Path, **config: object) -> FaultyTrain:
    return FaultyTrain.of(Scenario(name="sentinels", labels=".*", config=config), str(directory))


async def test_each_kind_of_sentinel_takes_every_alias_in_turn(tmp_path: Path) -> None:
    """One held request for each change, and an even number of other streams: no kind stays with one alias."""
    train = labels(tmp_path, held_streams=1, canary_soak_seconds=3.0)
    await train.run()
    aliases: dict[str, Counter[str]] = {}
    for label, count in train.transport.request_counts.items():
        if found := re.fullmatch(r"sentinel\.[\w-]+\.(held|response|paced)(-\d)?\.([\w-]+)", label):
            aliases.setdefault(found[1], Counter())[found[3]] += count
    # Four changes, of which two are watched for three seconds, and the flip for two.
    assert aliases == {
        "held": {"chat-stream": 2, "chats-stream": 2},
        "response": {"chat-stream": 4, "chats-stream": 4},
        "paced": {"chat-stream": 4, "chats-stream": 4},
    }


class TestResponsesInFlight:
    @pytest.mark.parametrize(
        ("kind", "step", "change"),
        [
            (ChangeKind.TRAFFIC, "canary-rollback-drill", "traffic-5"),
            (ChangeKind.ROUTES, "route-flip", "route-flip"),
        ],
    )
    async def test_a_front_door_that_cuts_responses_fails_the_change(
        self, kind: ChangeKind, step: str, change: str, tmp_path: Path
    ) -> None:
        config = live_config(tmp_path, held_streams=2, canary_soak_seconds=20.0, flip_confirm_seconds=20.0)
        layout = {"cuts_responses_at": frozenset({kind}), "chunk_seconds": 0.5}
        trial = EmbeddedTrain(config, layout_changes=layout)
        summary = await trial.run()
        assert summary.exit_code == 1
        found = summary.step(step)
        assert found is not None
        rows = {check.check_id: check for check in found.checks}
        row = rows[f"{change}-sentinels"]
        assert row.status is StepStatus.FAIL
        assert row.detail.startswith("2 of 2 streams broke across ")
        assert "(2 of 2 responses were in flight)" in row.detail
        tally = next(each for each in summary.sentinels if each.change == change)
        assert (tally.responses, tally.in_flight, tally.broken) == (2, 2, 2)
        # The soak ended at once, and production is as it was.
        times = [
            row.time
            for row in trial.production.requests
            if row.operation in (Operation.TRAFFIC_UPDATE, Operation.ROUTE_OVERRIDE)
        ]
        assert trial.production.traffic == {STABLE: 100}
        assert set(trial.production.route_targets().values()) == {None}
        if kind is ChangeKind.TRAFFIC:
            assert times[1] - times[0] < 0.2

    async def test_held_requests_alone_do_not_show_it(self, tmp_path: Path) -> None:
        """A turn of one body is over before the change, so nothing could be shown, and the tally says so."""
        config = live_config(tmp_path, held_streams=2, canary_steps=(100,))
        layout = {"cuts_responses_at": frozenset(ChangeKind), "preview": True}
        summary = await EmbeddedTrain(config, layout_changes=layout).run()
        assert summary.passed, summary.reasons
        for tally in summary.sentinels:
            assert (tally.streams, tally.broken, tally.responses, tally.in_flight) == (4, 0, 2, 0)
        said = "0 of 2 responses were in flight: the turns ended before the change"
        assert said in (tmp_path / "run" / "SUMMARY.md").read_text()

    @pytest.mark.parametrize("held", [1, 2, 3, 12])
    async def test_there_are_as_many_as_held_requests_and_one_for_each_alias(
        self, held: int, tmp_path: Path
    ) -> None:
        config = live_config(tmp_path, held_streams=held, canary_steps=(100,))
        summary = await EmbeddedTrain(config, layout_changes={"chunk_seconds": 0.5}).run()
        assert summary.passed, summary.reasons
        wanted = {1: 2, 2: 2, 3: 3, 12: 10}[held]
        for tally in summary.sentinels:
            assert (tally.streams, tally.responses, tally.in_flight) == (held + wanted, wanted, wanted)

    async def test_without_held_streams_nothing_is_in_flight(self, tmp_path: Path) -> None:
        trial = EmbeddedTrain(live_config(tmp_path), faults=(FAULTS["streams-cut-at-shift"],))
        summary = await trial.run()
        assert summary.passed
        assert summary.sentinels == ()


class TestTheChangeWaitsForNoEnd:
    async def test_a_long_turn_is_read_across_the_change_and_beside_the_soak(self, tmp_path: Path) -> None:
        config = live_config(
            tmp_path, held_streams=2, canary_steps=(100,), canary_soak_seconds=10.0, canary_look_seconds=10.0
        )
        trial = EmbeddedTrain(config, layout_changes={"chunk_seconds": 4.0})
        summary, seconds = await _first_write_after_first_sentinel(trial)
        assert seconds < 0.1
        tallies = {tally.change: tally for tally in summary.sentinels}
        assert tallies["traffic-100"].in_flight == 2
        assert tallies["traffic-100"].broken == 0

    async def test_a_stream_that_never_begins_delays_the_change_for_a_few_seconds(
        self, tmp_path: Path
    ) -> None:
        config = live_config(
            tmp_path, held_streams=2, canary_steps=(100,), max_first_event_seconds=60.0, max_broken_streams=9
        )
        silent = Fault(
            name="silent",
            sentence="Silent.",
            strikes=(
                # The smoke has two streams; the third and the fourth are sentinels.
                Strike(
                    Scope(operations=STREAMS, sites=frozenset({Site.FRONT}), first=3, last=4), Refuse(SILENCE)
                ),
            ),
            outcome=Outcome(exit_code=1),
        )
        trial = EmbeddedTrain(config, faults=(silent,))
        _, seconds = await _first_write_after_first_sentinel(trial)
        assert seconds == pytest.approx(5, abs=0.1)

    async def test_a_cancelled_train_stops_waiting_for_first_events(self, tmp_path: Path) -> None:
        config = live_config(tmp_path, held_streams=2, max_first_event_seconds=60.0)
        silent = Strike(Scope(operations=STREAMS, sites=frozenset({Site.FRONT}), first=3), Refuse(SILENCE))
        fault = Fault(name="silent", sentence="Silent.", strikes=(silent,), outcome=Outcome(exit_code=1))
        trial = EmbeddedTrain(config, faults=(fault,))
        with anyio.move_on_after(3) as scope:
            await trial.run()
        assert scope.cancelled_caught
        assert anyio.current_time() - scope.deadline < 2
        assert not any(row.operation is Operation.TRAFFIC_UPDATE for row in trial.production.requests)


async def _first_write_after_first_sentinel(trial: EmbeddedTrain) -> tuple[CutoverSummary, float]:
    """Run a train; return its summary, and the seconds from its first sentinel to its first write."""
    intended: list[float] = []

    def observe(event: TrainEvent) -> None:
        if isinstance(event, TrafficIntended | RouteIntended):
            intended.append(anyio.current_time())

    summary = await trial.run(observe)
    front = [row for row in trial.production.requests if row.operation in STREAMS and row.site is Site.FRONT]
    # The first two are the smoke's.
    return summary, intended[0] - front[2].time


def test_a_tally_says_how_many_responses_were_in_flight() -> None:
    def tally(responses: int, in_flight: int) -> str:
        return SentinelTally(
            change="c", streams=9, broken=0, responses=responses, in_flight=in_flight
        ).shown_in_flight

    assert tally(0, 0) == ""
    assert tally(2, 1) == "1 of 2 responses were in flight"
    assert tally(2, 0) == "0 of 2 responses were in flight: the turns ended before the change"
