"""The simulated chat service: its tokens, its refusals before a stream, and the events of a turn."""

from datetime import UTC, datetime

import pytest
from attrs import evolve

from cutover.simulation import SimulatedProduction
from tests.support.asgi_caller import (
    CHAT,
    CHATS,
    COMPATIBLE,
    CREDENTIALS,
    FRONT,
    LAYOUT,
    LEGACY,
    Answer,
    HandClock,
    ask,
    chat,
    chats,
    production,
)

pytestmark = pytest.mark.anyio


async def test_a_turn_follows_the_lane_event_by_event() -> None:
    answer = await chat(production())
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    assert answer.headers["x-cutover-revision"] == "svc-1"
    assert "content-length" not in answer.headers
    types = answer.types()
    assert types[:3] == ["start", "start-step", "text-start"]
    assert types[3:-3] == ["text-delta"] * 4
    assert types[-3:] == ["finish-step", "finish", "[DONE]"]
    start, step, text, *deltas, finish_step, finish, _ = answer.events()
    assert start == {"source": "codex", "threadId": "t1", "type": "start"}
    assert step["threadId"] == "t1"
    assert step["turnId"] == finish_step["turnId"] == text["turnId"]
    assert {delta["id"] for delta in deltas} == {text["id"]}
    assert finish == {"status": "accepted", "type": "finish"}


async def test_the_second_alias_takes_the_thread_from_its_path() -> None:
    peer = production()
    first, second = await chat(peer), await chats(peer)
    assert second.events()[0]["threadId"] == "t2"
    assert first.events()[1]["turnId"] != second.events()[1]["turnId"]
    assert peer.turns == 2


async def test_a_text_about_a_tool_gets_a_tool_call() -> None:
    body = {"id": "t1", "messages": [{"role": "user", "content": "use the tool"}]}
    answer = await ask(
        production(),
        "POST",
        f"{FRONT}/api/chat/stream",
        token=CREDENTIALS.auth_token,
        headers=COMPATIBLE,
        json=body,
    )
    assert answer.types()[2:5] == ["tool-input", "tool-output", "tool-output"]
    assert len({event["toolCallId"] for event in answer.events()[2:5]}) == 1


async def test_the_preview_is_one_body_with_a_content_length() -> None:
    answer = await chat(production(layout=evolve(LAYOUT, preview=True)))
    assert answer.types() == ["start", "start-step", "finish-step", "finish", "[DONE]"]
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert len(answer.chunks) == 1


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        (None, 401, "unauthorized"),
        ("nobody", 401, "unauthorized"),
        (CREDENTIALS.control_token, 403, "forbidden"),
    ],
)
async def test_a_stream_requires_a_users_token(token: str | None, status: int, code: str) -> None:
    peer = production()
    url = f"{FRONT}/api/chat/stream"
    answer = await ask(peer, "POST", url, token=token, headers=COMPATIBLE, json=CHAT)
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert peer.turns == 0


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("x-oa-client-build-id", None, "invalid_client_build"),
        ("x-oa-client-build-id", "yesterday", "invalid_client_build"),
        ("x-oa-client-build-id", "20200101T000000Z", "upgrade_required"),
        ("x-oa-protocol-version", "openagents.control.v2", "unsupported_protocol_version"),
        ("x-oa-schema-version", "2", "unsupported_schema_version"),
        ("x-oa-schema-version", None, "unsupported_schema_version"),
    ],
)
async def test_the_426_names_the_incompatible_header(header: str, value: str | None, code: str) -> None:
    headers = {name: kept for name, kept in COMPATIBLE.items() if name != header}
    headers |= {} if value is None else {header: value}
    url = f"{FRONT}/api/chats/t2/stream"
    answer = await ask(production(), "POST", url, token=CREDENTIALS.auth_token, headers=headers, json=CHATS)
    assert answer.status == 426
    assert answer.headers["x-oa-compatibility-code"] == answer.json()["error"]["code"] == code
    assert answer.json()["compatibility"] == {
        "upgrade_required": True,
        "protocol_version": "openagents.control.v1",
        "min_client_build_id": "20260101T000000Z",
        "min_schema_version": 1,
        "max_schema_version": 1,
    }


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"{}", 422, "invalid_request"),
        (b'{"id":"t1","messages":[]}', 422, "invalid_request"),
        (b'{"id":"t1","messages":[{"role":"assistant","content":"x"}]}', 422, "invalid_request"),
        (b'{"id":"t1","messages":[{"role":"user","content":"  "}]}', 422, "invalid_request"),
        (b'{"id":"t1","messages":[{"role":"user","content":[{"type":"file"}]}]}', 422, "invalid_request"),
        (b'{"messages":[{"role":"user","content":"no thread"}]}', 422, "invalid_request"),
    ],
)
async def test_a_body_without_user_text_starts_no_turn(content: bytes, status: int, code: str) -> None:
    peer = production()
    answer = await ask(
        peer,
        "POST",
        f"{FRONT}/api/chat/stream",
        token=CREDENTIALS.auth_token,
        headers=COMPATIBLE,
        content=content,
    )
    assert (answer.status, answer.json()["error"]["code"]) == (status, code)
    assert "message" in answer.json()
    assert peer.turns == 0
    assert not peer.requests[0].started_turn


JSON_TYPE = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("path", "content", "headers", "status", "text"),
    [
        ("/api/chat/stream", b"not json", JSON_TYPE, 400, "Failed to parse the request body as JSON"),
        ("/api/chat/stream", b"[]", JSON_TYPE, 400, "Failed to parse the request body as JSON"),
        ("/api/chat/stream", b"{}", {"content-type": "text/plain"}, 415, "Expected request with"),
        ("/api/auth/email", b"{}", JSON_TYPE, 422, "missing field `email`"),
        ("/api/v1/control/route-split/override", b"{}", JSON_TYPE, 422, "missing field `target`"),
        ("/api/v1/control/route-split/evaluate", b"{}", JSON_TYPE, 422, "missing field `path`"),
        ("/api/v1/control/route-split/override", b"", {}, 415, "Expected request with"),
    ],
)
async def test_the_framework_refuses_a_body_in_plain_text(
    path: str, content: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    peer = production()
    url = FRONT + path
    token = None if "route-split" in path else CREDENTIALS.auth_token
    answer = await ask(peer, "POST", url, token=token, headers=COMPATIBLE | headers, content=content)
    assert (answer.status, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert text in answer.body.decode()
    assert peer.turns == 0


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/chat/stream", "POST"),
        ("GET", "/api/chats/t1/stream", "POST"),
        ("POST", "/api/me", "GET"),
        ("GET", "/api/v1/control/route-split/override", "POST"),
    ],
)
async def test_a_wrong_method_has_an_empty_body(method: str, path: str, allowed: str) -> None:
    answer = await ask(production(), method, FRONT + path, token=CREDENTIALS.control_token)
    assert (answer.status, answer.headers["allow"], answer.body) == (405, allowed, b"")


async def test_the_thread_of_another_user_is_refused_as_a_missing_permission_is() -> None:
    peer = production()
    url = f"{FRONT}/api/chats/thread_of_others/stream"
    answer = await ask(
        peer,
        "POST",
        url,
        token=CREDENTIALS.auth_token,
        headers=COMPATIBLE,
        json={"messages": CHAT["messages"]},
    )
    assert answer.status == 403
    assert answer.json()["error"] == {"code": "forbidden", "message": "Requested thread is not available."}
    assert peer.turns == 0


async def test_each_stream_leaves_its_thread_in_three_lists_the_newest_first() -> None:
    peer = production(layout=evolve(LAYOUT, lists_threads=True))
    for number in range(60):
        url = f"{FRONT}/api/chats/probe_{number}/stream"
        await ask(peer, "POST", url, token=CREDENTIALS.auth_token, headers=COMPATIBLE, json=CHATS)
    lists = {}
    for path in ("/api/me", "/api/runtime/threads", "/api/chats"):
        data = (await ask(peer, "GET", FRONT + path, token=CREDENTIALS.auth_token)).json()["data"]
        lists[path] = [each["id"] for each in (data["chatThreads"] if path == "/api/me" else data)]
    whole = [*(f"probe_{number}" for number in reversed(range(60))), "thread_1"]
    assert lists["/api/runtime/threads"] == whole
    assert lists["/api/me"] == lists["/api/chats"] == whole[:50]


async def test_each_service_has_its_own_store_of_threads() -> None:
    peer = production(layout=evolve(LAYOUT, lists_threads=True))
    await chat(peer)
    old = await ask(peer, "GET", f"{LEGACY}/api/chats", token=CREDENTIALS.legacy_token)
    assert [each["id"] for each in old.json()["data"]] == ["thread_1"]


async def test_by_default_a_stream_changes_no_list() -> None:
    peer = production()
    await chat(peer)
    found = await ask(peer, "GET", f"{FRONT}/api/chats", token=CREDENTIALS.auth_token)
    assert [each["id"] for each in found.json()["data"]] == ["thread_1"]


@pytest.mark.parametrize("token", [CREDENTIALS.auth_token, CREDENTIALS.control_token])
async def test_a_user_can_ask_when_the_session_ends(token: str) -> None:
    peer = production(layout=evolve(LAYOUT, session_seconds=3600.0))
    answer = await ask(peer, "GET", f"{FRONT}/api/auth/session", token=token)
    ends = datetime.fromisoformat(answer.json()["data"]["session"]["accessExpiresAt"])
    assert 3500 < (ends - datetime.now(UTC)).total_seconds() <= 3600


async def test_without_a_token_or_at_the_legacy_service_nobody_learns_when_a_session_ends() -> None:
    peer = production()
    assert (await ask(peer, "GET", f"{FRONT}/api/auth/session")).status == 401
    url = f"{LEGACY}/api/auth/session"
    assert (await ask(peer, "GET", url, token=CREDENTIALS.legacy_token)).status == 404


@pytest.mark.parametrize(
    ("method", "path", "token", "status", "kind"),
    [
        ("GET", "/openapi.json", None, 200, "application/json"),
        ("GET", "/manifest.json", None, 200, "application/json"),
        ("GET", "/", None, 200, "text/html; charset=utf-8"),
        ("GET", "/feed", None, 200, "text/html; charset=utf-8"),
        ("GET", "/api/me", None, 401, "application/json"),
        ("GET", "/api/me", "token-of-user", 200, "application/json"),
        ("GET", "/api/runtime/threads", "token-of-user", 200, "application/json"),
        ("GET", "/api/chats", "token-of-user", 200, "application/json"),
        ("POST", "/api/auth/email", None, 422, "text/plain; charset=utf-8"),
        ("PATCH", "/api/settings/profile", None, 401, "application/json"),
        ("PATCH", "/api/settings/profile", "token-of-user", 422, "application/json"),
        ("POST", "/api/runtime/tools/execute", None, 401, "application/json"),
        ("POST", "/api/runtime/tools/execute", "token-of-user", 422, "application/json"),
        ("GET", "/nowhere", None, 404, "application/json"),
    ],
)
async def test_other_paths(method: str, path: str, token: str | None, status: int, kind: str) -> None:
    answer = await ask(production(), method, FRONT + path, token=token, json={})
    assert (answer.status, answer.headers["content-type"]) == (status, kind)
    assert answer.headers["x-cutover-revision"] == "svc-1"


@pytest.mark.parametrize(
    "path", ["/openapi.json", "/manifest.json", "/api/me", "/api/runtime/threads", "/api/chats"]
)
async def test_legacy_documents_differ_only_in_dates_and_request_ids(path: str) -> None:
    peer = production()
    new = (await ask(peer, "GET", FRONT + path, token=CREDENTIALS.auth_token)).json()
    old = (await ask(peer, "GET", LEGACY + path, token=CREDENTIALS.legacy_token)).json()
    assert new.pop("request_id") != old.pop("request_id")
    assert new.pop("generated_at")
    assert old.pop("generated_at")
    assert new == old


async def test_legacy_streams_the_same_turn_with_its_own_ids() -> None:
    peer = production()
    new, old = await chat(peer), await chat(peer, base=LEGACY, token=CREDENTIALS.legacy_token)
    assert new.types() == old.types()
    assert new.events()[1]["turnId"] != old.events()[1]["turnId"]
    assert "x-cutover-revision" not in old.headers
    refused = await chat(peer, base=LEGACY, token=CREDENTIALS.auth_token)
    assert refused.status == 403
    assert peer.turns == 2


async def test_legacy_has_no_control_plane() -> None:
    url = f"{LEGACY}/api/v1/control/route-split/status"
    assert (await ask(production(), "GET", url, token=CREDENTIALS.control_token)).status == 404


async def test_the_log_names_tokens_and_never_holds_one() -> None:
    peer = production()
    await chat(peer)
    await ask(peer, "GET", f"{FRONT}/api/me", token="stolen")
    await ask(peer, "GET", f"{FRONT}/feed?page=2")
    streamed, stolen, page = peer.requests
    assert (streamed.token, streamed.status, streamed.started_turn) == ("auth", 200, True)
    assert (stolen.token, stolen.status) == ("unknown", 401)
    assert (page.token, page.query, page.sequence) == (None, {"page": "2"}, 2)
    shown = repr(peer.requests) + repr(peer.credentials)
    assert not any(token in shown for token in ("token-of-user", "token-of-operator", "stolen"))


async def test_an_unknown_host_is_not_found() -> None:
    peer = production()
    assert (await ask(peer, "GET", "https://elsewhere.example/")).status == 404
    assert peer.requests[0].site is None


async def session(peer: SimulatedProduction, token: str) -> Answer:
    return await ask(peer, "GET", f"{FRONT}/api/auth/session", token=token)


async def test_a_token_expires_and_a_renewed_one_does_not() -> None:
    clock = HandClock()
    layout = evolve(LAYOUT, token_lifetimes={"auth": 60.0})
    peer = production(clock=clock, layout=layout)
    assert (await chat(peer)).status == 200
    clock.seconds += 59.0
    assert (await chat(peer)).status == 200
    clock.seconds += 1.0
    assert (await chat(peer)).status == 401
    peer.renew("auth", "token-of-user-2")
    path = f"{FRONT}/api/me"
    assert [
        (await ask(peer, "GET", path, token=token)).status
        for token in ("token-of-user-2", CREDENTIALS.auth_token)
    ] == [
        200,
        401,
    ]
    assert (await ask(production(), "GET", path, token="token-of-user-2")).status == 401


async def test_the_session_page_tells_when_a_token_expires() -> None:
    peer = production(layout=evolve(LAYOUT, token_lifetimes={"auth": 60.0}))
    answer = await session(peer, CREDENTIALS.auth_token)
    expires_at = datetime.fromisoformat(answer.json()["data"]["session"]["accessExpiresAt"])
    assert 50 < (expires_at - datetime.now(UTC)).total_seconds() <= 60
    assert (await session(peer, "another")).status == 401
    silent = production(layout=evolve(LAYOUT, token_lifetimes={"auth": 60.0}, tells_sessions=False))
    assert (await session(silent, CREDENTIALS.auth_token)).status == 404


@pytest.mark.parametrize(
    ("token", "path", "tells", "status"),
    [
        (CREDENTIALS.cloud_run_token, "/tokeninfo", True, 200),
        (CREDENTIALS.auth_token, "/tokeninfo", True, 400),
        (None, "/tokeninfo", True, 400),
        (CREDENTIALS.cloud_run_token, "/tokeninfo", False, 404),
        (CREDENTIALS.cloud_run_token, "/token", True, 404),
    ],
)
async def test_google_tells_how_long_its_own_token_lives(
    token: str | None, path: str, tells: bool, status: int
) -> None:
    layout = evolve(LAYOUT, token_lifetimes={"cloud_run": 60.0}, tells_sessions=tells)
    answer = await ask(production(layout=layout), "GET", f"https://oauth2.googleapis.com{path}", token=token)
    assert answer.status == status
    if status == 200:
        assert answer.json() == {"expires_in": "60"}
