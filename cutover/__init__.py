"""cutover: move production chat streams (Server-Sent Events) to a new service, safely.

The parser and the contract are here at once; the train, the session and the transport load when they are asked for.
"""

from typing import TYPE_CHECKING

from cutover.contract import (
    AI_SDK_5,
    AI_SDK_6,
    AI_SDK_7,
    COMPAT_LANE,
    ContractChecker,
    ContractReport,
    StreamContract,
    check_recording,
)
from cutover.errors import ContractViolation
from cutover.findings import Finding, Severity
from cutover.sse import Comment, EventStreamParser, MessageEvent, Oversized, Retry, Truncated

if TYPE_CHECKING:
    from cutover.asgi import StreamingASGITransport
    from cutover.config import CutoverConfig
    from cutover.probe import check_stream
    from cutover.recover import recover_cutover
    from cutover.run import run_cutover
    from cutover.session import stream_contract
    from cutover.summary import CutoverSummary

__version__ = "0.1.0"

_LATER = {
    "CutoverConfig": "config",
    "CutoverSummary": "summary",
    "StreamingASGITransport": "asgi",
    "check_stream": "probe",
    "recover_cutover": "recover",
    "run_cutover": "run",
    "stream_contract": "session",
}
"""Name -> the module that it is loaded from when it is first used (PEP 562)."""

__all__ = [
    "AI_SDK_5",
    "AI_SDK_6",
    "AI_SDK_7",
    "COMPAT_LANE",
    "Comment",
    "ContractChecker",
    "ContractReport",
    "ContractViolation",
    "CutoverConfig",
    "CutoverSummary",
    "EventStreamParser",
    "Finding",
    "MessageEvent",
    "Oversized",
    "Retry",
    "Severity",
    "StreamContract",
    "StreamingASGITransport",
    "Truncated",
    "check_recording",
    "check_stream",
    "recover_cutover",
    "run_cutover",
    "stream_contract",
]


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  only for the names that come later

    value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
