"""Faults of tokens that expire: before the train may be over, or in the middle of it."""

import attrs

from cutover.simulation.faults import Fault, Outcome
from cutover.simulation.layout import Layout
from cutover.simulation.outcomes import DRILL_FAILS, NO_EVIDENCE

_WATCH_SECONDS = 60.0
"""Seconds of each soak: four make a drill of 240 s."""
_IN_THE_LAST_SOAK = 200.0
_AFTER_THE_FLIP = 270.0
_SHORT = 100.0


def _short_session(name: str, sentence: str) -> Fault:
    """Return a fault: the service tells that a token ends too soon, so that no train starts."""

    def arrange(layout: Layout) -> Layout:
        return attrs.evolve(layout, token_lifetimes={name: _SHORT})

    return Fault(
        name=f"{name.replace('_', '-')}-session-short",
        sentence=sentence,
        arrange=arrange,
        outcome=NO_EVIDENCE,
    )


def _expires(name: str, sentence: str, seconds: float, outcome: Outcome) -> Fault:
    """Return a fault: a token expires in mid-train, and nobody has told when."""

    def arrange(layout: Layout) -> Layout:
        return attrs.evolve(layout, token_lifetimes={name: seconds}, tells_sessions=False)

    return Fault(
        name=f"{name.replace('_', '-')}-token-expires",
        sentence=sentence,
        arrange=arrange,
        outcome=outcome,
        watch_seconds=_WATCH_SECONDS,
    )


TOKEN_FAULTS = (
    _short_session("auth", "The chat user's token lives 100 seconds more, and the service says so."),
    _short_session("control", "The operator's token lives 100 seconds more, and the service says so."),
    _short_session(
        "cloud_run", "The access token of the Admin API lives 100 seconds more, and Google says so."
    ),
    _expires(
        "auth",
        "The chat user's token expires after 200 seconds; nobody says so before.",
        _IN_THE_LAST_SOAK,
        DRILL_FAILS,
    ),
    attrs.evolve(
        _expires(
            "control",
            "The operator's token expires after 270 seconds; nobody says so before.",
            _AFTER_THE_FLIP,
            Outcome(exit_code=4, failed_steps=("route-flip", "undo"), routes="flipped"),
        ),
        verify_only=Outcome(exit_code=1, failed_steps=("route-flip",)),
    ),
    _expires(
        "cloud_run",
        "The access token of the Admin API expires after 200 seconds; nobody says so before.",
        _IN_THE_LAST_SOAK,
        Outcome(exit_code=4, failed_steps=("canary-rollback-drill", "undo"), traffic="canary"),
    ),
)
