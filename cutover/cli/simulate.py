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

_HOST = "127.0.0.1"
_BACKLOG = 256


@click.command()
@click.option(
    "--fault",
    "faults",
    multiple=True,
    metavar="NAME",
    help="Something that is wrong with it; `list` names all.",
)
@click.option(
    "--instances",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="Instances of each revision.",
)
@click.option("--flipped", is_flag=True, help="The routes already lead to the new service.")
@click.option(
    "--settle-seconds",
    type=click.FloatRange(min=0),
    default=0.0,
    show_default=True,
    help="How long a traffic update takes.",
)
@click.option(
    "--request-log",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where to write the requests at the end.",
)
def simulate(
    faults: tuple[str, ...],
    instances: int,
    flipped: bool,
    settle_seconds: float,
    request_log: Path | None,
) -> None:
    """Serve a simulated production on loopback and print the environment of a live run against it; Ctrl-C ends it.

    Needs the extra `serve`.
    """
    known = {**FAULTS, **VARIANTS}
    if "list" in faults:
        for name, fault in known.items():
            click.echo(f"{name:44} {fault.sentence}")
        return
    unknown = [name for name in faults if name not in known]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; `--fault list` names all", param_hint="--fault")
    listeners = {name: _listen() for name in ("front", "cloud-run", "legacy", "canary")}
    urls = {name: f"http://{_HOST}:{listener.getsockname()[1]}" for name, listener in listeners.items()}
    layout = Layout(
        instances=instances,
        front_url=urls["front"],
        cloud_run_url=urls["cloud-run"],
        legacy_url=urls["legacy"],
        tag_urls={"canary": urls["canary"]},
        flipped=flipped,
        settle_seconds=settle_seconds,
    )
    credentials = Credentials(
        auth_token="simulated-auth-token",  # noqa: S106  it opens a simulation
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
        pass  # how it is meant to end
    finally:
        _leave(production, request_log)


def environment(layout: Layout, credentials: Credentials) -> list[str]:
    """Return the shell lines of a live run against a simulation."""
    variables = {
        "DRY_RUN": "0",
        "APPLY_ROUTE_FLIP": "0" if layout.flipped else "1",
        "BASE_URL": layout.front_url,
        "CLOUD_RUN_API_URL": layout.cloud_run_url,
        "LEGACY_BASE_URL": layout.legacy_url,
        "PROJECT": layout.project,
        "REGION": layout.region,
        "SERVICE": layout.service,
        "REVISION_HEADER": layout.revision_header,
        "AUTH_TOKEN": credentials.auth_token,
        "CONTROL_ACCESS_TOKEN": credentials.control_token,
        "CLOUD_RUN_ACCESS_TOKEN": credentials.cloud_run_token,
        "LEGACY_AUTH_TOKEN": credentials.legacy_token,
    }
    return [
        *_exports(variables),
        f"# to move the traffic by gcloud: {'; '.join(_exports(gcloud_environment(layout.cloud_run_url)))}",
        f"# then: cutover run {layout.stable} {layout.canary}",
    ]


def gcloud_environment(cloud_run_url: str) -> dict[str, str]:
    """Return what leads TRAFFIC_BACKEND=gcloud, and gcloud itself, to a Cloud Run API on loopback.

    As if by a proxy: gcloud puts the region before the host, and no such name can be resolved.
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
            "`cutover simulate` needs the extra: pip install 'stream-cutover[serve]'"
        ) from None
    config = uvicorn.Config(
        production.app,
        interface="asgi3",
        lifespan="off",
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    await uvicorn.Server(config).serve(sockets=list(listeners))


def _listen() -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.bind((_HOST, 0))
    listener.listen(_BACKLOG)
    return listener


def _leave(production: SimulatedProduction, request_log: Path | None) -> None:
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
        request_log.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
