"""The faults of the streams, and the variants that are no faults."""

import attrs

from cutover.simulation import stream_changes as change
from cutover.simulation.exchange import (
    NO_REPLY,
    SILENCE,
    STREAMS,
    Event,
    Operation,
    Pause,
    Reply,
    html_reply,
    problem,
)
from cutover.simulation.faults import Effect, Fault, Outcome, Refuse, Rewrite, Role, Scope
from cutover.simulation.outcomes import (
    DRILL_FAILS,
    PASSED,
    POST_FAILS,
    SMOKE_FAILS,
    SMOKE_HAS_NO_EVIDENCE,
    fault,
)
from cutover.simulation.service import upgrade_required
from cutover.simulation.streams import DONE, STREAM_HEADERS

EVERYWHERE = Scope(operations=STREAMS)
ONE_ALIAS = Scope(operations=frozenset({Operation.CHATS_STREAM}))
ON_CANARY = Scope(operations=STREAMS, role=Role.CANARY)
ON_STABLE = Scope(operations=STREAMS, role=Role.STABLE)
AFTER_FLIP = Scope(operations=STREAMS, flipped=True)


def _redirect() -> Reply:
    return Reply(status=307, headers=(("location", "https://openagents.com/login"),))


_EFFECTS: tuple[tuple[str, str, Effect], ...] = (
    ("stream-500", "Streams answer 500.", Refuse(problem(500, "internal", "Something went wrong."))),
    ("stream-503", "Streams answer 503.", Refuse(problem(503, "unavailable", "Try again later."))),
    ("stream-404", "The stream aliases are not there.", Refuse(problem(404, "not_found", "Not found."))),
    (
        "stream-401",
        "Streams refuse the user's token.",
        Refuse(problem(401, "unauthorized", "Unauthenticated.")),
    ),
    (
        "stream-403",
        "Streams forbid the user.",
        Refuse(problem(403, "forbidden", "This token may not do that.")),
    ),
    ("stream-426", "Streams call the client too old.", Refuse(upgrade_required("upgrade_required"))),
    ("stream-redirected", "Streams redirect to the login page.", Refuse(_redirect())),
    (
        "stream-html",
        "Streams answer 200 with an HTML page.",
        Refuse(html_reply("<!doctype html><p>Hello</p>")),
    ),
    (
        "stream-empty",
        "Streams answer 200 with the right head and no event.",
        Refuse(Reply(headers=STREAM_HEADERS, streamed=True)),
    ),
    ("stream-no-reply", "The connection breaks before the head.", Refuse(NO_REPLY)),
    ("stream-silence", "Streams are never answered.", Refuse(SILENCE)),
    (
        "content-type-json",
        "Streams say that they are JSON.",
        Rewrite(change.header("content-type", "application/json; charset=utf-8")),
    ),
    (
        "charset-missing",
        "The content type names no charset.",
        Rewrite(change.header("content-type", "text/event-stream")),
    ),
    (
        "charset-latin1",
        "The content type names another charset.",
        Rewrite(change.header("content-type", "text/event-stream; charset=iso-8859-1")),
    ),
    (
        "protocol-v10",
        "The protocol header says v10.",
        Rewrite(change.header("x-vercel-ai-ui-message-stream", "v10")),
    ),
    (
        "protocol-missing",
        "The protocol header is missing.",
        Rewrite(change.header("x-vercel-ai-ui-message-stream", None)),
    ),
    (
        "retired-header",
        "Streams call this lane retired.",
        Rewrite(change.header("x-oa-legacy-chat-retired", "true")),
    ),
    *(
        (f"{kind}-dropped", f"{kind} is never sent.", Rewrite(change.dropped(kind)))
        for kind in ("start", "start-step", "finish-step", "finish")
    ),
    ("done-dropped", "The stream ends without [DONE].", Rewrite(change.dropped("[DONE]"))),
    *(
        (f"{kind}-doubled", f"{kind} is sent twice.", Rewrite(change.doubled(kind)))
        for kind in ("start", "start-step", "finish-step", "finish")
    ),
    ("done-doubled", "[DONE] is sent twice.", Rewrite(change.doubled("[DONE]"))),
    ("reversed", "The events come in reverse order.", Rewrite(change.backwards())),
    (
        "steps-swapped",
        "finish-step comes where start-step should.",
        Rewrite(change.swapped("start-step", "finish-step")),
    ),
    (
        "finish-before-step",
        "finish comes before finish-step.",
        Rewrite(change.swapped("finish-step", "finish")),
    ),
    (
        "done-first",
        "[DONE] comes first, and the turn after it.",
        Rewrite(change.in_turn(change.dropped("[DONE]"), change.before("start", DONE))),
    ),
    (
        "data-after-done",
        "An event follows [DONE].",
        Rewrite(change.after_all(Event({"status": "accepted", "type": "finish"}))),
    ),
    (
        "service-error",
        "The turn ends in an error that the service reports.",
        Rewrite(change.service_error("codex_error", retryable=True)),
    ),
    (
        "wrong-thread",
        "The stream is of another thread.",
        Rewrite(change.field("start", "threadId", "thread_of_others")),
    ),
    (
        "turn-ids-disagree",
        "finish-step names another turn than start-step.",
        Rewrite(change.field("finish-step", "turnId", "turn_of_others")),
    ),
    (
        "not-json",
        "An event's data is not JSON.",
        Rewrite(change.before("finish-step", b"data: {'type': oops}\n\n")),
    ),
    (
        "unknown-type",
        "An event has an unknown type.",
        Rewrite(change.before("finish-step", Event({"type": "surprise"}))),
    ),
    ("cut-mid-event", "The body ends in the middle of an event.", Rewrite(change.cut_inside("finish-step"))),
    ("cut-clean", "The body ends after the step, between two events.", Rewrite(change.up_to("finish"))),
    ("stream-reset", "The connection breaks in mid-turn.", Rewrite(change.broken_before("finish-step"))),
    ("stall-at-start", "The head comes, and no event ever.", Rewrite(change.stalled_before("start"))),
    (
        "stall-in-turn",
        "The turn stops, the connection stays open.",
        Rewrite(change.stalled_before("finish-step")),
    ),
    ("stall-before-done", "Everything comes but [DONE].", Rewrite(change.stalled_before("[DONE]"))),
    ("first-event-late", "The first event takes 8 seconds.", Rewrite(change.before("start", Pause(8.0)))),
    (
        "gap-too-long",
        "Nothing comes for 20 seconds in mid-turn.",
        Rewrite(change.before("finish-step", Pause(20.0))),
    ),
    (
        "buffered",
        "A proxy holds the stream for 4 seconds, then sends it all at once.",
        Rewrite(change.held_back(4.0)),
    ),
)


def _struck(entry: tuple[str, str, Effect], scope: Scope, outcome: Outcome) -> Fault:
    name, sentence, effect = entry
    return fault(name, sentence, scope, effect, outcome)


def _elsewhere() -> tuple[Fault, ...]:
    """Return some of the faults again, for only a part of the streams."""
    by_name = {entry[0]: entry for entry in _EFFECTS}
    places = (
        ("by-id-alone", "Only /api/chats/{id}/stream:", ONE_ALIAS, SMOKE_FAILS),
        ("on-stable", "Only the stable revision:", ON_STABLE, SMOKE_FAILS),
        ("on-canary", "Only the canary:", ON_CANARY, DRILL_FAILS),
        ("after-flip", "Only once the routes are flipped:", AFTER_FLIP, POST_FAILS),
    )
    names = ("stream-500", "done-dropped", "finish-doubled", "service-error", "stream-reset", "protocol-v10")
    faults = []
    for suffix, where, scope, outcome in places:
        for name in names:
            _, sentence, effect = by_name[name]
            struck = _struck((f"{name}-{suffix}", f"{where} {sentence}", effect), scope, outcome)
            # Where the routes are flipped already, the fault acts on the first smoke.
            late = scope is AFTER_FLIP
            faults.append(attrs.evolve(struck, verify_only=SMOKE_FAILS) if late else struck)
    return tuple(faults)


_TOKEN_REFUSED = frozenset({"stream-401", "stream-403"})

STREAM_FAULTS = (
    *(
        _struck(entry, EVERYWHERE, SMOKE_HAS_NO_EVIDENCE if entry[0] in _TOKEN_REFUSED else SMOKE_FAILS)
        for entry in _EFFECTS
    ),
    *_elsewhere(),
)

_VARIANTS: tuple[tuple[str, str, change.Change], ...] = (
    ("one-body", "Turns come as one body with a content-length.", change.one_body()),
    ("crlf", "Lines end in CRLF.", change.written(line_end="\r\n")),
    ("cr", "Lines end in CR.", change.written(line_end="\r")),
    ("spaced-json", "The JSON has spaces.", change.written(spaced=True)),
    ("shuffled-keys", "The keys stand in another order.", change.written(shuffled=True)),
    ("kept-alive", "Comments keep the connection alive.", change.commented(1.0)),
    (
        "header-spelling",
        "The content type is spelled in another way that means the same.",
        change.header("content-type", 'Text/Event-Stream;Charset="UTF-8"'),
    ),
    (
        "slow",
        "The first event takes 3 seconds, each other one 2.",
        change.in_turn(change.paced(2.0), change.before("start", Pause(1.0))),
    ),
    ("byte-by-byte", "Each byte is a chunk.", change.in_chunks(1)),
    ("odd-chunks", "Chunks are cut every 37 bytes.", change.in_chunks(37)),
    (
        "tool-turn",
        "Every turn calls a tool.",
        change.before(
            "text-start",
            Event(
                {"toolCallId": "call_1", "toolName": "workspace.search", "input": {}, "type": "tool-input"}
            ),
            Event({"toolCallId": "call_1", "status": "completed", "type": "tool-output"}),
        ),
    ),
)


STREAM_VARIANTS = (
    *(fault(name, sentence, EVERYWHERE, Rewrite(effect), PASSED) for name, sentence, effect in _VARIANTS),
    Fault(
        name="preview",
        sentence="Turns are the lane's short preview, without text.",
        arrange=lambda layout: attrs.evolve(layout, preview=True),
        outcome=PASSED,
    ),
)
