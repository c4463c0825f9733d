"""A part of production that a way back restores: the split (``undo_traffic.py``) or the overrides (``undo_routes.py``).

Each part knows how to look (read and ask ``model/undo_policy.py``), how to write, how to prove, and which commands do the same by hand.
``undo_executor.py`` puts these in order. A part decides nothing itself.
"""

from collections.abc import Awaitable, Callable
from typing import ClassVar, Protocol, TypeVar

import attrs

from cutover.clock import Clock
from cutover.errors import PeerError
from cutover.model.traffic_state import TrafficState
from cutover.model.undo_plan import Moment
from cutover.model.undo_policy import Decision

READS = 3
"""Number of reads, each with its own retries, before a part counts as unreadable."""
READ_PAUSE = 1.0
"""Seconds between two such reads."""

Found = TypeVar("Found")


@attrs.frozen(kw_only=True)
class Look:
    """One read of a part of production, and the decision that follows."""

    decision: Decision
    found: str
    """The state that was found, in words."""
    is_read: bool = True
    """False if this part could not be read."""
    state: TrafficState | None = None
    """The split that was found; None if it could not be read, and for the routes."""


@attrs.frozen(kw_only=True)
class Proof:
    """The outcome of a write, as production shows it."""

    proven: bool
    detail: str = ""
    """The reason why it is not proven."""
    by_streams: bool = False
    """True if streams disprove it, not the control plane."""
    overtaken: bool = False
    """True if somebody else changed production meanwhile, so that a new decision is needed."""


class UndoPart(Protocol):
    """One part of production that a way back restores."""

    name: ClassVar[str]

    @property
    def token(self) -> str:
        """The name of the input that gives the token of its reads and writes, as the user typed it."""
        ...

    @property
    def captured(self) -> str:
        """The state before the train's first change, in words."""
        ...

    @property
    def intended(self) -> str:
        """The last state that the train asked for, in words."""
        ...

    @property
    def unanswered(self) -> Moment | None:
        """The latest time of a write without a clear answer; None if there is none."""
        ...

    @property
    def pending_since(self) -> Moment | None:
        """The latest time of a write that may still take effect; None if none can."""
        ...

    async def look(self, wait: float) -> Look:
        """Read this part and decide; ``wait`` is the number of seconds to wait for a write that may still take effect."""
        ...

    async def write(self, look: Look, *, again: bool) -> Proof:
        """Carry a decision out, and read the outcome back. ``again`` is True if an earlier write was not proven."""
        ...

    async def read_again(self, look: Look) -> Proof:
        """Read the written state once more, some time later."""
        ...

    async def prove_by_streams(self, look: Look) -> str:
        """Return the reason why streams disprove the restored state; empty if they do not, or cannot tell."""
        ...

    def restored(self, look: Look, *, written: bool) -> str:
        """Return the restored state in words."""
        ...

    def by_hand(self) -> tuple[str, ...]:
        """Return the checks and commands with which an operator restores this part."""
        ...


async def patiently(clock: Clock, read: Callable[[], Awaitable[Found]], *, reads: int) -> Found:
    """Read up to ``reads`` times, with pauses, until there is a usable answer; return it.

    Raises:
        PeerError: There was no usable answer.
    """
    for _ in range(reads - 1):
        try:
            return await read()
        except PeerError:
            await clock.sleep(READ_PAUSE)
    return await read()
