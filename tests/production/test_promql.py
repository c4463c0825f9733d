"""One number of a Prometheus server: what counts as a number, and the reason why everything else does not."""

from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs

import httpx
import pytest

from cutover.clock import EventLoopClock
from cutover.errors import PeerError
from cutover.http.outbound import Outbound
from cutover.http.secrets import Secrets
from cutover.http.tokens import Grant, Token
from cutover.production.metrics.promql import MAX_ANSWER_BYTES, PromqlApi
from tests.support.fake_prometheus import URL, FakePrometheus, answered, as_json

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

QUERY = "sum(up)"


def _api(
    answer: Callable[[str], httpx.Response | Exception], *, by_get: bool = False, token: str = ""
) -> tuple[PromqlApi, FakePrometheus]:
    server = FakePrometheus(override=answer)
    secrets = Secrets((token,) if token else ())
    outbound = Outbound(client=httpx.AsyncClient(transport=server), clock=EventLoopClock(), secrets=secrets)
    bearer = Token(name="SLO_PROMETHEUS_TOKEN", grant=Grant(token=token)) if token else None
    return PromqlApi(outbound=outbound, url=URL, token=bearer, by_get=by_get), server


async def _reason(answer: Callable[[str], httpx.Response | Exception], *, by_get: bool = False) -> str:
    api, _ = _api(answer, by_get=by_get)
    with pytest.raises(PeerError) as caught:
        await api.number(QUERY, at=1.0, label="budget")
    return str(caught.value)


@pytest.mark.parametrize("text", ["0.25", "0", "-3", "1e+06"])
async def test_one_series_with_a_finite_value_is_a_number(text: str) -> None:
    api, _ = _api(lambda _: answered(text))
    assert await api.number(QUERY, at=1.0, label="budget") == float(text)


async def test_a_scalar_is_a_number() -> None:
    api, _ = _api(
        lambda _: as_json({"status": "success", "data": {"resultType": "scalar", "result": [1.5, "7"]}})
    )
    assert await api.number("scalar(x)", at=1.0, label="budget") == 7.0


ODD: dict[str, tuple[Callable[[str], httpx.Response | Exception], str]] = {
    "nan": (lambda _: answered("NaN"), "NaN, no finite number"),
    "infinite": (lambda _: answered("+Inf"), r"\+Inf, no finite number"),
    "no-series": (lambda _: answered(), "no series"),
    "two-series": (lambda _: answered("1", "1"), "2 series, where one was expected"),
    "warning": (
        lambda _: answered("1", warnings=["results truncated"]),
        "the server warns: results truncated",
    ),
    "error-in-200": (
        lambda _: as_json({"status": "error", "errorType": "execution", "error": "too many samples"}),
        r"HTTP 200 \(execution: too many samples\)",
    ),
    "matrix": (
        lambda _: as_json({"status": "success", "data": {"resultType": "matrix", "result": []}}),
        "the result is a matrix",
    ),
    "a-word": (lambda _: answered("many"), "could not convert"),
    "a-number-that-is-no-text": (lambda _: answered(1.0), "no JSON of Prometheus"),
    "no-data": (lambda _: as_json({"status": "success"}), "holds no data"),
    "garbage": (lambda _: httpx.Response(200, content=b"<html>welcome</html>"), "no JSON of Prometheus"),
    "deep": (lambda _: httpx.Response(200, content=b'{"data":' + b"[" * 60_000), "no JSON of Prometheus"),
    "bad-query": (
        lambda _: httpx.Response(
            400, json={"status": "error", "errorType": "bad_data", "error": "parse error"}
        ),
        r"HTTP 400 \(bad_data: parse error\)",
    ),
    "no-permission": (lambda _: httpx.Response(401, content=b"Unauthorized"), "HTTP 401"),
    "google-says-no": (
        lambda _: httpx.Response(
            403, json={"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}
        ),
        "HTTP 403",
    ),
    "cannot-execute": (
        lambda _: httpx.Response(
            422, json={"status": "error", "errorType": "execution", "error": "many-to-many"}
        ),
        r"HTTP 422 \(execution: many-to-many\)",
    ),
    "redirect": (lambda _: httpx.Response(302, headers={"location": "https://login.example"}), "HTTP 302"),
    "unavailable": (lambda _: httpx.Response(503, content=b"busy"), "HTTP 503"),
    "no-connection": (lambda _: httpx.ConnectError("refused"), "refused"),
}


@pytest.mark.parametrize("name", ODD)
async def test_everything_else_is_no_number_and_the_reason_is_said(name: str) -> None:
    answer, words = ODD[name]
    with pytest.raises(PeerError, match=words):
        api, _ = _api(answer)
        await api.number(QUERY, at=1.0, label="budget")


@pytest.mark.parametrize("name", ["no-connection", "google-says-no", "garbage"])
async def test_a_reason_never_holds_a_query_in_its_url_form(name: str) -> None:
    reason = await _reason(ODD[name][0], by_get=True)
    assert f"{URL}/api/v1/query" in reason
    assert "query=" not in reason


# trio warns of httpx's generators, which end with the garbage collection
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_huge_answer_is_not_read_to_its_end() -> None:
    sent = 0

    class Endless(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            nonlocal sent
            while True:
                sent += 4096
                yield b" " * 4096

    reason = await _reason(lambda _: httpx.Response(200, stream=Endless()))
    assert f"larger than {MAX_ANSWER_BYTES} bytes" in reason
    assert sent <= MAX_ANSWER_BYTES + 2 * 4096


@pytest.mark.parametrize("by_get", [False, True], ids=["prometheus", "cloud-monitoring"])
async def test_the_query_its_moment_and_the_token_are_sent(by_get: bool) -> None:
    api, server = _api(lambda _: answered("1"), by_get=by_get, token="marked-token")
    await api.number('sum(x{a="b c"})', at=1700000000.25, label="budget")
    (request,) = server.requests
    sent = request.url.query if by_get else request.content
    assert parse_qs(sent.decode()) == {"query": ['sum(x{a="b c"})'], "time": ["1700000000.250"]}
    assert request.headers["authorization"] == "Bearer marked-token"
    assert bool(request.content) is not by_get


async def test_a_secret_that_the_server_repeats_is_masked() -> None:
    api, _ = _api(
        lambda _: httpx.Response(
            400, json={"status": "error", "errorType": "bad_data", "error": "no marked-token here"}
        ),
        token="marked-token",
    )
    with pytest.raises(PeerError) as caught:
        await api.number(QUERY, at=1.0, label="budget")
    assert "marked-token" not in str(caught.value)
