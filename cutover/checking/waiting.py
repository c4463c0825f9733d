"""The end of the wait for a stream: the time until which its contract waits, and the judgement of a stream that let it pass."""

import math

from cutover.contract import ContractChecker, FailureKind


def wait_until(checker: ContractChecker, leave_after: float | None) -> float:
    """Return the time at which to stop waiting, in seconds since the request was sent; infinity for never.

    Args:
        checker: The checker of the stream.
        leave_after: Seconds after which a stream without an end of its own is left; None: it is never left.
    """
    return min(checker.next_deadline or math.inf, leave_after or math.inf)


def give_up(checker: ContractChecker, leave_after: float | None, *, elapsed: float) -> bool:
    """End the check of a stream for which nobody waits any longer. Return True if it was left, and judged as far as it went.

    Args:
        checker: The checker of the stream.
        leave_after: As for `wait_until`.
        elapsed: Seconds since the request was sent. If the time of `wait_until` is long past, or a timer was a little early, that time counts.
    """
    elapsed = min(max(elapsed, wait_until(checker, leave_after)), checker.next_deadline or math.inf)
    # Without an event there is nothing to judge, and that is no pass.
    if leave_after is not None and elapsed >= leave_after and checker.report().event_count:
        checker.receive_leave(elapsed=leave_after)
        return True
    is_late = elapsed >= checker.contract.limits.whole
    checker.receive_failure(FailureKind.DEADLINE if is_late else FailureKind.STALL, elapsed=elapsed)
    return False
