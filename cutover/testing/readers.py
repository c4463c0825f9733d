"""The places of a test's tasks in the log of one stream: each task reads for itself, and no task takes events from another.

A task that reads for the first time begins where the task that started it is. When a task has ended, the task that started it
goes on behind all that the ended one has read. Calls that run at the same time in one place begin at the same event, so
`asyncio.gather(stream.expect("a"), stream.expect("b"))` finds both, in any order.
"""

import inspect
import sys
from contextvars import ContextVar
from weakref import WeakKeyDictionary

import anyio
import attrs


@attrs.define(eq=False)
class Reader:
    """The place of one task in the log. Its calls begin there, and move it on when they end."""

    task: object
    """The coroutine of the task."""
    position: int
    """Number of the first event that no finished call of the task has read."""
    parent: "Reader | None" = None
    """The place of the task that started this one; None if that task had never read."""
    caught_up: int = 0
    """Number of the first event that no ended task which this one started has read. It counts from the next call on."""
    has_ended: bool = False
    """True once it was noticed that the task has ended."""
    cursors: "list[Cursor]" = attrs.field(factory=list)
    """The calls that run now."""

    @property
    def slowest(self) -> int:
        """Number of the first event that the task still needs."""
        wanted = [cursor.position for cursor in self.cursors if not cursor.skips]
        return min(wanted) if wanted else sys.maxsize if self.cursors else self.position


@attrs.define(eq=False)
class Cursor:
    """One call that reads the log from event to event."""

    reader: Reader
    """The place of the task that made the call."""
    position: int
    """Number of the next event that the call will read, counted over all events of the log."""
    is_waiting: bool = False
    """True while the call waits for an event that has not come yet."""
    skips: bool = False
    """True if the call wants no event: it waits for the end of the stream, and needs none of what comes before."""


_PLACES: ContextVar["WeakKeyDictionary[Readers, Reader]"] = ContextVar("_PLACES")
"""The place of the current task in each log. A new task begins with a copy of the context of the task that started it."""


@attrs.define(eq=False)
class Readers:
    """The places of all tasks that read one log."""

    # The places of tasks that may read again.
    _active: list[Reader] = attrs.field(factory=list, init=False)
    # The place at which a task begins that no reading task has started.
    _base: int = attrs.field(default=0, init=False)

    @property
    def slowest(self) -> int:
        """Number of the first event that some task has not read yet."""
        self._settle()
        return min((reader.slowest for reader in self._active), default=self._base)

    def is_awaited(self, position: int) -> bool:
        """Return True if a task waits for the event with this number."""
        cursors = [cursor for reader in self._active for cursor in reader.cursors]
        return any(cursor.skips or (cursor.is_waiting and cursor.position == position) for cursor in cursors)

    def current(self) -> Reader:
        """Return the place of the current task."""
        self._settle()
        task = anyio.get_current_task().coro
        places = _PLACES.get(None)
        mine = None if places is None else places.get(self)
        if mine is not None and mine.task is task:
            mine.position = max(mine.position, mine.caught_up)
            return mine
        parent = _living(mine)
        reader = Reader(task, self._base if parent is None else parent.position, parent)
        self._active.append(reader)
        places = WeakKeyDictionary() if places is None else places.copy()
        places[self] = reader
        _PLACES.set(places)
        return reader

    def cursor(self) -> Cursor:
        """Return the cursor of a call of the current task, which begins at the task's place. It counts once it is in `Reader.cursors`."""
        reader = self.current()
        return Cursor(reader, reader.position)

    def _settle(self) -> None:
        """Let go of tasks that have ended, and note what they have read for the tasks that started them."""
        ended = [reader for reader in self._active if not reader.cursors and _has_ended(reader.task)]
        for reader in ended:
            reader.has_ended = True
            self._active.remove(reader)
        for reader in ended:
            read = max(reader.position, reader.caught_up)
            parent = reader.parent = _living(reader.parent)
            if parent is None:
                self._base = max(self._base, read)
            else:
                parent.caught_up = max(parent.caught_up, read)


def _living(reader: Reader | None) -> Reader | None:
    """Return this reader, or the nearest one above it whose task has not ended."""
    while reader is not None and reader.has_ended:
        reader = reader.parent
    return reader


def _has_ended(task: object) -> bool:
    return inspect.iscoroutine(task) and inspect.getcoroutinestate(task) == inspect.CORO_CLOSED
