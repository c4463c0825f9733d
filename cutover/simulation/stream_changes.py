"""What can be done to a turn on its way: each one a function from a reply to another; what is no event stream stays as it is."""

from collections.abc import Callable, Iterable, Mapping

import attrs

from cutover.simulation.exchange import Event, Halt, Pause, Piece, Reply
from cutover.simulation.streams import DONE, event_bytes, event_type

Change = Callable[[Reply], Reply]


def _body(change: Callable[[tuple[Piece, ...]], Iterable[Piece]]) -> Change:
    """A change of an event stream's body alone."""

    def changed(reply: Reply) -> Reply:
        if not any(isinstance(piece, Event) for piece in reply.body):
            return reply
        return attrs.evolve(reply, body=tuple(change(reply.body)))

    return changed


def header(name: str, value: str | None) -> Change:
    """Another value of one header of an event stream, or none."""

    def changed(reply: Reply) -> Reply:
        streams = any(isinstance(piece, Event) for piece in reply.body)
        return reply.with_header(name, value) if streams else reply

    return changed


def in_turn(*changes: Change) -> Change:
    """Several changes, one after the other."""

    def changed(reply: Reply) -> Reply:
        for change in changes:
            reply = change(reply)
        return reply

    return changed


def dropped(kind: str) -> Change:
    """Without the events of one type."""
    return _body(lambda body: (piece for piece in body if event_type(piece) != kind))


def doubled(kind: str) -> Change:
    """With each event of one type sent twice."""
    return _body(
        lambda body: (copy for piece in body for copy in [piece] * (1 + (event_type(piece) == kind)))
    )


def backwards() -> Change:
    """The events in reverse order, the terminator still last."""
    return _body(lambda body: (*(piece for piece in reversed(body) if piece != DONE), DONE))


def swapped(one: str, other: str) -> Change:
    """Two types of events in each other's place."""

    def swap(body: tuple[Piece, ...]) -> Iterable[Piece]:
        first = {event_type(piece): piece for piece in body}
        places = {one: first.get(other), other: first.get(one)}
        return (places.get(event_type(piece) or "") or piece for piece in body)

    return _body(swap)


def before(kind: str, *pieces: Piece) -> Change:
    """With something put before the first event of one type."""

    def put(body: tuple[Piece, ...]) -> Iterable[Piece]:
        at = next((index for index, piece in enumerate(body) if event_type(piece) == kind), len(body))
        return (*body[:at], *pieces, *body[at:])

    return _body(put)


def after_all(*pieces: Piece) -> Change:
    """With something put after the end."""
    return _body(lambda body: (*body, *pieces))


def up_to(kind: str, *pieces: Piece) -> Change:
    """Only what comes before the first event of one type, then something else instead of the rest."""

    def cut(body: tuple[Piece, ...]) -> Iterable[Piece]:
        at = next((index for index, piece in enumerate(body) if event_type(piece) == kind), len(body))
        return (*body[:at], *pieces)

    return _body(cut)


def cut_inside(kind: str) -> Change:
    """Cut in the middle of the first event of one type, with a clean end of the body."""

    def cut(body: tuple[Piece, ...]) -> Iterable[Piece]:
        for piece in body:
            if isinstance(piece, Event) and event_type(piece) == kind:
                whole = event_bytes(piece)
                yield whole[: len(whole) // 2]
                return
            yield piece

    return _body(cut)


def field(kind: str, name: str, value: object) -> Change:
    """Another value of one field in the events of one type."""

    def changed(piece: Piece) -> Piece:
        if isinstance(piece, Event) and isinstance(piece.data, Mapping) and event_type(piece) == kind:
            return Event({**piece.data, name: value})
        return piece

    return _body(lambda body: map(changed, body))


def service_error(code: str, *, retryable: bool) -> Change:
    """The turn ends in an error that the service reports, in the lane's well-formed way."""
    error = {"code": code, "message": "The turn failed.", "retryable": retryable, "type": "error"}
    return up_to("finish-step", Event(error), Event({"status": "error", "type": "finish"}), DONE)


def held_back(seconds: float) -> Change:
    """Held back by a proxy, and sent all at once when it is complete."""

    def changed(reply: Reply) -> Reply:
        whole = b"".join(event_bytes(piece) for piece in reply.body if isinstance(piece, Event))
        return attrs.evolve(reply, body=(whole,), held=seconds) if whole else reply

    return changed


def one_body() -> Change:
    """Sent as one body with a content-length."""
    return lambda reply: attrs.evolve(reply, streamed=False)


def paced(seconds: float) -> Change:
    """With a pause before each event."""
    return _body(lambda body: (part for piece in body for part in (Pause(seconds), piece)))


def commented(seconds: float) -> Change:
    """With a pause and a keep-alive comment before each event."""
    return _body(
        lambda body: (part for piece in body for part in (Pause(seconds), b": keep-alive\n\n", piece))
    )


def written(*, line_end: str = "\n", spaced: bool = False, shuffled: bool = False) -> Change:
    """The same events in other bytes that mean the same."""

    def write(piece: Piece) -> Piece:
        if isinstance(piece, Event):
            return event_bytes(piece, line_end=line_end, spaced=spaced, shuffled=shuffled)
        return piece

    return _body(lambda body: map(write, body))


def in_chunks(size: int) -> Change:
    """The same bytes in chunks of another size, whatever they cut."""

    def split(body: tuple[Piece, ...]) -> Iterable[Piece]:
        whole = b"".join(event_bytes(piece) for piece in body if isinstance(piece, Event))
        return (whole[at : at + size] for at in range(0, len(whole), size))

    return _body(split)


def broken_before(kind: str) -> Change:
    """The connection breaks before the first event of one type."""
    return up_to(kind, Halt.RESET)


def stalled_before(kind: str) -> Change:
    """Nothing more comes from the first event of one type on."""
    return up_to(kind, Halt.STALL)
