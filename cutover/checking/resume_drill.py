"""The resume drill: one stream, cut by the client and resumed with `Last-Event-ID`, as a client does that lost its connection.

The drill opens the stream and cuts it behind its third event with an id. But before it closes the connection, it waits for a few
events more. It withholds them: it acts as if they had been lost on the way, as happens when a connection breaks. So it knows
exactly which events the service must send again, whatever the ids look like. Then it reconnects with the id of the last event
before them, and reads on: a stream with an end to its end, an endless one for ten events.

The contract is checked as of one stream (`ContractChecker.receive_reconnect`), and the ids are held to what was seen before
(`JoinJudge`). A stream that ends with fewer events with ids is read to its end; the reconnection must then bring nothing again.
A stream without any id breaks `resume.no-id`. If the first response is no stream, or breaks by itself, the drill reports
that and does not reconnect.
"""

import math

import anyio
import attrs

from cutover.checking.arguments import bounded, context_for
from cutover.checking.checked_stream import CANCELLED_CLOSE_SECONDS, CheckedStream
from cutover.contract import ContractChecker, ContractReport, StreamContext, StreamContract
from cutover.contract.checker import NO_CONTENT
from cutover.contract.joining import JoinJudge
from cutover.http.clients import AnyClient, stream_client
from cutover.http.connection import StreamRequest
from cutover.http.outbound import CLOSE_SECONDS
from cutover.sse.events import MessageEvent
from cutover.sse.parser import EventStreamParser

CUT_BEHIND = 3
"""Number of events with an id behind which the drill cuts the stream."""
WITHHELD = 2
"""Number of later events with an id that the drill waits for, and withholds."""
WITHHOLD_SECONDS = 1.0
"""Longest time in seconds for which the drill waits for those events. A slow stream then has fewer, or none."""
BEHIND_JOIN = 10
"""Number of events that are read behind the join of a stream without an end of its own."""


@attrs.define(eq=False)
class _Cut:
    """The gate between the wire and the checker: it lets through what a client gets that loses its connection at the cut."""

    join: JoinJudge
    """The judge of the ids."""
    max_event_bytes: int
    """The limit of the contract, so that the drill and the checker count the same events."""
    withheld: list[str] = attrs.field(factory=list, init=False)
    """The ids of the events behind the cut that came before it was made."""
    behind: int = attrs.field(default=0, init=False)
    """The number of message events behind the join."""
    _parser: EventStreamParser = attrs.field(init=False)
    _events: int = attrs.field(default=0, init=False)
    _named: int = attrs.field(default=0, init=False)
    # True once an event behind the cut has come, so that all later bytes are withheld.
    _is_closed: bool = attrs.field(default=False, init=False)

    @_parser.default
    def _new_parser(self) -> EventStreamParser:
        return EventStreamParser(max_event_bytes=self.max_event_bytes)

    @property
    def is_reached(self) -> bool:
        """True once enough events with an id have come."""
        return self._named >= CUT_BEHIND

    def let_through(self, piece: bytes) -> bytes:
        """Return the part of a piece that comes before the cut."""
        begins, end = self._parser.received, 0 if self._is_closed else len(piece)
        for event in self._parser.receive_data(piece):
            is_message = isinstance(event, MessageEvent)
            if self.is_reached and not self.join.reconnects:
                if isinstance(event, MessageEvent):
                    if not self._is_closed:
                        # A part of the event may have been let through before: the cut is then inside the event.
                        self._is_closed, end = True, max(event.byte_offset - begins, 0)
                    self.withheld += [event.id] if event.id else []
                continue
            self.join.take(event, index=self._events)
            self._events += is_message
            self._named += isinstance(event, MessageEvent) and bool(event.id)
            self.behind += is_message and self.join.reconnects > 0
        return piece[:end]

    def reconnect(self, received: int) -> None:
        """Note the reconnection. `received` is the number of bytes that were let through before it."""
        self.join.reconnect(withheld=self.withheld)
        self._is_closed = False
        self._parser = self._new_parser()
        self._parser.received, self._parser.last_event_id = received, self.join.last_id


@attrs.frozen(kw_only=True)
class ResumeDrill:
    """The result of one drill."""

    report: ContractReport
    """The report on both bodies as one stream. It may hold secrets that the service echoed."""
    unreachable: str | None
    """Reason why no first connection was made; None if one was made."""


async def drill_resume(
    client: AnyClient,
    request: StreamRequest,
    *,
    contract: StreamContract,
    context: StreamContext | None = None,
) -> ResumeDrill:
    """Send one request, cut its stream, resume it, check both bodies as one stream, and return the result.

    A failure of the network is not raised; it becomes a finding. Other errors, such as a ``ValueError`` of an app in this process,
    are raised.

    Args:
        client: Sends the requests. Redirects are not followed.
        request: The request that starts the stream. It is sent again with `Last-Event-ID`.
        contract: The contract that the stream must keep. ``limits.whole`` holds for both bodies together.
        context: The thread id of the request and the ids of earlier tool calls. None: both are unknown.
    """
    limited, leave_after = bounded(contract)
    cut = _Cut(JoinJudge(limited), limited.limits.max_event_bytes)
    stream = CheckedStream(
        client=stream_client(client),
        request=request,
        checker=ContractChecker(limited, context=context_for(context, None)),
        leave_after=leave_after,
        gate=cut.let_through,
    )
    close_seconds = CANCELLED_CLOSE_SECONDS
    try:
        await _read_to_the_cut(stream, cut)
        unreachable = stream.unreachable
        if _can_be_resumed(stream, cut):
            await _read_behind_the_join(stream, cut)
        close_seconds = CLOSE_SECONDS
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(close_seconds):
            await stream.aclose()
    return ResumeDrill(report=cut.join.merged_into(stream.checker.report()), unreachable=unreachable)


async def _read_to_the_cut(stream: CheckedStream, cut: _Cut) -> None:
    """Read until the cut is reached, then a little longer. Of an endless stream, half of the time is left for the second body."""
    await stream.open()
    with stream.in_time():
        with anyio.move_on_after(math.inf if stream.leave_after is None else stream.leave_after / 2):
            while not cut.is_reached and await stream.receive() is not None:
                pass
        if cut.is_reached:
            # The checker does not see the withheld events, so they must not take as long as a gap may take.
            with anyio.move_on_after(min(WITHHOLD_SECONDS, stream.checker.contract.limits.event_gap / 2)):
                while len(cut.withheld) < WITHHELD and await stream.receive() is not None:
                    pass


def _can_be_resumed(stream: CheckedStream, cut: _Cut) -> bool:
    """Return True if the first response was a stream that the drill cut, or that came to its end."""
    report = stream.checker.report()
    no_stream = any(finding.rule.startswith("head.") for finding in report.violations)
    broke = report.interrupted is not None and not cut.is_reached
    return stream.status is not None and not no_stream and not broke


async def _read_behind_the_join(stream: CheckedStream, cut: _Cut) -> None:
    """Reconnect with the last id, if there is one, and read on."""
    cut.reconnect(stream.checker.report().byte_count)
    if not cut.join.last_id:
        return
    await anyio.sleep(cut.join.delay)
    is_endless = stream.checker.contract.endless
    await stream.reopen(cut.join.last_id)
    with stream.in_time():
        while await stream.receive() is not None:
            if is_endless and cut.behind >= BEHIND_JOIN:
                stream.leave()
                break
    report = stream.checker.report()
    refused = any(finding.rule.startswith(("head.", "resume.")) for finding in report.violations)
    if report.complete and not refused and stream.status != NO_CONTENT:
        cut.join.end()
