"""Ctrl-C before anybody listens for it: nothing has begun, so the command ends quietly, with the code that says so."""

import signal
import subprocess
import sys
import time

import pytest

WAITING_FOR_INPUT = [sys.executable, "-m", "cutover", "check", "-"]


@pytest.mark.parametrize("before", ["click", "cutover.cli.check", "httpx", "asyncio"])
def test_while_the_command_loads(before: str) -> None:
    """The signal comes as a module is looked for that the command needs."""
    code = f"""
import signal, sys
class Interrupts:
    def find_spec(self, name, path=None, target=None):
        if name == {before!r}:
            sys.meta_path.remove(self)
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Interrupts())
sys.argv = ["cutover", "run", "a-1", "a-2"]
from cutover.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_while_it_reads_its_input() -> None:
    """Where click would say "Aborted!" and exit with 1, which means that the contract does not hold."""
    with subprocess.Popen(
        WAITING_FOR_INPUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
