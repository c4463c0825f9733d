"""The decompression of bodies: whole and wherever they are cut, bounded, and with one finding if it fails."""

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anyio
import attrs
import httpx
import hypothesis.strategies as st
import pytest
from hypothesis import given

from cutover import ContractReport, StreamContract, StreamingASGITransport, check_stream, stream_contract
from cutover.contract import FailureKind, Limits
from cutover.http import decoding
from cutover.http.decoding import DecodingError, decoder_for
from cutover.protocols import AI_SDK_7, COMPAT_LANE

EVENTS = [b'data: {"type": "start"}\n\n', b'data: {"type": "finish"}\n\n', b"data: [DONE]\n\n"]
BODY = b"".join(EVENTS)
HEADERS = {"content-type": "text/event-stream", "x-vercel-ai-ui-message-stream": "v1"}


def raw_deflate(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def brotli(data: bytes) -> bytes:
    module = pytest.importorskip("brotli")
    if not hasattr(module.Decompressor, "can_accept_more_data"):
        pytest.skip("this version of brotli cannot bound its output")
    compressed: bytes = module.compress(data)
    return compressed


def members(data: bytes) -> bytes:
    half = len(data) // 2
    return gzip.compress(data[:half]) + gzip.compress(data[half:]) + bytes(512)


CODED: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "gzip of several members, padded": ("gzip", members),
    "deflate": ("deflate", zlib.compress),
    "deflate without its header": ("deflate", raw_deflate),
    "br": ("br", brotli),
    "none": ("none", bytes),
    "a charset": ("utf-8", bytes),
    "identity": ("identity", bytes),
    "an empty coding": ("", bytes),
    "identity and gzip": ("identity, gzip", gzip.compress),
}


def decoded(coding: str, pieces: Sequence[bytes]) -> bytes:
    decoder = decoder_for([(b"Content-Encoding", coding.encode())])
    if decoder is None:
        return b"".join(pieces)
    result = b"".join(output for piece in pieces for output in decoder.decode(piece))
    decoder.finish()
    return result


@pytest.mark.parametrize("case", CODED)
def test_a_body_is_the_same_however_its_bytes_are_cut(case: str) -> None:
    coding, compress = CODED[case]
    compressed = compress(BODY * 3)
    assert decoded(coding, [compressed]) == BODY * 3
    assert decoded(coding, [compressed[at : at + 1] for at in range(len(compressed))]) == BODY * 3
    for cut in range(len(compressed)):
        assert decoded(coding, [compressed[:cut], compressed[cut:]]) == BODY * 3


@given(st.data())
def test_any_body_survives_any_cut(data: st.DataObject) -> None:
    content = b"".join(data.draw(st.lists(st.sampled_from([*EVENTS, bytes(300_000)]), max_size=6)))
    case = data.draw(st.sampled_from(["gzip of several members, padded", "deflate without its header"]))
    coding, compress = CODED[case]
    compressed = compress(content)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(compressed)), max_size=8)))
    pieces = [compressed[a:b] for a, b in zip([0, *cuts], [*cuts, len(compressed)], strict=True)]
    assert decoded(coding, pieces) == content


@pytest.mark.parametrize("case", ["gzip", "deflate", "deflate without its header", "br"])
def test_a_missing_end_is_an_error_and_what_came_before_it_counts(case: str) -> None:
    coding, compress = CODED[case]
    decoder = decoder_for([(b"content-encoding", coding.encode())])
    assert decoder is not None
    list(decoder.decode(compress(BODY)[:-1]))
    with pytest.raises(DecodingError, match="the end of the compressed content is missing"):
        decoder.finish()


@pytest.mark.parametrize("case", ["deflate", "br", "gzip"])
def test_bytes_behind_the_end_are_an_error(case: str) -> None:
    coding, compress = CODED[case]
    with pytest.raises(DecodingError, match=f"its content-encoding is {coding}, but"):
        decoded(coding, [compress(BODY), b"more"])


@pytest.mark.parametrize("case", ["gzip", "deflate", "br"])
def test_output_comes_in_bounded_pieces(case: str) -> None:
    coding, compress = CODED[case]
    decoder = decoder_for([(b"content-encoding", coding.encode())])
    assert decoder is not None
    sizes = [len(piece) for piece in decoder.decode(compress(bytes(32 << 20)))]
    decoder.finish()
    assert sum(sizes) == 32 << 20
    assert max(sizes) <= 1 << 20


# ---------------------------------------------------------------- in a check


def answer(body: Any, coding: str, *, status: int = 200, **headers: str) -> httpx.MockTransport:
    fields = {**HEADERS, "content-encoding": coding, **headers}
    return httpx.MockTransport(lambda _: httpx.Response(status, headers=fields, stream=Pieces(body)))


@attrs.define(eq=False)
class Pieces(httpx.AsyncByteStream):
    pieces: Sequence[bytes]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


async def report_on(
    transport: httpx.AsyncBaseTransport, *, contract: StreamContract = AI_SDK_7, **options: Any
) -> ContractReport:
    async with httpx.AsyncClient(transport=transport, base_url="http://chat.example", **options) as client:
        return await check_stream(client, "/", contract=contract)


def rules_of(report: ContractReport) -> list[str]:
    return [finding.rule for finding in report.findings]


@pytest.mark.anyio
@pytest.mark.virtual_time
class TestChecks:
    @pytest.mark.parametrize("case", CODED)
    async def test_the_findings_do_not_depend_on_the_coding_or_the_cuts(self, case: str) -> None:
        coding, compress = CODED[case]
        compressed = compress(BODY)
        plain = await report_on(answer([BODY], "identity"))
        expected = rules_of(plain) + ["head.compressed"] * (compress is not bytes)
        for pieces in ([compressed], [compressed[at : at + 7] for at in range(0, len(compressed), 7)]):
            report = await report_on(answer(pieces, coding))
            assert sorted(rules_of(report)) == sorted(expected)
            assert report.event_count == 3

    @pytest.mark.parametrize(
        ("coding", "remedy"),
        [
            ("compress", "send the header accept-encoding: gzip"),
            ("gzip, gzip", "send the header accept-encoding: gzip"),
            ("br", "or install brotli"),
            ("zstd", "or install backports.zstd"),
        ],
    )
    async def test_a_coding_that_cannot_be_read_is_one_finding(
        self, coding: str, remedy: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(decoding, "_first_installed", lambda *_: None)
        report = await report_on(answer([b"\x1f\x8b anything"], coding))
        (finding,) = report.findings
        assert finding.rule == "transport.decoding"
        assert f"its content-encoding is {coding}, which cannot be decoded here" in (finding.actual or "")
        assert remedy in (finding.actual or "")
        assert report.interrupted is FailureKind.DECODING

    @pytest.mark.parametrize(
        ("status", "headers", "rule"),
        [
            (503, {}, "head.status"),
            (307, {"location": "/other"}, "head.redirect"),
            (200, {"content-type": "text/html"}, "head.content-type"),
        ],
    )
    async def test_a_response_that_is_no_stream_has_no_finding_about_its_coding(
        self, status: int, headers: dict[str, str], rule: str
    ) -> None:
        transport = answer([b"anything"], "compress", status=status, **headers)
        report = await report_on(transport, contract=COMPAT_LANE)
        assert rules_of(report) == [rule]
        assert not report.ok

    async def test_a_refusal_is_read_through_its_coding(self) -> None:
        body = gzip.compress(b'{"error": {"code": "busy", "message": "try later"}}')
        report = await report_on(answer([body], "gzip", status=503))
        assert rules_of(report) == ["head.status"]
        assert "try later" in (report.findings[0].actual or "")

    @pytest.mark.parametrize("reads_first", [False, True])
    async def test_content_that_httpx_holds_already_is_checked(self, reads_first: bool) -> None:
        async def read_first(response: httpx.Response) -> None:
            await response.aread()

        transport = httpx.MockTransport(
            lambda _: httpx.Response(
                200, headers={**HEADERS, "content-encoding": "gzip"}, content=gzip.compress(BODY)
            )
        )
        hooks = {"response": [read_first] if reads_first else []}
        report = await report_on(transport, event_hooks=hooks)
        assert report.event_count == 3
        streamed = await report_on(answer([gzip.compress(BODY)], "gzip"), event_hooks=hooks)
        assert (rules_of(report), report.event_count) == (rules_of(streamed), streamed.event_count)

    # On trio, httpx itself leaves its generators open.
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    async def test_a_hook_that_reads_a_body_with_a_lying_header_is_no_reset(self) -> None:
        async def read_first(response: httpx.Response) -> None:
            await response.aread()

        report = await report_on(answer([BODY], "gzip"), event_hooks={"response": [read_first]})
        assert rules_of(report) == ["transport.decoding"]

    async def test_an_app_in_process_streams_through_its_compression(self) -> None:
        arrived: list[float] = []

        async def squeezing(scope: Any, receive: Any, send: Any) -> None:
            headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
            headers.append((b"content-encoding", b"gzip"))
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            squeeze = zlib.compressobj(wbits=31)
            for event in EVENTS:
                body = squeeze.compress(event) + squeeze.flush(zlib.Z_SYNC_FLUSH)
                await send({"type": "http.response.body", "body": body, "more_body": True})
                await anyio.sleep(0.5)
            await send({"type": "http.response.body", "body": squeeze.flush()})

        async with (
            httpx.AsyncClient(transport=StreamingASGITransport(squeezing), base_url="http://app") as client,
            stream_contract(client, "/", contract=AI_SDK_7, strict=False, deadline=9.0) as stream,
        ):
            start = anyio.current_time()
            for kind in ("start", "finish", "[DONE]"):
                await stream.expect(kind)
                arrived.append(anyio.current_time() - start)
            report = stream.report
        assert arrived == pytest.approx([0.0, 0.5, 1.0], abs=0.1)
        assert report.event_count == 3


@pytest.mark.anyio
class TestBombs:
    """In real time: a small body that becomes a large one neither stops the event loop nor fills the memory."""

    BOMB = gzip.compress(EVENTS[0]) + gzip.compress(bytes(8 << 20)) * 512

    @pytest.mark.parametrize("content", [BOMB, gzip.compress(b"") * 500_000], ids=["zeros", "empty members"])
    async def test_the_deadline_holds(self, content: bytes) -> None:
        contract = attrs.evolve(AI_SDK_7, limits=Limits(whole=0.2))
        began = anyio.current_time()
        async with httpx.AsyncClient(
            transport=answer([content], "gzip"), base_url="http://a.example"
        ) as client:
            report = await check_stream(client, "/", contract=contract)
        assert report.interrupted is FailureKind.DEADLINE
        # The whole body would take several times as long.
        assert anyio.current_time() - began < 2.0

    async def test_the_memory_is_bounded(self) -> None:
        content = gzip.compress(EVENTS[0]) + gzip.compress(bytes(8 << 20)) * 8
        tracemalloc.start()
        try:
            report = await report_on(answer([content], "gzip"))
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert report.byte_count == len(EVENTS[0]) + (64 << 20)
        assert report.event_count == 1
        assert "stream.oversized" in rules_of(report)
        assert most < 16 << 20
