"""The train events for machines: the journal's lines on a stream, whose reader can neither stop nor delay a train."""

import errno
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cutover.model.train_events import StepStarted
from cutover.record.journal import Journal
from cutover.report import json_lines
from cutover.report.json_lines import JsonLines

RUN = [sys.executable, "-m", "cutover", "run", "a-1", "a-2", "--json"]


def test_each_line_is_the_line_of_the_journal(tmp_path: Path) -> None:
    written = bytearray()

    def write(data: bytes) -> int:
        # A pipe takes as much as it has room for.
        written.extend(data[:7])
        return len(data[:7])

    lines = JsonLines(write=write)
    journal = Journal.create(tmp_path / "journal.jsonl")
    journal.observers.append(lines.observe)
    with lines.writing():
        for name in ("one", "two", "three"):
            journal.record(StepStarted(step_id=name))
    journal.close()
    assert bytes(written) == (tmp_path / "journal.jsonl").read_bytes()
    assert json.loads(written.splitlines()[0])["version"]
    assert not lines.lost


def test_a_reader_that_stops_reading_delays_no_event_and_the_loss_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_lines, "LAST_SECONDS", 0.2)
    monkeypatch.setattr(json_lines, "MOST_WAITING", 3)
    reads = threading.Event()

    def write(data: bytes) -> int:
        reads.wait()
        return len(data)

    lines = JsonLines(write=write)
    began = time.monotonic()
    with lines.writing():
        for _ in range(50):
            lines.observe(StepStarted(step_id="one"))
    # It proves that no wait is without a deadline; it is no measurement.
    assert time.monotonic() - began < 20
    assert lines.lost == "nobody read it in time, so the last events are missing there"
    reads.set()


@pytest.mark.parametrize(
    ("code", "said"), [(errno.EPIPE, ""), (errno.ENOSPC, "it could not be written (No space left on device)")]
)
def test_a_stream_that_takes_no_more_is_written_to_no_more(code: int, said: str) -> None:
    tries: list[bytes] = []

    def write(data: bytes) -> int:
        tries.append(data)
        raise OSError(code, os.strerror(code))

    lines = JsonLines(write=write)
    with lines.writing():
        for _ in range(5):
            lines.observe(StepStarted(step_id="one"))
    assert len(tries) == 1
    assert lines.lost.startswith(said)
    assert bool(lines.lost) is bool(said)


def test_with_json_standard_output_has_the_journal_and_nothing_else(tmp_path: Path) -> None:
    env = {**os.environ, "OUTPUT_DIR": str(tmp_path / "run")}
    done = subprocess.run(RUN, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert done.stdout == (tmp_path / "run" / "journal.jsonl").read_text()
    assert "verdict   passed (rehearsal), exit 0" in done.stderr
    assert "evidence  " in done.stderr
    # Wrong usage, too, says nothing to machines.
    refused = subprocess.run(
        RUN, env={**env, "DRY_RUN": "O"}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (refused.returncode, refused.stdout) == (2, "")
    both = subprocess.run([*RUN, "--show-config"], capture_output=True, text=True, timeout=60, check=False)
    assert (both.returncode, both.stdout) == (2, "")
    assert "--show-config and --json exclude each other" in both.stderr


def test_a_closed_standard_output_does_not_change_the_verdict(tmp_path: Path) -> None:
    env = {**os.environ, "OUTPUT_DIR": str(tmp_path / "run")}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(RUN, env=env, stdout=write, stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(write)
    assert done.returncode == 0
    assert b"verdict   passed" in done.stderr
    assert b"standard output" not in done.stderr
