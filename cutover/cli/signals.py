"""Signals to a command, and the exit code and last lines that follow from them.

The first signal cancels the command, and a train then undoes its changes. The answer names them, and how long that may take. The second
changes nothing. The third exits at once. A command that changes nothing in production exits at once on the second signal.
"""

import math
import os
import signal
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any

import anyio
import attrs
from anyio.abc import TaskStatus

from cutover.errors import ConfigurationError, NotStartedError, UndoUnprovenError, root_cause
from cutover.report.terminal import Terminal

EXIT_USAGE, EXIT_NOT_STARTED, EXIT_UNPROVEN = 2, 3, 4
_SAME_SIGNAL_SECONDS = 0.5
"""Seconds. Signals closer together count as one: a terminal signals the whole group, and a supervisor may add its own."""


def run_command(command: Callable[..., Awaitable[int]], *arguments: object) -> int:
    """Run an asynchronous command on asyncio and return its exit code."""
    try:
        return anyio.run(command, *arguments)
    except KeyboardInterrupt:
        # The listener was not ready: the command had not started, or this is Windows, which has no listener.
        return 128 + signal.SIGINT


_EXIT_SECONDS = 1.0
"""Seconds that the third signal may take to write its last line."""


@attrs.define(eq=False)
class Interruption:
    """The state that decides how an interrupted command ends.

    The listener sets ``first_signal``. The command sets the other fields as its state changes.
    """

    changes_production: bool = attrs.field(default=True, kw_only=True)
    """True if the command may change production. An interruption then undoes its changes, unless ``left_open`` is set."""
    first_signal: int = 0
    """The number that the system gives to the signal (SIGINT is 2); 0 if none came."""
    verdict: int | None = None
    """The exit code in the journal's last event; None until the train has finished."""
    work: str = "train"
    """The word for the work of the command in its messages: a train, or a recovery."""
    undoes: Callable[[], str] = lambda: "every change that this run has made"
    """Returns the changes that an interruption undoes now, in words; empty if there is none. A recovery undoes nothing of its own."""
    left_open: str = ""
    """The command that closes the run, if an interruption leaves the run open; else empty."""
    recover: str = "`cutover recover` on the run directory"
    """The command that finishes an undo that was cut off."""

    @property
    def exit_code(self) -> int:
        """The exit code of an interruption that leaves nothing open: 143 for SIGTERM and SIGHUP, else 130."""
        return 128 + (signal.SIGTERM if self.first_signal in _TERMINATIONS else signal.SIGINT)


_TERMINATIONS = frozenset(getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))
"""The signals that end the command with 143."""


async def until_signalled(
    work: Callable[[Interruption], Awaitable[int]],
    terminal: Terminal,
    *,
    changes_production: bool = True,
    beside: Callable[[], Coroutine[Any, Any, None]] | None = None,
) -> int:
    """Run a command until it is done or a signal cancels it, and return the exit code.

    Args:
        work: The command. When it is cancelled, it must undo its changes, or have set ``left_open``.
        terminal: The terminal for messages about signals and errors.
        changes_production: False for a command that has nothing to undo.
        beside: A task that runs as long as the command does, also while the command undoes its changes; it is cancelled at the end.
    """
    interruption = Interruption(changes_production=changes_production)
    # Event loops on Windows take no signals; commands that run there have nothing to undo.
    if sys.platform == "win32":
        return await _run_to_exit_code(work, interruption, terminal)
    code = 0
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            listener = _Listener(scope=scope, terminal=terminal, interruption=interruption)
            await group.start(listener.listen)
            if beside is not None:
                group.start_soon(beside)
            code = await _run_to_exit_code(work, interruption, terminal)
        group.cancel_scope.cancel()
    if scope.cancelled_caught:
        code = _code_of_interruption(interruption, terminal)
    if hasattr(signal, "pthread_sigmask"):
        # The exit code is decided: a late signal must not change it.
        signal.pthread_sigmask(signal.SIG_BLOCK, listener.signals)
    return code


def _code_of_interruption(interruption: Interruption, terminal: Terminal) -> int:
    """Print the state in which an interrupted command leaves production, and return the exit code."""
    if interruption.verdict not in {None, interruption.exit_code}:
        # The signal came while the command closed its connections.
        terminal.line(
            f"interrupted after the end of the {interruption.work}; the journal records how it ended: exit code {interruption.verdict}"
        )
        return interruption.verdict
    if interruption.left_open:
        terminal.line(
            f"UNRESOLVED: interrupted; production may still hold changes of this run; to finish: {interruption.left_open}"
        )
        return EXIT_UNPROVEN
    undone = "; every change that this run had made was undone, and that was proven"
    terminal.line("interrupted" + (undone if interruption.changes_production else ""))
    return interruption.exit_code


async def _run_to_exit_code(
    work: Callable[[Interruption], Awaitable[int]], interruption: Interruption, terminal: Terminal
) -> int:
    """Run a command and return its exit code. Print an error, and return the exit code for it."""
    try:
        return await work(interruption)
    except UndoUnprovenError as error:
        terminal.line("UNDO NOT PROVEN: production may still hold changes of this run; an operator must act")
        for line in str(error).splitlines():
            terminal.line(f"  DO      {line}")
        return EXIT_UNPROVEN
    except ConfigurationError as error:
        for problem in error.problems:
            terminal.line(f"error: {problem}")
        return EXIT_USAGE
    except NotStartedError as error:
        terminal.line(f"not started; this command changed nothing: {error}")
        return EXIT_NOT_STARTED
    except Exception as error:  # noqa: BLE001  a fault in cutover; the last line must still tell the state of production
        for line in "".join(traceback.format_exception(error)).splitlines():
            terminal.line(line)
        return _code_of_fault(root_cause(error), interruption, terminal)


def _code_of_fault(error: BaseException, interruption: Interruption, terminal: Terminal) -> int:
    """Print the state in which a fault in cutover itself leaves production, and return the exit code."""
    message = f"a fault in cutover itself: {error!r}"
    if not interruption.changes_production:
        terminal.line(message)
        return EXIT_NOT_STARTED
    if interruption.verdict is None or interruption.verdict == EXIT_UNPROVEN:
        terminal.line(
            f"UNRESOLVED: {message}; production may still hold changes of this run; to finish: {interruption.left_open or interruption.recover}"
        )
        return EXIT_UNPROVEN
    terminal.line(
        f"{message}; the journal records how the {interruption.work} ended: exit code {interruption.verdict}"
    )
    return interruption.verdict


@attrs.define(eq=False)
class _Listener:
    """The receiver of signals: cancels the command on the first one, and answers the later ones."""

    scope: anyio.CancelScope
    terminal: Terminal
    interruption: Interruption
    signals: tuple[signal.Signals, ...] = attrs.field(init=False)
    """The signals to listen for."""

    @signals.default
    def _not_ignored(self) -> tuple[signal.Signals, ...]:
        """Return the signals that the parent process did not set to be ignored, as nohup and a shell's ``&`` do on purpose."""
        known = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
        return tuple(number for number in known if number and signal.getsignal(number) is not signal.SIG_IGN)

    async def listen(self, *, task_status: TaskStatus[None]) -> None:
        """Receive signals until cancelled."""
        count, last = 0, -math.inf
        with anyio.open_signal_receiver(*self.signals) as received:
            task_status.started()
            async for number in received:
                if anyio.current_time() - last >= _SAME_SIGNAL_SECONDS:
                    count += 1
                    self._answer(number, count)
                last = anyio.current_time()

    def _answer(self, number: signal.Signals, count: int) -> None:
        """Act on the signal that is number ``count`` of this run."""
        if count == 1:
            self.interruption.first_signal = number
            for line in self._first_answer(number):
                self.terminal.line(line)
            self.scope.cancel()
        elif not self.interruption.changes_production:
            os._exit(self.interruption.exit_code)
        elif count == 2:  # noqa: PLR2004  the second signal
            doing = (
                "undo continues"
                if self.interruption.work == "train"
                else f"{self.interruption.work} is stopping"
            )
            self.terminal.line(
                f"the {doing}; it may take up to {_longest_undo()}. A third signal exits at once and leaves production as it is then"
            )
        else:
            self._exit_at_once()

    def _first_answer(self, number: signal.Signals) -> Iterator[str]:
        """Give the lines that answer the first signal: what happens now, how long it may take, and what more signals do."""
        if not self.interruption.changes_production:
            yield f"{number.name}: stopping ..."
            return
        if self.interruption.work == "recovery":
            yield f"{number.name}: stopping the recovery; a write that is under way is finished first, and the rest stays as it is"
        elif undoes := self.interruption.undoes():
            yield f"{number.name}: stopping, and undoing what this run has changed: {undoes}"
        else:
            yield f"{number.name}: stopping; there is no change of this run to undo"
        yield (
            f"this may take up to {_longest_undo()}; a second signal changes nothing; a third exits at once and leaves production "
            "as it is then"
        )

    def _exit_at_once(self) -> None:
        # A terminal that takes no output (Ctrl-S) must not hold up the exit.
        threading.Timer(_EXIT_SECONDS, os._exit, [EXIT_UNPROVEN]).start()
        self.terminal.close_view()
        unfinished = "undo" if self.interruption.work == "train" else self.interruption.work
        self.terminal.line(
            f"exited at once: the {unfinished} is not finished, and production stays as it is now; run {self.interruption.recover}"
        )
        os._exit(EXIT_UNPROVEN)


def _longest_undo() -> str:
    """Return the longest time of an undo, in words."""
    from cutover.train.undo_executor import UNDO_DEADLINE  # noqa: PLC0415  the commands that change production have loaded it already

    return f"{UNDO_DEADLINE / 60:g} minutes"
