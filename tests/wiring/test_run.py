"""A train that cannot start: its end is recorded, and the error reaches the caller."""

from pathlib import Path

import attrs
import httpx
import pytest

from cutover.config.config import CutoverConfig
from cutover.model.train_events import TrainFinished
from cutover.record.journal import read_journal
from cutover.wiring.embedded import rehearsal
from cutover.wiring.run import run_production


@pytest.mark.anyio
async def test_a_fault_before_any_change_is_recorded_with_exit_code_3(tmp_path: Path) -> None:
    def no_client(_: httpx.Limits) -> httpx.AsyncClient:
        raise KeyError("a fault")

    config = CutoverConfig(stable_revision="a-1", canary_revision="a-2", output_dir=tmp_path / "run")
    production = attrs.evolve(rehearsal(config), new_client=no_client)
    with pytest.raises(KeyError, match="a fault"):
        await run_production(production)
    last = read_journal(tmp_path / "run" / "journal.jsonl")[-1]
    assert isinstance(last, TrainFinished)
    assert (last.exit_code, last.reasons) == (3, ("the train could not start: KeyError('a fault')",))
