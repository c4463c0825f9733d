"""The decompression of a body, piece by piece: each piece that comes out is bounded, so a small body cannot fill the memory.

A body with one content coding is read: gzip (RFC 1952; several members are one body), deflate (RFC 1950, or RFC 1951 as some
servers send it), and br and zstd if a library is installed that can bound its output. Any other body is named by an error, and is
then not read at all.
"""

import importlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, Final, Protocol

import attrs

_LARGEST_OUTPUT = 256 * 1024
"""Bytes of the largest piece that is asked for at once."""
_LARGEST_INPUT = 64 * 1024
"""Bytes that are decompressed at once. The rest of them is copied for each piece that comes out, and for each member."""
_NOT_CODED = frozenset({"", "identity", "none", "utf-8", "utf8"})
"""Codings that change nothing. Only `identity` is a registered name; `none` switches middleware off, and a charset stands there by mistake."""
_ZLIB_HEADER = 2
"""Bytes of the header by which a body of RFC 1950 is told from one of RFC 1951."""
_CUT = "the end of the compressed content is missing"


class DecodingError(Exception):
    """The body is not what its content-encoding says, or has a coding that cannot be read here."""


class _Member(Protocol):
    """A decompressor of one compressed member, of the form that those of the standard library have (`lzma`, `compression.zstd`)."""

    @property
    def eof(self) -> bool:
        """True once the end of the member has come."""

    @property
    def needs_input(self) -> bool:
        """False if there is more output for the bytes that came before."""

    @property
    def unused_data(self) -> bytes:
        """The bytes behind the end of the member."""

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Take the next bytes, and return the next output."""


@attrs.define(eq=False)
class _ZlibMember:
    """A member of zlib: gzip, or deflate with or without its header."""

    # The format and the size of the window, as zlib wants them; None until the first bytes of a body of deflate tell.
    _window: int | None = None
    _inflater: "zlib._Decompress | None" = attrs.field(default=None, init=False)
    # The input that is left.
    _rest: bytes = attrs.field(default=b"", init=False)
    needs_input: bool = attrs.field(default=True, init=False)
    eof: bool = attrs.field(default=False, init=False)
    unused_data: bytes = attrs.field(default=b"", init=False)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        data = self._rest + data
        if self._inflater is None:
            if self._window is None:
                if len(data) < _ZLIB_HEADER:
                    self._rest = data
                    return b""
                self._window = zlib.MAX_WBITS if _has_zlib_header(data) else -zlib.MAX_WBITS
            self._inflater = zlib.decompressobj(self._window)
        piece = self._inflater.decompress(data, max_length)
        self._rest = self._inflater.unconsumed_tail
        self.eof, self.unused_data = self._inflater.eof, self._inflater.unused_data
        # Output can be left although all input was taken: a few bits can stand for a lot.
        self.needs_input = not self._rest and len(piece) < max_length
        return piece


def _has_zlib_header(data: bytes) -> bool:
    """Return True if the first two bytes are a header of zlib (RFC 1950 2.2). Deflate alone never begins so."""
    return data[0] & 0x0F == zlib.DEFLATED and int.from_bytes(data[:_ZLIB_HEADER], "big") % 31 == 0


@attrs.define(eq=False)
class _BrotliMember:
    """A body of brotli. Bytes behind its end are an error of the library."""

    _decompressor: Any
    needs_input: bool = attrs.field(default=True, init=False)
    eof: bool = attrs.field(default=False, init=False)
    unused_data: bytes = attrs.field(default=b"", init=False)

    def decompress(self, data: bytes, max_length: int) -> bytes:
        piece: bytes = self._decompressor.process(data, output_buffer_limit=max_length)
        self.eof = self._decompressor.is_finished()
        # It takes more input already while it still has output.
        self.needs_input = not piece and self._decompressor.can_accept_more_data()
        return piece


@attrs.define(eq=False, kw_only=True)
class Decoder:
    """A decoder of one compressed body."""

    coding: str
    """The content coding, for messages."""
    _new_member: Callable[[], _Member]
    _error: type[Exception]
    # True if a body can have several members.
    _has_members: bool = True
    _member: _Member | None = attrs.field(default=None, init=False)
    _has_begun: bool = attrs.field(default=False, init=False)

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed content of the next bytes, in pieces. Between two of them only a bounded time passes.

        So a piece may be empty.

        Raises:
            DecodingError: The bytes are not in the coding.
        """
        for at in range(0, len(data), _LARGEST_INPUT):
            yield from self._decode(data[at : at + _LARGEST_INPUT])

    def _decode(self, data: bytes) -> Iterator[bytes]:
        while True:
            if self._member is None:
                if self._has_begun:
                    # Padding behind the last member is no member (gzip pads with zeros).
                    data = data.lstrip(b"\0")
                if not data:
                    return
                if self._has_begun and not self._has_members:
                    raise self._failed("bytes came behind the end of the compressed content")
                self._member, self._has_begun = self._new_member(), True
            elif not data and self._member.needs_input:
                return
            member = self._member
            try:
                piece = member.decompress(data, _LARGEST_OUTPUT)
            except self._error as error:
                raise self._failed(str(error)) from error
            data = b""
            if member.eof:
                data, self._member = member.unused_data, None
            yield piece

    def finish(self) -> None:
        """Check that the compressed content has come to its end.

        Raises:
            DecodingError: Its end is missing.
        """
        if self._member is not None:
            raise self._failed(_CUT)

    def _failed(self, reason: str) -> DecodingError:
        return DecodingError(f"its content-encoding is {self.coding}, but {reason}")


def decoder_for(headers: Sequence[tuple[bytes, bytes]]) -> Decoder | None:
    """Return a decoder for a body with these headers; None if the body is not compressed.

    Raises:
        DecodingError: The body has a coding that cannot be read here.
    """
    values = [value.decode("latin-1") for name, value in headers if name.lower() == b"content-encoding"]
    codings = [coding.strip().lower() for coding in ",".join(values).split(",")]
    codings = [coding for coding in codings if coding not in _NOT_CODED]
    if not codings:
        return None
    decoder = _DECODERS[codings[0]](codings[0]) if len(codings) == 1 and codings[0] in _DECODERS else None
    if decoder is None:
        remedy = "send the header accept-encoding: gzip"
        if len(codings) == 1 and codings[0] in _LIBRARIES:
            remedy += f", or install {_LIBRARIES[codings[0]]}"
        raise DecodingError(
            f"its content-encoding is {', '.join(codings)}, which cannot be decoded here: {remedy}"
        )
    return decoder


def _gzip(coding: str) -> Decoder:
    return Decoder(
        coding=coding, new_member=lambda: _ZlibMember(16 + zlib.MAX_WBITS), error=zlib.error, has_members=True
    )


def _deflate(coding: str) -> Decoder:
    return Decoder(coding=coding, new_member=_ZlibMember, error=zlib.error, has_members=False)


def _brotli(coding: str) -> Decoder | None:
    module = _first_installed("brotli", "brotlicffi")
    # Older versions cannot bound their output, and one kilobyte of brotli can be a gigabyte.
    if module is None or not hasattr(module.Decompressor, "can_accept_more_data"):
        return None
    return Decoder(
        coding=coding,
        new_member=lambda: _BrotliMember(module.Decompressor()),
        error=module.error,
        has_members=False,
    )


def _zstd(coding: str) -> Decoder | None:
    module = _first_installed("compression.zstd", "backports.zstd")
    if module is None:
        return None
    return Decoder(coding=coding, new_member=module.ZstdDecompressor, error=module.ZstdError)


def _first_installed(*names: str) -> ModuleType | None:
    """Return the first of these modules that is installed; None without one."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


_DECODERS: Final[Mapping[str, Callable[[str], Decoder | None]]] = MappingProxyType(
    {"gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "br": _brotli, "zstd": _zstd}
)
"""Content coding -> the function that makes its decoder, or returns None if its library is not installed."""
_LIBRARIES: Final[Mapping[str, str]] = MappingProxyType({"br": "brotli 1.2", "zstd": "backports.zstd"})
"""Content coding that needs a library -> that library."""
