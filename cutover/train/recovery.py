"""One part of production after another: look, decide, write the decision down, carry it out."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, Literal, TypeVar, assert_never

import attrs

from cutover.errors import PeerError
from cutover.model.route_state import describe_overrides
from cutover.model.traffic_state import TrafficState, describe_shares, shares
from cutover.model.train_events import Decided, UndoStarted
from cutover.model.undo_plan import RoutesUndo, TrafficUndo, UndoPlan
from cutover.model.undo_policy import Action, Decision, decide_routes, decide_traffic
from cutover.production.services import Services
from cutover.record.journal import Journal
from cutover.text import recover_command
from cutover.train.undo import Undone, carry_out, seconds_until_write_expires, together

RecoveryMode = Literal["finish", "revert", "accept-found", "restore-captured"]
"""How to recover: finish the undo of a train that was cut off; take back a completed cutover as well; close it by accepting
what is found, unseen where it cannot be read; or write what was captured, whatever is found."""

REASONS: dict[RecoveryMode, str] = {
    "finish": "recovered",
    "revert": "reverted",
    "accept-found": "what was found was accepted",
    "restore-captured": "what was captured was restored",
}
Found = TypeVar("Found")
_LOOKS = 3
"""How often production is looked at before it counts as not to be read, and how often a write that met somebody else's
is decided upon again."""
_PAUSE = 1.0
"""Seconds between two such looks."""


@attrs.frozen(kw_only=True)
class _Look:
    """One look at a part of production, and what follows from it."""

    decision: Decision
    found: str
    """In a reader's words."""
    plan: UndoPlan
    """What to carry out, where something is to be written."""


@attrs.frozen(kw_only=True)
class _TrafficPart:
    """The split."""

    name: ClassVar[str] = "traffic"
    undo: TrafficUndo
    mode: RecoveryMode

    @property
    def captured(self) -> str:
        """What was there before the train touched it."""
        return describe_shares(self.undo.captured.served())

    @property
    def intended(self) -> str:
        """What the train had asked for."""
        return describe_shares(shares(self.undo.intended, latest=self.undo.captured.latest_ready))

    async def look(self, services: Services, wait: float) -> _Look:
        """Read it, and decide."""
        try:
            found = await _patiently(services, lambda: services.traffic.read(label="recover.traffic"))
        except PeerError as error:
            return self._outcome(_unread(error), f"not known ({error})", None, wait)
        decision = decide_traffic(
            found,
            targets=self.undo.targets,
            captured=self.undo.captured,
            own_states=self.undo.own_states,
            write_outcome_unknown=self.undo.write_outcome_unknown,
            wait=wait,
        )
        return self._outcome(decision, describe_shares(found.served()), found, wait)

    def _outcome(self, decision: Decision, said: str, found: TrafficState | None, wait: float) -> _Look:
        undo = attrs.evolve(self.undo, targets=decision.targets, found=found)
        if self.mode == "restore-captured":
            undo = attrs.evolve(self.undo, targets=self.undo.captured.targets, releases_untested=True)
        plan = UndoPlan(routes=None, traffic=undo)
        return _Look(
            decision=_as_told(decision, self.mode, read=found is not None, wait=wait), found=said, plan=plan
        )


@attrs.frozen(kw_only=True)
class _RoutesPart:
    """The overrides."""

    name: ClassVar[str] = "routes"
    undo: RoutesUndo
    mode: RecoveryMode

    @property
    def captured(self) -> str:
        """What was there before the train touched it."""
        return self.undo.captured.describe()

    @property
    def intended(self) -> str:
        """What the train had asked for."""
        return describe_overrides(self.undo.intended)

    async def look(self, services: Services, wait: float) -> _Look:
        """Read it, and decide."""
        plan = UndoPlan(routes=self.undo, traffic=None)
        try:
            sample = await _patiently(services, lambda: services.control.sample(label="recover.routes"))
        except PeerError as error:
            decision = _as_told(_unread(error), self.mode, read=False, wait=wait)
            return _Look(decision=decision, found=f"not known ({error})", plan=plan)
        decision = decide_routes(
            [state for state, _ in sample.shares],
            values=self.undo.values,
            own_states=self.undo.own_states,
            write_outcome_unknown=self.undo.write_outcome_unknown,
            wait=wait,
        )
        return _Look(
            decision=_as_told(decision, self.mode, read=True, wait=wait), found=sample.describe(), plan=plan
        )


def _unread(error: PeerError) -> Decision:
    return Decision(action=Action.REFUSE, why=f"it could not be read, and was not touched: {error}")


def _as_told(decision: Decision, mode: RecoveryMode, *, read: bool, wait: float) -> Decision:
    """Return what is decided where an operator has decided already."""
    if mode == "accept-found":
        if wait:
            said = f"a change without an answer may still land: {wait:.0f} s are waited"
            return attrs.evolve(decision, action=Action.WAIT, why=said)
        said = "what is found" if read else "it UNSEEN: it could not be read, and nobody knows what is there"
        return attrs.evolve(decision, action=Action.ACCEPT, why=f"an operator accepts {said}")
    if mode == "restore-captured" and decision.action is not Action.WAIT:
        said = "an operator wants what was captured, whatever is found"
        return attrs.evolve(decision, action=Action.WRITE, why=said)
    return decision


async def _patiently(services: Services, read: Callable[[], Awaitable[Found]]) -> Found:
    """Read, and again after a pause where there was no usable answer.

    Raises:
        PeerError: There never was one.
    """
    for _ in range(_LOOKS - 1):
        try:
            return await read()
        except PeerError:
            await services.clock.sleep(_PAUSE)
    return await read()


@attrs.define(eq=False)
class Recoverer:
    """Looks at each part of production, decides, writes it down, and carries it out."""

    journal: Journal
    services: Services
    service: str
    """How a gcloud command names the service."""
    folder: Path
    mode: RecoveryMode
    begun: bool = False
    """Whether anything was to be written, or accepted."""

    async def recover(self, plan: UndoPlan) -> Undone:
        """Recover what is outstanding: the traffic first, for routes are held, and proven, by the instances that serve."""
        parts: list[_TrafficPart | _RoutesPart] = []
        if plan.traffic is not None:
            parts.append(_TrafficPart(undo=plan.traffic, mode=self.mode))
        if plan.routes is not None:
            parts.append(_RoutesPart(undo=plan.routes, mode=self.mode))
        return together([await self._recover(part) for part in parts])

    async def _recover(self, part: _TrafficPart | _RoutesPart) -> Undone:
        """Recover one part; a write that meets somebody else's is decided upon again."""
        wait = seconds_until_write_expires(part.undo.last_sent_at) if part.undo.write_outcome_unknown else 0.0
        undone = Undone(proven=False, detail=f"{part.name}: production does not stop changing")
        for _ in range(_LOOKS + 1):
            look = await part.look(self.services, wait)
            self._say(part, look)
            decision = look.decision
            match decision.action:
                case Action.WAIT:
                    await self.services.clock.sleep(wait)
                    wait = 0.0
                case Action.CLOSE:
                    return Undone(proven=True, detail=f"{part.name}: {decision.why} ({look.found})")
                case Action.ACCEPT:
                    self._begin()
                    return Undone(proven=True, detail=f"{part.name}: {decision.why} ({look.found})")
                case Action.REFUSE:
                    states = f"captured: {part.captured}; intended: {part.intended}; found: {look.found}"
                    return self._unresolved(f"{part.name}: {decision.why}. {states}")
                case Action.WRITE:
                    self._begin()
                    undone = await carry_out(look.plan, self.services, self.journal, service=self.service)
                    if undone.proven:
                        return undone
                    if not undone.overtaken:
                        break
                case _:
                    assert_never(decision.action)
        again = f"or, once production answers: {recover_command(self.folder)}"
        return self._unresolved(undone.detail, *undone.to_do, again)

    def _begin(self) -> None:
        """Say, once and before anything is written, that the run's undo is under way: from here on it is unfinished."""
        if not self.begun:
            self.begun = True
            self.journal.record(UndoStarted(reason=REASONS[self.mode]))

    def _say(self, part: _TrafficPart | _RoutesPart, look: _Look) -> None:
        self.journal.record(
            Decided(
                part=part.name,
                action=look.decision.action.value,
                why=look.decision.why,
                captured=part.captured,
                intended=part.intended,
                found=look.found,
            )
        )

    def _unresolved(self, detail: str, *to_do: str) -> Undone:
        accept, restore = (
            recover_command(self.folder, option) for option in ("--accept-found", "--restore-captured")
        )
        return Undone(
            proven=False,
            detail=detail,
            to_do=(
                *to_do,
                f"or, to leave what is found: {accept}",
                f"or, to write what was captured whatever is found: {restore}",
            ),
        )
