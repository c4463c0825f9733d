"""Fixtures that all tests share."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from cutover.production.routes import control_plane, writer
from cutover.wiring import embedded
from tests.support.virtual_time import virtual_backend

# A slow machine is no failure: by default, hypothesis fails an example that takes more than 200 ms.
hypothesis.settings.register_profile(
    "any-machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any-machine")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Run every asynchronous test on both event loops; with the mark ``virtual_time``, on loops whose time jumps."""
    marked = request.node.get_closest_marker("virtual_time") is not None
    return virtual_backend(request.param) if marked else request.param


@pytest.fixture(autouse=True)
def _own_state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give each test its own folder of locks."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))


@pytest.fixture(autouse=True)
def _not_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no command under test take itself for a step of the CI job that runs these tests."""
    for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "GITHUB_RUN_ID", "CI_JOB_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def _signals_as_under_a_terminal() -> Iterator[None]:
    """Let each test, and each process that it starts, take signals as under a terminal; restore them afterwards.

    A parent that ignores a signal (nohup, a background job of a shell) passes that on to every child. And a command blocks signals once its
    exit code is decided, which would outlive it in this process.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    usual: dict[signal.Signals, Any] = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    ignored = [number for number in usual if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, usual[number])
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


TRAINS = {"whole_trains", "train", "wiring", "report", "test_report_page.py"}
"""Folders and files whose tests run trains by the hundred."""


@pytest.fixture(autouse=True)
def _one_instance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here each revision has one instance, and samples and rounds are small: more reads or writes would prove no more.

    A test with the mark ``many_instances`` has the usual figures.
    """
    parts = request.path.relative_to(Path(__file__).parent).parts
    if TRAINS.isdisjoint(parts) or request.node.get_closest_marker("many_instances") is not None:
        return
    monkeypatch.setattr(embedded, "INSTANCES", 1)
    monkeypatch.setattr(control_plane, "SAMPLE_READS", 5)
    monkeypatch.setattr(writer, "ROUNDS", (1, 4))


SLOW_FOLDERS = {"whole_trains", "interop"}
"""Folders whose tests run whole trains, or talk to other programs."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark a test ``fast`` unless its folder or its own mark says ``slow``. On trio it is not: it would say the same once more."""
    for item in items:
        slow = item.get_closest_marker("slow") is not None
        slow |= not SLOW_FOLDERS.isdisjoint(item.path.relative_to(Path(__file__).parent).parts)
        params = (
            item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        )
        if not slow and "trio" not in params.values():
            item.add_marker("fast")
