"""The looks of a smoke: every alias is asked once, and again after a turn that failed on its way.

A healthy service loses a turn now and then. So the smoke passes after five good looks in a row, and fails when an alias fails more turns than
chance explains. A turn that breaks the contract, or whose token is refused, fails it at once.
"""

from collections.abc import Mapping, Sequence

import attrs

from cutover.checking.probe import Probe
from cutover.clock import Clock
from cutover.model.losses import IN_A_ROW, SmokeLooks
from cutover.production.lane_prober import LaneProber
from cutover.train.canary_turns import weighed_turn
from cutover.train.probe_log import ProbeLog

PAUSE = 1.0
"""Seconds between two looks."""
LOST_BY_CHANCE = f"the last {IN_A_ROW} looks are good, and a healthy service loses a turn now and then"


@attrs.frozen(kw_only=True)
class Asked:
    """The result of all looks."""

    passed: bool
    logs: Mapping[str, ProbeLog]
    """Name of the alias -> its turns."""
    last: Sequence[Probe]
    """The probes of the last look."""
    named: frozenset[str]
    """The revisions that answered, as far as a header names them."""


async def ask(prober: LaneProber, clock: Clock, *, label: str, most_failed: float) -> Asked:
    """Look until the smoke passes or fails.

    Args:
        prober: The prober of the lane.
        clock: The clock of the pauses.
        label: The beginning of the labels of the requests.
        most_failed: The part of the turns, between 0 and 1, that chance explains if they fail on their way.
    """
    logs = {alias.name: ProbeLog() for alias in prober.aliases}
    named = frozenset[str]()
    looks = SmokeLooks(aliases=len(logs), most=most_failed)
    while True:
        look = await prober.probe_all(label=label)
        named |= prober.revisions(look)
        for log, probe in zip(logs.values(), look, strict=True):
            log.add(probe)
        turns = [weighed_turn(probe) for probe in look]
        weighed = [turn.failed for turn in turns if turn is not None]
        passed = looks.take(weighed) if len(weighed) == len(look) else False
        if passed is not None:
            return Asked(passed=passed, logs=logs, last=look, named=named)
        await clock.sleep(PAUSE)
