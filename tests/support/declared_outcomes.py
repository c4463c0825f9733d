"""What a train that meets one wire fault must come to, declared by the sort of request and the kind of fault.

Read it as the promise to an operator. Every outcome has one exit code and one place where production is left.
"""

import re
from collections.abc import Callable

import attrs

from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, ON_STABLE, OPEN
from tests.support.wire_faults import OF_ANY, OF_ROUTES, OF_TRAFFIC, Kind

PASSING = frozenset(
    {Kind.REFUSED, Kind.HTTP_429, Kind.HTTP_500, Kind.HTTP_503, Kind.HANG, Kind.RESET, Kind.TRUNCATED}
)
"""What a read tries again: the provider's hiccups. Any other answer is one, and is not asked for twice."""
SAID_NO = frozenset(kind for kind in Kind if kind.status is not None)
"""A change that was answered with these was refused, as far as the peer's word goes."""
DONE = frozenset({Kind.TRUNCATED, Kind.REPLY_LOST, Kind.NO_REPLY, Kind.LOST_AND_LATE, Kind.LATE, Kind.SLOW})
"""A change that took effect, or will: reading back tells, whatever became of the reply."""
NOT_DONE = frozenset({Kind.REFUSED, Kind.HANG, Kind.RESET, Kind.HTML, Kind.NO_EFFECT})
"""A change that did not take effect, without a refusal: only reading back tells."""
FAILED = frozenset({Kind.FAILED_AND_DONE, Kind.FAILED_AND_LATE})
"""A change that took effect, or will, behind a gateway's 503: on the way forward a stop, on the way back found by reading."""


@attrs.frozen(kw_only=True)
class Outcome:
    """How a train ends, and where it leaves production."""

    exit_code: int
    left: str

    def __str__(self) -> str:
        return f"{self.exit_code}" + (f" ({self.left})" if self.exit_code == 4 else "")


@attrs.frozen(kw_only=True)
class Strike:
    """A fault of one kind, at one request of a label or at every one."""

    label: str
    kind: Kind
    always: bool
    base: int
    """The exit code of the same train without it."""


GO = Outcome(exit_code=0, left=AS_MEANT)
NO = Outcome(exit_code=1, left=AS_CAPTURED)
NO_LATEST = Outcome(exit_code=1, left=ON_STABLE)
"""A drill that fails leaves everything on stable, whatever was captured."""
NO_EVIDENCE = Outcome(exit_code=3, left=AS_CAPTURED)
UNREADABLE = Outcome(exit_code=4, left=AS_CAPTURED)
"""Production is as it was, and nobody could read that: so nobody can claim it."""
NOT_PUT_BACK = Outcome(exit_code=4, left=OPEN)


def _read_again(strike: Strike, otherwise: Outcome) -> Outcome:
    """Three attempts: a hiccup is got over, a fault that lasts or an answer that says no is not."""
    return GO if strike.kind in PASSING and not strike.always else otherwise


def _preflight(strike: Strike) -> Outcome:
    return _read_again(strike, NO_EVIDENCE)


def _revision(strike: Strike) -> Outcome:
    """404 is evidence: there is no such revision."""
    return NO if strike.kind is Kind.HTTP_404 else _preflight(strike)


def _first_stream(strike: Strike) -> Outcome:
    """A stream costs a turn and is never tried again; before a connection or with a refused token it tells nothing."""
    without = {Kind.REFUSED, Kind.HTTP_401, Kind.HTTP_403}
    return NO_EVIDENCE if strike.kind in without else NO


def _no(_: Strike) -> Outcome:
    return NO


def _read_forward(strike: Strike) -> Outcome:
    return _read_again(strike, NO)


def _read_back(strike: Strike) -> Outcome:
    """The split is read until it is proven or the time is over: one bad read is none."""
    return NO if strike.always else GO


def _promote(strike: Strike) -> Outcome:
    return GO if strike.kind in DONE else NO


def _roll_back(strike: Strike) -> Outcome:
    """Written again until it is proven; where that fails the undo has a write of its own, by another label."""
    match strike.kind:
        case Kind.UNDONE | Kind.NEVER:
            return NO  # put back by the undo: after the last look, after the deadline
        case kind if strike.always and kind in SAID_NO | NOT_DONE:
            return NO
        case _:
            return GO


def _restore(strike: Strike) -> Outcome:
    """As the rollback; what fails here fails the drill, and stable has everything by then."""
    outcome = _roll_back(strike)
    return outcome if outcome is GO or strike.kind is Kind.UNDONE else NO_LATEST


def _go(_: Strike) -> Outcome:
    """Only a look on the way: another read decides."""
    return GO


def _override(strike: Strike) -> Outcome:
    """Refused is a stop. What else did not take effect is written again in the next round, and it is idempotent."""
    kind = strike.kind
    first, last = ".0." in strike.label, ".5." in strike.label
    if kind in SAID_NO | FAILED:
        return NO
    if kind is Kind.UNDONE:
        return NO  # the instance forgot everything: found by the second look
    if first and kind in {Kind.LATE, Kind.LOST_AND_LATE}:
        return NO  # the clearing lands after the setting: found by the second look
    if kind in NOT_DONE and strike.always and not first and not last:
        return NO
    return GO  # the first label clears what is clear; the last one's rounds are the first one's


def _write_probe(strike: Strike) -> Outcome:
    """Any answer of the new service will do; none, or a 5xx, is tried no second time."""
    failed = PASSING - {Kind.HTTP_429}
    return NO if strike.kind in failed else GO


def _plain_of_dual_run(strike: Strike) -> Outcome:
    """Two attempts. A page is expected of the page, whatever it says."""
    return GO if strike.kind is Kind.HTML and strike.label.endswith(".root") else _read_again(strike, NO)


def _undone(strike: Strike) -> Outcome:
    return Outcome(exit_code=strike.base, left=AS_CAPTURED)


def _undo_override(strike: Strike) -> Outcome:
    """Written in rounds until read back: only what never takes effect is not put back."""
    return NOT_PUT_BACK if strike.always and strike.kind in SAID_NO | NOT_DONE else _undone(strike)


def _undo_read(strike: Strike) -> Outcome:
    return UNREADABLE if strike.always else _undone(strike)


def _undo_write(strike: Strike) -> Outcome:
    """Written again until it is proven, and still proven a while later."""
    hopeless = SAID_NO | NOT_DONE | {Kind.UNDONE, Kind.NEVER}
    return NOT_PUT_BACK if strike.always and strike.kind in hopeless else _undone(strike)


@attrs.frozen
class Sort:
    """A sort of requests: which faults there are of it, and what they come to."""

    name: str
    labels: str
    """A regular expression."""
    kinds: tuple[Kind, ...]
    outcome: Callable[[Strike], Outcome]
    every: bool = True
    """Whether a fault at every request of a label is another thing than one at a single one: not where none is repeated."""


SORTS = (
    Sort("preflight", r"preflight\.revision-.*", OF_ANY, _revision),
    Sort("preflight", r"preflight\..*|drill\.status-pre", OF_ANY, _preflight),
    Sort("first streams", r"(stream-smoke-pre|drill\.canary-direct)\..*", OF_ANY, _first_stream, every=False),
    Sort("moving traffic", r"drill\.traffic-\d+\.write", OF_TRAFFIC, _promote),
    Sort("reading back", r"drill\.(traffic-\d+|rollback)\.read-back", OF_ANY, _read_back),
    Sort("moving traffic back", r"drill\.rollback\.write", OF_TRAFFIC, _roll_back),
    Sort("moving traffic back", r"drill\.restore\.write", OF_TRAFFIC, _restore),
    Sort("reading back", r"drill\.restore\.read-back", OF_ANY, _go),
    Sort("evaluating", r"flip\.(evaluate|confirm)\.(?!root).*", OF_ANY, _read_forward, every=False),
    Sort("moving routes", r"flip\.apply\.\d\..*", OF_ROUTES, _override),
    Sort("write probes", r"flip\.write-.*", OF_ANY, _write_probe, every=False),
    Sort("reading", r"flip\..*|final\..*|drill\.status-post|drill\.traffic-\d+\.held", OF_ANY, _read_forward),
    Sort("undoing routes", r"undo\.routes\.\d\..*", OF_ROUTES, _undo_override),
    Sort("reading the undo of routes", r"undo\.routes\.read-back", OF_ANY, _undo_read),
    Sort("undoing traffic", r"undo\.traffic\.write", OF_TRAFFIC, _undo_write),
    Sort("reading the undo once more", r"undo\.traffic\.held", OF_ANY, _undo_read),
    Sort("reading the undo of traffic", r"undo\.traffic(\..*)?", OF_ANY, _undone),
    Sort("streams after an undo", r"stream-smoke-undone\..*", OF_ANY, _undone, every=False),
    Sort("dual run", r"dual\.\w+\.(?!(chat|chats)-stream$).*", OF_ANY, _plain_of_dual_run),
    Sort("streams", r"(drill|stream-smoke-post|sentinel|dual)\..*", OF_ANY, _no, every=False),
)
"""The first whose labels match is a label's."""


def sort(label: str) -> Sort:
    """Return what sort of request a label is of."""
    return next(one for one in SORTS if re.fullmatch(one.labels, label))


def declared(strike: Strike) -> Outcome:
    """Return what must come of a fault."""
    outcome = sort(strike.label).outcome(strike)
    return _undone(strike) if outcome is GO and strike.base else outcome
