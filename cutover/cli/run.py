"""``cutover run``: one release train."""

import os
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import click

from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.config.config import CutoverConfig
from cutover.config.variables import VARIABLES
from cutover.errors import UndoUnprovenError
from cutover.model.train_events import Observer, TrainEvent, TrainFinished
from cutover.report.terminal import Terminal, conclusion
from cutover.text import recover_command

if TYPE_CHECKING:
    from cutover.model.summary import CutoverSummary

Command = Callable[..., Any]


def _options(command: Command) -> Command:
    """Give a command an option for each variable that is no secret."""
    for variable in reversed(VARIABLES):
        if not variable.secret:
            said = variable.help + (f"  [default: {variable.default}]" if variable.default else "")
            command = click.option(variable.option, variable.field, metavar="VALUE", help=said)(command)
    return command


def _epilog() -> str:
    secrets = "\n".join(f"  {variable.name:24}{variable.help}" for variable in VARIABLES if variable.secret)
    return (
        "\b\nEvery option can be set by the environment variable of the same name (--base-url: BASE_URL).\n"
        f"Tokens come from the environment alone:\n{secrets}\n\n"
        "\b\nExit codes: 0 all gates hold; 1 the evidence says no, undone; 2 usage; 3 no evidence, nothing touched;\n"
        "4 an undo could not be proven: act; 130, 143 interrupted, undone."
    )


@click.command(epilog=_epilog())
@click.argument("stable")
@click.argument("canary")
@click.option(
    "--what-if",
    multiple=True,
    metavar="FAULT",
    help="A rehearsal's production has this fault; `list` names them.",
)
@_options
def run(stable: str, canary: str, what_if: tuple[str, ...], **options: str | None) -> None:
    """Run a release train from revision STABLE to revision CANARY; a rehearsal unless DRY_RUN=0."""
    if "list" in what_if:
        from cutover.simulation import FAULTS, VARIANTS  # noqa: PLC0415  only where it is asked for

        for name, fault in {**FAULTS, **VARIANTS}.items():
            click.echo(f"{name:40} {fault.sentence}")
        return
    given = {name.upper(): value for name, value in options.items() if value is not None}
    sys.exit(run_command(_run_train, stable, canary, {**os.environ, **given}, what_if))


async def _run_train(stable: str, canary: str, env: Mapping[str, str], what_if: tuple[str, ...]) -> int:
    from cutover.report.preview import describe  # noqa: PLC0415  `cutover --help` should not load the train

    terminal, out = Terminal(), Terminal(sys.stdout)

    async def train(interruption: Interruption) -> int:
        config = CutoverConfig.from_env(
            stable_revision=stable, canary_revision=canary, env=env, what_if=what_if
        )
        if config.dry_run:
            terminal.line("rehearsal on an embedded production; the live run (DRY_RUN=0) would do this:")
        for line in describe(config):
            terminal.line(f"  {line}")
        evidence = None
        if config.output_dir is not None:
            evidence = str(config.output_dir / "SUMMARY.md")
            interruption.recover = recover_command(config.output_dir)
        try:
            summary = await _observed(config, terminal, interruption)
        except (anyio.get_cancelled_exc_class(), UndoUnprovenError):
            out.line(f"evidence  {evidence}")
            raise
        for line in conclusion(summary, evidence=evidence):
            out.line(line)
        return summary.exit_code

    with warnings.catch_warnings():
        warnings.simplefilter("always", RuntimeWarning)
        return await until_signalled(train, terminal)


async def _observed(
    config: CutoverConfig, terminal: Terminal, interruption: Interruption
) -> "CutoverSummary":
    """Run the train with a live view on a terminal, with plain lines elsewhere; a rehearsal is over too soon to watch."""
    from cutover.wiring.run import run_cutover  # noqa: PLC0415

    def interrupted_code() -> int:
        return interruption.exit_code

    def observed(show: Observer) -> Observer:
        def observe(event: TrainEvent) -> None:
            if isinstance(event, TrainFinished):
                interruption.verdict = event.exit_code
            show(event)

        return observe

    if config.dry_run or not sys.stderr.isatty():
        observer = observed(terminal.observe)
        return await run_cutover(config, observer=observer, interrupted_code=interrupted_code)
    from cutover.report.live_view import LiveView  # noqa: PLC0415  rich takes a while to load

    with LiveView() as view:
        observer = observed(view.observe)
        return await run_cutover(config, observer=observer, interrupted_code=interrupted_code)
