"""One HTTP request under a contract, to its end: what it brought."""

from collections.abc import Mapping

import anyio
import attrs
import httpx
import msgspec

from cutover.checking.checked_stream import CLOSE_SECONDS, CheckedStream, Hold, StreamRequest
from cutover.contract import ContractChecker, ContractReport, StreamContext, StreamContract
from cutover.http.secrets import Secrets
from cutover.http.statuses import TOKEN_REFUSED
from cutover.protocols import COMPAT_LANE
from cutover.text import printable

MAX_CAPTURE_BYTES = 4 << 20
"""Bytes of a body that are kept as evidence; the contract is checked on all of it."""


@attrs.frozen(kw_only=True)
class Probe:
    """What one stream request brought."""

    request: StreamRequest
    status: int | None
    """None where no head came."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    """As received, decoded of its content-encoding, up to ``MAX_CAPTURE_BYTES``."""
    report: ContractReport
    unreachable: str | None
    """Why there was no connection, so that nothing is known of the stream; None where there was one."""
    failure: str | None
    """How the connection broke, where it did."""
    elapsed: float
    """Seconds from sending the request to the end."""

    def header(self, name: str) -> str | None:
        """Return a header of the head that came."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    @property
    def without_evidence(self) -> bool:
        """Whether it says nothing of the stream: there was no connection, or the token was refused."""
        return self.unreachable is not None or self.status in TOKEN_REFUSED

    @property
    def ok(self) -> bool:
        """Whether the contract held."""
        return self.unreachable is None and self.report.ok

    def describe(self) -> str:
        """Say in one line what came of it."""
        if self.unreachable is not None:
            return self.unreachable
        violations = self.report.violations
        broke = f"; {self.failure}" if self.failure else ""
        if not violations:
            return f"HTTP {self.status}, {self.report.event_count} events, the contract holds"
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        return f"{violations[0].rule}: {printable(violations[0].message, 400)}{more}{broke}"


async def probe_stream(
    client: httpx.AsyncClient,
    request: StreamRequest,
    *,
    contract: StreamContract,
    context: StreamContext | None = None,
    hold: Hold | None = None,
    secrets: Secrets = Secrets(),  # noqa: B008  nobody adds to it
) -> Probe:
    """Send one request and check its stream to the end, or to the first deadline of the contract.

    Remote failures are findings; nothing of the network is raised.
    """
    stream = CheckedStream(
        client=client, request=request, checker=ContractChecker(contract, context=context), hold=hold
    )
    captured, room = [], MAX_CAPTURE_BYTES
    try:
        await stream.open()
        while (piece := await stream.receive()) is not None:
            captured.append(piece[:room])
            room -= len(captured[-1])
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLOSE_SECONDS):
            await stream.aclose()
        if hold is not None:
            hold.in_flight.set()  # nobody waits for a request that is over
    return Probe(
        request=request,
        status=stream.status,
        headers=tuple((key, secrets.mask(value)) for key, value in stream.headers),
        body=secrets.mask(b"".join(captured)),
        report=stream.checker.report(),
        unreachable=stream.unreachable,
        failure=stream.failure,
        elapsed=stream.elapsed(),
    )


async def check_stream(
    client: httpx.AsyncClient,
    url: str,
    *,
    contract: StreamContract = COMPAT_LANE,
    method: str = "POST",
    json: object = None,
    headers: Mapping[str, str] | None = None,
    deadline: float = 120.0,
) -> ContractReport:
    """Send one request and check its stream against a contract.

    Args:
        client: Any ``httpx.AsyncClient``; its base URL, headers and transport are used, redirects are not followed.
        url: Absolute, or relative to the client's base URL.
        contract: What the stream must be.
        method: The request's method.
        json: The request's body, encoded as JSON; none where it is None.
        headers: More request headers.
        deadline: Seconds for all of it, from sending the request to the end of the stream.

    Returns:
        What was found; a network failure is a finding, too. Only what an app in process raises itself is raised.
    """
    limits = attrs.evolve(contract.limits, whole=deadline)
    body = b"" if json is None else msgspec.json.encode(json)
    typed = {} if json is None else {"content-type": "application/json"}
    request = StreamRequest(method=method, url=url, headers={**typed, **(headers or {})}, body=body)
    thread_id = json.get("id") if isinstance(json, dict) else None
    probe = await probe_stream(
        client,
        request,
        contract=attrs.evolve(contract, limits=limits),
        context=StreamContext(thread_id=thread_id) if isinstance(thread_id, str) else None,
    )
    return probe.report
