"""A fake deployment behind the route-split API: each of its instances keeps its own overrides in memory."""

import random
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import httpx
import msgspec

from cutover.clock import EventLoopClock
from cutover.http.outbound import Outbound
from cutover.model.route_state import GLOBAL, RouteState
from cutover.production.lane import COMPAT
from cutover.production.routes.control_plane import ControlPlane

BASE = "https://chat.example"
DOMAINS = ("auth_entry", "billing_l402")
COMPAT_HEADERS = {
    "x-oa-client-build-id": "20260221T130000Z",
    "x-oa-protocol-version": "openagents.control.v1",
    "x-oa-schema-version": "1",
}
"""The headers that a client of the lane sends with each request."""
CLEAR = RouteState(overrides=(("auth_entry", None), ("billing_l402", None), (GLOBAL, None)))
Overrides = dict[str, str | None]
WORDS: Overrides = {"clear": None, "rust": "rust_shell"}


def status_body(overrides: Overrides) -> bytes:
    """Return the body of a status reply that shows these overrides."""
    groups = [{"domain": name, "override_target": overrides.get(name)} for name in DOMAINS]
    return msgspec.json.encode({"data": {"override_target": overrides.get(GLOBAL), "route_groups": groups}})


@attrs.define(eq=False)
class Instances:
    """A fake deployment with ``count`` instances. A random instance answers each request, from its own memory."""

    count: int = 1
    seconds: float = 0.0
    """Seconds that each request takes."""
    on_write: Callable[[int, Overrides, str, str | None], httpx.Response | None] | None = None
    """Called with (number of the write, the instance's overrides, key, value). Returns the reply; None: the usual reply."""
    on_read: Callable[[int], httpx.Response | None] | None = None
    """Called with the number of the read. Returns the reply; None: the usual reply."""
    memories: list[Overrides] = attrs.field(init=False)
    writes: list[tuple[str, str]] = attrs.field(factory=list)
    labels: list[str] = attrs.field(factory=list)
    reads: int = 0
    busy: int = 0
    """Number of requests that are being answered now."""
    most_busy: int = 0
    """Largest number of requests that were answered at once."""
    chance: random.Random = attrs.field(factory=lambda: random.Random(7))  # noqa: S311  the same choices in every run

    def __attrs_post_init__(self) -> None:
        self.memories = [{} for _ in range(self.count)]

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Return the reply to one status or override request."""
        assert request.headers["authorization"] == "Bearer marked-control-token"
        self.labels.append(request.extensions["label"])
        self.busy += 1
        self.most_busy = max(self.most_busy, self.busy)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.busy -= 1
        memory = self.chance.choice(self.memories)
        if request.method == "GET":
            assert request.url.path == COMPAT.status_path
            self.reads += 1
            reply = self.on_read(self.reads) if self.on_read else None
            return reply or httpx.Response(200, content=status_body(memory))
        assert request.url.path == COMPAT.override_path
        body = msgspec.json.decode(request.content)
        key, word = body.get("domain", GLOBAL), body["target"]
        self.writes.append((key, word))
        reply = self.on_write(len(self.writes), memory, key, WORDS.get(word, word)) if self.on_write else None
        if reply is None:
            memory[key] = WORDS.get(word, word)
        return reply or httpx.Response(200, content=status_body(memory))


def control(answer: Callable[[httpx.Request], Any]) -> ControlPlane:
    """Return a control plane whose requests this function answers."""
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    outbound = Outbound(client=client, clock=EventLoopClock())
    return ControlPlane(
        outbound=outbound,
        base_url=BASE,
        lane=COMPAT,
        token="marked-control-token",
        headers=COMPAT_HEADERS,
    )


def control_that_replies(body: bytes, status: int = 200) -> ControlPlane:
    """Return a control plane that gets this reply to every request."""
    return control(lambda _: httpx.Response(status, content=body))
