"""Outbound requests: retries, deadlines, size limits, masked secrets and the wording of a failure."""

import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import httpx
import pytest
from anyio.lowlevel import checkpoint

from cutover.clock import EventLoopClock, SkippingClock
from cutover.errors import NoAnswerError, RefusedError, UnusableReplyError
from cutover.http import tokens
from cutover.http.causes import describe_failure
from cutover.http.outbound import (
    ATTEMPTS,
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MAX_REPLY_BYTES,
    MAX_RETRY_AFTER,
    MUTATION_DEADLINE,
    READ_DEADLINE,
    READ_LIMIT,
    Outbound,
    Reply,
    pause_after,
)
from cutover.http.secrets import Secrets
from cutover.http.tokens import Grant, Token

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

URL = "https://peer.example/thing"
Answer = httpx.Response | Exception


class Peer(httpx.AsyncBaseTransport):
    """A transport that gives these answers one after the other, and then repeats the last one."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await checkpoint()
        self.requests.append(request)
        self.times.append(anyio.current_time())
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, stream=answer.stream)

    @property
    def pauses(self) -> list[float]:
        """Seconds between the requests, in order."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]


class Dripping(httpx.AsyncByteStream):
    """An endless body that sends one piece every ``seconds``."""

    def __init__(self, piece: bytes, seconds: float = 0.0) -> None:
        self.piece, self.seconds = piece, seconds
        self.sent, self.closed = 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(self.seconds)
            self.sent += len(self.piece)
            yield self.piece

    async def aclose(self) -> None:
        self.closed = True


def outbound(peer: httpx.AsyncBaseTransport, *secrets: str) -> Outbound:
    return Outbound(
        client=httpx.AsyncClient(transport=peer), clock=EventLoopClock(), secrets=Secrets(secrets)
    )


def reply(body: bytes = b"", *, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Reply:
    return Reply(
        label="test", request_line=f"GET {URL}", status=status, headers=headers, body=body, elapsed=0.0
    )


class TestRead:
    @pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
    async def test_a_passing_fault_is_tried_again(self, status: int) -> None:
        peer = Peer(httpx.Response(status), httpx.ConnectError("refused"), httpx.Response(200, text="well"))
        found = await outbound(peer).read("GET", URL, label="status")
        assert (found.status, found.body) == (200, b"well")
        assert len(peer.requests) == 3

    @pytest.mark.parametrize("status", [400, 401, 404, 409, 501])
    async def test_a_status_that_a_retry_cannot_change_is_returned_at_once(self, status: int) -> None:
        peer = Peer(httpx.Response(status))
        assert (await outbound(peer).read("GET", URL, label="status")).status == status
        assert len(peer.requests) == 1

    async def test_a_refusal_at_every_try_is_returned(self) -> None:
        peer = Peer(httpx.Response(503))
        assert (await outbound(peer).read("GET", URL, label="status")).status == 503
        assert len(peer.requests) == ATTEMPTS

    async def test_no_reply_at_every_try_is_no_answer(self) -> None:
        peer = Peer(httpx.ReadError(""))
        with pytest.raises(NoAnswerError, match=r"GET https://peer\.example/thing: the connection was reset"):
            await outbound(peer).read("GET", URL, label="status")
        assert len(peer.requests) == ATTEMPTS

    async def test_a_read_with_one_attempt_is_sent_once(self) -> None:
        peer = Peer(httpx.Response(503))
        await outbound(peer).read("POST", URL, label="write-probe", json={}, attempts=1)
        assert len(peer.requests) == 1

    async def test_nothing_is_tried_again_after_a_deadline_has_passed(self) -> None:
        hanging = Peer(httpx.Response(200, stream=Dripping(b"x", READ_DEADLINE / 3)))
        with pytest.raises(NoAnswerError, match="no complete reply within 10 s"):
            await outbound(hanging).read("GET", URL, label="status")
        assert len(hanging.requests) <= 2

    async def test_a_try_that_starts_late_gets_the_time_that_is_left(self) -> None:
        """Two tries that hang have 10 s each. A third one would start after that."""
        hanging = Peer(httpx.Response(200, stream=Dripping(b"x", 1.0)))
        started = anyio.current_time()
        with pytest.raises(NoAnswerError):
            await outbound(hanging).read("GET", URL, label="status")
        assert len(hanging.requests) == 2
        assert anyio.current_time() - started <= READ_LIMIT

    async def test_all_tries_and_pauses_of_a_read_end_within_its_limit(self) -> None:
        class Slow(Peer):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                await anyio.sleep(4.9)
                return await super().handle_async_request(request)

        tried = Slow(
            httpx.Response(503, headers={"retry-after": "5"}), httpx.Response(200, stream=Dripping(b"x", 1.0))
        )
        started = anyio.current_time()
        with pytest.raises(NoAnswerError):
            await outbound(tried).read("GET", URL, label="status")
        assert anyio.current_time() - started <= READ_LIMIT

    async def test_a_pause_that_leaves_no_time_for_a_try_ends_a_read(self) -> None:
        class Late(Peer):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                await anyio.sleep(9.9)
                return await super().handle_async_request(request)

        late = Late(httpx.Response(503, headers={"retry-after": "10"}))
        started = anyio.current_time()
        assert (await outbound(late).read("GET", URL, label="status")).status == 503
        assert anyio.current_time() - started == pytest.approx(9.9)
        assert len(late.requests) == 1

    async def test_a_retry_after_header_sets_the_pause(self) -> None:
        peer = Peer(httpx.Response(429, headers={"retry-after": "7"}), httpx.Response(200))
        await outbound(peer).read("GET", URL, label="status")
        assert peer.pauses[0] >= 7.0

    async def test_a_retry_after_header_sets_the_pause_up_to_a_bound(self) -> None:
        peer = Peer(httpx.Response(429, headers={"retry-after": "86400"}), httpx.Response(200))
        await outbound(peer).read("GET", URL, label="status")
        assert peer.pauses == [MAX_RETRY_AFTER]

    @pytest.mark.parametrize(
        "junk", ["soon", "-5", "nan", "inf", "1e999", "Wed, 21 Oct 2026 07:28:00 GMT", ""]
    )
    async def test_an_invalid_retry_after_header_is_ignored(self, junk: str) -> None:
        peer = Peer(httpx.Response(429, headers={"retry-after": junk}), httpx.Response(200))
        await outbound(peer).read("GET", URL, label="status")
        assert 0.0 < peer.pauses[0] < 1.0

    async def test_a_pause_is_slept_on_the_clock(self) -> None:
        peer = Peer(httpx.Response(429, headers={"retry-after": "9"}), httpx.Response(200))
        clock = SkippingClock()
        await Outbound(client=httpx.AsyncClient(transport=peer), clock=clock).read("GET", URL, label="status")
        assert clock.skipped >= 9.0
        assert peer.pauses[0] < 1.0


class TestPauses:
    """Tests of `pause_after`, which decides every pause before a retry."""

    @pytest.mark.parametrize("tries", [1, 2, 3, 6, 7, 50, 5000])
    def test_a_pause_is_random_and_grows_within_its_bounds(self, tries: int) -> None:
        pauses = set()
        for seed in range(20):
            random.seed(seed)
            pauses.add(pause_after(tries))
        longest = min(FIRST_PAUSE * 2.0 ** min(tries - 1, 20), LONGEST_PAUSE)
        assert longest / 2 <= min(pauses) < max(pauses) <= longest
        assert len(pauses) == 20

    def test_a_pause_is_at_least_the_retry_after(self) -> None:
        assert pause_after(1, at_least=7.0) == 7.0
        assert pause_after(50, at_least=0.1) >= LONGEST_PAUSE / 2

    async def test_reads_that_failed_together_are_not_retried_together(self) -> None:
        pauses = []
        for seed in (1, 2):
            random.seed(seed)
            peer = Peer(httpx.Response(503))
            await outbound(peer).read("GET", URL, label="status")
            pauses.append(peer.pauses)
            assert FIRST_PAUSE / 2 <= peer.pauses[0] <= FIRST_PAUSE <= peer.pauses[1] <= 2 * FIRST_PAUSE
        assert all(one != other for one, other in zip(*pauses, strict=True))

    @pytest.mark.parametrize(
        ("header", "seconds"), [("7", 7.0), ("86400", MAX_RETRY_AFTER), ("soon", 0.0), (None, 0.0)]
    )
    def test_a_refusal_carries_the_retry_after(self, header: str | None, seconds: float) -> None:
        headers = ((b"retry-after", header.encode()),) if header else ()
        with pytest.raises(RefusedError) as caught:
            reply(status=429, headers=headers).expect_success()
        assert caught.value.retry_after == seconds


class TestChange:
    @pytest.mark.parametrize(
        "answer", [httpx.Response(503), httpx.Response(429, headers={"retry-after": "1"})]
    )
    async def test_a_refused_change_is_never_sent_again(self, answer: httpx.Response) -> None:
        peer = Peer(answer)
        found = await outbound(peer).change("PATCH", URL, label="drill.write", json={"traffic": []})
        assert found.status == answer.status_code
        assert len(peer.requests) == 1

    async def test_an_unanswered_change_is_never_sent_again(self) -> None:
        peer = Peer(httpx.RemoteProtocolError("peer closed connection"))
        with pytest.raises(NoAnswerError, match="the reply was cut short"):
            await outbound(peer).change("PATCH", URL, label="drill.write", json={})
        assert len(peer.requests) == 1

    async def test_a_change_has_its_deadline(self) -> None:
        body = Dripping(b"x", 1.0)
        peer = Peer(httpx.Response(200, stream=body))
        started = anyio.current_time()
        with pytest.raises(NoAnswerError, match="no complete reply within 20 s"):
            await outbound(peer).change("PATCH", URL, label="drill.write", json={})
        assert anyio.current_time() - started == MUTATION_DEADLINE
        assert body.closed

    async def test_cancellation_does_not_cut_a_change(self) -> None:
        done: list[str] = []

        class Slow(httpx.AsyncBaseTransport):
            async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
                await anyio.sleep(5.0)
                done.append("took effect")
                return httpx.Response(200)

        with anyio.move_on_after(1.0):
            found = await outbound(Slow()).change("PATCH", URL, label="drill.write", json={})
            done.append(f"answered {found.status}")
        assert done == ["took effect", "answered 200"]


class Source:
    """A source of tokens: each call raises the next error, and once none is left gives a token that has just expired."""

    def __init__(self, *raised: Exception, seconds: float = 0.0) -> None:
        self.raised = list(raised)
        self.seconds = seconds
        self.asked = 0

    async def __call__(self, *, refused: str = "") -> Grant:
        self.asked += 1
        await anyio.sleep(self.seconds)
        if self.raised:
            raise self.raised.pop(0)
        return Grant(token=str(self.asked), expires_at=0.0)


HICCUP = NoAnswerError("the metadata server was reset")


class TestAuthorize:
    async def test_each_attempt_of_a_read_asks_for_its_token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A token may expire between two tries, and a token that was not available may be available now."""
        monkeypatch.setattr(tokens, "LEAST_PAUSE", 0.0)
        peer, source = Peer(httpx.Response(503), httpx.Response(200)), Source(HICCUP)
        reply = await outbound(peer).read(
            "GET", URL, label="status", headers={"accept": "text/plain"}, authorize=Token(source=source)
        )
        assert reply.status == 200
        sent = [(request.headers["accept"], request.headers["authorization"]) for request in peer.requests]
        assert sent == [("text/plain", "Bearer 2"), ("text/plain", "Bearer 3")]

    async def test_a_fault_at_every_try_ends_a_read_and_is_named(self) -> None:
        peer, source = Peer(httpx.Response(200)), Source(*[HICCUP] * ATTEMPTS)
        with pytest.raises(NoAnswerError, match="the metadata server was reset"):
            await outbound(peer).read("GET", URL, label="status", authorize=Token(source=source))
        assert (peer.requests, source.asked) == ([], ATTEMPTS)

    async def test_fetching_headers_counts_towards_the_deadline_of_a_read(self) -> None:
        peer, source = Peer(httpx.Response(200)), Source(seconds=READ_DEADLINE + 1.0)
        started = anyio.current_time()
        with pytest.raises(NoAnswerError, match="within 10 s"):
            await outbound(peer).read("GET", URL, label="status", authorize=Token(source=source), attempts=1)
        assert anyio.current_time() - started == READ_DEADLINE

    @pytest.mark.parametrize("send", [Outbound.read, Outbound.change])
    async def test_refused_headers_are_not_fetched_again(self, send: Callable[..., object]) -> None:
        peer, source = Peer(httpx.Response(200)), Source(RefusedError("invalid_grant", status=401))
        with pytest.raises(RefusedError, match="invalid_grant"):
            await send(outbound(peer), "PATCH", URL, label="drill.write", authorize=Token(source=source))  # type: ignore[misc]
        assert (peer.requests, source.asked) == ([], 1)

    async def test_headers_of_a_change_are_fetched_again_after_a_passing_fault(self) -> None:
        peer, source = Peer(httpx.Response(200)), Source(HICCUP)
        await outbound(peer).change(
            "PATCH", URL, label="drill.write", json={}, authorize=Token(source=source)
        )
        assert [request.headers["authorization"] for request in peer.requests] == ["Bearer 2"]

    @pytest.mark.parametrize(
        ("source", "reason"),
        [
            (Source(*[HICCUP] * 2 * ATTEMPTS), "the metadata server was reset"),
            (Source(seconds=60.0), ".*no token within 10 s"),
        ],
    )
    async def test_a_change_without_headers_was_not_sent_for_certain(
        self, source: Source, reason: str
    ) -> None:
        peer = Peer(httpx.Response(200))
        started = anyio.current_time()
        with pytest.raises(RefusedError, match=f"nothing was sent: {reason}") as caught:
            await outbound(peer).change(
                "PATCH", URL, label="drill.write", json={}, authorize=Token(source=source)
            )
        assert caught.value.for_certain
        assert peer.requests == []
        assert anyio.current_time() - started <= READ_DEADLINE

    @pytest.mark.parametrize(
        "raised",
        [
            UnusableReplyError("the token endpoint answers with HTML"),
            RefusedError("the token endpoint: HTTP 503", status=503),
            *[httpx.ReadError("reset"), OSError("odd"), TimeoutError("slow")],
        ],
    )
    async def test_a_change_whose_token_cannot_be_had_was_not_sent_for_certain(
        self, raised: Exception
    ) -> None:
        """Otherwise the write would count as one that may have taken effect."""
        peer = Peer(httpx.Response(200))
        with pytest.raises(RefusedError, match=f"PATCH {URL}: nothing was sent: .*") as caught:
            await outbound(peer).change(
                "PATCH",
                URL,
                label="drill.write",
                json={},
                authorize=Token(source=Source(*[raised] * ATTEMPTS)),
            )
        assert caught.value.for_certain
        assert peer.requests == []

    async def test_a_refused_token_keeps_its_status(self) -> None:
        source = Source(RefusedError("invalid_grant", status=401))
        with pytest.raises(RefusedError, match="nothing was sent: invalid_grant") as caught:
            await outbound(Peer(httpx.Response(200))).change(
                "PATCH", URL, label="drill.write", authorize=Token(source=source)
            )
        assert caught.value.status == 401

    async def test_the_error_of_a_source_is_not_told_as_the_requests_own(self) -> None:
        raw = Source(*[httpx.ConnectError("refused")] * ATTEMPTS)
        with pytest.raises(NoAnswerError, match=r"the token could not be fetched: ConnectError\('refused'\)"):
            await outbound(Peer(httpx.Response(200))).read(
                "GET", URL, label="status", authorize=Token(source=raw)
            )
        hanging = Source(seconds=READ_DEADLINE + 1.0)
        with pytest.raises(NoAnswerError, match="no token within 10 s"):
            await outbound(Peer(httpx.Response(200))).read(
                "GET", URL, label="status", authorize=Token(source=hanging), attempts=1
            )

    async def test_fetching_headers_counts_towards_the_deadline_of_a_change(self) -> None:
        """Recovery waits this long for a change without an answer, counted from its intent."""
        peer = Peer(httpx.Response(200, stream=Dripping(b"x", 1.0)))
        started = anyio.current_time()
        with pytest.raises(NoAnswerError, match="no complete reply within 14 s"):
            await outbound(peer).change(
                "PATCH", URL, label="drill.write", json={}, authorize=Token(source=Source(seconds=6.0))
            )
        assert anyio.current_time() - started == MUTATION_DEADLINE


class TestRequest:
    @pytest.mark.parametrize(
        ("url", "headers"),
        [
            ("https://peer.example/\x01", {}),
            ("https://peer.example:port/", {}),
            (URL, {"x-é": "1"}),
            (URL, {"x-mine": "é"}),
        ],
    )
    @pytest.mark.parametrize("send", [Outbound.read, Outbound.change])
    async def test_a_request_that_cannot_be_built_has_no_answer(
        self, send: Callable[..., object], url: str, headers: dict[str, str]
    ) -> None:
        peer = Peer(httpx.Response(200))
        with pytest.raises(NoAnswerError, match="failed"):
            await send(outbound(peer), "GET", url, label="dual.new.e", headers=headers)  # type: ignore[misc]
        assert peer.requests == []

    async def test_a_request_carries_its_label_its_headers_and_its_json(self) -> None:
        peer = Peer(httpx.Response(200))
        await outbound(peer).read(
            "POST", URL, label="flip.evaluate", headers={"x-mine": "1"}, json={"a": [1]}
        )
        request = peer.requests[0]
        assert request.extensions["label"] == "flip.evaluate"
        assert (request.method, request.headers["x-mine"], request.content) == ("POST", "1", b'{"a":[1]}')
        assert request.headers["content-type"] == "application/json"

    async def test_without_json_there_is_no_body(self) -> None:
        peer = Peer(httpx.Response(200))
        await outbound(peer).read("GET", URL, label="status")
        assert peer.requests[0].content == b""
        assert "content-type" not in peer.requests[0].headers

    async def test_a_redirect_is_described_and_not_followed(self) -> None:
        peer = Peer(httpx.Response(302, headers={"location": "https://evil.example/in"}))
        client = httpx.AsyncClient(transport=peer, follow_redirects=True)
        found = await Outbound(client=client, clock=EventLoopClock()).read(
            "GET", URL, label="status", headers={"authorization": "Bearer marked"}
        )
        assert [request.url.host for request in peer.requests] == ["peer.example"]
        assert found.describe() == "HTTP 302, a redirect to https://evil.example/in (not followed)"
        with pytest.raises(RefusedError, match="HTTP 302, a redirect to") as caught:
            found.expect_success()
        assert caught.value.status == 302


# httpx leaves its own generators to the garbage collector.
UNFINISHED = pytest.mark.filterwarnings("ignore:Async generator 'httpx:ResourceWarning")


class TestReplyIsBounded:
    @UNFINISHED
    @pytest.mark.parametrize("send", [Outbound.read, Outbound.change])
    async def test_an_endless_body_is_not_read_to_its_end(self, send: Callable[..., object]) -> None:
        body = Dripping(b"x" * (1 << 20))
        peer = Peer(httpx.Response(200, stream=body))
        with pytest.raises(UnusableReplyError, match=f"larger than {MAX_REPLY_BYTES} bytes"):
            await send(outbound(peer), "GET", URL, label="status")  # type: ignore[misc]
        assert body.sent <= MAX_REPLY_BYTES + (1 << 20)
        assert body.closed
        assert len(peer.requests) == 1

    async def test_a_body_of_just_the_bound_is_read(self) -> None:
        peer = Peer(httpx.Response(200, content=b"x" * MAX_REPLY_BYTES))
        assert len((await outbound(peer).read("GET", URL, label="status")).body) == MAX_REPLY_BYTES

    @UNFINISHED
    async def test_a_broken_content_encoding_is_no_answer(self) -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            return httpx.Response(
                200,
                headers={"content-encoding": "gzip"},
                stream=httpx.ByteStream(b"not gzip"),
            )

        with pytest.raises(NoAnswerError, match="content-encoding is broken"):
            await outbound(httpx.MockTransport(answer)).read("GET", URL, label="status")

    async def test_elapsed_is_measured_to_the_last_byte(self) -> None:
        class Short(Dripping):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                await anyio.sleep(self.seconds)
                yield self.piece

        peer = Peer(httpx.Response(200, stream=Short(b"x", 2.5)))
        assert (await outbound(peer).read("GET", URL, label="status")).elapsed == 2.5


async def test_secrets_are_masked_at_equal_length_in_head_and_body() -> None:
    peer = Peer(
        httpx.Response(
            401,
            headers={"x-echo": "Bearer marked-token!", "location": "https://peer.example/?t=marked-token"},
            content=b'{"message":"marked-token is no token of ours: marked-token"}',
        )
    )
    found = await outbound(peer, "marked-token", "").read("GET", URL, label="status")
    assert found.header("X-Echo") == "Bearer ************!"
    assert found.body == b'{"message":"************ is no token of ours: ************"}'
    assert "marked" not in found.describe()


async def test_a_secret_in_a_plain_refusal_is_masked_before_the_text_is_cut() -> None:
    peer = Peer(httpx.Response(403, content=b"x" * 75 + b" marked-token is no token of ours"))
    found = await outbound(peer, "marked-token").read("GET", URL, label="status")
    assert found.describe() == f"HTTP 403 ({'x' * 75} ****…)"


class TestReply:
    def test_a_header_is_found_whatever_its_case(self) -> None:
        found = reply(headers=((b"X-One", b"first"), (b"x-one", b"second"), (b"X-High", b"\xe9")))
        assert (found.header("x-ONE"), found.header("x-high"), found.header("none")) == ("first", "é", None)

    @pytest.mark.parametrize("body", [b"", b"<!doctype html>\x1b[2J", b"{", b'"\xff"', b"[" * 100_000])
    def test_a_body_that_is_not_json_is_unusable_and_quoted_escaped(self, body: bytes) -> None:
        with pytest.raises(UnusableReplyError, match="a JSON reply was expected, not") as caught:
            reply(body).json()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400

    def test_json_is_decoded(self) -> None:
        assert reply(b'{"data": [1, null]}').json() == {"data": [1, None]}

    @pytest.mark.parametrize("status", [200, 201, 299])
    def test_a_successful_reply_is_returned(self, status: int) -> None:
        found = reply(status=status)
        assert found.expect_success() is found

    @pytest.mark.parametrize("status", [199, 304, 400, 500])
    def test_anything_else_is_refused_with_its_status(self, status: int) -> None:
        with pytest.raises(RefusedError, match=f"GET {URL}: HTTP {status}") as caught:
            reply(status=status).expect_success()
        assert caught.value.status == status

    @pytest.mark.parametrize(
        ("body", "detail"),
        [
            (b'{"error":{"code":409,"status":"ABORTED","message":"stale"}}', " (409: ABORTED: stale)"),
            (b'{"error":{"code":"unauthorized","message":null}}', " (unauthorized)"),
            (b'{"error":{}}', ' ({"error":{}})'),
            (b'{"error":"no","message":"bad \\u0007\\u202e token"}', " (bad \\x07\\u202e token)"),
            (b'{"message":7}', ' ({"message":7})'),
            (b'{"detail":"Not authenticated"}', ' ({"detail":"Not authenticated"})'),
            (b"[1]", " ([1])"),
            (
                b"Failed to parse the request body as JSON: expected value\n",
                " (Failed to parse the request body as JSON: expected value)",
            ),
            (b"<html>\x1b[2J", " (<html>\\x1b[2J)"),
            (b"\xff\xfe", " (\\xff\\xfe)"),
            (b"x" * 100_000, f" ({'x' * 80}…)"),
            (b"[" * 100_000, f" ({'[' * 80}…)"),
            (b"", " (an empty body)"),
            (b" \r\n", " (an empty body)"),
        ],
    )
    def test_the_bodys_own_error_is_quoted_escaped(self, body: bytes, detail: str) -> None:
        assert reply(body, status=400).describe() == f"HTTP 400{detail}"

    @pytest.mark.parametrize("status", [200, 204, 304])
    @pytest.mark.parametrize("body", [b"", b"<!doctype html><p>Hello</p>"])
    def test_the_body_of_a_reply_that_is_no_refusal_is_not_quoted(self, body: bytes, status: int) -> None:
        assert reply(body, status=status).describe() == f"HTTP {status}"

    @pytest.mark.parametrize(
        ("body", "has_error"),
        [(b'{"message":"no"}', True), (b'{"error":{"code":"x"}}', True), (b"no", False), (b"{}", False)],
    )
    def test_an_error_in_json_is_told_from_a_plain_text(self, body: bytes, has_error: bool) -> None:
        assert reply(body, status=422).has_error is has_error

    def test_the_target_of_a_redirect_is_quoted_escaped(self) -> None:
        found = reply(status=307, headers=((b"Location", b"https://evil.example/\x1b[2J\xad"),))
        assert found.describe() == "HTTP 307, a redirect to https://evil.example/\\x1b[2J\\xad (not followed)"

    def test_a_long_error_is_cut(self) -> None:
        shown = reply(b'{"error":{"message":"%s"}}' % (b"x" * 5000), status=500).describe()
        assert len(shown) < 250
        assert shown.endswith("…)")

    def test_only_a_3xx_status_makes_a_location_a_redirect(self) -> None:
        """RFC 9110 10.2.2: in a 201 answer, it names the resource that was created."""
        for status in (201, 202, 401, 503):
            found = reply(status=status, headers=((b"location", b"/api/things/7"),))
            assert not found.is_redirect
            assert "redirect" not in found.describe()
        assert all(reply(status=status).is_redirect for status in (300, 304, 399))


class TestClosing:
    """A connection that is slow to close, or fails to, after a complete reply."""

    class Body(httpx.AsyncByteStream):
        def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
            self.seconds, self.error = seconds, error

        async def __aiter__(self) -> AsyncIterator[bytes]:
            await anyio.sleep(0.5)
            yield b"whole"

        async def aclose(self) -> None:
            await anyio.sleep(self.seconds)
            if self.error is not None:
                raise self.error

    @pytest.mark.parametrize("send", [Outbound.read, Outbound.change])
    async def test_it_is_no_part_of_the_measured_time(self, send: Callable[..., Any]) -> None:
        peer = Peer(httpx.Response(200, stream=self.Body(seconds=3.0)))
        found = await send(outbound(peer), "GET", URL, label="status")
        assert (found.body, found.elapsed) == (b"whole", 0.5)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (httpx.ConnectTimeout("slow"), "no connection within 10 s (slow)"),
        (httpx.ConnectError("[Errno 111]"), "could not connect ([Errno 111])"),
        (httpx.ReadTimeout(""), "timed out (ReadTimeout)"),
        (httpx.RemoteProtocolError("eof"), "the reply was cut short (eof)"),
        (httpx.ReadError("reset\n\x1b[1m"), "the connection was reset (reset\\n\\x1b[1m)"),
        (httpx.DecodingError("zlib"), "the reply's content-encoding is broken (zlib)"),
        (OSError("odd"), "failed (odd)"),
    ],
)
def test_a_failure_is_described_in_plain_words(error: BaseException, text: str) -> None:
    assert describe_failure(error) == text
