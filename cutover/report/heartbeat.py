"""A sign of life in a log: a train that soaks for an hour writes no line of its own for that time."""

import anyio
import attrs

from cutover.clock import Clock, EventLoopClock, utc_now
from cutover.model.train_events import TrainEvent
from cutover.report.progress import Progress
from cutover.report.terminal import Terminal, line_of

LONGEST_SILENCE = 30.0
"""Seconds without a line, after which one is written."""


@attrs.define(eq=False)
class Heartbeat:
    """The lines of a train for a log: one for each event that has a line, and one after each 30 s of silence."""

    terminal: Terminal
    clock: Clock = attrs.field(factory=EventLoopClock)
    progress: Progress = attrs.field(factory=Progress)
    _begun: anyio.Event = attrs.field(factory=anyio.Event)
    _started: float = 0.0
    _spoke: float = 0.0
    """The time of the latest line."""

    def observe(self, event: TrainEvent) -> None:
        """Write the line of one train event. The silence is measured from the first event on."""
        self.progress.observe(event)
        self.terminal.observe(event)
        if not self._begun.is_set():
            self._started = self._spoke = self.clock.now()
            self._begun.set()
        elif line_of(event):
            self._spoke = self.clock.now()

    async def beat(self) -> None:
        """Write a line after each silence, until cancelled."""
        await self._begun.wait()
        while True:
            rest = self._spoke + LONGEST_SILENCE - self.clock.now()
            if rest > 0:
                await self.clock.sleep(rest)
                continue
            self._spoke = self.clock.now()
            at_work = ", ".join(self.progress.running) or "no step"
            waits_for = f"waiting for {self.progress.waits_for}; " if self.progress.waits_for else ""
            self.terminal.line(
                f"{utc_now()[11:19]} still running: {at_work}; {waits_for}traffic, as read last: {self.progress.split}; "
                f"elapsed: {self._spoke - self._started:.0f} s"
            )
