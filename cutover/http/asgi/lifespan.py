"""The lifespan of an app: startup before the first request, shutdown after the last (ASGI specification, lifespan 2.0)."""

from typing import Any

import anyio
import attrs
from starlette.types import ASGIApp, Message


@attrs.define(eq=False, kw_only=True)
class Lifespan:
    """The startup and the shutdown of one app, if the caller asks for them.

    ``startup`` raises if the app does not support them.
    """

    _app: ASGIApp
    _grace: float
    state: dict[str, Any] = attrs.field(factory=dict, init=False)
    """State that the app fills at startup. Each request gets a shallow copy."""
    _error: Exception | None = attrs.field(default=None, init=False)
    _failure_message: str | None = attrs.field(default=None, init=False)
    _serving: bool = attrs.field(default=False, init=False)
    _startup_sent: bool = attrs.field(default=False, init=False)
    _started: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _stopping: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _stopped: anyio.Event = attrs.field(factory=anyio.Event, init=False)
    _ended: anyio.Event = attrs.field(factory=anyio.Event, init=False)

    async def run(self) -> None:
        """Run the app with the lifespan scope until it ends. This keeps an error of the app and does not raise it."""
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": self.state}
        try:
            await self._app(scope, self._receive, self._send)
        except Exception as error:  # noqa: BLE001  startup() or raise_for_error() raises it in the client's task
            self._error = error
        finally:
            for event in (self._started, self._stopped, self._ended):
                event.set()

    async def startup(self) -> None:
        """Wait until the app has started.

        Raises:
            RuntimeError: The app reported that its startup failed, or it returned too early.
            Exception: The app raised it; it is raised unchanged.
        """
        await self._started.wait()
        if self._serving:
            return
        if self._failure_message is None:
            self._failure_message = "it returned without lifespan.startup.complete"
        else:
            # Starlette first reports the failure and then raises the error that caused it.
            with anyio.move_on_after(self._grace):
                await self._ended.wait()
        self.raise_for_error()

    async def shutdown(self) -> None:
        """Ask the app to shut down, and wait until the app has done so, at most for the grace period.

        Cancellation of the caller does not shorten the wait. A failure is not raised here, but by ``raise_for_error``.
        """
        self._stopping.set()
        with anyio.CancelScope(shield=True), anyio.move_on_after(self._grace):
            await self._stopped.wait()
            if self._failure_message is not None:
                await self._ended.wait()
        if not self._stopped.is_set():
            self._failure_message = f"it did not shut down within {self._grace} s"

    def raise_for_error(self) -> None:
        """Raise the app's own error, or RuntimeError with the reason of a failure; do nothing without a failure."""
        if self._error is not None:
            raise self._error
        if self._failure_message is not None:
            raise RuntimeError(f"the app's lifespan failed: {self._failure_message}")

    async def _receive(self) -> Message:
        if self._startup_sent:
            await self._stopping.wait()
            return {"type": "lifespan.shutdown"}
        self._startup_sent = True
        return {"type": "lifespan.startup"}

    async def _send(self, message: Message) -> None:
        match message["type"]:
            case "lifespan.startup.complete":
                self._serving = True
                self._started.set()
            case "lifespan.shutdown.complete":
                self._stopped.set()
            case "lifespan.startup.failed" | "lifespan.shutdown.failed" as failure:
                self._failure_message = message.get("message") or failure
                (self._stopped if self._serving else self._started).set()
            case other:
                raise RuntimeError(f"the app may not send {other!r} here")
