"""The delivery of notices beside a train: a queue and a task for each receiver, and no effect on the train.

A cancellation of the train does not reach the tasks. When the train has ended, the notices that still wait are sent: the last one has all
of ``NOTICE_SECONDS``, and those before it share as much. So the end of a run is held up by at most twice that time. The train's undo is
never held up.
"""

import warnings
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio
import attrs

from cutover.errors import PeerError, root_cause
from cutover.model.train_events import TrainEvent
from cutover.report.notices.notice import Notice
from cutover.text import printable

NOTICE_SECONDS = 5.0
"""Seconds for one notice to one receiver, with its second try."""
MOST_WAITING = 16
"""Notices that wait for one receiver. The oldest one is dropped for a newer one."""
_Result = TypeVar("_Result")


@attrs.define(eq=False, kw_only=True)
class Receiver:
    """One receiver of notices, with its queue."""

    name: str
    """The input that names the receiver, as the user typed it."""
    send: Callable[[Notice], Awaitable[None]] = attrs.field(repr=False)
    """Sends one notice. A ``PeerError`` says why it was not delivered; its text holds no secret."""
    lost: int = attrs.field(default=0, init=False)
    """Number of notices that were not delivered."""
    reason: str = attrs.field(default="", init=False)
    """The reason why the last of them was not delivered."""
    _waiting: deque[Notice] = attrs.field(factory=deque, init=False)
    _more: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _ends: float | None = attrs.field(default=None, init=False)
    """Time of the event loop at which only the last notice may still be sent; None while the train runs."""

    def put(self, notice: Notice) -> None:
        """Queue a notice."""
        if len(self._waiting) == MOST_WAITING:
            self._waiting.popleft()
            self._lose(f"more than {MOST_WAITING} notices waited")
        self._waiting.append(notice)
        self._more.set()

    def finish(self) -> None:
        """Say that there are no more notices."""
        self._ends = anyio.current_time() + NOTICE_SECONDS
        self._more.set()

    async def deliver(self) -> None:
        """Send notices until there are no more. No cancellation ends this."""
        with anyio.CancelScope(shield=True):
            while self._waiting or self._ends is None:
                if self._waiting:
                    await self._send(self._waiting.popleft())
                else:
                    self._more = anyio.Event()
                    await self._more.wait()

    async def _send(self, notice: Notice) -> None:
        seconds = NOTICE_SECONDS
        if self._waiting and self._ends is not None:
            seconds = min(seconds, self._ends - anyio.current_time())
        try:
            with anyio.fail_after(max(seconds, 0.0)):
                await self.send(notice)
        except TimeoutError:
            self._lose(f"not delivered within {NOTICE_SECONDS:g} s")
        except PeerError as error:
            self._lose(str(error))
        except Exception as error:  # noqa: BLE001  a fault in cutover itself must not change a verdict
            self._lose(f"a fault in cutover itself: {type(root_cause(error)).__name__}")

    def _lose(self, reason: str) -> None:
        self.lost += 1
        self.reason = printable(reason)


@attrs.define(eq=False, kw_only=True)
class Notices:
    """The notices of one run: made of its train events, and sent to every receiver."""

    receivers: tuple[Receiver, ...]
    notice_of: Callable[[Sequence[TrainEvent]], Notice | None]
    """Returns the notice that the last event leads to, with every secret masked."""
    events: Sequence[TrainEvent] = attrs.field(default=(), init=False, repr=False)
    """The events of the run, which the journal goes on to fill."""

    def observe(self, _: TrainEvent) -> None:
        """Queue the notice of the event that was recorded last, if it leads to one."""
        notice = self.notice_of(self.events) if self.receivers else None
        if notice is not None:
            for receiver in self.receivers:
                receiver.put(notice)

    async def beside(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Do the work and send notices meanwhile; return the work's result, or raise its error, once the last notice was sent.

        A ``RuntimeWarning`` names each receiver that did not get every notice.
        """
        if not self.receivers:
            return await work()
        try:
            return await self._beside(work)
        finally:
            for problem in self.problems:
                warnings.warn(problem, RuntimeWarning, stacklevel=2)

    async def _beside(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        results: list[_Result] = []
        failure: Exception | None = None
        try:
            async with anyio.create_task_group() as group:
                for receiver in self.receivers:
                    group.start_soon(receiver.deliver)
                try:
                    results.append(await work())
                except Exception as error:  # noqa: BLE001  raised below: the task group would put it into a group
                    failure = error
                finally:
                    for receiver in self.receivers:
                        receiver.finish()
        except anyio.get_cancelled_exc_class():
            # The work's own error says more than the cancellation that led to it.
            if failure is None:
                raise
        if failure is not None:
            raise failure
        return results[0]

    @property
    def problems(self) -> tuple[str, ...]:
        """The receivers that did not get every notice, in words."""
        return tuple(
            f"{receiver.name}: {receiver.lost} of the notices of this run {'was' if receiver.lost == 1 else 'were'} not delivered; "
            f"the last reason: {receiver.reason}; notices change no verdict"
            for receiver in self.receivers
            if receiver.lost
        )
