"""The commands of the page: to reproduce the run, and to recover it."""

import shlex
from pathlib import Path
from urllib.parse import urlsplit

import attrs

from cutover.model.seen_stream import SeenStream
from cutover.model.summary import CutoverSummary
from cutover.model.undo_plan import UndoPlan
from cutover.text import recover_command


@attrs.frozen(kw_only=True)
class Command:
    """One command, with the reason to run it. Its lines make one command of a shell."""

    purpose: str
    lines: tuple[str, ...]


def recover(folder: Path | str | None, *options: str) -> str:
    """Return the command that recovers a run; without a known folder it says RUN_DIR."""
    return (
        shlex.join(["cutover", "recover", *options, "RUN_DIR"])
        if folder is None
        else recover_command(folder, *options)
    )


def commands(
    summary: CutoverSummary,
    plan: UndoPlan,
    broken: SeenStream | None,
    *,
    folder: Path | str | None,
    is_finished: bool,
) -> tuple[Command, ...]:
    """Return the commands, the most urgent first.

    Args:
        summary: The summary of the run.
        plan: The changes that are still open.
        broken: A stream that broke; None without one.
        folder: The run directory, or the address of the run in STATE_URL; None if nobody knows it.
        is_finished: True if the run has a verdict.
    """
    rehearsed = bool(summary.facts.get("dry_run"))
    found: list[Command] = []
    if not rehearsed and (plan or not is_finished):
        found.append(
            Command(purpose="Recover the run: finish its undo, and prove it", lines=(recover(folder),))
        )
    if not rehearsed and summary.passed and summary.facts.get("apply_route_flip"):
        found.append(
            Command(
                purpose="Undo this cutover later: set the routes back",
                lines=(recover(folder, "--revert"),),
            )
        )
    if broken is not None and (url := _url(summary, broken)) is not None:
        lines = ("cutover check --header 'authorization: Bearer $AUTH_TOKEN' \\", f"  {shlex.quote(url)}")
        undone = (
            "" if plan or not is_finished else " The change is undone, so it now meets the restored state."
        )
        purpose = f"Look at one such stream again: one chat turn; cutover itself puts the value of AUTH_TOKEN in.{undone}"
        found.append(Command(purpose=purpose, lines=lines))
    # While a change is open, no other run may start.
    run = _run(summary)
    if run and (rehearsed or (is_finished and not plan)):
        rehearsal = (
            "Run the same rehearsal again" if rehearsed else "Run the same train again; this moves production"
        )
        found.append(Command(purpose=rehearsal, lines=run))
    return tuple(found)


def _url(summary: CutoverSummary, broken: SeenStream) -> str | None:
    """Return an address of the alias of a stream, as a failed check names it; None if none does, or if the run was a rehearsal."""
    if summary.facts.get("dry_run"):
        return None
    paths = [
        urlsplit(check.endpoint).path
        for step in summary.steps
        for check in step.checks
        if check.status.failed and check.endpoint and check.body_path
    ]
    base = broken.place or str(summary.facts.get("base_url", ""))
    return base + paths[0] if paths and base else None


def _run(summary: CutoverSummary) -> tuple[str, ...]:
    """Return the command that starts the same run; empty if the journal has lost its beginning."""
    facts = summary.facts
    if "stable_revision" not in facts:
        return ()
    inputs = facts.get("inputs")
    options = (
        [(f"--{name.replace('_', '-')}", value) for name, value in inputs.items()]
        if isinstance(inputs, dict)
        else []
    )
    faults = facts.get("what_if")
    options += [("--what-if", name) for name in faults] if isinstance(faults, list) else []
    # A rehearsal says so itself, because DRY_RUN=0 may be set where somebody pastes it.
    options += [("--dry-run", "1")] if facts.get("dry_run") else []
    first = shlex.join(["cutover", "run", str(facts["stable_revision"]), str(facts.get("canary_revision"))])
    rest = [shlex.join([option, str(value)]) for option, value in options]
    lines = [first, *(f"  {line}" for line in rest)]
    return (*(f"{line} \\" for line in lines[:-1]), lines[-1])
