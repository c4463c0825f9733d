"""``watch_run``: after a GO, round by round, production is as the train left it, or the watch names what was lost, and by whom."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import ConfigurationError, NotStartedError
from cutover.model.train_events import TrainFinished
from cutover.record.journal import Journal, read_journal
from cutover.simulation.addresses import Site
from cutover.simulation.deployment import Target
from cutover.simulation.exchange import STREAMS, Fate, Operation, problem
from cutover.simulation.faults import Fault, Outcome, Refuse, Scope, Strike
from cutover.train.watching import Goal, Look, Round, RoundStatus, goal_of, worst
from cutover.wiring.embedded import simulated
from cutover.wiring.watch import Watched, watch_production, watch_run
from tests.support.embedded_trains import CANARY, CHANGES, STABLE, TOKENS, EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


async def passed(tmp_path: Path, **changes: object) -> EmbeddedTrain:
    trial = EmbeddedTrain(live_config(tmp_path, **changes))
    assert (await trial.run()).passed
    return trial


async def watch(
    trial: EmbeddedTrain, *, minutes: float = 3.0, deed: Callable[[int], object] = lambda _: None
) -> tuple[Watched, list[Round]]:
    """Watch a passed train, with a round each minute; ``deed`` happens after each round, with its number."""
    folder = trial.config.output_dir
    assert folder is not None
    goal = goal_of(read_journal(folder / "journal.jsonl"))
    assert goal is not None
    rounds: list[Round] = []

    def on_round(seen: Round) -> None:
        rounds.append(seen)
        deed(seen.number)

    production = simulated(trial.config, trial.production, clock=EventLoopClock())
    watched = await watch_production(production, goal, folder, minutes=minutes, every=60.0, on_round=on_round)
    return watched, rounds


def look(seen: Round, name: str) -> Look:
    return next(look for look in seen.looks if look.name == name)


class TestRounds:
    @pytest.mark.parametrize(
        "changes", [{}, {"promote": True}, {"apply_route_flip": False}], ids=["flip", "promotion", "verify"]
    )
    async def test_production_that_stays_as_it_was_left_holds_in_every_round(
        self, changes: dict[str, object], tmp_path: Path
    ) -> None:
        layout = {} if changes.get("apply_route_flip", True) else {"flipped": True}
        trial = EmbeddedTrain(live_config(tmp_path, **changes), layout_changes=layout)
        assert (await trial.run()).passed
        sent = len(trial.production.requests)
        watched, rounds = await watch(trial)
        assert watched.status is RoundStatus.HELD
        assert [seen.number for seen in rounds] == [1, 2, 3, 4]
        operations = {entry.operation for entry in trial.production.requests[sent:]}
        assert operations.isdisjoint(CHANGES)

    @pytest.mark.many_instances
    async def test_an_instance_that_lost_its_overrides_is_named_with_the_command_that_sets_them(
        self, tmp_path: Path
    ) -> None:
        trial = await passed(tmp_path, instance_header="x-cutover-instance")
        lost = trial.production._front_door.all_of(STABLE)[1]
        watched, rounds = await watch(
            trial, deed=lambda number: lost.overrides.clear() if number == 2 else None
        )
        assert watched.status is RoundStatus.LOST
        assert [seen.status for seen in rounds] == [RoundStatus.HELD] * 2 + [RoundStatus.LOST] * 2
        found = look(rounds[2], "routes")
        assert f"instance {STABLE}-1 of revision {STABLE}" in found.detail
        assert "auth_entry is clear, not rust_shell" in found.detail
        assert f"{STABLE}-0" not in found.detail
        assert len(found.to_do) == 5
        assert all("$CONTROL_ACCESS_TOKEN" in command for command in found.to_do)
        assert '"domain"' not in found.to_do[-1]

    @pytest.mark.many_instances
    async def test_without_the_header_the_revision_and_the_number_of_reads_are_named(
        self, tmp_path: Path
    ) -> None:
        trial = await passed(tmp_path)
        trial.production._front_door.all_of(STABLE)[0].overrides.clear()
        _, rounds = await watch(trial, minutes=0)
        detail = look(rounds[0], "routes").detail
        assert detail.startswith(f"an instance of revision {STABLE} (")
        assert "of 59 reads" in detail

    async def test_a_split_that_somebody_changed_is_lost(self, tmp_path: Path) -> None:
        trial = await passed(tmp_path)
        trial.production._deployment.update((Target(revision=CANARY, percent=100),), Fate())
        watched, rounds = await watch(trial, minutes=0)
        assert watched.status is RoundStatus.LOST
        assert look(rounds[0], "traffic").detail == (
            f"{CANARY} 100 % is served, and the train left {STABLE} 100 %"
        )

    @pytest.mark.parametrize(
        ("operations", "status", "expected"),
        [
            (STREAMS, 500, RoundStatus.LOST),
            ({Operation.SERVICE_READ}, 500, RoundStatus.UNKNOWN),
            ({Operation.ROUTE_STATUS}, 500, RoundStatus.UNKNOWN),
            (STREAMS, 401, RoundStatus.UNKNOWN),
        ],
    )
    async def test_a_broken_stream_is_lost_and_a_failed_read_is_unknown(
        self, operations: set[Operation], status: int, expected: RoundStatus, tmp_path: Path
    ) -> None:
        trial = await passed(tmp_path)
        broken = Fault(
            name="broken",
            sentence="Some requests fail.",
            strikes=(
                Strike(
                    Scope(operations=frozenset(operations), sites=frozenset(Site)),
                    Refuse(problem(status, "internal", "No.")),
                ),
            ),
            outcome=Outcome(exit_code=1),
        )
        trial.production._active._faults = (broken,)
        watched, _ = await watch(trial, minutes=0)
        assert watched.status is expected

    @pytest.mark.parametrize(("last", "expected"), [(1, RoundStatus.HELD), (None, RoundStatus.LOST)])
    async def test_a_single_turn_that_fails_on_its_way_is_no_loss(
        self, last: int | None, expected: RoundStatus, tmp_path: Path
    ) -> None:
        trial = await passed(tmp_path)
        fails = Scope(operations=frozenset({Operation.CHAT_STREAM}), sites=frozenset(Site), last=last)
        strike = Strike(fails, Refuse(problem(503, "unavailable", "Try again later.")))
        trial.production._active._faults = (
            Fault(name="lost", sentence="Lost.", strikes=(strike,), outcome=Outcome(exit_code=1)),
        )
        watched, rounds = await watch(trial, minutes=1)
        assert watched.status is expected
        detail = look(rounds[0], "stream chat-stream").detail
        assert "503" in detail
        assert ("1 of 6 failed: " in detail) is (expected is RoundStatus.HELD)

    async def test_each_round_is_a_line_of_evidence_without_a_token(self, tmp_path: Path) -> None:
        trial = await passed(tmp_path)
        watched, _ = await watch(trial)
        text = watched.file.read_text()
        rows = [msgspec.json.decode(line) for line in text.splitlines()]
        assert [(row["round"], row["status"]) for row in rows] == [
            (number, "held") for number in (1, 2, 3, 4)
        ]
        assert not any(token in text for token in TOKENS.values())
        again, _ = await watch(trial, minutes=0)
        assert again.file != watched.file
        assert watched.file.exists()

    async def test_a_folder_that_takes_no_evidence_ends_the_watch(self, tmp_path: Path) -> None:
        trial = await passed(tmp_path)
        assert trial.config.output_dir is not None
        (trial.config.output_dir / "watch").write_text("a file in the place of the folder")
        with pytest.raises(NotStartedError, match="cannot keep its evidence"):
            await watch(trial)


class TestNothingToWatch:
    async def test_a_folder_without_a_journal(self, tmp_path: Path) -> None:
        with pytest.raises(NotStartedError, match="holds no journal"):
            await watch_run(tmp_path, minutes=1, every=60, on_round=lambda _: None, env=TOKENS)

    async def test_a_run_that_did_not_pass(self, tmp_path: Path) -> None:
        journal = Journal.create(tmp_path / "journal.jsonl")
        journal.record(TrainFinished(passed=False, exit_code=1))
        journal.close()
        with pytest.raises(NotStartedError, match="not GO, so there is nothing to watch"):
            await watch_run(tmp_path, minutes=1, every=60, on_round=lambda _: None, env=TOKENS)

    async def test_a_missing_token_is_named(self, tmp_path: Path) -> None:
        trial = await passed(tmp_path)
        folder = trial.config.output_dir
        assert folder is not None
        with pytest.raises(ConfigurationError, match="CONTROL_ACCESS_TOKEN is missing"):
            await watch_run(folder, minutes=1, every=60, on_round=lambda _: None, env={})

    def test_a_verdict_without_the_results_of_the_steps_has_no_goal(self) -> None:
        assert goal_of([TrainFinished(passed=True, exit_code=0)]) is None
        assert goal_of([]) is None

    def test_no_check_at_all_is_unknown(self) -> None:
        assert worst([]) is RoundStatus.UNKNOWN
        assert Goal(overrides=(), shares=()).shares == ()
