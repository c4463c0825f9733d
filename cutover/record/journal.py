"""The journal: the train events of one run, in memory and in a file.

In the file each event is one line of JSON. The journal appends each line with one write and fsyncs it before the train acts on the event.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.model.train_events import Observer, TrainEvent

_EVENT_TYPES: dict[str, type[TrainEvent]] = {kind.__name__: kind for kind in get_args(TrainEvent)}
"""Name of an event in the file -> its class."""


@attrs.define(eq=False)
class Journal:
    """The events of one run. Each is kept in memory, written to the file if there is one, and passed to the observers.

    Recording never raises. If the disk fails, the journal is ``broken``: no step may change production any more, and an undo goes on.
    An observer that raises is not called again, since a progress display must not decide about production.
    """

    observers: list[Observer] = attrs.field(factory=list)
    events: list[TrainEvent] = attrs.field(factory=list)
    broken: str | None = None
    """The reason why events no longer reach the disk; None while they do."""
    complaints: list[str] = attrs.field(factory=list)
    """The reasons why observers are no longer called."""
    now: Callable[[], float] | None = None
    """The monotonic clock of the run, in seconds. None: the events have only the time of the wall clock."""
    _file: int | None = None

    @classmethod
    def create(cls, path: Path, *, now: Callable[[], float] | None = None) -> "Journal":
        """Create a journal in a new file.

        Raises:
            OSError: The file exists already, or cannot be created.
        """
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        os.fsync(file)
        for folder in (path.parent, path.parent.parent):
            _fsync_folder(folder)
        return cls(file=file, now=now)

    @classmethod
    def reopen(cls, path: Path, *, now: Callable[[], float] | None = None) -> "Journal":
        """Open the journal of an earlier run to append events to it; an incomplete last line is removed first.

        Raises:
            NotStartedError: The file is not a journal, or a complete line is damaged.
            OSError: The file cannot be read or written.
        """
        events, whole = _parse(path.read_bytes(), path)
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.ftruncate(file, whole)
        os.fsync(file)
        return cls(events=events, file=file, now=now)

    def record(self, event: TrainEvent) -> TrainEvent:
        """Add the time to an event, append it, write it to the disk, and pass it to the observers; return it."""
        event = self._stamped(event)
        self.events.append(event)
        self._write(event)
        self._notify(event)
        return event

    def commit(self, event: TrainEvent) -> bool:
        """Record an event that counts only once it is on disk; return False, and forget it, if it cannot be written."""
        event = self._stamped(event)
        size = os.fstat(self._file).st_size if self._file is not None else 0
        self._write(event)
        if self.broken is not None:
            if self._file is not None:
                # A part of the line may have reached the file; nobody must read it later.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
            return False
        self.events.append(event)
        self._notify(event)
        return True

    def _stamped(self, event: TrainEvent) -> TrainEvent:
        return attrs.evolve(event, at=utc_now(), tick=self.now() if self.now is not None else None)

    def _write(self, event: TrainEvent) -> None:
        """Write an event to the file and fsync it, unless the journal is broken."""
        if self._file is not None and self.broken is None:
            fields = msgspec.to_builtins(event)
            # A monotonic clock means nothing to another process.
            del fields["tick"]
            line = msgspec.json.encode({"event": type(event).__name__, "at": event.at, **fields}) + b"\n"
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("short write")  # noqa: TRY301  a short write means a full disk
                os.fsync(self._file)
            except OSError as error:
                self.broken = f"the journal cannot be written: {error}"

    def _notify(self, event: TrainEvent) -> None:
        """Pass an event to the observers. Remove one that raises, and note it in ``complaints``; the train goes on."""
        for observer in tuple(self.observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  an observer must not stop the train
                self.observers.remove(observer)
                self.complaints.append(f"an observer raised {error!r}, and was not called again")

    def close(self) -> None:
        """Close the file. The events stay in memory, and later events reach memory alone."""
        if self._file is not None:
            # Each line was fsynced when it was written.
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None


def read_journal(path: Path) -> list[TrainEvent]:
    """Return the events of a run; an incomplete last line is left out.

    Raises:
        NotStartedError: The file is not a journal, or a complete line is damaged.
        OSError: The file cannot be read.
    """
    return _parse(path.read_bytes(), path)[0]


def _parse(data: bytes, path: Path) -> tuple[list[TrainEvent], int]:
    # Bytes after the last line feed are an incomplete line.
    whole = data.rfind(b"\n") + 1
    if not whole and not b'{"event":'.startswith(data[:9]):
        raise NotStartedError(f"{path} is not a journal; it was not changed")
    events: list[TrainEvent] = []
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            fields = msgspec.json.decode(line, type=dict[str, object])
            events.append(msgspec.convert(fields, _EVENT_TYPES[str(fields.pop("event"))]))
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError) as error:
            raise NotStartedError(
                f"{path}: line {number} is not a train event ({error!r}); the file was not changed"
            ) from error
    return events, whole


def _fsync_folder(folder: Path) -> None:
    # Windows cannot open a folder.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
