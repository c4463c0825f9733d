"""Answers as a service with a model behind it gives them: generated text, new ids and times in each answer, and a jittered latency."""

import json
import math
import random
import uuid

import attrs

from cutover.simulation.exchange import STREAMS, Event, Operation, Piece, Reply
from cutover.simulation.streams import event_type

_WORDS = [
    "the",
    "model",
    "writes",
    "another",
    "short",
    "answer",
    "each",
    "time",
    "with",
    "words",
    "in",
    "any",
    "order",
    "and",
    "number",
]
_STREAM_SECONDS, _DOCUMENT_SECONDS = 0.3, 0.05
"""Medians of the latencies."""
_JITTER = 0.1
"""Standard deviation of the logarithm of a latency: one answer in twenty takes 18 % longer than the median."""
_REGIONS = ("north", "south", "west")


@attrs.define(eq=False)
class Generator:
    """The source of everything that is new in each answer of one service. The same seed gives the same answers."""

    chance: random.Random

    def vary(self, reply: Reply, operation: Operation) -> Reply:
        """Return an answer of the chat service with its own text, ids, times and latency; a refusal keeps its body."""
        if operation not in STREAMS | {Operation.PAGE, Operation.ACCOUNT}:
            return reply
        seconds = _STREAM_SECONDS if operation in STREAMS else _DOCUMENT_SECONDS
        reply = attrs.evolve(reply, held=seconds * math.exp(self.chance.gauss(0.0, _JITTER)))
        reply = reply.with_header("x-answer-id", self._id())
        if any(isinstance(piece, Event) for piece in reply.body):
            return attrs.evolve(reply, body=self._turn(reply.body))
        if reply.status != 200:  # noqa: PLR2004  the only success of these paths
            return reply
        (body,) = reply.body
        assert isinstance(body, bytes)  # noqa: S101  documents and pages are written as bytes
        written = self._document(body) if body.startswith(b"{") else self._page(body)
        return attrs.evolve(reply, body=(written,))

    def _id(self) -> str:
        return str(uuid.UUID(int=self.chance.getrandbits(128), version=4))

    def _text(self, least: int = 1) -> str:
        return " ".join(self.chance.choices(_WORDS, k=self.chance.randint(least, 12)))

    def _turn(self, body: tuple[Piece, ...]) -> tuple[Piece, ...]:
        """Return the events of a turn with other text, in any number of deltas; the ids of one turn change together."""
        texts = [piece for piece in body if event_type(piece) == "text-delta"]
        written: list[Piece] = []
        for piece in body:
            if piece not in texts:
                written.append(piece)
            elif piece is texts[0] and isinstance(piece, Event) and isinstance(piece.data, dict):
                words = self._text().split()
                written += [Event({**piece.data, "delta": f"{word} "}) for word in words]
        ids: dict[str, str] = {}

        def renamed(value: object) -> object:
            return ids.setdefault(str(value), self._id())

        return tuple(
            Event(
                {
                    key: renamed(item) if key in {"id", "turnId", "toolCallId"} else item
                    for key, item in piece.data.items()
                }
            )
            if isinstance(piece, Event) and not isinstance(piece.data, str)
            else piece
            for piece in written
        )

    def _document(self, body: bytes) -> bytes:
        """Return a JSON document with more members: noise in values, in the length of a list, and in the names of keys."""
        more = {
            "trace": {"id": self._id(), "took": round(self.chance.uniform(1, 90), 3)},
            "region": self.chance.choice(_REGIONS),
            "suggestions": [
                {"id": self._id(), "text": self._text()} for _ in range(self.chance.randint(1, 6))
            ],
            "usage": {self._id(): self.chance.randint(1, 1000) for _ in range(3)},
        }
        return json.dumps({**json.loads(body), **more}).encode()

    def _page(self, body: bytes) -> bytes:
        """Return an HTML page with a nonce and generated lines."""
        items = "".join(f"<li>{self._text()}</li>" for _ in range(self.chance.randint(1, 6)))
        page = body.decode().replace("<head>", f'<head><meta name="nonce" content="{self._id()}">')
        return page.replace("</main>", f"<ul>{items}</ul></main>").encode()


def generator(seed: int | None, user: str) -> Generator | None:
    """Return the generator of one service; None without a seed."""
    if seed is None:
        return None
    # The two services must not give the same answers.
    return Generator(random.Random(f"{seed} {user}"))  # noqa: S311  a test needs the same answers in each run
