"""``cutover preflight``: everything that can be known before a train, asked of production without a change."""

import sys

import click

from cutover.cli.run import file_of_inputs, list_faults, train_arguments
from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.config.config import ALL_NEEDS, CutoverConfig
from cutover.report.terminal import Terminal

_NAME = "cutover preflight"


@click.command(
    epilog="Exit codes: 0 no line failed; 2 usage or configuration; 3 a line failed, and a train would not start; 130, 143 interrupted."
)
@click.option("--json", "as_document", is_flag=True, help="Print one JSON document in place of the lines.")
@click.option(
    "--what-if",
    multiple=True,
    is_eager=True,
    callback=list_faults,
    metavar="FAULT",
    help="With DRY_RUN=1: give the rehearsal's production this fault. `list` names all faults.",
)
@train_arguments
def preflight(
    stable: str,
    canary: str,
    file: str | None,
    as_document: bool,
    what_if: tuple[str, ...],
    **options: str | None,
) -> None:
    """Say if a release train would work: ask all that `run` asks before its first change, and change nothing.

    It takes the inputs of `cutover run`, and asks production, live. Only if DRY_RUN=1 is set does it ask an embedded production instead.
    It sends reads, one traffic update with validateOnly, and with APPLY_ROUTE_FLIP=1 one override to a target that no service knows.
    """

    def configure() -> CutoverConfig:
        return CutoverConfig.from_env(
            stable_revision=stable,
            canary_revision=canary,
            options={field: text for field, text in options.items() if text is not None},
            file=file_of_inputs(file),
            live_as=_NAME,
            what_if=what_if,
            # A folder that cannot be written gets its own line.
            needs=ALL_NEEDS - {"output_dir"},
        )

    async def work(_: Interruption) -> int:
        from cutover.report.preflight_report import as_json, as_lines  # noqa: PLC0415  `cutover --help` must not load the train
        from cutover.wiring.preflight import preflight_cutover  # noqa: PLC0415

        config = configure()
        if not as_document:
            asked = "an embedded production" if config.dry_run else f"{config.base_url} and Cloud Run"
            Terminal().line(f"asking {asked}; nothing is changed ...")
        report = await preflight_cutover(config)
        if as_document:
            click.echo(as_json(report))
        else:
            out = Terminal(sys.stdout)
            for line in as_lines(report):
                out.line(line)
        return report.exit_code

    async def command() -> int:
        return await until_signalled(work, Terminal(), changes_production=False)

    sys.exit(run_command(command))
