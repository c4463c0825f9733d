"""The command ``cutover watch``: its lines and exit codes."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from cutover.cli.commands import main
from cutover.model.train_events import TrainFinished
from cutover.record.journal import Journal
from cutover.train.watching import Look, Round, RoundStatus
from cutover.wiring import watch as wiring
from cutover.wiring.watch import Watched


def watch(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, ["watch", *arguments])
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("status", "code"), [(RoundStatus.HELD, 0), (RoundStatus.LOST, 1), (RoundStatus.UNKNOWN, 3)]
)
def test_the_exit_code_is_that_of_the_worst_round(
    status: RoundStatus, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Look(name="routes", status=status, detail="an instance lost it", to_do=("curl -X POST",))

    async def watched(folder: Path, *, on_round: object, **_: object) -> Watched:
        assert callable(on_round)
        on_round(Round(number=2, looks=(lost,)))
        return Watched(status=status, file=folder / "watch" / "1.jsonl")

    monkeypatch.setattr(wiring, "watch_run", watched)
    found, output = watch(str(tmp_path))
    assert found == code
    assert f"round 2: {status.value}" in output
    assert ("an instance lost it" in output) == (status is not RoundStatus.HELD)
    assert f"evidence  {tmp_path / 'watch' / '1.jsonl'}" in output


def test_a_run_that_did_not_pass_is_not_watched(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal.jsonl")
    journal.record(TrainFinished(passed=False, exit_code=1))
    journal.close()
    code, output = watch(str(tmp_path))
    assert code == 3
    assert "not GO, so there is nothing to watch" in output


@pytest.mark.parametrize("arguments", [["--minutes", "-1"], ["--every", "1"], ["--minutes", "2000"]])
def test_a_wrong_number_is_wrong_usage(arguments: list[str], tmp_path: Path) -> None:
    assert watch(str(tmp_path), *arguments)[0] == 2
