"""The train events, and the file they are written ahead to.

One stream of these events is the only truth about a run: progress shows them, the summary folds them, undo and recovery
are functions of them. On disk each is one line of JSON, appended by one write and fsynced before anything follows from it.

It is long because half of it is the list of the events, which is what a reader comes for.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import get_args

import attrs
import msgspec

from cutover.clock import utc_now
from cutover.errors import NotStartedError
from cutover.model.results import Check, StepResult
from cutover.model.traffic_state import RouteState, TrafficState, TrafficTarget

TRAFFIC = "traffic"
"""The key under which a write of the split is answered."""
NOT_SENT = "not sent"
"""The outcome of an intent that was not carried out, for it could not be written down."""

Observer = Callable[["TrainEvent"], None]


@attrs.frozen(kw_only=True)
class _Event:
    at: str = ""
    """When it was recorded: UTC, ISO 8601."""


@attrs.frozen(kw_only=True)
class TrainStarted(_Event):
    """The train sets out; nothing has been read or touched."""

    run_id: str
    facts: Mapping[str, object]
    """The configuration without its secrets, ready for JSON."""


@attrs.frozen(kw_only=True)
class StepStarted(_Event):
    """A step begins."""

    step_id: str


@attrs.frozen(kw_only=True)
class CheckRecorded(_Event):
    """One check of a step is known."""

    step_id: str
    check: Check


@attrs.frozen(kw_only=True)
class TrafficIntended(_Event):
    """The traffic split is about to be written; what undo needs is known by now."""

    step_id: str
    captured: TrafficState
    wanted: tuple[TrafficTarget, ...]
    etag: str | None


@attrs.frozen(kw_only=True)
class CommandStarted(_Event):
    """The process that is to carry out the last intent is there, and waits to be let go."""

    argv: tuple[str, ...]
    pid: int
    """Of the process, and of the group that was made for it."""
    identity: str
    """What tells it from all other processes that ever have this number: the boot, and when it started."""


@attrs.frozen(kw_only=True)
class RouteIntended(_Event):
    """One route override is about to be written, ``times`` times."""

    step_id: str
    key: str
    captured: RouteState
    wanted: str | None
    times: int


@attrs.frozen(kw_only=True)
class Answered(_Event):
    """What the peer said to the last intent of this kind (``traffic``, or a route key)."""

    key: str
    outcome: str
    """``accepted``; ``refused``; ``failed`` with a 5xx; ``no effect`` where the reply says so; ``unknown`` where no reply came;
    ``not sent``.

    After ``failed``, ``no effect`` and ``unknown`` the effect may be there, or still come, late.
    """
    detail: str = ""


@attrs.frozen(kw_only=True)
class TrafficRead(_Event):
    """The traffic was read back after a write."""

    found: TrafficState
    proven: bool
    """Whether it is settled, succeeded and what was wanted."""


@attrs.frozen(kw_only=True)
class RoutesRead(_Event):
    """The routes were sampled after a write."""

    shares: tuple[tuple[RouteState, int], ...]
    """Each state that was seen, and in how many reads."""
    proven: bool


@attrs.frozen(kw_only=True)
class TrafficSettled(_Event):
    """The traffic is where the train means to leave it: nothing is left to undo."""


@attrs.frozen(kw_only=True)
class StepFinished(_Event):
    """A step ended."""

    result: StepResult


@attrs.frozen(kw_only=True)
class Interrupted(_Event):
    """The train was cancelled, or failed by a fault of its own."""

    cause: str


@attrs.frozen(kw_only=True)
class UndoStarted(_Event):
    """What was applied is about to be taken back."""

    reason: str


@attrs.frozen(kw_only=True)
class Decided(_Event):
    """Recovery has looked at one part of production, and decided what to do about it."""

    part: str
    """``traffic`` or ``routes``."""
    action: str
    why: str
    captured: str
    intended: str
    found: str


@attrs.frozen(kw_only=True)
class UndoFinished(_Event):
    """The undo ended."""

    proven: bool
    """Whether nothing is left open: all that had been applied was read back as undone, or accepted by an operator."""
    detail: str
    to_do: tuple[str, ...] = ()
    """What an operator must check and run, where it was not proven."""


@attrs.frozen(kw_only=True)
class TrainFinished(_Event):
    """The last event: the verdict."""

    passed: bool
    exit_code: int
    reasons: tuple[str, ...] = ()


TrainEvent = (
    TrainStarted | StepStarted | CheckRecorded | TrafficIntended | CommandStarted | RouteIntended | Answered | TrafficRead
    | RoutesRead | TrafficSettled | StepFinished | Interrupted | UndoStarted | Decided | UndoFinished | TrainFinished
)  # fmt: skip

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


def changes(events: Iterable[TrainEvent]) -> list[TrafficIntended | RouteIntended]:
    """Return every change that may have been sent, in order."""
    sent: list[TrafficIntended | RouteIntended] = []
    for event in events:
        match event:
            case TrafficIntended() | RouteIntended():
                sent.append(event)
            case Answered() if event.outcome == NOT_SENT:
                sent.pop()  # the intent that it answers is the last one
            case _:
                pass
    return sent


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
