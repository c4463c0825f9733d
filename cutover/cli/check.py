"""``cutover check``: hold URLs and recordings against a contract."""

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import attrs
import click
import msgspec

from cutover.cli.signals import run_command, until_signalled
from cutover.config import VARIABLES
from cutover.contract import (
    AI_SDK_5,
    AI_SDK_6,
    AI_SDK_7,
    COMPAT_LANE,
    RULES,
    ContractReport,
    StreamContext,
    StreamContract,
    check_recording,
)
from cutover.findings import Finding
from cutover.lane import COMPAT
from cutover.quoting import printable
from cutover.terminal import Terminal

CONTRACTS = {"compat-lane": COMPAT_LANE, "ai-sdk-5": AI_SDK_5, "ai-sdk-6": AI_SDK_6, "ai-sdk-7": AI_SDK_7}
EXIT_UNREACHABLE = 3


@attrs.frozen(kw_only=True)
class Verdict:
    """What became of one target."""

    target: str
    report: ContractReport
    unreachable: str | None = None

    @property
    def exit_code(self) -> int:
        """0 the contract holds, 1 it does not, 3 unreachable."""
        return EXIT_UNREACHABLE if self.unreachable else 0 if self.report.ok else 1


@click.command(
    epilog="Exit codes: 0 the contract holds; 1 it does not; 2 usage; 3 a target cannot be reached."
)
@click.argument("targets", nargs=-1, metavar="TARGET...")
@click.option(
    "--contract", "name", type=click.Choice(list(CONTRACTS)), default="compat-lane", show_default=True
)
@click.option(
    "--header",
    "headers",
    multiple=True,
    metavar="'NAME: VALUE'",
    help="$VAR in VALUE is read from the environment.",
)
@click.option(
    "--data",
    metavar="JSON",
    help="The request's body; for an alias of the lane a turn of its own by default.",
)
@click.option("--explain", metavar="RULE", help="Say what a rule is for, and do nothing else.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a target.")
def check(
    targets: tuple[str, ...],
    name: str,
    headers: tuple[str, ...],
    data: str | None,
    explain: str | None,
    as_json: bool,
) -> None:
    """Hold each TARGET against a contract: a URL to stream from, or the file of a recorded body (`-`: standard input)."""
    if explain is not None:
        click.echo(_explanation(explain, CONTRACTS[name]))
        return
    if not targets:
        raise click.UsageError("Missing argument 'TARGET...'.")
    contract = CONTRACTS[name].strict()
    sent = dict(_header(text) for text in headers)
    if data is not None:
        try:
            msgspec.json.decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise click.BadParameter(f"not JSON: {error}", param_hint="--data") from error
    verdicts = [_judge_recording(target, contract) for target in targets if not _is_url(target)]
    urls = [target for target in targets if _is_url(target)]
    code = run_command(_judge_urls, urls, contract, sent, data, verdicts) if urls else 0
    for verdict in sorted(verdicts, key=lambda verdict: targets.index(verdict.target)):
        if as_json:
            click.echo(_as_json(verdict))
        else:
            for line in _as_lines(verdict):
                Terminal(sys.stdout).line(line)
    sys.exit(max([code, *(verdict.exit_code for verdict in verdicts)]))


def _explanation(rule_id: str, contract: StreamContract) -> str:
    """Say why a rule is there, and what it weighs."""
    rule = RULES.get(rule_id)
    if rule is None:
        raise click.BadParameter(
            f"no such rule; there are: {', '.join(sorted(RULES))}", param_hint="--explain"
        )
    weight, strict = contract.severity(rule_id).value, contract.strict().severity(rule_id).value
    return f"{rule.id}: {rule.why}\nin {contract.name}: {weight}; here, and in the pytest fixture: {strict}"


def _judge_recording(target: str, contract: StreamContract) -> Verdict:
    try:
        body = sys.stdin.buffer.read() if target == "-" else Path(target).read_bytes()
    except OSError as error:
        raise click.UsageError(
            f"{target}: neither an http(s) URL nor a file that can be read ({error})"
        ) from error
    return Verdict(target=target, report=check_recording(body, contract=contract))


async def _judge_urls(
    urls: Sequence[str],
    contract: StreamContract,
    headers: dict[str, str],
    data: str | None,
    verdicts: list[Verdict],
) -> int:
    async def judge(url: str) -> None:
        verdicts.append(await _judge(url, contract, headers, data))

    async def judge_all() -> int:
        async with anyio.create_task_group() as group:
            for url in urls:
                group.start_soon(judge, url)
        return 0

    return await until_signalled(judge_all, Terminal())


async def _judge(target: str, contract: StreamContract, headers: dict[str, str], data: str | None) -> Verdict:
    import httpx  # noqa: PLC0415  a recording needs no client

    from cutover.probe import StreamRequest, probe_stream  # noqa: PLC0415

    body, lane_headers, thread_id = _lane_turn(target)
    async with httpx.AsyncClient() as client:
        probe = await probe_stream(
            client,
            StreamRequest(
                method="POST",
                url=target,
                headers={"content-type": "application/json", **lane_headers, **headers},
                body=body if data is None else data.encode(),
                label="check",
            ),
            contract=contract,
            context=StreamContext(thread_id=thread_id) if thread_id and data is None else None,
        )
    return Verdict(target=target, report=probe.report, unreachable=probe.unreachable)


def _lane_turn(url: str) -> tuple[bytes, dict[str, str], str | None]:
    """Return body, headers and thread id of a turn at an alias of the lane; nothing for any other path."""
    path = urlsplit(url).path
    for alias in COMPAT.aliases:
        pattern = re.escape(alias.template).replace(re.escape("{id}"), "([^/]+)")
        if found := re.fullmatch(pattern, path):
            thread_id = (
                found[1] if alias.names_thread else f"thread_check_{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
            )
            defaults = {variable.name: variable.default for variable in VARIABLES}
            names = ("COMPAT_CLIENT_BUILD_ID", "COMPAT_PROTOCOL_VERSION", "COMPAT_SCHEMA_VERSION")
            values = [os.environ.get(name) or defaults[name] for name in names]
            body = msgspec.json.encode(alias.body(thread_id, COMPAT.prompt))
            return body, dict(zip(COMPAT.header_names, values, strict=True)), thread_id
    return b"", {}, None


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()):
        raise click.BadParameter("write 'name: value'", param_hint="--header")
    missing: list[str] = []

    def read(match: re.Match[str]) -> str:
        variable = match[1] or match[2]
        if variable not in os.environ:
            missing.append(variable)
        return os.environ.get(variable, "")

    filled = re.sub(r"\$(?:\{(\w+)\}|(\w+))", read, value.strip())
    if missing:
        raise click.BadParameter(
            f"{name.strip()}: ${missing[0]} is not set in the environment", param_hint="--header"
        )
    if not (filled.isascii() and filled.isprintable()):
        raise click.BadParameter(f"{name.strip()}: its value is not printable ASCII", param_hint="--header")
    return name.strip().lower(), filled


def _is_url(target: str) -> bool:
    return target.startswith(("http://", "https://"))


def _as_lines(verdict: Verdict) -> list[str]:
    if verdict.unreachable:
        return [f"{verdict.target}: UNREACHABLE  {verdict.unreachable}"]
    report = verdict.report
    state = "ok" if report.ok else "BROKEN"
    lines = [f"{verdict.target}: {state}  {report.event_count} events, {len(report.violations)} violations"]
    return lines + [f"  {_finding_line(finding)}" for finding in report.findings]


def _finding_line(finding: Finding) -> str:
    where = [f"event {finding.event_index}"] if finding.event_index is not None else []
    where += [f"byte {finding.byte_offset}"] if finding.byte_offset is not None else []
    told = [f"expected {printable(finding.expected)}"] if finding.expected is not None else []
    told += [f"came {printable(finding.actual)}"] if finding.actual is not None else []
    place = f" ({', '.join(where)})" if where else ""
    more = f"; {', '.join(told)}" if told else ""
    return f"{finding.severity.value} {finding.rule}{place}: {finding.message}{more}"


def _as_json(verdict: Verdict) -> str:
    findings = [
        attrs.asdict(finding) | {"severity": finding.severity.value} for finding in verdict.report.findings
    ]
    document = {
        "target": verdict.target,
        "ok": verdict.exit_code == 0,
        "unreachable": verdict.unreachable,
        "event_count": verdict.report.event_count,
        "findings": findings,
    }
    return msgspec.json.encode(document).decode()
