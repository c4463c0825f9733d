r"""The contract of an event stream, and the checker that holds a stream to it.

The checker does no IO and has no clock: the caller passes bytes and times. A first use::

    from cutover.contract import ContractChecker
    from cutover.protocols import COMPAT_LANE

    checker = ContractChecker(COMPAT_LANE)
    checker.receive_data(b'data: {"type": "start"}\n\ndata: {"type": "start-step"}\n\n', elapsed=0.1)
    checker.receive_data(b'data: {"type": "finish-step"}\n\ndata: {"type": "finish"}\n\n', elapsed=0.2)
    checker.receive_data(b"data: [DONE]\n\n", elapsed=0.3)
    checker.receive_eof(elapsed=0.4)
    checker.report().raise_for_violations()

The last line raises nothing, because this turn is good. Without the `[DONE]`, it raises a `ContractViolation` that begins
with `terminator.missing`. `checker.report().findings` lists all findings without raising.
"""

from cutover.contract.checker import ContractChecker
from cutover.contract.definition import Limits, StreamContext, StreamContract
from cutover.contract.each import Each
from cutover.contract.failure import FailureKind
from cutover.contract.findings import Finding, Severity
from cutover.contract.framing import Framing
from cutover.contract.grammar import ServiceError
from cutover.contract.head_rules import HeadRules
from cutover.contract.kinds import Kind
from cutover.contract.own_rules import Contiguous, JoinedJson, NeverFalls, RuleEvent, StreamRule, Unchanged
from cutover.contract.report import ContractReport
from cutover.contract.rules import RULES, Rule
from cutover.contract.shapes.shape import ANYTHING, TEXT
from cutover.contract.timing import Timings
from cutover.lazy_names import load_on_first_use

__all__ = [
    "ANYTHING",
    "RULES",
    "TEXT",
    "Contiguous",
    "ContractChecker",
    "ContractReport",
    "Each",
    "FailureKind",
    "Finding",
    "Framing",
    "HeadRules",
    "JoinedJson",
    "Kind",
    "Limits",
    "NeverFalls",
    "Rule",
    "RuleEvent",
    "ServiceError",
    "Severity",
    "StreamContext",
    "StreamContract",
    "StreamRule",
    "Timings",
    "Unchanged",
]

# These names moved to other packages. Old code that imports them from here still works.
__getattr__, __dir__ = load_on_first_use(
    __name__,
    {
        "AI_SDK_5": "cutover.protocols",
        "AI_SDK_6": "cutover.protocols",
        "AI_SDK_7": "cutover.protocols",
        "COMPAT_LANE": "cutover.protocols",
        "SHIPPED": "cutover.protocols",
        "check_recording": "cutover.checking.recording",
    },
)
