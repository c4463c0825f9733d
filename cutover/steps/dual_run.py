"""The dual run: the same requests to the new service and to the old one, compared by meaning."""

import math
from collections.abc import Mapping, Sequence

import anyio
import attrs
import msgspec

from cutover.contract import StreamContract
from cutover.errors import PeerError
from cutover.manifest import ManifestEntry, ResponseKind
from cutover.outbound import TOKEN_REFUSED, Outbound
from cutover.probe import StreamRequest, probe_stream
from cutover.quoting import printable
from cutover.results import StepResult, StepStatus
from cutover.sse import EventStreamParser, MessageEvent
from cutover.steps import Peers, StepLog

STEP_ID = "dual-run-diff"
_VOLATILE = frozenset({"generated_at", "generatedAt", "request_id", "requestId"})
_TOLD_APART_BY = {
    "tool-input": ("toolName",),
    "tool-output": ("status",),
    "finish": ("status",),
    "error": ("code",),
}
"""Chunk kind -> the fields that must agree beside the order of the kinds; ids and model text differ by nature."""
_FOLDED = frozenset({"text-delta", "reasoning-delta"})
_SUCCESS, _REDIRECT, _SERVER_ERROR = 200, 300, 500


@attrs.frozen(kw_only=True)
class Side:
    """One of the two services."""

    name: str
    base_url: str
    token: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)


@attrs.frozen(kw_only=True)
class Plan:
    """What to send, and how much may differ."""

    entries: tuple[ManifestEntry, ...]
    new: Side
    old: Side
    contract: StreamContract
    """Its limits bound the streams of both; neither is held to its rules here."""
    thread_prefix: str
    run_mutating: bool
    max_mismatches: int
    """Of each kind and in all; recorded beside what was observed, held by the gate."""
    max_p95_delta_ms: float
    """0: not gated."""


@attrs.frozen(kw_only=True)
class Answer:
    """What one side said to one entry."""

    status: int | None
    """None where there was no reply."""
    meaning: object
    """What is compared: JSON without its volatile keys, or the order of a stream's events; None for text."""
    said: str
    seconds: float | None
    """Latency; None where there was no reply, for a refused connection is not a fast one."""


async def run(plan: Plan, peers: Peers, log: StepLog) -> StepResult:
    """Send every entry to both sides at once, and compare."""
    latencies: dict[str, list[float]] = {plan.new.name: [], plan.old.name: []}
    mismatched: list[ManifestEntry] = []
    skipped = 0
    rows: list[dict[str, object]] = []
    for entry in plan.entries:
        if entry.mutates and not plan.run_mutating:
            log.check(entry.id, StepStatus.SKIP, "it changes something: RUN_MUTATING_REQUESTS=1 runs it")
            skipped += 1
            continue
        new, old = await _both(entry, plan, peers)
        for side, answer in ((plan.new, new), (plan.old, old)):
            if answer.seconds is not None:
                latencies[side.name].append(answer.seconds)
        why = difference(entry, new, old)
        if why:
            mismatched.append(entry)
        status = _status(entry, why, new, old)
        log.check(
            entry.id,
            status,
            why or new.said,
            kind=entry.response_kind.value,
            endpoint=entry.path,
            http_status=new.status,
        )
        rows.append(_row(entry, new, old, why))
    facts = _facts(plan, mismatched, latencies, rows, skipped)
    _hold_thresholds(plan, facts, log)
    compared = len(rows)
    return log.finish(
        f"{compared} of {compared} requests have the same answer from both services", facts=facts
    )


def difference(entry: ManifestEntry, new: Answer, old: Answer) -> str:  # noqa: PLR0911  one way to differ after the other
    """Return why two answers do not agree; empty where they do. That both fail alike is no agreement."""
    for side, answer in (("new", new), ("legacy", old)):
        if answer.status is None:
            return f"the {side} service: {answer.said}"
        if entry.requires_auth and answer.status in TOKEN_REFUSED:
            return f"the {side} service refuses the token: {answer.said}"
        if answer.status >= _SERVER_ERROR:
            return f"the {side} service fails: {answer.said}"
    if new.status != old.status:
        return f"the new service says {new.said}, the legacy service {old.said}"
    must_succeed = entry.critical or entry.response_kind is ResponseKind.SSE
    if must_succeed and not _SUCCESS <= (new.status or 0) < _REDIRECT:
        return f"both services refuse it: {new.said}"
    if new.meaning != old.meaning:
        return f"the answers differ in meaning: {_first_difference(new.meaning, old.meaning)}"
    return ""


def _status(entry: ManifestEntry, why: str, new: Answer, old: Answer) -> StepStatus:
    """Tell evidence that says no from evidence that could not be had."""
    if not why:
        return StepStatus.PASS
    refused = entry.requires_auth and TOKEN_REFUSED & {new.status, old.status}
    return StepStatus.ERROR if refused or None in {new.status, old.status} else StepStatus.FAIL


async def _both(entry: ManifestEntry, plan: Plan, peers: Peers) -> tuple[Answer, Answer]:
    answers: dict[str, Answer] = {}

    async def ask(side: Side, outbound: Outbound) -> None:
        send = _stream if entry.response_kind is ResponseKind.SSE else _plain
        answers[side.name] = await send(entry, side, plan, outbound)

    async with anyio.create_task_group() as group:
        group.start_soon(ask, plan.new, peers.service)
        group.start_soon(ask, plan.old, peers.legacy)
    return answers[plan.new.name], answers[plan.old.name]


def _headers(entry: ManifestEntry, side: Side) -> dict[str, str]:
    headers = {**side.headers, **entry.headers}
    if entry.requires_auth:
        headers["authorization"] = f"Bearer {side.token}"
    return headers


def _filled(value: object, thread_id: str) -> object:
    """Put the thread id into a path or a body, where either asks for one."""
    match value:
        case str():
            return value.replace("{thread_id}", thread_id)
        case dict():
            return {key: _filled(item, thread_id) for key, item in value.items()}
        case list():
            return [_filled(item, thread_id) for item in value]
        case _:
            return value


async def _plain(entry: ManifestEntry, side: Side, plan: Plan, outbound: Outbound) -> Answer:
    thread_id = f"{plan.thread_prefix}{side.name}_{entry.id}"
    try:
        reply = await outbound.read(
            entry.method,
            side.base_url + str(_filled(entry.path, thread_id)),
            label=f"dual.{side.name}.{entry.id}",
            headers=_headers(entry, side),
            json=_filled(entry.body, thread_id),
            attempts=1 if entry.mutates else 2,
        )
        meaning = _without_volatile(reply.json()) if entry.response_kind is ResponseKind.JSON else None
    except PeerError as error:
        return Answer(status=None, meaning=None, said=str(error), seconds=None)
    return Answer(status=reply.status, meaning=meaning, said=reply.describe(), seconds=reply.elapsed)


async def _stream(entry: ManifestEntry, side: Side, plan: Plan, outbound: Outbound) -> Answer:
    thread_id = f"{plan.thread_prefix}{side.name}_{entry.id}"
    probe = await probe_stream(
        outbound.client,
        StreamRequest(
            method=entry.method,
            url=side.base_url + str(_filled(entry.path, thread_id)),
            headers={"content-type": "application/json", **_headers(entry, side)},
            body=b"" if entry.body is None else msgspec.json.encode(_filled(entry.body, thread_id)),
            label=f"dual.{side.name}.{entry.id}",
        ),
        contract=plan.contract,
        secrets=outbound.secrets,
    )
    if probe.status is None or probe.report.interrupted:
        return Answer(status=None, meaning=None, said=probe.describe(), seconds=None)
    return Answer(
        status=probe.status, meaning=order_of(probe.body), said=f"HTTP {probe.status}", seconds=probe.elapsed
    )


def order_of(body: bytes) -> list[tuple[object, ...]]:
    """Return the order of a stream's events by kind, runs of text folded: how a text is cut is not its meaning."""
    parser = EventStreamParser()
    order: list[tuple[object, ...]] = []
    for event in (*parser.receive_data(body), *parser.receive_eof()):
        if not isinstance(event, MessageEvent):
            continue
        kind = _kind(event.data)
        if kind[0] not in _FOLDED or not order or order[-1] != kind:
            order.append(kind)
    return order


def _kind(data: str) -> tuple[object, ...]:
    if data == "[DONE]":
        return ("[DONE]",)
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ("not JSON",)
    if not isinstance(chunk, dict):
        return ("not an object",)
    name = str(chunk.get("type"))
    return (name, *(printable(str(chunk.get(field))) for field in _TOLD_APART_BY.get(name, ())))


def _without_volatile(value: object) -> object:
    match value:
        case dict():
            return {key: _without_volatile(item) for key, item in value.items() if key not in _VOLATILE}
        case list():
            return [_without_volatile(item) for item in value]
        case bool():
            return ("boolean", value)  # which equals 1 or 0 in Python, and not in JSON
        case _:
            return value


def _first_difference(new: object, old: object, where: str = "") -> str:
    """Name the first place where two meanings part."""
    if isinstance(new, dict) and isinstance(old, dict):
        for key in sorted({*new, *old}, key=str):
            if new.get(key, ...) != old.get(key, ...):
                return _first_difference(
                    new.get(key, ...), old.get(key, ...), f"{where}.{printable(str(key), 60)}"
                )
    if isinstance(new, list) and isinstance(old, list):
        for index, (one, other) in enumerate(zip(new, old, strict=False)):
            if one != other:
                return _first_difference(one, other, f"{where}[{index}]")
        return f"{where or 'the answer'} has {len(new)} items there and {len(old)} in the legacy service"
    shown = ["nothing" if value is ... else printable(str(value), 80) for value in (new, old)]
    return f"{where or 'the answer'} is {shown[0]} there and {shown[1]} in the legacy service"


def p95(seconds: Sequence[float]) -> float | None:
    """Return the 95th percentile in milliseconds, by nearest rank; None where nothing was measured."""
    if not seconds:
        return None
    return round(sorted(seconds)[math.ceil(0.95 * len(seconds)) - 1] * 1000, 3)


def _row(entry: ManifestEntry, new: Answer, old: Answer, why: str) -> dict[str, object]:
    return {
        "id": entry.id,
        "method": entry.method,
        "path": entry.path,
        "response_kind": entry.response_kind.value,
        "critical": entry.critical,
        "match": not why,
        "detail": why,
        "rust_status": new.status,
        "legacy_status": old.status,
        "rust_ms": None if new.seconds is None else round(new.seconds * 1000, 3),
        "legacy_ms": None if old.seconds is None else round(old.seconds * 1000, 3),
    }


def _facts(
    plan: Plan,
    mismatched: Sequence[ManifestEntry],
    latencies: Mapping[str, Sequence[float]],
    rows: list[dict[str, object]],
    skipped: int,
) -> dict[str, object]:
    new, old = p95(latencies[plan.new.name]), p95(latencies[plan.old.name])
    return {
        "thresholds": {
            "max_critical_mismatches": plan.max_mismatches,
            "max_total_mismatches": plan.max_mismatches,
            "max_stream_mismatches": plan.max_mismatches,
            "max_p95_latency_delta_ms": plan.max_p95_delta_ms,
        },
        "totals": {
            "request_count": len(rows),
            "skipped": skipped,
            "mismatches": len(mismatched),
            "critical_mismatches": sum(entry.critical for entry in mismatched),
            "stream_mismatches": sum(entry.response_kind is ResponseKind.SSE for entry in mismatched),
        },
        "latency_ms": {
            "rust_p95": new,
            "legacy_p95": old,
            "p95_delta": None if new is None or old is None else round(new - old, 3),
        },
        "requests": rows,
    }


def _hold_thresholds(plan: Plan, facts: Mapping[str, object], log: StepLog) -> None:
    """Record the one threshold that no single request can break: the latency."""
    latency = facts["latency_ms"]
    delta = latency["p95_delta"] if isinstance(latency, dict) else None
    if plan.max_p95_delta_ms <= 0:
        return
    if delta is None:
        log.check("p95-latency", StepStatus.ERROR, "no latency was measured on both sides", kind="latency")
        return
    said = f"the new service's p95 is {delta:+g} ms against the legacy service's, {plan.max_p95_delta_ms:g} ms is allowed"
    log.check(
        "p95-latency",
        StepStatus.PASS if delta <= plan.max_p95_delta_ms else StepStatus.FAIL,
        said,
        kind="latency",
    )
