"""The check of a recorded response against a contract."""

from collections.abc import Mapping

import attrs

from cutover.contract.checker import ContractChecker
from cutover.contract.definition import StreamContext, StreamContract
from cutover.contract.report import ContractReport
from cutover.contract.timing import Timings
from cutover.protocols.catalog import COMPAT_LANE


def check_recording(
    body: bytes,
    *,
    contract: StreamContract = COMPAT_LANE,
    strict: bool = True,
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    context: StreamContext | None = None,
) -> ContractReport:
    """Check the recorded body of a response against the strict form of a contract, and return the report.

    Args:
        body: All bytes of the body, after decompression.
        contract: The contract that the stream must keep. Default: ``COMPAT_LANE``.
        strict: True for the strict form of the contract (`StreamContract.strict`): each loss that a user can see is a violation.
            False for the client's own verdict. Default: True.
        status: The response's status. Default None: the rules about the status are not checked.
        headers: The response's headers. Default None: the rules about headers are not checked.
        context: The thread id of the request and the ids of earlier tool calls. Default None: both are unknown.

    Returns:
        The report of the check. It has no timings, because a recording holds no times. A violation is a finding in the
        report and does not raise. To raise an error for violations, call ``raise_for_violations()``.
    """
    checker = ContractChecker(contract.strict() if strict else contract, context=context)
    if headers is not None or (status is not None and status not in contract.head.statuses):
        fields = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()
        ]
        checker.receive_head(contract.head.statuses[0] if status is None else status, fields, elapsed=0.0)
    checker.receive_data(body, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    # A recording does not say when its bytes came.
    return attrs.evolve(checker.report(), timings=Timings())
