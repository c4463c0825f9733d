"""A Prometheus server at the transport: it answers the queries of a budget from a few figures, and keeps every request."""

import json
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs

import attrs
import httpx

HOST = "prometheus.example"
URL = f"https://{HOST}"
ALL = "sum(increase(requests_total[$window]))"
GOOD = 'sum(increase(requests_total{code!~"5.."}[$window]))'
SERIES = "requests_total"

USERS = {
    "canary_all_query": 'sum(increase(all{revision="$revision"}[$window]))',
    "canary_good_query": 'sum(increase(good{revision="$revision"}[$window]))',
    "canary_latency_query": 'quantile(times{revision="$revision"}[$window])',
}
"""Inputs with the queries about the users' requests of one revision."""


def answered(*values: object, status: int = 200, **more: object) -> httpx.Response:
    """Return an answer with one series for each value."""
    result = [{"metric": {"n": str(n)}, "value": [1.5, value]} for n, value in enumerate(values)]
    document = {"status": "success", "data": {"resultType": "vector", "result": result}, **more}
    return httpx.Response(status, json=document)


@attrs.define(eq=False)
class FakePrometheus(httpx.AsyncBaseTransport):
    """The server. Requests to another host go to ``elsewhere``."""

    events: float = 1_000_000.0
    bad: float = 0.0
    """Number of bad events, in each window."""
    age: float = 1.0
    coverage: float = 1.0
    override: Callable[[str], httpx.Response | Exception | None] = lambda _: None
    """Returns the answer to one query in place of the usual one; None for the usual one."""
    elsewhere: httpx.AsyncBaseTransport | None = None
    users: Mapping[str, tuple[float, float, float]] = attrs.field(factory=dict)
    """Revision -> its requests, how many of them failed, and its p95 in milliseconds."""
    requests: list[httpx.Request] = attrs.field(factory=list)
    asked: list[tuple[str, str]] = attrs.field(factory=list)
    """(query, time) of each request."""

    async def __aenter__(self) -> Self:
        if self.elsewhere is not None:
            await self.elsewhere.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        if self.elsewhere is not None:
            await self.elsewhere.__aexit__(kind, error, traceback)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        if self.elsewhere is not None and request.url.host != HOST:
            return await self.elsewhere.handle_async_request(request)
        self.requests.append(request)
        sent = request.url.query if request.method == "GET" else await request.aread()
        fields = parse_qs(sent.decode())
        (query,), (time,) = fields["query"], fields["time"]
        self.asked.append((query, time))
        special = self.override(query)
        if isinstance(special, Exception):
            raise special
        return special or answered(str(self._figure(query)))

    def _figure(self, query: str) -> float:
        for revision, (every, failed, p95) in self.users.items():
            if f'"{revision}"' in query:
                return p95 if "quantile" in query else every - failed if "good" in query else every
        if query.startswith("time()"):
            return self.age
        if query.startswith("count_over_time"):
            return self.coverage
        return self.events - self.bad if "5" in query.partition("[")[0] else self.events


def as_json(document: object) -> httpx.Response:
    """Return a document as an answer with the status 200."""
    return httpx.Response(200, content=json.dumps(document).encode())
