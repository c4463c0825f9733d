"""A token is read from its source when it is needed, before it expires, and once after a refusal."""

import base64
import json
import time
from collections.abc import Callable

import anyio
import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import NoAnswerError, RefusedError
from cutover.http.outbound import MUTATION_DEADLINE, Outbound
from cutover.http.secrets import Secrets
from cutover.http.tokens import (
    LEAST_PAUSE,
    MAX_SOURCE_BYTES,
    RENEW_BEFORE,
    TOKEN_DEADLINE,
    Grant,
    Token,
    fixed,
    read_grant,
)

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

URL = "https://peer.example/thing"


def jwt(expires_at: object) -> str:
    """Return a JSON Web Token with this expiry and a signature that means nothing."""
    parts = (json.dumps(part).encode() for part in ({"alg": "none"}, {"exp": expires_at}))
    return ".".join((*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), "c2ln"))


class Source:
    """A source that gives the next grant or error, and then the last one again."""

    def __init__(self, *answers: Grant | Exception, seconds: float = 0.0) -> None:
        self.answers = list(answers)
        self.seconds = seconds
        self.refused: list[str] = []

    @property
    def asked(self) -> int:
        return len(self.refused)

    async def __call__(self, *, refused: str = "") -> Grant:
        self.refused.append(refused)
        await anyio.sleep(self.seconds)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def living(token: str, seconds: float) -> Grant:
    return Grant(token=token, expires_at=time.time() + seconds)


GONE = RefusedError("AUTH_TOKEN_FILE: /t cannot be read", status=401)


class TestExpiry:
    @pytest.mark.parametrize("in_jwt", [False, True])
    async def test_a_token_is_read_again_five_minutes_early(self, in_jwt: bool) -> None:
        first = Grant(token=jwt(time.time() + 3600)) if in_jwt else living("one", 3600)
        source = Source(first, Grant(token="two"))
        token = Token(source=source)
        assert [await token.value() for _ in range(3)] == [first.token] * 3
        await anyio.sleep(3600 - RENEW_BEFORE - 5.0)
        assert (await token.value(), source.asked) == (first.token, 1)
        await anyio.sleep(10.0)
        assert await token.value() == "two"
        await anyio.sleep(80_000.0)
        assert (await token.value(), source.asked) == ("two", 2)

    async def test_a_token_that_lives_five_minutes_is_read_again_after_half_of_them(self) -> None:
        """Five minutes early would be at every request."""
        source = Source(living("one", 300), Grant(token="two"))
        token = Token(source=source)
        assert await token.value() == "one"
        await anyio.sleep(149.0)
        assert await token.value() == "one"
        await anyio.sleep(2.0)
        assert await token.value() == "two"

    async def test_a_source_that_fails_leaves_the_living_token_in_use_until_it_expires(self) -> None:
        source = Source(living("one", 3600), GONE)
        token = Token(source=source)
        await token.value()
        await anyio.sleep(3400.0)
        assert await token.value() == "one"
        await anyio.sleep(LEAST_PAUSE / 2)
        assert (await token.value(), source.asked) == ("one", 2)
        await anyio.sleep(300.0)
        with pytest.raises(RefusedError, match="AUTH_TOKEN_FILE"):
            await token.value()

    async def test_a_jump_of_the_wall_clock_neither_ends_nor_keeps_a_token(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Source(living("one", 3600), Grant(token="two"))
        token = Token(source=source)
        await token.value()
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + 86_400)
        assert await token.value() == "one"
        monkeypatch.setattr(time, "time", lambda: real() - 86_400)
        await anyio.sleep(3400.0)
        assert await token.value() == "two"

    async def test_a_fixed_token_tells_how_long_it_lives(self) -> None:
        left = fixed(jwt(time.time() + 100)).seconds_left()
        assert left is not None
        assert 98 < left <= 100
        assert fixed("opaque").seconds_left() is None
        assert fixed("").seconds_left() is None

    @pytest.mark.parametrize(
        "token", [jwt("soon"), jwt({}), jwt(None), jwt(1e300), "a.b.c", "a.!.c", "..", "a.W10.c"]
    )
    def test_a_text_that_is_no_usable_jwt_has_no_expiry(self, token: str) -> None:
        assert fixed(token).seconds_left() is None


async def test_many_requests_read_a_source_once() -> None:
    source = Source(Grant(token="one"), seconds=1.0)
    token, values = Token(source=source), []

    async def ask() -> None:
        values.append(await token.value())

    async with anyio.create_task_group() as group:
        for _ in range(8):
            group.start_soon(ask)
    assert (values, source.asked) == (["one"] * 8, 1)


async def test_a_source_that_hangs_ends_at_its_deadline_and_is_named() -> None:
    started = anyio.current_time()
    with pytest.raises(NoAnswerError, match="AUTH_TOKEN_COMMAND gave no token within 10 s"):
        await Token(name="AUTH_TOKEN_COMMAND", source=Source(Grant(token="x"), seconds=60.0)).value()
    assert anyio.current_time() - started == TOKEN_DEADLINE


async def test_every_token_of_a_source_is_masked_from_then_on() -> None:
    secrets = Secrets()
    token = Token(source=Source(Grant(token="marked-one"), Grant(token="marked-two")), secrets=secrets)
    await token.renewed(await token.value())
    assert secrets.mask(b"marked-one marked-two") == b"********** **********"
    assert "marked" not in repr(token)


class Peer(httpx.AsyncBaseTransport):
    """A service that accepts some tokens and answers 401 for every other one."""

    def __init__(self, *accepted: str, seconds: float = 0.0) -> None:
        self.accepted = accepted
        self.seconds = seconds
        self.sent: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.sleep(self.seconds)
        self.sent.append(request.headers.get("authorization", "").removeprefix("Bearer "))
        return httpx.Response(200 if self.sent[-1] in self.accepted else 401)

    def outbound(self) -> Outbound:
        return Outbound(client=httpx.AsyncClient(transport=self), clock=EventLoopClock())


@pytest.mark.parametrize("send", [Outbound.read, Outbound.change])
class TestRefusal:
    async def test_a_request_is_sent_once_more_with_the_new_token(self, send: Callable[..., object]) -> None:
        peer, source = Peer("two"), Source(Grant(token="one"), Grant(token="two"))
        token = Token(source=source)
        reply = await send(peer.outbound(), "POST", URL, label="x", authorize=token)  # type: ignore[misc]
        assert (reply.status, peer.sent, source.refused) == (200, ["one", "two"], ["", "one"])

    async def test_the_same_token_again_is_not_sent_again_and_not_read_for_each_request(
        self, send: Callable[..., object]
    ) -> None:
        peer, source = Peer(), Source(Grant(token="one"))
        outbound, token = peer.outbound(), Token(source=source)
        for _ in range(3):
            reply = await send(outbound, "POST", URL, label="x", authorize=token)  # type: ignore[misc]
            assert reply.status == 401
        assert (peer.sent, source.asked) == (["one"] * 3, 2)
        await anyio.sleep(LEAST_PAUSE)
        source.answers, peer.accepted = [Grant(token="two")], ("two",)
        reply = await send(outbound, "POST", URL, label="x", authorize=token)  # type: ignore[misc]
        assert reply.status == 200

    async def test_two_refusals_end_the_request(self, send: Callable[..., object]) -> None:
        peer, source = Peer(), Source(*(Grant(token=str(number)) for number in range(9)))
        reply = await send(peer.outbound(), "POST", URL, label="x", authorize=Token(source=source))  # type: ignore[misc]
        assert (reply.status, peer.sent) == (401, ["0", "1"])

    async def test_a_fixed_token_is_sent_once(self, send: Callable[..., object]) -> None:
        peer = Peer("two")
        reply = await send(peer.outbound(), "POST", URL, label="x", authorize=fixed("one"))  # type: ignore[misc]
        assert (reply.status, peer.sent) == (401, ["one"])

    async def test_a_source_that_has_gone_names_itself_and_nothing_was_done(
        self, send: Callable[..., object]
    ) -> None:
        peer = Peer("two")
        token = Token(source=Source(Grant(token="one"), GONE))
        with pytest.raises(RefusedError, match="AUTH_TOKEN_FILE: /t cannot be read") as caught:
            await send(peer.outbound(), "POST", URL, label="x", authorize=token)  # type: ignore[misc]
        assert (caught.value.status, caught.value.for_certain, peer.sent) == (401, True, ["one"])

    async def test_requests_at_once_that_are_refused_renew_the_token_once(
        self, send: Callable[..., object]
    ) -> None:
        peer, source = (
            Peer("two", seconds=0.5),
            Source(Grant(token="one"), Grant(token="two"), Grant(token="three")),
        )
        outbound, token, statuses = peer.outbound(), Token(source=source), []

        async def ask() -> None:
            reply = await send(outbound, "POST", URL, label="x", authorize=token)  # type: ignore[misc]
            statuses.append(reply.status)

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(ask)
        assert (statuses, source.asked) == ([200] * 8, 2)


async def test_a_change_with_a_second_try_keeps_its_deadline() -> None:
    """Recovery waits this long for a change without an answer, counted from its intent."""
    peer = Peer("two", seconds=9.0)
    source = Source(Grant(token="one"), Grant(token="two"))
    started = anyio.current_time()
    source.seconds = 4.0
    with pytest.raises(NoAnswerError, match="no complete reply within 3 s"):
        await peer.outbound().change("PATCH", URL, label="x", json={}, authorize=Token(source=source))
    assert anyio.current_time() - started == MUTATION_DEADLINE


class TestGrant:
    def test_a_bare_token(self) -> None:
        assert read_grant(b" ya29.a0-b_c~d+e/f=\r\n") == Grant(token="ya29.a0-b_c~d+e/f=")

    @pytest.mark.parametrize(
        ("expiration", "expires_at"),
        [
            (None, None),
            ("2026-11-28T12:00:00Z", 1795867200.0),
            ("2026-11-28T13:00:00+01:00", 1795867200.0),
            ("2026-11-28T12:00:00", 1795867200.0),
        ],
    )
    def test_json(self, expiration: str | None, expires_at: float | None) -> None:
        data = json.dumps({"token": "marked", "expiration": expiration}).encode()
        assert read_grant(data) == Grant(token="marked", expires_at=expires_at)

    def test_the_mark_that_some_editors_put_before_a_text_is_no_part_of_the_token(self) -> None:
        assert read_grant(b"\xef\xbb\xbfmarked\r\n") == Grant(token="marked")

    @pytest.mark.parametrize(
        ("data", "problem"),
        [
            (b"", "gives nothing"),
            (b" \r\n\t", "gives nothing"),
            (b"marked token", "a token must be printable ASCII without spaces"),
            (b"marked\ntoken", "a token must be printable ASCII without spaces"),
            (b'"marked"\n', "gives a text in quotes; write it without them"),
            ("markéd".encode(), "a token must be printable ASCII without spaces"),
            (b"marked\x00", "a token must be printable ASCII without spaces"),
            (b"m" * (MAX_SOURCE_BYTES + 1), "gives more than 65536 bytes"),
            (b'{"token": "marked"', "neither a bare token nor JSON"),
            (b"{" * 60_000, "neither a bare token nor JSON"),
            (b"{}", "`token` in its JSON must be a text"),
            (b'{"token": 7}', "`token` in its JSON must be a text"),
            (b'{"token": ""}', "`token` in its JSON must be printable ASCII"),
            (b'{"token": "marked\\r\\nx: y"}', "`token` in its JSON must be printable ASCII"),
            (b'{"token": "marked", "expiration": "soon"}', "no ISO time"),
            (b'{"token": "marked", "expiration": 7}', "no ISO time"),
        ],
    )
    def test_anything_else_is_refused_unseen(self, data: bytes, problem: str) -> None:
        with pytest.raises(ValueError, match=problem) as caught:
            read_grant(data)
        assert "marked" not in str(caught.value)
        assert caught.value.__cause__ is None
