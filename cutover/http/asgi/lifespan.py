"""An app's lifespan: startup before the first request, shutdown after the last (ASGI specification, lifespan 2.0)."""

from typing import Any

import anyio
import attrs
from starlette.types import ASGIApp, Message


@attrs.define(eq=False, kw_only=True)
class Lifespan:
    """Runs beside the requests; wanted by the caller, so an app that knows no lifespan is an error too."""

    _app: ASGIApp
    _grace: float
    state: dict[str, Any] = attrs.field(factory=dict, init=False)
    """What the app keeps between startup and its requests; each request gets a shallow copy."""
    _error: Exception | None = attrs.field(default=None, init=False)
    _refusal: str | None = attrs.field(default=None, init=False)
    _serving: bool = attrs.field(default=False, init=False)
    _asked: bool = attrs.field(default=False, init=False)
    _started: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _stopping: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _stopped: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)

    async def run(self) -> None:
        """Run the app with the lifespan scope to its end; raises nothing that the app raised."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  raised by startup() or raise_for_error(), in the client's task
            self._error = error
        finally:
            for event in (self._started, self._stopped, self._ended):
                event.set()

    async def startup(self) -> None:
        """Wait for the app to have started.

        Raises:
            RuntimeError: The app said that its startup failed, or returned. What it raised itself is raised as itself.
        """
        await self._started.wait()
        if self._serving:
            return
        if self._refusal is None:
            self._refusal = "it returned without lifespan.startup.complete"
        else:  # Starlette says that it failed, and then raises why
            with anyio.move_on_after(self._grace):
                await self._ended.wait()
        self.raise_for_error()

    async def shutdown(self) -> None:
        """Tell the app to shut down, and give it the grace period; a caller's cancellation does not cut this."""
        self._stopping.set()
        with anyio.CancelScope(shield=True), anyio.move_on_after(self._grace):
            await self._stopped.wait()
            if self._refusal is not None:
                await self._ended.wait()
        if not self._stopped.is_set():
            self._refusal = f"it did not shut down within {self._grace} s"

    def raise_for_error(self) -> None:
        """Raise what the app raised, or RuntimeError with what it said."""
        if self._error is not None:
            raise self._error
        if self._refusal is not None:
            raise RuntimeError(f"the app's lifespan failed: {self._refusal}")

    async def _receive(self) -> Message:
        if self._asked:
            await self._stopping.wait()
            return {"type": "lifespan.shutdown"}
        self._asked = True
        return {"type": "lifespan.startup"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._serving = True
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.startup.failed" | "lifespan.shutdown.failed" as failure:
                self._refusal = message.get("message") or failure
                (self._stopped if self._serving else self._started).set()
            case other:
                raise RuntimeError(f"the app may not send {other!r} here")
