"""The declared outcome of a train in which one wire fault is injected, by group of requests and by fault.

The declarations are the promise to an operator: each outcome names one exit code and one state of production.
"""

import re
from collections.abc import Callable

import attrs

from tests.support.run_invariants import AS_CAPTURED, AS_MEANT, OPEN
from tests.support.wire_faults import (
    ANY_REQUEST_FAULTS,
    ROUTE_CHANGE_FAULTS,
    TRAFFIC_CHANGE_FAULTS,
    WireFault,
)

TRANSIENT = frozenset(
    {
        WireFault.REFUSED,
        WireFault.HTTP_429,
        WireFault.HTTP_500,
        WireFault.HTTP_503,
        WireFault.HANG,
        WireFault.RESET,
        WireFault.TRUNCATED,
    }
)
"""Faults after which the train sends a read again. Every other fault is an answer, and the train does not ask twice."""
ON_ITS_WAY = TRANSIENT
"""Faults of a stream that say little alone. Such a turn is weighed, and one of them stops nothing."""
REFUSALS = frozenset(fault for fault in WireFault if fault.status is not None)
"""Faults that answer a change with an error status. The train takes such a change for refused."""
PASSING = frozenset({WireFault.HTTP_409, WireFault.HTTP_429, WireFault.HTTP_500, WireFault.HTTP_503})
"""Refusals of an override that may pass, so that the override is set again."""
WITH_EFFECT = frozenset(
    {
        WireFault.TRUNCATED,
        WireFault.REPLY_LOST,
        WireFault.NO_REPLY,
        WireFault.LOST_AND_LATE,
        WireFault.LATE,
        WireFault.SLOW,
    }
)
"""Faults after which a change takes effect, now or later. Reading back shows the effect, with or without a reply."""
WITHOUT_EFFECT = frozenset(
    {WireFault.REFUSED, WireFault.HANG, WireFault.RESET, WireFault.HTML, WireFault.NO_EFFECT}
)
"""Faults after which a change has no effect, although no server refused it. Only reading back shows this."""
STALE = frozenset({WireFault.BROKEN_DEPLOY})
"""Faults that make the etag of a change stale, so that the change is refused. The split stays as it is."""
HICCUPS = frozenset(
    {
        WireFault.REFUSED,
        WireFault.HTTP_409,
        WireFault.HTTP_412,
        WireFault.HTTP_429,
        WireFault.HTTP_500,
        WireFault.HTTP_503,
        WireFault.HANG,
        WireFault.RESET,
        WireFault.HTML,
        WireFault.BROKEN_DEPLOY,
    }
)
"""Faults without effect after which a forward write of the split is sent again: a conflict, a quota, a 5xx, no usable answer."""
FAILED_WITH_EFFECT = frozenset({WireFault.FAILED_AND_DONE, WireFault.FAILED_AND_LATE})
"""Faults that answer 503 to a change that takes effect. A flip stops there; the drill and an undo find the effect by reading."""


@attrs.frozen(kw_only=True)
class Outcome:
    """The end of a train: its exit code, and the state in which it leaves production."""

    exit_code: int
    left: str
    """State of production: one of the words in ``run_invariants``."""

    def __str__(self) -> str:
        return f"{self.exit_code}" + (f" ({self.left})" if self.exit_code == 4 else "")


@attrs.frozen(kw_only=True)
class InjectedFault:
    """One wire fault, at one request of a label or at every one."""

    label: str
    fault: WireFault
    at_every_request: bool
    """True: every request of the label meets the fault. False: one request does."""
    exit_code_without_fault: int
    """Exit code of the same train without this fault."""


GO = Outcome(exit_code=0, left=AS_MEANT)
NO_GO = Outcome(exit_code=1, left=AS_CAPTURED)
NO_EVIDENCE = Outcome(exit_code=3, left=AS_CAPTURED)
UNREADABLE = Outcome(exit_code=4, left=AS_CAPTURED)
"""Production is as captured, but the train cannot read it, so the undo stays unproven."""
NOT_PUT_BACK = Outcome(exit_code=4, left=OPEN)


def _read_again(injected: InjectedFault, otherwise: Outcome) -> Outcome:
    """Return GO for one transient fault, because a read has three attempts; return ``otherwise`` for any other fault."""
    return GO if injected.fault in TRANSIENT and not injected.at_every_request else otherwise


def _preflight(injected: InjectedFault) -> Outcome:
    return _read_again(injected, NO_EVIDENCE)


def _lifetime(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault where the service may say how long a token lives. It need not say so, but the lane must not refuse its token."""
    own_service = not injected.label.endswith("cloud-run")
    refused = injected.fault in {WireFault.HTTP_401, WireFault.HTTP_403}
    return NO_EVIDENCE if own_service and refused else GO


def _address(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at the look at an address: any reply is an answer, and a look that hangs has no second one."""
    silent = injected.fault in {WireFault.REFUSED, WireFault.RESET} and injected.at_every_request
    return NO_EVIDENCE if silent or injected.fault is WireFault.HANG else GO


def _weighed_stream(injected: InjectedFault) -> Outcome:
    """Return GO for one turn that failed on its way, because it is weighed; a broken contract is NO_GO at once."""
    return GO if injected.fault in ON_ITS_WAY else NO_GO


def _first_stream(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at a stream before the first change. With a refused token it is no evidence."""
    refused = injected.fault in {WireFault.HTTP_401, WireFault.HTTP_403}
    return NO_EVIDENCE if refused else _weighed_stream(injected)


def _always_no_go(_: InjectedFault) -> Outcome:
    return NO_GO


def _read_forward(injected: InjectedFault) -> Outcome:
    return _read_again(injected, NO_GO)


def _read_back(injected: InjectedFault) -> Outcome:
    """Return GO unless every read fails: the train reads the split until it is proven or the time is over."""
    return NO_GO if injected.at_every_request else GO


def _read_back_rollback(injected: InjectedFault) -> Outcome:
    """Return GO, because another look proves the rollback. But reads that are sent again and again prove it too late."""
    return NO_GO if injected.at_every_request and injected.fault in TRANSIENT else GO


def _promote(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at a write that moves traffic to the canary.

    A hiccup is written again a few times, because a read shows that nobody has changed anything; at every request it does not end.
    """
    if injected.fault in WITH_EFFECT | FAILED_WITH_EFFECT:
        return GO
    return GO if injected.fault in HICCUPS and not injected.at_every_request else NO_GO


def _give_tag(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at the write of the drill's tag: without the tag nothing was judged, and no share has moved.

    A tag that is undone a second later is no loss: by then the first step has written it again.
    """
    if injected.fault in WITH_EFFECT | FAILED_WITH_EFFECT | {WireFault.UNDONE}:
        return GO
    return GO if injected.fault in HICCUPS and not injected.at_every_request else NO_EVIDENCE


def _read_back_tag(injected: InjectedFault) -> Outcome:
    return NO_EVIDENCE if injected.at_every_request else GO


def _roll_back(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at the rollback, which is written again until it is proven.

    If the rollback stays unproven, the undo sends its own write, under another label.
    """
    match injected.fault:
        case WireFault.UNDONE:
            # the undo puts the traffic back, after the last look
            return NO_GO
        case WireFault.NEVER:
            # a second write at the deadline takes no time here
            return NO_GO if injected.at_every_request else GO
        case fault if injected.at_every_request and fault in REFUSALS | WITHOUT_EFFECT | STALE:
            return NO_GO
        case _:
            return GO


def _restore(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at the restore: a failure fails the step, and the undo restores what was captured, LATEST included."""
    return _roll_back(injected)


def _always_go(_: InjectedFault) -> Outcome:
    """Return GO: this read only observes, or looks for a sign; another evidence decides, and no answer is no sign."""
    return GO


def _override(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at an override.

    A refusal stops the flip, unless it passes: then the round begins again. Any other override without effect is written again in the next
    round; overrides are idempotent.
    """
    fault = injected.fault
    first, last = ".0." in injected.label, ".5." in injected.label
    if fault in REFUSALS - PASSING:
        return NO_GO
    if fault in PASSING | FAILED_WITH_EFFECT and injected.at_every_request:
        # the last override of a round has taken effect, and that is read back
        return GO if last and fault is WireFault.FAILED_AND_DONE else NO_GO
    if fault is WireFault.UNDONE:
        # the instance lost every override, and the second look finds that
        return NO_GO
    if first and fault in {WireFault.LATE, WireFault.LOST_AND_LATE, WireFault.FAILED_AND_LATE}:
        # the clearing lands after the setting, and the second look finds that
        return NO_GO
    if fault in WITHOUT_EFFECT and injected.at_every_request and not first and not last:
        return NO_GO
    # the first label clears an override that is already clear; the last label's rounds are those of the first label
    return GO


def _write_probe(injected: InjectedFault) -> Outcome:
    """Return GO for any answer of the new service; no answer or a 5xx is NO_GO, because a write probe has one attempt."""
    failed = TRANSIENT - {WireFault.HTTP_429}
    return NO_GO if injected.fault in failed else GO


def _plain_of_dual_run(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at a plain request of the dual run, which has two attempts.

    Another page in one answer is noise in one service alone, and in all answers a difference, also where the text is not compared.
    """
    return _read_again(injected, NO_GO)


def _undone(injected: InjectedFault) -> Outcome:
    return Outcome(exit_code=injected.exit_code_without_fault, left=AS_CAPTURED)


def _undo_override(injected: InjectedFault) -> Outcome:
    """Return NOT_PUT_BACK only if no write ever takes effect: an undo writes in rounds until it reads back the override."""
    never_lands = injected.at_every_request and injected.fault in REFUSALS | WITHOUT_EFFECT
    return NOT_PUT_BACK if never_lands else _undone(injected)


def _undo_read(injected: InjectedFault) -> Outcome:
    return UNREADABLE if injected.at_every_request else _undone(injected)


def _undo_write(injected: InjectedFault) -> Outcome:
    """Return the outcome of a fault at a write of the undo, which is repeated until it is proven to last."""
    hopeless = REFUSALS | WITHOUT_EFFECT | STALE | {WireFault.UNDONE, WireFault.NEVER}
    return NOT_PUT_BACK if injected.at_every_request and injected.fault in hopeless else _undone(injected)


@attrs.frozen
class RequestGroup:
    """Requests that meet the same faults with the same outcomes."""

    name: str
    labels: str
    """A regular expression for the labels of the requests."""
    faults: tuple[WireFault, ...]
    outcome: Callable[[InjectedFault], Outcome]
    is_repeated: bool = True
    """True if the train may repeat such a request. Then a fault at every request differs from a fault at one request."""


REQUEST_GROUPS = (
    RequestGroup("lifetimes of tokens", r"preflight\.token-.*", ANY_REQUEST_FAULTS, _lifetime),
    RequestGroup(
        "asking at a tag",
        r"preflight\.canary-evidence\..*|drill\.tag\.answer",
        ANY_REQUEST_FAULTS,
        _always_go,
    ),
    RequestGroup("giving a tag", r"drill\.tag\.write", TRAFFIC_CHANGE_FAULTS, _give_tag),
    RequestGroup("giving a tag", r"drill\.tag\.read-back", ANY_REQUEST_FAULTS, _read_back_tag),
    RequestGroup("addresses", r"preflight\.address-.*", ANY_REQUEST_FAULTS, _address),
    RequestGroup("preflight", r"preflight\..*|drill\.status-pre", ANY_REQUEST_FAULTS, _preflight),
    RequestGroup(
        "first streams",
        r"(stream-smoke-pre|drill\.canary-direct)\..*",
        ANY_REQUEST_FAULTS,
        _first_stream,
        is_repeated=False,
    ),
    RequestGroup("moving traffic", r"drill\.traffic-\d+\.write", TRAFFIC_CHANGE_FAULTS, _promote),
    RequestGroup("reading back", r"drill\.traffic-\d+\.read-back", ANY_REQUEST_FAULTS, _read_back),
    RequestGroup("reading back", r"drill\.rollback\.read-back", ANY_REQUEST_FAULTS, _read_back_rollback),
    RequestGroup("moving traffic back", r"drill\.rollback\.write", TRAFFIC_CHANGE_FAULTS, _roll_back),
    RequestGroup("moving traffic back", r"drill\.restore\.write", TRAFFIC_CHANGE_FAULTS, _restore),
    RequestGroup("reading back", r"drill\.restore\.read-back", ANY_REQUEST_FAULTS, _always_go),
    RequestGroup(
        "evaluating",
        r"flip\.(evaluate|confirm)\.(?!root).*",
        ANY_REQUEST_FAULTS,
        _read_forward,
        is_repeated=False,
    ),
    RequestGroup("moving routes", r"flip\.apply\.\d\..*", ROUTE_CHANGE_FAULTS, _override),
    RequestGroup("write probes", r"flip\.write-.*", ANY_REQUEST_FAULTS, _write_probe, is_repeated=False),
    RequestGroup("moving traffic", r"promotion\.promotion\.write", TRAFFIC_CHANGE_FAULTS, _promote),
    RequestGroup("reading back", r"promotion\.promotion\.read-back", ANY_REQUEST_FAULTS, _read_back),
    RequestGroup("moving routes", r"promotion\.routes\.\d\..*", ROUTE_CHANGE_FAULTS, _override),
    RequestGroup(
        "reading",
        r"promotion\.(status-.*|routes\.read-back|promotion\.held)",
        ANY_REQUEST_FAULTS,
        _read_forward,
    ),
    RequestGroup(
        "reading",
        r"flip\..*|final\..*|drill\.status-post|drill\.traffic-\d+\.held",
        ANY_REQUEST_FAULTS,
        _read_forward,
    ),
    RequestGroup("undoing routes", r"undo\.routes\.\d\..*", ROUTE_CHANGE_FAULTS, _undo_override),
    RequestGroup("reading the undo of routes", r"undo\.routes\.read-back", ANY_REQUEST_FAULTS, _undo_read),
    RequestGroup("undoing traffic", r"undo\.traffic\.write", TRAFFIC_CHANGE_FAULTS, _undo_write),
    RequestGroup("reading the undo of traffic", r"undo\.traffic(\..*)?", ANY_REQUEST_FAULTS, _undone),
    RequestGroup(
        "streams after an undo", r"stream-smoke-undone\..*", ANY_REQUEST_FAULTS, _undone, is_repeated=False
    ),
    RequestGroup(
        "identity of the legacy service",
        r"dual-identity\..*",
        ANY_REQUEST_FAULTS,
        _always_go,
        is_repeated=False,
    ),
    RequestGroup(
        "dual run", r"dual\.\w+\.(?!(chat|chats)-stream$).*", ANY_REQUEST_FAULTS, _plain_of_dual_run
    ),
    RequestGroup(
        "weighed streams",
        r"(drill\.(traffic-\d+|rollback)|promotion\.promotion|stream-smoke-post|sentinel)\..*",
        ANY_REQUEST_FAULTS,
        _weighed_stream,
        is_repeated=False,
    ),
    RequestGroup(
        "streams",
        r"(drill|promotion|dual)\..*",
        ANY_REQUEST_FAULTS,
        _always_no_go,
        is_repeated=False,
    ),
)
"""A label belongs to the first group whose expression matches it."""


def request_group(label: str) -> RequestGroup:
    """Return the group of the requests with this label."""
    return next(group for group in REQUEST_GROUPS if re.fullmatch(group.labels, label))


def declared_outcome(injected: InjectedFault) -> Outcome:
    """Return the outcome that a train must have with this fault."""
    outcome = request_group(injected.label).outcome(injected)
    return _undone(injected) if outcome is GO and injected.exit_code_without_fault else outcome
