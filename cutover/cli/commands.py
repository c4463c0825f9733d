"""The command ``cutover`` and its subcommands."""

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from cutover.cli.check import check
from cutover.cli.decide import decide
from cutover.cli.lint_openapi import lint_openapi
from cutover.cli.preflight import preflight
from cutover.cli.recover import recover
from cutover.cli.report import report
from cutover.cli.run import run
from cutover.cli.simulate import simulate
from cutover.cli.status import status
from cutover.cli.watch import watch
from cutover.report.terminal import Terminal


class _Commands(click.Group):
    """A command group that exits with 130 on Ctrl-C.

    click itself prints "Aborted!" and exits with 1, but here 1 means NO GO, or a broken contract.
    """

    def invoke(self, ctx: click.Context) -> object:
        """Run the subcommand that the user typed."""
        try:
            with _warnings_as_lines():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """Show each warning of cutover, a ``RuntimeWarning``, as one line for people: Python itself adds a line of source code.

    Each of them is shown, also one that was shown before.
    """
    with warnings.catch_warnings():
        shown_by_python = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, RuntimeWarning):
                Terminal().line(f"warning: {message}")
            else:
                shown_by_python(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        warnings.simplefilter("always", RuntimeWarning)
        yield


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stream-cutover")
def main() -> None:
    """Move production chat streams to a new service, safely."""


for command in (preflight, run, status, decide, watch, recover, report, check, lint_openapi, simulate):
    main.add_command(command)
