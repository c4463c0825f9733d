"""``cutover simulate``: serve the embedded production on loopback."""

import shlex
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import anyio
import click
import msgspec

from cutover.report.terminal import Terminal
from cutover.simulation import FAULTS, VARIANTS, Credentials, Layout, SimulatedProduction
from cutover.text import printable

_HOST = "127.0.0.1"
_BACKLOG = 256


@click.command()
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME",
    help="A fault that this production has; can be given several times. `list` shows all names.",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Number of instances of each revision.",
)
@click.option("--flipped", is_flag=True, help="Start with routes that already lead to the new service.")
@click.option(
    "--settle-seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="Seconds that a traffic update takes.",
)
@click.option(
    "--request-log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write the received requests to when the command ends, one JSON object on each line.",
)
def simulate(
    faults: tuple[str, ...],
    instances: int,
    flipped: bool,
    settle_seconds: float,
    request_log: Path | None,
) -> None:
    """Serve a simulated production on loopback until Ctrl-C. Needs the extra `serve`.

    Prints the environment variables of a live run against it.
    """
    known = {**FAULTS, **VARIANTS}
    if "list" in faults:
        for name, fault in known.items():
            click.echo(f"{name:44} {fault.sentence}")
        return
    unknown = [name for name in faults if name not in known]
    if unknown:
        raise click.BadParameter(
            f"no fault is named {', '.join(unknown)}; `--fault list` shows all names", param_hint="--fault"
        )
    if request_log is not None:
        # Created before anything is served: the log is written when the command ends, and it is too late then to name another file.
        _write(request_log, b"")
    listeners = {name: _listen() for name in ("front", "cloud-run", "legacy", "canary", "storage")}
    urls = {name: f"http://{_HOST}:{listener.getsockname()[1]}" for name, listener in listeners.items()}
    layout = Layout(
        instances=instances,
        front_url=urls["front"],
        cloud_run_url=urls["cloud-run"],
        legacy_url=urls["legacy"],
        storage_url=urls["storage"],
        tag_urls={"canary": urls["canary"]},
        tag_url_form=urls["canary"] + "/tags/{tag}",
        flipped=flipped,
        settle_seconds=settle_seconds,
    )
    credentials = Credentials(
        auth_token="simulated-auth-token",  # noqa: S106  a token of a simulation
        control_token="simulated-control-token",  # noqa: S106
        cloud_run_token="simulated-cloud-run-token",  # noqa: S106
        legacy_token="simulated-legacy-token",  # noqa: S106
    )
    production = SimulatedProduction(
        layout=layout, credentials=credentials, faults=tuple(known[name] for name in faults)
    )
    for line in environment(layout, credentials):
        click.echo(line)
    try:
        anyio.run(_serve, production, list(listeners.values()))
    except KeyboardInterrupt:
        # Ctrl-C is the normal end
        pass
    finally:
        _report(production, request_log)


def environment(layout: Layout, credentials: Credentials) -> list[str]:
    """Return the shell lines that set up a live run against a simulation."""
    variables = {
        "DRY_RUN": "0",
        "APPLY_ROUTE_FLIP": "0" if layout.flipped else "1",
        "BASE_URL": layout.front_url,
        "CLOUD_RUN_API_URL": layout.cloud_run_url,
        "LEGACY_BASE_URL": layout.legacy_url,
        "STATE_API_URL": layout.storage_url,
        "PROJECT": layout.project,
        "REGION": layout.region,
        "SERVICE": layout.service,
        "REVISION_HEADER": layout.revision_header,
        "INSTANCE_HEADER": layout.instance_header,
        "AUTH_TOKEN": credentials.auth_token,
        "CONTROL_ACCESS_TOKEN": credentials.control_token,
        "CLOUD_RUN_ACCESS_TOKEN": credentials.cloud_run_token,
        "LEGACY_AUTH_TOKEN": credentials.legacy_token,
    }
    return [
        *_exports(variables),
        f"# to keep the lock and the journal in a bucket too: export STATE_URL=gs://{layout.bucket}/trains",
        f"# to move the traffic by gcloud: {'; '.join(_exports(gcloud_environment(layout.cloud_run_url)))}",
        f"# then: cutover run {layout.stable} {layout.canary}",
    ]


def gcloud_environment(cloud_run_url: str) -> dict[str, str]:
    """Return the environment variables that lead TRAFFIC_BACKEND=gcloud to a Cloud Run API on loopback.

    The API is set as gcloud's proxy too: gcloud puts the region before the host name, and that name cannot be resolved.
    """
    address = urlsplit(cloud_run_url)
    return {
        "TRAFFIC_BACKEND": "gcloud",
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_RUN": f"{cloud_run_url}/",
        "CLOUDSDK_PROXY_TYPE": "http",
        "CLOUDSDK_PROXY_ADDRESS": str(address.hostname),
        "CLOUDSDK_PROXY_PORT": str(address.port),
    }


def _exports(variables: Mapping[str, str]) -> list[str]:
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


async def _serve(production: SimulatedProduction, listeners: Sequence[socket.socket]) -> None:
    try:
        import uvicorn  # noqa: PLC0415  an extra
    except ImportError:
        raise click.ClickException(
            "`cutover simulate` needs the extra `serve`: pip install 'stream-cutover[serve]'"
        ) from None
    config = uvicorn.Config(
        production.app,
        interface="asgi3",
        lifespan="off",
        log_level="critical",
        access_log=False,
        # The simulation sends its own.
        date_header=False,
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve(sockets=list(listeners))


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((_HOST, 0))
    listener.listen(_BACKLOG)
    return listener


def _report(production: SimulatedProduction, request_log: Path | None) -> None:
    """Print the counts and the final state, and write the request log."""
    terminal = Terminal(sys.stdout)
    terminal.line(f"requests  {len(production.requests)}, of which {production.turns} started a chat turn")
    terminal.line(f"traffic   {production.traffic}")
    terminal.line(f"routes    {production.route_targets()}")
    if request_log is not None:
        rows = (
            {
                "sequence": entry.sequence,
                "authority": entry.authority,
                "method": entry.method,
                "path": entry.path,
                "operation": entry.operation.value,
                "token": entry.token,
                "revision": entry.revision,
                "status": entry.status,
                "started_turn": entry.started_turn,
                "body": entry.body.decode("utf-8", "replace"),
            }
            for entry in production.requests
        )
        _write(request_log, b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _write(request_log: Path, rows: bytes) -> None:
    try:
        request_log.write_bytes(rows)
    except OSError as error:
        raise click.BadParameter(
            f"{printable(str(request_log))} cannot be written ({error.strerror}); name another file",
            param_hint="--request-log",
        ) from error
