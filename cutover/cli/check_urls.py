"""The part of ``cutover check`` that sends requests: one for each URL, all at the same time."""

import os
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import anyio
import msgspec

from cutover.cli.check_request import Sent
from cutover.cli.signals import until_signalled
from cutover.config.config import INPUTS
from cutover.contract import StreamContract
from cutover.production.lane import COMPAT
from cutover.report.check_verdicts import Verdict
from cutover.report.terminal import Terminal

if TYPE_CHECKING:
    from cutover.http.environment import HttpEnvironment


async def check_urls(
    urls: Mapping[int, str],
    contracts: Mapping[str, StreamContract],
    sent: Sent,
    environment: "HttpEnvironment",
    verdicts: dict[int, Verdict],
) -> int:
    """Check each URL, put its verdict at the same place of `verdicts`, and return an exit code: not 0 after a signal."""

    async def check_one(at: int, url: str) -> None:
        verdicts[at] = await _check_url(url, contracts[url], sent, environment)

    async def check_all() -> int:
        async with anyio.create_task_group() as group:
            for at, url in urls.items():
                group.start_soon(check_one, at, url)
        return 0

    return await until_signalled(lambda _: check_all(), Terminal(), changes_production=False)


async def _check_url(
    target: str, contract: StreamContract, sent: Sent, environment: "HttpEnvironment"
) -> Verdict:
    from cutover.checking.probe import probe_stream  # noqa: PLC0415
    from cutover.checking.resume_drill import drill_resume  # noqa: PLC0415
    from cutover.http.connection import StreamRequest  # noqa: PLC0415

    body, lane_headers, thread_id = _lane_turn(target)
    method = sent.method or contract.method
    if method != "POST" and sent.body is None:
        body, lane_headers, thread_id = b"", {}, None
    content = body if sent.body is None else sent.body
    typed = {"content-type": "application/json"} if content or method == "POST" else {}
    request = StreamRequest(
        method=method,
        url=target,
        headers={**typed, **lane_headers, **sent.headers},
        body=content,
        label="check",
    )
    # The thread of a body that the user gives is unknown.
    context = sent.context(thread_id if sent.body is None else None)
    async with environment.client() as client:
        if sent.resume:
            drill = await drill_resume(client, request, contract=contract, context=context)
            return Verdict(target=target, report=drill.report, unreachable=drill.unreachable)
        probe = await probe_stream(client, request, contract=contract, context=context)
    return Verdict(target=target, report=probe.report, unreachable=probe.unreachable)


def _lane_turn(url: str) -> tuple[bytes, dict[str, str], str | None]:
    """Return body, headers and thread id of a new chat turn, if the path is an alias of the lane; else no body, no headers and None."""
    path = urlsplit(url).path
    for alias in COMPAT.aliases:
        pattern = re.escape(alias.template).replace(re.escape("{id}"), "([^/]+)")
        if found := re.fullmatch(pattern, path):
            thread_id = (
                found[1] if alias.names_thread else f"thread_check_{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
            )
            defaults = {declared.variable: str(declared.default) for declared in INPUTS}
            names = ("COMPAT_CLIENT_BUILD_ID", "COMPAT_PROTOCOL_VERSION", "COMPAT_SCHEMA_VERSION")
            values = [os.environ.get(name) or defaults[name] for name in names]
            body = msgspec.json.encode(alias.body(thread_id, COMPAT.prompt))
            return body, dict(zip(COMPAT.header_names, values, strict=True)), thread_id
    return b"", {}, None
