"""Ctrl-C before the signal listener is ready: nothing has started, so the command prints nothing and exits with 130."""

import signal
import subprocess
import sys
import time

import pytest

WAITING_FOR_INPUT = [sys.executable, "-m", "cutover", "check", "-"]


@pytest.mark.parametrize("before", ["click", "cutover.cli.check", "httpx", "asyncio"])
def test_ctrl_c_while_the_command_loads(before: str) -> None:
    """The signal arrives while Python imports a module that the command needs."""
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


def test_ctrl_c_while_the_command_reads_its_input() -> None:
    """click itself would print "Aborted!" and exit with 1, but 1 means that the contract does not hold."""
    with subprocess.Popen(
        WAITING_FOR_INPUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
