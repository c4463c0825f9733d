"""``cutover status``: the status of a run."""

import os
import sys
from pathlib import Path

import click

from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.report.terminal import Terminal


@click.command(
    epilog="Exit codes: 0 shown, whatever the state; 2 there is no run, or it cannot be read; 3 the locks, or the bucket of STATE_URL, cannot be read."
)
@click.argument("run_directory", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def status(run_directory: str | None, as_json: bool) -> None:
    """Show where a run stands: its step, the split, the decision that it waits for, its verdict, its process.

    RUN_DIRECTORY is the folder of the run, or, from any machine, its address in STATE_URL: gs://bucket/prefix/RUN, with the token for the bucket
    as for `cutover recover`. Without RUN_DIRECTORY it shows the run of OUTPUT_DIR, or else the newest run under storage/app/production-stream-cutover. It reads the
    journal and the lock, and changes nothing.
    """
    sys.exit(run_command(_status, run_directory, as_json))


async def _status(run_directory: str | None, as_json: bool) -> int:
    import msgspec  # noqa: PLC0415  `cutover --help` should not load it

    from cutover.record.state_address import is_state_address  # noqa: PLC0415
    from cutover.report.status import status_document, status_lines  # noqa: PLC0415
    from cutover.wiring.status import latest_run, look_at, look_in_bucket  # noqa: PLC0415

    async def show(_: Interruption) -> int:
        if run_directory is not None and is_state_address(run_directory):
            view = await look_in_bucket(run_directory, os.environ)
        else:
            view = look_at(Path(run_directory) if run_directory is not None else latest_run(os.environ))
        out = Terminal(sys.stdout)
        if as_json:
            document = status_document(view.folder, view.status, view.process)
            sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
            return 0
        for line in status_lines(view.folder, view.status, view.process):
            out.line(line)
        return 0

    return await until_signalled(show, Terminal(), changes_production=False)
