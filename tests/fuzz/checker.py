"""The checker: it never raises, and what it says does not depend on how the bytes are cut, nor on whether they were recorded."""

from collections.abc import Iterable

import attrs

from cutover.checking.recording import check_recording
from cutover.contract import (
    RULES,
    ContractChecker,
    ContractReport,
    FailureKind,
    StreamContext,
    StreamContract,
    Timings,
)
from cutover.errors import ContractViolation
from cutover.protocols import SHIPPED
from tests.fuzz.feeding import settings_and_pieces

CONTRACTS = tuple(
    attrs.evolve(each, limits=attrs.evolve(each.limits, max_event_bytes=2000, max_open_bytes=10_000))
    for shipped in SHIPPED.values()
    for each in (shipped, shipped.strict())
)
_STREAM = {"content-type": "text/event-stream; charset=utf-8", "x-vercel-ai-ui-message-stream": "v1"}
HEADS: tuple[tuple[int, dict[str, str]] | None, ...] = (
    None,
    (200, _STREAM),
    (200, {"content-type": "text/html"}),
    (503, {"content-type": "application/json"}),
)
CONTEXTS = (None, StreamContext(thread_id="t1", known_tool_calls=frozenset({"c"})))


def check_checker(data: bytes) -> None:
    """Whatever the bytes and however they are cut, the report is that of the recording, and nothing is raised."""
    which, setting, pieces = settings_and_pieces(data)
    contract = CONTRACTS[which % len(CONTRACTS)]
    head, context = HEADS[setting % len(HEADS)], CONTEXTS[setting // len(HEADS) % len(CONTEXTS)]
    body = b"".join(pieces)
    status, headers = head or (None, None)
    recorded = check_recording(body, contract=contract, status=status, headers=headers, context=context)
    for cut in (pieces, [body], [body[at : at + 1] for at in range(len(body))]):
        live = _told(contract, head, context, cut)
        assert attrs.evolve(live, timings=Timings()) == recorded
    _shown(recorded)
    for kind in FailureKind:
        _shown(_broken_off(contract, head, context, pieces, kind))


def _opened(
    contract: StreamContract, head: tuple[int, dict[str, str]] | None, context: StreamContext | None
) -> ContractChecker:
    checker = ContractChecker(contract, context=context)
    if head is not None:
        fields = [(name.encode(), value.encode()) for name, value in head[1].items()]
        checker.receive_head(head[0], fields, elapsed=0.0)
    return checker


def _told(
    contract: StreamContract,
    head: tuple[int, dict[str, str]] | None,
    context: StreamContext | None,
    pieces: Iterable[bytes],
) -> ContractReport:
    checker = _opened(contract, head, context)
    found = list(checker.report().findings)
    for piece in pieces:
        found += checker.receive_data(piece, elapsed=0.0)
    found += checker.receive_eof(elapsed=0.0)
    report = checker.report()
    assert sorted(map(str, found)) == sorted(map(str, report.findings)), "each is returned once"
    return report


def _broken_off(
    contract: StreamContract,
    head: tuple[int, dict[str, str]] | None,
    context: StreamContext | None,
    pieces: Iterable[bytes],
    kind: FailureKind,
) -> ContractReport:
    checker = _opened(contract, head, context)
    elapsed = 0.0
    for number, piece in enumerate(pieces):
        elapsed += number % 7 * 1.5  # at once, in time, and too late
        checker.receive_data(piece, elapsed=elapsed)
    checker.receive_failure(kind, elapsed=elapsed)
    report = checker.report()
    assert not report.ok
    assert report.interrupted is kind
    return report


def _shown(report: ContractReport) -> None:
    """What is said of a stream is of the known rules and within it, and can be shown on any terminal."""
    for finding in report.findings:
        assert finding.rule in RULES
        assert finding.byte_offset is None or 0 <= finding.byte_offset <= report.byte_count
        assert finding.event_index is None or 0 <= finding.event_index < report.event_count
    try:
        report.raise_for_violations()
    except ContractViolation as violation:
        shown = str(violation)
    else:
        shown = ""
    assert (shown == "") is report.ok
    assert shown.replace("\n", "").isprintable()
