"""Measure the parser and the contract check, beside httpx-sse's decoders. Run it by hand; it is no test.

    python tests/benchmarks/bench_stream.py [--events N] [--rounds N] [--node] [WORKLOAD...]
    python tests/benchmarks/bench_stream.py --long MIB

The peer parses with httpx-sse's decoders. For the check it calls `json.loads` on the data of each event and checks nothing.
A figure is CPU time in nanoseconds per event, the median of interleaved rounds. The figure with an x is the peer's time
divided by ours. `--node` adds the AI SDK's own client, which reads and validates the same bytes in Node; first run `npm ci`
in `tests/interop`. `--long MIB` checks a good stream of that size, and hostile streams of an eighth and a quarter of it. A
table shows the time of each, which should double with the size, and the memory, which should not grow.
"""

import argparse
import codecs
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from httpx_sse._decoders import SSEDecoder, SSELineDecoder

from cutover.contract import ContractChecker
from cutover.protocols import AI_SDK_7
from cutover.sse.parser import EventStreamParser

CLIENT = Path(__file__).parents[1] / "interop" / "node_modules" / "ai7"
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
    """Return the CPU nanoseconds per event of each contestant."""
    contestants = (peer_parses, ours_parses, peer_checks, ours_checks)
    times: list[list[float]] = [[] for _ in contestants]
    count = ours_checks(chunks)
    for _ in range(rounds):
        for contestant, taken in zip(contestants, times, strict=True):
            before = time.process_time_ns()
            contestant(chunks)
            taken.append((time.process_time_ns() - before) / count)
    return [statistics.median(taken) for taken in times]


def print_line(line: str = "") -> None:
    sys.stdout.write(line + "\n")


def require_node() -> None:
    """Exit with a reason if the AI SDK's own client cannot run."""
    if shutil.which("node") is None:
        sys.exit("--node: there is no program node")
    if not CLIENT.is_dir():
        sys.exit("--node: the AI SDK is not installed; run `npm ci` in tests/interop")


def node_checks(body: bytes, rounds: int) -> float:
    """Return the CPU nanoseconds per event of the AI SDK's own client."""
    script = Path(__file__).with_name("ai_client.mjs")
    done = subprocess.run(["node", script, str(rounds)], input=body, stdout=subprocess.PIPE, check=True)
    return float(json.loads(done.stdout)["nanoseconds"])


def repeated(chunk: bytes) -> Callable[[int], Iterator[bytes]]:
    return lambda size: itertools.repeat(chunk, size // len(chunk))


LONG_STREAMS: dict[str, Callable[[int], Iterator[bytes]]] = {
    "one line without an end": repeated(b"x" * CHUNK),
    "a comment without an end": repeated(b":" * CHUNK),
    "empty lines": repeated(b"\n" * CHUNK),
    "a CR at each chunk's end": repeated(b"data: x\r"),
    "`data` lines without a blank line": repeated(b"data: x\n" * (CHUNK // 8)),
    "events without data": repeated(b"id: 1\n\n" * (CHUNK // 7)),
    "NUL": repeated(b"\0" * (CHUNK - 2) + b"\n\n"),
    "bytes that are no UTF-8": repeated(b"data: \xf0\x9f\n\n" * (CHUNK // 10)),
    "brackets without an end": repeated(b"data: " + b"[" * (CHUNK - 8) + b"\n\n"),
    "names that are never closed": lambda size: (
        b'data: {"type":"text-start","id":"%d"}\n\n' % number for number in range(size // 40)
    ),
}


def long_streams(mebibytes: int) -> None:
    """Check long streams, generated while they are read, and print the time and memory of each."""

    def take(chunks: Iterator[bytes]) -> float:
        checker, before = ContractChecker(AI_SDK_7), time.process_time()
        for chunk in itertools.chain(events(OPENING), chunks):
            checker.receive_data(chunk, elapsed=0.0)
        checker.receive_eof(elapsed=0.0)
        return time.process_time() - before

    def held() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    whole, part = mebibytes << 20, mebibytes << 17
    print_line(f"before: the process holds {held():.0f} MiB")
    seconds = take(repeated(DELTA * (CHUNK // len(DELTA)))(whole))
    print_line(
        f"{mebibytes} MiB of small deltas: {seconds:.1f} s; the process has held at most {held():.0f} MiB"
    )
    print_line()
    print_line(f"| hostile stream | {part >> 20} MiB, s | {part >> 19} MiB, s | ratio | held at most, MiB |")
    print_line("|---|---:|---:|---:|---:|")
    for name, make in LONG_STREAMS.items():
        once, twice = take(make(part)), take(make(2 * part))
        print_line(f"| {name} | {once:.2f} | {twice:.2f} | {twice / once:.1f} | {held():.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", help="words of the workloads to run; all by default")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--node", action="store_true")
    parser.add_argument("--long", type=int, default=0, metavar="MIB")
    options = parser.parse_args()
    if options.node:
        require_node()
    if options.long:
        long_streams(options.long)
        return
    print_line("| workload | parse | check | workload | parse | check |")
    print_line("|---|---|---|---|---|---|")
    cells: list[str] = []
    for name, make in WORKLOADS.items():
        if not options.workloads or any(word in name for word in options.workloads):
            their_parse, our_parse, their_check, our_check = measure(make(options.events), options.rounds)
            parse, check = (
                f"{ours:.0f} ns, {theirs / ours:.1f}x"
                for ours, theirs in ((our_parse, their_parse), (our_check, their_check))
            )
            cells.append(f"| {name} | {parse} | {check} ")
            if len(cells) % 2 == 0:
                print_line("".join(cells[-2:]) + "|")
    if len(cells) % 2:
        print_line(cells[-1] + "| | | |")
    if options.node:
        chunks = WORKLOADS["small deltas, 64 KiB chunks"](options.events)
        ours, theirs = measure(chunks, options.rounds)[3], node_checks(b"".join(chunks), options.rounds)
        print_line()
        print_line(
            f"The AI SDK's own client takes {theirs:.0f} ns per event; the check takes {ours:.0f} ns ({theirs / ours:.0f}x)."
        )


if __name__ == "__main__":
    main()
