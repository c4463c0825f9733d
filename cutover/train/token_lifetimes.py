"""The lifetimes of the tokens, compared with the time that the train and its undo may take.

A fixed token that expires in mid-train would leave production half changed, with nobody who may undo it. A token from a file, a
command or Google's default credentials is read again when it expires, so only a fixed one is judged here.
"""

from collections.abc import Mapping
from datetime import UTC, datetime

import anyio

from cutover.errors import PeerError, RefusedError
from cutover.http.outbound import Reply
from cutover.http.statuses import FORBIDDEN
from cutover.http.tokens import UNAUTHORIZED, Token
from cutover.model.results import StepStatus
from cutover.production.services import Services
from cutover.train.step_recorder import StepRecorder

_CLOUD_RUN = "cloud-run"
_LANE_ROLES = frozenset({"control", "auth"})
"""Roles of the tokens that the lane's service itself gave out, and can tell about."""


async def check_tokens(
    seconds_needed: float,
    services: Services,
    recorder: StepRecorder,
    *,
    unasked: Mapping[str, str] | None = None,
    token_info_url: str = "",
) -> Mapping[str, float]:
    """Record a check for each token: an ``error`` if it expires too early, else a ``pass`` that says what is known.

    Return the time on the clock at which each fixed token expires, by its name, as far as that is known.

    Args:
        seconds_needed: Seconds for which a token must still live.
        services: The services of the train, with their tokens.
        recorder: Gets the checks.
        unasked: Role of a token -> the reason why nobody is asked how long it lives, because nobody answers there.
        token_info_url: The page where Google tells the lifetime of the token for Cloud Run; empty: nobody is asked.
    """
    ends: dict[str, float] = {}

    async def check(role: str, token: Token) -> None:
        status, warns, detail = StepStatus.PASS, False, token.reason
        why_not = (unasked or {}).get(role, "")
        try:
            left = None if why_not else await _asked_seconds(role, token, services, token_info_url)
            if token.renewable:
                detail = f"{token.name}: read again when it expires or is refused"
            elif token.grant is not None:
                left = token.seconds_left() if token.seconds_left() is not None else left
                if left is not None:
                    ends[token.name] = services.clock.now() + left
                status, warns, detail = _judged(token.name, left, seconds_needed, why_not)
        except RefusedError as error:
            # A token that is known, and may not do this, does not get better by a renewal alone.
            other = " or give the token of another user" if error.status == FORBIDDEN else ""
            status, detail = StepStatus.ERROR, f"{token.name} was refused: renew it{other} ({error})"
        recorder.check(f"token-{role}", status, detail, tolerable=False, warns=warns)

    async with anyio.create_task_group() as group:
        for role, token in services.tokens.items():
            group.start_soon(check, role, token)
    return ends


def _judged(
    name: str, left: float | None, seconds_needed: float, why_not: str
) -> tuple[StepStatus, bool, str]:
    """Return the status of a fixed token, True if it is a warning, and the detail. ``why_not`` is the reason why nobody was asked."""
    if left is None and why_not:
        return StepStatus.SKIP, False, why_not
    if left is None:
        detail = (
            f"how long {name} lives is not known; the train and its undo need up to {seconds_needed:.0f} s: "
            f"make sure that it lives as long, or set {name}_FILE or {name}_COMMAND in its place"
        )
        return StepStatus.PASS, True, detail
    if left < seconds_needed:
        return StepStatus.ERROR, False, _too_short(name, left, seconds_needed)
    return (
        StepStatus.PASS,
        False,
        f"{name} lives {left:.0f} s more, and up to {seconds_needed:.0f} s are needed",
    )


async def _asked_seconds(role: str, token: Token, services: Services, token_info_url: str) -> float | None:
    """Return the seconds that a token lives, as the service that gave it out says; None if nobody says.

    Raises:
        RefusedError: The lane's own service refuses the token (401 or 403).
    """
    if token.grant is None:
        return None
    if role in _LANE_ROLES:
        return await _session_seconds(role, token, services)
    if role == _CLOUD_RUN and token_info_url:
        return await _google_seconds(role, token, services, token_info_url)
    return None


def check_again(
    ends: Mapping[str, float],
    seconds_needed: float,
    *,
    turn: float,
    turns_in_a_row: int,
    now: float,
    recorder: StepRecorder,
) -> None:
    """Record an ``error`` for each token that expires too early for turns of the length that the smoke has measured.

    Args:
        ends: The result of ``check_tokens``.
        seconds_needed: Seconds for which a token must still live if turns are short.
        turn: Seconds of the longest turn.
        turns_in_a_row: Number of turns that the train waits for one after another.
        now: The time on the clock.
        recorder: Gets the checks.
    """
    needed = seconds_needed + turns_in_a_row * turn
    for name, end in ends.items():
        if end - now < needed:
            detail = f"a chat turn takes {turn:.0f} s, so: {_too_short(name, end - now, needed)}"
            recorder.check(f"lifetime-{name}", StepStatus.ERROR, detail, tolerable=False)


def _too_short(name: str, left: float, seconds_needed: float) -> str:
    lives = (
        f"{name} lives {left:.0f} s more"
        if left > 0
        else f"{name} expired {-left:.0f} s ago, by the clock of this machine"
    )
    return (
        f"{lives}, and the train with its undo needs up to {seconds_needed:.0f} s: "
        f"renew it, or set {name}_FILE or {name}_COMMAND in its place"
    )


async def _session_seconds(role: str, token: Token, services: Services) -> float | None:
    """Return the seconds that the session of a token lives, as the service says; None if it does not say.

    Raises:
        RefusedError: The service refuses the token (401, or a 403 of its own).
    """
    url = services.control.base_url + services.control.lane.session_path
    try:
        reply = await _asked(url, role, token, services)
    except PeerError as error:
        if isinstance(error, RefusedError) and error.status == UNAUTHORIZED:
            raise
        return None
    # Only the service's own 403 is about the token; a page may come from something in front of the service.
    if reply.status == UNAUTHORIZED or (reply.status == FORBIDDEN and reply.has_error):
        reply.expect_success()
    try:
        found = reply.expect_success().json()
        for key in ("data", "session", "accessExpiresAt"):
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, str):
            return None
        expires_at = datetime.fromisoformat(found)
    except (PeerError, ValueError, OverflowError):
        return None
    expires_at = expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC)
    return (expires_at - datetime.now(UTC)).total_seconds()


async def _google_seconds(role: str, token: Token, services: Services, url: str) -> float | None:
    """Return the seconds that a token of Google's lives (``expires_in``, as text or as a number); None if Google does not say."""
    try:
        found = (await _asked(url, role, token, services)).expect_success().json()
        return float(found["expires_in"]) if isinstance(found, dict) else None
    except (PeerError, KeyError, TypeError, ValueError, OverflowError):
        return None


async def _asked(url: str, role: str, token: Token, services: Services) -> Reply:
    """Return the answer of a page about a token. The token is in the header alone.

    Raises:
        PeerError: There is no answer.
    """
    return await services.service.read(
        "GET",
        url,
        label=f"preflight.token-{role}",
        headers={"accept": "application/json"},
        authorize=token,
        attempts=2,
    )
