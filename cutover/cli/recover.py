"""``cutover recover``: finish the undo of an interrupted train, or undo a completed cutover."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cutover.cli.ci_reports import on_github
from cutover.cli.signals import EXIT_UNPROVEN, Interruption, run_command, until_signalled
from cutover.model.train_events import TrainEvent, TrainFinished
from cutover.record.state_address import is_state_address
from cutover.report.github import annotation
from cutover.report.heartbeat import Heartbeat
from cutover.report.terminal import Terminal
from cutover.text import recover_command

if TYPE_CHECKING:
    from cutover.model.undo_policy import RecoveryMode


_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


def _run(context: click.Context, parameter: click.Parameter, text: str) -> str | Path:
    """Return an address in STATE_URL as it was typed, or the path of a run directory that exists."""
    return text if is_state_address(text) else Path(_FOLDER.convert(text, parameter, context))


@click.command(
    epilog="Exit codes: 0 closed, or nothing was open; 2 usage or configuration, a missing token too; 3 could not start; 4 unresolved: act."
)
@click.argument("run_directory", callback=_run)
@click.option(
    "--revert",
    is_flag=True,
    help="Also undo a completed cutover: set the routes back to their captured state.",
)
@click.option(
    "--accept-found",
    is_flag=True,
    help="Change nothing in production: close an unfinished run and accept the state that is found.",
)
@click.option(
    "--restore-captured",
    is_flag=True,
    help="Write the captured state back, LATEST included, even over changes that somebody else made since.",
)
@click.option(
    "--local-only",
    is_flag=True,
    help="Leave the lock and the journal in STATE_URL alone, for a bucket that cannot be reached. Recover again when it can be.",
)
def recover(
    run_directory: str | Path, revert: bool, accept_found: bool, restore_captured: bool, local_only: bool
) -> None:
    """Finish the undo of an interrupted train, from its journal.

    RUN_DIRECTORY is its folder, or, from any machine, its address in STATE_URL: gs://bucket/prefix/RUN, or gs://bucket/prefix for the
    only run that is open there. Make sure first that the machine of the train is dead: its process stops at its next change, and undoes nothing.

    It needs only the tokens of the parts that are open: CONTROL_ACCESS_TOKEN for routes, and for traffic the one that
    `run` used for Cloud Run (and for the bucket). A file or a command that gave `run` a token is used again, but not from an address: then set
    the tokens here, and BASE_URL too, which confirms where they may be sent.

    If somebody else has changed the split since, it stays as it is; so does each override that somebody else has changed, and
    the rest is put back. The command then shows the captured, the intended and the found state, and the two commands that close
    the run. `--revert` puts back all overrides or none.
    """
    given: dict[RecoveryMode, bool] = {
        "revert": revert,
        "accept-found": accept_found,
        "restore-captured": restore_captured,
    }
    modes: list[RecoveryMode] = [mode for mode, is_set in given.items() if is_set]
    if len(modes) > 1:
        raise click.UsageError(
            f"{' and '.join(f'--{mode}' for mode in modes)} exclude each other: give one of them"
        )
    if local_only and isinstance(run_directory, str):
        raise click.UsageError(
            "--local-only needs a run directory: an address in STATE_URL has no other journal"
        )
    sys.exit(run_command(_recover, run_directory, *(modes or ["finish"]), local_only))


async def _recover(run: str | Path, mode: "RecoveryMode", local_only: bool) -> int:
    from cutover.wiring.recover import recover_cutover  # noqa: PLC0415  `cutover --help` must not load the train

    terminal = Terminal()
    heartbeat = Heartbeat(terminal)

    async def work(interruption: Interruption) -> int:
        options = [*([] if mode == "finish" else [f"--{mode}"]), *(["--local-only"] if local_only else [])]
        interruption.work = "recovery"
        interruption.recover = interruption.left_open = recover_command(run, *options)

        def observe(event: TrainEvent) -> None:
            if isinstance(event, TrainFinished):
                # The exit code in the journal is the train's: 1 if the recovery has closed the run, else 4.
                interruption.verdict = EXIT_UNPROVEN if event.exit_code == EXIT_UNPROVEN else 0
            heartbeat.observe(event)

        recovery = await recover_cutover(run, way=mode, observer=observe, local_only=local_only)
        terminal.line(f"{'closed' if recovery.closed else 'UNRESOLVED'}: {recovery.detail}")
        if recovery.folder is not None:
            terminal.line(f"journal   copied to this machine: {recovery.folder}")
        if recovery.written:
            terminal.line(f"evidence  written from the journal: {', '.join(recovery.written)}")
        for line in recovery.to_do:
            terminal.line(f"  DO      {line}")
        if on_github(os.environ) and not recovery.closed:
            to_do = [f"DO: {line}" for line in recovery.to_do]
            terminal.command(annotation("error", "cutover: UNRESOLVED", [recovery.detail, *to_do]))
        return recovery.exit_code

    return await until_signalled(work, terminal, beside=heartbeat.beat)
