"""The live view of a train on a terminal: its steps, the traffic split, the elapsed time."""

import time
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Self

import attrs
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cutover.model.traffic_state import describe_shares
from cutover.model.train_events import StepFinished, StepStarted, TrafficIntended, TrafficRead, TrainEvent
from cutover.report.terminal import line_of
from cutover.text import printable

_STYLES = {"pass": "green", "fail": "bold red", "error": "bold red", "skip": "dim", "running": "bold cyan"}


@attrs.define(eq=False)
class LiveView(AbstractContextManager["LiveView"]):
    """A table that redraws itself while the train runs; for a real terminal only."""

    console: Console = attrs.field(factory=lambda: Console(stderr=True))
    steps: dict[str, tuple[str, str]] = attrs.field(factory=dict)
    """Status and detail of each step, by step id, in the order in which the steps started or were skipped."""
    split: str = "not read yet"
    """The traffic split that was read last."""
    last: str = ""
    """The line of the latest event that has one."""
    started: float = attrs.field(factory=time.monotonic)
    """Seconds on the monotonic clock when the view was made."""
    _live: Live = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._live = Live(console=self.console, get_renderable=self.render, refresh_per_second=8)

    def __enter__(self) -> Self:
        # A closed terminal must not stop the train.
        with suppress(OSError, ValueError):
            self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError, ValueError):
            self._live.stop()

    def observe(self, event: TrainEvent) -> None:
        """Update the view from one train event."""
        match event:
            case StepStarted():
                self.steps[event.step_id] = ("running", "")
            case StepFinished():
                self.steps[event.result.step_id] = (event.result.status.value, event.result.detail)
            case TrafficIntended():
                self.split = (
                    describe_shares(event.captured.served()) if self.split == "not read yet" else self.split
                )
            case TrafficRead():
                self.split = describe_shares(event.found.served())
            case _:
                pass
        self.last = line_of(event) or self.last

    def render(self) -> Group:
        """Return the current view; text from the network is shown as plain text, never as markup."""
        table = Table(box=None, pad_edge=False)
        for title in ("step", "status", "detail"):
            table.add_column(title, overflow="fold" if title == "detail" else "ellipsis")
        for step_id, (status, detail) in self.steps.items():
            table.add_row(step_id, Text(status, style=_STYLES[status]), _text(detail))
        elapsed = time.monotonic() - self.started
        return Group(table, _text(f"traffic: {self.split}   elapsed: {elapsed:.0f} s"), _text(self.last))


def _text(untrusted: str) -> Text:
    """Return untrusted text for display: without markup, with control characters escaped."""
    return Text(printable(untrusted, limit=2000))
