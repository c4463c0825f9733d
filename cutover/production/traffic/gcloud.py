"""The program gcloud as a traffic backend: it runs ``services describe`` and ``services update-traffic``.

gcloud uses the Cloud Run API v1 to read and to replace the service. The exit code and the output of an update prove nothing:
only a describe after it shows the split.

One race remains, because gcloud takes no etag. This backend compares the generation before each update; gcloud then
reads the service once more and replaces that version. A change by somebody else between these two reads (one to four
seconds) is not noticed, and a changed split is overwritten. A change after the second read makes gcloud's update fail.
So nobody else should deploy while a train runs. The Admin API has no such gap.

This module is longer than most: the commands, the token that they get and the documents that they print belong to one program.
"""

import os
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import anyio
import attrs
import msgspec

from cutover.clock import Clock
from cutover.errors import NoAnswerError, PeerError, RefusedError, UnusableReplyError
from cutover.http.outbound import ATTEMPTS, READ_DEADLINE, pause_after
from cutover.http.secrets import Secrets
from cutover.http.tokens import Token, fixed
from cutover.model.traffic_state import TrafficState, TrafficTarget
from cutover.model.train_events import CommandStarted
from cutover.production.traffic.backend import CONFLICT, CommandObserver, Revision
from cutover.production.traffic.documents import is_name, percent, rows, text
from cutover.production.traffic.processes import GRACE_SECONDS, Output, identity, own_environment, run_program
from cutover.text import printable

PROGRAM = "gcloud"
LATEST = "LATEST"
"""gcloud's name for the revision that became ready last."""
_SETTINGS = {
    "CLOUDSDK_CORE_DISABLE_PROMPTS": "true",
    "CLOUDSDK_CORE_DISABLE_COLOR": "true",
    "CLOUDSDK_CORE_DISABLE_FILE_LOGGING": "true",
    "CLOUDSDK_CORE_DISABLE_USAGE_REPORTING": "true",
    "CLOUDSDK_CORE_LOG_HTTP": "false",
    "CLOUDSDK_CORE_SHOULD_PROMPT_TO_ENABLE_API": "false",
    "CLOUDSDK_CORE_VERBOSITY": "warning",
    "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK": "true",
    "CLOUDSDK_RUN_PLATFORM": "managed",
    "CLOUDSDK_SURVEY_DISABLE_PROMPTS": "true",
}
"""Settings that win over gcloud's configuration: no prompts, no log files, no reports, managed Cloud Run alone."""
_SHOWN = 400
_TOKEN_REFUSED = re.compile(rb"UNAUTHENTICATED|invalid authentication credentials|\b401\b")
"""The errors of gcloud when the API answers 401."""
_NOT_STARTED = frozenset({126, 127})
"""Exit codes of a shell that could not start the program (POSIX, Shell Command Language 2.8.2)."""
_INGRESS = {
    "all": "INGRESS_TRAFFIC_ALL",
    "internal": "INGRESS_TRAFFIC_INTERNAL_ONLY",
    "internal-and-cloud-load-balancing": "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER",
}
"""Ingress in the annotation of the API v1 -> the same in the API v2."""


@attrs.frozen(kw_only=True)
class Patience:
    """The time limits of gcloud, in seconds."""

    read: float = 30.0
    """For a command that reads."""
    write: float = 45.0
    """For an update, which is never ended earlier."""
    request: int = 10
    """For one request of gcloud (CLOUDSDK_CORE_HTTP_TIMEOUT); gcloud tries a request up to five times."""
    grace: float = GRACE_SECONDS
    """For the process group of a command to end after a signal."""


@attrs.define(eq=False)
class Gcloud:
    """One service, read and written by gcloud. The configuration checks ``project``, ``region`` and ``service``."""

    project: str
    region: str
    service: str
    clock: Clock
    secrets: Secrets = attrs.field(factory=Secrets)
    token: Token = attrs.field(factory=Token, converter=fixed)
    """The access token, passed in the environment. An empty one: gcloud uses its own account."""
    patience: Patience = attrs.field(factory=Patience)

    async def read(self, *, label: str) -> TrafficState:
        """Return the split, by a describe of the service; see ``TrafficBackend``."""
        argv = self._command("services", "describe", self.service, "--format=json")
        document = await self._read(argv, label)
        if not isinstance(document, dict) or document.get("kind") != "Service":
            raise UnusableReplyError(f"{shlex.join(argv)}: its output is not a service")
        return _traffic_state(document)

    async def revision(self, name: str, *, label: str) -> Revision:
        """Return one revision, from a list of the service's revisions; see ``TrafficBackend``.

        A describe of a missing revision fails just like a describe that failed for another reason, so a list is used.
        """
        argv = self._command(
            "revisions",
            "list",
            f"--service={self.service}",
            f"--filter=metadata.name={name}",
            "--format=json(metadata.name,status.conditions)",
        )
        for row in rows(await self._read(argv, label)):
            if _object(row, "metadata").get("name") == name:
                ready = _condition(row, "Ready")
                return Revision(
                    name=name,
                    exists=True,
                    ready=ready.get("status") == "True",
                    message=printable(
                        str(ready.get("message") or ready.get("status") or "no Ready condition")
                    ),
                )
        return Revision(name=name, exists=False, ready=False, message=f"{self.service} has none of this name")

    async def may_write(self, current: TrafficState, *, label: str) -> str:  # noqa: ARG002  nothing is sent
        """Return the reason why no permission was tried, because gcloud has no dry run; see ``TrafficBackend``."""
        return "gcloud has no dry run of an update"

    async def write(
        self,
        targets: Sequence[TrafficTarget],
        *,
        etag: str | None,
        label: str,
        on_start: CommandObserver | None = None,
    ) -> None:
        """Send one write of the split; see ``TrafficBackend``. The etag is the generation that was read.

        gcloud does not wait until the split has settled (``--async``); the mover reads until the split has settled.
        """
        argv = self._update(targets)
        # This read also renews a token that has expired, so the update itself needs no second try.
        await self._compare(etag, label)
        try:
            environment = self._environment(await self.token.value())
        except PeerError as error:
            raise RefusedError(f"nothing was written: {error}", status=0) from error

        def ready(pid: int) -> None:
            if on_start is not None:
                on_start(CommandStarted(argv=argv, pid=pid, identity=identity(pid)))

        # An update that is cut off may take effect later, unnoticed.
        with anyio.CancelScope(shield=True):
            output = await run_program(
                argv,
                env=environment,
                deadline=self.patience.write,
                grace=self.patience.grace,
                ready=ready,
            )
            if reason := self._not_started(argv, output, label):
                raise RefusedError(reason, status=0)
            self._expect_success(argv, output, label)

    async def _compare(self, generation: str | None, label: str) -> None:
        """Check that the service still has the generation that was read; do nothing if that generation is None.

        Raises:
            RefusedError: The service has another generation, or could not be read; nothing was written.
        """
        if generation is None:
            return
        try:
            found = await self.read(label=label)
        except PeerError as error:
            raise RefusedError(f"nothing was written: {error}", status=0) from error
        if found.etag != generation:
            raise RefusedError(
                f"nothing was written: the service had generation {generation}, and now has {found.etag}",
                status=CONFLICT,
            )

    def _update(self, targets: Sequence[TrafficTarget]) -> tuple[str, ...]:
        """Return the command that writes a split.

        Percentages that add up to 100 replace all earlier ones, also that of LATEST. They do not change the tags, so the
        command sets or clears the tags too.

        Raises:
            RefusedError: gcloud would not accept a name.
        """
        shares: Counter[str] = Counter()
        tags: dict[str, str] = {}
        for target in targets:
            for name in (target.revision, target.tag):
                if name is not None and not is_name(name):
                    raise RefusedError(f"{printable(name)} is not a name that gcloud accepts", status=0)
            revision = target.revision or LATEST
            shares[revision] += target.percent
            if target.tag:
                tags[target.tag] = revision
        return self._command(
            "services",
            "update-traffic",
            self.service,
            f"--to-revisions={_listed((name, share) for name, share in shares.items() if share)}",
            f"--set-tags={_listed(tags.items())}" if tags else "--clear-tags",
            "--async",
        )

    def _command(self, *arguments: str) -> tuple[str, ...]:
        return (PROGRAM, "run", *arguments, f"--project={self.project}", f"--region={self.region}")

    def _environment(self, token: str) -> dict[str, str]:
        """Return the environment of gcloud: this process's own without variables that hold a secret, then the settings."""
        access = {"CLOUDSDK_AUTH_ACCESS_TOKEN": token} if token else {}
        own = own_environment(self.secrets)
        return {**own, **_SETTINGS, **access, "CLOUDSDK_CORE_HTTP_TIMEOUT": str(self.patience.request)}

    async def _read(self, argv: tuple[str, ...], label: str) -> object:
        """Run a command that reads, and return its decoded output; try again after a failure in the first 10 s."""
        started, attempt = self.clock.now(), 0
        while True:
            attempt += 1
            try:
                return await self._read_once(argv, label)
            except PeerError:
                if attempt >= ATTEMPTS or self.clock.now() - started > READ_DEADLINE:
                    raise
            await self.clock.sleep(pause_after(attempt))

    async def _read_once(self, argv: tuple[str, ...], label: str) -> object:
        token = await self.token.value()
        output = await self._run_read(argv, token)
        if (
            output.exit_code
            and _TOKEN_REFUSED.search(output.stderr)
            and (other := await self.token.renewed(token))
        ):
            output = await self._run_read(argv, other)
        if reason := self._not_started(argv, output, label):
            raise NoAnswerError(reason)
        self._expect_success(argv, output, label)
        try:
            return msgspec.json.decode(self.secrets.mask(output.stdout))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            shown = printable(self.secrets.mask(output.stdout[:400]), 80)
            raise UnusableReplyError(
                f"{shlex.join(argv)} ({label}): JSON was expected, not {shown!r}"
            ) from error

    async def _run_read(self, argv: tuple[str, ...], token: str) -> Output:
        return await run_program(
            argv, env=self._environment(token), deadline=self.patience.read, grace=self.patience.grace
        )

    def _not_started(self, argv: tuple[str, ...], output: Output, label: str) -> str:
        """Return the reason why the shell certainly did not start gcloud; an empty text if gcloud may have run.

        The exit code alone is not certain: gcloud itself is a shell script, which may fail with the same code.
        """
        path = own_environment(self.secrets).get("PATH", os.defpath)
        if output.exit_code not in _NOT_STARTED or shutil.which(PROGRAM, path=path) is not None:
            return ""
        shown = printable(self.secrets.mask_text(path), _SHOWN)
        return (
            f"{shlex.join(argv)} ({label}): nothing was sent, because there is no program gcloud on the PATH ({shown}); "
            "install the Google Cloud CLI, or add its folder to PATH"
        )

    def _expect_success(self, argv: tuple[str, ...], output: Output, label: str) -> None:
        """Check the exit code of a command.

        Raises:
            NoAnswerError: The command failed. An update may have taken effect all the same.
        """
        if output.exit_code:
            detail = printable(self.secrets.mask(output.stderr).strip(), _SHOWN) or "no output"
            raise NoAnswerError(f"{shlex.join(argv)} ({label}): exit code {output.exit_code}, {detail}")


def _traffic_state(service: Mapping[str, object]) -> TrafficState:
    metadata, status = _object(service, "metadata"), _object(service, "status")
    generation = metadata.get("generation")
    if not isinstance(generation, int) or "traffic" not in _object(service, "spec") | status:
        raise UnusableReplyError("gcloud describes a service without a generation, or without any traffic")
    ready = _condition(service, "Ready")
    routes = _condition(service, "RoutesReady") or ready
    succeeded = routes.get("status") == "True"
    deploying = _condition(service, "ConfigurationsReady").get("status") == "Unknown"
    annotations = _object(metadata, "annotations")
    ingress = text(annotations.get("run.googleapis.com/ingress")) or ""
    state = TrafficState(
        targets=tuple(_target(row) for row in rows(_object(service, "spec").get("traffic"))),
        statuses=tuple(_target(row) for row in rows(status.get("traffic"))),
        generation=str(generation),
        etag=str(generation),
        settled=status.get("observedGeneration") == generation and routes.get("status") in {"True", "False"},
        succeeded=succeeded,
        message=_message(routes) or ("" if succeeded else _message(ready)),
        unready=""
        if ready.get("status") == "True"
        else _message(ready) or printable(str(ready.get("status") or "no condition Ready")),
        deploying=deploying,
        latest_ready=text(status.get("latestReadyRevisionName")),
        latest_created=text(status.get("latestCreatedRevisionName")),
        ingress=_INGRESS.get(ingress, printable(ingress)),
        default_uri_disabled=annotations.get("run.googleapis.com/default-url-disabled") == "true",
    )
    # The end of a deployment moves a share of LATEST, so the split is settled only after it.
    return attrs.evolve(state, settled=False) if deploying and state.asks_for_latest else state


def _target(row: Mapping[str, object]) -> TrafficTarget:
    return TrafficTarget(
        revision=None if row.get("latestRevision") is True else text(row.get("revisionName")),
        percent=percent(row),
        tag=text(row.get("tag")),
        uri=text(row.get("url")),
    )


def _condition(document: Mapping[str, object], kind: str) -> Mapping[str, object]:
    """Return one condition; an empty one if there is none. Ready is ConfigurationsReady and RoutesReady together."""
    conditions = rows(_object(document, "status").get("conditions"))
    return next((row for row in conditions if row.get("type") == kind), {})


def _message(condition: Mapping[str, object]) -> str:
    return printable(str(condition.get("message") or ""))


def _object(document: Mapping[str, object], name: str) -> dict[str, object]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _listed(pairs: Iterable[tuple[str, object]]) -> str:
    return ",".join(f"{name}={value}" for name, value in pairs)
