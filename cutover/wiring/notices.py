"""The receivers of notices that a configuration names, and the way to each: HTTP, or the standard input of a command."""

import os
import shlex
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import attrs
import httpx
import msgspec

from cutover.clock import EventLoopClock
from cutover.config.config import NOTICE_INPUTS, CutoverConfig
from cutover.errors import ConfigurationError, NoAnswerError, PeerError, RefusedError
from cutover.http.environment import read_environment
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets
from cutover.model.train_events import TrainEvent
from cutover.production.traffic.processes import own_environment, run_program
from cutover.report.notices import cloud_event, google_chat, pagerduty, slack
from cutover.report.notices.delivery import NOTICE_SECONDS, Notices, Receiver
from cutover.report.notices.notice import Notice, notice_of
from cutover.text import printable
from cutover.wiring.production import ClientFactory, Production, no_cookies

_GRACE = 0.5
"""Seconds for a command to end after a signal."""
_TRIES = 2
_LIMITS = httpx.Limits(max_connections=1)
_Send = Callable[[Notice], Awaitable[None]]
_Payload = Callable[[Notice], Mapping[str, object] | None]


def notices_of(production: Production, *, run_directory: Path | None, recovering: bool = False) -> Notices:
    """Return the notices of a run; without receivers if the configuration names none, or in a rehearsal without NOTIFY_REHEARSALS=1.

    Raises:
        ConfigurationError: A variable for certificates or proxies cannot be used.
    """
    config = production.config
    silent = config.dry_run and not config.notify_rehearsals
    folder = "" if run_directory is None else str(run_directory.absolute())
    make = partial(notice_of, recovering=recovering, run_directory=folder, link=job_link(os.environ))

    def masked(events: Sequence[TrainEvent]) -> Notice | None:
        notice = make(events)
        if notice is None:
            return None
        lines = tuple(production.secrets.mask_text(line) for line in notice.lines)
        return attrs.evolve(notice, lines=lines)

    return Notices(receivers=() if silent else tuple(_receivers(production)), notice_of=masked)


def usable_variables(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables of notices that a recovery can use. A wrong one costs a warning, and never a recovery."""
    usable: dict[str, str] = {}
    for declared in NOTICE_INPUTS:
        if not given.get(declared.variable):
            continue
        variable = {declared.variable: given[declared.variable]}
        insecure = {name: given[name] for name in ("ALLOW_INSECURE_HTTP",) if name in given}
        try:
            CutoverConfig.from_env(
                stable_revision="a", canary_revision="b", env={**variable, **insecure}, output_dir=None
            )
        except ConfigurationError as error:
            warnings.warn(f"{'; '.join(error.problems)}; nothing is sent there", RuntimeWarning, stacklevel=2)
        else:
            usable |= variable
    return usable


def job_link(variables: Mapping[str, str]) -> str:
    """Return the URL of the CI job that this process runs in, on GitHub or GitLab; empty elsewhere."""
    parts = [variables.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else variables.get("CI_JOB_URL", "")


def _receivers(production: Production) -> Iterator[Receiver]:
    config, secrets = production.config, production.secrets
    clients: list[ClientFactory] = []

    def post(url: str, payload: _Payload, content_type: str = "application/json") -> _Send:
        if not clients:
            clients.append(production.notice_client or _own_clients(config))
        return _Post(
            url=url, payload=payload, content_type=content_type, new_client=clients[0], secrets=secrets
        )

    if url := config.notify_webhook_url:
        send = post(url, cloud_event.payload, cloud_event.CONTENT_TYPE)
        yield Receiver(name=config.name_of("notify_webhook_url"), send=send)
    if url := config.notify_slack_url:
        yield Receiver(name=config.name_of("notify_slack_url"), send=post(url, slack.payload))
    if url := config.notify_google_chat_url:
        yield Receiver(name=config.name_of("notify_google_chat_url"), send=post(url, google_chat.payload))
    if key := config.notify_pagerduty_key:
        send = post(f"{config.notify_pagerduty_url}/v2/enqueue", partial(pagerduty.payload, routing_key=key))
        yield Receiver(name=config.name_of("notify_pagerduty_key"), send=send)
    if command := config.notify_command:
        send = _Run(command=command, secrets=secrets)
        yield Receiver(name=config.name_of("notify_command"), send=send)


def _own_clients(config: CutoverConfig) -> ClientFactory:
    """Return the maker of clients for a rehearsal, whose other requests open no connection."""
    urls = (config.notify_webhook_url, config.notify_slack_url, config.notify_google_chat_url)
    pager = config.notify_pagerduty_url if config.notify_pagerduty_key else ""
    environment = read_environment(tls=any(url.startswith("https:") for url in (*urls, pager)))
    return lambda limits: environment.client(limits=limits, cookies=no_cookies())


@attrs.frozen(kw_only=True)
class _Post:
    """The way to a receiver that takes notices by HTTP. No redirect is followed."""

    url: str = attrs.field(repr=False)
    payload: _Payload = attrs.field(repr=False)
    content_type: str
    new_client: ClientFactory
    secrets: Secrets = attrs.field(repr=False)

    async def __call__(self, notice: Notice) -> None:
        """Send one notice, with a second try after no answer, 429 or a 5xx status.

        Raises:
            PeerError: It was not delivered. The message does not hold the URL.
        """
        body = self.payload(notice)
        if body is None:
            return
        try:
            async with self.new_client(_LIMITS) as client:
                outbound = Outbound(client=client, clock=EventLoopClock(), secrets=self.secrets)
                reply = await outbound.read(
                    "POST",
                    self.url,
                    label="notice",
                    headers={"content-type": self.content_type},
                    json=body,
                    attempts=_TRIES,
                    limit=NOTICE_SECONDS,
                )
        except PeerError as error:
            why = str(error).replace(self.url, "").removeprefix("POST : ")
            raise NoAnswerError(self.secrets.mask_text(why)) from None
        if not reply.is_success:
            raise RefusedError(self.secrets.mask_text(reply.describe()), status=reply.status)


@attrs.frozen(kw_only=True)
class _Run:
    """The way to a command. No shell reads it, its environment holds no secret of this run, and it is ended when its time is over."""

    command: str
    secrets: Secrets = attrs.field(repr=False)

    async def __call__(self, notice: Notice) -> None:
        """Run the command once, with the notice on its standard input.

        Raises:
            PeerError: It did not end in time, or with another exit code than 0.
        """
        output = await run_program(
            shlex.split(self.command),
            env=own_environment(self.secrets),
            deadline=NOTICE_SECONDS,
            grace=_GRACE,
            given=msgspec.json.encode(cloud_event.payload(notice)) + b"\n",
        )
        if output.exit_code:
            shown = printable(self.secrets.mask(output.stderr).strip()) or "no message"
            raise RefusedError(f"exit code {output.exit_code}, {shown}", status=0)
