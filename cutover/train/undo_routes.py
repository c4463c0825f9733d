"""The way back of the overrides: look at every instance, write, prove."""

from typing import ClassVar

import attrs

from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.route_state import describe_overrides
from cutover.model.train_events import NOT_KNOWN
from cutover.model.undo_plan import Moment, RoutesUndo
from cutover.model.undo_policy import RecoveryMode, decide_for, decide_routes, decide_unread
from cutover.production.on_refusal import OnRefusal
from cutover.production.routes.writer import set_routes
from cutover.production.services import Services
from cutover.record.journal import Journal
from cutover.train.undo_parts import READS, Look, Proof, patiently


@attrs.define(eq=False, kw_only=True)
class RoutesPart:
    """The way back of the overrides."""

    name: ClassVar[str] = "routes"
    undo: RoutesUndo
    services: Services
    journal: Journal
    label: str
    mode: RecoveryMode = "finish"
    knows_last: bool
    """True if this process made the changes."""
    keys_of_others: tuple[str, ...] = ()
    """The route keys that somebody else had set at the last look."""

    @property
    def token(self) -> str:
        """See ``UndoPart``."""
        return self.services.token_name("control")

    @property
    def captured(self) -> str:
        """The overrides before the train's first change, in words."""
        return self.undo.captured.describe()

    @property
    def intended(self) -> str:
        """The last overrides that the train asked for, in words."""
        return describe_overrides(self.undo.intended)

    @property
    def unanswered(self) -> Moment | None:
        """See ``UndoPart``."""
        return self.undo.last_unanswered

    @property
    def pending_since(self) -> Moment | None:
        """See ``UndoPart``."""
        return self.undo.last_sent if self.undo.write_outcome_unknown else None

    async def look(self, wait: float) -> Look:
        """Read the overrides of every instance and decide."""
        control = self.services.control
        try:
            sample = await patiently(
                self.services.clock, lambda: control.sample(label=f"{self.label}.read-back"), reads=READS
            )
        except PeerError as error:
            decision = decide_unread(str(error), values=self.undo.values, knows_last=self.knows_last)
            decision = decide_for(self.mode, decision, read=False, wait=wait)
            return Look(decision=decision, found=f"{NOT_KNOWN} ({error})", is_read=False)
        decision = decide_routes(
            [state for state, _ in sample.shares],
            values=self.undo.values,
            own_states=self.undo.own_states,
            write_outcome_unknown=self.undo.write_outcome_unknown,
            wait=wait,
        )
        self.keys_of_others = decision.moved_on
        decision = decide_for(self.mode, decision, read=True, wait=wait)
        return Look(decision=decision, found=sample.describe())

    async def write(self, look: Look, *, again: bool) -> Proof:  # noqa: ARG002  overrides are idempotent
        """Write the overrides on every instance, unless somebody else changes one of them meanwhile."""
        change = await set_routes(
            self.services.control,
            self._goal(look),
            captured=self.undo.captured,
            own_states=None if self.mode == "restore-captured" else self.undo.own_states,
            step_id=step_ids.UNDO,
            label=self.label,
            on_refusal=OnRefusal.TRY_AGAIN,
            journal=self.journal,
            clock=self.services.clock,
        )
        return Proof(proven=change.proven, detail=change.detail, overtaken=bool(change.keys_of_others))

    async def read_again(self, look: Look) -> Proof:
        """Read the overrides of every instance once more."""
        try:
            sample = await self.services.control.sample(label=f"{self.label}.read-back")
        except PeerError as error:
            return Proof(proven=False, detail=f"the routes could not be read: {error}")
        return Proof(proven=sample.holds(self._goal(look)), detail=sample.describe())

    async def prove_by_streams(self, look: Look) -> str:  # noqa: ARG002
        """Return no problem: the smoke after the undo probes the streams."""
        return ""

    def restored(self, look: Look, *, written: bool) -> str:  # noqa: ARG002
        """Return the restored overrides in words."""
        return f"routes are as captured ({describe_overrides(look.decision.values or self.undo.values)})"

    def by_hand(self) -> tuple[str, ...]:
        """Return the curl commands that show and restore the overrides."""
        control = self.services.control
        wanted = describe_overrides(self.undo.values)
        check = f"check that {control.base_url}{control.lane.status_path} says {wanted} on every instance"
        return (check, *(control.curl(key, value) for key, value in self.undo.values))

    def _goal(self, look: Look) -> tuple[tuple[str, str | None], ...]:
        return self.undo.values if self.mode == "restore-captured" else look.decision.values
