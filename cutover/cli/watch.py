"""``cutover watch``: after a GO, prove for some minutes that production stays as the train left it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.clock import utc_now
from cutover.report.terminal import Terminal

if TYPE_CHECKING:
    from cutover.train.watching import Round

_DAY_MINUTES = 1440.0


@click.command(
    epilog="Exit codes: 0 all held; 1 an override, the split or a stream was lost; 2 usage or configuration; 3 nothing was lost, but a read "
    "failed, or the watch could not start; 130, 143 interrupted."
)
@click.argument("run_directory", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--minutes",
    type=click.FloatRange(0, _DAY_MINUTES),
    default=60.0,
    show_default=True,
    help="How long to watch.",
)
@click.option(
    "--every",
    type=click.FloatRange(5, 3600),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between the beginnings of two rounds. Each round starts one chat turn for each alias.",
)
def watch(run_directory: Path, minutes: float, every: float) -> None:
    """Watch production after a GO. RUN_DIRECTORY is the one of the completed cutover. Nothing is changed.

    An override lives in the memory of one instance, and is lost with it. Each round reads the overrides 59 times, the split once, and checks
    one stream of each alias. With INSTANCE_HEADER a lost override is told with the instance that lost it, and in any case with
    the command that sets it again. The tokens are those of `cutover run`.
    """
    sys.exit(run_command(_watch, run_directory, minutes, every))


async def _watch(run_directory: Path, minutes: float, every: float) -> int:
    from cutover.train.watching import RoundStatus  # noqa: PLC0415  `cutover --help` must not load the train
    from cutover.wiring.watch import watch_run  # noqa: PLC0415

    terminal, out = Terminal(), Terminal(sys.stdout)

    def show(seen: "Round") -> None:
        out.line(f"{utc_now()[11:19]} round {seen.number}: {seen.status.value}")
        for look in seen.looks:
            if look.status is not RoundStatus.HELD or seen.number == 1:
                out.line(f"  {look.name:20} {look.status.value:8} {look.detail}")
            for command in look.to_do:
                out.line(f"  DO                   set it again, until each instance has answered: {command}")

    async def work(_: Interruption) -> int:
        watched = await watch_run(run_directory, minutes=minutes, every=every, on_round=show)
        out.line(f"watch     {watched.status.value}")
        out.line(f"evidence  {watched.file}")
        return {RoundStatus.HELD: 0, RoundStatus.LOST: 1, RoundStatus.UNKNOWN: 3}[watched.status]

    return await until_signalled(work, terminal, changes_production=False)
