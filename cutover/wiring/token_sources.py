"""The tokens of a run, made from its configuration: fixed ones, or ones that a file or a command gives."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import attrs

from cutover.clock import Clock
from cutover.config.config import CutoverConfig
from cutover.config.default_credentials import why_no_default_credentials
from cutover.config.files import read_file
from cutover.errors import ConfigurationError, NoAnswerError, PeerError, RefusedError
from cutover.http.secrets import Secrets
from cutover.http.tokens import TOKEN_DEADLINE, UNAUTHORIZED, Grant, Token, TokenSource, read_grant
from cutover.production.traffic.processes import own_environment, run_program
from cutover.text import printable

_GRACE = 0.5
"""Seconds for the command of a token to end after a signal. It changes nothing, so it gets little time."""


@attrs.frozen(kw_only=True)
class FileSource:
    """A token from a file. The read does not yield to other tasks: the file is small and local."""

    name: str
    path: Path

    async def __call__(self, *, refused: str = "") -> Grant:  # noqa: ARG002  the file always gives what it holds now
        """Return the token that the file holds now; see ``TokenSource``."""
        try:
            return read_grant(read_file(self.path))
        except ValueError as error:
            raise RefusedError(f"{self.name}: {self.path} {error}", status=UNAUTHORIZED) from error


@attrs.frozen(kw_only=True)
class CommandSource:
    """A token that a command prints. No shell reads the command, and its environment holds no token of this run."""

    name: str
    command: str
    secrets: Secrets = attrs.field(repr=False)

    async def __call__(self, *, refused: str = "") -> Grant:  # noqa: ARG002  the command is run in any case
        """Run the command, and return the token that it prints; see ``TokenSource``."""
        try:
            output = await run_program(
                shlex.split(self.command),
                env=own_environment(self.secrets),
                deadline=TOKEN_DEADLINE,
                grace=_GRACE,
            )
        except NoAnswerError as error:
            raise NoAnswerError(f"{self.name}: {error}") from error
        except PeerError as error:
            raise RefusedError(f"{self.name}: {error}", status=UNAUTHORIZED) from error
        if output.exit_code:
            # The output may hold a token, so only the errors are shown.
            shown = printable(self.secrets.mask(output.stderr).strip()) or "no message"
            raise RefusedError(
                f"{self.name}: {self.command}: exit code {output.exit_code}, {shown}", status=UNAUTHORIZED
            )
        try:
            return read_grant(output.stdout)
        except ValueError as error:
            raise RefusedError(f"{self.name}: {self.command} {error}", status=UNAUTHORIZED) from error


@attrs.frozen(kw_only=True)
class Tokens:
    """The tokens of a run: four, the one for the bucket of STATE_URL, which is Cloud Run's where that has one, and Prometheus's."""

    control: Token
    auth: Token
    cloud_run: Token
    legacy: Token
    """The token for the legacy service; the same object as ``auth`` where that token goes there too."""
    prometheus: Token
    """The token for the Prometheus server of SLO_PROMETHEUS_URL."""
    state: Token = attrs.field(factory=Token)
    """The token for the bucket of STATE_URL; the same object as ``cloud_run`` where that token goes there too."""

    async def read(self, needs: frozenset[str]) -> None:
        """Read the sources that are files or commands, so that a wrong one is known before anything begins.

        Raises:
            ConfigurationError: A source gives no token; every problem is listed.
        """
        problems = []
        for field, token in self._by_field():
            if field in needs and isinstance(token.source, FileSource | CommandSource):
                try:
                    await token.value()
                except PeerError as error:
                    problems.append(str(error))
        if problems:
            raise ConfigurationError(problems)

    def in_use(self, config: CutoverConfig) -> dict[str, Token]:
        """Return the tokens that a train uses, by role."""
        tokens = {"control": self.control, "auth": self.auth, "cloud-run": self.cloud_run}
        if config.run_dual_run and self.legacy is not self.auth:
            tokens["legacy"] = self.legacy
        return tokens

    def _by_field(self) -> Iterator[tuple[str, Token]]:
        yield "control_access_token", self.control
        yield "auth_token", self.auth
        yield "cloud_run_access_token", self.cloud_run
        if self.legacy is not self.auth:
            yield "legacy_auth_token", self.legacy
        yield "slo_prometheus_token", self.prometheus


def tokens_of(
    config: CutoverConfig,
    *,
    clock: Clock,
    secrets: Secrets,
    cloud_run: TokenSource | None = None,
    state: TokenSource | None = None,
) -> Tokens:
    """Return the tokens of a configuration; no source is read yet.

    Args:
        config: The configuration.
        clock: The clock by which a token expires.
        secrets: Gets every token that a source gives.
        cloud_run: The source of the Admin API's token, in place of the configuration's.
        state: The source of the token for the bucket of STATE_URL, likewise.
    """

    def token(field: str) -> Token:
        return token_of(config, field, clock=clock, secrets=secrets)

    def default_credentials(source: TokenSource) -> Token:
        return Token(name="application default credentials", source=source, clock=clock, secrets=secrets)

    auth = token("auth_token")
    of_cloud_run = token("cloud_run_access_token") if cloud_run is None else default_credentials(cloud_run)
    of_state = Token() if state is None else default_credentials(state)
    return Tokens(
        control=token("control_access_token"),
        auth=auth,
        cloud_run=of_cloud_run,
        state=of_cloud_run if config.given("cloud_run_access_token") else of_state,
        legacy=token("legacy_auth_token") if config.given("legacy_auth_token") else auth,
        prometheus=token("slo_prometheus_token"),
    )


def token_of(config: CutoverConfig, field: str, *, clock: Clock, secrets: Secrets) -> Token:
    """Return the token, or another secret, that a field, its file or its command gives; the source is not read yet."""
    given = config.given(field)
    if not given:
        return Token(name=config.name_of(field), reason=_reason(config, field))
    name, text = config.name_of(given[0]), getattr(config, given[0])
    if given[0] == field:
        return Token(name=name, grant=Grant(token=text))
    if given[0].endswith("_file"):
        return Token(name=name, source=FileSource(name=name, path=Path(text)), clock=clock, secrets=secrets)
    source = CommandSource(name=name, command=text, secrets=secrets)
    return Token(name=name, source=source, clock=clock, secrets=secrets)


def _reason(config: CutoverConfig, field: str) -> str:
    """Return the reason why requests carry no token, in words."""
    name = config.name_of(field)
    if field != "cloud_run_access_token":
        return f"{name} is not set"
    if config.traffic_backend == "gcloud":
        return f"{name} is not set: gcloud uses its own account"
    return why_no_default_credentials(config)
