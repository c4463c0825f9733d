"""A pseudo-terminal for a command, where this machine has any, and its screen."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import attrs
import pyte
import pytest


@attrs.define(eq=False)
class PseudoTerminal:
    """The two ends of a pseudo-terminal: one for the command, one for the test that reads it."""

    reader: int
    command: int

    @classmethod
    def open(cls) -> "PseudoTerminal":
        """Open one; without any, for instance in a container that has no /dev/pts, the test is skipped."""
        try:
            return cls(*pty.openpty())
        except OSError as error:
            pytest.skip(f"this machine has no pseudo-terminal ({error})")

    def read_to_end(self) -> str:
        """Close the end of the command in this process, and read until the command has closed its own."""
        os.close(self.command)
        parts = []
        while select.select([self.reader], [], [], 60)[0]:
            try:
                part = os.read(self.reader, 1 << 16)
            except OSError:
                # Linux answers EIO once the other end is closed.
                break
            if not part:
                break
            parts.append(part)
        os.close(self.reader)
        return b"".join(parts).decode("utf-8", "replace")


@attrs.define(eq=False)
class Screen:
    """The screen of a pseudo-terminal, as its user sees it while a command runs."""

    reader: int
    process: "subprocess.Popen[bytes]"
    emulated: pyte.Screen
    stream: pyte.ByteStream

    @property
    def lines(self) -> list[str]:
        return [line.rstrip() for line in self.emulated.display]

    @property
    def text(self) -> str:
        """The lines of the screen, with wrapped lines joined."""
        return "".join(line if len(line) == self.emulated.columns else f"{line}\n" for line in self.lines)

    @property
    def words(self) -> str:
        """The words of the screen, each line break as one space: rich breaks lines between words."""
        return " ".join(" ".join(self.lines).split())

    def press(self, keys: bytes) -> None:
        os.write(self.reader, keys)

    def until(self, seen: Callable[["Screen"], bool], *, seconds: float = 60) -> None:
        """Read on until the screen is as wanted."""
        end = time.monotonic() + seconds
        while not seen(self):
            assert time.monotonic() < end, self.text
            assert self._read(), self.text

    def to_end(self) -> int:
        """Read to the end of the command; return its exit code."""
        while self._read():
            pass
        return self.process.wait(timeout=60)

    def _read(self) -> bool:
        """Read what the terminal got; return False at its end."""
        if not select.select([self.reader], [], [], 60)[0]:
            return False
        try:
            part = os.read(self.reader, 1 << 16)
        except OSError:
            # Linux answers EIO once the other end is closed.
            return False
        self.stream.feed(part)
        return bool(part)


@contextmanager
def on_screen(
    arguments: Sequence[str], *, env: Mapping[str, str], rows: int = 24, columns: int = 80
) -> Iterator[Screen]:
    """Start a command whose terminal this is: Ctrl-C reaches it as from a keyboard."""
    terminal = PseudoTerminal.open()
    fcntl.ioctl(terminal.command, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    # The first terminal that a new session opens is its controlling terminal.
    shell = ["/bin/sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(terminal.command)]
    usual = {name: value for name, value in env.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        [*shell, *arguments], env={**usual, "TERM": "xterm-256color"}, start_new_session=True
    )
    emulated = pyte.Screen(columns, rows)
    screen = Screen(
        reader=terminal.reader, process=process, emulated=emulated, stream=pyte.ByteStream(emulated)
    )
    try:
        screen.until(lambda _: _has_begun(process, screen))
        os.close(terminal.command)
        yield screen
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(terminal.reader)


def _has_begun(process: "subprocess.Popen[bytes]", screen: Screen) -> bool:
    """Return True once the command has written, and with that opened the terminal, or has ended."""
    return process.poll() is not None or any(screen.lines)
