"""The turns of the probes while the canary has a share: each is either weighed, or ends the share at once.

A turn that failed on its way says little alone, because a healthy service loses one now and then: it is weighed by ``model/judgement.py``. A turn
that breaks the contract, a refused token, and a failed turn that nobody can attribute are not weighed.
"""

import attrs

from cutover.checking.probe import Probe
from cutover.model.judgement import Judgement, Turn, Who

_TOO_MANY_REQUESTS = 429
_SERVER_ERROR = 500
_ON_ITS_WAY = frozenset(
    {
        "transport.reset",
        "transport.unreachable",
        "timing.first-event",
        "timing.event-gap",
        "timing.deadline",
    }
)
"""The rules of the contract that a turn breaks when it fails on its way: a connection or a deadline."""
_ALL = 100


def weighed_turn(probe: Probe) -> Turn | None:
    """Return the turn of a probe, to be weighed; None if the probe broke the contract, or its token was refused."""
    if probe.ok:
        return Turn(failed=False, first_event=probe.report.timings.first_event, whole=probe.elapsed)
    status = probe.status or 0
    on_its_way = (
        status >= _SERVER_ERROR
        or status == _TOO_MANY_REQUESTS
        or all(finding.rule in _ON_ITS_WAY for finding in probe.report.violations)
    )
    return Turn(failed=True) if on_its_way else None


@attrs.define(eq=False, kw_only=True)
class CanaryTurns:
    """The turns of one share, given to the judgement by the revision that answered."""

    judgement: Judgement
    stable: str
    canary: str
    percent: int
    """The canary's share; 0 before its first one."""
    canary_has_url: bool
    """True if the canary is probed at a URL of its own."""
    header: bool
    """True if a header names the revision that answers at the front door."""
    stable_has_url: bool
    aliases: int
    """The number of probes of one look at one place."""

    def __attrs_post_init__(self) -> None:
        """Begin the share in the judgement."""
        self.judgement.begin_share(self.percent, stable_answers=self.percent < _ALL or self.stable_has_url)

    @property
    def blind(self) -> bool:
        """True if nothing can tell who answered, so that no turn can be weighed."""
        return bool(self.percent) and not self.canary_has_url and not self.header

    @property
    def least_at_a_look(self) -> int:
        """The number of turns that the canary answers for certain in one look, at its own URL and at the front door."""
        return self.aliases * (self.canary_has_url + (self.percent == _ALL and self.header))

    def weigh(self, probe: Probe, *, name: str | None, place: str | None) -> bool:
        """Give the turn of a probe to the judgement; return False if it is not weighed, because it ends the share at once.

        Args:
            probe: The probe.
            name: The revision that the header names; None without it.
            place: The revision whose own URL was asked; None: the front door.
        """
        if self.blind:
            return probe.ok
        turn = weighed_turn(probe)
        return turn is not None and self.count(turn, name=name, place=place)

    def count(self, turn: Turn, *, name: str | None, place: str | None) -> bool:
        """Count a turn for the revision that answered; return False for a failed turn that nobody can attribute. See ``weigh``."""
        who = self._who(name or place)
        if who is Who.UNKNOWN and turn.failed and not self.canary_has_url:
            if self.percent < _ALL:
                return False
            # The canary has all traffic, and every other stream names it.
            who = Who.CANARY
        self.judgement.add(turn, who, at_front=place is None)
        return True

    def _who(self, name: str | None) -> Who:
        if name == self.canary:
            return Who.CANARY
        if name == self.stable or (name is None and not self.percent):
            return Who.STABLE
        return Who.UNKNOWN
