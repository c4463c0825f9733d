"""``cutover recover``: finish the undo of a train that was cut off."""

import sys
from pathlib import Path

import click

from cutover.cli.signals import run_command, until_signalled
from cutover.terminal import Terminal


@click.command(
    epilog="Exit codes: 0 closed, or nothing was open; 2 usage; 3 could not start; 4 unresolved: act."
)
@click.argument("run_directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def recover(run_directory: Path) -> None:
    """Finish the undo of a train that was cut off, from the journal in RUN_DIRECTORY; tokens as for `run`."""
    sys.exit(run_command(_recover, run_directory))


async def _recover(run_directory: Path) -> int:
    from cutover.recover import recover_cutover  # noqa: PLC0415  `cutover --help` should not load the train

    terminal = Terminal()

    async def work() -> int:
        recovery = await recover_cutover(run_directory, observer=terminal.observe)
        terminal.line(f"{'closed' if recovery.closed else 'UNRESOLVED'}: {recovery.detail}")
        for line in recovery.to_do:
            terminal.line(f"  DO      {line}")
        return recovery.exit_code

    return await until_signalled(work, terminal)
