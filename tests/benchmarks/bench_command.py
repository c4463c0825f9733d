"""Measure how long an operator waits for ``import cutover``, a rehearsal, and a live train against ``cutover simulate``.

The table shows wall time from process start to exit: median and worst of interleaved runs, beside a bare interpreter.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RUNS = 7
QUICK = {
    "CANARY_SOAK_SECONDS": "0",
    "MAX_CANARY_WORSE_PERCENT": "90",
    "MAX_CANARY_SLOWER_PERCENT": "0",
    "FLIP_CONFIRM_SECONDS": "0",
    "HELD_STREAMS": "0",
}


def _timed(command: list[str], env: dict[str, str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        own = {**os.environ, **env, "OUTPUT_DIR": str(Path(folder) / "run"), "XDG_STATE_HOME": folder}
        started = time.perf_counter()
        subprocess.run(command, env=own, check=True, capture_output=True)
        return time.perf_counter() - started


def _simulation() -> tuple[subprocess.Popen[str], dict[str, str], list[str]]:
    command = [sys.executable, "-m", "cutover", "simulate"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert process.stdout is not None
    env: dict[str, str] = {}
    for line in process.stdout:
        if line.startswith("# then:"):
            return process, env, line.split()[-2:]
        name, _, value = line.removeprefix("export ").strip().partition("=")
        env[name] = value
    raise RuntimeError("the simulation ended before it printed its environment")


def main() -> None:
    """Measure each command and print a table."""
    python = [sys.executable, "-c"]
    commands: dict[str, tuple[list[str], dict[str, str]]] = {
        "bare interpreter": ([*python, "pass"], {}),
        "import cutover": ([*python, "import cutover"], {}),
        "a rehearsal": ([sys.executable, "-m", "cutover", "run", "chat-1", "chat-2"], {}),
    }
    times: dict[str, list[float]] = {}
    for _ in range(RUNS):
        for name, (command, env) in commands.items():
            times.setdefault(name, []).append(_timed(command, env))
        # a new simulation each time, because the last train has flipped the routes of its own
        process, env, revisions = _simulation()
        try:
            live = [sys.executable, "-m", "cutover", "run", *revisions]
            times.setdefault("a live train, no soak", []).append(_timed(live, {**env, **QUICK}))
        finally:
            # A background job ignores SIGINT.
            process.terminate()
            process.communicate(timeout=30)
    print(f"| command | median of {RUNS} | worst |\n|---|---|---|")
    for name, seconds in times.items():
        print(f"| {name} | {statistics.median(seconds):.2f} s | {max(seconds):.2f} s |")


if __name__ == "__main__":
    main()
