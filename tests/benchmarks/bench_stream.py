"""Parser and contract check, side by side with httpx-sse's decoders: run it by hand, it is no test.

    python tests/benchmarks/bench_stream.py [--events N] [--rounds N] [--memory MIB] [WORKLOAD...]

The peer parses with httpx-sse's decoders and, for the check, calls `json.loads` on each event's data, which checks nothing.
Times are CPU time, medians of interleaved rounds, in nanoseconds an event; `--memory` checks a long stream and says what it took.
"""

import argparse
import codecs
import json
import statistics
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence

from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from cutover.contract import AI_SDK_7, ContractChecker
from cutover.sse import EventStreamParser

CHUNK = 64 * 1024
OPENING = b'data: {"type":"start"}\n\ndata: {"type":"start-step"}\n\ndata: {"type":"text-start","id":"1"}\n\n'
CLOSING = b'data: {"type":"text-end","id":"1"}\n\ndata: {"type":"finish-step"}\n\ndata: {"type":"finish"}\n\ndata: [DONE]\n\n'
DELTA = b'data: {"type":"text-delta","id":"1","delta":"Hello wo"}\n\n'
LONG = b'data: {"type":"text-delta","id":"1","delta":"' + b"x" * 16384 + b'"}\n\n'
TOOL = (
    b'data: {"type":"tool-input-start","toolCallId":"c%d","toolName":"weather"}\n\n'
    b'data: {"type":"tool-input-delta","toolCallId":"c%d","inputTextDelta":"{\\"city\\":"}\n\n'
    b'data: {"type":"tool-input-available","toolCallId":"c%d","toolName":"weather","input":{"city":"Paris"}}\n\n'
    b'data: {"type":"tool-output-available","toolCallId":"c%d","output":{"t":21,"list":[1,2,3]}}\n\n'
)
DATA = b'data: {"type":"data-weather","id":"w","data":{"city":"Paris","t":%d}}\n\n'


def chunked(body: bytes, size: int = CHUNK) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def turn(content: bytes) -> bytes:
    return OPENING + content + CLOSING


def events(body: bytes) -> list[bytes]:
    return [event + b"\n\n" for event in body.split(b"\n\n")[:-1]]


def halves(body: bytes) -> list[bytes]:
    return [half for event in events(body) for half in (event[: len(event) // 2], event[len(event) // 2 :])]


WORKLOADS: dict[str, Callable[[int], list[bytes]]] = {
    "small deltas, 64 KiB chunks": lambda n: chunked(turn(DELTA * n)),
    "one event a chunk": lambda n: events(turn(DELTA * n)),
    "non-ASCII": lambda n: chunked(turn(DELTA.replace(b"Hello", "héllo 東京".encode()) * n)),
    "CRLF": lambda n: chunked(turn(DELTA * n).replace(b"\n", b"\r\n")),
    "tool calls": lambda n: chunked(turn(b"".join(DELTA * 4 + TOOL % (i, i, i, i) for i in range(n // 8)))),
    "data parts": lambda n: chunked(turn(b"".join(DELTA + DATA % i for i in range(n // 2)))),
    "an unknown field in each": lambda n: chunked(turn(DELTA.replace(b'"delta"', b'"seq":1,"delta"') * n)),
    "16 KiB events, 64 KiB chunks": lambda n: chunked(turn(LONG * (n // 40))),
    "16 KiB events, one a chunk": lambda n: events(turn(LONG * (n // 40))),
    "a comment every ten events": lambda n: chunked(turn((DELTA * 10 + b": keep-alive\n\n") * (n // 10))),
    "an event: line on each": lambda n: chunked(
        turn(DELTA * n).replace(b"data: ", b"event: message\ndata: ")
    ),
    "each event cut in two": lambda n: halves(turn(DELTA * n)),
    "cut anywhere, 37 bytes a chunk": lambda n: chunked(turn(DELTA * n), 37),
    "emoji, each split": lambda n: [
        part
        for event in events(turn(DELTA.replace(b"Hello", "😀".encode()) * n))
        for part in (event[:47], event[47:])
    ],
}


def peer_parse(chunks: Sequence[bytes]) -> Iterator[str]:
    decode, lines, decoder = (
        codecs.getincrementaldecoder("utf-8")("replace").decode,
        SSELineDecoder(),
        SSEDecoder(),
    )
    for chunk in chunks:
        for line in lines.decode(decode(chunk)):
            event = decoder.decode(line)
            if event is not None:
                yield event.data


def peer_parses(chunks: Sequence[bytes]) -> int:
    return sum(1 for _ in peer_parse(chunks))


def peer_checks(chunks: Sequence[bytes]) -> int:
    count = 0
    for data in peer_parse(chunks):
        count += 1
        if data != "[DONE]":
            json.loads(data)
    return count


def ours_parses(chunks: Sequence[bytes]) -> int:
    parser = EventStreamParser()
    return sum(len(parser.receive_data(chunk)) for chunk in chunks)


def ours_checks(chunks: Sequence[bytes]) -> int:
    checker = ContractChecker(AI_SDK_7)
    for chunk in chunks:
        checker.receive_data(chunk, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    report = checker.report()
    if not report.ok:
        sys.exit(f"the benchmark's own stream is not good: {report.findings[:3]}")
    return report.event_count


def measure(chunks: Sequence[bytes], rounds: int) -> list[float]:
    """CPU nanoseconds an event of each contestant."""
    contestants = (peer_parses, ours_parses, peer_checks, ours_checks)
    times: list[list[float]] = [[] for _ in contestants]
    count = ours_checks(chunks)
    for _ in range(rounds):
        for contestant, taken in zip(contestants, times, strict=True):
            before = time.process_time_ns()
            contestant(chunks)
            taken.append((time.process_time_ns() - before) / count)
    return [statistics.median(taken) for taken in times]


def say(line: str = "") -> None:
    sys.stdout.write(line + "\n")


def memory(mebibytes: int) -> None:
    """Check a stream of so many MiB, made as it is read, and say what was held at most."""
    chunk = DELTA * (CHUNK // len(DELTA))
    checker = ContractChecker(AI_SDK_7)
    checker.receive_data(OPENING, elapsed=0.0)
    tracemalloc.start()
    for _ in range(mebibytes * (1 << 20) // len(chunk)):
        checker.receive_data(chunk, elapsed=0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    say(f"{mebibytes} MiB checked within {peak / (1 << 20):.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", help="words of the workloads to run; all by default")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, default=0, metavar="MIB")
    options = parser.parse_args()
    if options.memory:
        memory(options.memory)
        return
    say("| workload | parse, ns | httpx-sse | ratio | check, ns | httpx-sse + json.loads | ratio |")
    say("|---|---:|---:|---:|---:|---:|---:|")
    for name, make in WORKLOADS.items():
        if not options.workloads or any(word in name for word in options.workloads):
            their_parse, our_parse, their_check, our_check = measure(make(options.events), options.rounds)
            say(
                f"| {name} | {our_parse:.0f} | {their_parse:.0f} | {their_parse / our_parse:.1f} "
                f"| {our_check:.0f} | {their_check:.0f} | {their_check / our_check:.1f} |"
            )


if __name__ == "__main__":
    main()
