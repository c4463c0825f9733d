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
from cutover.config.config import NOTICE_INPUTS, NOTICE_SOURCES, CutoverConfig, secret_inputs
from cutover.config.problems import notice_problem
from cutover.errors import ConfigurationError, NoAnswerError, PeerError, RefusedError
from cutover.http.environment import read_environment
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets, with_parts
from cutover.http.tokens import Token
from cutover.model.train_events import TrainEvent
from cutover.production.traffic.processes import own_environment, run_program
from cutover.report.notices import cloud_event, google_chat, pagerduty, slack
from cutover.report.notices.delivery import NOTICE_SECONDS, Notices, Receiver
from cutover.report.notices.notice import Notice, notice_of
from cutover.text import printable
from cutover.wiring.production import ClientFactory, Production, no_cookies
from cutover.wiring.token_sources import token_of

_GRACE = 0.5
"""Seconds for a command to end after a signal."""
_TRIES = 2
_LIMITS = httpx.Limits(max_connections=1)
_Send = Callable[[Notice], Awaitable[None]]
_Payload = Callable[[Notice, str], Mapping[str, object] | None]
"""Returns the body of a notice; None if the receiver does not get it. The text is the key, where that stands in the body."""
_BY_FIELD = {declared.field: declared for declared in NOTICE_INPUTS}


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
    # A rehearsal without notices reads no file of theirs.
    beside = {"NOTIFY_REHEARSALS": "1"}
    beside |= {name: given[name] for name in ("ALLOW_INSECURE_HTTP",) if name in given}
    for names in _variables_of_receivers():
        variables = {name: given[name] for name in names if given.get(name)}
        if not variables:
            continue
        try:
            CutoverConfig.from_env(
                stable_revision="a", canary_revision="b", env={**beside, **variables}, output_dir=None
            )
        except ConfigurationError as error:
            warnings.warn(f"{'; '.join(error.problems)}; nothing is sent there", RuntimeWarning, stacklevel=2)
        else:
            usable |= variables
    return usable


def _variables_of_receivers() -> Iterator[tuple[str, ...]]:
    """Give the variables of notices: those of one secret together, because only one of them may be set, and each other one alone."""
    for declared in NOTICE_INPUTS:
        if declared.secret:
            yield tuple(field.upper() for field in secret_inputs(declared.field))
        elif declared.field not in NOTICE_SOURCES:
            yield (declared.variable,)


def job_link(variables: Mapping[str, str]) -> str:
    """Return the URL of the CI job that this process runs in, on GitHub or GitLab; empty elsewhere."""
    parts = [variables.get(f"GITHUB_{name}", "") for name in ("SERVER_URL", "REPOSITORY", "RUN_ID")]
    return "{}/{}/actions/runs/{}".format(*parts) if all(parts) else variables.get("CI_JOB_URL", "")


def _receivers(production: Production) -> Iterator[Receiver]:
    config, secrets = production.config, production.secrets
    clients: list[ClientFactory] = []

    def post(field: str, payload: _Payload, content_type: str = "application/json", to: str = "") -> Receiver:
        """Return the receiver of a secret: an address, or a key that goes to the address ``to``."""
        if not clients:
            clients.append(production.notice_client or _own_clients(config))
        secret = token_of(config, field, clock=EventLoopClock(), secrets=secrets)
        send = _Post(
            secret=secret,
            problem=partial(notice_problem, _BY_FIELD[field], insecure=config.allow_insecure_http),
            to=to,
            payload=payload,
            content_type=content_type,
            new_client=clients[0],
            secrets=secrets,
        )
        return Receiver(name=secret.name, send=send)

    if config.given("notify_webhook_url"):
        yield post("notify_webhook_url", _without_key(cloud_event.payload), cloud_event.CONTENT_TYPE)
    if config.given("notify_slack_url"):
        yield post("notify_slack_url", _without_key(slack.payload))
    if config.given("notify_google_chat_url"):
        yield post("notify_google_chat_url", _without_key(google_chat.payload))
    if config.given("notify_pagerduty_key"):
        yield post("notify_pagerduty_key", _to_pager, to=f"{config.notify_pagerduty_url}/v2/enqueue")
    if command := config.notify_command:
        yield Receiver(name=config.name_of("notify_command"), send=_Run(command=command, secrets=secrets))


def _without_key(payload: Callable[[Notice], Mapping[str, object] | None]) -> _Payload:
    """Return the payload of a receiver whose address is the secret."""
    return lambda notice, _: payload(notice)


def _to_pager(notice: Notice, key: str) -> Mapping[str, object] | None:
    return pagerduty.payload(notice, routing_key=key)


def _own_clients(config: CutoverConfig) -> ClientFactory:
    """Return the maker of clients for a rehearsal, whose other requests open no connection."""
    environment = read_environment(tls=any(url.startswith("https:") for url in config.notice_urls))
    return lambda limits: environment.client(limits=limits, cookies=no_cookies())


@attrs.frozen(kw_only=True)
class _Post:
    """The way to a receiver that takes notices by HTTP. No redirect is followed."""

    secret: Token = attrs.field(repr=False)
    """The address, or the key that goes into the payload. A file or a command that gives it is read before the first notice."""
    problem: Callable[[str], str] = attrs.field(repr=False)
    """Returns the problem of a secret; empty if there is none."""
    to: str
    """The address, where the secret is a key; else empty."""
    payload: _Payload = attrs.field(repr=False)
    content_type: str
    new_client: ClientFactory
    secrets: Secrets = attrs.field(repr=False)

    async def __call__(self, notice: Notice) -> None:
        """Send one notice, with a second try after no answer, 429 or a 5xx status.

        Raises:
            PeerError: It was not delivered. The message does not hold the URL.
        """
        # Also for a notice that this receiver does not get: the first one shows that the pager's key cannot be read, and not the last one.
        secret = await self._read()
        url, body = self.to or secret, self.payload(notice, secret)
        if body is None:
            return
        try:
            async with self.new_client(_LIMITS) as client:
                outbound = Outbound(client=client, clock=EventLoopClock(), secrets=self.secrets)
                reply = await outbound.read(
                    "POST",
                    url,
                    label="notice",
                    headers={"content-type": self.content_type},
                    json=body,
                    attempts=_TRIES,
                    limit=NOTICE_SECONDS,
                )
        except PeerError as error:
            why = str(error).replace(url, "").removeprefix("POST : ")
            raise NoAnswerError(self.secrets.mask_text(why)) from None
        if not reply.is_success:
            raise RefusedError(self.secrets.mask_text(reply.describe()), status=reply.status)

    async def _read(self) -> str:
        """Return the address or the key, and mask its parts from now on.

        Raises:
            PeerError: Its file or its command gives none, or a wrong one.
        """
        secret = await self.secret.value()
        for part in with_parts([secret]):
            self.secrets.add(part)
        if problem := self.problem(secret):
            raise RefusedError(f"it gives a wrong value, which {problem}", status=0)
        return secret


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
