"""Faults of the event streams, and variants of event streams that are unusual but correct.

The module is long because it is a list: one entry for each fault and variant.
"""

from collections.abc import Callable

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
    text_reply,
)
from cutover.simulation.faults import Effect, Fault, Outcome, Refuse, Rewrite, Role, Scope
from cutover.simulation.layout import ChangeKind, Layout
from cutover.simulation.outcomes import (
    BASELINE_UNHEALTHY,
    DRILL_FAILS,
    FLIP_FAILS,
    PASSED,
    POST_FAILS,
    SMOKE_FAILS,
    SMOKE_HAS_NO_EVIDENCE,
    fault,
)
from cutover.simulation.service import foreign_thread, upgrade_required
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
    ("stream-404", "Streams answer 404.", Refuse(problem(404, "not_found", "Not found."))),
    (
        "stream-401",
        "Streams answer 401: the user's token is not valid.",
        Refuse(problem(401, "unauthorized", "Unauthenticated.")),
    ),
    (
        "stream-403",
        "Streams answer 403: the user's token has no permission.",
        Refuse(problem(403, "forbidden", "This token may not do that.")),
    ),
    (
        "thread-of-others",
        "Streams answer 403: the thread belongs to another user.",
        Refuse(foreign_thread()),
    ),
    (
        "stream-403-page",
        "Streams answer 403 with an HTML page: something in front of the service refuses.",
        Refuse(html_reply("<!doctype html><title>Access denied</title>\n", status=403)),
    ),
    (
        "stream-415-text",
        "Streams answer 415 in plain text.",
        Refuse(text_reply("Expected request with `Content-Type: application/json`", status=415)),
    ),
    (
        "stream-426",
        "Streams answer 426: the client is too old.",
        Refuse(upgrade_required("upgrade_required")),
    ),
    ("stream-redirected", "Streams redirect to the login page.", Refuse(_redirect())),
    (
        "stream-html",
        "Streams answer 200 with an HTML page.",
        Refuse(html_reply("<!doctype html><p>Hello</p>")),
    ),
    (
        "stream-empty",
        "Streams answer 200 with the right headers and send no event.",
        Refuse(Reply(headers=STREAM_HEADERS, streamed=True)),
    ),
    ("stream-no-reply", "The connection breaks before the response head.", Refuse(NO_REPLY)),
    ("stream-silence", "Streams never answer, and the connection stays open.", Refuse(SILENCE)),
    (
        "content-type-json",
        "The content type of the stream is application/json.",
        Rewrite(change.header("content-type", "application/json; charset=utf-8")),
    ),
    (
        "charset-missing",
        "The content type of the stream has no charset.",
        Rewrite(change.header("content-type", "text/event-stream")),
    ),
    (
        "charset-latin1",
        "The content type of the stream has charset iso-8859-1 instead of utf-8.",
        Rewrite(change.header("content-type", "text/event-stream; charset=iso-8859-1")),
    ),
    (
        "protocol-v10",
        "The protocol header is v10 instead of v1.",
        Rewrite(change.header("x-vercel-ai-ui-message-stream", "v10")),
    ),
    (
        "protocol-missing",
        "The protocol header is missing.",
        Rewrite(change.header("x-vercel-ai-ui-message-stream", None)),
    ),
    (
        "retired-header",
        "Streams have the header that marks this lane as retired.",
        Rewrite(change.header("x-oa-legacy-chat-retired", "true")),
    ),
    *(
        (f"{kind}-dropped", f"The stream leaves out the {kind} event.", Rewrite(change.dropped(kind)))
        for kind in ("start", "start-step", "finish-step", "finish")
    ),
    ("done-dropped", "The stream ends without [DONE].", Rewrite(change.dropped("[DONE]"))),
    *(
        (f"{kind}-doubled", f"The stream sends the {kind} event twice.", Rewrite(change.doubled(kind)))
        for kind in ("start", "start-step", "finish-step", "finish")
    ),
    ("done-doubled", "The stream sends [DONE] twice.", Rewrite(change.doubled("[DONE]"))),
    ("reversed", "The events come in reverse order, but [DONE] is still last.", Rewrite(change.backwards())),
    (
        "steps-swapped",
        "The start-step and finish-step events have changed places.",
        Rewrite(change.swapped("start-step", "finish-step")),
    ),
    (
        "finish-before-step",
        "The finish event comes before the finish-step event.",
        Rewrite(change.swapped("finish-step", "finish")),
    ),
    (
        "done-first",
        "[DONE] comes first, before all events of the turn.",
        Rewrite(change.in_turn(change.dropped("[DONE]"), change.before("start", DONE))),
    ),
    (
        "data-after-done",
        "An event follows [DONE].",
        Rewrite(change.after_all(Event({"status": "accepted", "type": "finish"}))),
    ),
    (
        "service-error",
        "The turn ends with an error that the service reports.",
        Rewrite(change.service_error("codex_error", retryable=True)),
    ),
    (
        "wrong-thread",
        "The start event names a different thread than the request.",
        Rewrite(change.field("start", "threadId", "thread_of_others")),
    ),
    (
        "turn-ids-disagree",
        "The finish-step event names a different turn than the start-step event.",
        Rewrite(change.field("finish-step", "turnId", "turn_of_others")),
    ),
    (
        "not-json",
        "The data of one event is not JSON.",
        Rewrite(change.before("finish-step", b"data: {'type': oops}\n\n")),
    ),
    (
        "unknown-type",
        "One event has an unknown type.",
        Rewrite(change.before("finish-step", Event({"type": "surprise"}))),
    ),
    ("cut-mid-event", "The body ends in the middle of an event.", Rewrite(change.cut_inside("finish-step"))),
    ("cut-clean", "The body ends after finish-step, between two events.", Rewrite(change.up_to("finish"))),
    (
        "stream-reset",
        "The connection breaks in the middle of the turn.",
        Rewrite(change.broken_before("finish-step")),
    ),
    (
        "stall-at-start",
        "The response head comes but no event, and the connection stays open.",
        Rewrite(change.stalled_before("start")),
    ),
    (
        "stall-in-turn",
        "The stream stops in the middle of the turn, and the connection stays open.",
        Rewrite(change.stalled_before("finish-step")),
    ),
    (
        "stall-before-done",
        "The stream stops before [DONE], and the connection stays open.",
        Rewrite(change.stalled_before("[DONE]")),
    ),
    (
        "first-event-late",
        "The first event comes after 8 seconds.",
        Rewrite(change.before("start", Pause(8.0))),
    ),
    (
        "gap-too-long",
        "The stream pauses for 20 seconds in the middle of the turn.",
        Rewrite(change.before("finish-step", Pause(20.0))),
    ),
    (
        "buffered",
        "A proxy holds the stream for 4 seconds, then sends it all at once.",
        Rewrite(change.held_back(4.0)),
    ),
)


def _stream_fault(entry: tuple[str, str, Effect], scope: Scope, outcome: Outcome) -> Fault:
    name, sentence, effect = entry
    return fault(name, sentence, scope, effect, outcome)


def _limited_faults() -> tuple[Fault, ...]:
    """Return some of the faults again, each limited to one alias, to one revision, or to the time after the flip."""
    by_name = {entry[0]: entry for entry in _EFFECTS}
    places = (
        ("by-id-alone", "Only at /api/chats/{id}/stream:", ONE_ALIAS, SMOKE_FAILS),
        ("on-stable", "Only on the stable revision:", ON_STABLE, SMOKE_FAILS),
        ("on-canary", "Only on the canary revision:", ON_CANARY, DRILL_FAILS),
        ("after-flip", "Only after the flip:", AFTER_FLIP, POST_FAILS),
    )
    names = ("stream-500", "done-dropped", "finish-doubled", "service-error", "stream-reset", "protocol-v10")
    faults = []
    for suffix, where, scope, outcome in places:
        for name in names:
            _, sentence, effect = by_name[name]
            one = _stream_fault((f"{name}-{suffix}", f"{where} {sentence}", effect), scope, outcome)
            # A train that only verifies starts with flipped routes, so its first smoke step already fails.
            faults.append(attrs.evolve(one, verify_only=SMOKE_FAILS) if scope is AFTER_FLIP else one)
    return tuple(faults)


def _cuts_responses_at(kind: ChangeKind) -> Callable[[Layout], Layout]:
    """Return the layout's change. A turn takes about three seconds, so that a stream can be in flight when the change comes."""
    return lambda layout: attrs.evolve(layout, cuts_responses_at=frozenset({kind}), chunk_seconds=0.2)


_TOKEN_REFUSED = frozenset({"stream-401", "stream-403", "stream-403-page", "thread-of-others"})

UNAVAILABLE = Refuse(problem(503, "unavailable", "Try again later."))
_SMOKES = 3
"""The number of the first stream of a revision behind the smoke."""
_WEIGHED = tuple(
    attrs.evolve(fault(name, sentence, scope, effect, outcome), weighed=True)
    for name, sentence, scope, effect, outcome in (
        (
            "canary-fails-often",
            "The canary answers one stream in five with 503.",
            attrs.evolve(ON_CANARY, part=0.2),
            UNAVAILABLE,
            DRILL_FAILS,
        ),
        (
            "stable-fails-often",
            "After the smoke, stable answers every other stream with 503.",
            attrs.evolve(ON_STABLE, part=0.5, first=_SMOKES),
            UNAVAILABLE,
            BASELINE_UNHEALTHY,
        ),
        (
            "canary-slower",
            "The first event of the canary takes a second longer.",
            ON_CANARY,
            Rewrite(change.before("start", Pause(1.0))),
            DRILL_FAILS,
        ),
    )
)

STREAM_FAULTS = (
    *(
        _stream_fault(entry, EVERYWHERE, SMOKE_HAS_NO_EVIDENCE if entry[0] in _TOKEN_REFUSED else SMOKE_FAILS)
        for entry in _EFFECTS
    ),
    *_limited_faults(),
    *_WEIGHED,
    Fault(
        name="streams-cut-at-shift",
        sentence="Whenever the traffic changes, the front door breaks the connection of every stream that it is sending.",
        arrange=_cuts_responses_at(ChangeKind.TRAFFIC),
        outcome=PASSED,
        with_sentinels=DRILL_FAILS,
    ),
    Fault(
        name="streams-cut-at-flip",
        sentence="Whenever an override changes, the front door breaks the connection of every stream that it is sending.",
        arrange=_cuts_responses_at(ChangeKind.ROUTES),
        outcome=PASSED,
        with_sentinels=FLIP_FAILS,
    ),
)

_VARIANTS: tuple[tuple[str, str, change.Change], ...] = (
    ("one-body", "Each turn comes as one body with a content-length.", change.one_body()),
    ("crlf", "The lines of the stream end in CRLF.", change.written(line_end="\r\n")),
    ("cr", "The lines of the stream end in CR.", change.written(line_end="\r")),
    (
        "spaced-json",
        "The JSON of the events has spaces after colons and commas.",
        change.written(spaced=True),
    ),
    ("shuffled-keys", "The JSON keys of the events are in a different order.", change.written(shuffled=True)),
    ("kept-alive", "A keep-alive comment comes before each event.", change.commented(1.0)),
    (
        "header-spelling",
        "The content type has a different spelling with the same meaning.",
        change.header("content-type", 'Text/Event-Stream;Charset="UTF-8"'),
    ),
    (
        "slow",
        "The first event takes 3 seconds, each later event 2 seconds.",
        change.in_turn(change.paced(2.0), change.before("start", Pause(1.0))),
    ),
    ("byte-by-byte", "The body comes in pieces of one byte.", change.in_chunks(1)),
    ("odd-chunks", "The body comes in pieces of 37 bytes.", change.in_chunks(37)),
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
    attrs.evolve(
        fault(
            "streams-fail-seldom",
            "One stream in two hundred fails with 503, whichever revision answers.",
            attrs.evolve(EVERYWHERE, part=0.005),
            UNAVAILABLE,
            PASSED,
        ),
        weighed=True,
    ),
    attrs.evolve(
        fault(
            "canary-faster",
            "The first event of stable takes two seconds longer than that of the canary.",
            ON_STABLE,
            Rewrite(change.before("start", Pause(2.0))),
            PASSED,
        ),
        weighed=True,
    ),
    *(fault(name, sentence, EVERYWHERE, Rewrite(effect), PASSED) for name, sentence, effect in _VARIANTS),
    Fault(
        name="preview",
        sentence="Each turn is the short preview of this lane, without text.",
        arrange=lambda layout: attrs.evolve(layout, preview=True),
        outcome=PASSED,
    ),
)
