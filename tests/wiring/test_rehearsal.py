"""DRY_RUN=1: the same train on an embedded production; nothing else is touched."""

import html
import json
import re
import socket
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import attrs
import pytest

from cutover import CutoverConfig, run_cutover
from cutover.clock import SkippingClock
from cutover.errors import ConfigurationError
from cutover.report.preview import describe, pressed_looks, turns
from cutover.report.terminal import conclusion
from cutover.simulation import Site
from cutover.wiring.embedded import rehearsal
from cutover.wiring.run import run_production
from tests.support.embedded_trains import EmbeddedTrain, live_config

if TYPE_CHECKING:
    from cutover.wiring.production import Production

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def _config(**changes: object) -> CutoverConfig:
    return CutoverConfig(stable_revision="chat-1", canary_revision="chat-2", **changes)  # type: ignore[arg-type]


@pytest.fixture
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test on any connect, bind or name look-up."""

    def refuse(*args: object, **kwargs: object) -> NoReturn:
        raise AssertionError(f"the network was touched: {args}")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("apply", [True, False])
@pytest.mark.parametrize("dual", [True, False])
async def test_a_rehearsal_passes_and_touches_nothing(
    apply: bool, dual: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    summary = await run_cutover(
        _config(
            apply_route_flip=apply,
            run_dual_run=dual,
            legacy_base_url="https://legacy.chat.example",
            base_url="https://chat.example",
        )
    )
    assert summary.passed, summary.reasons
    assert summary.exit_code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize(
    "base_url",
    [
        "http://[::1]:8080",
        "https://[2001:DB8:0::1]:443",
        "https://[::ffff:192.0.2.1]/sub",
        "https://chat.example:0443",
        "https://CHAT.example.",
    ],
)
async def test_a_rehearsal_takes_any_address(base_url: str) -> None:
    """BASE_URL may be an IPv6 address, of which no tag URL can be made by putting a tag before it; and so may the other addresses."""
    dual = {"run_dual_run": True, "legacy_base_url": "https://[2001:db8::2]:8443"}
    for changes in (
        {"base_url": base_url, "apply_route_flip": True, **dual},
        {"cloud_run_api_url": base_url},
    ):
        summary = await run_cutover(_config(held_streams=0, canary_steps=(100,), **changes))
        assert summary.passed, summary.reasons


async def test_a_rehearsal_claims_nothing_about_times() -> None:
    """Its clock adds up the sleeps of all streams, so a slow canary looks no slower."""
    summary = await run_cutover(_config(what_if=("canary-slower",)))
    details = [check.detail for step in summary.steps for check in step.checks]
    assert any("no worse by" in detail for detail in details)
    assert not any("slower" in detail for detail in details)


async def test_a_rehearsal_soaks_on_its_own_clock() -> None:
    production = rehearsal(_config(canary_soak_seconds=600.0, flip_confirm_seconds=60.0))
    await run_production(production)
    assert isinstance(production.clock, SkippingClock)
    assert production.clock.skipped >= 4 * 600.0


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"held_streams": 0},
        {"held_streams": 3, "apply_route_flip": True},
        {"canary_soak_seconds": 0.0, "flip_confirm_seconds": 0.0},
        {"canary_soak_seconds": 0.5, "flip_confirm_seconds": 0.5, "apply_route_flip": True},
        {"canary_soak_seconds": 7.0, "canary_look_seconds": 0.9, "held_streams": 12},
        {"flip_confirm_seconds": 90.0, "canary_look_seconds": 4.0, "apply_route_flip": True},
        {"canary_soak_seconds": 3.5, "apply_route_flip": True, "canary_steps": (100,)},
        {
            "canary_soak_seconds": 120.0,
            "run_dual_run": True,
            "legacy_base_url": "https://legacy.openagents.com",
        },
        {
            "run_dual_run": True,
            "legacy_base_url": "https://legacy.openagents.com",
            "max_p95_latency_delta_ms": 100.0,
        },
    ],
)
async def test_the_preview_counts_every_turn_that_the_train_starts(changes: dict[str, object]) -> None:
    config = _config(revision_header="x-cutover-revision", **changes)
    production = rehearsal(config)
    assert production.simulation is not None
    summary = await run_production(production)
    assert summary.passed, summary.reasons
    count = turns(config)
    started = Counter(entry.site for entry in production.simulation.requests if entry.started_turn)
    # Turns that the canary answered at the front door, by the header, may have decided a share some looks earlier.
    earlier = count.front - started[Site.FRONT]
    assert earlier in range(0, 2 * pressed_looks(config) + 1, 2)
    assert started[Site.TAG] == count.canary_tag - earlier
    assert started[Site.LEGACY] == count.legacy
    # stable has no tag in a rehearsal
    assert production.simulation.turns == count.total - count.stable_tag - 2 * earlier


@pytest.mark.parametrize("sent", [False, True])
async def test_the_preview_counts_a_mutating_stream_of_the_manifest_only_if_it_is_sent(
    sent: bool, tmp_path: Path
) -> None:
    entry = {
        "id": "chat-stream",
        "method": "POST",
        "path": "/api/chat/stream",
        "response_kind": "sse",
        "critical": True,
        "requires_auth": True,
        "body": {"id": "thread_1", "messages": [{"role": "user", "content": "Hi"}]},
    }
    entries = [entry, entry | {"id": "mutating-stream", "mutates": True}]
    manifest = tmp_path / "manifest.json"
    manifest.write_text(json.dumps({"requests": entries}))
    config = _config(
        run_dual_run=True,
        run_mutating_requests=sent,
        requests_file=str(manifest),
        legacy_base_url="https://legacy.openagents.com",
        revision_header="x-cutover-revision",
    )
    production = rehearsal(config)
    assert production.simulation is not None
    await run_production(production)
    started = Counter(entry.site for entry in production.simulation.requests if entry.started_turn)
    count = turns(config)
    assert (started[Site.FRONT], started[Site.LEGACY]) == (count.front, count.legacy)
    # A request that only reads goes twice to each service.
    assert count.legacy == 2 + sent


@pytest.mark.parametrize("held", [0, 3])
async def test_without_a_revision_header_the_rollback_sends_one_round_of_probes(
    held: int, tmp_path: Path
) -> None:
    trial = EmbeddedTrain(live_config(tmp_path, revision_header="", held_streams=held))
    assert (await trial.run()).passed
    started = Counter(entry.site for entry in trial.production.requests if entry.started_turn)
    assert started[Site.FRONT] == turns(trial.config).front


@pytest.mark.virtual_time
@pytest.mark.parametrize("soak", [0.0, 30.0])
async def test_the_preview_counts_the_turns_for_which_a_share_is_held_longer(
    soak: float, tmp_path: Path
) -> None:
    config = live_config(
        tmp_path,
        revision_header="",
        canary_soak_seconds=soak,
        max_canary_worse_percent=10.0,
        max_canary_slower_percent=50.0,
    )
    trial = EmbeddedTrain(config)
    assert (await trial.run()).passed
    started = Counter(entry.site for entry in trial.production.requests if entry.started_turn)
    assert (started[Site.FRONT], started[Site.TAG]) == (turns(config).front, turns(config).canary_tag)
    assert pressed_looks(config) == (14 if soak == 0 else 8)


def test_the_preview_names_host_project_service_and_turns() -> None:
    config = _config(
        base_url="https://chat.example", project="p1", region="r1", service="s1", apply_route_flip=True
    )
    preview = "\n".join(describe(config))
    for word in (
        "https://chat.example",
        "p1",
        "r1",
        "s1",
        "chat-1",
        "chat-2",
        "25 %",
        str(turns(config).front),
    ):
        assert word in preview
    assert "only verified" in "\n".join(describe(attrs.evolve(config, apply_route_flip=False)))


def test_the_preview_says_how_often_each_request_of_the_dual_run_is_sent() -> None:
    config = _config(run_dual_run=True, legacy_base_url="https://legacy.openagents.com")
    preview = "\n".join(describe(config))
    assert "each request goes 2 times to each service; where answers differ, up to 10 times more" in preview
    timed = "\n".join(describe(attrs.evolve(config, max_p95_latency_delta_ms=50.0)))
    assert (
        "goes 6 times to each service; up to 18 times for MAX_P95_LATENCY_DELTA_MS, which needs 60" in timed
    )


async def test_a_rehearsal_runs_with_a_what_if_fault() -> None:
    summary = await run_cutover(_config(what_if=("stream-500-on-canary",)))
    assert summary.exit_code == 1
    drill = summary.step("canary-rollback-drill")
    assert drill is not None
    assert drill.status.failed


@pytest.mark.virtual_time
@pytest.mark.many_instances
@pytest.mark.parametrize(
    ("name", "exit_code"),
    [
        ("rollback-403", 4),
        ("override-sticks", 4),
        ("canary-serves-already", 3),
        ("update-undone", 1),
        ("never-settles", 4),
        ("instances-disagree", 3),
    ],
)
async def test_a_rehearsal_names_no_command_that_would_reach_real_production(
    name: str, exit_code: int, tmp_path: Path
) -> None:
    """What a simulated production needs, somebody could else do to the real one."""
    config = _config(
        apply_route_flip=True,
        what_if=(name,),
        output_dir=tmp_path / "run",
        canary_soak_seconds=2.0,
        max_canary_worse_percent=90.0,
        max_canary_slower_percent=0.0,
    )
    summary = await run_cutover(config)
    assert summary.exit_code == exit_code, summary.reasons
    shown = [path.read_text(errors="replace") for path in (tmp_path / "run").rglob("*") if path.is_file()]
    shown += conclusion(summary, evidence=None)
    for text in shown:
        for command in re.findall(
            r"(?:gcloud|curl|cutover recover) [^\n\"]+", html.unescape(text).replace("\\_", "_")
        ):
            assert " --project PROJECT " in f"{command} " or command.startswith("curl -X POST BASE_URL/"), (
                command
            )


async def test_an_unknown_fault_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match="no fault is named 'nonsense'"):
        await run_cutover(_config(what_if=("nonsense",)))


async def test_a_rehearsal_with_a_directory_leaves_evidence(tmp_path: Path) -> None:
    summary = await run_cutover(_config(output_dir=tmp_path / "run"))
    assert summary.passed
    assert "Rehearsal on an embedded production" in (tmp_path / "run" / "SUMMARY.md").read_text()


def test_a_rehearsal_does_not_use_the_configured_tokens() -> None:
    production: Production = rehearsal(_config(auth_token="marked-auth-token"))
    assert production.config.auth_token != "marked-auth-token"
