"""Live trains whose services are at an IPv6 address."""

import socket
from pathlib import Path

import pytest

from cutover.model.gcloud_service import GcloudService
from cutover.model.route_state import RouteState
from cutover.model.train_events import RouteIntended
from cutover.model.undo_plan import plan_undo
from cutover.record.journal import Journal
from cutover.train.undo_executor import UndoExecutor
from cutover.wiring.production import live
from cutover.wiring.recover import recover_production
from cutover.wiring.run import run_production
from tests.support.embedded_trains import STABLE, live_config
from tests.support.served_production import served


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback"),
]


async def test_a_live_train_passes_and_is_reverted(tmp_path: Path) -> None:
    # With more than one instance, the few reads of small samples may miss one that was never written to.
    with served(
        tmp_path,
        backend="cloud-run-api",
        host="::1",
        layout={"instances": 1},
        run_dual_run=True,
        held_streams=1,
    ) as found:
        assert found.config.base_url.startswith("http://[::1]:")
        summary = await run_production(found.live())
        assert summary.passed, summary.reasons
        recovery = await recover_production(found.live(), tmp_path / "run", mode="revert")
        assert recovery.closed, recovery.detail


async def test_the_commands_for_an_operator_hold_the_address_as_one_word(tmp_path: Path) -> None:
    """A shell takes [::1] for a pattern; zsh refuses the command."""
    config = live_config(tmp_path, base_url="http://[::1]:8080")
    intent = RouteIntended(
        step_id="route-flip",
        key="global",
        captured=RouteState(overrides=(("global", None),), mode="legacy"),
        wanted="rust_shell",
        times=1,
    )
    async with live(config).services() as services:
        executor = UndoExecutor(services=services, journal=Journal(), service=GcloudService("s", "p", "r"))
        lines = executor.by_hand(plan_undo([intent], stable=STABLE))
    (command,) = (line for line in lines if line.startswith("curl "))
    assert " 'http://[::1]:8080/api/v1/control/route-split/override' " in command
