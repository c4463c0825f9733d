"""Changes that a fault makes to the event stream of a reply.

Each function here returns a `Change`: a function that takes a reply and returns a changed one. A reply whose body
holds no `Event` passes unchanged. So does a stream after a change that turns its events into bytes, such as `written`.
"""

from collections.abc import Callable, Iterable, Mapping

import attrs

from cutover.simulation.exchange import Event, Halt, Pause, Piece, Reply
from cutover.simulation.streams import DONE, event_bytes, event_type

Change = Callable[[Reply], Reply]


_LONG = 30
"""Times that each word of a held-back answer comes: more than a model sends at once."""


def _body(change: Callable[[tuple[Piece, ...]], Iterable[Piece]]) -> Change:
    """Return a change of only the body of an event stream."""

    def changed(reply: Reply) -> Reply:
        if not any(isinstance(piece, Event) for piece in reply.body):
            return reply
        return attrs.evolve(reply, body=tuple(change(reply.body)))

    return changed


def header(name: str, value: str | None) -> Change:
    """Return a change that sets one header of an event stream, or removes it if ``value`` is None."""

    def changed(reply: Reply) -> Reply:
        streams = any(isinstance(piece, Event) for piece in reply.body)
        return reply.with_header(name, value) if streams else reply

    return changed


def in_turn(*changes: Change) -> Change:
    """Return a change that makes several changes, one after the other."""

    def changed(reply: Reply) -> Reply:
        for change in changes:
            reply = change(reply)
        return reply

    return changed


def dropped(kind: str) -> Change:
    """Return a change that leaves out the events of one kind."""
    return _body(lambda body: (piece for piece in body if event_type(piece) != kind))


def doubled(kind: str) -> Change:
    """Return a change that sends each event of one kind twice."""
    return _body(
        lambda body: (copy for piece in body for copy in [piece] * (1 + (event_type(piece) == kind)))
    )


def backwards() -> Change:
    """Return a change that sends the events in reverse order, and then one ``[DONE]`` in every case."""
    return _body(lambda body: (*(piece for piece in reversed(body) if piece != DONE), DONE))


def swapped(one: str, other: str) -> Change:
    """Return a change that exchanges the events of two kinds. A stream must have exactly one event of each."""

    def swap(body: tuple[Piece, ...]) -> Iterable[Piece]:
        first = {event_type(piece): piece for piece in body}
        places = {one: first.get(other), other: first.get(one)}
        return (places.get(event_type(piece) or "") or piece for piece in body)

    return _body(swap)


def before(kind: str, *pieces: Piece) -> Change:
    """Return a change that sends more pieces before the first event of one kind, or at the end if there is none."""

    def insert(body: tuple[Piece, ...]) -> Iterable[Piece]:
        at = next((index for index, piece in enumerate(body) if event_type(piece) == kind), len(body))
        return (*body[:at], *pieces, *body[at:])

    return _body(insert)


def after_all(*pieces: Piece) -> Change:
    """Return a change that sends more pieces after the last one."""
    return _body(lambda body: (*body, *pieces))


def up_to(kind: str, *pieces: Piece) -> Change:
    """Return a change that ends the body before the first event of one kind, or at its end, and then sends other pieces."""

    def cut(body: tuple[Piece, ...]) -> Iterable[Piece]:
        at = next((index for index, piece in enumerate(body) if event_type(piece) == kind), len(body))
        return (*body[:at], *pieces)

    return _body(cut)


def cut_inside(kind: str) -> Change:
    """Return a change that ends the body in the middle of the first event of one kind. The HTTP message is complete."""

    def cut(body: tuple[Piece, ...]) -> Iterable[Piece]:
        for piece in body:
            if isinstance(piece, Event) and event_type(piece) == kind:
                whole = event_bytes(piece)
                yield whole[: len(whole) // 2]
                return
            yield piece

    return _body(cut)


def field(kind: str, name: str, value: object) -> Change:
    """Return a change that sets one field in the events of one kind."""

    def changed(piece: Piece) -> Piece:
        if isinstance(piece, Event) and isinstance(piece.data, Mapping) and event_type(piece) == kind:
            return Event({**piece.data, name: value})
        return piece

    return _body(lambda body: map(changed, body))


def service_error(code: str, *, retryable: bool) -> Change:
    """Return a change that ends the turn with an error event of the service, then ``finish`` and ``[DONE]``."""
    error = {"code": code, "message": "The turn failed.", "retryable": retryable, "type": "error"}
    return up_to("finish-step", Event(error), Event({"status": "error", "type": "finish"}), DONE)


def held_back(seconds: float) -> Change:
    """Return a change that sends all events at once after a delay, as a buffering proxy does, and drops all other pieces.

    The answer is a long one: each of its words comes many times. A short answer at once after a delay may be an honest one.
    """

    def changed(reply: Reply) -> Reply:
        whole = b"".join(
            event_bytes(piece) * (_LONG if event_type(piece) == "text-delta" else 1)
            for piece in reply.body
            if isinstance(piece, Event)
        )
        return attrs.evolve(reply, body=(whole,), held=seconds) if whole else reply

    return changed


def one_body() -> Change:
    """Return a change that sends the reply as one body with a content-length."""
    return lambda reply: attrs.evolve(reply, streamed=False)


def paced(seconds: float) -> Change:
    """Return a change that pauses before each piece of the body."""
    return _body(lambda body: (part for piece in body for part in (Pause(seconds), piece)))


def commented(seconds: float) -> Change:
    """Return a change that pauses and sends a keep-alive comment before each piece of the body."""
    return _body(
        lambda body: (part for piece in body for part in (Pause(seconds), b": keep-alive\n\n", piece))
    )


def written(*, line_end: str = "\n", spaced: bool = False, shuffled: bool = False) -> Change:
    """Return a change that writes the same events in different bytes; see ``event_bytes`` for the arguments."""

    def write(piece: Piece) -> Piece:
        if isinstance(piece, Event):
            return event_bytes(piece, line_end=line_end, spaced=spaced, shuffled=shuffled)
        return piece

    return _body(lambda body: map(write, body))


def in_chunks(size: int) -> Change:
    """Return a change that sends the events in pieces of ``size`` bytes, which may cut characters, and drops other pieces."""

    def split(body: tuple[Piece, ...]) -> Iterable[Piece]:
        whole = b"".join(event_bytes(piece) for piece in body if isinstance(piece, Event))
        return (whole[at : at + size] for at in range(0, len(whole), size))

    return _body(split)


def broken_before(kind: str) -> Change:
    """Return a change that breaks the connection before the first event of one kind, or at the end."""
    return up_to(kind, Halt.RESET)


def stalled_before(kind: str) -> Change:
    """Return a change that stops sending at the first event of one kind, or at the end, and leaves the connection open."""
    return up_to(kind, Halt.STALL)
