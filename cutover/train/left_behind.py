"""The look at the overrides before the traffic goes back: what the instances hold that the traffic leaves.

An override lives in the memory of one instance. After a promotion the canary's instances serve, and nobody sees them any more once the traffic
has left them. Users wait for the traffic, so this is one short read, and it writes nothing.
"""

from collections.abc import Collection

import anyio
import attrs

from cutover.errors import PeerError
from cutover.model.train_events import NOT_KNOWN
from cutover.model.undo_plan import RoutesUndo
from cutover.model.undo_policy import keys_of_others
from cutover.production.routes.control_plane import ControlPlane

LEFT_BEHIND_SECONDS = 5.0
"""Seconds for the read. A longer one is given up."""


@attrs.frozen(kw_only=True)
class LeftBehind:
    """The overrides on the instances that the traffic leaves."""

    found: str
    """The overrides in words; it begins with ``NOT_KNOWN`` if they could not be read."""
    is_read: bool = True
    others: tuple[tuple[str, str], ...] = ()
    """The (route key, override) pairs that somebody else has set."""
    kept: tuple[tuple[str, str | None], ...] = ()
    """The overrides of the promotion that an instance still holds, or may hold where nobody could read them."""

    def without(self, keys: Collection[str]) -> "LeftBehind":
        """Return the same without what somebody else has set for these route keys."""
        return attrs.evolve(self, others=tuple(pair for pair in self.others if pair[0] not in keys))

    @property
    def keys(self) -> tuple[str, ...]:
        """The route keys that somebody else has set, each once."""
        return tuple(dict.fromkeys(key for key, _ in self.others))


async def look_before_traffic(control: ControlPlane, undo: RoutesUndo, *, label: str) -> LeftBehind:
    """Read the overrides of the instances that serve now; give up after ``LEFT_BEHIND_SECONDS``."""
    why, sample = f"no answer within {LEFT_BEHIND_SECONDS:g} s", None
    with anyio.move_on_after(LEFT_BEHIND_SECONDS):
        try:
            sample = await control.sample(label=label)
        except PeerError as error:
            why = str(error)
    if sample is None:
        return LeftBehind(found=f"{NOT_KNOWN} ({why})", is_read=False, kept=undo.on_canary)
    states = [state for state, _ in sample.shares]
    keys = keys_of_others(states, keys=[key for key, _ in undo.values], own_states=undo.own_states)
    own = set(undo.own_states)
    others = dict.fromkeys(
        (key, value)
        for key in keys
        for state in states
        if (value := state.get(key)) and (key, value) not in own
    )
    kept = tuple(
        (key, value) for key, value in undo.on_canary if any(state.get(key) == value for state in states)
    )
    return LeftBehind(found=sample.describe(), others=tuple(others), kept=kept)
