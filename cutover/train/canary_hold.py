"""A hold at a share of the canary: the train waits for an operator's decision, and watches the share meanwhile as in its soak."""

from contextlib import suppress

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model.holds import check_id
from cutover.model.results import StepStatus
from cutover.model.traffic_state import TrafficTarget, mismatch_reason
from cutover.production.services import Services
from cutover.train.canary_share import CanaryShares
from cutover.train.canary_watch import CanaryWatch
from cutover.train.hold import Ending, Holds

SPLIT_SECONDS = 30.0
"""Seconds between two reads of the split during a wait for a decision."""


async def hold_share(shares: CanaryShares, percent: int, holds: Holds) -> None:
    """Keep a share that was given and judged until an operator's decision, and watch it as in the soak; record one check.

    The check passes only with the decision ``go``. A fault ends the wait at once, and no number of failed checks tolerates it.
    """
    name, targets, recorder = check_id(str(percent)), shares.targets(percent), shares.recorder
    watch = shares.watch(name)
    reads = _SplitReads(services=shares.services, targets=targets, label=f"{shares.label}.{name}.split")
    sentinels = shares.sentinels.around(name, on_fault=shares.see_fault)

    async def take_look() -> bool:
        return await watch.look() and await reads.show_the_split()

    async def keep_watch(seconds: float, ends: anyio.Event) -> bool:
        return await watch.keep(seconds, sentinels=sentinels, take_look=take_look, ends=ends)

    async with sentinels.open():
        held = await holds.wait(
            str(percent), state=_state(shares, percent), recorder=recorder, keep_watch=keep_watch
        )
    if held.ending is Ending.GO:
        # A turn that failed in the wait is decided before the train goes on.
        await watch.press_on(shares.services.clock.now() + shares.plan.longest_soak)
    if held.ending is Ending.FAULT or (held.ending is Ending.GO and (watch.lost or not shares.judge.allows)):
        shares.see_fault()
        _record_fault(shares, watch, reads.problem)
    elif held.ending is Ending.NO_GO or await shares.kept(targets, name, through="wait"):
        held.record(recorder)
    else:
        shares.see_fault()
    shares.count(sentinels)


def _state(shares: CanaryShares, percent: int) -> str:
    """Return the state that the operator decides about, in words: the split, and the text of the share's check."""
    served, given = shares.state.describe_served(), f"traffic-{percent}"
    details = (check.detail for check in reversed(shares.recorder.checks) if check.check_id == given)
    judged = next(details, "")
    return judged if served in judged else f"{served}; {judged}"


def _record_fault(shares: CanaryShares, watch: CanaryWatch, problem: str) -> None:
    """Record the check of a wait that a fault ended: a turn, the split, or a sentinel."""
    if watch.seen.failing or not (shares.judge.allows or problem):
        shares.judge.record_failure(watch.name, watch.seen, tolerable=False)
    else:
        detail = problem or "the wait was ended early, because a sentinel stream broke"
        shares.recorder.check(watch.name, StepStatus.FAIL, detail, kind="traffic", tolerable=False)


@attrs.define(eq=False, kw_only=True)
class _SplitReads:
    """The reads of the split during a wait: one with a look, at most every ``SPLIT_SECONDS``."""

    services: Services
    targets: tuple[TrafficTarget, ...]
    label: str
    problem: str = ""
    """The reason why the split is not as it was given; empty while it is, as far as the reads show."""
    _next: float = 0.0

    async def show_the_split(self) -> bool:
        """Return False if a read shows another split. A read without an answer shows nothing: the read after the wait must have one."""
        if self.services.clock.now() >= self._next:
            self._next = self.services.clock.now() + SPLIT_SECONDS
            with suppress(PeerError):
                found = await self.services.traffic.read(label=self.label)
                reason = mismatch_reason(found, self.targets)
                self.problem = reason and f"the split did not hold through the wait: {reason}"
        return not self.problem
