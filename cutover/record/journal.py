"""The train events, and the file they are written ahead to.

One stream of these events is the only truth about a run: progress shows them, the summary folds them, undo and recovery
are functions of them. On disk each is one line of JSON, appended by one write and fsynced before anything follows from it.

It is long because half of it is the list of the events, which is what a reader comes for.
"""

import contextlib
import os
from pathlib import Path
from typing import get_args

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.model.train_events import Observer, TrainEvent

_KINDS: dict[str, type[TrainEvent]] = {kind.__name__: kind for kind in get_args(TrainEvent)}


@attrs.define(eq=False)
class Journal:
    """The events of one run, in memory, in a file where there is one, and told to observers.

    Recording never raises. When the disk fails, the journal is ``broken``: no mover may start any more, undo goes on.
    An observer that raises is not called again: what shows progress must not decide what happens to production.
    """

    observers: list[Observer] = attrs.field(factory=list)
    events: list[TrainEvent] = attrs.field(factory=list)
    broken: str | None = None
    """Why lines no longer reach the disk."""
    complaints: list[str] = attrs.field(factory=list)
    """Why observers are no longer called."""
    _file: int | None = None

    @classmethod
    def create(cls, path: Path) -> "Journal":
        """Begin a journal in a new file.

        Raises:
            OSError: The file is there already, or cannot be made.
        """
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o644)
        os.fsync(file)
        for folder in (path.parent, path.parent.parent):
            _fsync_folder(folder)
        return cls(file=file)

    @classmethod
    def reopen(cls, path: Path) -> "Journal":
        """Go on with the journal of an interrupted run; a torn last line is cut off first.

        Raises:
            NotStartedError: It is not a journal.
            OSError: It cannot be read or written.
        """
        events, whole = _parse(path.read_bytes(), path)
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.ftruncate(file, whole)
        os.fsync(file)
        return cls(events=events, file=file)

    def record(self, event: TrainEvent) -> TrainEvent:
        """Stamp an event with the time, append it, make it durable, and tell the observers."""
        event = attrs.evolve(event, at=utc_now())
        self.events.append(event)
        self._write(event)
        self._tell(event)
        return event

    def commit(self, event: TrainEvent) -> bool:
        """Record an event that is so only once it is on disk; where it cannot be, it is not so, and nobody is told of it."""
        event = attrs.evolve(event, at=utc_now())
        size = os.fstat(self._file).st_size if self._file is not None else 0
        self._write(event)
        if self.broken is not None:
            if self._file is not None:
                with contextlib.suppress(OSError):  # what is not sure to be there must not be read there
                    os.ftruncate(self._file, size)
            return False
        self.events.append(event)
        self._tell(event)
        return True

    def _write(self, event: TrainEvent) -> None:
        """Make an event durable, while the disk can."""
        if self._file is not None and self.broken is None:
            line = (
                msgspec.json.encode(
                    {"event": type(event).__name__, "at": event.at, **msgspec.to_builtins(event)}
                )
                + b"\n"
            )
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("short write")  # noqa: TRY301  a short write is a full disk by another name
                os.fsync(self._file)
            except OSError as error:
                self.broken = f"the journal cannot be written: {error}"

    def _tell(self, event: TrainEvent) -> None:
        """Tell the observers."""
        for observer in tuple(self.observers):
            try:
                observer(event)
            except Exception as error:  # noqa: BLE001  see the class
                self.observers.remove(observer)
                self.complaints.append(f"an observer raised {error!r}, and was not called again")

    def close(self) -> None:
        """Close the file; the events stay."""
        if self._file is not None:
            with contextlib.suppress(OSError):  # each line was made durable when it was written
                os.close(self._file)
            self._file = None


def read_journal(path: Path) -> list[TrainEvent]:
    """Read the events of a run; a torn last line is left out.

    Raises:
        NotStartedError: It is not a journal, or a line in the middle of it is damaged.
    """
    return _parse(path.read_bytes(), path)[0]


def _parse(data: bytes, path: Path) -> tuple[list[TrainEvent], int]:
    whole = data.rfind(b"\n") + 1  # what follows the last line feed is torn
    if not whole and not b'{"event":'.startswith(data[:9]):
        raise NotStartedError(f"{path} is no journal; it was not touched")
    events: list[TrainEvent] = []
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            fields = msgspec.json.decode(line, type=dict[str, object])
            events.append(msgspec.convert(fields, _KINDS[str(fields.pop("event"))]))
        except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError) as error:
            raise NotStartedError(
                f"{path}: line {number} is not a train event ({error!r}); it was not touched"
            ) from error
    return events, whole


def _fsync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
