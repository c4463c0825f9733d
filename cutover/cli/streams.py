"""Standard output and standard error that never fail.

The exit code of a command tells the state of production, or whether a contract holds. A reader that went away (``| head -0``), a closed
terminal and a stream that the parent process closed (``>&-``) say nothing about either. So a write to such a stream is dropped without
an error. A write that fails for another reason, such as a full disk behind ``> file``, is named on the other stream at the end.
"""

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_NOBODY_READS = frozenset({errno.EPIPE, errno.EIO, errno.EBADF, errno.ENXIO})
"""The errors of a stream without a reader: a closed pipe, a terminal that hung up, a closed descriptor."""
_STANDARD_DESCRIPTORS = (0, 1, 2)


@contextmanager
def never_failing_streams() -> Iterator[None]:
    """Replace standard output and standard error by streams that never fail, for the rest of the process."""
    _open_closed_descriptors()
    sys.stdout, output = _never_failing(sys.stdout)
    sys.stderr, errors = _never_failing(sys.stderr)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            # A closed stream raises ValueError.
            with suppress(OSError, ValueError):
                stream.flush()
        _report(output, "standard output", to=sys.stderr)
        _report(errors, "standard error", to=sys.stdout)


class _NeverFailing(io.RawIOBase):
    """A raw stream that passes data on to that of another stream, and drops the data that it does not take."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        # Without this reference Python would close the stream together with its raw one.
        self._stream = stream
        self._raw = cast("io.RawIOBase", getattr(stream.buffer, "raw", stream.buffer))
        self.failure = ""
        """The reason of the first failed write, if that was another one than a missing reader; else empty."""

    def write(self, data: "ReadableBuffer") -> int | None:
        """Write the data, or drop it; return the number of bytes."""
        try:
            return self._raw.write(data)
        except OSError as error:
            if error.errno not in _NOBODY_READS:
                self.failure = self.failure or str(error.strerror)
            return memoryview(data).nbytes

    def writable(self) -> bool:
        """Return True."""
        return True

    def isatty(self) -> bool:
        """Return True if the other stream is a terminal."""
        return self._raw.isatty()

    def fileno(self) -> int:
        """Return the descriptor of the other stream."""
        return self._raw.fileno()


def _never_failing(stream: TextIO | None) -> tuple[TextIO, _NeverFailing]:
    """Return a stream that never fails in place of this one, and its raw stream."""
    if stream is None:
        # Python found the descriptor closed when it started.
        stream = open(os.devnull, "w", encoding="utf-8", errors="backslashreplace")  # noqa: PTH123, SIM115  it stays open
    raw = _NeverFailing(stream)
    # With `python -u` there is no buffer between the text and the raw stream, and Python itself does the same.
    buffered = isinstance(stream.buffer, io.BufferedWriter)
    replacement = io.TextIOWrapper(
        io.BufferedWriter(raw) if buffered else cast("io.BufferedWriter[io.RawIOBase]", raw),
        encoding=stream.encoding,
        errors=stream.errors,
        newline="\n",
        line_buffering=bool(stream.line_buffering),
        write_through=not buffered,
    )
    return replacement, raw


def _open_closed_descriptors() -> None:
    """Open the null device for each standard descriptor that the parent process closed.

    Otherwise the next file that is opened, such as the journal, would get its number, and with it everything that a library or a child
    process writes to standard error.
    """
    for number in _STANDARD_DESCRIPTORS:
        try:
            os.fstat(number)
        except OSError:
            # The system gives the lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # noqa: FBT003  the parameter has no name


def _report(raw: _NeverFailing, name: str, *, to: TextIO) -> None:
    """Say on the other stream that a part of the output is missing."""
    if raw.failure:
        with suppress(OSError, ValueError):
            to.write(
                f"{name} could not be written ({raw.failure}), so a part of it is missing; the exit code is correct\n"
            )
            to.flush()
