"""One train at a time for a service: who holds the lock is named, and what a killed train left is not passed over."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from cutover.errors import NotStartedError
from cutover.record.lock import ServiceLock, state_folder
from cutover.wiring.production import live
from tests.support.embedded_trains import EmbeddedTrain, live_config
from tests.support.full_disk import disk_with_room_for
from tests.support.paths import ROOT

KILLED_AT = """
import os, signal, sys
from pathlib import Path
import anyio
from tests.support.embedded_trains import EmbeddedTrain, live_config

def kill(event):
    if type(event).__name__ == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

anyio.run(EmbeddedTrain(live_config(Path(sys.argv[1]))).run, kill)
"""


@pytest.fixture
def lock() -> ServiceLock:
    return ServiceLock.of("project", "region", "service", "https://chat.example")


def test_a_service_has_one_lock_whoever_asks(lock: ServiceLock) -> None:
    assert lock.path == ServiceLock.of("project", "region", "service", "https://chat.example").path
    assert lock.path != ServiceLock.of("project", "region", "service", "https://other.example").path
    assert lock.path.parent == state_folder()


def test_locks_are_in_the_users_state_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "cutover"
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert state_folder() == Path.home() / ".local" / "state" / "cutover"


def test_a_live_holder_is_named(lock: ServiceLock, tmp_path: Path) -> None:
    with lock.held() as held:
        held.sign(tmp_path / "first")
        for recovering in (None, tmp_path / "first", tmp_path / "second"):
            other = ServiceLock(lock.path)
            with pytest.raises(NotStartedError) as caught, other.held(recovering=recovering):
                pass
            said = str(caught.value)
            assert said.startswith(
                f"another train is live: pid {os.getpid()} on {socket.gethostname()}, since 20"
            )
            assert said.endswith(f"run directory {tmp_path / 'first'}")


def test_a_live_holder_that_has_said_nothing_is_live_all_the_same(lock: ServiceLock) -> None:
    with (
        lock.held(),
        pytest.raises(NotStartedError, match="another train is live: its process is not known yet"),
        ServiceLock(lock.path).held(),
    ):
        pass


def test_a_closed_train_leaves_an_empty_lock(lock: ServiceLock, tmp_path: Path) -> None:
    for _ in range(2):
        with lock.held() as held:
            held.sign(tmp_path)
            held.close()
    assert lock.path.read_bytes() == b""


def test_a_train_that_is_killed_before_it_signed_leaves_no_mark(lock: ServiceLock) -> None:
    with pytest.raises(KeyError), lock.held():
        raise KeyError("killed")
    with lock.held():
        pass


def test_the_lock_of_a_killed_train_refuses_the_next_until_it_is_recovered(
    lock: ServiceLock, tmp_path: Path
) -> None:
    with pytest.raises(KeyError), lock.held() as held:
        held.sign(tmp_path / "killed")
        raise KeyError("killed")
    for recovering in (
        None,
        tmp_path / "another",
        # It stays when somebody looks at it, or recovers another run.
    ):
        with (
            pytest.raises(NotStartedError, match="a train was killed and is not recovered") as caught,
            lock.held(recovering=recovering),
        ):
            pass
        assert f"run: cutover recover {tmp_path / 'killed'}" in str(caught.value)
    with lock.held(recovering=tmp_path / "killed") as held:
        held.close()
    with lock.held():
        pass


def test_a_recovery_that_does_not_close_leaves_it_open(lock: ServiceLock, tmp_path: Path) -> None:
    with lock.held() as held:
        held.sign(tmp_path)
    with lock.held(recovering=tmp_path):
        pass
    with pytest.raises(NotStartedError, match="not recovered"), lock.held():
        pass


def test_the_run_directory_is_named_absolutely(
    lock: ServiceLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with lock.held() as held:
        held.sign(Path("run"))
    with pytest.raises(NotStartedError, match=f"cutover recover {tmp_path / 'run'}"), lock.held():
        pass
    with lock.held(recovering=Path("run")):
        pass


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"pid":"x"}', b"\0" * 64])
def test_damaged_content_is_refused_and_the_file_is_named(
    lock: ServiceLock, tmp_path: Path, content: bytes
) -> None:
    lock.path.parent.mkdir(parents=True)
    lock.path.write_bytes(content)
    for recovering in (None, tmp_path):
        with (
            pytest.raises(NotStartedError, match="the lock is damaged") as caught,
            lock.held(recovering=recovering),
        ):
            pass
        assert f"check production, then remove {lock.path}" in str(caught.value)
    assert lock.path.read_bytes() == content


def test_a_lock_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    lock = ServiceLock.of("service")
    with pytest.raises(NotStartedError, match=r"the lock .* cannot be opened"), lock.held():
        pass


def test_a_lock_that_cannot_be_written_is_told(lock: ServiceLock, tmp_path: Path) -> None:
    with (
        disk_with_room_for(0),
        lock.held() as held,
        pytest.raises(NotStartedError, match=r"the lock .* cannot be written: .*too large"),
    ):
        held.sign(tmp_path)
    # No train was let in, so none needs a recovery.
    with lock.held():
        pass


def _kill_train(directory: Path, event: str) -> None:
    """Run a train in a process of its own, and kill it as soon as it has recorded this event."""
    process = subprocess.run(
        [sys.executable, "-c", KILLED_AT, str(directory), event],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL
    assert f'"event":"{event}"' in (directory / "run" / "journal.jsonl").read_text()


def test_a_train_that_is_killed_as_it_starts_leaves_a_journal_and_no_mark(tmp_path: Path) -> None:
    _kill_train(tmp_path, "TrainStarted")
    lock = live(live_config(tmp_path / "next")).lock()
    assert lock.path.read_bytes() == b""
    with lock.held():
        pass


def test_a_train_that_is_killed_in_its_first_step_leaves_its_mark(tmp_path: Path) -> None:
    _kill_train(tmp_path, "StepStarted")
    lock = live(live_config(tmp_path / "next")).lock()
    with pytest.raises(NotStartedError, match=f"run: cutover recover {tmp_path / 'run'} "), lock.held():
        pass


@pytest.mark.anyio
@pytest.mark.parametrize("obstacle", ["run", "run/journal.jsonl"])
async def test_a_run_that_cannot_make_its_folder_or_journal_leaves_no_mark(
    tmp_path: Path, obstacle: str
) -> None:
    """What came in its way after the configuration was checked is left as it is; the next run, elsewhere, may start."""
    refused = EmbeddedTrain(live_config(tmp_path))
    path = tmp_path / obstacle
    path.parent.mkdir(exist_ok=True)
    path.write_text("somebody else's\n")
    with pytest.raises(NotStartedError, match="cannot be made"):
        await refused.run()
    assert refused.production.requests == []
    assert path.read_text() == "somebody else's\n"
    assert live(refused.config).lock().path.read_bytes() == b""
    following = EmbeddedTrain(live_config(tmp_path / "elsewhere"))
    assert live(following.config).lock().path == live(refused.config).lock().path
    assert (await following.run()).passed
