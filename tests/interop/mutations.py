"""Streams with small changes, like those from faults in servers and networks. The same seed gives the same streams."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1.5,
    "",
    "t1",
    "stop",
    "unknown",
    "data-x",
    [],
    ["t1"],
    {},
    {"a": {"b": 1}},
)
"""Values that a field may get."""
CHARACTERS = b'\r\n:{}[],"\\ dat0\x00\x1f\xc3\xff\xef\xbb\xbf'
"""Bytes that may replace a byte."""

_Events = list[bytes]


def _event(chance: random.Random, events: _Events) -> int:
    return chance.randrange(len(events))


def _drop(chance: random.Random, events: _Events) -> None:
    del events[_event(chance, events)]


def _repeat(chance: random.Random, events: _Events) -> None:
    events.insert(_event(chance, events), events[_event(chance, events)])


def _swap(chance: random.Random, events: _Events) -> None:
    one, other = _event(chance, events), _event(chance, events)
    events[one], events[other] = events[other], events[one]


def _cut(chance: random.Random, events: _Events) -> None:
    at = _event(chance, events)
    events[at:] = [events[at][: chance.randrange(len(events[at]) + 1)]]


def _byte(chance: random.Random, events: _Events) -> None:
    at = _event(chance, events)
    changed = bytearray(events[at])
    if changed:
        changed[chance.randrange(len(changed))] = chance.choice(CHARACTERS)
    events[at] = bytes(changed)


def _field(chance: random.Random, events: _Events) -> None:
    """Set, remove or rename one field of one event whose data is a JSON object."""
    at = _event(chance, events)
    try:
        chunk = json.loads(events[at].removeprefix(b"data:"))
    except (ValueError, RecursionError):
        return
    if not isinstance(chunk, dict) or not chunk:
        return
    name = chance.choice(list(chunk))
    value = chunk[name]
    if chance.random() < 0.5:
        chunk[name] = chance.choice(VALUES)
    else:
        del chunk[name]
        if chance.random() < 0.5:
            chunk[chance.choice((name.title(), "id", "dynamic", "preliminary", "providerMetadata"))] = value
    events[at] = b"data: " + json.dumps(chunk).encode()


_CHANGES: Sequence[Callable[[random.Random, _Events], None]] = (
    _drop,
    _repeat,
    _swap,
    _cut,
    _byte,
    _field,
    _field,
)


def mutations(bodies: Sequence[bytes], *, seed: int, count: int) -> Iterator[bytes]:
    """Yield ``count`` bodies with one to three changes. Each is one of ``bodies``, or the start of one and the end of another."""
    chance = random.Random(seed)  # noqa: S311  a seed gives the same streams
    for _ in range(count):
        events = chance.choice(bodies).split(b"\n\n")
        if chance.random() < 0.2:
            others = chance.choice(bodies).split(b"\n\n")
            events = events[: _event(chance, events)] + others[_event(chance, others) :]
        for _ in range(chance.randint(1, 3)):
            if events:
                chance.choice(_CHANGES)(chance, events)
        yield b"\n\n".join(events)
