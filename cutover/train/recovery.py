"""The recovery of a killed run, or the revert of a completed run.

For each part of production, ``Recoverer`` reads the state, decides (``model/undo_policy.py``), journals the decision and
carries the decision out (``undo_executor.py``).
"""

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
from cutover.train.undo_executor import UndoResult, carry_out, seconds_until_write_expires, together

RecoveryMode = Literal["finish", "revert", "accept-found", "restore-captured"]
"""The way to recover a run.

``finish`` finishes the undo of a killed train. ``revert`` undoes a completed cutover too. ``accept-found`` closes a run
and accepts the state of production, even if that state cannot be read. ``restore-captured`` writes the captured state
over any other state, after a completed cutover too.
"""

REASONS: dict[RecoveryMode, str] = {
    "finish": "recovered",
    "revert": "reverted",
    "accept-found": "the state that was found was accepted",
    "restore-captured": "the captured state was restored",
}
Found = TypeVar("Found")
_LOOKS = 3
"""Number of reads before production counts as unreadable.

Also the largest number of new decisions about one part, after a wait or after somebody else's change.
"""
_PAUSE = 1.0
"""Seconds between two such reads."""


@attrs.frozen(kw_only=True)
class _Look:
    """One read of a part of production, and the decision that follows."""

    decision: Decision
    found: str
    """The state that was found, in words."""
    plan: UndoPlan
    """The undo plan, for a decision that writes."""


@attrs.frozen(kw_only=True)
class _TrafficPart:
    """The recovery of the traffic split."""

    name: ClassVar[str] = "traffic"
    undo: TrafficUndo
    mode: RecoveryMode

    @property
    def captured(self) -> str:
        """The state before the train's first change, in words."""
        return describe_shares(self.undo.captured.served())

    @property
    def intended(self) -> str:
        """The last state that the train asked for, in words."""
        return describe_shares(shares(self.undo.intended, latest=self.undo.captured.latest_ready))

    async def look(self, services: Services, wait: float) -> _Look:
        """Read this part of production, and decide; an unreadable part gets a decision too.

        ``wait`` is the number of seconds until a write without an answer has expired.
        """
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

    def _outcome(
        self, decision: Decision, description: str, found: TrafficState | None, wait: float
    ) -> _Look:
        undo = attrs.evolve(self.undo, targets=decision.targets, found=found)
        if self.mode == "restore-captured":
            undo = attrs.evolve(self.undo, targets=self.undo.captured.targets, releases_untested=True)
        plan = UndoPlan(routes=None, traffic=undo)
        return _Look(
            decision=_for_mode(decision, self.mode, read=found is not None, wait=wait),
            found=description,
            plan=plan,
        )


@attrs.frozen(kw_only=True)
class _RoutesPart:
    """The recovery of the overrides."""

    name: ClassVar[str] = "routes"
    undo: RoutesUndo
    mode: RecoveryMode

    @property
    def captured(self) -> str:
        """The state before the train's first change, in words."""
        return self.undo.captured.describe()

    @property
    def intended(self) -> str:
        """The last state that the train asked for, in words."""
        return describe_overrides(self.undo.intended)

    async def look(self, services: Services, wait: float) -> _Look:
        """Read this part of production, and decide; an unreadable part gets a decision too.

        ``wait`` is the number of seconds until a write without an answer has expired.
        """
        plan = UndoPlan(routes=self.undo, traffic=None)
        try:
            sample = await _patiently(services, lambda: services.control.sample(label="recover.routes"))
        except PeerError as error:
            decision = _for_mode(_unread(error), self.mode, read=False, wait=wait)
            return _Look(decision=decision, found=f"not known ({error})", plan=plan)
        decision = decide_routes(
            [state for state, _ in sample.shares],
            values=self.undo.values,
            own_states=self.undo.own_states,
            write_outcome_unknown=self.undo.write_outcome_unknown,
            wait=wait,
        )
        return _Look(
            decision=_for_mode(decision, self.mode, read=True, wait=wait), found=sample.describe(), plan=plan
        )


def _unread(error: PeerError) -> Decision:
    return Decision(action=Action.REFUSE, why=f"it could not be read, and was not changed: {error}")


def _for_mode(decision: Decision, mode: RecoveryMode, *, read: bool, wait: float) -> Decision:
    """Return the decision in this mode: ``accept-found`` and ``restore-captured`` replace the policy's decision.

    With ``accept-found``, recovery first waits for a write that may still take effect.
    """
    if mode == "accept-found":
        if wait:
            why = f"a write without an answer may still take effect: waiting {wait:.0f} s"
            return attrs.evolve(decision, action=Action.WAIT, why=why)
        state = "that was found" if read else "UNSEEN: it could not be read, and nobody knows it"
        return attrs.evolve(decision, action=Action.ACCEPT, why=f"an operator accepts the state {state}")
    if mode == "restore-captured" and decision.action is not Action.WAIT:
        why = "an operator wants the captured state, whatever the state is now"
        return attrs.evolve(decision, action=Action.WRITE, why=why)
    return decision


async def _patiently(services: Services, read: Callable[[], Awaitable[Found]]) -> Found:
    """Read up to ``_LOOKS`` times, with pauses, until there is a usable answer; return it.

    Raises:
        PeerError: There was no usable answer.
    """
    for _ in range(_LOOKS - 1):
        try:
            return await read()
        except PeerError:
            await services.clock.sleep(_PAUSE)
    return await read()


@attrs.define(eq=False)
class Recoverer:
    """A recovery: it reads each part of production, decides, journals the decision and carries it out."""

    journal: Journal
    services: Services
    service: str
    """The service in a gcloud command: ``SERVICE --project P --region R``."""
    folder: Path
    mode: RecoveryMode
    begun: bool = False
    """True once ``UndoStarted`` is journaled, before the first write or acceptance."""

    async def recover(self, plan: UndoPlan) -> UndoResult:
        """Recover every part of a plan. The traffic comes first, because the serving instances hold the overrides."""
        parts: list[_TrafficPart | _RoutesPart] = []
        if plan.traffic is not None:
            parts.append(_TrafficPart(undo=plan.traffic, mode=self.mode))
        if plan.routes is not None:
            parts.append(_RoutesPart(undo=plan.routes, mode=self.mode))
        return together([await self._recover(part) for part in parts])

    async def _recover(self, part: _TrafficPart | _RoutesPart) -> UndoResult:
        """Recover one part; decide again if somebody else changes it meanwhile."""
        wait = seconds_until_write_expires(part.undo.last_sent_at) if part.undo.write_outcome_unknown else 0.0
        undone = UndoResult(proven=False, detail=f"{part.name}: production keeps changing")
        for _ in range(_LOOKS + 1):
            look = await part.look(self.services, wait)
            self._say(part, look)
            decision = look.decision
            match decision.action:
                case Action.WAIT:
                    await self.services.clock.sleep(wait)
                    wait = 0.0
                case Action.CLOSE:
                    return UndoResult(proven=True, detail=f"{part.name}: {decision.why} ({look.found})")
                case Action.ACCEPT:
                    self._begin()
                    return UndoResult(proven=True, detail=f"{part.name}: {decision.why} ({look.found})")
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
        """Journal the start of the undo once, before the first write or acceptance.

        If the recovery is killed after that, the journal shows an unfinished undo.
        """
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

    def _unresolved(self, detail: str, *to_do: str) -> UndoResult:
        accept, restore = (
            recover_command(self.folder, option) for option in ("--accept-found", "--restore-captured")
        )
        return UndoResult(
            proven=False,
            detail=detail,
            to_do=(
                *to_do,
                f"or, to leave production as it is now: {accept}",
                f"or, to write the captured state over it: {restore}",
            ),
        )
