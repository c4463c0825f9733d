"""The live view of a train on a terminal: its steps, its undo, the traffic split, the elapsed time, the answers to signals."""

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import Self

import attrs
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from cutover.model.train_events import TrainEvent
from cutover.report.progress import RUNNING, STOPPED, Progress
from cutover.text import printable

_STYLES = {
    "pass": "green",
    "fail": "bold red",
    "error": "bold red",
    "skip": "dim",
    RUNNING: "bold cyan",
    STOPPED: "bold yellow",
}
_LONGEST_LAST = 300
"""Characters of the latest event that are shown. Its step has the whole text in its row."""


def stderr_can_redraw() -> bool:
    """Return True if standard error is a terminal that can move its cursor up, and show a view that redraws itself."""
    console = Console(stderr=True)
    return console.is_terminal and not console.is_dumb_terminal


@attrs.define(eq=False)
class LiveView(AbstractContextManager["LiveView"]):
    """A table that redraws itself while the train runs; for a real terminal only.

    On a terminal with too few lines the last lines of the view are shown, because they hold what happens now.
    """

    console: Console = attrs.field(factory=lambda: Console(stderr=True))
    progress: Progress = attrs.field(factory=Progress)
    notices: list[str] = attrs.field(factory=list)
    """The lines that were said to the operator, such as the answer to Ctrl-C; they stay in the view."""
    started: float = attrs.field(factory=time.monotonic)
    """Seconds on the monotonic clock when the view was made."""
    _live: Live = attrs.field(init=False)
    _closing: bool = False

    def __attrs_post_init__(self) -> None:
        self._live = Live(console=self.console, get_renderable=self._fitting, refresh_per_second=8)

    def __enter__(self) -> Self:
        # A closed terminal must not stop the train.
        with suppress(OSError, ValueError):
            self._live.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Draw the whole view a last time, and show the cursor again. A second call does nothing."""
        self._closing = True
        with suppress(OSError, ValueError):
            self._live.stop()

    def observe(self, event: TrainEvent) -> None:
        """Update the view from one train event."""
        self.progress.observe(event)

    def say(self, line: str) -> None:
        """Add a line to the view, where it stays. A line beside the view would be drawn over."""
        self.notices.append(line)

    def render(self) -> Group:
        """Return the current view; text from the network is shown as plain text, never as markup."""
        table = Table(box=None, pad_edge=False)
        for title in ("step", "status", "detail"):
            table.add_column(title, overflow="fold" if title == "detail" else "ellipsis")
        # A copy, because the view is drawn by a thread of its own.
        for step_id, (status, detail) in tuple(self.progress.steps.items()):
            table.add_row(step_id, Text(status, style=_STYLES[status]), _text(detail))
        elapsed = time.monotonic() - self.started
        return Group(
            table,
            _text(f"traffic: {self.progress.split}   elapsed: {elapsed:.0f} s"),
            *([_text(f"waiting for {self.progress.waits_for}")] if self.progress.waits_for else []),
            _text(self.progress.last, _LONGEST_LAST),
            *(Text(printable(line, 2000), style="bold") for line in tuple(self.notices)),
        )

    def _fitting(self) -> "Group | _LastLines":
        return self.render() if self._closing else _LastLines(self.render())


@attrs.frozen
class _LastLines:
    """The last lines of a picture, as many as the terminal has; rich itself would cut them off and show the first ones."""

    picture: Group

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self.picture, options.update(height=None), pad=False)
        yield from _with_line_feeds(lines[-options.size.height :])


def _with_line_feeds(lines: list[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()


def _text(untrusted: str, limit: int = 2000) -> Text:
    """Return untrusted text for display: without markup, with control characters escaped."""
    return Text(printable(untrusted, limit=limit))
