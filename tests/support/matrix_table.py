"""The fault matrix as a Markdown table: a row for each label, a column for each fault. Several processes add columns."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path


def artifacts() -> Path:
    """Return the folder for files that the tests keep."""
    return Path(os.environ.get("CUTOVER_ARTIFACTS", "build"))


def record(loop: str, fault: str, outcomes: Mapping[str, str]) -> None:
    """Add the column of one fault, its outcome at each label, and write the table of all columns so far."""
    parts = artifacts() / "matrix" / loop
    parts.mkdir(parents=True, exist_ok=True)
    with (parts / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (parts / f"{fault}.json").write_text(json.dumps(outcomes))
        columns = {part.stem: json.loads(part.read_text()) for part in sorted(parts.glob("*.json"))}
        (artifacts() / f"matrix-{loop}.md").write_text(_markdown(columns))


def _markdown(columns: Mapping[str, Mapping[str, str]]) -> str:
    labels = dict.fromkeys(label for column in columns.values() for label in column)
    lines = [
        "The outcome of a train with one fault: at the first, second and last request of a label, and at every request.",
        "Several outcomes are in that order. The number is the exit code. A blank: the fault does not apply to the label.",
        "",
        f"| train: request | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    lines += [
        f"| {label} | {' | '.join(column.get(label, '') for column in columns.values())} |"
        for label in labels
    ]
    return "\n".join(lines) + "\n"
