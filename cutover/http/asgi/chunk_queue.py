"""The queue of the chunks that an app in this process has sent, and that its reader has not read yet.

An event that wakes the other side exists only while that side waits. Most chunks of a busy stream find their reader awake, and a lock
and a wake-up for each of them would cost several times more than all else.
"""

from collections import deque

import anyio
import anyio.lowlevel
import attrs

_UNSEEN_SECONDS = 0.001
"""Seconds for which a chunk may lie unread while its app works on without waiting. Then its next chunk lets the reader run."""


@attrs.define(eq=False)
class ChunkQueue:
    """A bounded queue between one app and one reader, with the time at which the app sent each chunk."""

    _max_chunks: int
    sent_at: float = attrs.field(default=0.0, init=False)
    """Time at which the app sent the chunk that was taken last, on the clock of `anyio.current_time`."""
    _chunks: deque[tuple[bytes, float]] = attrs.field(factory=deque, init=False)
    # True once no further chunk will come: the app has ended, or the reader has left.
    _ended: bool = attrs.field(default=False, init=False)
    # Wakes a reader that waits for a chunk; None while none waits.
    _chunk_came: anyio.Event | None = attrs.field(default=None, init=False)
    # Wakes an app that waits for room; None while none waits.
    _room_came: anyio.Event | None = attrs.field(default=None, init=False)

    @property
    def must_wait(self) -> bool:
        """True if there is no chunk, and one may still come."""
        return not self._chunks and not self._ended

    async def wait(self) -> None:
        """Wait until there is a chunk, or none will come."""
        while self.must_wait:
            if self._chunk_came is None:
                self._chunk_came = anyio.Event()
            # An app without a buffer waits until a reader waits.
            self._make_room()
            await self._chunk_came.wait()

    def take(self) -> bytes | None:
        """Return the oldest chunk; None if there is none."""
        if not self._chunks:
            return None
        chunk, self.sent_at = self._chunks.popleft()
        self._make_room()
        return chunk

    async def put(self, chunk: bytes) -> bool:
        """Add a chunk, and return True; return False if the reader has left. Wait if the reader is behind."""
        now = anyio.current_time()
        if self._chunks and now - self._chunks[0][1] > _UNSEEN_SECONDS:
            await anyio.lowlevel.checkpoint()
        while len(self._chunks) >= self._max_chunks and self._chunk_came is None and not self._ended:
            if self._room_came is None:
                self._room_came = anyio.Event()
            await self._room_came.wait()
        if self._ended:
            return False
        self._chunks.append((chunk, now))
        if self._chunk_came is not None:
            self._chunk_came.set()
            self._chunk_came = None
        return True

    def end(self) -> None:
        """Note that no further chunk will come, and wake both sides. The chunks that are there can still be taken."""
        self._ended = True
        self._make_room()
        if self._chunk_came is not None:
            self._chunk_came.set()
            self._chunk_came = None

    def drop(self) -> None:
        """Drop all chunks, and note that no further one is wanted."""
        self._chunks.clear()
        self.end()

    def _make_room(self) -> None:
        if self._room_came is not None:
            self._room_came.set()
            self._room_came = None
