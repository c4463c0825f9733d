"""cutover: move production chat streams (Server-Sent Events) to a new service, safely.

A name loads when it is first asked for, so that a suite with the pytest plugin installed pays nothing for what it does not use.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cutover.asgi import StreamingASGITransport
    from cutover.config import CutoverConfig
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
    from cutover.probe import check_stream
    from cutover.recover import recover_cutover
    from cutover.run import run_cutover
    from cutover.session import stream_contract
    from cutover.sse import Comment, EventStreamParser, MessageEvent, Oversized, Retry, Truncated
    from cutover.summary import CutoverSummary

__version__ = "0.1.0"

_HOMES = {
    "AI_SDK_5": "contract",
    "AI_SDK_6": "contract",
    "AI_SDK_7": "contract",
    "COMPAT_LANE": "contract",
    "Comment": "sse",
    "ContractChecker": "contract",
    "ContractReport": "contract",
    "ContractViolation": "errors",
    "CutoverConfig": "config",
    "CutoverSummary": "summary",
    "EventStreamParser": "sse",
    "Finding": "findings",
    "MessageEvent": "sse",
    "Oversized": "sse",
    "Retry": "sse",
    "Severity": "findings",
    "StreamContract": "contract",
    "StreamingASGITransport": "asgi",
    "Truncated": "sse",
    "check_recording": "contract",
    "check_stream": "probe",
    "recover_cutover": "recover",
    "run_cutover": "run",
    "stream_contract": "session",
}
"""Public name -> the module that it is loaded from when it is first used (PEP 562)."""

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
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  nothing is loaded before it is asked for

    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
