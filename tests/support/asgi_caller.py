"""A bare ASGI caller and a clock that moves only when somebody sleeps, for the tests of the simulation."""

import json as jsonlib
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import attrs
from anyio.lowlevel import checkpoint

from cutover.simulation import ConnectionBroken, Credentials, Fault, Layout, SimulatedProduction

FRONT = "https://openagents.com"
LEGACY = "https://legacy.openagents.com"
CREDENTIALS = Credentials(
    auth_token="token-of-user",
    control_token="token-of-operator",
    cloud_run_token="token-of-cloud",
    legacy_token="token-of-legacy",
)
LAYOUT = Layout(stable="svc-1", canary="svc-2", project="p", region="r", service="svc")
SERVICE = "https://run.googleapis.com/v2/projects/p/locations/r/services/svc"
IDLE_ROUNDS = 50
"""Turns of the event loop without progress after which the caller stops waiting."""
COMPATIBLE = {
    "x-oa-client-build-id": "20260221T130000Z",
    "x-oa-protocol-version": "openagents.control.v1",
    "x-oa-schema-version": "1",
}
CHAT = {"id": "t1", "messages": [{"role": "user", "content": "hello there"}]}
CHATS = {"messages": [{"role": "user", "content": [{"type": "text", "text": "hello there"}]}]}


@attrs.define(eq=False)
class HandClock:
    """A clock whose time passes only when somebody sleeps. Each sleep moves it at once."""

    seconds: float = 100.0

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await checkpoint()


def production(
    *faults: Fault, clock: HandClock | None = None, layout: Layout = LAYOUT, seed: int = 0
) -> SimulatedProduction:
    clock = clock or HandClock()
    return SimulatedProduction(
        layout=layout, credentials=CREDENTIALS, faults=faults, now=clock.now, sleep=clock.sleep, seed=seed
    )


@attrs.define(eq=False)
class Answer:
    """The answer as the client sees it: head, chunks and the way it ended."""

    status: int | None = None
    headers: dict[str, str] = attrs.field(factory=dict)
    chunks: list[bytes] = attrs.field(factory=list)
    complete: bool = False
    broken: bool = False
    """True if the app raised, which breaks the connection."""

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def json(self) -> Any:
        return jsonlib.loads(self.body)

    def events(self) -> list[Any]:
        """Return the data of each event, decoded if it is a JSON object. This parser is independent of the one under test."""
        lines = self.body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
        data = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
        return [jsonlib.loads(one) if one.startswith("{") else one for one in data]

    def types(self) -> list[str]:
        return [event["type"] if isinstance(event, dict) else event for event in self.events()]


def scope_of(method: str, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
    parts = urllib.parse.urlsplit(url)
    raw = [(b"host", parts.netloc.encode()), *((k.encode(), v.encode()) for k, v in headers.items())]
    return {
        "type": "http",
        "method": method,
        "path": urllib.parse.unquote(parts.path) or "/",
        "query_string": parts.query.encode(),
        "headers": raw,
    }


@asynccontextmanager
async def request(
    peer: SimulatedProduction,
    method: str,
    url: str,
    *,
    token: str | None = None,
    headers: Mapping[str, str] | None = None,
    json: object = None,
    content: bytes | None = None,
    on_chunk: Callable[[Answer], Awaitable[None]] | None = None,
) -> AsyncIterator[tuple[Answer, anyio.Event]]:
    """Run the app beside the caller. Leaving the block or setting ``hang_up`` sends the app a disconnect."""
    answer, hang_up = Answer(), anyio.Event()
    body = content if content is not None else b"" if json is None else jsonlib.dumps(json).encode()
    sent = {"content-type": "application/json"} if body else {}
    sent |= dict(headers or {}) | ({"authorization": f"Bearer {token}"} if token else {})
    messages = [{"type": "http.request", "body": body[:1], "more_body": True}]
    messages.append({"type": "http.request", "body": body[1:], "more_body": False})

    async def receive() -> Any:
        if messages:
            return messages.pop(0)
        await hang_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        await checkpoint()
        if hang_up.is_set():
            raise OSError("the client is gone")
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
            return
        if message.get("body"):
            answer.chunks.append(message["body"])
        answer.complete = not message.get("more_body", False)
        if on_chunk is not None:
            await on_chunk(answer)

    async def run() -> None:
        try:
            await peer.app(scope_of(method, url, sent), receive, send)
        except ConnectionBroken:
            answer.broken = True

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            yield answer, hang_up
        finally:
            hang_up.set()


async def ask(peer: SimulatedProduction, method: str, url: str, **keywords: Any) -> Answer:
    """Send one request and return its answer. Disconnect if the app makes no more progress."""
    async with request(peer, method, url, **keywords) as (answer, _):
        idle, seen = 0, (-1, 0.0)
        while not (answer.complete or answer.broken) and idle < IDLE_ROUNDS:
            await checkpoint()
            progress = (len(answer.chunks), peer.now())
            idle, seen = (idle + 1 if progress == seen else 0), progress
    return answer


async def let_run() -> None:
    """Let the other tasks run as long as they can without time passing."""
    for _ in range(IDLE_ROUNDS):
        await checkpoint()


async def chat(peer: SimulatedProduction, *, base: str = FRONT, token: str | None = None) -> Answer:
    token = token or CREDENTIALS.auth_token
    return await ask(peer, "POST", f"{base}/api/chat/stream", token=token, headers=COMPATIBLE, json=CHAT)


async def chats(peer: SimulatedProduction, *, base: str = FRONT, token: str | None = None) -> Answer:
    token = token or CREDENTIALS.auth_token
    return await ask(peer, "POST", f"{base}/api/chats/t2/stream", token=token, headers=COMPATIBLE, json=CHATS)


async def control(peer: SimulatedProduction, operation: str, json: object = None) -> Answer:
    method = "GET" if operation == "status" else "POST"
    url = f"{FRONT}/api/v1/control/route-split/{operation}"
    return await ask(peer, method, url, token=CREDENTIALS.control_token, json=json)


async def override(peer: SimulatedProduction, target: str, domain: str | None = None) -> Answer:
    return await control(peer, "override", {"target": target} | ({"domain": domain} if domain else {}))


async def evaluate(peer: SimulatedProduction, path: str, cohort_key: str = "k") -> Any:
    answer = await control(peer, "evaluate", {"path": path, "cohort_key": cohort_key})
    return answer.json()["data"]


async def cloud_run(peer: SimulatedProduction, path: str = "") -> Answer:
    return await ask(peer, "GET", f"{SERVICE}{path}", token=CREDENTIALS.cloud_run_token)


async def update(peer: SimulatedProduction, *targets: dict[str, Any], etag: str | None = None) -> Answer:
    body = {"traffic": list(targets)} | ({} if etag is None else {"etag": etag})
    url = f"{SERVICE}?updateMask=traffic"
    return await ask(peer, "PATCH", url, token=CREDENTIALS.cloud_run_token, json=body)


def share(revision: str, percent: int, **more: Any) -> dict[str, Any]:
    return {
        "type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION",
        "revision": revision,
        "percent": percent,
        **more,
    }


async def flip(peer: SimulatedProduction) -> list[int | None]:
    """Send the six writes of a flip and return their statuses, also of refused ones."""
    domains = ("auth_entry", "account_settings_admin", "billing_l402", "chat_pilot", None)
    answers = [await override(peer, "clear"), *[await override(peer, "rust", domain) for domain in domains]]
    return [answer.status for answer in answers]
