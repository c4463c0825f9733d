"""The lifetimes of the tokens, compared with the time that the train and its undo may take.

A fixed token that expires in mid-train would leave production half changed, with nobody who may undo it. A token from a file, a
command or Google's default credentials is read again when it expires, so only a fixed one is judged here.
"""

from datetime import UTC, datetime

import anyio

from cutover.errors import PeerError
from cutover.http.tokens import Token
from cutover.model.results import StepStatus
from cutover.production.services import Services
from cutover.train.step_recorder import StepRecorder

_LANE_ROLES = frozenset({"control", "auth"})
"""Roles of the tokens that the lane's service itself gave out, and can tell about."""


async def check_tokens(seconds_needed: float, services: Services, recorder: StepRecorder) -> None:
    """Record a check for each token: an ``error`` if it expires too early, else a ``pass`` that says what is known."""
    async with anyio.create_task_group() as group:
        for role, token in services.tokens.items():
            group.start_soon(_check, role, token, seconds_needed, services, recorder)


async def _check(
    role: str, token: Token, seconds_needed: float, services: Services, recorder: StepRecorder
) -> None:
    status, detail = StepStatus.PASS, token.reason
    if token.renewable:
        detail = f"{token.name}: read again when it expires or is refused"
    elif token.grant is not None:
        left = token.seconds_left()
        if left is None and role in _LANE_ROLES:
            left = await _session_seconds(role, token, services)
        if left is None:
            detail = f"how long {token.name} lives is not known; the train and its undo need up to {seconds_needed:.0f} s"
        elif left < seconds_needed:
            status, detail = StepStatus.ERROR, _too_short(token.name, left, seconds_needed)
        else:
            detail = f"{token.name} lives {left:.0f} s more, and up to {seconds_needed:.0f} s are needed"
    recorder.check(f"token-{role}", status, detail, tolerable=False)


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
    """Return the seconds that the session of a token lives, as the service says; None if it does not say."""
    try:
        reply = await services.service.read(
            "GET",
            services.control.base_url + services.control.lane.session_path,
            label=f"preflight.token-{role}",
            headers={"accept": "application/json"},
            authorize=token,
            attempts=2,
        )
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
