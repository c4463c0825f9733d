"""The pages of the documentation and their blocks, and the notation of the streams on them (see docs/rules/index.md)."""

import contextlib
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs

from cutover.contract import (
    ContractChecker,
    ContractReport,
    FailureKind,
    Finding,
    StreamContext,
    StreamContract,
)
from cutover.protocols import COMPAT_LANE
from tests.support.paths import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
PAGES = (README, *sorted(path for path in DOCS.rglob("*.md")))

FAILS, PASSES = "It fails", "It passes"
STREAMS = ("sse", "http")
TURN = "".join(
    f"data: {data}\n\n"
    for data in (
        '{"type":"start"}',
        '{"type":"start-step"}',
        '{"type":"finish-step"}',
        '{"type":"finish"}',
        "[DONE]",
    )
)
"""The body for which ``# a whole turn`` stands."""

_FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_AT = re.compile(r"# at ([0-9.]+) s( the connection breaks)?")
_BYTE = re.compile(rb"\\x([0-9a-f]{2})")


@attrs.frozen(kw_only=True)
class Block:
    """One fenced block of a page."""

    page: Path
    language: str
    title: str | None
    """The name of the file that the block is, or the command whose output it shows; None for neither."""
    text: str
    heading: str
    """The last heading before the block."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.title or self.text.splitlines()[0][:40]}"


@attrs.frozen
class Page:
    """One page."""

    path: Path

    @property
    def blocks(self) -> Sequence[Block]:
        """Return the blocks of the page, in order."""
        text = self.path.read_text("utf-8")
        plain = _FENCE.sub(lambda match: " " * len(match[0]), text)
        headings = [(match.start(), match[1]) for match in _HEADING.finditer(plain)]
        return [
            Block(
                page=self.path,
                language=match[1],
                title=match[2],
                text=match[3],
                heading=next((title for at, title in reversed(headings) if at < match.start()), ""),
            )
            for match in _FENCE.finditer(text)
        ]

    def examples(self) -> Iterator[tuple[Block, Sequence[Finding]]]:
        """Yield each example of the page with its findings: each stream, and each block of Python that makes ``findings``.

        A stream is checked by the latest ``contract`` and ``context`` of the blocks of Python before it. Blocks that are files do
        not count.
        """
        names: dict[str, Any] = {"contract": COMPAT_LANE, "context": None}
        for block in self.blocks:
            if block.language == "python" and block.title is None:
                names.pop("findings", None)
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(block.text, str(self.path), "exec"), names)  # noqa: S102  the page's own example
                if "findings" in names:
                    yield block, names["findings"]
            elif block.language in STREAMS:
                yield block, report_on(block, names["contract"], names["context"]).findings


def lines_of(findings: Sequence[Finding]) -> list[str]:
    """Return one line for each finding, as `cutover check` prints it, but without the place."""
    return [f"{each.severity.value} {each.rule}: {each.message}" for each in findings]


def report_on(block: Block, contract: StreamContract, context: StreamContext | None) -> ContractReport:
    """Return the report on the stream that a block writes down."""
    checker = ContractChecker(contract, context=context)
    pieces, now, failure = _pieces(block)
    for elapsed, piece in pieces:
        if isinstance(piece, bytes):
            checker.receive_data(piece, elapsed=elapsed)
        else:
            checker.receive_head(*piece, elapsed=elapsed)
    if failure in {None, FailureKind.APP_ERROR}:
        checker.receive_eof(elapsed=now)
    if failure is not None:
        checker.receive_failure(failure, elapsed=now)
    return checker.report()


_FAILURES = {
    "# no connection": FailureKind.UNREACHABLE,
    "# the body cannot be decompressed": FailureKind.DECODING,
    "# the client refuses the status": FailureKind.REFUSED_STATUS,
    "# the mock has no route": FailureKind.NO_ROUTE,
    "# the app raises": FailureKind.APP_ERROR,
}
"""Lines that end a stream with a failure."""
_RawHead = tuple[int, list[tuple[bytes, bytes]]]


def _pieces(block: Block) -> tuple[list[tuple[float, bytes | _RawHead]], float, FailureKind | None]:
    """Return the pieces of a stream with their times, the time of its end, and the failure that ends it, if one does."""
    lines = block.text.splitlines()
    pieces: list[tuple[float, bytes | _RawHead]] = []
    body, now, failure, whole = b"", 0.1, None, True
    while lines:
        line = lines.pop(0)
        at = _AT.fullmatch(line)
        if at is not None:
            pieces, body, now = [*pieces, (now, body)] if body else pieces, b"", float(at[1])
            failure = FailureKind.RESET if at[2] else None
        elif line in _FAILURES:
            failure = _FAILURES[line]
        elif line == "# a whole turn":
            body += TURN.encode()
        elif line == "# cut":
            body, whole = body.removesuffix(b"\n"), False
        elif line.startswith("#"):
            raise ValueError(f"{block}: no such line: {line}")
        elif block.language == "http" and line.startswith("HTTP/"):
            end = lines.index("")
            head, lines = lines[:end], lines[end + 1 :]
            fields = [tuple(field.encode("latin-1").split(b": ", 1)) for field in head]
            pieces.append((now, (int(line.split()[1]), fields)))  # type: ignore[arg-type]
        else:
            body += _BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), line.encode()) + b"\n"
    # The blank line that ends the last event need not be written.
    ends_event = whole and body and not body.endswith(b"\n\n")
    pieces = [*pieces, (now, body + (b"\n" if ends_event else b""))] if body else pieces
    return pieces, now, failure


def sections_of(path: Path) -> list[tuple[str, str]]:
    """Return the headings of a page, each with the text below it, up to the next one."""
    text = path.read_text("utf-8")
    plain = _FENCE.sub(lambda match: " " * len(match[0]), text)
    found = list(_HEADING.finditer(plain))
    ends = [match.start() for match in found[1:]] + [len(text)]
    return [(match[1], text[match.end() : end].strip()) for match, end in zip(found, ends, strict=True)]


def links_of(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the relative links of a page: the file (empty for the page itself) and the section (empty for none)."""
    plain = _FENCE.sub("", path.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", plain):
        if "://" not in target:
            name, _, anchor = target.partition("#")
            yield name, anchor
