"""What a stream must be, and whether it is: contracts as data, and the checker that holds a stream against one."""

from cutover.contract.catalog import AI_SDK_5, AI_SDK_6, AI_SDK_7, COMPAT_LANE, SHIPPED
from cutover.contract.checker import ContractChecker
from cutover.contract.definition import HeadRules, Limits, StreamContext, StreamContract
from cutover.contract.failure import FailureKind
from cutover.contract.recording import check_recording
from cutover.contract.report import ContractReport
from cutover.contract.rules import RULES, Rule
from cutover.contract.timing import Timings

__all__ = [
    "AI_SDK_5",
    "AI_SDK_6",
    "AI_SDK_7",
    "COMPAT_LANE",
    "RULES",
    "SHIPPED",
    "ContractChecker",
    "ContractReport",
    "FailureKind",
    "HeadRules",
    "Limits",
    "Rule",
    "StreamContext",
    "StreamContract",
    "Timings",
    "check_recording",
]
