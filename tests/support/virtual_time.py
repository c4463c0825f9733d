"""Event loops whose time jumps to the next timer. A soak of two minutes ends at once, and deadlines keep their meaning."""

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

import trio.testing


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that advances the loop's time instead of waiting when no file is ready."""

    loop: "VirtualTimeLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            raise RuntimeError("deadlock: nothing is scheduled and nothing is ready")
        if not ready and timeout:
            self.loop.skipped += timeout
        return ready


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose time advances only when a task waits."""

    def __init__(self) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.skipped = 0.0
        super().__init__(selector)

    def time(self) -> float:
        return self.skipped


def virtual_backend(name: str) -> tuple[str, Mapping[str, Any]]:
    """Return a value for the fixture ``anyio_backend``: the named event loop, on virtual time."""
    if name == "trio":
        return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}
    return "asyncio", {"loop_factory": VirtualTimeLoop}
