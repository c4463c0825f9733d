"""One train at a time for a service: who holds the lock is named, and what a killed train left is not passed over."""

import errno
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cutover.errors import NotStartedError
from cutover.record.lock import ServiceLock
from cutover.record.lock_file import lock_folder, state_folder
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


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that every user of this machine may write to, in the place of /var/tmp. Other users can reach it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o1777)
        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setenv("HOME", f"{folder}/home")
        monkeypatch.setattr("cutover.record.lock_file.SHARED_FOLDERS", (Path(folder),))
        monkeypatch.setattr("cutover.record.lock.SHARED_FOLDERS", (Path(folder),))
        # The folders of a machine belong to root; those of a test to whoever runs it.
        monkeypatch.setattr("cutover.record.lock_file._OWNER", os.geteuid())
        yield Path(folder)


def test_a_service_has_one_lock_whoever_asks(lock: ServiceLock) -> None:
    assert lock.path == ServiceLock.of("project", "region", "service", "https://chat.example").path
    assert lock.path != ServiceLock.of("project", "region", "service", "https://other.example").path
    assert lock.path.parent == lock_folder()


class TestIdentity:
    """The lock is that of what the train moves, and not of an address that leads there."""

    def path(self, tmp_path: Path, **changes: object) -> Path:
        return live(live_config(tmp_path, **changes)).lock().path

    @pytest.mark.parametrize(
        "changes",
        [
            {"base_url": "https://www.chat.example"},
            {"base_url": "https://CHAT.example:443"},
            {"cloud_run_api_url": "https://us-central1-run.googleapis.com"},
            {"cloud_run_api_url": "https://RUN.googleapis.com:443"},
            {"traffic_backend": "gcloud"},
            {"stable_revision": "chat-00040-older"},
        ],
    )
    def test_another_way_to_the_same_service_has_the_same_lock(
        self, changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A machine without gcloud refuses it as a backend.
        program = tmp_path / "bin" / "gcloud"
        program.parent.mkdir()
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
        assert self.path(tmp_path, **changes) == self.path(tmp_path)

    @pytest.mark.parametrize(
        "changes",
        [
            {"project": "another"},
            {"region": "europe-west1"},
            {"service": "another"},
            {"cloud_run_api_url": "http://127.0.0.1:8080"},
            {"cloud_run_api_url": "https://run.googleapis.com.example"},
        ],
    )
    def test_another_service_has_another_lock(self, changes: dict[str, object], tmp_path: Path) -> None:
        assert self.path(tmp_path, **changes) != self.path(tmp_path)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("http://127.0.0.1:8080", "http://LOCALHOST:8080/"),
            ("http://127.0.0.1:8080", "http://[::1]:8080"),
            ("https://[2001:db8::1]", "https://[2001:0DB8:0:0:0:0:0:1]:443"),
            ("https://run.example", "https://RUN.example.:443/"),
        ],
    )
    def test_the_spelling_of_a_test_server_does_not_count(self, one: str, other: str, tmp_path: Path) -> None:
        assert self.path(tmp_path, cloud_run_api_url=one) == self.path(tmp_path, cloud_run_api_url=other)

    @pytest.mark.anyio
    async def test_a_second_train_by_another_address_does_not_start(self, tmp_path: Path) -> None:
        first = live_config(tmp_path)
        second = EmbeddedTrain(live_config(tmp_path / "second", base_url="https://www.chat.example"))
        with live(first).lock().held(), pytest.raises(NotStartedError, match="another train is live"):
            await second.run()
        assert second.production.requests == []


class TestFolder:
    def test_the_users_of_a_machine_share_one_that_outlives_a_restart(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("XDG_STATE_HOME")
        modes = {path: Path(path).stat() for path in ("/var/tmp", "/tmp") if Path(path).is_dir()}  # noqa: S108
        usable = [
            path for path, found in modes.items() if found.st_mode & 0o1777 == 0o1777 and not found.st_uid
        ]
        assert lock_folder() == (Path(usable[0]) if usable else state_folder())
        assert ServiceLock.of("x").path.name.startswith("cutover-") == bool(usable)

    def test_a_state_folder_that_is_given_is_used(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        assert lock_folder() == state_folder() == tmp_path / "cutover"

    @pytest.mark.parametrize("given", ["", "{home}/.local/state", "{home}/.local/state/"])
    def test_a_profile_that_spells_out_the_default_shares_all_the_same(
        self, given: str, shared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("XDG_STATE_HOME", given.format(home=os.environ["HOME"]))
        assert lock_folder() == shared
        assert state_folder() == Path.home() / ".local" / "state" / "cutover"

    @pytest.mark.parametrize("mode", [0o777, 0o1755])
    def test_a_folder_that_is_not_safe_to_share_is_not_used(self, mode: int, shared: Path) -> None:
        shared.chmod(mode)
        assert lock_folder() == state_folder()

    @pytest.mark.parametrize("umask", [0o000, 0o077])
    def test_in_a_shared_folder_everybody_may_take_and_sign_a_lock(self, umask: int, shared: Path) -> None:
        before = os.umask(umask)
        try:
            with ServiceLock.of("service").held() as held:
                assert held.path.parent == shared
                assert held.path.stat().st_mode & 0o777 == 0o666
        finally:
            os.umask(before)

    def test_in_a_folder_of_ones_own_nobody_else_may(self, lock: ServiceLock) -> None:
        with lock.held():
            assert lock.path.stat().st_mode & 0o777 == 0o600
            assert lock.path.parent.stat().st_mode & 0o777 == 0o700


NOBODY = 65534


def as_another_user(work: Callable[[], None]) -> None:
    """Do this as another user, in a process of its own; fail if it raises."""
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            work()
        except BaseException:  # noqa: BLE001  it is told, and must not return into pytest
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
class TestTwoUsers:
    def test_a_train_of_another_user_is_live(self, shared: Path) -> None:
        with ServiceLock.of("service").held() as held:
            held.sign(shared / "run")

            def work() -> None:
                with pytest.raises(NotStartedError, match=r"another train is live: pid .*, user root, "):
                    _take(ServiceLock.of("service"))

            as_another_user(work)
            held.close()
        as_another_user(lambda: _take(ServiceLock.of("service"), sign=shared / "theirs", close=True))

    def test_a_train_of_another_user_that_was_killed_is_theirs_to_recover(self, shared: Path) -> None:
        """Recovery sends tokens to the addresses in the journal, so nobody is asked to run it on a stranger's."""

        def killed() -> None:
            run = shared / "run"
            run.mkdir(mode=0o700)
            (run / "journal.jsonl").touch()
            _take(ServiceLock.of("service"), sign=run)

        as_another_user(killed)
        with pytest.raises(NotStartedError) as caught:
            _take(ServiceLock.of("service"))
        assert str(caught.value).startswith("a train of user nobody was killed and is not recovered: pid ")
        assert f"user nobody must run: cutover recover {shared / 'run'}" in str(caught.value)
        # It can be recovered by its owner; then it stops nobody.
        as_another_user(lambda: _take(ServiceLock.of("service"), recovering=shared / "run", close=True))
        _take(ServiceLock.of("service"))

    def test_ones_own_run_is_another_users_to_them(self, shared: Path) -> None:
        run = shared / "run"
        run.mkdir(mode=0o700)
        (run / "journal.jsonl").touch()
        _take(ServiceLock.of("service"), sign=run)

        def work() -> None:
            with pytest.raises(
                NotStartedError, match=r"a train of user root was killed .* user root must run"
            ):
                _take(ServiceLock.of("service"))

        as_another_user(work)

    def test_a_lock_that_its_owner_closed_to_others_is_told_with_the_owner(self, shared: Path) -> None:
        with ServiceLock.of("service").held() as held:
            held.path.chmod(0o600)

        def work() -> None:
            with pytest.raises(NotStartedError) as caught:
                _take(ServiceLock.of("service"))
            assert f"the lock {held.path} (it belongs to user root) cannot be opened: " in str(caught.value)
            assert "ask them to remove it" in str(caught.value)

        as_another_user(work)


def _take(
    lock: ServiceLock, *, sign: Path | None = None, recovering: Path | None = None, close: bool = False
) -> None:
    with lock.held(recovering=recovering) as held:
        if sign is not None:
            held.sign(sign)
        if close:
            held.close()


class TestStrangeFiles:
    """In a folder for everybody, somebody may have put anything in the lock's place."""

    def link(self, path: Path, victim: Path) -> None:
        path.symlink_to(victim)

    def second_name(self, path: Path, victim: Path) -> None:
        os.link(victim, path)

    def pipe(self, path: Path, _: Path) -> None:
        os.mkfifo(path)

    def folder(self, path: Path, _: Path) -> None:
        path.mkdir()

    @pytest.mark.parametrize("kind", ["link", "second_name", "pipe", "folder"])
    def test_only_a_plain_file_is_opened_and_nothing_else_is_written_to(
        self, kind: str, shared: Path
    ) -> None:
        victim = shared / "victim"
        victim.write_bytes(b"")
        lock = ServiceLock.of("service")
        getattr(self, kind)(lock.path, victim)
        with pytest.raises(NotStartedError, match=r"the lock .* cannot be opened"):
            _take(lock, sign=shared)
        assert victim.read_bytes() == b""
        assert ServiceLock.left_by(shared) is None

    def test_a_link_to_nothing_makes_no_file(self, shared: Path) -> None:
        lock = ServiceLock.of("service")
        lock.path.symlink_to(shared / "new")
        with pytest.raises(NotStartedError, match="cannot be opened"):
            _take(lock)
        assert not (shared / "new").exists()

    def test_words_in_a_lock_are_shown_escaped_and_bounded(self, shared: Path) -> None:
        lock = ServiceLock.of("service")
        words = {
            "host": "h\x1b[2J" + "x" * 500,
            "pid": 1,
            "since": "\u202e",
            "user": "u\n",
            "run_directory": "/r",
        }
        lock.path.write_text(json.dumps(words))
        with lock.held(recovering=Path("/r")), pytest.raises(NotStartedError) as caught:
            _take(ServiceLock(lock.path))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400

    def test_a_lock_that_is_removed_while_it_is_taken_is_taken_anew(
        self, lock: ServiceLock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Else one train would hold a file that the next one cannot find."""
        real, times = fcntl.flock, 0

        def flock(handle: int, operation: int) -> None:
            nonlocal times
            times += 1
            if times == 1:
                lock.path.unlink()
            real(handle, operation)

        monkeypatch.setattr("cutover.record.lock_file.fcntl.flock", flock)
        with lock.held():
            assert times == 2
            with pytest.raises(NotStartedError, match="another train is live"):
                _take(ServiceLock(lock.path))

    @pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO, errno.EOPNOTSUPP])
    def test_a_lock_that_cannot_be_taken_is_not_called_a_live_train(
        self, number: int, lock: ServiceLock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def flock(*_: object) -> NoReturn:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("cutover.record.lock_file.fcntl.flock", flock)
        with pytest.raises(NotStartedError) as caught:
            _take(lock)
        assert str(caught.value).startswith(f"the lock {lock.path} cannot be taken: [Errno {number}]")
        assert "nothing was changed" in str(caught.value)


class TestEarlierVersions:
    """They kept the lock in the user's state folder, under BASE_URL as it was typed."""

    @pytest.fixture
    def old(self, shared: Path) -> ServiceLock:
        """The lock as the version before would have named it; the new one is elsewhere."""
        config = live_config(shared)
        parts = f"{config.project}\n{config.region}\n{config.service}\n{config.base_url}"
        key = hashlib.sha256(parts.encode()).hexdigest()[:24]
        return ServiceLock(Path.home() / ".local" / "state" / "cutover" / f"{key}.lock")

    def test_one_that_is_live_is_live(self, old: ServiceLock, shared: Path) -> None:
        with old.held() as held:
            held.sign(shared / "run")
            with pytest.raises(NotStartedError, match="another train is live: pid"):
                _take(live(live_config(shared)).lock())

    @pytest.mark.parametrize("base_url", ["https://chat.example", "https://CHAT.example"])
    def test_one_that_was_killed_must_be_recovered_first(
        self, base_url: str, old: ServiceLock, shared: Path
    ) -> None:
        _take(old, sign=shared / "run")
        lock = live(live_config(shared, base_url=base_url)).lock()
        assert lock.path.parent == shared
        with pytest.raises(NotStartedError, match=f"not recovered: .*run: cutover recover {shared / 'run'} "):
            _take(lock)
        found = ServiceLock.left_by(shared / "run")
        assert found is not None
        assert found.path == old.path
        _take(lock, recovering=shared / "run", close=True)
        assert old.path.read_bytes() == b""
        _take(lock)

    def test_where_there_is_none_none_is_made(self, old: ServiceLock, shared: Path) -> None:
        _take(live(live_config(shared)).lock())
        assert not old.path.exists()


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
