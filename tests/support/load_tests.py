"""Locust, and the server that it loads, in processes of their own. None of them outlives the test that started it."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.paths import ROOT

USERS = ROOT / "tests" / "support" / "load_users.py"
_SERVER = ROOT / "tests" / "support" / "load_server.py"


def environment() -> dict[str, str]:
    """Return the environment of a process that is no part of this run of pytest, and that nobody measures."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV"))}
    path = os.pathsep.join(filter(None, (str(ROOT), own.get("PYTHONPATH"))))
    return {**own, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}


@contextmanager
def load_server(*, deltas: int = 8, pause: float = 0.002) -> Iterator[str]:
    """Serve the streams of `load_server.py`, and give the base URL."""
    command = [sys.executable, str(_SERVER), "--deltas", str(deltas), "--pause", str(pause)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    ) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.kill()


@contextmanager
def locust(output: Path, *options: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run Locust with the users of `load_users.py`; what it says goes to the file ``output``."""
    command = [sys.executable, "-m", "locust", "-f", str(USERS), *options]
    with (
        output.open("w") as said,
        subprocess.Popen(command, stdout=said, stderr=said, cwd=output.parent, env=environment()) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
