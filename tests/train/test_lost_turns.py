"""A turn that fails on its way in a smoke, or as a sentinel, is weighed: one of them stops no train, and a fault that lasts does."""

from pathlib import Path

import pytest

from cutover.model.losses import IN_A_ROW
from cutover.model.results import SentinelTally
from cutover.model.summary import CutoverSummary, fold
from cutover.record.journal import read_journal
from cutover.simulation import VARIANTS
from tests.support.embedded_trains import USUAL_JUDGEMENT, EmbeddedTrain, live_config
from tests.support.faulty_trains import FaultyTrain, Scenario
from tests.support.wire_faults import Injection, WireFault

ALIASES = ("chat-stream", "chats-stream")
pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def summary_of(
    directory: Path, *injections: Injection, **config: object
) -> tuple[CutoverSummary, FaultyTrain]:
    """Run a train in which these requests meet a fault; return its summary."""
    values = {"held_streams": 2, "canary_soak_seconds": 3.0, "flip_confirm_seconds": 3.0, **config}
    scenario = Scenario(name="lost turns", labels=".*", config=values)
    train = FaultyTrain.of(scenario, str(directory), *injections)
    await train.run()
    return fold(read_journal(train.folder / "journal.jsonl")), train


def lost(label: str, fault: WireFault = WireFault.HTTP_503, number: int | None = 1) -> Injection:
    return Injection(label=label, fault=fault, number=number)


def tally(summary: CutoverSummary, change: str) -> SentinelTally:
    return next(each for each in summary.sentinels if each.change == change)


class TestSentinels:
    @pytest.mark.parametrize("fault", [WireFault.HTTP_503, WireFault.RESET, WireFault.TRUNCATED])
    @pytest.mark.parametrize(
        ("change", "stream"),
        [
            ("traffic-5", "held-0.chat-stream"),
            ("traffic-100", "response-1.chats-stream"),
            ("traffic-5", "paced.chat-stream"),
            ("rollback", "held-1.chats-stream"),
            ("route-flip", "held-0.chat-stream"),
            ("route-flip", "paced.chat-stream"),
        ],
    )
    async def test_one_that_is_lost_is_shown_and_stops_nothing(
        self, change: str, stream: str, fault: WireFault, tmp_path: Path
    ) -> None:
        summary, train = await summary_of(tmp_path, lost(f"sentinel.{change}.{stream}", fault))
        assert train.transport.fault_counts[fault] == 1
        assert summary.exit_code == 0, summary.reasons
        assert (tally(summary, change).broken, tally(summary, change).by_chance) == (1, 1)
        gate = summary.gate("broken_streams")
        assert (gate.observed_failed, gate.holds) == (0, True)
        assert "| 1, 1 of them by chance |" in (train.folder / "SUMMARY.md").read_text()

    @pytest.mark.parametrize("tolerated", [0, 2])
    async def test_a_change_that_breaks_each_of_a_kind_stops_the_train_unless_that_is_tolerated(
        self, tolerated: int, tmp_path: Path
    ) -> None:
        both = [lost(f"sentinel.route-flip.held-{end}") for end in ("0.chat-stream", "1.chats-stream")]
        summary, _ = await summary_of(tmp_path, *both, max_broken_streams=tolerated)
        assert summary.exit_code == (0 if tolerated else 1)
        assert (tally(summary, "route-flip").broken, tally(summary, "route-flip").by_chance) == (2, 0)
        assert summary.gate("broken_streams").observed_failed == 2

    async def test_a_broken_contract_counts_at_once(self, tmp_path: Path) -> None:
        broken = lost("sentinel.route-flip.held-0.chat-stream", WireFault.HTML)
        summary, _ = await summary_of(tmp_path, broken)
        assert summary.exit_code == 1
        assert tally(summary, "route-flip").counted == 1

    async def test_streams_that_follow_the_flip_and_all_fail_end_its_watch(self, tmp_path: Path) -> None:
        every = [lost(f"sentinel.route-flip.paced.{alias}", number=None) for alias in ALIASES]
        summary, _ = await summary_of(tmp_path, *every, flip_confirm_seconds=30.0)
        assert summary.exit_code == 1
        assert tally(summary, "route-flip").broken == 2
        assert summary.undo is not None
        assert summary.undo.proven

    async def test_with_a_smaller_margin_a_single_one_is_no_chance(self, tmp_path: Path) -> None:
        one = lost("sentinel.route-flip.held-0.chat-stream")
        long_enough = {"max_canary_worse_percent": 2.0, "canary_max_soak_seconds": 300.0}
        summary, _ = await summary_of(tmp_path, one, **long_enough)
        assert summary.exit_code == 1
        assert tally(summary, "route-flip").counted == 1

    async def test_a_stable_revision_that_fails_often_is_the_judges_business(self, tmp_path: Path) -> None:
        """The paced streams of a share are turns like the looks: they do not blame the change for what stable does."""
        every = [lost(f"sentinel.traffic-5.paced.{alias}", number=None) for alias in ALIASES]
        summary, _ = await summary_of(tmp_path, *every, canary_soak_seconds=10.0)
        paced = tally(summary, "traffic-5")
        assert paced.counted == 0
        assert summary.gate("broken_streams").holds


class TestSmokes:
    @pytest.mark.parametrize("phase", ["pre", "post"])
    @pytest.mark.parametrize("fault", [WireFault.HTTP_503, WireFault.RESET, WireFault.HTTP_429])
    async def test_a_turn_that_is_lost_is_looked_into(
        self, phase: str, fault: WireFault, tmp_path: Path
    ) -> None:
        label = f"stream-smoke-{phase}.chat-stream"
        summary, train = await summary_of(tmp_path, lost(label, fault))
        assert summary.exit_code == 0, summary.reasons
        assert train.transport.request_counts[label] == 1 + IN_A_ROW
        step = summary.step(f"stream-smoke-{phase}")
        assert step is not None
        details = {check.check_id.partition("-cutover-")[2]: check.detail for check in step.checks}
        assert details["chat-stream"].startswith(
            "the last 5 looks are good, and a healthy service loses a turn now and then; 1 of 6 probes failed: "
        )
        assert "failed" not in details["chats-stream"]

    @pytest.mark.parametrize(
        ("fault", "exit_code", "asked"),
        [
            (WireFault.HTTP_503, 1, 2),
            (WireFault.REFUSED, 3, 2),
            (WireFault.HTML, 1, 1),
            (WireFault.HTTP_401, 3, 1),
        ],
    )
    async def test_an_alias_that_fails_each_turn_fails_it(
        self, fault: WireFault, exit_code: int, asked: int, tmp_path: Path
    ) -> None:
        label = "stream-smoke-pre.chats-stream"
        summary, train = await summary_of(tmp_path, lost(label, fault, number=None))
        assert summary.exit_code == exit_code
        assert train.transport.request_counts[label] == asked
        step = summary.step("stream-smoke-pre")
        assert step is not None
        assert [check.check_id for check in step.checks if check.status.failed] == [
            "pre-cutover-chats-stream"
        ]


@pytest.mark.parametrize("name", ["streams-fail-seldom"])
async def test_a_production_that_loses_a_turn_now_and_then_passes_with_the_usual_inputs(
    name: str, tmp_path: Path
) -> None:
    config = live_config(
        tmp_path, held_streams=2, canary_soak_seconds=30.0, flip_confirm_seconds=5.0, **USUAL_JUDGEMENT
    )
    trial = EmbeddedTrain(config, faults=(VARIANTS[name],))
    summary = await trial.run()
    assert summary.exit_code == 0, summary.reasons
    assert any(row.status == 503 for row in trial.production.requests)
