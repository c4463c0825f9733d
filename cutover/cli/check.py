"""``cutover check``: check URLs and recordings against a contract."""

import importlib.util
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cutover.checking.recording import check_recording
from cutover.cli.check_manifest import check_manifest
from cutover.cli.check_request import Sent, read_method, read_target, sent_by_user
from cutover.cli.check_targets import is_url, refuse_lone_method, refuse_recordings, refuse_unusable
from cutover.cli.check_urls import check_urls
from cutover.cli.contracts import choose_contract
from cutover.cli.explain_rule import explanation
from cutover.cli.signals import run_command
from cutover.contract import StreamContract
from cutover.errors import ConfigurationError
from cutover.protocols import SHIPPED
from cutover.report.check_verdicts import Verdict, as_json, as_junit, as_lines
from cutover.report.terminal import Terminal
from cutover.text import printable

if TYPE_CHECKING:
    from cutover.http.environment import HttpEnvironment


class _Seconds(click.FloatRange):
    """A time: more than zero."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401  as in click
        """Return the number. Not a number is none, though it is not below zero."""
        seconds: float = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no time", param, ctx)
        return seconds


_SECONDS = _Seconds(min=0, min_open=True)


@click.command(
    epilog="Exit codes: 0 the contract holds; 1 it does not; 2 usage; 3 a target cannot be reached. "
    "Of several targets the highest code counts."
)
@click.argument("targets", nargs=-1, metavar="TARGET...")
@click.option(
    "--contract",
    "name",
    metavar="NAME|MODULE:NAME",
    help=f"The contract to check against: {', '.join(SHIPPED)}, or module:NAME for one of your own. Default: compat-lane.",
)
@click.option(
    "--openapi",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Check against the contract in this OpenAPI document, JSON or YAML. Needs the extra `openapi`.",
)
@click.option(
    "--path",
    metavar="PATH",
    help="With --openapi: the path of the operation. Default: the URL's; for a recording, that of the only event stream.",
)
@click.option(
    "--overlay",
    "overlays",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="With --openapi: apply this OpenAPI Overlay first; can be given several times.",
)
@click.option(
    "--terminator",
    metavar="TEXT",
    help="The data of the event that ends the stream, such as [DONE], if the contract does not say it.",
)
@click.option(
    "--method",
    metavar="METHOD",
    callback=read_method,
    help="The method of the request, such as GET, POST or PUT. Default: the contract's.",
)
@click.option(
    "--deadline",
    "--seconds",
    "deadline",
    type=_SECONDS,
    help="Longest time for a stream, in seconds. A stream without an end is left then. Default: the contract's.",
)
@click.option(
    "--first-event",
    type=_SECONDS,
    help="Longest time to the first event, in seconds. Comments do not count. Default: the contract's.",
)
@click.option(
    "--gap",
    type=_SECONDS,
    help="Longest time between two events, in seconds. Comments do not count. Default: the contract's.",
)
@click.option(
    "--max-event-bytes",
    type=click.IntRange(min=1),
    metavar="N",
    help="Largest event, in bytes. Default: the contract's.",
)
@click.option(
    "--known-call",
    "known_calls",
    multiple=True,
    metavar="ID",
    help="A tool call in the message that the stream continues, so that the stream may refer to it; can be given several times.",
)
@click.option(
    "--no-strict",
    is_flag=True,
    help="Give the verdict of the client itself: a break that a user sees, but that the client survives, is shown and no violation.",
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="Send this header; can be given several times. $VAR in VALUE is read from the environment and never shown; $$ stands for $.",
)
@click.option(
    "--data",
    metavar="JSON|@FILE",
    help="The request body, or @FILE to read it from a file. Default: a new chat turn for an alias of the lane (such as /api/chat/stream), else no body.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Cut each stream behind a few events, reconnect with Last-Event-ID, and check that nothing is lost or doubled. Sends two requests to each URL.",
)
@click.option(
    "--manifest",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Check that FILE is a manifest of a dual run (REQUESTS_FILE), and exit: 0 if it is, 2 if not. No request is sent.",
)
@click.option("--explain", metavar="RULE", help="Explain one rule and exit; no TARGET is checked.")
@click.option(
    "--json", "as_json_lines", is_flag=True, help="Print one JSON object for each target, each on one line."
)
@click.option(
    "--junit-xml",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a JUnit report with one test case for each target. Needs the extra `junit`.",
)
def check(
    targets: tuple[str, ...],
    name: str | None,
    openapi: Path | None,
    path: str | None,
    overlays: tuple[Path, ...],
    terminator: str | None,
    method: str | None,
    deadline: float | None,
    first_event: float | None,
    gap: float | None,
    max_event_bytes: int | None,
    known_calls: tuple[str, ...],
    no_strict: bool,
    headers: tuple[str, ...],
    data: str | None,
    resume: bool,
    manifest: Path | None,
    explain: str | None,
    as_json_lines: bool,
    junit_xml: Path | None,
) -> None:
    """Check each TARGET against a contract.

    A TARGET is a URL that streams, or a file with a recorded body (`-`: standard input).
    """
    if manifest is not None:
        click.echo(check_manifest(manifest, targets))
        return
    choice = choose_contract(
        name,
        openapi,
        path=path,
        overlays=overlays,
        terminator=terminator,
        method=method,
        limits={
            "whole": deadline,
            "first_event": first_event,
            "event_gap": gap,
            "max_event_bytes": max_event_bytes,
        },
        strict=not no_strict,
    )
    if explain is not None:
        click.echo(explanation(explain, choice.for_explanation))
        return
    refuse_unusable(targets, data)
    if method is not None and openapi is None:
        refuse_lone_method(targets)
    if resume:
        refuse_recordings(targets)
    contracts = {target: choice.contract_for(target) for target in targets}
    sent = sent_by_user(headers, data, method=method, known_calls=known_calls, resume=resume)
    environment = _environment(targets)
    if junit_xml is not None:
        _empty_junit_report(junit_xml)
    code, verdicts = _check_all(targets, contracts, sent, environment)
    _print(verdicts, as_json_lines=as_json_lines)
    if junit_xml is not None:
        _write(junit_xml, as_junit(verdicts))
    sys.exit(max([code, *(verdict.exit_code for verdict in verdicts)]))


def _print(verdicts: Sequence[Verdict], *, as_json_lines: bool) -> None:
    for verdict in verdicts:
        if as_json_lines:
            click.echo(as_json(verdict))
        else:
            for line in as_lines(verdict):
                Terminal(sys.stdout).line(line)


def _environment(targets: Sequence[str]) -> "HttpEnvironment | None":
    """Return the certificates and proxies for URLs, or None if every target is a recording; raise a usage error for a wrong variable."""
    if not any(map(is_url, targets)):
        return None
    # Checking a recording needs no HTTP client.
    from cutover.http.environment import read_environment  # noqa: PLC0415

    try:
        return read_environment(tls=any(target.lower().startswith("https:") for target in targets))
    except ConfigurationError as error:
        raise click.UsageError("; ".join(error.problems)) from error


def _empty_junit_report(path: Path) -> None:
    """Empty the file before any request: a report of an earlier run must not look like one of this run."""
    if importlib.util.find_spec("junitparser") is None:
        raise click.UsageError("--junit-xml needs junitparser: pip install 'stream-cutover[junit]'")
    _write(path, b"")


def _write(path: Path, report: bytes) -> None:
    try:
        path.write_bytes(report)
    except OSError as error:
        raise click.BadParameter(
            f"{path} cannot be written ({error.strerror})", param_hint="--junit-xml"
        ) from error


def _check_all(
    targets: Sequence[str],
    contracts: Mapping[str, StreamContract],
    sent: Sent,
    environment: "HttpEnvironment | None",
) -> tuple[int, list[Verdict]]:
    """Return an exit code and the verdicts in target order. After a signal or fault the code is not 0 and some are missing."""
    verdicts = {
        at: _check_recording_file(target, contracts[target], sent)
        for at, target in enumerate(targets)
        if not is_url(target)
    }
    urls = {at: target for at, target in enumerate(targets) if is_url(target)}
    code = run_command(check_urls, urls, contracts, sent, environment, verdicts) if environment else 0
    return code, [verdicts[at].masked(sent.secrets_for(targets[at])) for at in sorted(verdicts)]


def _check_recording_file(target: str, contract: StreamContract, sent: Sent) -> Verdict:
    try:
        body = read_target(target)
    except OSError as error:
        raise click.UsageError(
            f"{printable(target)}: neither an http(s) URL nor a file that can be read ({error.strerror})"
        ) from error
    # The contract is the strict form already, unless the client's own verdict was asked for.
    report = check_recording(body, contract=contract, strict=False, context=sent.context())
    return Verdict(target=target, report=report)
