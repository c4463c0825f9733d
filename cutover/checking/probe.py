"""Probes: one HTTP request whose stream is checked against a contract to its end."""

from collections.abc import Mapping

import anyio
import attrs

from cutover.checking.arguments import bounded, context_for, judged_by, request_for
from cutover.checking.checked_stream import CANCELLED_CLOSE_SECONDS, CheckedStream, Hold, Progress
from cutover.checking.event_times import EventTimes
from cutover.checking.excerpt import Excerpt, excerpts
from cutover.checking.masked_report import masked_report
from cutover.checking.resume_drill import drill_resume
from cutover.contract import ContractChecker, ContractReport, FailureKind, StreamContext, StreamContract
from cutover.errors import PeerError
from cutover.http.clients import AnyClient, stream_client
from cutover.http.connection import StreamClient, StreamRequest
from cutover.http.outbound import CLOSE_SECONDS
from cutover.http.secrets import Secrets, mask_urls, secrets_of
from cutover.http.statuses import TOKEN_REFUSED
from cutover.http.tokens import UNAUTHORIZED, Token, bearer
from cutover.protocols import COMPAT_LANE
from cutover.text import printable

MAX_CAPTURE_BYTES = 4 << 20
"""Largest number of bytes of a body that are kept as evidence. The contract is checked on the whole body."""
QUOTED_BYTES = 64 << 10
"""Number of bytes from the beginning of a body that are kept for the excerpts of a trace where no capture was asked for."""
_LONGEST_SECRET = 8 << 10
"""Number of bytes at the end of a cut body that are not quoted: a secret that was cut there cannot be masked."""
SETTLE_SECONDS = 1.0
"""Seconds for which the end of an app in this process is awaited after its response, to see an error of its background tasks."""


@attrs.frozen(kw_only=True)
class Probe:
    """The result of one request whose stream was checked."""

    request: StreamRequest
    status: int | None
    """Status of the response; None if no head came."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    """The body after decompression, cut at ``MAX_CAPTURE_BYTES``, with secrets masked; empty if no capture was asked for."""
    report: ContractReport
    unreachable: str | None
    """Reason why no connection was made; None if a connection was made, or a deadline of the contract passed first."""
    failure: str | None
    """Reason why the connection broke or the body could not be decompressed; None without such a failure."""
    elapsed: float
    """Seconds from the start of the request (of a held request: from its release) to the last byte of the response.

    Closing the connection does not count, because no user waits for it. Without a byte of the body, the seconds to the head; without a
    head, the seconds to the failure.
    """
    event_times: tuple[float, ...] = ()
    """The times at which events came, in seconds like those of ``report.timings``: all of them, or a part spread over the stream. Empty
    if no trace was asked for."""
    excerpts: tuple[Excerpt, ...] = ()
    """The first findings with the bytes around them, with secrets masked; empty if no trace was asked for."""
    thread_id: str = ""
    """The thread of the request; empty if the prober named none."""
    meaning: str = ""
    """The meaning of a refusal for the service that refused, and the thing to do; empty if it has no special meaning."""

    def header(self, name: str) -> str | None:
        """Return the value of the first header with this name, upper or lower case; None without such a header."""
        wanted = name.lower().encode()
        return next((value.decode("latin-1") for key, value in self.headers if key.lower() == wanted), None)

    @property
    def without_evidence(self) -> bool:
        """True if this probe is no evidence about the stream: no connection was made, or the token was refused."""
        return self.unreachable is not None or self.status in TOKEN_REFUSED

    @property
    def ok(self) -> bool:
        """True if a connection was made and the contract holds."""
        return self.unreachable is None and self.report.ok

    def describe(self) -> str:
        """Return the result as one line: the reason for no connection, else the first violation, else the number of events."""
        if self.unreachable is not None:
            return self.unreachable
        violations = self.report.violations
        failure = "".join(f"; {text}" for text in (self.failure, self.meaning) if text)
        if not violations:
            return f"HTTP {self.status}, {self.report.event_count} events, the contract holds"
        more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        return f"{violations[0].rule}: {printable(violations[0].message, 400)}{more}{failure}"


async def probe_stream(
    client: AnyClient,
    request: StreamRequest,
    *,
    contract: StreamContract,
    context: StreamContext | None = None,
    capture: bool = False,
    trace: bool = False,
    hold: Hold | None = None,
    progress: Progress | None = None,
    secrets: Secrets = Secrets(),  # noqa: B008  this default stays empty: nothing here adds to it
    authorize: Token | None = None,
) -> Probe:
    """Send one request, check its stream against a contract, and return the result.

    The check ends with the stream or at the first missed deadline of the contract. A failure of the network is not
    raised; it becomes a finding. Other errors, such as a ``ValueError`` of an app in this process, are raised.

    Args:
        client: Sends the request. Redirects are not followed.
        request: The request that starts the stream.
        contract: The contract that the stream must keep.
        context: The thread id of the request and the ids of earlier tool calls. None: both are unknown. Without
            a time of the request it is now.
        capture: True to keep the body for the result. Default False: nothing of it is kept.
        trace: True to keep the times of the events, and the bytes around the first findings. Default False.
        hold: Keeps the last byte of the request back until the release. None: the request is sent at once.
        progress: Receives the progress of the stream. None: nobody waits for it.
        secrets: Secrets to mask in the headers, the body and the report of the result: a server may echo what it received.
        authorize: The token to send. If it is refused with 401 and there is another one, the request is sent once more, because
            nothing was done. A token that cannot be read makes the result unreachable. None: no token.

    Raises:
        TypeError: The client is not asynchronous.
        BaseException: An app in this process raised it, before or after the last byte of its response.
    """
    opened = stream_client(client)

    async def send(token: str) -> Probe:
        fields = {**request.headers, **bearer(token)}
        return await _probe_once(
            opened,
            attrs.evolve(request, headers=fields),
            contract=contract,
            context=context,
            capture=capture,
            trace=trace,
            hold=hold,
            progress=progress,
            secrets=secrets,
        )

    try:
        try:
            token = "" if authorize is None else await authorize.value()
        except PeerError as error:
            return _unsent(request, contract, secrets.mask_text(str(error)), hold)
        probe = await send(token)
        if authorize is None or probe.status != UNAUTHORIZED:
            return probe
        try:
            other = await authorize.renewed(token)
        except PeerError as error:
            return _unsent(request, contract, f"HTTP {probe.status}: {secrets.mask_text(str(error))}", hold)
        return await send(other) if other else probe
    finally:
        if progress is not None:
            # No event will come any more: wake a task that still waits for one.
            progress.first_event.set()


def _unsent(request: StreamRequest, contract: StreamContract, reason: str, hold: Hold | None) -> Probe:
    """Return the result of a request that could not be sent, because its token could not be read."""
    checker = ContractChecker(contract)
    checker.receive_failure(FailureKind.UNREACHABLE, elapsed=0.0)
    if hold is not None:
        hold.in_flight.set()
    return Probe(
        request=request,
        status=None,
        headers=(),
        body=b"",
        report=checker.report(),
        unreachable=f"{request.method} {mask_urls(request.url)}: {reason}",
        failure=None,
        elapsed=0.0,
    )


async def _probe_once(
    client: StreamClient,
    request: StreamRequest,
    *,
    contract: StreamContract,
    context: StreamContext | None,
    capture: bool,
    trace: bool,
    hold: Hold | None,
    progress: Progress | None,
    secrets: Secrets,
) -> Probe:
    """Send one request once, check its stream to its end, and return the result."""
    limited, leave_after = bounded(contract)
    stream = CheckedStream(
        client=client,
        request=request,
        checker=ContractChecker(limited, context=context_for(context, None)),
        leave_after=leave_after,
        hold=hold,
        progress=progress,
    )
    captured, room = [], MAX_CAPTURE_BYTES if capture else QUOTED_BYTES if trace else 0
    times = EventTimes() if trace else None
    close_seconds = CANCELLED_CLOSE_SECONDS
    try:
        await stream.open()
        elapsed = stream.elapsed()
        with stream.in_time():
            while (piece := await stream.receive()) is not None:
                # httpx closes the connection before it reports the end of the body, so this is the last time that no close is in.
                elapsed = stream.arrived
                if times is not None:
                    times.note(elapsed, count=stream.checker.event_count)
                if room > 0:
                    captured.append(piece[:room])
                    room -= len(captured[-1])
        app_error = await stream.settle(SETTLE_SECONDS)
        close_seconds = CLOSE_SECONDS
    finally:
        if hold is not None:
            # The request has ended: wake a task that still waits for ``in_flight``.
            hold.in_flight.set()
        with anyio.CancelScope(shield=True), anyio.move_on_after(close_seconds):
            await stream.aclose()
    if app_error is not None:
        raise app_error
    report = masked_report(stream.checker.report(), secrets)
    body = secrets.mask(b"".join(captured)) if capture or (trace and report.findings) else b""
    return Probe(
        request=request,
        status=stream.status,
        headers=tuple((key, secrets.mask(value)) for key, value in stream.headers),
        body=body if capture else b"",
        report=report,
        event_times=times.times() if times is not None else (),
        excerpts=excerpts(report, body if room > 0 else body[:-_LONGEST_SECRET]) if trace else (),
        unreachable=stream.unreachable,
        failure=stream.failure,
        elapsed=elapsed,
    )


async def check_stream(
    client: AnyClient,
    url: str,
    *,
    contract: StreamContract = COMPAT_LANE,
    strict: bool = True,
    method: str | None = None,
    json: object = None,
    headers: Mapping[str, str] | None = None,
    context: StreamContext | None = None,
    deadline: float | None = None,
    resume: bool = False,
) -> ContractReport:
    """Send one request, check its stream against the strict form of a contract, and return the report.

    Nothing of the body is kept, so many streams can be checked at the same time.

    Args:
        client: An ``httpx.AsyncClient`` or an ``aiohttp.ClientSession`` (extra ``aiohttp``). Its base URL, headers and connections are
            used. Redirects are not followed.
        url: Absolute, or relative to the client's base URL.
        contract: The contract that the stream must keep. Default: ``COMPAT_LANE``.
        strict: True for the strict form of the contract (`StreamContract.strict`): each loss that a user can see is a violation.
            False for the client's own verdict. Default: True.
        method: The request's method. Default: the contract's, which is POST unless it says another.
        json: The request's body, sent as JSON. Default: no body. If it is an object with a text ``id``, the stream
            must belong to that thread.
        headers: Headers to send besides the client's own. Default: none.
        context: The thread id of the request and the ids of earlier tool calls. By default, a text ``id`` in ``json`` is the
            thread id.
        deadline: Seconds from sending the request to the end of the stream. It replaces the contract's own limit
            ``whole``. Default: that limit (120 unless the contract says another). A stream without an end of its own
            (`StreamContract.endless`) is left then, and judged as far as it went.
        resume: True to cut the stream behind a few events, to reconnect with ``Last-Event-ID``, and to check that nothing is
            lost or doubled there (rules ``resume.*``). The request is sent twice; ``deadline`` holds for both bodies together.
            `cutover.checking.resume_drill` says how. Default: False.

    Returns:
        The report of the check, with the credentials of the request masked. A violation or a failure of the network is a finding in the report and does not raise.
        To raise an error for violations, call ``raise_for_violations()``.

    Raises:
        TypeError: The client is not asynchronous.
        BaseException: An app in this process (`StreamingASGITransport`) raised this error, and it is raised unchanged; also an error
            after the last byte of the response, in a background task or in the teardown of a dependency.
    """
    asked = stream_client(client)
    request = request_for(contract, url, method=method, json=json, headers=headers)
    secrets = secrets_of({**asked.headers, **request.headers}, asked.url_of(request))
    judged = judged_by(contract, strict=strict, deadline=deadline)
    known = context_for(context, json)
    if resume:
        drill = await drill_resume(client, request, contract=judged, context=known)
        return masked_report(drill.report, secrets)
    probe = await probe_stream(client, request, contract=judged, context=known, secrets=secrets)
    return probe.report
