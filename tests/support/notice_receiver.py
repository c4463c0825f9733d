"""A receiver of notices, at the transport: it keeps what it gets and answers as a test wants."""

import json
from collections.abc import Callable
from typing import Any

import anyio
import attrs
import httpx

Answer = Callable[[int], httpx.Response | Exception | float]
"""Returns the answer to a request by its number, from 1 on: a response, an error, or seconds of silence."""


@attrs.define(eq=False)
class NoticeReceiver(httpx.AsyncBaseTransport):
    """A receiver. The clients for notices that it makes reach nothing else."""

    answer: Answer = lambda _: httpx.Response(200, text="ok")
    requests: list[httpx.Request] = attrs.field(factory=list, repr=False)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answer(len(self.requests))
        if isinstance(answer, float):
            await anyio.sleep(answer)
            return httpx.Response(200)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, limits: httpx.Limits) -> httpx.AsyncClient:
        return httpx.AsyncClient(transport=self, limits=limits)

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(request.content) for request in self.requests]
