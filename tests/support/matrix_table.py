"""The matrix as a table, fault by label, in Markdown: each test adds its kinds, in whichever process it runs."""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path


def artifacts() -> Path:
    """Return the folder for what a run of the tests leaves behind."""
    return Path(os.environ.get("CUTOVER_ARTIFACTS", "build"))


def record(loop: str, kind: str, outcomes: Mapping[str, str]) -> None:
    """Add one column: the outcome of a kind at each label; and write the table of all that there are so far."""
    parts = artifacts() / "matrix" / loop
    parts.mkdir(parents=True, exist_ok=True)
    with (parts / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        (parts / f"{kind}.json").write_text(json.dumps(outcomes))
        columns = {part.stem: json.loads(part.read_text()) for part in sorted(parts.glob("*.json"))}
        (artifacts() / f"matrix-{loop}.md").write_text(_markdown(columns))


def _markdown(columns: Mapping[str, Mapping[str, str]]) -> str:
    labels = dict.fromkeys(label for column in columns.values() for label in column)
    lines = [
        "What became of a train that met one fault, at the first, second and last request of a label, and at every one.",
        "Several outcomes are told in that order. The number is the exit code; a blank is a fault that there is not.",
        "",
        f"| train: request | {' | '.join(columns)} |",
        f"|---|{'---|' * len(columns)}",
    ]
    lines += [
        f"| {label} | {' | '.join(column.get(label, '') for column in columns.values())} |"
        for label in labels
    ]
    return "\n".join(lines) + "\n"
