r"""Move a production chat stream (Server-Sent Events) to a new service, and check that the stream keeps its contract.

A first use::

    from cutover import check_recording

    report = check_recording(b'data: {"type": "start"}\n\n')
    print(report.ok)  # False: the stream ends too early
    print(report.violations[0].message)  # what was expected, and what came

In a service's tests use `stream_contract`; `run_cutover` runs the release train. Each name loads on its first use, so
``import cutover`` is cheap.
"""

from typing import TYPE_CHECKING

from cutover.lazy_names import load_on_first_use

if TYPE_CHECKING:
    from cutover.checking.probe import check_stream
    from cutover.checking.recording import check_recording
    from cutover.config.config import CutoverConfig
    from cutover.contract import ContractChecker, ContractReport, StreamContract
    from cutover.contract.findings import Finding, Severity
    from cutover.errors import ContractViolation, OpenApiError
    from cutover.http.asgi.transport import StreamingASGITransport
    from cutover.model.summary import CutoverSummary
    from cutover.protocols import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE
    from cutover.sse.events import Comment, MessageEvent, Oversized, Retry, Truncated
    from cutover.sse.parser import EventStreamParser
    from cutover.testing.opening import stream_contract
    from cutover.wiring.recover import recover_cutover
    from cutover.wiring.run import run_cutover

__version__ = "0.1.0"

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
    "OpenApiError",
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

__getattr__, __dir__ = load_on_first_use(
    __name__,
    {
        "AI_SDK_5": "cutover.protocols",
        "AI_SDK_6": "cutover.protocols",
        "AI_SDK_7": "cutover.protocols",
        "COMPAT_LANE": "cutover.protocols",
        "Comment": "cutover.sse.parser",
        "ContractChecker": "cutover.contract",
        "ContractReport": "cutover.contract",
        "ContractViolation": "cutover.errors",
        "CutoverConfig": "cutover.config.config",
        "CutoverSummary": "cutover.model.summary",
        "EventStreamParser": "cutover.sse.parser",
        "Finding": "cutover.contract",
        "MessageEvent": "cutover.sse.parser",
        "OpenApiError": "cutover.errors",
        "Oversized": "cutover.sse.parser",
        "Retry": "cutover.sse.parser",
        "Severity": "cutover.contract",
        "StreamContract": "cutover.contract",
        "StreamingASGITransport": "cutover.http.asgi.transport",
        "Truncated": "cutover.sse.parser",
        "check_recording": "cutover.checking.recording",
        "check_stream": "cutover.checking.probe",
        "recover_cutover": "cutover.wiring.recover",
        "run_cutover": "cutover.wiring.run",
        "stream_contract": "cutover.testing",
    },
)
