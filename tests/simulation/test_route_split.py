"""The simulated route split: the order of its rules, its overrides, and the separate memory of each instance."""

import pytest
from attrs import evolve

from cutover.simulation import Layout, Operation, RouteSplitSettings
from tests.support.asgi_caller import (
    COMPATIBLE,
    CREDENTIALS,
    FRONT,
    LAYOUT,
    ask,
    chat,
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


@pytest.mark.parametrize(
    ("token", "status", "override"),
    [
        (None, 401, 401),
        ("nobody", 401, 401),
        (CREDENTIALS.cloud_run_token, 403, 403),
        (CREDENTIALS.auth_token, 200, 403),
        (CREDENTIALS.control_token, 200, 200),
    ],
)
async def test_every_user_may_read_the_control_plane_and_only_an_operator_may_set_overrides(
    token: str | None, status: int, override: int
) -> None:
    url = f"{FRONT}/api/v1/control/route-split/"
    peer = production()
    read = await ask(peer, "GET", f"{url}status", token=token)
    evaluated = await ask(peer, "POST", f"{url}evaluate", token=token, json={"path": "/"})
    changed = await ask(peer, "POST", f"{url}override", token=token, json={"target": "rust"})
    assert (read.status, evaluated.status, changed.status) == (status, status, override)


@pytest.mark.parametrize(
    ("token", "status"), [("nobody", 401), (CREDENTIALS.auth_token, 403), (CREDENTIALS.control_token, 422)]
)
async def test_an_unknown_target_tells_if_a_token_may_set_overrides(token: str, status: int) -> None:
    peer = production()
    url = f"{FRONT}/api/v1/control/route-split/override"
    answer = await ask(peer, "POST", url, token=token, json={"target": "cutover-permission-check"})
    assert answer.status == status
    assert "message" in answer.json()["error"]
    assert [entry.operation for entry in peer.requests] == [Operation.ROUTE_PERMISSION]
    assert set(peer.route_targets().values()) == {None}


@pytest.mark.parametrize("content", [b"{}", b"not json", b'{"target":["rust"]}', b'{"target":"rust"}'])
async def test_only_a_known_override_to_an_unknown_target_counts_as_one_that_changes_nothing(
    content: bytes,
) -> None:
    peer = production()
    url = f"{FRONT}/api/v1/control/route-split/override"
    await ask(peer, "POST", url, token=CREDENTIALS.control_token, content=content)
    assert [entry.operation for entry in peer.requests] == [Operation.ROUTE_OVERRIDE]


class TestCompatibility:
    URL = f"{FRONT}/api/v1/control/route-split/status"

    @pytest.mark.parametrize("token", [None, "nobody", CREDENTIALS.control_token])
    async def test_where_it_is_enforced_it_comes_before_the_token(self, token: str | None) -> None:
        peer = production(layout=evolve(LAYOUT, enforces_compatibility=True))
        answer = await ask(peer, "GET", self.URL, token=token)
        assert answer.status == 426
        assert answer.headers["x-oa-compatibility-code"] == "invalid_client_build"
        assert answer.json()["error"] == {
            "code": "invalid_client_build",
            "message": "client_build_id is required",
        }

    async def test_with_the_headers_the_token_decides(self) -> None:
        peer = production(layout=evolve(LAYOUT, enforces_compatibility=True))
        refused = await ask(peer, "GET", self.URL, headers=COMPATIBLE)
        read = await ask(peer, "GET", self.URL, headers=COMPATIBLE, token=CREDENTIALS.control_token)
        assert (refused.status, read.status) == (401, 200)

    async def test_where_it_is_not_enforced_the_headers_are_not_needed(self) -> None:
        assert (await ask(production(), "GET", self.URL, token=CREDENTIALS.control_token)).status == 200


class TestLaterVersion:
    LAYOUT = evolve(LAYOUT, later_version=True)

    async def test_the_lane_announces_its_end(self) -> None:
        peer = production(layout=self.LAYOUT)
        for answer in (await chat(peer), await control(peer, "status"), await override(peer, "rust")):
            assert answer.headers["sunset"] == "Tue, 30 Jun 2026 00:00:00 GMT"
            assert answer.headers["x-oa-compat-sunset-date"] == "2026-06-30"
            assert "x-oa-compat-migration-doc" in answer.headers
        assert "sunset" not in (await ask(peer, "GET", FRONT)).headers
        assert "sunset" not in (await chat(production())).headers

    async def test_htmx_overrides_change_the_rendering_of_a_domain_and_no_route(self) -> None:
        peer = production(layout=self.LAYOUT)
        await flip(peer)
        before = (await control(peer, "status")).json()["data"]
        after = (await override(peer, "htmx_fragment", "auth_entry")).json()["data"]
        assert before["htmx_modes"]["auth_entry"] == "full_page"
        assert after["htmx_modes"]["auth_entry"] == "fragment"
        assert {k: v for k, v in before.items() if k != "htmx_modes"} == {
            k: v for k, v in after.items() if k != "htmx_modes"
        }
        assert (await override(peer, "htmx_fragment")).status == 422
        assert (await override(production(), "htmx_fragment", "auth_entry")).status == 422

    async def test_some_pages_are_gone_although_evaluations_still_name_them(self) -> None:
        peer = production(layout=self.LAYOUT)
        await flip(peer)
        assert (await ask(peer, "GET", f"{FRONT}/feed")).status == 404
        assert (await evaluate(peer, "/feed"))["target"] == "rust_shell"


@pytest.mark.parametrize(
    ("path", "domain"),
    [
        ("/login", "auth_entry"),
        ("/elsewhere", "unclassified"),
        ("/api/chat/stream", "api_rust_authority"),
        ("/api/runtime/codex/workers", "api_rust_authority"),
    ],
)
async def test_every_evaluation_names_a_domain(path: str, domain: str) -> None:
    assert (await evaluate(production(), path))["route_domain"] == domain


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
