"""The fuzz target for the checker: it never raises, and its findings do not depend on how the bytes are cut."""

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
from tests.support.own_contracts import OWN

CONTRACTS = tuple(
    attrs.evolve(each, limits=attrs.evolve(each.limits, max_event_bytes=2000, max_open_bytes=10_000))
    for each in (
        *(each for shipped in SHIPPED.values() for each in (shipped, shipped.strict())),
        *OWN.values(),
    )
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
    """Check that any bytes, cut in any way, give the report of the recording and raise nothing."""
    which, setting, pieces = settings_and_pieces(data)
    contract = CONTRACTS[which % len(CONTRACTS)]
    head, context = HEADS[setting % len(HEADS)], CONTEXTS[setting // len(HEADS) % len(CONTEXTS)]
    body = b"".join(pieces)
    status, headers = head or (None, None)
    recorded = check_recording(
        body, contract=contract, strict=False, status=status, headers=headers, context=context
    )
    for cut in (pieces, [body], [body[at : at + 1] for at in range(len(body))]):
        live = _report_at_end(contract, head, context, cut)
        assert attrs.evolve(live, timings=Timings()) == recorded
    _check_report(recorded)
    for kind in FailureKind:
        _check_report(_report_at_failure(contract, head, context, pieces, kind))


def _started_checker(
    contract: StreamContract, head: tuple[int, dict[str, str]] | None, context: StreamContext | None
) -> ContractChecker:
    """Return a checker that has received the head, if there is one."""
    checker = ContractChecker(contract, context=context)
    if head is not None:
        fields = [(name.encode(), value.encode()) for name, value in head[1].items()]
        checker.receive_head(head[0], fields, elapsed=0.0)
    return checker


def _report_at_end(
    contract: StreamContract,
    head: tuple[int, dict[str, str]] | None,
    context: StreamContext | None,
    pieces: Iterable[bytes],
) -> ContractReport:
    """Return the report on a stream that came to its end. Check that each finding was returned once."""
    checker = _started_checker(contract, head, context)
    found = list(checker.report().findings)
    for piece in pieces:
        found += checker.receive_data(piece, elapsed=0.0)
    found += checker.receive_eof(elapsed=0.0)
    report = checker.report()
    assert sorted(map(str, found)) == sorted(map(str, report.findings)), "each is returned once"
    return report


def _report_at_failure(
    contract: StreamContract,
    head: tuple[int, dict[str, str]] | None,
    context: StreamContext | None,
    pieces: Iterable[bytes],
    kind: FailureKind,
) -> ContractReport:
    """Return the report on a stream that failed. Check that it is not `ok`."""
    checker = _started_checker(contract, head, context)
    elapsed = 0.0
    for number, piece in enumerate(pieces):
        # The gaps differ: some pieces come at once, some in time, and some too late.
        elapsed += number % 7 * 1.5
        checker.receive_data(piece, elapsed=elapsed)
    checker.receive_failure(kind, elapsed=elapsed)
    report = checker.report()
    assert not report.ok
    assert report.interrupted is kind
    return report


def _check_report(report: ContractReport) -> None:
    """Check that all findings have a known rule and a place in the stream, and that any terminal can show them."""
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
