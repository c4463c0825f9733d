"""The simulated route split: the order of its rules, its overrides, and the separate memory of each instance."""

import pytest
from attrs import evolve

from cutover.simulation import Layout, RouteSplitSettings
from tests.support.asgi_caller import (
    CREDENTIALS,
    FRONT,
    LAYOUT,
    ask,
    control,
    evaluate,
    flip,
    override,
    production,
    share,
    update,
)

pytestmark = pytest.mark.anyio
RUST_PATHS = ("/api/auth/email", "/api/chat/stream", "/api/runtime/tools/execute")


def deployed(**settings: object) -> Layout:
    return evolve(LAYOUT, route_split=RouteSplitSettings(**settings))  # type: ignore[arg-type]  # valid in each case


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("nobody", 401), (CREDENTIALS.auth_token, 403)])
async def test_the_control_plane_requires_an_operators_token(token: str | None, status: int) -> None:
    url = f"{FRONT}/api/v1/control/route-split/status"
    assert (await ask(production(), "GET", url, token=token)).status == status


async def test_the_status_has_the_members_of_the_real_api() -> None:
    data = (await control(production(), "status")).json()["data"]
    assert set(data) == {
        "enabled", "mode", "cohort_percentage", "rust_routes", "force_legacy", "legacy_base_url",
        "override_target", "route_groups", "rollback_matrix", "domain_overrides",
    }  # fmt: skip
    assert data["override_target"] is None
    assert data["domain_overrides"] == {}
    assert data["rollback_matrix"] == {
        "auth_entry": "legacy",
        "account_settings_admin": "legacy",
        "billing_l402": "legacy",
        "chat_pilot": "rust_shell",
    }
    assert [group["domain"] for group in data["route_groups"]] == list(data["rollback_matrix"])
    assert data["route_groups"][0] == {
        "domain": "auth_entry",
        "route_prefixes": ["/login", "/register", "/authenticate", "/onboarding"],
        "rollback_target": "legacy",
        "override_target": None,
    }


async def test_paths_below_api_always_go_to_the_new_service() -> None:
    peer = production(layout=deployed(force_legacy=True))
    await override(peer, "legacy")
    for path in RUST_PATHS:
        decision = await evaluate(peer, path)
        assert (decision["target"], decision["reason"]) == ("rust_shell", "api_rust_authority")
    workers = await evaluate(peer, "/api/runtime/codex/workers")
    assert (workers["target"], workers["reason"]) == ("rust_shell", "codex_worker_control_rust_authority")


async def test_a_domain_override_outranks_force_legacy_and_the_global_override() -> None:
    peer = production(layout=deployed(force_legacy=True))
    await override(peer, "rust", "auth_entry")
    await override(peer, "legacy")
    login = await evaluate(peer, "/login/reset")
    assert (login["target"], login["reason"]) == ("rust_shell", "domain_override")
    assert (login["route_domain"], login["rollback_target"]) == ("auth_entry", "legacy")
    assert (await evaluate(peer, "/feed"))["reason"] == "force_legacy"


async def test_the_global_override_outranks_the_deployed_configuration() -> None:
    peer = production(layout=deployed(enabled=False))
    assert (await evaluate(peer, "/feed"))["reason"] == "route_split_disabled"
    await override(peer, "rust")
    feed = await evaluate(peer, "/feed")
    assert (feed["target"], feed["reason"]) == ("rust_shell", "runtime_override")


@pytest.mark.parametrize(
    ("settings", "target", "reason"),
    [
        ({}, "legacy", "mode_legacy"),
        ({"mode": "rust"}, "rust_shell", "mode_rust"),
        ({"mode": "rust", "rust_routes": ("/chat",)}, "legacy", "legacy_route_default"),
        ({"mode": "rust", "rust_routes": ("/feed",)}, "rust_shell", "mode_rust"),
        ({"mode": "cohort", "cohort_percentage": 0}, "legacy", "mode_cohort"),
        ({"mode": "cohort", "cohort_percentage": 100}, "rust_shell", "mode_cohort"),
    ],
)
async def test_without_overrides_the_deployed_configuration_decides(
    settings: dict[str, object], target: str, reason: str
) -> None:
    decision = await evaluate(production(layout=deployed(**settings)), "/feed/7?x=1")
    assert (decision["target"], decision["reason"]) == (target, reason)
    assert ("cohort_bucket" in decision) == (reason == "mode_cohort")


async def test_a_global_override_to_legacy_does_not_change_domains_with_an_override() -> None:
    peer = production()
    await flip(peer)
    await override(peer, "legacy")
    assert (await evaluate(peer, "/settings/profile"))["target"] == "rust_shell"
    assert (await evaluate(peer, "/elsewhere"))["target"] == "legacy"
    await override(peer, "clear", "account_settings_admin")
    assert (await evaluate(peer, "/settings/profile"))["target"] == "legacy"


async def test_clear_and_rollback_change_only_the_named_override() -> None:
    peer = production()
    await flip(peer)
    assert set(peer.route_targets().values()) == {"rust_shell"}
    await override(peer, "clear")
    assert peer.route_targets()["global"] is None
    assert peer.route_targets()["auth_entry"] == "rust_shell"
    await override(peer, "rollback", "auth_entry")
    data = (await override(peer, "rollback", "chat_pilot")).json()["data"]
    assert data["domain_overrides"]["auth_entry"] == "legacy"
    assert data["domain_overrides"]["chat_pilot"] == "rust_shell"
    assert data["route_groups"][0]["override_target"] == "legacy"
    await override(peer, "rollback")
    assert peer.route_targets()["global"] == "legacy"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"target": "rust_shell"}, 422),
        ({}, 422),
        ({"target": ["rust"]}, 422),
        ({"target": "rust", "domain": "moon"}, 422),
        ([], 400),
    ],
)
async def test_an_invalid_override_is_refused(body: object, status: int) -> None:
    peer = production()
    assert (await control(peer, "override", body)).status == status
    assert set(peer.route_targets().values()) == {None}


async def test_an_evaluation_requires_a_path() -> None:
    assert (await control(production(), "evaluate", {"cohort_key": "k"})).status == 422


async def test_each_instance_remembers_its_own_overrides() -> None:
    peer = production(layout=evolve(LAYOUT, instances=3))
    await override(peer, "rust")
    holders = [one for one in peer.routes if one["global"] == "rust_shell"]
    assert len(holders) == 1
    assert peer.requests[0].instance == holders[0]["instance"]
    assert peer.route_targets()["global"] == "mixed"
    seen = {(await control(peer, "status")).json()["data"]["override_target"] for _ in range(40)}
    assert seen == {"rust_shell", None}


async def test_another_revision_does_not_have_the_overrides() -> None:
    peer = production()
    await flip(peer)
    await update(peer, share("svc-2", 100))
    assert (await evaluate(peer, "/feed"))["target"] == "legacy"
    await update(peer, share("svc-1", 100))
    assert (await evaluate(peer, "/feed"))["target"] == "rust_shell"


async def test_a_production_can_start_flipped_or_with_disagreeing_instances() -> None:
    flipped = production(layout=evolve(LAYOUT, flipped=True, instances=2))
    assert set(flipped.route_targets().values()) == {"rust_shell"}
    odd = production(layout=evolve(LAYOUT, odd_instance=True, instances=2))
    assert odd.route_targets()["global"] == "mixed"
