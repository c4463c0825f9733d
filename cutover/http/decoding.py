"""The decompression of a body, piece by piece: each output is bounded, so a small body cannot fill the memory.

One content coding is read here: gzip (RFC 1952; several members are one body) or deflate (RFC 1950, or RFC 1951 as some servers
send it). Any other one is named by an error, and the body is then not read at all.
"""

import zlib
from collections.abc import Iterator, Sequence

import attrs

_LARGEST_OUTPUT = 256 * 1024
"""Bytes of the largest piece that comes out at once."""
_GZIP, _ZLIB, _RAW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS
_GZIP_NAMES = frozenset({"gzip", "x-gzip"})
_NOT_CODED = frozenset({"", "identity", "none"})
"""Codings that change nothing. `none` is no registered name, but some services send it to switch compression off."""


class DecodingError(Exception):
    """The body is not what its content-encoding says, or has a coding that cannot be read here."""


def decoder_for(headers: Sequence[tuple[bytes, bytes]]) -> "Decoder | None":
    """Return a decoder for a body with these headers; None if the body is not compressed.

    Raises:
        DecodingError: The body has a coding that cannot be read here.
    """
    values = [value.decode("latin-1") for name, value in headers if name.lower() == b"content-encoding"]
    codings = [coding.strip().lower() for coding in ",".join(values).split(",")]
    codings = [coding for coding in codings if coding not in _NOT_CODED]
    if not codings:
        return None
    if codings == ["deflate"]:
        return Decoder(coding="deflate", window=_ZLIB)
    if len(codings) == 1 and codings[0] in _GZIP_NAMES:
        return Decoder(coding="gzip", window=_GZIP)
    raise DecodingError(
        f"its content-encoding is {', '.join(codings)}, and only gzip and deflate are read here; "
        "send the header accept-encoding: identity"
    )


@attrs.define(eq=False, kw_only=True)
class Decoder:
    """A decoder of one compressed body."""

    coding: str
    """The content coding, for messages."""
    window: int
    """The size of the window, and the format, as ``zlib.decompressobj`` wants it."""
    _inflater: "zlib._Decompress | None" = attrs.field(default=None, init=False)
    _has_begun: bool = attrs.field(default=False, init=False)

    def decode(self, data: bytes) -> Iterator[bytes]:
        """Yield the decompressed content of the next bytes, in pieces.

        Raises:
            DecodingError: The bytes are not in the coding.
        """
        while data:
            if self._inflater is None:
                if self._has_begun:
                    # Padding behind the last member is no member (gzip pads with zeros).
                    data = data.lstrip(b"\0")
                    if not data:
                        return
                self._inflater = zlib.decompressobj(self.window)
            try:
                piece = self._inflater.decompress(data, _LARGEST_OUTPUT)
            except zlib.error as error:
                if self.window == _ZLIB and not self._has_begun:
                    self.window, self._inflater = _RAW, None
                    continue
                raise DecodingError(f"its content-encoding is {self.coding}, but {error}") from error
            self._has_begun = True
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail
            if self._inflater.eof:
                self._inflater = None
            if piece:
                yield piece

    def finish(self) -> Iterator[bytes]:
        """Yield the content that is left at the end of the body.

        Raises:
            DecodingError: The end of the compressed content is missing.
        """
        if self._inflater is not None:
            piece = self._inflater.flush()
            if piece:
                yield piece
            raise DecodingError(
                f"its content-encoding is {self.coding}, and the end of the compressed content is missing"
            )
