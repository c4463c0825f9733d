"""A recorded response held against a contract."""

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
    status: int | None = None,
    headers: Mapping[str, str] | None = None,
    context: StreamContext | None = None,
) -> ContractReport:
    """Hold a whole body, and its head as far as it was kept, against a contract.

    Args:
        body: The response's body, decoded of its content-encoding.
        contract: What it must be.
        status: The response's status; left out, no rule about it is judged.
        headers: The response's headers; left out, no rule about them is judged.
        context: The request that it answers.
    """
    checker = ContractChecker(contract, context=context)
    if headers is not None or (status is not None and status not in contract.head.statuses):
        fields = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()
        ]
        checker.receive_head(contract.head.statuses[0] if status is None else status, fields, elapsed=0.0)
    checker.receive_data(body, elapsed=0.0)
    checker.receive_eof(elapsed=0.0)
    return attrs.evolve(checker.report(), timings=Timings())  # when it came is not recorded
