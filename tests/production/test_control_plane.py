"""The route-split API: the requests that are sent, and the meaning of its replies."""

import json
import shlex
import subprocess

import httpx
import msgspec
import pytest

from cutover.errors import NoAnswerError, RefusedError, UnusableReplyError
from cutover.model.route_state import GLOBAL, RouteState
from cutover.production.lane import COMPAT
from cutover.production.routes.control_plane import (
    SAMPLE_CONCURRENCY,
    SAMPLE_READS,
    UNKNOWN_TARGET,
    RouteSample,
)
from tests.support.route_instances import (
    BASE,
    CLEAR,
    COMPAT_HEADERS,
    Instances,
    control,
    control_that_replies,
    status_body,
)

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]


class TestStatus:
    async def test_overrides_are_sorted_with_the_global_one_last(self) -> None:
        body = {
            "data": {
                "enabled": True,
                "mode": "coh\u202eort",
                "cohort_percentage": 5,
                "force_legacy": False,
                "override_target": "rust",
                "route_groups": [
                    {"domain": "z", "override_target": ""},
                    {"domain": "a", "override_target": "rust_shell"},
                    {"domain": "m", "override_target": "leg\x07acy"},
                ],
            }
        }
        found = await control_that_replies(msgspec.json.encode(body)).status(label="status")
        assert found.overrides == (
            ("a", "rust_shell"),
            ("m", "leg\\x07acy"),
            ("z", None),
            (GLOBAL, "rust_shell"),
        )
        assert found.mode == "enabled=True, mode=coh\\u202eort, cohort_percentage=5, force_legacy=False"
        assert found.domains == ("a", "m", "z")

    async def test_domain_overrides_win_over_the_route_groups(self) -> None:
        body = (
            b'{"data":{"override_target":null,"route_groups":[{"domain":"a"}],'
            b'"domain_overrides":{"a":"rust","unlisted":"legacy"}}}'
        )
        found = await control_that_replies(body).status(label="status")
        assert found.overrides == (("a", "rust_shell"), ("unlisted", "legacy"), (GLOBAL, None))

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b"<!doctype html><title>Sign in</title>", "a JSON reply was expected"),
            (b"[]", "no object in `data`"),
            (b'{"data":[]}', "no object in `data`"),
            (b'{"data":{}}', "no `route_groups` or no `override_target`"),
            (b'{"data":{"route_groups":[]}}', "no `route_groups` or no `override_target`"),
            (b'{"data":{"override_target":null,"route_groups":{}}}', "no `route_groups`"),
            (b'{"data":{"override_target":null,"route_groups":["a"]}}', "a route group is no object"),
            (
                b'{"data":{"override_target":null,"route_groups":[{"domain":1}]}}',
                "'1' is not the name of a domain",
            ),
            (
                b'{"data":{"override_target":null,"route_groups":[{"domain":"a b"}]}}',
                "'a b' is not the name of a domain",
            ),
            (
                b'{"data":{"override_target":null,"route_groups":[{"domain":"global"}]}}',
                "'global' is not the name of a domain",
            ),
            (
                b'{"data":{"override_target":null,"route_groups":[],"domain_overrides":{"\\u001b":""}}}',
                r"x1b' is not the name of a domain",
            ),
        ],
    )
    async def test_a_malformed_reply_raises_one_clear_error(self, body: bytes, message: str) -> None:
        with pytest.raises(UnusableReplyError, match=message) as caught:
            await control_that_replies(body).status(label="status")
        assert str(caught.value).startswith(f"GET {BASE}{COMPAT.status_path}: ")

    async def test_a_refusal_raises_an_error_that_quotes_the_reply(self) -> None:
        with pytest.raises(RefusedError, match=r"HTTP 403 \(forbidden\)"):
            await control_that_replies(b'{"error":{"code":"forbidden"}}', 403).status(label="status")


class TestEvaluate:
    async def test_the_request_names_the_path_and_the_cohort(self) -> None:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            data = {"target": "legacy", "reason": "mode_legacy", "route_domain": "auth_entry"}
            return httpx.Response(200, json={"data": data})

        found = await control(answer).evaluate("/login", cohort_key="prod", label="flip.evaluate.login")
        assert (found.path, found.target, found.reason) == ("/login", "legacy", "mode_legacy")
        assert found.domain == "auth_entry"
        assert requests[0].url == f"{BASE}{COMPAT.evaluate_path}"
        assert msgspec.json.decode(requests[0].content) == {"path": "/login", "cohort_key": "prod"}

    async def test_control_characters_in_a_reply_are_escaped(self) -> None:
        body = b'{"data":{"target":"le\\u001bgacy","reason":"a\\nforged","route_domain":"\\u202e"}}'
        found = await control_that_replies(body).evaluate("/", cohort_key="", label="flip.evaluate")
        assert (found.target, found.reason, found.domain) == ("le\\x1bgacy", "a\\nforged", "\\u202e")

    async def test_reason_and_domain_may_be_missing(self) -> None:
        found = await control_that_replies(b'{"data":{"target":"rust_shell","route_domain":null}}').evaluate(
            "/", cohort_key="", label="flip.evaluate"
        )
        assert (found.target, found.reason, found.domain) == ("rust_shell", "", None)

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"data":{}}', "the reply names no target"),
            (b'{"data":{"target":7}}', "the reply names no target"),
            (b"null", "no object in `data`"),
            (b"", "a JSON reply was expected"),
        ],
    )
    async def test_a_malformed_reply_raises_one_clear_error(self, body: bytes, message: str) -> None:
        with pytest.raises(UnusableReplyError, match=message):
            await control_that_replies(body).evaluate("/", cohort_key="", label="flip.evaluate")


class TestSample:
    async def test_instances_that_agree_give_one_state(self) -> None:
        instances = Instances(count=3, seconds=0.1)
        sample = await control(instances.answer).sample(label="preflight.routes")
        assert sample.agreed == CLEAR
        assert sample.shares == ((CLEAR, SAMPLE_READS),)
        assert (instances.reads, instances.most_busy) == (SAMPLE_READS, SAMPLE_CONCURRENCY)
        assert set(instances.labels) == {"preflight.routes"}

    async def test_instances_that_disagree_are_described_by_their_number_of_reads(self) -> None:
        instances = Instances(count=4)
        instances.memories[3][GLOBAL] = "legacy"
        sample = await control(instances.answer).sample(label="preflight.routes")
        assert sample.agreed is None
        assert [state.get(GLOBAL) for state, _ in sample.shares] == [None, "legacy"]
        assert sum(count for _, count in sample.shares) == SAMPLE_READS
        few = sample.shares[1][1]
        assert sample.describe().endswith(
            f"{few} of 59 reads: auth_entry=clear, billing_l402=clear, global=legacy"
        )
        assert sample.holds([("auth_entry", None)])
        assert not sample.holds([(GLOBAL, None)])

    async def test_one_refused_read_ends_the_sample(self) -> None:
        instances = Instances(on_read=lambda number: httpx.Response(401) if number >= 10 else None)
        with pytest.raises(RefusedError, match="HTTP 401"):
            await control(instances.answer).sample(label="preflight.routes")
        assert instances.reads < SAMPLE_READS

    def test_a_sample_without_reads_has_no_agreed_state(self) -> None:
        assert RouteSample(shares=()).agreed is None


class TestOverride:
    async def test_the_request_names_a_domain_but_not_the_global_key(self) -> None:
        bodies: list[object] = []

        def answer(request: httpx.Request) -> httpx.Response:
            bodies.append(msgspec.json.decode(request.content))
            return httpx.Response(200, content=status_body({"auth_entry": "rust_shell"}))

        plane = control(answer)
        state = await plane.override("auth_entry", "rust", label="flip")
        await plane.override(GLOBAL, "clear", label="flip")
        assert state.get("auth_entry") == "rust_shell"
        assert bodies == [{"target": "rust", "domain": "auth_entry"}, {"target": "clear"}]

    async def test_an_override_without_a_reply_may_have_taken_effect(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            raise httpx.ReadError("reset")

        with pytest.raises(NoAnswerError):
            await control(answer).override(GLOBAL, "rust", label="flip")

    async def test_a_login_page_is_not_taken_for_an_acceptance(self) -> None:
        with pytest.raises(UnusableReplyError):
            await control_that_replies(b"<html>").override(GLOBAL, "rust", label="flip")


async def test_every_request_has_the_headers_that_a_service_may_enforce() -> None:
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        data: dict[str, object] = {"target": "legacy", "override_target": None, "route_groups": []}
        return httpx.Response(200, json={"data": data})

    plane = control(answer)
    await plane.status(label="status")
    await plane.evaluate("/", cohort_key="", label="evaluate")
    await plane.override(GLOBAL, "rust", label="override")
    await plane.override_permission(label="permission")
    assert len(requests) == 4
    for request in requests:
        assert request.headers["authorization"] == "Bearer marked-control-token"
        assert {name: request.headers[name] for name in COMPAT_HEADERS} == COMPAT_HEADERS


FORBIDDEN = b'{"message":"Forbidden","error":{"code":"forbidden","message":"Forbidden"}}'
UNKNOWN = b'{"message":"Unknown","error":{"code":"invalid_request","message":"Unknown target."}}'


class TestPermission:
    async def test_the_request_sets_a_target_that_no_service_knows(self) -> None:
        requests: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            requests.append(request)
            return httpx.Response(422, content=UNKNOWN)

        found = await control(answer).override_permission(label="preflight.permission-routes")
        assert found.proven
        assert "CONTROL_ACCESS_TOKEN may set overrides" in found.detail
        assert "Unknown target." in found.detail
        (request,) = requests
        assert (request.method, str(request.url)) == ("POST", f"{BASE}{COMPAT.override_path}")
        assert msgspec.json.decode(request.content) == {"target": UNKNOWN_TARGET}
        assert request.extensions["label"] == "preflight.permission-routes"

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (403, FORBIDDEN, "give the token of a user who is an administrator"),
            (403, b"<!doctype html>", "the permission to set overrides is not known"),
            (422, b"Failed to deserialize the JSON body: missing field `scope`", "missing field `scope`"),
            (422, b"", "an empty body"),
            (401, FORBIDDEN, "the permission to set overrides is not known"),
            (404, b'{"message":"Not found."}', "HTTP 404 (Not found.)"),
            (302, b"", "the permission to set overrides is not known"),
            (200, b'{"data":{}}', "the request may have changed the global override"),
            (204, b"", "the request may have changed the global override"),
        ],
    )
    async def test_any_other_reply_proves_nothing_and_says_what_to_do(
        self, status: int, body: bytes, said: str
    ) -> None:
        found = await control_that_replies(body, status).override_permission(label="permission")
        assert not found.proven
        assert said in found.detail
        assert f"HTTP {status}" in found.detail
        assert "CONTROL_ACCESS_TOKEN" in found.detail or status < 300

    async def test_a_request_that_changes_nothing_is_sent_again(self) -> None:
        replies = [httpx.Response(503), httpx.Response(422, content=UNKNOWN)]
        found = await control(lambda _: replies.pop(0)).override_permission(label="permission")
        assert found.proven

    async def test_no_reply_is_no_answer(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("down")

        with pytest.raises(NoAnswerError):
            await control(answer).override_permission(label="permission")


class TestForbidden:
    async def test_the_services_own_refusal_is_a_missing_permission(self) -> None:
        with pytest.raises(RefusedError, match="the user of CONTROL_ACCESS_TOKEN may not do this") as caught:
            await control_that_replies(FORBIDDEN, 403).override(GLOBAL, "rust", label="flip")
        assert caught.value.status == 403
        assert "overrides need an administrator" in str(caught.value)

    async def test_a_page_has_no_meaning(self) -> None:
        with pytest.raises(RefusedError, match="<title>Denied") as caught:
            await control_that_replies(b"<title>Denied</title>", 403).status(label="status")
        assert "administrator" not in str(caught.value)


class TestAgreement:
    def test_the_commands_set_what_most_instances_have_where_one_differs(self) -> None:
        odd = RouteState(overrides=(("auth_entry", None), ("billing_l402", "legacy"), (GLOBAL, "rust_shell")))
        service = control_that_replies(b"")
        advice = service.how_to_agree(RouteSample(shares=((CLEAR, 40), (odd, 20))))
        assert advice.endswith(f": {service.curl('billing_l402', None)}; {service.curl(GLOBAL, None)}")
        assert "auth_entry" not in advice

    def test_settings_that_differ_are_no_override_to_set(self) -> None:
        other = RouteState(overrides=CLEAR.overrides, mode="enabled=True")
        advice = control_that_replies(b"").how_to_agree(RouteSample(shares=((CLEAR, 40), (other, 20))))
        assert (
            advice
            == "their settings differ: wait until every instance runs the same version, then start again"
        )


class TestCurl:
    @pytest.mark.parametrize(
        ("key", "value", "body"),
        [
            (GLOBAL, None, {"target": "clear"}),
            (GLOBAL, "rust_shell", {"target": "rust"}),
            ("auth_entry", "legacy", {"target": "legacy", "domain": "auth_entry"}),
            ("billing_l402", None, {"target": "clear", "domain": "billing_l402"}),
            (GLOBAL, "it's $HOME", {"target": "it's $HOME"}),
        ],
    )
    def test_a_shell_reads_one_whole_request_from_it(
        self, key: str, value: str | None, body: dict[str, str]
    ) -> None:
        words = shlex.split(control_that_replies(b"").curl(key, value))
        assert words[:4] == ["curl", "-X", "POST", f"{BASE}{COMPAT.override_path}"]
        assert words[4::2] == [*["-H"] * 5, "-d"]
        headers = dict(word.split(": ", 1) for word in words[5:-2:2])
        assert headers == {
            **COMPAT_HEADERS,
            "authorization": "Bearer $CONTROL_ACCESS_TOKEN",
            "content-type": "application/json",
        }
        assert json.loads(words[-1]) == body

    def test_the_token_is_a_variable_that_the_shell_fills_in(self) -> None:
        line = control_that_replies(b"").curl(GLOBAL, "it's $HOME `id`")
        assert "-H 'authorization: Bearer '$CONTROL_ACCESS_TOKEN" in line
        assert "marked" not in line
        script = line.replace("curl", "printf '%s\\n'", 1)
        done = subprocess.run(
            ["/bin/sh", "-c", script],
            env={"CONTROL_ACCESS_TOKEN": "abc.def"},
            capture_output=True,
            text=True,
            check=True,
        )
        lines = done.stdout.splitlines()
        assert "authorization: Bearer abc.def" in lines
        assert json.loads(lines[-1]) == {"target": "it's $HOME `id`"}


def test_the_repr_does_not_show_the_token() -> None:
    assert "marked" not in repr(control_that_replies(b""))
