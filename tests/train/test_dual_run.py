"""The dual run: which answers of two services count as the same, and which requests and tokens each service gets."""

import itertools
import math
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import attrs
import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutover.clock import EventLoopClock
from cutover.config.manifest import shipped_manifest
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets
from cutover.model.comparison import Answer, Verdict, judge
from cutover.model.json_difference import VARIES
from cutover.model.latency_interval import percentile
from cutover.model.manifest import ManifestEntry, ResponseKind
from cutover.model.results import Check, StepResult, StepStatus
from cutover.model.stream_features import stream_features
from cutover.production.services import Services
from cutover.protocols import COMPAT_LANE
from cutover.record.evidence import EvidenceFolder
from cutover.record.journal import Journal
from cutover.simulation import FAULTS
from cutover.train.step_recorder import StepRecorder
from cutover.train.steps import dual_run
from cutover.train.steps.dual_run import Plan
from cutover.train.two_services import MAX_JSON_BYTES, Side
from cutover.wiring.embedded import simulated
from tests.support.embedded_trains import EmbeddedTrain, live_config

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

NEW, OLD = "https://chat.example", "https://legacy.chat.example"
Reply = Callable[[httpx.Request], httpx.Response]


def entry(kind: ResponseKind = ResponseKind.JSON, **changes: object) -> ManifestEntry:
    """Return a manifest entry with these changes."""
    values: dict[str, object] = {
        "id": "e", "method": "GET", "path": "/api/e", "critical": True, "requires_auth": False,
    }  # fmt: skip
    return ManifestEntry(response_kind=kind, **{**values, **changes})  # type: ignore[arg-type]


def answer(status: int | None = 200, meaning: object = None) -> Answer:
    """Return the answer of one service; None means that there was none."""
    text = "silence" if status is None else f"HTTP {status}"
    return Answer(status=status, meaning=meaning, said=text, seconds=None if status is None else 0.1)


def verdict(asked: ManifestEntry, new: Answer, old: Answer) -> Verdict:
    """Return the verdict on one answer of each service."""
    return judge(asked, (new,), (old,), thread_id_prefix="thread_probe")


def stream(*chunks: object) -> bytes:
    """Return a stream of these chunks; a text is sent as it is."""
    lines = [chunk if isinstance(chunk, str) else msgspec.json.encode(chunk).decode() for chunk in chunks]
    return "".join(f"data: {line}\n\n" for line in lines).encode()


TURN = (
    {"type": "start", "threadId": "t1"},
    {"type": "start-step", "turnId": "turn_1"},
    {"type": "text-start", "id": "1"},
    {"type": "text-delta", "id": "1", "delta": "Hello"},
    {"type": "text-delta", "id": "1", "delta": " there"},
    {"type": "tool-input", "toolCallId": "c1", "toolName": "search", "input": {}},
    {"type": "tool-output", "toolCallId": "c1", "status": "done"},
    {"type": "finish-step", "status": "accepted"},
    {"type": "finish", "status": "accepted"},
)


class TestDifference:
    @pytest.mark.parametrize("kind", ResponseKind)
    @pytest.mark.parametrize(
        ("new", "old", "why"),
        [
            (None, None, "the new service: silence"),
            (200, None, "the legacy service: silence"),
            (500, 500, "the new service fails: HTTP 500"),
            (200, 503, "the legacy service fails: HTTP 503"),
            (200, 404, "the new service says HTTP 200, the legacy service HTTP 404"),
            (
                404,
                404,
                'both services answer without success: HTTP 404; if that is right, set "expect_status": 404 in the entry',
            ),
            (
                302,
                302,
                'both services answer without success: HTTP 302; if that is right, set "expect_status": 302 in the entry',
            ),
            (200, 200, ""),
        ],
    )
    def test_two_failures_alike_are_still_a_difference(
        self, kind: ResponseKind, new: int | None, old: int | None, why: str
    ) -> None:
        assert verdict(entry(kind), answer(new), answer(old)).why == why

    @pytest.mark.parametrize("critical", [True, False])
    @pytest.mark.parametrize("status", [401, 403])
    @pytest.mark.parametrize("side", ["new", "legacy", "both"])
    def test_a_refused_token_is_always_a_difference(self, side: str, status: int, critical: bool) -> None:
        new, old = (answer(status if side in {name, "both"} else 200) for name in ("new", "legacy"))
        why = verdict(entry(requires_auth=True, critical=critical), new, old).why
        assert (
            why == f"the {'legacy' if side == 'legacy' else 'new'} service refuses the token: HTTP {status}"
        )

    @pytest.mark.parametrize("critical", [True, False])
    def test_two_equal_refusals_agree_only_where_the_manifest_expects_them(self, critical: bool) -> None:
        refused = answer(422, {"error": {"code": "invalid_request"}})
        asked = entry(critical=critical, requires_auth=True)
        unexpected = verdict(asked, refused, refused)
        assert unexpected.status is StepStatus.FAIL
        assert unexpected.why.endswith('if that is right, set "expect_status": 422 in the entry')
        expected = attrs.evolve(asked, expect_status=422)
        assert verdict(expected, refused, refused).status is StepStatus.PASS
        other = answer(422, {"error": {"code": "other"}})
        assert ".error.code" in verdict(expected, refused, other).why

    def test_two_successes_differ_where_the_manifest_expects_a_refusal(self) -> None:
        found = verdict(entry(expect_status=422), answer(200, {}), answer(200, {}))
        assert found.why == "both services say HTTP 200, and the manifest expects 422"

    def test_a_token_may_be_refused_where_the_manifest_expects_it(self) -> None:
        asked = entry(requires_auth=True, expect_status=403)
        assert verdict(asked, answer(403, {}), answer(403, {})).status is StepStatus.PASS
        assert verdict(asked, answer(401, {}), answer(401, {})).status is StepStatus.ERROR

    def test_equal_redirects_agree_in_an_entry_that_is_not_critical(self) -> None:
        assert verdict(entry(critical=False), answer(302, {}), answer(302, {})).why == ""

    def test_a_stream_must_succeed_even_if_it_is_not_critical(self) -> None:
        found = verdict(entry(ResponseKind.SSE, critical=False), answer(302), answer(302))
        assert "both services answer without success" in found.why

    @pytest.mark.parametrize(
        ("new", "old", "why"),
        [
            ({"a": 1}, {"a": 2}, ".a is 1 in the new service and 2 in the legacy service"),
            (
                {"a": {"b": [1, {"c": 2}]}},
                {"a": {"b": [1, {}]}},
                ".a.b[1].c is 2 in the new service and nothing in",
            ),
            ({"a": [1]}, {"a": [1, 2]}, ".a has 1 items in the new service and 2 in the legacy service"),
            ([], {}, "the answer is [] in the new service and {} in"),
            ([1], [], "the answer has 1 items in the new service and 0 in"),
            ({"k\x1b": 1}, {}, ".k\\x1b is 1 in the new service and nothing in"),
            ("x\u202e", None, 'the answer is "x\\u202e" in the new service and null in'),
            ("1", 1, 'the answer is "1" in the new service and 1 in'),
        ],
    )
    def test_the_text_names_the_first_place_that_differs(self, new: object, old: object, why: str) -> None:
        text = verdict(entry(), answer(200, new), answer(200, old)).why
        assert text.startswith(f"the answers differ in meaning: {why}")


def features(*chunks: object) -> dict[str, object]:
    return stream_features(stream(*chunks), with_text=False)


class TestFeaturesOfAStream:
    def test_ids_and_the_cuts_of_a_text_do_not_matter(self) -> None:
        other = [
            {**chunk, **{key: "else" for key in ("id", "threadId", "turnId", "toolCallId") if key in chunk}}
            for chunk in TURN
            if chunk.get("delta") != " there"
        ]
        same = stream_features(stream(*other, "[DONE]").replace(b"\n", b"\r\n"), with_text=False)
        assert features(*TURN, "[DONE]") == same

    @pytest.mark.parametrize(
        "other",
        [
            (*TURN[:5], {**TURN[5], "toolName": "buy"}, *TURN[6:], "[DONE]"),
            (*TURN[:6], {**TURN[6], "status": "failed"}, *TURN[7:], "[DONE]"),
            (*TURN[:-1], {"type": "finish", "status": "error"}, "[DONE]"),
            (*TURN[:-2], TURN[-1], TURN[-2], "[DONE]"),
            TURN,
            (*TURN, "[DONE]", "[DONE]"),
            (*TURN[:6], *TURN[5:], "[DONE]"),
            (*TURN[:-1], "[DONE]"),
            ("[DONE]", *TURN),
            (*TURN[:4], "not JSON", *TURN[4:], "[DONE]"),
            (*TURN[:4], "[1]", *TURN[4:], "[DONE]"),
        ],
    )
    def test_tools_ends_and_order_matter(self, other: Sequence[object]) -> None:
        assert features(*TURN, "[DONE]") != features(*other)

    def test_errors_differ_by_their_code(self) -> None:
        found = features({"type": "error", "code": "turn_failed", "message": "a"})
        assert found["errors"] == [{"code": "turn_failed", "fields": "code message type"}]

    def test_only_dispatched_events_count(self) -> None:
        body = b": comment\n\nretry: 3\n\ndata: [DONE]\n\ndata: cut off"
        found = stream_features(body, with_text=False)
        assert (found["order"], found["end"]) == ("[DONE]", "in the middle of an event")

    def test_tools_have_their_names_inputs_and_outcomes(self) -> None:
        other = {"toolCallId": "c2", "type": "tool-input-start", "toolName": "buy"}
        chunks = [
            *TURN[:7],
            other,
            {"type": "tool-input-available", "toolCallId": "c2", "toolName": "buy", "input": {"n": 1}},
            {"type": "tool-output-error", "toolCallId": "c2", "errorText": "no"},
        ]
        assert features(*chunks)["tools"] == [
            {"toolName": "search", "input": {}, "outcome": "done"},
            {"toolName": "buy", "input": {"n": 1}, "outcome": "tool-output-error"},
        ]

    def test_the_text_is_a_feature_only_where_it_is_asked_for(self) -> None:
        assert "text" not in features(*TURN)
        assert stream_features(stream(*TURN), with_text=True)["text"] == "Hello there"


class TestP95:
    @pytest.mark.parametrize(
        ("seconds", "milliseconds"),
        [
            ((), None),
            ((0.5,), 500.0),
            ((3.0, 1.0), 3000.0),
            ([1.0] * 19 + [9.0], 1000.0),
            ([1.0] * 18 + [9.0] * 2, 9000.0),
        ],
    )
    def test_the_p95_is_the_nearest_rank(self, seconds: Sequence[float], milliseconds: float | None) -> None:
        assert percentile(seconds, 0.95) == milliseconds

    @given(st.lists(st.floats(min_value=0, max_value=100), min_size=1))
    def test_95_percent_of_the_answers_are_no_slower(self, seconds: list[float]) -> None:
        found = percentile(seconds, 0.95)
        assert found is not None
        no_slower = sum(round(each * 1000, 3) <= found for each in seconds)
        assert no_slower >= math.ceil(0.95 * len(seconds))


_CHANCE = random.Random(1)  # noqa: S311  a test needs the same latencies in each run
JITTER = {
    base: tuple(_CHANCE.random() if _CHANCE.random() < 1 / 7 else 0.0 for _ in range(200))
    for base in (NEW, OLD)
}
"""The seconds that the n-th answer of a service takes: one in seven is slow, by up to a second."""


@attrs.define(eq=False)
class Comparison:
    """A dual run of two fake services whose replies are given."""

    new: Reply
    old: Reply
    entries: Sequence[ManifestEntry]
    changes: dict[str, object] = attrs.field(factory=dict)
    slow: dict[str, float] = attrs.field(factory=dict)
    """Base URL -> seconds that each answer of the service takes."""
    jitter: bool = False
    """True: the answers of both services take the times of ``JITTER``, whatever order an event loop gives their requests."""
    identity: Callable[[httpx.Request], httpx.Response | None] = lambda _: None
    """The answer of the legacy service to the requests that ask for its identity; None for its answer to any request."""
    requests: dict[str, list[httpx.Request]] = attrs.field(factory=lambda: {NEW: [], OLD: []})
    """The compared requests."""
    identity_requests: list[httpx.Request] = attrs.field(factory=list)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        base = f"https://{request.url.host}"
        await request.aread()
        if request.extensions["label"].startswith("dual-identity."):
            assert base == OLD
            self.identity_requests.append(request)
            return self.identity(request) or self.old(request)
        self.requests[base].append(request)
        slow = 0.0
        if self.jitter:
            slow = JITTER[base][len(self.requests[base]) - 1]
        await anyio.sleep(self.slow.get(base, 0.0) + slow)
        return (self.new if base == NEW else self.old)(request)

    async def run(self, directory: Path) -> StepResult:
        async with services(directory, self._answer) as found:
            recorder = StepRecorder(step_id=dual_run.STEP_ID, journal=Journal(), evidence=EvidenceFolder())
            return await dual_run.run(self.plan(), found, recorder)

    def plan(self) -> Plan:
        headers = {"x-oa-protocol-version": "1"}
        values: dict[str, object] = {
            "manifest": tuple(self.entries),
            "new": Side(name="new", base_url=NEW, token="marked-new", headers=headers),
            "old": Side(name="legacy", base_url=OLD, token="marked-old", headers=headers),
            "contract": COMPAT_LANE,
            "thread_prefix": "thread_",
            "thread_id_prefix": "thread_probe",
            "stable_revision": "chat-1",
            "canary_revision": "chat-2",
            "revision_header": "x-revision",
            "instance_header": "x-instance",
            "run_mutating_requests": False,
            "max_dual_run_failures": 0,
            "max_p95_latency_delta_ms": 0.0,
        }
        return Plan(**{**values, **self.changes})  # type: ignore[arg-type]


@asynccontextmanager
async def services(
    directory: Path, answer: Callable[[httpx.Request], object], *secrets: str
) -> AsyncIterator[Services]:
    """Yield the services of a train, in which this function answers for the new and for the legacy service."""
    trial = EmbeddedTrain(live_config(directory))
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer))  # type: ignore[arg-type]
    outbound = Outbound(client=client, clock=EventLoopClock(), secrets=Secrets(secrets))
    async with simulated(trial.config, trial.production, clock=EventLoopClock()).services() as found:
        yield attrs.evolve(found, service=outbound, legacy=outbound)


def json_reply(document: object, status: int = 200) -> Reply:
    return lambda _: httpx.Response(status, json=document)


def sse_reply(*chunks: object) -> Reply:
    headers = {"content-type": "text/event-stream; charset=utf-8", "x-vercel-ai-ui-message-stream": "v1"}
    return lambda _: httpx.Response(200, headers=headers, content=stream(*chunks))


def rows(result: StepResult) -> dict[str, Check]:
    """Return the checks of a result by their ids."""
    return {check.check_id: check for check in result.checks}


def section(result: StepResult, name: str) -> dict[str, object]:
    """Return one section of the facts of a result."""
    found = result.facts[name]
    assert isinstance(found, dict)
    return found


class TestRun:
    async def test_json_is_compared_without_its_volatile_fields(self, tmp_path: Path) -> None:
        new = {"items": [{"id": 1, "request_id": "a"}], "generated_at": "now", "meta": {"requestId": 1}}
        old = {"meta": {}, "items": [{"request_id": "b", "id": 1}], "generatedAt": "then"}
        result = await Comparison(json_reply(new), json_reply(old), [entry()]).run(tmp_path)
        assert result.status is StepStatus.PASS
        assert result.detail == "1 of 1 requests have the same answer from both services"
        assert section(result, "totals") == {
            "request_count": 1, "skipped": 0, "mismatches": 0, "critical_mismatches": 0, "stream_mismatches": 0,
        }  # fmt: skip
        assert rows(result)["e"].kind == "json"

    async def test_each_mismatch_is_one_row_and_is_counted_by_kind(self, tmp_path: Path) -> None:
        entries = [
            entry(id="json"),
            entry(id="lesser", critical=False),
            entry(ResponseKind.SSE, id="sse", method="POST", body={"a": 1}),
            entry(ResponseKind.TEXT, id="text"),
        ]
        result = await Comparison(json_reply({"a": 1}), json_reply({"a": 2}, 201), entries).run(tmp_path)
        assert (result.status, result.failure_count) == (StepStatus.FAIL, 4)
        assert section(result, "totals") == {
            "request_count": 4, "skipped": 0, "mismatches": 4, "critical_mismatches": 3, "stream_mismatches": 1,
        }  # fmt: skip
        table = result.facts["requests"]
        assert isinstance(table, list)
        assert [(row["id"], row["match"], row["rust_status"], row["legacy_status"]) for row in table] == [
            ("json", False, 200, 201), ("lesser", False, 200, 201), ("sse", False, 200, 201), ("text", False, 200, 201),
        ]  # fmt: skip

    async def test_texts_are_compared_line_by_line(self, tmp_path: Path) -> None:
        asked = entry(ResponseKind.TEXT)
        new: Reply = lambda _: httpx.Response(200, text="<html>\n<b>new</b>\n")  # noqa: E731
        old: Reply = lambda _: httpx.Response(200, text="<html>\n<b>old</b>\n")  # noqa: E731
        result = await Comparison(new, old, [asked]).run(tmp_path)
        assert result.status is StepStatus.FAIL
        assert (
            "the texts differ: line 2 is '<b>new</b>' in the new service and '<b>old</b>' in" in result.detail
        )
        ignored = attrs.evolve(asked, ignore=("text",))
        found = rows(await Comparison(new, old, [ignored]).run(tmp_path))["e"]
        assert (found.status, found.detail) == (StepStatus.PASS, "HTTP 200; not compared: text")

    async def test_streams_are_compared_by_their_order(self, tmp_path: Path) -> None:
        same = Comparison(sse_reply(*TURN, "[DONE]"), sse_reply(*TURN, "[DONE]"), [entry(ResponseKind.SSE)])
        assert (await same.run(tmp_path)).status is StepStatus.PASS
        other = Comparison(sse_reply(*TURN, "[DONE]"), sse_reply(*TURN), [entry(ResponseKind.SSE)])
        result = await other.run(tmp_path)
        assert result.status is StepStatus.FAIL
        assert 'stream.end is "after [DONE]" in the new service and "without [DONE]" in' in result.detail

    async def test_two_services_that_are_down_are_no_evidence(self, tmp_path: Path) -> None:
        def refuse(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        entries = [entry(id="json"), entry(ResponseKind.SSE, id="sse")]
        result = await Comparison(refuse, refuse, entries, {"max_p95_latency_delta_ms": 10.0}).run(tmp_path)
        assert "could not connect" in rows(result)["json"].detail
        assert "could not connect" in rows(result)["sse"].detail
        assert section(result, "latency_ms") == {
            "rust_p50": None, "rust_p95": None, "legacy_p50": None, "legacy_p95": None, "p95_delta": None, "answers": 0,
        }  # fmt: skip
        assert rows(result)["p95-latency"].status is StepStatus.ERROR

    async def test_a_stream_that_breaks_counts_as_no_answer(self, tmp_path: Path) -> None:
        class Cut(httpx.AsyncByteStream):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                yield stream(*TURN)
                raise httpx.ReadError("reset")

        comparison = Comparison(
            lambda _: httpx.Response(200, stream=Cut()), sse_reply(*TURN, "[DONE]"), [entry(ResponseKind.SSE)]
        )
        result = await comparison.run(tmp_path)
        assert result.detail.startswith("e: the new service: ")
        assert section(result, "latency_ms")["rust_p95"] is None

    @pytest.mark.parametrize(
        ("new", "old"),
        [(True, 1), (False, 0), (True, "True"), ([{"b": False}], [{"b": 0}]), (None, False), (0, "")],
    )
    async def test_values_of_other_json_types_differ_even_if_python_calls_them_equal(
        self, new: object, old: object, tmp_path: Path
    ) -> None:
        other = await Comparison(json_reply({"a": new}), json_reply({"a": old}), [entry()]).run(tmp_path)
        assert other.detail.startswith("e: the answers differ in meaning: .a")
        same = await Comparison(json_reply({"a": new}), json_reply({"a": new}), [entry()]).run(tmp_path)
        assert same.status is StepStatus.PASS

    async def test_html_in_place_of_json_counts_as_no_answer(self, tmp_path: Path) -> None:
        html: Reply = lambda _: httpx.Response(200, text="<html>")  # noqa: E731  a typed lambda is shorter here
        result = await Comparison(html, html, [entry()]).run(tmp_path)
        assert "a JSON reply was expected" in result.detail


class TestLatency:
    @pytest.mark.parametrize(
        ("new", "old", "status"),
        [
            (0.060, 0.050, StepStatus.PASS),
            (0.070, 0.050, StepStatus.FAIL),
            (0.010, 0.900, StepStatus.PASS),
        ],
    )
    async def test_the_new_service_may_be_slower_by_the_allowed_delta(
        self, new: float, old: float, status: StepStatus, tmp_path: Path
    ) -> None:
        same = json_reply({})
        comparison = Comparison(
            same, same, [entry()], {"max_p95_latency_delta_ms": 15.0}, slow={NEW: new, OLD: old}
        )
        result = await comparison.run(tmp_path)
        latency = section(result, "latency_ms")
        assert latency["p95_delta"] == pytest.approx((new - old) * 1000, abs=1.0)
        row = rows(result)["p95-latency"]
        assert row.status is status
        assert "15 ms is allowed" in row.detail

    async def test_the_latency_is_recorded_even_if_it_is_not_gated(self, tmp_path: Path) -> None:
        same = json_reply({})
        result = await Comparison(same, same, [entry()], slow={NEW: 5.0}).run(tmp_path)
        assert result.status is StepStatus.PASS
        assert section(result, "latency_ms")["rust_p95"] == pytest.approx(5000.0)
        assert "p95-latency" not in rows(result)


class TestRequests:
    async def test_each_side_gets_its_own_token_for_entries_that_need_one(self, tmp_path: Path) -> None:
        same = json_reply({})
        entries = [
            entry(id="open"),
            entry(id="me", requires_auth=True, headers={"accept": "application/json"}),
        ]
        comparison = Comparison(same, same, entries)
        await comparison.run(tmp_path)
        tokens = {
            base: [request.headers.get("authorization") for request in requests]
            for base, requests in comparison.requests.items()
        }
        assert tokens == {
            NEW: [None] * 2 + ["Bearer marked-new"] * 2,
            OLD: [None] * 2 + ["Bearer marked-old"] * 2,
        }
        for request in (*comparison.requests[NEW], *comparison.requests[OLD]):
            assert request.headers["x-oa-protocol-version"] == "1"
        assert comparison.requests[NEW][2].headers["accept"] == "application/json"
        assert comparison.requests[NEW][2].extensions["label"] == "dual.new.me"

    @pytest.mark.parametrize("kind", [ResponseKind.SSE, ResponseKind.JSON])
    async def test_the_thread_id_is_filled_into_path_and_body(
        self, kind: ResponseKind, tmp_path: Path
    ) -> None:
        asked = entry(
            kind,
            id="chat",
            method="POST",
            path="/api/chats/{thread_id}/stream",
            body={"id": "{thread_id}", "messages": [{"content": "{thread_id}", "n": 1}]},
        )
        reply = sse_reply(*TURN, "[DONE]") if kind is ResponseKind.SSE else json_reply({})
        comparison = Comparison(reply, reply, [asked])
        await comparison.run(tmp_path)
        # Each request has a thread of its own.
        for side, base in (("new", NEW), ("legacy", OLD)):
            requests = sorted(comparison.requests[base], key=lambda request: request.url.path)
            for copy, request in enumerate(requests, 1):
                thread_id = f"thread_{side}_chat_1_{copy}"
                assert request.url.path == f"/api/chats/{thread_id}/stream"
                assert request.headers["content-type"] == "application/json"
                assert msgspec.json.decode(request.content) == {
                    "id": thread_id,
                    "messages": [{"content": thread_id, "n": 1}],
                }
            assert len(comparison.requests[base]) == 2

    async def test_mutating_requests_are_not_sent_by_default(self, tmp_path: Path) -> None:
        same = json_reply({})
        entries = [entry(), entry(id="post", method="POST", mutates=True)]
        comparison = Comparison(same, same, entries)
        result = await comparison.run(tmp_path)
        assert result.status is StepStatus.PASS
        assert rows(result)["post"].status is StepStatus.SKIP
        assert section(result, "totals")["skipped"] == 1
        assert [request.method for request in comparison.requests[NEW]] == ["GET"] * 2

    async def test_a_dual_run_that_sent_nothing_has_no_evidence(self, tmp_path: Path) -> None:
        same = json_reply({})
        result = await Comparison(same, same, [entry(mutates=True)]).run(tmp_path)
        assert result.status is StepStatus.ERROR
        assert not rows(result)["requests"].tolerable
        assert "nothing was compared" in result.detail

    async def test_a_mutating_request_is_sent_once(self, tmp_path: Path) -> None:
        down = json_reply({}, 503)
        comparison = Comparison(
            down, down, [entry(method="POST", mutates=True, body={})], {"run_mutating_requests": True}
        )
        result = await comparison.run(tmp_path)
        assert "the new service fails: HTTP 503" in result.detail
        assert [len(requests) for requests in comparison.requests.values()] == [1, 1]

    async def test_a_reading_request_is_tried_twice(self, tmp_path: Path) -> None:
        down = json_reply({}, 503)
        comparison = Comparison(down, down, [entry()])
        await comparison.run(tmp_path)
        assert [len(requests) for requests in comparison.requests.values()] == [4, 4]


STATUS_PATH = "/api/v1/control/route-split/status"
ROUTES = {
    "data": {"override_target": None, "route_groups": [{"domain": "d", "override_target": "rust_shell"}]}
}


def at(path: str, reply: httpx.Response) -> Callable[[httpx.Request], httpx.Response | None]:
    """Return an identity that gives this reply at one path, and for the rest answers like any other request."""
    return lambda request: reply if request.url.path == path else None


def redirect(location: str) -> Callable[[httpx.Request], httpx.Response | None]:
    return lambda _: httpx.Response(307, headers={"location": location})


class TestIdentityOfTheLegacyService:
    async def _run(
        self,
        directory: Path,
        identity: Callable[[httpx.Request], httpx.Response | None],
        **changes: object,
    ) -> tuple[StepResult, Comparison]:
        same = json_reply({})
        comparison = Comparison(same, same, [entry()], changes, identity=identity)
        return await comparison.run(directory), comparison

    @pytest.mark.parametrize(
        ("identity", "sign"),
        [
            (
                at("/", httpx.Response(200, headers={"X-Revision": "chat-1"})),
                "its header x-revision names chat-1",
            ),
            (
                at(STATUS_PATH, httpx.Response(401, headers={"x-revision": "chat-2"})),
                "its header x-revision names chat-2",
            ),
            (
                at(STATUS_PATH, httpx.Response(200, json=ROUTES)),
                "answers with the overrides of the route split",
            ),
            (redirect(f"{NEW}/login"), f"{OLD} redirects to the host of BASE_URL: HTTP 307"),
            (redirect("//CHAT.example.:443/"), f"{OLD} redirects to the host of BASE_URL: HTTP 307"),
        ],
    )
    async def test_the_new_service_at_the_legacy_url_is_no_evidence(
        self, identity: Callable[[httpx.Request], httpx.Response | None], sign: str, tmp_path: Path
    ) -> None:
        result, comparison = await self._run(tmp_path, identity)
        assert result.status is StepStatus.ERROR
        assert comparison.requests == {NEW: [], OLD: []}
        (row,) = result.checks
        assert (row.check_id, row.status, row.tolerable) == ("legacy-identity", StepStatus.ERROR, False)
        assert row.detail.startswith("the new service answers at LEGACY_BASE_URL (")
        assert sign in row.detail
        assert row.detail.endswith(
            "Set LEGACY_BASE_URL to the URL of the legacy service, or set RUN_DUAL_RUN=0"
        )
        assert section(result, "totals")["request_count"] == 0

    @pytest.mark.parametrize(
        "identity",
        [
            at(STATUS_PATH, httpx.Response(401)),
            at(STATUS_PATH, httpx.Response(404, text="<html>")),
            at(STATUS_PATH, httpx.Response(200, text="<html>")),
            at(STATUS_PATH, httpx.Response(200, json={"data": {"status": "ok"}})),
            # A refusal that shows routes is no usable state.
            at(STATUS_PATH, httpx.Response(403, json=ROUTES)),
            at(STATUS_PATH, httpx.Response(500)),
            at("/", httpx.Response(200, headers={"x-revision": "legacy-7"})),
            at("/", httpx.Response(200, headers={"x-other": "chat-1"})),
            # Its start page alone, or its unknown paths alone, may lead to the new host.
            at("/", httpx.Response(301, headers={"location": NEW})),
            at(STATUS_PATH, httpx.Response(308, headers={"location": NEW})),
            redirect("/login"),
            redirect("https://elsewhere.example/"),
            redirect("https://[broken"),
            lambda _: httpx.Response(201, headers={"location": NEW}),
            lambda _: httpx.Response(302),
        ],
    )
    async def test_an_answer_that_a_legacy_service_may_give_is_no_sign(
        self, identity: Callable[[httpx.Request], httpx.Response | None], tmp_path: Path
    ) -> None:
        result, comparison = await self._run(tmp_path, identity)
        assert result.status is StepStatus.PASS, result.detail
        assert rows(result)["legacy-identity"].detail.startswith("no sign of the new service: GET ")
        assert [len(requests) for requests in comparison.requests.values()] == [2, 2]

    async def test_a_redirect_within_the_host_that_both_urls_share_is_no_sign(self, tmp_path: Path) -> None:
        old = Side(name="legacy", base_url=f"{NEW}/old", token="marked-old")

        def answer(request: httpx.Request) -> httpx.Response:
            asks = request.extensions["label"].startswith("dual-identity.")
            return (
                httpx.Response(302, headers={"location": "/login"}) if asks else httpx.Response(200, json={})
            )

        comparison = Comparison(json_reply({}), json_reply({}), [entry()], {"old": old})
        async with services(tmp_path, answer) as found:
            recorder = StepRecorder(step_id=dual_run.STEP_ID, journal=Journal(), evidence=EvidenceFolder())
            assert (await dual_run.run(comparison.plan(), found, recorder)).status is StepStatus.PASS

    async def test_without_a_revision_header_no_header_is_a_sign(self, tmp_path: Path) -> None:
        named = at("/", httpx.Response(200, headers={"": "chat-1", "x-revision": "chat-1"}))
        result, _ = await self._run(tmp_path, named, revision_header="")
        assert result.status is StepStatus.PASS

    async def test_only_the_status_path_gets_a_token_and_only_that_of_the_legacy_service(
        self, tmp_path: Path
    ) -> None:
        _, comparison = await self._run(tmp_path, lambda _: None)
        sent = {
            (request.method, request.url.path): request.headers.get("authorization")
            for request in comparison.identity_requests
        }
        assert sent == {("GET", "/"): None, ("GET", STATUS_PATH): "Bearer marked-old"}
        assert all(
            request.headers["x-oa-protocol-version"] == "1" for request in comparison.identity_requests
        )

    async def test_a_legacy_service_that_answers_nothing_is_no_evidence(self, tmp_path: Path) -> None:
        def refuse(request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError("refused")

        result, _ = await self._run(tmp_path, refuse)
        row = rows(result)["legacy-identity"]
        assert row.status is StepStatus.ERROR
        assert row.detail.startswith("no service answers at LEGACY_BASE_URL: GET ")

    async def test_one_answer_of_the_new_service_among_the_compared_ones_is_no_evidence(
        self, tmp_path: Path
    ) -> None:
        """A load balancer may send some paths of the legacy host to the new service."""

        def old(request: httpx.Request) -> httpx.Response:
            moved = request.url.path == "/api/moved"
            return httpx.Response(200, json={}, headers={"x-revision": "chat-2"} if moved else {})

        entries = [entry(id="moved", path="/api/moved"), entry(id="own")]
        result = await Comparison(json_reply({}), old, entries).run(tmp_path)
        assert rows(result)["own"].status is StepStatus.PASS
        row = rows(result)["moved"]
        assert (row.status, row.tolerable) == (StepStatus.ERROR, False)
        assert "names chat-2, a revision of this train), so the answers prove nothing" in row.detail


class TestThreadsOfProbes:
    PROBE = "thread_probe_20261128T105003Z_0a1b2c_0001"

    async def _run(self, directory: Path, new: object, old: object) -> Check:
        result = await Comparison(json_reply(new), json_reply(old), [entry()]).run(directory)
        return rows(result)["e"]

    async def test_they_are_left_out_and_counted(self, tmp_path: Path) -> None:
        new, old = [{"id": self.PROBE}, {"id": "thread_1"}], [{"id": "thread_1"}]
        row = await self._run(tmp_path, {"data": {"chatThreads": new}}, {"data": {"chatThreads": old}})
        assert row.status is StepStatus.PASS
        assert row.detail == (
            "HTTP 200; .data.chatThreads without the threads of probes (1 in the new service, 0 in the legacy service)"
        )

    async def test_a_difference_beside_them_is_found(self, tmp_path: Path) -> None:
        row = await self._run(tmp_path, [{"id": self.PROBE}, {"id": "thread_2"}], [{"id": "thread_1"}])
        assert row.status is StepStatus.FAIL
        assert row.detail.startswith(
            'the answers differ in meaning: [0].id is "thread_2" in the new service and "thread_1" in the legacy service, '
            "after 12 answers of each service; the answer without the threads of probes (1 in the new"
        )

    async def test_a_list_that_they_fill_is_no_evidence(self, tmp_path: Path) -> None:
        row = await self._run(tmp_path, [{"id": self.PROBE}] * 50, [{"id": "thread_1"}])
        assert row.status is StepStatus.ERROR
        assert row.detail.startswith(
            "a list could not be compared; the answer without the threads of probes (50 in"
        )

    async def test_two_lists_that_they_fill_agree_and_the_detail_says_so(self, tmp_path: Path) -> None:
        row = await self._run(tmp_path, [{"id": self.PROBE}] * 50, [{"id": self.PROBE}] * 50)
        assert row.status is StepStatus.PASS
        assert "none of the others could be compared" in row.detail

    async def test_the_ids_of_a_train_are_recognized(self, tmp_path: Path) -> None:
        """Every id that a train gives a thread is left out, whatever the purpose of its probe."""
        config = live_config(tmp_path, run_dual_run=True, thread_id_prefix="smoke.1", held_streams=1)
        trial = EmbeddedTrain(config)
        await trial.run()
        bodies = [row for row in trial.production.requests if row.started_turn]
        listed = [
            {"id": msgspec.json.decode(row.body)["id"]}
            if row.path == "/api/chat/stream"
            else {"id": row.path.split("/")[3]}
            for row in bodies
        ]
        assert len(listed) > 10
        found = judge(entry(), [answer(200, listed)], [answer(200, [])], thread_id_prefix="smoke.1")
        assert found.status is StepStatus.PASS


async def test_a_train_agrees_with_a_legacy_service_of_its_own_store(tmp_path: Path) -> None:
    """Each stream leaves its thread in the lists of the service that it reached."""
    config = live_config(tmp_path, run_dual_run=True)
    summary = await EmbeddedTrain(config, layout_changes={"lists_threads": True}).run()
    step = summary.step(dual_run.STEP_ID)
    assert step is not None
    checks = rows(step)
    assert step.status is StepStatus.PASS, step.detail
    assert all(
        "without the threads of probes" in checks[name].detail for name in ("me", "runtime-threads", "chats")
    )


async def test_a_boolean_in_a_difference_is_shown_as_json(tmp_path: Path) -> None:
    new, old = {"a": [True, {"b": None}]}, {"a": [{"c": False}, {"b": "x"}]}
    result = await Comparison(json_reply(new), json_reply(old), [entry()]).run(tmp_path)
    assert '.a[0] is true in the new service and {"c":false} in the legacy service' in result.detail


async def test_json_that_is_nested_too_deeply_is_no_evidence(tmp_path: Path) -> None:
    deep: Reply = lambda _: httpx.Response(200, content=b"[" * 700 + b"]" * 700)  # noqa: E731  a typed lambda is shorter here
    result = await Comparison(deep, deep, [entry()]).run(tmp_path)
    assert rows(result)["e"].status is StepStatus.ERROR
    assert "its JSON has more than 100 levels, and is not compared" in rows(result)["e"].detail


@pytest.mark.parametrize("kind", [ResponseKind.SSE, ResponseKind.JSON])
async def test_closing_a_connection_is_no_part_of_the_latency(kind: ResponseKind, tmp_path: Path) -> None:
    content = stream(*TURN, "[DONE]") if kind is ResponseKind.SSE else b"{}"

    class Lingering(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            await anyio.sleep(0.5)
            yield content

        async def aclose(self) -> None:
            await anyio.sleep(3.0)

    headers = {"content-type": "text/event-stream; charset=utf-8", "x-vercel-ai-ui-message-stream": "v1"}
    slow: Reply = lambda _: httpx.Response(200, headers=headers, stream=Lingering())  # noqa: E731
    result = await Comparison(slow, slow, [entry(kind)]).run(tmp_path)
    assert result.status is StepStatus.PASS, result.detail
    assert section(result, "latency_ms")["rust_p95"] == pytest.approx(500.0)


async def test_a_secret_that_a_broken_stream_echoes_is_in_no_fact(tmp_path: Path) -> None:
    class Cut(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield b"data: {no JSON, but marked-new\n\n"
            raise httpx.ReadError("reset")

    headers = sse_reply()(httpx.Request("GET", NEW)).headers
    comparison = Comparison(
        lambda _: httpx.Response(200, headers=headers, stream=Cut()),
        sse_reply(*TURN, "[DONE]"),
        [entry(ResponseKind.SSE)],
    )
    async with services(tmp_path, comparison._answer, "marked-new") as found:
        evidence = EvidenceFolder(secrets=found.service.secrets)
        recorder = StepRecorder(step_id=dual_run.STEP_ID, journal=Journal(), evidence=evidence)
        result = await dual_run.run(comparison.plan(), found, recorder)
    assert "no JSON, but **********" in result.detail
    assert "marked" not in repr(result)


async def test_the_embedded_services_give_the_same_answers_to_the_shipped_manifest(tmp_path: Path) -> None:
    """The simulated new service and its legacy service answer every request of the shipped manifest alike."""
    trial = EmbeddedTrain(live_config(tmp_path, run_dual_run=True))
    production = simulated(trial.config, trial.production, clock=EventLoopClock())
    plan = production.plan().dual_run
    assert plan is not None
    assert plan.manifest == shipped_manifest()
    async with production.services() as found:
        recorder = StepRecorder(step_id=dual_run.STEP_ID, journal=Journal(), evidence=EvidenceFolder())
        result = await dual_run.run(plan, found, recorder)
    assert result.status is StepStatus.PASS, result.detail
    assert {entry.response_kind for entry in plan.manifest} == set(ResponseKind)


async def test_the_answers_of_both_sides_are_kept_for_a_mismatch(tmp_path: Path) -> None:
    config = live_config(tmp_path, run_dual_run=True)
    trial = EmbeddedTrain(config, faults=(FAULTS["legacy-differs"],))
    summary = await trial.run()
    step = summary.step(dual_run.STEP_ID)
    assert step is not None
    row = next(check for check in step.checks if check.status is StepStatus.FAIL)
    folder = tmp_path / "run" / dual_run.STEP_ID
    assert row.body_path == f"{dual_run.STEP_ID}/{row.check_id}.new.body"
    new, old = (folder / f"{row.check_id}.{side}.body" for side in ("new", "legacy"))
    assert new.read_bytes() != old.read_bytes()
    assert (folder / f"{row.check_id}.legacy.headers").read_text().startswith("HTTP 200")


def answers_in_turn(*documents: object) -> Reply:
    """Return a service that gives these documents one after another, again and again."""
    cycle = itertools.cycle(documents)
    return lambda _: httpx.Response(200, json=next(cycle))


class TestNoise:
    async def test_noise_that_shows_at_once_is_left_out_and_told(self, tmp_path: Path) -> None:
        new, old = answers_in_turn({"id": 1}, {"id": 2}), answers_in_turn({"id": 3}, {"id": 4})
        comparison = Comparison(new, old, [entry()])
        result = await comparison.run(tmp_path)
        assert rows(result)["e"].detail == "HTTP 200; not compared: .id"
        assert [len(requests) for requests in comparison.requests.values()] == [2, 2]
        table = result.facts["requests"]
        assert isinstance(table, list)
        row = table[0]
        assert (row["answers"], row["left_out"]) == (2, [{"place": ".id", "reason": VARIES}])

    async def test_a_difference_is_asked_again_until_noise_shows(self, tmp_path: Path) -> None:
        # Each value comes four times: two asks of two answers see it alone.
        new = answers_in_turn(*[{"state": "a"}] * 4, *[{"state": "b"}] * 4)
        old = answers_in_turn(*[{"state": "b"}] * 4, *[{"state": "a"}] * 4)
        comparison = Comparison(new, old, [entry()])
        result = await comparison.run(tmp_path)
        assert result.status is StepStatus.PASS, result.detail
        assert [len(requests) for requests in comparison.requests.values()] == [6, 6]

    async def test_what_differs_after_five_further_asks_is_a_difference(self, tmp_path: Path) -> None:
        comparison = Comparison(json_reply({"a": 1}), json_reply({"a": 2}), [entry()])
        result = await comparison.run(tmp_path)
        assert rows(result)["e"].detail == (
            "the answers differ in meaning: .a is 1 in the new service and 2 in the legacy service, "
            "after 12 answers of each service"
        )
        assert [len(requests) for requests in comparison.requests.values()] == [12, 12]

    @pytest.mark.parametrize("noisy", ["new", "old"])
    async def test_noise_on_one_side_only_is_a_difference(self, noisy: str, tmp_path: Path) -> None:
        varies, steady = answers_in_turn({"a": 1}, {"a": 2}), json_reply({"a": 1})
        new, old = (varies, steady) if noisy == "new" else (steady, varies)
        result = await Comparison(new, old, [entry()]).run(tmp_path)
        assert result.status is StepStatus.FAIL
        assert ".a varies in one service alone" in result.detail

    async def test_a_request_that_changes_something_is_sent_once_and_each_difference_counts(
        self, tmp_path: Path
    ) -> None:
        asked = entry(method="POST", mutates=True, body={})
        changes: dict[str, object] = {"run_mutating_requests": True}
        comparison = Comparison(json_reply({"id": 1}), json_reply({"id": 2}), [asked], changes)
        result = await comparison.run(tmp_path)
        assert result.status is StepStatus.FAIL
        assert [len(requests) for requests in comparison.requests.values()] == [1, 1]

    @pytest.mark.parametrize("kind", [ResponseKind.JSON, ResponseKind.TEXT])
    async def test_a_lost_header_is_a_difference_and_those_of_the_host_are_not(
        self, kind: ResponseKind, tmp_path: Path
    ) -> None:
        new: Reply = lambda _: httpx.Response(  # noqa: E731
            200, json={}, headers={"date": "now", "server": "rust", "x-revision": "chat-1"}
        )
        old: Reply = lambda _: httpx.Response(  # noqa: E731
            200, json={}, headers={"cache-control": "no-store", "cf-ray": "1", "set-cookie": "a=b"}
        )
        result = await Comparison(new, old, [entry(kind)]).run(tmp_path)
        assert rows(result)["e"].detail.startswith(
            'the answers differ in meaning: headers.cache-control is nothing in the new service and "no-store"'
        )
        ignored = entry(kind, ignore=("headers.cache-control",))
        assert (await Comparison(new, old, [ignored]).run(tmp_path)).status is StepStatus.PASS

    async def test_a_redirect_to_the_own_url_is_the_same(self, tmp_path: Path) -> None:
        def redirected(base: str) -> Reply:
            return lambda _: httpx.Response(302, headers={"location": f"{base}/login"})

        asked = entry(ResponseKind.TEXT, critical=False)
        result = await Comparison(redirected(NEW), redirected(OLD), [asked]).run(tmp_path)
        assert result.status is StepStatus.PASS, result.detail

    async def test_a_text_of_which_every_line_varies_is_no_evidence(self, tmp_path: Path) -> None:
        numbers = itertools.count()
        text: Reply = lambda _: httpx.Response(200, text=f"{next(numbers)}")  # noqa: E731
        result = await Comparison(text, text, [entry(ResponseKind.TEXT)]).run(tmp_path)
        assert rows(result)["e"].status is StepStatus.ERROR
        assert "every line differs between two answers of one service" in result.detail

    @pytest.mark.parametrize("deterministic", [True, False])
    async def test_the_text_of_a_stream_counts_only_where_the_manifest_says_so(
        self, deterministic: bool, tmp_path: Path
    ) -> None:
        def told(*words: str) -> Reply:
            cycle = itertools.cycle(words)

            def reply(request: httpx.Request) -> httpx.Response:
                delta = {**TURN[3], "delta": next(cycle)}
                return sse_reply(*TURN[:3], delta, *TURN[5:], "[DONE]")(request)

            return reply

        asked = entry(ResponseKind.SSE, deterministic=deterministic)
        result = await Comparison(told("a"), told("b"), [asked]).run(tmp_path)
        assert ("stream.text" in result.detail) is deterministic
        result = await Comparison(told("a", "b"), told("c", "d"), [asked]).run(tmp_path)
        assert ('the manifest says "deterministic": true' in result.detail) is deterministic

    async def test_all_that_differs_and_all_that_was_left_out_is_kept(self, tmp_path: Path) -> None:
        new, old = (
            answers_in_turn({"id": 1, "a": 1}, {"id": 2, "a": 1}),
            answers_in_turn({"id": 3}, {"id": 4}),
        )
        comparison = Comparison(new, old, [entry()])
        async with services(tmp_path, comparison._answer) as found:
            evidence = EvidenceFolder(root=tmp_path)
            recorder = StepRecorder(step_id=dual_run.STEP_ID, journal=Journal(), evidence=evidence)
            await dual_run.run(comparison.plan(), found, recorder)
        kept = msgspec.json.decode((tmp_path / dual_run.STEP_ID / "e.comparison.json").read_bytes())
        assert [each["place"] for each in kept["differences"]] == [".a"]
        assert [each["place"] for each in kept["left_out"]] == [".id"]


class TestLimits:
    async def test_json_that_is_too_large_is_no_evidence(self, tmp_path: Path) -> None:
        large: Reply = lambda _: httpx.Response(200, content=b'"' + b"a" * MAX_JSON_BYTES + b'"')  # noqa: E731
        result = await Comparison(large, large, [entry()]).run(tmp_path)
        assert rows(result)["e"].status is StepStatus.ERROR
        assert "its JSON has more than 2097152 bytes, and is not compared" in result.detail

    async def test_a_stream_that_is_too_long_is_no_evidence(self, tmp_path: Path) -> None:
        delta = {"type": "text-delta", "id": "1", "delta": "a" * (60 << 10)}
        reply = sse_reply(*TURN[:3], *[delta] * 80, *TURN[5:], "[DONE]")
        result = await Comparison(reply, reply, [entry(ResponseKind.SSE)]).run(tmp_path)
        assert rows(result)["e"].status is StepStatus.ERROR
        assert "the stream has 4194304 bytes or more, and is not compared" in result.detail

    async def test_only_answers_that_are_compared_are_kept_while_the_latency_is_gated(
        self, tmp_path: Path
    ) -> None:
        same = json_reply({"a": 1})
        comparison = Comparison(same, same, [entry()], {"max_p95_latency_delta_ms": 5.0})
        result = await comparison.run(tmp_path)
        assert rows(result)["p95-latency"].status is StepStatus.PASS
        assert [len(requests) for requests in comparison.requests.values()] == [60, 60]
        # A difference that was there in all answers is not asked for again.
        comparison = Comparison(same, json_reply({}), [entry()], {"max_p95_latency_delta_ms": 5.0})
        assert rows(await comparison.run(tmp_path))["e"].status is StepStatus.FAIL
        assert [len(requests) for requests in comparison.requests.values()] == [60, 60]

    async def test_answers_that_fail_make_the_latency_inconclusive(self, tmp_path: Path) -> None:
        numbers = itertools.count()

        def flaky(request: httpx.Request) -> httpx.Response:
            if next(numbers) == 0:
                return httpx.Response(200, text="<html>")
            return httpx.Response(200, json={})

        comparison = Comparison(flaky, json_reply({}), [entry()], {"max_p95_latency_delta_ms": 5.0})
        row = rows(await comparison.run(tmp_path))["p95-latency"]
        assert row.status is StepStatus.ERROR
        assert "60 answers of each service are needed" in row.detail

    async def test_a_latency_that_is_not_certain_is_measured_again_and_at_most_twice(
        self, tmp_path: Path
    ) -> None:
        same = json_reply({})
        # One answer in seven is slow, in both services: 10 ms lie inside the interval of the p95.
        comparison = Comparison(same, same, [entry()], {"max_p95_latency_delta_ms": 10.0})
        comparison.jitter = True
        row = rows(await comparison.run(tmp_path))["p95-latency"]
        assert row.status is StepStatus.ERROR
        assert row.detail.startswith("inconclusive: ")
        assert "from 180 answers of each" in row.detail
        assert [len(requests) for requests in comparison.requests.values()] == [180, 180]

    async def test_another_status_while_the_latency_is_measured_is_no_evidence(self, tmp_path: Path) -> None:
        numbers = itertools.count()

        def gone(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200 if next(numbers) < 60 else 404, json={})

        comparison = Comparison(gone, json_reply({}), [entry()], {"max_p95_latency_delta_ms": 10.0})
        comparison.jitter = True
        row = rows(await comparison.run(tmp_path))["p95-latency"]
        assert row.status is StepStatus.ERROR
        assert "e: one answer of the new service is another one: HTTP 404" in row.detail
