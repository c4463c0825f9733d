"""The proof by streams: after a way back, no revision that has no share any more may answer at the front door.

A control plane can say that stable serves everything while the front door still sends streams to the canary. Only a header that names
the revision shows that.
"""

from collections.abc import Collection

import attrs

from cutover.checking.probe import Probe
from cutover.clock import Clock
from cutover.production.lane_prober import LaneProber
from cutover.train.canary_turns import weighed_turn

LOOKS = 5
"""Number of looks in a row in which no other revision may answer. Each look probes every alias, and so starts chat turns."""
LAG_SECONDS = 15.0
"""Seconds for which the front door may lag behind the served split, and a tag URL behind its tag, if a header names who answers."""
LAG_PAUSE = 1.0
"""Seconds between a look that another revision answered and the next look."""


@attrs.frozen(kw_only=True)
class StreamProof:
    """The streams that were looked at after a way back."""

    probes: tuple[Probe, ...]
    strays: tuple[str, ...]
    """The revisions without a share that answered in the last look."""
    last_stray_at: float | None
    """Time on the clock of the last look in which such a revision answered; None if none ever did."""
    nameless: bool = False
    """True if a header named revisions before, and none in these looks: nobody knows who answers."""
    broken: bool = False
    """True if the last look was no good: a stream broke the contract, or all streams failed, or the time was over with a failed one."""

    @property
    def problem(self) -> str:
        """The reason why the streams disprove the split; empty if they do not."""
        if self.nameless:
            broken = next((f": {probe.describe()}" for probe in self.probes if not probe.ok), "")
            return f"no stream names the revision that answers any more{broken}"
        return f"{' and '.join(self.strays)} still answered a stream" if self.strays else ""


async def prove_by_streams(
    prober: LaneProber,
    clock: Clock,
    *,
    allowed: Collection[str],
    seconds: float,
    label: str,
    header_seen: bool = False,
    stop_when_broken: bool = False,
) -> StreamProof:
    """Look until ``LOOKS`` looks in a row were answered by allowed revisions alone, or until the time is over.

    An answer of another revision starts the count again after a pause. Without a header that names who answers, one look is enough. With
    ``stop_when_broken``, a look in which a turn failed on its way does not count, and another one takes its place.

    Args:
        prober: The prober of the front door.
        clock: The clock of the train.
        allowed: The revisions that have a share.
        seconds: Time until an answer of another revision is final.
        label: Prefix of the labels of the requests.
        header_seen: True if an earlier answer had the header: a look without it is then no reason to stop looking, and no proof.
        stop_when_broken: True ends the looks at the first stream that breaks the contract, and at a look whose streams all fail.
    """
    deadline, clean, probes, last_stray_at = clock.now() + seconds, 0, list[Probe](), None
    named = False
    while True:
        look = await prober.probe_all(label=label)
        probes += look
        names = prober.revisions(look)
        named = named or bool(names)
        strays = tuple(sorted(names.difference(allowed)))
        failed = [probe for probe in look if not probe.ok] if stop_when_broken else []
        clean = 0 if strays else clean + (not failed)
        if strays:
            last_stray_at = clock.now()
        over = bool(strays or failed) and clock.now() >= deadline
        broken = len(failed) == len(look) or any(weighed_turn(probe) is None for probe in failed)
        if over or broken or clean == LOOKS or not (named or header_seen or failed):
            return StreamProof(
                probes=tuple(probes),
                strays=strays,
                last_stray_at=last_stray_at,
                nameless=header_seen and not named,
                broken=broken or (over and bool(failed)),
            )
        if strays or failed:
            await clock.sleep(LAG_PAUSE)
