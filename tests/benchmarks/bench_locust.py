"""Measure Locust with a master and two workers on loopback, whose users hold every stream to its contract. It is no test.

    python tests/benchmarks/bench_locust.py [--users N] [--seconds N] [--deltas N] [--pause SECONDS]

Each user reads a good stream and then one that breaks one rule, and so on. Every piece of a body ends inside a character.
The figures: streams that were judged, broken ones that were named by their rule and by no other, findings about good
ones, and the CPU time and the memory of the workers while all users run. It reads /proc, so it needs Linux.
"""

import argparse
import csv
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.support.load_server import BROKEN, streams
from tests.support.load_tests import free_port, load_server, locust

RAMP_SECONDS = 8.0
"""Seconds from the start of the master until all users run."""
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(pid: int) -> float:
    # Behind the name of the program, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def run(folder: Path, users: int, seconds: int, deltas: int, pause: float) -> None:
    port, workers = str(free_port()), []
    counts = ("--users", str(2 * users), "--spawn-rate", str(users), "--run-time", f"{seconds}s")
    with (
        load_server(deltas=deltas, pause=pause) as url,
        locust(folder / "one", "--worker", "--master-port", port) as one,
        locust(folder / "two", "--worker", "--master-port", port) as two,
    ):
        workers = [one.pid, two.pid]
        # The workers load everything, and then wait for their master.
        time.sleep(4)
        before = [memory(pid) for pid in workers]
        with locust(
            folder / "master",
            *("--headless", "--master", "--master-bind-host", "127.0.0.1", "--master-bind-port", port),
            *("--expect-workers", "2", "--host", url, "--csv", "run", "--only-summary", *counts),
        ) as master:
            time.sleep(RAMP_SECONDS)
            began, used = time.perf_counter(), sum(map(cpu_seconds, workers))
            time.sleep(seconds - RAMP_SECONDS - 1)
            took, used = time.perf_counter() - began, sum(map(cpu_seconds, workers)) - used
            after = [memory(pid) for pid in workers]
            master.wait(timeout=60)
    judged = {row["Name"]: row for row in rows(folder / "run_stats.csv") if row["Name"] in {"/good", *BROKEN}}
    named = {
        path: sum(
            int(row["Occurrences"])
            for row in rows(folder / "run_failures.csv")
            if row["Name"] == path and rule in row["Error"]
        )
        for path, rule in BROKEN.items()
    }
    number = {name: int(row["Request Count"]) for name, row in judged.items()}
    pieces = sum(number[path] * len(wire.pieces) for path, wire in streams(deltas).items() if path in number)
    broken = sum(number[path] for path in BROKEN)
    grown = sum(after) - sum(before)
    print(f"{2 * users} users in two workers, {seconds} s, a piece every {pause * 1000:.0f} ms")
    print(f"  streams judged           {sum(number.values()):>8,}, {pieces / seconds:,.0f} pieces/s")
    print(f"  broken, named by rule    {sum(named.values()):>8,} of {broken:,}")
    print(f"  good, with a finding     {int(judged['/good']['Failure Count']):>8,} of {number['/good']:,}")
    print(f"  CPU of both workers      {used / took:>8.0%} of a core")
    print(f"  memory a user            {grown / users / 2 / 1024:>8.0f} KB")
    if sum(named.values()) != broken or int(judged["/good"]["Failure Count"]):
        for row in rows(folder / "run_failures.csv"):
            print(f"  {row['Occurrences']:>6} {row['Name']} {row['Error']}")
        sys.exit(1)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("--users", type=int, default=300, help="users in each of the two workers")
    options.add_argument("--seconds", type=int, default=40)
    options.add_argument("--deltas", type=int, default=40)
    options.add_argument("--pause", type=float, default=0.1)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as name:
        run(Path(name), given.users, given.seconds, given.deltas, given.pause)
