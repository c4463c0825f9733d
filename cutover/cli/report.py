"""``cutover report``: make the page of a run again, from its journal."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.errors import NotStartedError
from cutover.report.terminal import Terminal

if TYPE_CHECKING:
    from cutover.model.train_events import TrainEvent

EXIT_NO_PAGE = 3
"""Exit code where the journal cannot be read, or the page cannot be written."""


class _Run(click.Path):
    """A run directory, or the address of a run in STATE_URL."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401  as in click
        """Return a path for a folder that exists, and the text of an address."""
        from cutover.record.state_address import is_state_address  # noqa: PLC0415  `cutover --help` must stay quick

        address = isinstance(value, str) and is_state_address(value)
        return value if address else super().convert(value, param, ctx)


@click.command(
    epilog="Exit codes: 0 written; 2 usage; 3 the journal cannot be read, or the page cannot be written."
)
@click.argument("run_directory", type=_Run(exists=True, file_okay=False, path_type=Path))
def report(run_directory: Path | str) -> None:
    """Make report.html again from the journal in RUN_DIRECTORY, and print its path.

    The run may have been killed, or may still run: the page then shows how far it came. Production is not read.

    RUN_DIRECTORY is its folder, or, from any machine, its address in STATE_URL: gs://bucket/prefix/RUN, with the token for the bucket as for
    `cutover recover`. The page of an address is written to report-RUN.html in the present folder.
    """
    if isinstance(run_directory, Path):
        sys.exit(_report(run_directory))
    sys.exit(run_command(_report_from_bucket, run_directory))


def _report(run_directory: Path) -> int:
    from cutover.record.journal import read_journal  # noqa: PLC0415
    from cutover.report.page.file_name import FILE  # noqa: PLC0415

    terminal = Terminal()
    try:
        events = read_journal(run_directory / "journal.jsonl")
    except OSError as error:
        terminal.line(
            f"{run_directory} holds no journal that can be read: {error}; name the folder of a run (OUTPUT_DIR)"
        )
        return EXIT_NO_PAGE
    except NotStartedError as error:
        terminal.line(str(error))
        return EXIT_NO_PAGE
    if not events:
        terminal.line(
            f"the journal in {run_directory} holds no event: the run never began, and there is nothing to show"
        )
        return EXIT_NO_PAGE
    return _write(run_directory / FILE, events, run_directory.absolute())


async def _report_from_bucket(text: str) -> int:
    from cutover.report.page.file_name import FILE  # noqa: PLC0415
    from cutover.wiring.status import fetch_events, run_address  # noqa: PLC0415

    async def work(_: Interruption) -> int:
        address = run_address(text)
        try:
            events = await fetch_events(address, os.environ)
        except NotStartedError as error:
            Terminal().line(str(error))
            return EXIT_NO_PAGE
        # No run directory: a journal beside those of this machine would count as a run of it.
        name = Path(FILE)
        return _write(Path(f"{name.stem}-{address.run}{name.suffix}"), events, str(address))

    return await until_signalled(work, Terminal(), changes_production=False)


def _write(path: Path, events: "list[TrainEvent]", run: Path | str) -> int:
    """Write the page of a run, and print its path; return the exit code."""
    from cutover.record.evidence import write_atomically  # noqa: PLC0415
    from cutover.report.page.document import render_page  # noqa: PLC0415

    try:
        write_atomically(path, render_page(events, folder=run))
    except OSError as error:
        Terminal().line(f"{path} cannot be written: {error}; nothing else was changed")
        return EXIT_NO_PAGE
    Terminal(sys.stdout).line(str(path))
    return 0
