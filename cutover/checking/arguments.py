"""The arguments of a check, as a caller gives them, made into a request, a contract to judge by, and the facts about the request."""

import math
from collections.abc import Mapping
from datetime import UTC, datetime

import attrs
import msgspec

from cutover.contract import StreamContext, StreamContract
from cutover.http.connection import StreamRequest


def request_for(
    contract: StreamContract,
    url: str,
    *,
    method: str | None,
    json: object,
    headers: Mapping[str, str] | None,
) -> StreamRequest:
    """Return the request of a test for a stream of this contract. ``json`` is its body; None: no body."""
    body = b"" if json is None else msgspec.json.encode(json)
    typed = {} if json is None else {"content-type": "application/json"}
    return StreamRequest(
        method=method or contract.method, url=url, headers={**typed, **(headers or {})}, body=body
    )


def context_for(context: StreamContext | None, json: object) -> StreamContext:
    """Return the facts about a request that is sent now: those that the caller gives, else the thread id in its body."""
    if context is None and isinstance(json, dict) and isinstance(thread_id := json.get("id"), str):
        context = StreamContext(thread_id=thread_id)
    context = context or StreamContext()
    return attrs.evolve(context, asked_at=context.asked_at or datetime.now(UTC))


def judged_by(contract: StreamContract, *, strict: bool, deadline: float | None) -> StreamContract:
    """Return the contract to judge by: its strict form if asked for, and with this limit for the whole stream if there is one."""
    judged = contract.strict() if strict else contract
    return (
        judged
        if deadline is None
        else attrs.evolve(judged, limits=attrs.evolve(judged.limits, whole=deadline))
    )


def bounded(contract: StreamContract) -> tuple[StreamContract, float | None]:
    """Return the contract to check by, and the seconds after which the stream is left (None: never).

    A stream with an end must end within the contract's limit ``whole``. One without an end is left then, which breaks no rule.
    """
    if not contract.endless:
        return contract, None
    unbounded = attrs.evolve(contract, limits=attrs.evolve(contract.limits, whole=math.inf))
    return unbounded, contract.limits.whole
