"""A pseudo-terminal for a command, where this machine has any."""

import os
import pty
import select

import attrs
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
