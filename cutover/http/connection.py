"""One request whose response streams, as a client sends it. This file knows no contract and no library of clients.

A `StreamClient` stands for the caller's client. Its ``open`` sends one request, and gives an `OpenStream` once the head has come.
A failure is a `StreamFailure`: one of the kinds of `FailureKind`, and the cause in the client's own words. Each library of clients
has one adapter: ``httpx_client.py`` and ``aiohttp_client.py``; ``clients.py`` chooses.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping
from typing import Protocol

import anyio.lowlevel
import attrs

from cutover.contract import FailureKind
from cutover.http.asgi.exchange import Exchange
from cutover.http.decoding import Decoder, DecodingError, decoder_for

SSE_HEADERS: Mapping[str, str] = {"accept": "text/event-stream", "cache-control": "no-store"}
"""Headers that a client of event streams sends (WHATWG HTML 9.2.2), unless the caller gives them another value."""


@attrs.frozen(kw_only=True)
class StreamRequest:
    """A request that starts a stream."""

    method: str
    url: str
    """Absolute, or relative to the client's base URL."""
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    """Headers by name. ``accept`` and ``cache-control`` have the values of `SSE_HEADERS` by default; ``content-length`` is added."""
    body: bytes = b""
    label: str = "stream"
    """Name of the request: httpx gives it to the transport as the extension ``label``, so that a test can inject a fault."""


class StreamFailure(Exception):  # noqa: N818  it becomes a finding, and no caller sees it
    """A request, or the reading of its response, failed for a reason outside the stream's bytes."""

    def __init__(self, kind: FailureKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason
        """The cause: in plain words, then in those of the client."""


class OpenStream(Protocol):
    """A response whose head has come."""

    @property
    def status(self) -> int:
        """The status of the response."""

    @property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """Raw names and values, in the order of the response."""

    @property
    def is_decoded(self) -> bool:
        """True if the pieces are decompressed already, whatever the headers say."""

    @property
    def exchange(self) -> Exchange | None:
        """The exchange with an app in this process, if each piece is one that the app has sent; else None."""

    async def receive(self) -> bytes | None:
        """Wait for the next piece of the body as it is on the wire, and return it; return None at the end of the body.

        Raises:
            StreamFailure: The connection failed before the end of the body.
            BaseException: An app in this process raised it.
        """

    async def aclose(self) -> None:
        """Close the response, and its connection if the body was not read to its end."""


class StreamClient(Protocol):
    """A client that sends requests for streams."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the client sends with each request."""

    def url_of(self, request: StreamRequest) -> str:
        """Return the absolute URL of a request, with the login of the client's base URL; see `mask_urls`. A URL that is none is returned as it is."""

    async def open(
        self,
        request: StreamRequest,
        *,
        headers: Mapping[str, str | bytes],
        content: bytes | AsyncGenerator[bytes],
        on_exchange: Callable[[Exchange], None],
    ) -> OpenStream:
        """Send a request, and return its response once the head has come.

        Args:
            request: The request. Its own headers and body are not sent.
            headers: All headers to send besides the client's own.
            content: The body to send.
            on_exchange: Receives the exchange with an app in this process, before the app runs.

        Raises:
            StreamFailure: No head came.
            BaseException: An app in this process raised it.
        """


def with_sse_headers(headers: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    """Return the headers with those of `SSE_HEADERS` that are not among them, in whatever case their names are written."""
    given = {name.lower() for name in headers}
    return {**{name: value for name, value in SSE_HEADERS.items() if name not in given}, **headers}


def reader_of(stream: OpenStream) -> Callable[[], Awaitable[bytes | None]]:
    """Return a function like `OpenStream.receive`, whose pieces are decompressed. For a body without compression it is that one.

    Raises:
        StreamFailure: The body has a coding that cannot be read here. The returned function raises it for a body that is not what
            its coding says.
    """
    if stream.is_decoded:
        return stream.receive
    try:
        decoder = decoder_for(stream.headers)
    except DecodingError as error:
        raise StreamFailure(FailureKind.DECODING, str(error)) from error
    return stream.receive if decoder is None else _DecodedBody(stream, decoder).receive


@attrs.define(eq=False)
class _DecodedBody:
    """The body of an open stream, decompressed."""

    _stream: OpenStream
    _decoder: Decoder
    _pieces: Iterator[bytes] = attrs.field(factory=lambda: iter(()), init=False)

    async def receive(self) -> bytes | None:
        try:
            while True:
                # A short body can hold a lot, and its deadlines must hold all the same.
                await anyio.lowlevel.checkpoint()
                if (piece := next(self._pieces, None)) is not None:
                    if piece:
                        return piece
                    continue
                data = await self._stream.receive()
                if data is None:
                    self._decoder.finish()
                    return None
                self._pieces = self._decoder.decode(data)
        except DecodingError as error:
            raise StreamFailure(FailureKind.DECODING, str(error)) from error
