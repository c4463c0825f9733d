"""``cutover run``: one release train."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import click

from cutover.cli.ci_reports import CiReports
from cutover.cli.signals import Interruption, run_command, until_signalled
from cutover.config.config import INPUTS, CutoverConfig
from cutover.config.inputs import written
from cutover.config.sources import FILE
from cutover.errors import ConfigurationError, UndoUnprovenError
from cutover.model.train_events import Observer, TrainEvent, TrainFinished
from cutover.model.undo_plan import plan_undo
from cutover.report.heartbeat import Heartbeat
from cutover.report.json_lines import JsonLines
from cutover.report.terminal import Terminal, conclusion, describe_undo
from cutover.text import recover_command

if TYPE_CHECKING:
    from cutover.model.summary import CutoverSummary

Command = Callable[..., Any]
Configure = Callable[[], CutoverConfig]
"""Function that reads the configuration or raises ConfigurationError. `until_signalled` prints its problems."""


def train_arguments(command: Command) -> Command:
    """Give a command the two revisions, the file of inputs, and an option for each input that is no secret."""
    for declared in reversed(INPUTS):
        if not declared.secret:
            default = written(declared.default)
            help_text = declared.help + (f"  [default: {default}]" if default else "")
            command = click.option(declared.option, declared.field, metavar="VALUE", help=help_text)(command)
    file_help = f"A TOML file with inputs; without this option {FILE} is read, where that file exists."
    command = click.option("--config", "file", metavar="FILE", help=file_help)(command)
    return click.argument("stable")(click.argument("canary")(command))


def _epilog() -> str:
    tokens, secrets = (
        "\n".join(
            f"  {declared.variable:24}{declared.help}"
            for declared in INPUTS
            if declared.secret and declared.token is token
        )
        for token in (True, False)
    )
    return (
        "\b\nEvery option can be set by the environment variable of the same name (--base-url: BASE_URL), or by a key of\n"
        f'{FILE} (base_url = "..."). An option wins over a variable, a variable over the file, the file over the default.\n'
        f"A token is one of these variables, or comes from its _FILE or _COMMAND, which is also an option and a key:\n{tokens}\n"
        f"Other secrets are variables alone:\n{secrets}\n\n"
        "\b\nExit codes: 0 all gates hold; 1 a gate does not hold, all changes undone; 2 usage or configuration;\n"
        "3 nothing judged, or not started: no share and no override changed; 4 an undo could not be proven: act;\n"
        "130, 143 interrupted, all changes undone."
    )


def list_faults(context: click.Context, _: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    """Print every fault and end the command, if ``list`` is among the names."""
    if "list" in names:
        from cutover.simulation import FAULTS, VARIANTS  # noqa: PLC0415  only where it is asked for

        for name, fault in {**FAULTS, **VARIANTS}.items():
            click.echo(f"{name:40} {fault.sentence}")
        context.exit()
    return names


@click.command(epilog=_epilog())
@click.option(
    "--show-config", is_flag=True, help="Print every input, its value and where that came from; run nothing."
)
@click.option(
    "--what-if",
    multiple=True,
    is_eager=True,
    callback=list_faults,
    metavar="FAULT",
    help="Give the rehearsal's production this fault; can be given several times. `list` names all faults.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print the train events on standard output, one JSON object a line, as in journal.jsonl, and nothing else there.",
)
@click.option(
    "--junit-xml",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a JUnit report, with a test case for each check and for the verdict. Needs the extra `junit`.",
)
@train_arguments
def run(
    stable: str,
    canary: str,
    file: str | None,
    show_config: bool,
    what_if: tuple[str, ...],
    as_json: bool,
    junit_xml: Path | None,
    **options: str | None,
) -> None:
    """Run a release train. STABLE is the Cloud Run revision that has all the traffic now, CANARY the one to test.

    It is a rehearsal unless DRY_RUN=0.
    """

    def configure() -> CutoverConfig:
        return CutoverConfig.from_env(
            stable_revision=stable,
            canary_revision=canary,
            options={field: text for field, text in options.items() if text is not None},
            file=file_of_inputs(file),
            what_if=what_if,
        )

    if show_config and as_json:
        raise click.UsageError("--show-config and --json exclude each other: give one of them")
    if show_config:
        sys.exit(run_command(_show, configure))
    reports = CiReports(junit_xml=junit_xml)
    reports.prepare()
    sys.exit(run_command(_run_train, configure, as_json, reports))


def file_of_inputs(named: str | None) -> Path | None:
    """Return the file to read: the named one, else ``cutover.toml`` if it exists, else None. Refuse an empty name."""
    if named is None:
        # A broken link counts as a file here: reading it fails, so the user learns of it.
        return FILE if os.path.lexists(FILE) else None
    if not named:
        raise ConfigurationError(["--config must name a file, not be empty"])
    return Path(named)


async def _show(configure: Configure) -> int:
    """Print every input, and run nothing."""
    from cutover.report.configuration import describe_inputs  # noqa: PLC0415  only where it is asked for

    async def show(_: Interruption) -> int:
        for line in describe_inputs(configure()):
            Terminal(sys.stdout).line(line)
        return 0

    return await until_signalled(show, Terminal(), changes_production=False)


async def _run_train(configure: Configure, as_json: bool, reports: CiReports) -> int:
    terminal = Terminal()
    if not as_json:
        code = await _run_and_conclude(configure, terminal, Terminal(sys.stdout), reports.observe)
    else:
        code = await _run_with_json(configure, terminal, reports)
    reports.write(terminal, exit_code=code)
    return code


async def _run_with_json(configure: Configure, terminal: Terminal, reports: CiReports) -> int:
    """Run a train. Machines read standard output, so people's words are on standard error."""
    with JsonLines.on(sys.stdout) as lines:

        def observe(event: TrainEvent) -> None:
            reports.observe(event)
            lines.observe(event)

        code = await _run_and_conclude(configure, terminal, terminal, observe)
    if lines.lost:
        terminal.line(
            f"standard output: {lines.lost}; the exit code is correct, and journal.jsonl has every event"
        )
    return code


async def _run_and_conclude(configure: Configure, terminal: Terminal, out: Terminal, also: Observer) -> int:
    """Run a train; say its progress on ``terminal`` and its end on ``out``. ``also`` gets each event too."""
    from cutover.report.preview import describe  # noqa: PLC0415  `cutover --help` should not load the train

    heartbeat = Heartbeat(terminal)

    async def train(interruption: Interruption) -> int:
        # A fault while the inputs are read leaves nothing open.
        interruption.changes_production = False
        config = configure()
        interruption.changes_production = True
        if config.dry_run:
            terminal.line("rehearsal on an embedded production; the live run (DRY_RUN=0) would do this:")
        if from_file := [source.name for source in config.sources.values() if source.in_file]:
            terminal.line(f"  inputs    {', '.join(from_file)}")
        for line in describe(config):
            terminal.line(f"  {line}")
        evidence = None
        if config.output_dir is not None:
            evidence = str(config.output_dir / "SUMMARY.md")
            interruption.recover = recover_command(config.output_dir)
        try:
            summary = await _observed(config, heartbeat, interruption, also)
        except (anyio.get_cancelled_exc_class(), UndoUnprovenError):
            if evidence is not None:
                out.line(f"evidence  {evidence}")
            raise
        for line in conclusion(summary, evidence=evidence):
            out.line(line)
        return summary.exit_code

    return await until_signalled(train, terminal, beside=heartbeat.beat)


async def _observed(
    config: CutoverConfig, heartbeat: Heartbeat, interruption: Interruption, also: Observer
) -> "CutoverSummary":
    """Run the train, with a live view on a terminal and plain lines elsewhere. A rehearsal ends too soon for a live view."""
    from cutover.wiring.run import run_cutover  # noqa: PLC0415

    events: list[TrainEvent] = []

    def observed(show: Observer) -> Observer:
        def observe(event: TrainEvent) -> None:
            events.append(event)
            if isinstance(event, TrainFinished):
                interruption.verdict = event.exit_code
            also(event)
            show(event)

        return observe

    async def run_with(observer: Observer) -> "CutoverSummary":
        return await run_cutover(config, observer=observer, interrupted_code=lambda: interruption.exit_code)

    interruption.undoes = lambda: describe_undo(plan_undo(events, stable=config.stable_revision))
    if config.dry_run or not sys.stderr.isatty():
        return await run_with(observed(heartbeat.observe))
    from cutover.report.live_view import LiveView, stderr_can_redraw  # noqa: PLC0415  rich takes a while to load

    if not stderr_can_redraw():
        return await run_with(observed(heartbeat.observe))
    with LiveView() as view:
        heartbeat.terminal.view = view
        try:
            return await run_with(observed(view.observe))
        finally:
            heartbeat.terminal.close_view()
