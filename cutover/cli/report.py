"""``cutover report``: make the page of a run again, from its journal."""

import sys
from pathlib import Path

import click

from cutover.errors import NotStartedError
from cutover.report.terminal import Terminal

EXIT_NO_PAGE = 3
"""Exit code where the journal cannot be read, or the page cannot be written."""


@click.command(
    epilog="Exit codes: 0 written; 2 usage; 3 the journal cannot be read, or the page cannot be written."
)
@click.argument("run_directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
def report(run_directory: Path) -> None:
    """Make report.html again from the journal in RUN_DIRECTORY, and print its path.

    The run may have been killed, or may still run: the page then shows how far it came. Production is not read.
    """
    sys.exit(_report(run_directory))


def _report(run_directory: Path) -> int:
    from cutover.record.evidence import write_atomically  # noqa: PLC0415  `cutover --help` must stay quick
    from cutover.record.journal import read_journal  # noqa: PLC0415
    from cutover.report.page.document import render_page  # noqa: PLC0415
    from cutover.report.page.file_name import FILE  # noqa: PLC0415

    terminal, out = Terminal(), Terminal(sys.stdout)
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
    path = run_directory / FILE
    try:
        write_atomically(path, render_page(events, folder=run_directory.absolute()))
    except OSError as error:
        terminal.line(f"{path} cannot be written: {error}; nothing else was changed")
        return EXIT_NO_PAGE
    out.line(str(path))
    return 0
