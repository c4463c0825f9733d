"""Rules about the bytes of a stream, for a client that reads less than the standard allows (WHATWG HTML 9.2.5 and 9.2.6).

The parser stays the standard's. These rules look at the same bytes beside it.
"""

from collections.abc import Iterator

import attrs

from cutover.contract.findings import Deviation

_BOM = b"\xef\xbb\xbf"
_BLANK_LINES = (b"\n\n", b"\r\r", b"\r\n\r\n", b"\n\r\n", b"\r\n\n", b"\n\r")


@attrs.frozen(kw_only=True)
class Framing:
    """The wishes of a client about the bytes, beyond the standard. By default it has none."""

    only_lf: bool = False
    """True if lines must end with LF, and not with CR or CRLF."""
    event_line: bool = False
    """True if every event must have an `event` line that is not empty."""
    no_comments: bool = False
    """True if there must be no comments."""
    no_bom: bool = False
    """True if the stream must not begin with a byte order mark."""
    blank_line_at_end: bool = False
    """True if the body must end with a blank line, whatever stands before it."""

    @property
    def is_standard(self) -> bool:
        """Return True if the client wants nothing beyond the standard."""
        return self == Framing()


@attrs.define(eq=False)
class FramingWatch:
    """The watch over the bytes of one stream. It keeps at most the first three and the last four of them."""

    rules: Framing
    _begins: int = 0
    """Position of this body in all bodies of a resumed stream, in bytes."""
    _received: int = attrs.field(init=False)
    _first: bytes = attrs.field(default=b"", init=False)
    # The beginning of the body is the beginning of a line.
    _last: bytes = attrs.field(default=b"\n", init=False)
    _cr_is_told: bool = attrs.field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._received = self._begins

    def receive_data(self, data: bytes) -> Iterator[tuple[int, Deviation]]:
        """Yield the rules that the next bytes break, each with its position in the body. Consume all of it."""
        if self.rules.only_lf and not self._cr_is_told and (at := data.find(b"\r")) >= 0:
            self._cr_is_told = True
            yield self._received + at, Deviation("framing.line-end", "lines that end with LF", "a CR")
        if len(self._first) < len(_BOM):
            had = len(self._first)
            self._first += data[: len(_BOM) - had]
            if self.rules.no_bom and self._first == _BOM:
                yield (
                    self._begins,
                    Deviation("framing.bom", "a stream without a byte order mark", "a byte order mark"),
                )
        self._received += len(data)
        self._last = (self._last + data[-4:])[-4:]

    def ended(self) -> Iterator[tuple[int, Deviation]]:
        """Yield the rule that the end of the body breaks, with its position in the body."""
        body_is_empty = self._received == self._begins
        if self.rules.blank_line_at_end and not body_is_empty and not self._last.endswith(_BLANK_LINES):
            yield (
                self._received,
                Deviation(
                    "framing.blank-line",
                    "a blank line at the end",
                    "the end of the body within a line or after one",
                ),
            )
