"""The command: ``run``, ``check``, ``simulate``, ``recover``."""

import click

from cutover.cli.check import check
from cutover.cli.recover import recover
from cutover.cli.run import run
from cutover.cli.simulate import simulate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="stream-cutover")
def main() -> None:
    """Move production chat streams to a new service, safely."""


for command in (run, check, simulate, recover):
    main.add_command(command)
