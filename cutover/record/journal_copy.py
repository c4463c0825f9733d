"""The copy of a journal in the bucket of STATE_URL: one object for each event, made in the order of the events.

A task of its own makes the objects, so recording an event waits for nothing. A writer that needs the copy waits for it: a change of
production is sent only when the journal on disk and the copy both hold its intent.

Each object is created on the condition that there is none of its name. So two processes cannot both write the event number N of one run:
the process that comes second is told that there is such an object, and so that another process has taken the run over. It writes nothing more,
neither here nor to production.

The copy leaves out the files and the commands of the tokens: they are of one machine, and a journal that others may write to must name no command.
"""

import re
import secrets
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import msgspec

from cutover.clock import Clock
from cutover.errors import PeerError, RefusedError, UnusableReplyError
from cutover.http.outbound import pause_after
from cutover.http.statuses import TOO_MANY_REQUESTS
from cutover.record.bucket import Bucket
from cutover.text import printable, recover_command

PATIENCE = 20.0
"""Seconds for which one event is tried again, before the copy counts as failed. The last try may take as long as a read."""
WAY_BACK_PATIENCE = 2.0
"""Longest time in seconds that a write of a way back waits for the copy. It is sent even without the copy."""
LAST_SECONDS, LAST_SECONDS_FAILED = 20.0, 5.0
"""Seconds that the end of a run waits for the copy; and for a copy that has failed, which may work again."""
MOST_READ = 64 << 20
"""Bytes of the largest copy that is read."""
_READERS = 8
_NUMBER = re.compile(r"([0-9]{8})\.json")
_OF_ONE_MACHINE = "token_sources"
"""The fact of a run that the copy leaves out."""


class _Entry(msgspec.Struct, frozen=True):
    """The content of one object."""

    writer: str
    event: dict[str, object]


@attrs.define(eq=False, kw_only=True)
class JournalCopy:
    """The copy of one run's journal, and the queue of the events that it does not hold yet."""

    bucket: Bucket
    folder: str
    """The beginning of the objects' names, with a slash at the end."""
    address: str
    """The address of the run, for messages: ``gs://bucket/prefix/RUN``."""
    clock: Clock
    writer: str = attrs.field(factory=lambda: secrets.token_hex(16))
    """A text that no other process has."""
    count: int = 0
    """Number of events that the copy holds."""
    failed: str | None = None
    """The first reason why an event did not reach the copy in time; None if all did. It stays, although the copy is tried again."""
    taken_over: str | None = None
    """The sentence that says which process has taken the run over; None if none has."""
    _waiting: deque[bytes] = attrs.field(factory=deque)
    _news: anyio.Event = attrs.field(factory=anyio.Event)

    @property
    def stopped(self) -> str | None:
        """The reason why no step may change production any more; None if one may."""
        return self.taken_over or self.failed

    @property
    def is_whole(self) -> bool:
        """True if the copy holds every event."""
        return not self._waiting and self.taken_over is None

    def problem(self, run_directory: Path) -> str:
        """Return the sentence about a copy that is not whole at the end of a run, or that was late with an event; empty without such a problem."""
        if self.taken_over is not None:
            return self.taken_over
        if self.is_whole:
            return self.failed or ""
        reason = self.failed or f"the journal could not be written to {self.address} in time"
        return f"{reason}; the copy there lacks {len(self._waiting)} events; to complete it: {recover_command(run_directory)}"

    def add(self, line: bytes) -> None:
        """Add one line of the journal to the queue."""
        if self.taken_over is None:
            self._waiting.append(shareable(line))
            self._tell()

    async def settled(self, seconds: float | None = None) -> None:
        """Wait until the copy holds every event so far, or has failed, or for this many seconds."""
        with anyio.move_on_after(seconds):
            while self._waiting and self.stopped is None:
                await self._news.wait()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Copy the events during the ``async with`` block, also while it undoes its changes after a cancellation."""
        stop = anyio.CancelScope(shield=True)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._copy_all, stop)
                try:
                    yield
                finally:
                    await self._last()
                    stop.cancel()
        except BaseExceptionGroup as group_error:
            # The task raises nothing, so the group holds the error of the block alone.
            error = group_error.exceptions[0]
            raise error from error.__cause__

    async def _last(self) -> None:
        """Wait for the last events, within a bound; cancellation does not end it."""
        seconds = LAST_SECONDS if self.failed is None else LAST_SECONDS_FAILED
        with anyio.CancelScope(shield=True), anyio.move_on_after(seconds):
            while self._waiting and self.taken_over is None:
                await self._news.wait()

    async def create(self, line: bytes) -> bool:
        """Write the next event; return False if another process has written an event of this number.

        Raises:
            PeerError: There was no usable answer; the event may be written.
        """
        number = self.count + 1
        entry = {"writer": self.writer, "event": msgspec.json.decode(shareable(line))}
        label = f"state.journal.{number}"
        if await self.bucket.put(self._name(number), entry, generation=0, label=label) is None:
            return False
        self.count = number
        return True

    async def lines(self, *, after: int = 0) -> list[bytes]:
        """Return the lines of the events after this number, and count them as held.

        Raises:
            PeerError: The copy cannot be read.
            UnusableReplyError: It is damaged: an event is missing, or an object is no event.
        """
        names = await self.bucket.names(self.folder, label="state.journal.list")
        found = (_NUMBER.fullmatch(name.removeprefix(self.folder)) for name in names)
        numbers = [int(match[1]) for match in found if match is not None]
        if numbers != list(range(1, len(numbers) + 1)):
            missing = next(index for index, number in enumerate([*numbers, 0], 1) if index != number)
            raise UnusableReplyError(f"the journal in {self.address} is damaged: event {missing} is missing")
        lines = await self._read(numbers[after:])
        self.count = len(numbers)
        return lines

    async def _read(self, numbers: list[int]) -> list[bytes]:
        """Read the events of these numbers, some of them at a time."""
        lines: dict[int, bytes] = {}
        problems: list[PeerError] = []
        remaining = iter(numbers)

        async def reader() -> None:
            for number in remaining:
                try:
                    lines[number] = await self._line(number)
                except PeerError as error:
                    problems.append(error)
                if problems or sum(map(len, lines.values())) > MOST_READ:
                    return

        async with anyio.create_task_group() as readers:
            for _ in range(min(len(numbers), _READERS)):
                readers.start_soon(reader)
        if problems:
            raise problems[0]
        if len(lines) < len(numbers):
            raise UnusableReplyError(f"the journal in {self.address} is larger than {MOST_READ} bytes")
        return [lines[number] for number in numbers]

    async def _line(self, number: int) -> bytes:
        found = await self.bucket.read(self._name(number), label=f"state.journal.{number}.read")
        if found is None:
            raise UnusableReplyError(f"the journal in {self.address} is damaged: event {number} is missing")
        try:
            entry = msgspec.json.decode(found.content, type=_Entry)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise UnusableReplyError(
                f"the journal in {self.address} is damaged: event {number} is not an event ({printable(str(error))})"
            ) from error
        return shareable(msgspec.json.encode(entry.event))

    async def _copy_all(self, stop: anyio.CancelScope) -> None:
        """Make the objects until ``stop`` is cancelled, or another process takes the run over."""
        with stop:
            while self.taken_over is None:
                while not self._waiting:
                    await self._news.wait()
                await self._copy_first()

    async def _copy_first(self) -> None:
        """Copy the first event of the queue, however often it must be tried."""
        began, tries = self.clock.now(), 0
        while True:
            tries += 1
            try:
                if not await self.create(self._waiting[0]):
                    self.taken_over = await self._who()
                    self._waiting.clear()
                else:
                    self._waiting.popleft()
                self._tell()
            except Exception as error:  # noqa: BLE001  a fault in cutover itself must not leave a train waiting
                hopeless = isinstance(error, RefusedError) and not _may_pass(error)
                if hopeless or self.clock.now() - began >= PATIENCE:
                    shown = str(error) if isinstance(error, PeerError) else repr(error)
                    self.failed = self.failed or f"the journal cannot be written to {self.address}: {shown}"
                    self._tell()
                await self.clock.sleep(pause_after(tries))
            else:
                return

    async def _who(self) -> str:
        """Return the sentence about the process that wrote the event in this process's place."""
        who = "another process"
        try:
            fields = msgspec.json.decode(await self._line(self.count + 1), type=dict[str, object])
        except PeerError:
            fields = {}
        if fields.get("event") == "TakenOver":
            who = f"a recovery ({printable(str(fields.get('by')), 1000)})"
        return f"{who} has taken this run over in {self.address}, so this process changes nothing more"

    def _name(self, number: int) -> str:
        return f"{self.folder}{number:08}.json"

    def _tell(self) -> None:
        """Wake everybody who waits for a change."""
        news, self._news = self._news, anyio.Event()
        news.set()


def shareable(line: bytes) -> bytes:
    """Return a line of a journal without what belongs to one machine: the files and the commands of the tokens."""
    line = line.rstrip(b"\n")
    if _OF_ONE_MACHINE.encode() not in line:
        return line
    fields = msgspec.json.decode(line, type=dict[str, object])
    if isinstance(facts := fields.get("facts"), dict):
        facts.pop(_OF_ONE_MACHINE, None)
    return msgspec.json.encode(fields)


def merged(local: list[bytes], copied: list[bytes]) -> tuple[list[bytes], int]:
    """Return the lines of a journal on disk together with those of its copy, and the number of lines at their beginning that both have.

    The copy decides from the first difference on. Lines that follow the whole copy are kept: this process, or an earlier one, had not copied
    them yet.
    """
    same = 0
    for one, other in zip(local, copied, strict=False):
        if shareable(one) != other:
            break
        same += 1
    return [*local[:same], *(copied[same:] or (local[same:] if same == len(copied) else []))], same


def _may_pass(error: RefusedError) -> bool:
    return not error.for_certain or error.status == TOO_MANY_REQUESTS
