"""The journal: the train events of one run, in memory and in a file.

In the file each event is one line of JSON. The journal appends each line with one write and fsyncs it before the train acts on the event.

The first line that a process writes holds the version of the format, major and minor, beside its event. A line without a version has
the version of the lines before it; a file without any is of version 1.0.

- A new minor version adds kinds of events and fields that an older cutover may pass over. A kind of event that changes production, or
  tells what is left to undo, needs a new major version: an older cutover must not recover such a run.
- An unknown field is ignored. An unknown kind of event is kept as an ``UnknownEvent`` where a newer minor version wrote it; elsewhere it
  is damage.
- A file of another major version is refused.

The module is a little longer than most, because the one format is written and read here.
"""

import contextlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.model.train_events import Observer, TrainEvent, UnknownEvent
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal_copy import WAY_BACK_PATIENCE, JournalCopy
from cutover.text import printable

VERSION = (1, 2)
"""The version of the format that this cutover writes: major, minor."""
_FIRST_VERSION = (1, 0)
"""The version of a file that names none."""
_EVENT_TYPES: dict[str, type[TrainEvent]] = {
    kind.__name__: kind for kind in get_args(TrainEvent) if kind is not UnknownEvent
}
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
    """The reasons why observers are no longer called, and the kinds of events that this version does not know."""
    evidence: EvidenceFolder | None = None
    """The evidence folder of the train; None if a missing artifact stops nothing, as in a recovery."""
    now: Callable[[], float] | None = None
    """The monotonic clock of the run, in seconds. None: the events have only the time of the wall clock."""
    copy: JournalCopy | None = None
    """The copy in STATE_URL; None if there is none."""
    _file: int | None = None
    _version: tuple[int, int] = _FIRST_VERSION
    """The version of the file so far. The next line names this cutover's version if that is newer."""

    @property
    def stopped(self) -> str | None:
        """The reason why no step may change production any more; None if one may.

        The journal, its copy or an artifact cannot be written, or another process has taken the run over.
        """
        if self.copy is not None and self.copy.stopped is not None:
            return self.copy.stopped
        if self.broken is None and self.evidence is not None and self.evidence.failed is not None:
            return f"the evidence is incomplete, so the train cannot pass: {self.evidence.failed}"
        return self.broken

    @property
    def taken_over(self) -> str | None:
        """The sentence that says which process has taken the run over; this one must not even undo its changes. None if none has."""
        return self.copy.taken_over if self.copy is not None else None

    @property
    def address(self) -> str:
        """The address of the run in STATE_URL; empty without a copy."""
        return self.copy.address if self.copy is not None else ""

    @property
    def is_whole(self) -> bool:
        """True if the file and the copy, where there are any, hold every event."""
        return self.broken is None and (self.copy is None or self.copy.is_whole)

    @classmethod
    def create(cls, path: Path, *, now: Callable[[], float] | None = None) -> "Journal":
        """Create a journal in a new file.

        Raises:
            OSError: The file exists already, or cannot be created.
        """
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if sys.platform != "win32":
                # A umask may have taken more away.
                os.fchmod(file, 0o600)
            os.fsync(file)
            for folder in (path.parent, path.parent.parent):
                _fsync_folder(folder)
        except BaseException:
            os.close(file)
            # The file is this call's own and empty: it must not refuse the next try.
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return cls(file=file, now=now)

    @classmethod
    def reopen(cls, path: Path, *, now: Callable[[], float] | None = None) -> "Journal":
        """Open the journal of an earlier run to append events to it; an incomplete last line is removed first.

        Raises:
            NotStartedError: The file is not a journal, or a complete line is damaged.
            OSError: The file cannot be read or written.
        """
        read = _parse(path.read_bytes(), path)
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.ftruncate(file, read.size)
            os.fsync(file)
        except BaseException:
            os.close(file)
            raise
        return cls(
            events=read.events,
            complaints=_unknown_kinds(read.events),
            now=now,
            file=file,
            version=read.version,
        )

    def record(self, event: TrainEvent) -> TrainEvent:
        """Add the time to an event, append it, write it to the disk, and pass it to the observers; return it."""
        event = self._stamped(event)
        self.events.append(event)
        self._share(self._write(event))
        self._notify(event)
        return event

    async def durable(self) -> None:
        """Wait until the copy holds every event so far, or ``stopped`` says why it does not. Without a copy return at once."""
        if self.copy is not None:
            await self.copy.settled()

    async def durable_if_soon(self) -> None:
        """Wait for the copy as ``durable`` does, but only for a moment: a way back must not hang on a bucket."""
        if self.copy is not None:
            await self.copy.settled(WAY_BACK_PATIENCE)

    def commit(self, event: TrainEvent, *, ready: Callable[[TrainEvent], bool] = lambda _: True) -> bool:
        """Record an event that counts only once it is on disk; return False, and forget it, if it cannot be written.

        ``ready`` gets the event with its time just before the write; with False from it the event is not written.
        """
        event = self._stamped(event)
        if not ready(event):
            return False
        size = os.fstat(self._file).st_size if self._file is not None else 0
        line = self._write(event)
        if self.broken is not None:
            if self._file is not None:
                # A part of the line may have reached the file; nobody must read it later.
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file, size)
            return False
        self.events.append(event)
        self._share(line)
        self._notify(event)
        return True

    def _stamped(self, event: TrainEvent) -> TrainEvent:
        return attrs.evolve(event, at=utc_now(), tick=self.now() if self.now is not None else None)

    def _write(self, event: TrainEvent) -> bytes:
        """Write an event to the file and fsync it, unless the journal is broken; return its line."""
        if self._file is None and self.copy is None:
            return b""
        line = line_of_event(event, with_version=self._version < VERSION)
        self._version = max(self._version, VERSION)
        if self._file is not None and self.broken is None:
            try:
                if os.write(self._file, line) != len(line):
                    raise OSError("short write")  # noqa: TRY301  a short write means a full disk
                os.fsync(self._file)
            except OSError as error:
                self.broken = f"the journal cannot be written: {error}"
        return line

    def _share(self, line: bytes) -> None:
        """Give a line to the copy, also where the disk has failed."""
        if self.copy is not None and line:
            self.copy.add(line)

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


def line_of_event(event: TrainEvent, *, with_version: bool) -> bytes:
    """Return the line of an event in the file, with its line end.

    Args:
        event: The event.
        with_version: True for the first line that a process writes: it names the version of the format.
    """
    fields = {"event": type(event).__name__, "at": event.at, **msgspec.to_builtins(event)}
    # A monotonic clock means nothing to another process.
    del fields["tick"]
    if with_version:
        fields["version"] = ".".join(map(str, VERSION))
    return msgspec.json.encode(fields) + b"\n"


def read_journal(path: Path) -> list[TrainEvent]:
    """Return the events of a run; an incomplete last line is left out.

    Raises:
        NotStartedError: The file is not a journal, a complete line is damaged, or its major version is another one.
        OSError: The file cannot be read.
    """
    return _parse(path.read_bytes(), path).events


def parse_journal(data: bytes, name: str) -> list[TrainEvent]:
    """Return the events of a journal that was read from ``name``; see ``read_journal``."""
    return _parse(data, name).events


@attrs.frozen(kw_only=True)
class _Content:
    """The content of a journal file."""

    events: list[TrainEvent]
    version: tuple[int, int]
    """The newest version that a line names."""
    size: int
    """Number of bytes of the complete lines."""


def _parse(data: bytes, path: Path | str) -> _Content:
    # Bytes after the last line feed are an incomplete line.
    whole = data.rfind(b"\n") + 1
    if not whole and not b'{"event":'.startswith(data[:9]):
        raise NotStartedError(f"{path} is not a journal; it was not changed")
    events: list[TrainEvent] = []
    version = _FIRST_VERSION
    for number, line in enumerate(data[:whole].split(b"\n")[:-1], start=1):
        try:
            fields = msgspec.json.decode(line, type=dict[str, object])
            named = fields.pop("version", None)
            version = version if named is None else max(version, _version(named))
            if version[0] == VERSION[0]:
                events.append(_event(str(fields.pop("event")), fields, version))
        except (msgspec.MsgspecError, KeyError, ValueError, RecursionError) as error:
            raise NotStartedError(
                f"{path}: line {number} is not a train event ({error!r}); the file was not changed"
            ) from error
        if version[0] != VERSION[0]:
            raise NotStartedError(
                f"{path} is a journal of version {version[0]}.{version[1]}, and this cutover reads only versions {VERSION[0]}.x;"
                f" the file and production were not changed; use a cutover that reads versions {version[0]}.x, such as the one that"
                " wrote the journal"
            )
    return _Content(events=events, version=version, size=whole)


def _event(name: str, fields: dict[str, object], version: tuple[int, int]) -> TrainEvent:
    """Return the event of one line. Only a newer minor version may have written a kind that is not known here.

    Raises:
        KeyError: The kind is not known.
        msgspec.ValidationError: A field is missing or has a wrong type.
    """
    if name not in _EVENT_TYPES and version > VERSION:
        return UnknownEvent(name=name, fields=fields, at=str(fields.get("at", "")))
    return msgspec.convert(fields, _EVENT_TYPES[name])


def _version(named: object) -> tuple[int, int]:
    """Return the major and the minor version of a text such as ``1.1``.

    Raises:
        ValueError: It is not such a text.
    """
    found = re.fullmatch(r"([0-9]{1,6})\.([0-9]{1,6})", named, re.ASCII) if isinstance(named, str) else None
    if found is None:
        raise ValueError(f"version {printable(repr(named), 40)} is not two numbers like 1.0")
    return int(found[1]), int(found[2])


def _unknown_kinds(events: Sequence[TrainEvent]) -> list[str]:
    """Return a sentence about the events of kinds that this version does not know; empty if there are none."""
    names = sorted({event.name for event in events if isinstance(event, UnknownEvent)})
    if not names:
        return []
    shown = printable(", ".join(names))
    ignored = (
        f"a newer cutover wrote this journal; this version ignored the events that it does not know: {shown}"
    )
    return [f"{ignored}; to see them, use the newer version"]


def _fsync_folder(folder: Path) -> None:
    # Windows cannot open a folder.
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
