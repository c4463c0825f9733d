"""One train at a time for a service: who holds the lock is named, and what a killed train left is not passed over."""

import fcntl
import os
import socket
from pathlib import Path

import pytest
from full_disk import disk_with_room_for

from cutover.errors import NotStartedError
from cutover.lock import ServiceLock, state_folder


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
    with lock.held(tmp_path / "first"):
        for recovering in (False, True):
            other = ServiceLock(lock.path)
            with (
                pytest.raises(NotStartedError) as caught,
                other.held(tmp_path / "second", recovering=recovering),
            ):
                pass
            said = str(caught.value)
            assert said.startswith(
                f"another train is live: pid {os.getpid()} on {socket.gethostname()}, since 20"
            )
            assert said.endswith(f"run directory {tmp_path / 'first'}")


def test_a_live_holder_that_has_said_nothing_is_live_all_the_same(lock: ServiceLock, tmp_path: Path) -> None:
    lock.path.parent.mkdir(parents=True)
    with lock.path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(NotStartedError, match="another train is live: nobody has said who"),
            lock.held(tmp_path),
        ):
            pass


def test_what_a_closed_train_leaves_is_nothing(lock: ServiceLock, tmp_path: Path) -> None:
    for _ in range(2):
        with lock.held(tmp_path) as held:
            held.close()
    assert lock.path.read_bytes() == b""


def test_what_a_killed_train_leaves_is_refused_until_it_is_recovered(
    lock: ServiceLock, tmp_path: Path
) -> None:
    with pytest.raises(KeyError), lock.held(tmp_path / "killed"):
        raise KeyError("killed")
    for _ in range(2):  # looking does not take it away
        with (
            pytest.raises(NotStartedError, match="a train was cut off and is not recovered") as caught,
            lock.held(tmp_path / "next"),
        ):
            pass
        assert str(caught.value).endswith(f"run: cutover recover {tmp_path / 'killed'}")
    with lock.held(tmp_path / "killed", recovering=True) as held:
        held.close()
    with lock.held(tmp_path / "next"):
        pass


def test_a_recovery_that_does_not_close_leaves_it_open(lock: ServiceLock, tmp_path: Path) -> None:
    for recovering in (False, True):
        with lock.held(tmp_path, recovering=recovering):
            pass
    with pytest.raises(NotStartedError, match="not recovered"), lock.held(tmp_path):
        pass


def test_the_run_directory_is_named_absolutely(
    lock: ServiceLock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with lock.held(Path("run")):
        pass
    with pytest.raises(NotStartedError, match=f"cutover recover {tmp_path / 'run'}"), lock.held(Path("next")):
        pass


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"pid":"x"}', b"\0" * 64])
def test_damaged_content_is_refused_and_can_be_recovered(
    lock: ServiceLock, tmp_path: Path, content: bytes
) -> None:
    lock.path.parent.mkdir(parents=True)
    lock.path.write_bytes(content)
    with pytest.raises(NotStartedError, match="the lock is damaged"), lock.held(tmp_path):
        pass
    assert lock.path.read_bytes() == content
    with lock.held(tmp_path, recovering=True) as held:
        held.close()
    with lock.held(tmp_path):
        pass


def test_a_lock_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    lock = ServiceLock.of("service")
    with pytest.raises(NotStartedError, match=r"the lock .* cannot be opened"), lock.held(tmp_path):
        pass


def test_a_lock_that_cannot_be_written_is_told(lock: ServiceLock, tmp_path: Path) -> None:
    with (
        disk_with_room_for(0),
        pytest.raises(NotStartedError, match=r"the lock .* cannot be written: .*too large"),
        lock.held(tmp_path),
    ):
        pass
    with lock.held(tmp_path):  # nobody was let in, so nobody is to be recovered
        pass
