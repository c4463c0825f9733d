"""Signals become cancellation: the first stops and undoes, the second says how long that takes, the third leaves at once."""

import math
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TextIO

import anyio
import attrs
from anyio.abc import TaskStatus

from cutover.errors import ConfigurationError, NotStartedError, UndoUnprovenError, root_cause
from cutover.report.terminal import Terminal

EXIT_USAGE, EXIT_NOT_STARTED, EXIT_UNPROVEN = 2, 3, 4
_SAME_SIGNAL_SECONDS = 0.5
"""Signals closer together than this are one: a terminal sends its own to the whole group."""


def run_command(command: Callable[..., Awaitable[int]], *arguments: object) -> int:
    """Run an asynchronous command to its exit code, on asyncio."""
    try:
        return anyio.run(command, *arguments)
    except KeyboardInterrupt:  # before anybody listened: nothing had begun
        return 128 + signal.SIGINT
    finally:
        for stream in (sys.stdout, sys.stderr):
            _give_up_if_closed(stream)


def _give_up_if_closed(stream: TextIO) -> None:
    """Point a closed terminal or pipe at nowhere: Python would else end with a code of its own while flushing it."""
    try:
        stream.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


@attrs.define(eq=False)
class Interruption:
    """What a command's end by a signal means: the listener says by which, the command says what is left to do."""

    changes_production: bool = attrs.field(default=True, kw_only=True)
    """Whether the command changes anything that an interruption has to take back."""
    came: int = 0
    """The first signal; 0 where none came."""
    verdict: int | None = None
    """The exit code that the journal ends with; None until it does."""
    left_open: str = ""
    """Where being interrupted leaves something open: the command that goes on with it."""
    recover: str = "`cutover recover` on the run directory"
    """The command that finishes what an undo that is cut leaves open."""

    @property
    def exit_code(self) -> int:
        """As the command exits, where nothing is left open; an interruption by no signal counts as SIGINT."""
        return 128 + (signal.SIGTERM if self.came in _TERMINATIONS else signal.SIGINT)


_TERMINATIONS = frozenset(getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP"))


async def until_signalled(
    work: Callable[[Interruption], Awaitable[int]], terminal: Terminal, *, changes_production: bool = True
) -> int:
    """Run until done, or until a signal cancels it: undone then, and told by the exit code."""
    interruption = Interruption(changes_production=changes_production)
    if sys.platform == "win32":  # its event loops take no signals; what runs there has nothing to undo
        return await _told(work, interruption, terminal)
    code = 0
    async with anyio.create_task_group() as group:
        with anyio.CancelScope() as scope:
            listener = _Listener(scope=scope, terminal=terminal, interruption=interruption)
            await group.start(listener.listen)
            code = await _told(work, interruption, terminal)
        group.cancel_scope.cancel()
    if scope.cancelled_caught and interruption.left_open:
        terminal.line(f"UNRESOLVED: interrupted; to go on: {interruption.left_open}")
        code = EXIT_UNPROVEN
    elif scope.cancelled_caught:
        undone = "; what had been applied, if anything had, was taken back, and that was proven"
        terminal.line("interrupted" + (undone if changes_production else ""))
        code = interruption.exit_code
    if hasattr(signal, "pthread_sigmask"):
        # the exit code is decided: a late signal must not change it
        signal.pthread_sigmask(signal.SIG_BLOCK, listener.heeded)
    return code


async def _told(
    work: Callable[[Interruption], Awaitable[int]], interruption: Interruption, terminal: Terminal
) -> int:
    """Run to the exit code, and say what ended it early."""
    try:
        return await work(interruption)
    except UndoUnprovenError as error:
        terminal.line("UNDO NOT PROVEN: an operator must act")
        for line in str(error).splitlines():
            terminal.line(f"  DO      {line}")
        return EXIT_UNPROVEN
    except ConfigurationError as error:
        for problem in error.problems:
            terminal.line(f"error: {problem}")
        return EXIT_USAGE
    except NotStartedError as error:
        terminal.line(f"not started: {error}")
        return EXIT_NOT_STARTED
    except Exception as error:  # noqa: BLE001  a fault of cutover's own; the last line must say how production was left
        for line in "".join(traceback.format_exception(error)).splitlines():
            terminal.line(line)
        return _failed(root_cause(error), interruption, terminal)


def _failed(error: BaseException, interruption: Interruption, terminal: Terminal) -> int:
    """Say what a fault of cutover's own means; return the exit code."""
    said = f"a fault in cutover itself: {error!r}"
    if not interruption.changes_production:
        terminal.line(said)
        return EXIT_NOT_STARTED
    if interruption.verdict is None or interruption.verdict == EXIT_UNPROVEN:
        terminal.line(f"UNRESOLVED: {said}; to go on: {interruption.left_open or interruption.recover}")
        return EXIT_UNPROVEN
    terminal.line(f"{said}; the journal has how the train ended: exit code {interruption.verdict}")
    return interruption.verdict


@attrs.define(eq=False)
class _Listener:
    """Turns the first signal into cancellation, and tells the others what they mean."""

    scope: anyio.CancelScope
    terminal: Terminal
    interruption: Interruption
    heeded: tuple[signal.Signals, ...] = attrs.field(init=False)

    @heeded.default
    def _not_ignored(self) -> tuple[signal.Signals, ...]:
        """Return the signals to listen for; nohup and a shell's ``&`` have some ignored, and that is meant."""
        known = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP"))
        return tuple(number for number in known if number and signal.getsignal(number) is not signal.SIG_IGN)

    async def listen(self, *, task_status: TaskStatus[None]) -> None:
        """Listen until cancelled."""
        count, last = 0, -math.inf
        with anyio.open_signal_receiver(*self.heeded) as signals:
            task_status.started()
            async for number in signals:
                if anyio.current_time() - last >= _SAME_SIGNAL_SECONDS:
                    count += 1
                    self._heed(number, count)
                last = anyio.current_time()

    def _heed(self, number: signal.Signals, count: int) -> None:
        if count == 1:
            self.interruption.came = number
            undoes = self.interruption.changes_production and not self.interruption.left_open
            doing = ", and taking back what was applied" if undoes else ""
            self.terminal.line(f"{number.name}: stopping{doing} ...")
            self.scope.cancel()
        elif not self.interruption.changes_production:
            os._exit(self.interruption.exit_code)
        elif count == 2:  # noqa: PLR2004  the second signal
            self.terminal.line(
                "the undo goes on; it may take 5 minutes. A third signal leaves at once, with production as it is"
            )
        else:
            self.terminal.line(
                f"left at once: the journal says what is open; run {self.interruption.recover}"
            )
            os._exit(EXIT_UNPROVEN)
