"""Streams for contracts of an owner, event by event, and their findings in short."""

import json
from collections.abc import Iterable

from cutover.checking.recording import check_recording
from cutover.contract import ContractChecker, ContractReport, StreamContract

DONE = "data: [DONE]\n\n"


def event(data: object, name: str | None = None, own_id: object = None) -> str:
    """Return one event. Data that is a text stands as it is; all other data becomes JSON."""
    name_line = "" if name is None else f"event: {name}\n"
    id_line = "" if own_id is None else f"id: {own_id}\n"
    return f"{name_line}{id_line}data: {data if isinstance(data, str) else json.dumps(data)}\n\n"


def chunk(kind: str, **fields: object) -> str:
    """Return an event whose data says its kind in `type`."""
    return event({"type": kind, **fields})


def report_on(contract: StreamContract, *events: str) -> ContractReport:
    """Return the report on a stream."""
    return check_recording("".join(events).encode(), contract=contract, strict=False)


def rules_of(contract: StreamContract, *events: str) -> list[str]:
    """Return the rules that a stream breaks, in its order."""
    return [finding.rule for finding in report_on(contract, *events).findings]


def found(contract: StreamContract, *events: str) -> list[tuple[str, int | None, str]]:
    """Return the findings of a stream: rule, event and message."""
    findings = report_on(contract, *events).findings
    return [(each.rule, each.event_index, each.message) for each in findings]


def piecewise(contract: StreamContract, pieces: Iterable[bytes]) -> ContractReport:
    """Return the report on a stream that came in these pieces."""
    checker = ContractChecker(contract)
    for piece in pieces:
        checker.receive_data(piece, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    return checker.report()
