"""Dual runs of two simulated services that generate their answers, alike or with one seeded difference in the new service."""

import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import attrs

from cutover.clock import EventLoopClock
from cutover.config.manifest import parse_manifest
from cutover.model.results import StepResult
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.simulation import Fault, Operation
from cutover.simulation.addresses import Site
from cutover.simulation.exchange import STREAMS, Event, Reply
from cutover.simulation.faults import Rewrite, Scope, Strike
from cutover.simulation.outcomes import DUAL_RUN_FAILS
from cutover.simulation.stream_changes import before, dropped, field, header, service_error, swapped
from cutover.simulation.streams import DONE
from cutover.train.step_recorder import StepRecorder
from cutover.train.steps import dual_run
from cutover.wiring.embedded import simulated
from tests.support.embedded_trains import EmbeddedTrain, live_config

Change = Callable[[Reply], Reply]

GATE_MS = 60.0
"""MAX_P95_LATENCY_DELTA_MS of the dual runs whose latency is gated: a fifth of the p95 of about 330 ms."""
SLOWER = "a 40 % slower p95"
_CHAT = {"id": "{thread_id}", "messages": [{"role": "user", "content": "use the tool"}]}
_TO_STREAM = {"method": "POST", "response_kind": "sse", "critical": True, "requires_auth": True}
MANIFEST = parse_manifest(
    json.dumps(
        {
            "requests": [
                {"id": "manifest", "path": "/manifest.json"},
                {"id": "me", "path": "/api/me", "requires_auth": True},
                {"id": "threads", "path": "/api/runtime/threads", "requires_auth": True},
                {"id": "chats", "path": "/api/chats", "requires_auth": True},
                {"id": "root", "path": "/", "response_kind": "text"},
                {"id": "chat", "path": "/api/chat/stream", "body": _CHAT, **_TO_STREAM},
                {"id": "chats-stream", "path": "/api/chats/{thread_id}/stream", "body": _CHAT, **_TO_STREAM},
                {
                    "id": "refused",
                    "path": "/api/chat/stream",
                    "method": "POST",
                    "requires_auth": True,
                    "expect_status": 422,
                    "body": {"id": "{thread_id}", "messages": []},
                },
            ]
        }
    ).encode(),
    name="the manifest of the seeded differences",
)


def _json(edit: Callable[[Any], object]) -> Change:
    """Return a change of the JSON document of a reply."""

    def changed(reply: Reply) -> Reply:
        (body,) = reply.body
        assert isinstance(body, bytes)
        document = json.loads(body)
        edit(document)
        return attrs.evolve(reply, body=(json.dumps(document).encode(),))

    return changed


def _without_done(reply: Reply) -> Reply:
    return attrs.evolve(reply, body=tuple(piece for piece in reply.body if piece != DONE))


def _page(old: bytes, new: bytes) -> Change:
    def changed(reply: Reply) -> Reply:
        return attrs.evolve(
            reply,
            body=tuple(
                piece.replace(old, new) if isinstance(piece, bytes) else piece for piece in reply.body
            ),
        )

    return changed


def _counted() -> Change:
    """Return a change that puts another name into each answer."""
    numbers = itertools.count()
    return _json(lambda document: document.update(name=f"OpenAgents {next(numbers)}"))


_REFUSAL = "refusal"
_CHANGES: Mapping[str, tuple[str, Callable[[], Change]]] = {
    "a missing field": ("/api/me", lambda: _json(lambda found: found["data"]["user"].pop("email"))),
    "an extra field": ("/api/me", lambda: _json(lambda found: found["data"]["user"].update(plan="free"))),
    "null for a value": ("/api/me", lambda: _json(lambda found: found["data"]["user"].update(email=None))),
    "another value": ("/manifest.json", lambda: _json(lambda found: found.update(start_url="/new"))),
    "a type change": ("/api/chats", lambda: _json(lambda found: found["data"][0].update(messages="2"))),
    "a type change of a random id": ("/api/me", lambda: _json(lambda found: found["trace"].update(id=7))),
    "a field lost in generated items": (
        "/api/me",
        lambda: _json(lambda found: [item.pop("text") for item in found["suggestions"]]),
    ),
    "one item more": (
        "/api/runtime/threads",
        lambda: _json(lambda found: found["data"].append({"id": "thread_2", "title": "Hello"})),
    ),
    "noise on one side only": ("/manifest.json", _counted),
    "a lost header": ("/api/chats", lambda: lambda reply: reply.with_header("x-answer-id", None)),
    "another content type": (
        "/manifest.json",
        lambda: lambda reply: reply.with_header("content-type", "application/manifest+json"),
    ),
    "another line of a page": ("/", lambda: _page(b"<title>OpenAgents</title>", b"<title>Agents</title>")),
    "a lost header of a stream": ("stream", lambda: header("cache-control", None)),
    "a dropped tool event": ("stream", lambda: dropped("tool-output")),
    "another tool input": ("stream", lambda: field("tool-input", "input", {"query": "use the"})),
    "another tool": ("stream", lambda: field("tool-input", "toolName", "workspace.write")),
    "another finish reason": ("stream", lambda: field("finish", "status", "stopped")),
    "an error at the end": ("stream", lambda: service_error("turn_failed", retryable=True)),
    "a reordered kind": ("stream", lambda: swapped("finish-step", "finish")),
    "an extra kind": ("stream", lambda: before("finish", Event({"type": "source-url", "url": "/"}))),
    "a missing [DONE]": ("stream", lambda: _without_done),
    "a changed error shape": (_REFUSAL, lambda: _json(lambda found: found.pop("errors"))),
    "a changed error code": (
        _REFUSAL,
        lambda: _json(lambda found: found["error"].update(code="bad_request")),
    ),
    "a changed status": (_REFUSAL, lambda: lambda reply: attrs.evolve(reply, status=400)),
    SLOWER: ("everything", lambda: lambda reply: attrs.evolve(reply, held=1.4 * reply.held)),
}
"""Name of a difference -> the requests that it affects, and the change of their replies."""
DIFFERENCES = tuple(_CHANGES)


def _fault(name: str) -> Fault:
    where, make = _CHANGES[name]
    change = make()
    operations = STREAMS | {Operation.PAGE, Operation.ACCOUNT}
    scope = Scope(operations=operations, sites=frozenset({Site.FRONT}))
    if where.startswith("/"):
        scope = attrs.evolve(scope, paths=frozenset({where}))

    def rewritten(reply: Reply) -> Reply:
        refuses = reply.status == 422
        if (where == "stream" and not reply.started_turn) or (where == _REFUSAL and not refuses):
            return reply
        return change(reply)

    return Fault(
        name=name, sentence=name, strikes=(Strike(scope, Rewrite(rewritten)),), outcome=DUAL_RUN_FAILS
    )


async def dual_run_of(seed: int, *, difference: str = "", gated: bool = False) -> StepResult:
    """Run one dual run of two services that generate their answers, and return its result.

    Args:
        seed: Seed of the answers.
        difference: Name of the difference of the new service; empty for two services that are alike.
        gated: True if the p95 latency is gated.
    """
    config = live_config(
        Path("unused"), run_dual_run=True, max_p95_latency_delta_ms=GATE_MS if gated else 0.0
    )
    faults = (_fault(difference),) if difference else ()
    trial = EmbeddedTrain(
        config, faults=faults, layout_changes={"generated_seed": seed, "lists_threads": True}
    )
    production = simulated(config, trial.production, clock=EventLoopClock())
    plan = production.plan().dual_run
    assert plan is not None
    async with production.services() as services:
        recorder = StepRecorder(step_id=dual_run.STEP_ID, journal=Journal(), evidence=EvidenceFolder())
        return await dual_run.run(attrs.evolve(plan, manifest=MANIFEST), services, recorder)
