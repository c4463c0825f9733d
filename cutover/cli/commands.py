"""The command: ``run``, ``check``, ``simulate``, ``recover``."""

import signal

import click

from cutover.cli.check import check
from cutover.cli.recover import recover
from cutover.cli.run import run
from cutover.cli.simulate import simulate


class _Commands(click.Group):
    """Where click would say "Aborted!" and exit with 1, which is a verdict here, Ctrl-C has a code of its own."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            ctx.exit(128 + signal.SIGINT)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stream-cutover")
def main() -> None:
    """Move production chat streams to a new service, safely."""


for command in (run, check, simulate, recover):
    main.add_command(command)
