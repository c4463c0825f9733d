"""A ticker: an endless stream whose events have ids, as an ASGI app that resumes well or has one fault; and its contract."""

from collections.abc import Callable, Sequence

import anyio
import attrs
from starlette.types import Message, Receive, Scope, Send

from cutover.contract import ANYTHING, Limits, StreamContract

PATH = "/ticks"

TICKER = StreamContract(
    name="ticker",
    chunks={"tick": {"type": "object", "required": ["n"]}, "odd": ANYTHING, "done": ANYTHING},
    order="(tick | odd)* done?",
    terminator=None,
    endless=True,
    method="GET",
    resume="id",
    limits=Limits(first_event=5.0, event_gap=5.0),
)
"""The contract of a ticker without an end."""
JOB = attrs.evolve(TICKER, name="job", endless=False, order="(tick | odd)* done")
"""The contract of a ticker that ends with the chunk `done`."""


def numbered(n: int) -> str:
    return str(n)


def opaque(n: int) -> str:
    """Return an id that shows no order."""
    return f"{(n * 7919) % 104729:x}-q"


@attrs.define(eq=False, kw_only=True)
class Ticker:
    """An ASGI app that sends tick after tick. A request with `Last-Event-ID` gets the ticks behind that one.

    The fault is only in answers to such requests.
    """

    every: float = 0.001
    """Seconds between two ticks."""
    count: int | None = None
    """Number of the last tick; `done` comes behind it. None: no end."""
    id_of: Callable[[int], str | None] = numbered
    """Returns the id of a tick, from tick 1."""
    break_after: int | None = None
    """Number of the tick of a first answer after which the body ends."""
    head_of_stream: str = ""
    """Text before the first tick, such as a `retry` line."""
    forget: Sequence[int] = ()
    """Places behind the join (from 1) of ticks that a second answer leaves out."""
    double: bool = False
    """True to send the last seen tick once more."""
    overlap: bool = False
    """True to send the third tick behind the join twice."""
    swap: bool = False
    """True to exchange the first two ticks behind the join."""
    ignore_id: bool = False
    """True to begin again."""
    refuse: int | None = None
    """Status of each answer to a reconnection."""
    html: bool = False
    """True to answer a reconnection with a page."""
    asked: list[str | None] = attrs.field(factory=list)
    """The `Last-Event-ID` of each request."""
    methods: list[str] = attrs.field(factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        values = [value.decode() for name, value in scope["headers"] if name == b"last-event-id"]
        last = values[0] if values else None
        self.asked.append(last)
        self.methods.append(scope["method"])
        if last is not None and (self.refuse is not None or self.html):
            kind = b"text/html" if self.html else b"application/json"
            await self._head(send, self.refuse or 200, kind)
            body = b"" if self.refuse == 204 else b'{"error": {"code": "gone", "message": "no such id"}}'
            await send({"type": "http.response.body", "body": body})
            return
        await self._head(send, 200, b"text/event-stream; charset=utf-8")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._hang_up, receive, tasks.cancel_scope)
            await self._ticks(send, last)
            tasks.cancel_scope.cancel()

    async def _hang_up(self, receive: Receive, scope: anyio.CancelScope) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        scope.cancel()

    async def _head(self, send: Send, status: int, kind: bytes) -> None:
        message: Message = {
            "type": "http.response.start",
            "status": status,
            "headers": [(b"content-type", kind)],
        }
        await send(message)

    async def _ticks(self, send: Send, last: str | None) -> None:
        if self.head_of_stream:
            await self._send(send, self.head_of_stream)
        first = 1
        if last is not None and not self.ignore_id:
            first = next((n for n in range(1, 10_000) if self.id_of(n) == last), 0) + 1
        for n in self._numbers(first, resumed=last is not None):
            if self.count is not None and n > self.count:
                break
            await self._send(send, self.tick(n))
            if last is None and n == self.break_after:
                await send({"type": "http.response.body", "body": b""})
                return
            await anyio.sleep(self.every)
        if first <= (self.count or 0) + 1:
            mark = self.id_of((self.count or 0) + 1)
            await self._send(send, (f"id: {mark}\n" if mark else "") + 'data: {"type":"done"}\n\n')
        await send({"type": "http.response.body", "body": b""})

    def _numbers(self, first: int, *, resumed: bool) -> Sequence[int]:
        numbers = list(range(first, first + 5_000))
        if not resumed:
            return numbers
        numbers = [n for at, n in enumerate(numbers, 1) if at not in self.forget]
        if self.double:
            numbers.insert(0, first - 1)
        if self.overlap:
            numbers.insert(3, numbers[2])
        if self.swap:
            numbers[:2] = numbers[1::-1]
        return numbers

    def tick(self, n: int) -> str:
        mark = self.id_of(n)
        return (f"id: {mark}\n" if mark else "") + f'data: {{"type":"tick","n":{n}}}\n\n'

    async def _send(self, send: Send, text: str) -> None:
        await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
