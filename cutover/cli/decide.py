"""``cutover decide``: let a waiting train go on, or stop it."""

import sys
from typing import Literal

import click

from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.errors import NotDecidedError
from cutover.report.terminal import Terminal
from cutover.text import status_command

_NOT_CONFIRMED, _REFUSED = 1, 3


@click.command(
    epilog="Exit codes: 0 the train has taken the decision; 1 it was written, but the train has not taken it; "
    "2 wrong usage, or no run; 3 refused: nothing was written."
)
@click.argument("run_directory")
@click.argument("answer", type=click.Choice(["go", "stop"]))
@click.option("--by", required=True, metavar="NAME", help="Your name. It is recorded, and nothing proves it.")
@click.option("--because", required=True, metavar="TEXT", help="The reason. It is recorded.")
@click.option(
    "--shown",
    metavar="ID",
    help="The id of the state that you saw. If the train waits with another state now, the decision is refused.",
)
def decide(run_directory: str, answer: str, by: str, because: str, shown: str | None) -> None:
    """Decide for the train in RUN_DIRECTORY that waits at a place of HOLD_AT.

    RUN_DIRECTORY is its folder, or, from any machine, its address in STATE_URL: gs://bucket/prefix/RUN. For an address, CLOUD_RUN_ACCESS_TOKEN,
    its file or its command (else the application default credentials) must be set as for `cutover recover`.

    `go`: the train goes on. `stop`: it undoes its changes and ends with NO GO. `cutover status` shows the whole command.
    """
    sys.exit(run_command(_decide, run_directory, answer, by, because, shown))


async def _decide(
    run_directory: str, answer: Literal["go", "stop"], by: str, because: str, shown: str | None
) -> int:
    from cutover.model.holds import place  # noqa: PLC0415  `cutover --help` should not load the train
    from cutover.wiring.decide import decide as write  # noqa: PLC0415

    terminal, out = Terminal(), Terminal(sys.stdout)

    async def work(_: Interruption) -> int:
        try:
            decided = await write(run_directory, answer, by=by, because=because, shown=shown)
        except NotDecidedError as error:
            terminal.line(f"refused: {error}")
            return _REFUSED
        waiting, written = decided.waiting, decided.decision
        out.line(f"shown     {waiting.state}")
        if decided.taken:
            said = f"by {written.by}: {written.because}"
            out.line(f"taken     {answer}, {place(waiting.hold)} ({waiting.step_id}), {said}")
            return 0
        terminal.line(
            f"{answer} was written, but the train has not taken it: it may have ended its wait by itself; look at it: "
            f"{status_command(run_directory)}"
        )
        return _NOT_CONFIRMED

    return await until_signalled(work, terminal, changes_production=False)
