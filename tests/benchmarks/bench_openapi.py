"""Measure the check of events by an OpenAPI document, beside httpx-sse's decoders. Run it by hand; it is no test.

    python tests/benchmarks/bench_openapi.py [--events N] [--rounds N]

The document has twelve kinds of event. The peer parses with httpx-sse's decoders and calls `json.loads` on the data of each
event; it checks nothing. Ours parses with `EventStreamParser` and holds each event to its schema. A figure is CPU time in
nanoseconds per event, the median of interleaved rounds. The figure with an x is the peer's time divided by ours.
"""

import argparse
import codecs
import itertools
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from cutover.protocols.openapi import EventValidator, describe_stream
from cutover.sse.events import MessageEvent
from cutover.sse.parser import EventStreamParser

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


WORKLOADS: dict[str, tuple[dict[str, Any], Callable[[int], bytes]]] = {
    "twelve kinds by the event's name": (BY_NAME, by_name),
    "twelve kinds by a field of data": (BY_FIELD, by_field),
}


def peer(chunks: list[bytes]) -> None:
    decode = codecs.getincrementaldecoder("utf-8")("replace").decode
    lines, decoder = SSELineDecoder(), SSEDecoder()
    for chunk in chunks:
        for line in lines.decode(decode(chunk)):
            event = decoder.decode(line)
            if event is not None:
                json.loads(event.data)


def parsed(chunks: list[bytes]) -> list[MessageEvent]:
    parser = EventStreamParser()
    return [
        event for chunk in chunks for event in parser.receive_data(chunk) if isinstance(event, MessageEvent)
    ]


def checked(events: list[MessageEvent], validator: EventValidator) -> None:
    check = validator.check
    for event in events:
        if check(event.event, event.data):
            sys.exit(f"the benchmark's own event is not good: {event}")


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--events", type=int, default=100_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    print("| workload | httpx-sse and json.loads | our parser | our check | parser and check |")
    print("|---|---|---|---|---|")
    for name, (schema, make) in WORKLOADS.items():
        body = make(chosen.events)
        chunks = [body[at : at + CHUNK] for at in range(0, len(body), CHUNK)]
        validator = EventValidator(describe_stream(document({"itemSchema": schema}), "/x", "get"))
        times: list[list[float]] = [[], [], []]
        for _ in range(chosen.rounds):
            marks = [time.process_time_ns()]
            peer(chunks)
            marks.append(time.process_time_ns())
            events = parsed(chunks)
            marks.append(time.process_time_ns())
            checked(events, validator)
            marks.append(time.process_time_ns())
            for taken, (before, after) in zip(times, itertools.pairwise(marks), strict=True):
                taken.append((after - before) / chosen.events)
        theirs, parse, check = (statistics.median(taken) for taken in times)
        print(
            f"| {name} | {theirs:.0f} ns | {parse:.0f} ns | {check:.0f} ns "
            f"| {parse + check:.0f} ns, {theirs / (parse + check):.1f}x |"
        )


if __name__ == "__main__":
    main()
