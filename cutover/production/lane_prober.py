"""The prober of a lane's aliases."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping

import anyio
import attrs
import msgspec

from cutover.checking.checked_stream import Hold, Progress
from cutover.checking.probe import Probe, probe_stream
from cutover.contract import StreamContext, StreamContract
from cutover.http.clients import AnyClient
from cutover.http.connection import StreamRequest
from cutover.http.secrets import Secrets
from cutover.http.statuses import FORBIDDEN
from cutover.http.tokens import UNAUTHORIZED, Token, fixed
from cutover.production.lane import Alias, Lane
from cutover.text import printable

OnEnd = Callable[["LaneProber", str, str, Probe, float], None]
"""Gets the prober, the label of the request without the alias, the name of the alias, the probe, and the seconds since it began."""


@attrs.define(eq=False)
class LaneProber:
    """A prober of the aliases of one lane at one service.

    Each probe uses a thread of its own, because a stream starts a chat turn.
    """

    client: AnyClient
    base_url: str
    lane: Lane
    headers: Mapping[str, str] = attrs.field(repr=False)
    """Headers of each request: client build, protocol and schema."""
    contract: StreamContract
    thread_prefix: str
    token: Token = attrs.field(factory=Token, converter=fixed)
    secrets: Secrets = attrs.field(factory=Secrets)
    revision_header: str | None = None
    numbers: Iterator[int] = attrs.field(factory=lambda: itertools.count(1))
    """Numbers for thread ids, shared with the probers of other addresses, so that no two probes use one thread."""
    on_end: "OnEnd | None" = None
    """Called with each probe at its end; shared with the probers of other addresses. None: nobody asks."""

    @property
    def aliases(self) -> tuple[Alias, ...]:
        """The aliases of the lane."""
        return self.lane.aliases

    def at(self, base_url: str) -> "LaneProber":
        """Return a prober of another address of the same service, such as the tag URL of a revision."""
        return attrs.evolve(self, base_url=base_url)

    async def probe(
        self,
        alias: Alias,
        *,
        label: str,
        capture: bool = True,
        hold: Hold | None = None,
        progress: Progress | None = None,
    ) -> Probe:
        """Start one turn and check its stream; return the probe. The options are those of ``probe_stream``."""
        began = anyio.current_time()
        probe = self._with_meaning(
            await self._probe(alias, label=label, capture=capture, hold=hold, progress=progress)
        )
        if self.on_end is not None:
            self.on_end(self, label, alias.name, probe, anyio.current_time() - began)
        return probe

    async def _probe(
        self, alias: Alias, *, label: str, capture: bool, hold: Hold | None, progress: Progress | None
    ) -> Probe:
        thread_id = f"{self.thread_prefix}{next(self.numbers):04d}"
        request = StreamRequest(
            method="POST",
            url=self.base_url + alias.path(thread_id),
            headers={**self.headers, "content-type": "application/json"},
            body=msgspec.json.encode(alias.body(thread_id, self.lane.prompt)),
            label=f"{label}.{alias.name}",
        )
        probe = await probe_stream(
            self.client,
            request,
            contract=self.contract,
            context=StreamContext(thread_id=thread_id),
            capture=capture,
            trace=True,
            hold=hold,
            progress=progress,
            secrets=self.secrets,
            authorize=self.token,
        )
        return attrs.evolve(probe, thread_id=thread_id)

    def _with_meaning(self, probe: Probe) -> Probe:
        """Return the probe with the meaning of its refusal, if it was refused and the refusal has one."""
        if probe.status == UNAUTHORIZED:
            return attrs.evolve(probe, meaning=f"{self.token.name} was refused: renew it")
        # Only the service's own refusal has a meaning; a page may come from something in front of the service.
        if probe.status != FORBIDDEN or probe.report.service_error is None:
            return probe
        return attrs.evolve(probe, meaning=self.lane.meaning_of_forbidden(probe.describe()))

    async def probe_all(self, *, label: str) -> list[Probe]:
        """Probe every alias side by side; return the probes in the order of the aliases.

        A failure of the network in one probe does not cancel another probe.
        """
        probes: dict[str, Probe] = {}

        async def probe(alias: Alias) -> None:
            probes[alias.name] = await self.probe(alias, label=label)

        async with anyio.create_task_group() as group:
            for alias in self.aliases:
                group.start_soon(probe, alias)
        return [probes[alias.name] for alias in self.aliases]

    def revision(self, probe: Probe) -> str | None:
        """Return the revision that answered; None if ``revision_header`` is not set, or the response has no such header."""
        return (
            printable(value, 80)
            if self.revision_header and (value := probe.header(self.revision_header))
            else None
        )

    def revisions(self, probes: Iterable[Probe]) -> set[str]:
        """Return the revisions that answered these probes, as far as a header names them."""
        return {name for probe in probes if (name := self.revision(probe))}
