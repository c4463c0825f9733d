"""The train events on a stream for machines, one JSON object a line, in the form of the journal's lines.

A thread of its own writes the lines: a reader that stops reading must not hold up a train, which may just have given the canary a share.
"""

import errno
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Self, TextIO

import attrs

from cutover.model.train_events import TrainEvent
from cutover.record.journal import line_of_event

MOST_WAITING = 20_000
"""Largest number of lines that wait for the reader; the lines after them are lost, until it reads again."""
LAST_SECONDS = 5.0
"""Seconds that the reader has for the lines that still wait at the end of the train."""
_NOBODY_READS = frozenset({errno.EPIPE, errno.EBADF})


@attrs.define(eq=False)
class JsonLines:
    """A writer of train events to one stream. It never waits for the reader of the stream, but for ``LAST_SECONDS`` at the end."""

    write: Callable[[bytes], int]
    """Writes bytes to the stream, and returns the number of those that were written."""
    lost: str = ""
    """The reason why lines are missing on the stream; empty if none are, or if nobody reads it at all."""
    _waiting: queue.Queue[bytes | None] = attrs.field(factory=lambda: queue.Queue(MOST_WAITING))
    _count: int = 0
    _dropped: int = 0
    _closed: bool = False
    """True if the stream takes no more."""

    @classmethod
    @contextmanager
    def on(cls, stream: TextIO) -> Iterator[Self]:
        """Give a writer to this stream, around it and not through it: a stream in which bytes are left could hold up the end of the process."""
        stream.flush()
        handle = stream.fileno()
        lines = cls(write=lambda data: os.write(handle, data))
        with lines.writing():
            yield lines

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write lines during the block; at its end the reader has ``LAST_SECONDS`` for those that still wait."""
        # A daemon, because a reader that never reads again must not hold up the end of the process.
        thread = threading.Thread(target=self._write_all, name="cutover-json-lines", daemon=True)
        thread.start()
        try:
            yield
        finally:
            try:
                self._waiting.put(None, timeout=LAST_SECONDS)
            except queue.Full:
                pass
            else:
                thread.join(LAST_SECONDS)
            if thread.is_alive():
                self.lost = "nobody read it in time, so the last events are missing there"
            elif self._dropped:
                self.lost = f"nobody read it in time, so {self._dropped} events are missing there"

    def observe(self, event: TrainEvent) -> None:
        """Take in one train event."""
        line = line_of_event(event, with_version=self._count == 0)
        self._count += 1
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def _write_all(self) -> None:
        """Write line after line until ``None`` comes."""
        if sys.platform != "win32":
            # A signal is for the thread of the event loop.
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (line := self._waiting.get()) is not None:
            while line and not self._closed:
                try:
                    line = line[self.write(line) :]
                except OSError as error:
                    # A full disk behind `> file` is told; that nobody reads is the reader's own choice.
                    self._closed = True
                    if error.errno not in _NOBODY_READS:
                        self.lost = f"it could not be written ({error.strerror}), so events are missing there"
