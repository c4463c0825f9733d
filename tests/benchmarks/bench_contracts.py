"""Measure the check of contracts of one's own, beside httpx-sse's decoders. Run it by hand; it is no test.

    python tests/benchmarks/bench_contracts.py [--events N] [--rounds N]

Each contract has twelve kinds of event. The peer parses with httpx-sse's decoders and calls `json.loads` on the data of each
event; it checks nothing. A figure is CPU time in nanoseconds per event, the median of interleaved rounds. The figure with an x
is the peer's time divided by ours.
"""

import argparse
import codecs
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec
from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from cutover.contract import ContractChecker, StreamContract

CHUNK = 64 * 1024
KINDS = [f"kind-{number}" for number in range(12)]


def payload(**more: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["delta", "seq", *more],
        "properties": {"delta": {"type": "string"}, "seq": {"type": "integer", "minimum": 0}, **more},
    }


def document(media: dict[str, Any]) -> dict[str, Any]:
    return {
        "openapi": "3.2.0",
        "paths": {"/x": {"get": {"responses": {"200": {"content": {"text/event-stream": media}}}}}},
    }


def as_json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"contentMediaType": "application/json", "contentSchema": schema}


BY_NAME = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
    "oneOf": [{"properties": {"event": {"const": kind}, "data": as_json(payload())}} for kind in KINDS],
}
BY_FIELD = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {
            "type": "string",
            **as_json({"oneOf": [payload(type={"const": kind}) for kind in KINDS]}),
        }
    },
}


def by_name(count: int) -> bytes:
    return b"".join(
        b'event: %s\ndata: {"delta":"Hello wo","seq":%d}\n\n' % (KINDS[n % 12].encode(), n)
        for n in range(count)
    )


def by_field(count: int) -> bytes:
    return b"".join(
        b'data: {"type":"%s","delta":"Hello wo","seq":%d}\n\n' % (KINDS[n % 12].encode(), n)
        for n in range(count)
    )


class Delta(msgspec.Struct):
    delta: str
    seq: int


def described(schema: dict[str, Any]) -> StreamContract:
    return StreamContract.from_openapi(document({"itemSchema": schema}), "/x")


WORKLOADS: dict[str, tuple[StreamContract, Callable[[int], bytes]]] = {
    "OpenAPI, by the event's name": (described(BY_NAME), by_name),
    "OpenAPI, by a field of the data": (described(BY_FIELD), by_field),
    "types, by the event's name": (
        StreamContract(name="named", kind="/event", chunks=dict.fromkeys(KINDS, Delta)),
        by_name,
    ),
    "types, by a field of the data": (
        StreamContract(name="tagged", chunks=dict.fromkeys(KINDS, Delta)),
        by_field,
    ),
}


def peer(chunks: list[bytes]) -> None:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    lines, decoder = SSELineDecoder(), SSEDecoder()
    for chunk in chunks:
        for line in lines.decode(decode(chunk)):
            event = decoder.decode(line)
            if event is not None:
                json.loads(event.data)


def ours(chunks: list[bytes], contract: StreamContract) -> None:
    checker = ContractChecker(contract)
    for chunk in chunks:
        checker.receive_data(chunk, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    if not checker.report().ok:
        sys.exit(f"the benchmark's own stream is not good: {checker.report().findings[:3]}")


def measure(chunks: list[bytes], contract: StreamContract, *, events: int, rounds: int) -> str:
    """Return our time, and how many times longer the peer takes."""
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        marks = [time.process_time_ns()]
        peer(chunks)
        marks.append(time.process_time_ns())
        ours(chunks, contract)
        marks.append(time.process_time_ns())
        for taken, at in zip(times, (0, 1), strict=True):
            taken.append((marks[at + 1] - marks[at]) / events)
    theirs, own = (statistics.median(taken) for taken in times)
    return f"{own:.0f} ns, {theirs / own:.1f}x"


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--events", type=int, default=50_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print("| twelve kinds | 64 KiB chunks | one event a chunk |")
    print("|---|---|---|")
    for name, (contract, make) in WORKLOADS.items():
        body = make(chosen.events)
        large = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
        small = [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]
        figures = [
            measure(chunks, contract, events=chosen.events, rounds=chosen.rounds) for chunks in (large, small)
        ]
        print(f"| {name} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
