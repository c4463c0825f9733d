"""A real process keeps its state in a bucket, dies without a word, and is finished from another machine."""

import json
import os
import signal
import subprocess
from pathlib import Path

from tests.support.commands import COMMAND, run_env, served, started, until


def test_a_killed_process_is_recovered_from_another_machine(tmp_path: Path) -> None:
    with served() as simulation:
        first = run_env(
            simulation,
            tmp_path,
            **simulation.in_a_bucket,
            XDG_STATE_HOME=str(tmp_path / "first"),
            CANARY_SOAK_SECONDS="60",
        )
        other = {**first, "XDG_STATE_HOME": str(tmp_path / "other"), "OUTPUT_DIR": str(tmp_path / "second")}
        # Another machine has neither the folder nor the lock, and its own place for runs.
        (tmp_path / "elsewhere").mkdir()
        with started("run", *simulation.revisions, env=first) as train:
            until(train, "traffic", "5 %")
            refused = command("run", *simulation.revisions, env=other, folder=tmp_path)
            assert refused.returncode == 3
            assert f"pid {train.pid} on {os.uname().nodename}" in refused.stderr
            train.send_signal(signal.SIGKILL)
            train.wait(30)
        address = refused.stderr.split()[-1]
        assert address.startswith("gs://simulated-state/trains/")
        elsewhere = tmp_path / "elsewhere"
        assert "CUT OFF" in page_of(address, env=other, folder=elsewhere)
        # The run is none of this machine's: no journal of it is left here, where it would count as one.
        assert [path.name for path in elsewhere.rglob("*")] == [f"report-{address.rpartition('/')[2]}.html"]
        for wrong, code in ((address.rpartition("/")[0], 2), (f"{address[:-6]}000000", 3)):
            refused = command("report", wrong, env=other, folder=elsewhere)
            assert (refused.returncode, refused.stdout) == (code, "")
        recovered = command("recover", address, env=other, folder=tmp_path / "elsewhere")
        assert recovered.returncode == 0, recovered.stderr
        assert f"taken over in STATE_URL from pid {train.pid}" in recovered.stderr
        (journal,) = (tmp_path / "elsewhere").rglob("journal.jsonl")
        events = [json.loads(line) for line in journal.read_text().splitlines()]
        assert [event["event"] for event in events if event["event"] in {"TakenOver", "UndoFinished", "TrainFinished"}] == [
            "TakenOver", "UndoFinished", "TrainFinished",
        ]  # fmt: skip
        assert "token" not in str(events[0]["facts"].get("token_sources"))
        page = page_of(address, env=other, folder=elsewhere)
        assert "NO GO" in page
        assert "CUT OFF" not in page
        # Its own machine learns that from the bucket, and is free again.
        again = command("recover", str(tmp_path / "run"), env=first, folder=tmp_path)
        assert (again.returncode, "nothing was open" in again.stderr) == (0, True)
        words = simulation.stop()
    assert f"traffic   {{'{simulation.revisions[0]}': 100}}" in words


def command(*words: str, env: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], env=env, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )


def page_of(address: str, *, env: dict[str, str], folder: Path) -> str:
    """Make the page of a run in the bucket, and return it."""
    made = command("report", address, env=env, folder=folder)
    name = f"report-{address.rpartition('/')[2]}.html"
    assert (made.returncode, made.stdout) == (0, f"{name}\n"), made.stderr
    return (folder / name).read_text()
