"""The journals of earlier runs in the folder that holds a run directory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from cutover.errors import NotStartedError
from cutover.model.train_events import TrainEvent
from cutover.record.journal import read_journal

MOST_ENTRIES = 2_000
"""Largest number of entries of the folder that are looked at."""
MOST_RUNS = 20
"""Largest number of journals that are read, the newest first."""
MOST_BYTES = 4 << 20
"""Bytes of the largest journal that is read."""


def earlier_runs(run_directory: Path) -> Iterator[tuple[Path, list[TrainEvent]]]:
    """Give the directory and the events of the runs beside a run directory, the newest first. What cannot be read is left out."""
    own = run_directory.absolute()
    found: list[tuple[float, Path]] = []
    with suppress(OSError), os.scandir(own.parent) as entries:
        for _, entry in zip(range(MOST_ENTRIES), entries, strict=False):
            with suppress(OSError):
                journal = (own.parent / entry.name / "journal.jsonl").stat()
                if entry.name != own.name and journal.st_size <= MOST_BYTES:
                    found.append((journal.st_mtime, own.parent / entry.name))
    for _, folder in sorted(found, reverse=True)[:MOST_RUNS]:
        with suppress(OSError, NotStartedError):
            yield folder, read_journal(folder / "journal.jsonl")
