"""The journals of earlier runs in the folder that holds a run directory."""

import os
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
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
    beside = (
        folder for folder, size in _runs_in(own.parent) if folder.name != own.name and size <= MOST_BYTES
    )
    for folder in islice(beside, MOST_RUNS):
        with suppress(OSError, NotStartedError):
            yield folder, read_journal(folder / "journal.jsonl")


def newest_run(folder: Path) -> Path | None:
    """Return the run directory in a folder whose journal was written last; None if there is none."""
    return next((run for run, _ in _runs_in(folder.absolute())), None)


def _runs_in(folder: Path) -> Iterator[tuple[Path, int]]:
    """Give the run directories in a folder and the bytes of their journals, the journal that was written last first."""
    found: list[tuple[int, Path, int]] = []
    with suppress(OSError), os.scandir(folder) as entries:
        for _, entry in zip(range(MOST_ENTRIES), entries, strict=False):
            with suppress(OSError):
                journal = (folder / entry.name / "journal.jsonl").stat()
                found.append((journal.st_mtime_ns, folder / entry.name, journal.st_size))
    yield from ((run, size) for _, run, size in sorted(found, reverse=True))
