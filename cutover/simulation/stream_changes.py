"""The changes of a turn on its way: each is a function from a reply to another. A reply that is no event stream stays as it is."""

from collections.abc import Callable, Iterable, Mapping

import attrs

from cutover.simulation.exchange import Event, Halt, Pause, Piece, Reply
from cutover.simulation.streams import DONE, event_bytes, event_type

Change = Callable[[Reply], Reply]


def _body(change: Callable[[tuple[Piece, ...]], Iterable[Piece]]) -> Change:
    """Return a change of the body of an event stream alone."""

    def changed(reply: Reply) -> Reply:
        if not any(isinstance(piece, Event) for piece in reply.body):
            return reply
        return attrs.evolve(reply, body=tuple(change(reply.body)))

    return changed


def header(name: str, value: str | None) -> Change:
    """Return a change that sets one header of an event stream, or removes it."""

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
    """Return a change that removes the events of one kind."""
    return _body(lambda body: (piece for piece in body if event_type(piece) != kind))


def doubled(kind: str) -> Change:
    """Return a change that sends each event of one kind twice."""
    return _body(
        lambda body: (copy for piece in body for copy in [piece] * (1 + (event_type(piece) == kind)))
    )


def backwards() -> Change:
    """Return a change that reverses the events; the terminator stays last."""
    return _body(lambda body: (*(piece for piece in reversed(body) if piece != DONE), DONE))


def swapped(one: str, other: str) -> Change:
    """Return a change that swaps two kinds of events."""

    def swap(body: tuple[Piece, ...]) -> Iterable[Piece]:
        first = {event_type(piece): piece for piece in body}
        places = {one: first.get(other), other: first.get(one)}
        return (places.get(event_type(piece) or "") or piece for piece in body)

    return _body(swap)


def before(kind: str, *pieces: Piece) -> Change:
    """Return a change that inserts something before the first event of one kind."""

    def put(body: tuple[Piece, ...]) -> Iterable[Piece]:
        at = next((index for index, piece in enumerate(body) if event_type(piece) == kind), len(body))
        return (*body[:at], *pieces, *body[at:])

    return _body(put)


def after_all(*pieces: Piece) -> Change:
    """Return a change that appends something after the end."""
    return _body(lambda body: (*body, *pieces))


def up_to(kind: str, *pieces: Piece) -> Change:
    """Return a change that replaces the rest of a turn, from the first event of one kind on."""

    def cut(body: tuple[Piece, ...]) -> Iterable[Piece]:
        at = next((index for index, piece in enumerate(body) if event_type(piece) == kind), len(body))
        return (*body[:at], *pieces)

    return _body(cut)


def cut_inside(kind: str) -> Change:
    """Return a change that cuts the body in the middle of the first event of one kind and ends it cleanly."""

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
    """Return a change that ends the turn with a well-formed error of the lane."""
    error = {"code": code, "message": "The turn failed.", "retryable": retryable, "type": "error"}
    return up_to("finish-step", Event(error), Event({"status": "error", "type": "finish"}), DONE)


def held_back(seconds: float) -> Change:
    """Return a change that holds the stream back and sends it at once when it is complete, like a buffering proxy."""

    def changed(reply: Reply) -> Reply:
        whole = b"".join(event_bytes(piece) for piece in reply.body if isinstance(piece, Event))
        return attrs.evolve(reply, body=(whole,), held=seconds) if whole else reply

    return changed


def one_body() -> Change:
    """Return a change that sends the stream as one body with a content-length."""
    return lambda reply: attrs.evolve(reply, streamed=False)


def paced(seconds: float) -> Change:
    """Return a change that pauses before each event."""
    return _body(lambda body: (part for piece in body for part in (Pause(seconds), piece)))


def commented(seconds: float) -> Change:
    """Return a change that sends a pause and a keep-alive comment before each event."""
    return _body(
        lambda body: (part for piece in body for part in (Pause(seconds), b": keep-alive\n\n", piece))
    )


def written(*, line_end: str = "\n", spaced: bool = False, shuffled: bool = False) -> Change:
    """Return a change that encodes the events in other bytes with the same meaning."""

    def write(piece: Piece) -> Piece:
        if isinstance(piece, Event):
            return event_bytes(piece, line_end=line_end, spaced=spaced, shuffled=shuffled)
        return piece

    return _body(lambda body: map(write, body))


def in_chunks(size: int) -> Change:
    """Return a change that sends the same bytes in pieces of another size."""

    def split(body: tuple[Piece, ...]) -> Iterable[Piece]:
        whole = b"".join(event_bytes(piece) for piece in body if isinstance(piece, Event))
        return (whole[at : at + size] for at in range(0, len(whole), size))

    return _body(split)


def broken_before(kind: str) -> Change:
    """Return a change that breaks the connection before the first event of one kind."""
    return up_to(kind, Halt.RESET)


def stalled_before(kind: str) -> Change:
    """Return a change that stalls the stream from the first event of one kind on."""
    return up_to(kind, Halt.STALL)
