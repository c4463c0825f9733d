"""The way back of the split: look, write, prove by the control plane and by streams."""

from typing import ClassVar

import attrs

from cutover.errors import PeerError
from cutover.model import step_ids
from cutover.model.gcloud_service import GcloudService
from cutover.model.traffic_state import TrafficState, TrafficTarget, describe_shares, mismatch_reason, shares
from cutover.model.train_events import NOT_KNOWN, TrafficIntended, TrafficRead
from cutover.model.undo_plan import Moment, TrafficUndo
from cutover.model.undo_policy import Action, RecoveryMode, decide_for, decide_traffic, decide_unread
from cutover.production.on_refusal import OnRefusal
from cutover.production.services import Services
from cutover.production.traffic.mover import SETTLE_DEADLINE, TrafficMover
from cutover.record.journal import Journal
from cutover.train.stream_proof import LAG_SECONDS, StreamProof, prove_by_streams
from cutover.train.undo_parts import READS, Look, Proof, patiently


@attrs.define(eq=False, kw_only=True)
class TrafficPart:
    """The way back of the split."""

    name: ClassVar[str] = "traffic"
    undo: TrafficUndo
    services: Services
    journal: Journal
    service: GcloudService
    label: str
    """Prefix of the labels of the requests."""
    step_id: str = step_ids.UNDO
    mode: RecoveryMode = "finish"
    knows_last: bool
    """True if this process made the changes."""
    known: TrafficState | None = None
    """The state to decide on at the first look, instead of a new read: the etag guards a write over it."""
    deadline: float = SETTLE_DEADLINE
    """Seconds for one write to be served."""
    lag: float = LAG_SECONDS
    """Seconds for which the front door may lag behind, counted from the first look at the streams."""
    lag_ends: float | None = None
    """Time on the clock at which the front door may lag no more; None before the first look."""
    header_seen: bool = False
    """True if an earlier answer named its revision in a header."""
    stop_when_broken: bool = False
    """True probes the streams also without a header, and stops at the first broken one."""
    streams: bool = True
    """False leaves the proof by streams out."""
    proof: StreamProof | None = None
    """The streams that were looked at; None before, or if no header could name who answers."""
    proven_at: float | None = None
    """Time on the clock at which the control plane proved the last write, or showed the state to restore."""
    last: TrafficState | None = None
    """The last state that was read."""

    @property
    def token(self) -> str:
        """See ``UndoPart``."""
        return self.services.token_name("cloud-run")

    @property
    def captured(self) -> str:
        """The split before the train's first change, in words."""
        return describe_shares(self.undo.captured.served())

    @property
    def intended(self) -> str:
        """The last split that the train asked for, in words."""
        return describe_shares(shares(self.undo.intended, latest=self.undo.captured.latest_ready))

    @property
    def unanswered(self) -> Moment | None:
        """See ``UndoPart``."""
        return self.undo.last_unanswered

    @property
    def pending_since(self) -> Moment | None:
        """See ``UndoPart``."""
        return self.undo.last_sent if self.undo.write_outcome_unknown else None

    async def look(self, wait: float) -> Look:
        """Read the split and decide. If it cannot be read, the last state that this process read stands in, guarded by its etag."""
        found, self.known = self.known, None
        try:
            if found is None:
                found = await patiently(
                    self.services.clock,
                    lambda: self.services.traffic.read(label=self.label),
                    reads=1 if self.knows_last else READS,
                )
        except PeerError as error:
            decision = decide_unread(str(error), targets=self.undo.targets, knows_last=self.knows_last)
            decision = decide_for(self.mode, decision, read=False, wait=wait)
            return Look(decision=decision, found=f"{NOT_KNOWN} ({error})", is_read=False)
        self.last = found
        decision = decide_traffic(
            found,
            targets=self.undo.targets,
            captured=self.undo.captured,
            own_states=self._own_states(),
            given_tags=self.undo.given_tags,
            write_outcome_unknown=self.undo.write_outcome_unknown,
            wait=wait,
        )
        decision = decide_for(self.mode, decision, read=True, wait=wait)
        if decision.action is Action.CLOSE and self.proven_at is None:
            self.proven_at = self.services.clock.now()
        return Look(decision=decision, found=describe_shares(found.served()), state=found)

    async def write(self, look: Look, *, again: bool) -> Proof:
        """Write the split, unless somebody else changes it meanwhile."""
        undo, targets = self._goal(look)
        current = look.state or self._last_read()

        def refuse_reason(state: TrafficState) -> str:
            # A state that could not be read again is guarded by its etag alone.
            return "" if state is current and look.state is None else undo.refuse_reason(targets, state)

        mover = TrafficMover(
            backend=self.services.traffic,
            journal=self.journal,
            clock=self.services.clock,
            captured=undo.captured,
            step_id=self.step_id,
            refuse_reason=refuse_reason,
        )
        shift = await mover.shift(
            targets,
            current=current,
            label=self.label,
            on_refusal=OnRefusal.TRY_AGAIN,
            deadline=self.deadline,
            write_again=again,
        )
        self.last = shift.state or self.last
        if shift.proven:
            self.proven_at = self.services.clock.now()
        overtaken = shift.state is not None and bool(undo.refuse_reason(targets, shift.state))
        return Proof(proven=shift.proven, detail=shift.detail, overtaken=overtaken)

    async def read_again(self, look: Look) -> Proof:
        """Read the split once more; the revision that LATEST stands for may have become known only now."""
        undo, targets = self._goal(look)
        try:
            found = await self.services.traffic.read(label=f"{self.label}.held")
        except PeerError as error:
            return Proof(proven=False, detail=f"the traffic could not be read: {error}")
        self.last = found
        if detail := mismatch_reason(found, targets):
            return Proof(proven=False, detail=detail, overtaken=bool(undo.refuse_reason(targets, found)))
        if undo.targets_for(found)[0] != targets:
            return Proof(
                proven=False,
                detail="the revision that LATEST stands for became known only after the write",
                overtaken=True,
            )
        return Proof(proven=True)

    async def prove_by_streams(self, look: Look) -> str:
        """Look at the front door, if a header can name who answers."""
        prober = self.services.prober
        if not self.streams or (prober.revision_header is None and not self.stop_when_broken):
            return ""
        _, targets = self._goal(look)
        latest = (self.last or self.undo.captured).latest_ready
        now = self.services.clock.now()
        self.lag_ends = now + self.lag if self.lag_ends is None else self.lag_ends
        self.proof = await prove_by_streams(
            prober,
            self.services.clock,
            allowed=shares(targets, latest=latest),
            seconds=self.lag_ends - now,
            label=f"{self.label}.front",
            header_seen=self.header_seen,
            stop_when_broken=self.stop_when_broken,
        )
        return self.proof.problem

    def restored(self, look: Look, *, written: bool) -> str:
        """Return the served split in words."""
        _, targets = self._goal(look)
        latest = (self.last or self.undo.captured).latest_ready
        wanted = describe_shares(shares(targets, latest=latest))
        return f"traffic is back: {wanted}" if written else f"traffic is as it should be ({wanted})"

    def pinned(self) -> str:
        """Return the reason why LATEST is pinned in the last state that was read; empty if it is not."""
        return self.undo.targets_for(self.last)[1]

    def by_hand(self) -> tuple[str, ...]:
        """Return the gcloud commands that show and restore the split; LATEST is pinned in them."""
        targets, pinned = self.undo.targets_for(None)
        latest = self.undo.captured.latest_ready
        wanted = describe_shares(shares(targets, latest=latest))
        release = self.service.command("update-traffic", "--to-latest")
        follow = f"LATEST served before the train; if {latest} is still the newest revision: {release}"
        return (
            f"check that {wanted} is served: {self.service.command('describe')}",
            self.service.to_split(targets),
            *self.to_untag(),
            *([follow] if pinned else []),
        )

    def to_untag(self) -> tuple[str, ...]:
        """Return the command that takes the train's own tags away; nothing if the last state that was read has none of them."""
        given = self.undo.given_tags
        left = [tag for revision, tag in given if self.last is None or (revision, tag) in self.last.tags]
        if not left:
            return ()
        command = self.service.command("update-traffic", "--remove-tags", ",".join(left))
        return (f"the train gave the canary a tag; to take it away: {command}",)

    def to_latest(self) -> str:
        """Return the command that releases the revision that LATEST stands for."""
        return f"when that revision is tested: {self.service.command('update-traffic', '--to-latest')}"

    def _goal(self, look: Look) -> tuple[TrafficUndo, tuple[TrafficTarget, ...]]:
        """Return the undo for this decision, and the targets to write."""
        if self.mode == "restore-captured":
            undo = attrs.evolve(self.undo, targets=self.undo.captured.targets, releases_untested=True)
        else:
            found = look.state or self._last_read()
            undo = attrs.evolve(self.undo, targets=look.decision.targets, found=found)
        return undo, undo.targets_for(look.state)[0]

    def _own_states(self) -> tuple[tuple[TrafficTarget, ...], ...]:
        """Return every split that this run captured or asked for, in this way back too."""
        asked = (event.wanted for event in self.journal.events if isinstance(event, TrafficIntended))
        return tuple(dict.fromkeys((*self.undo.own_states, *asked)))

    def _last_read(self) -> TrafficState:
        """Return the last state that the journal holds; the captured one if it was never read since."""
        read = [event.found for event in self.journal.events if isinstance(event, TrafficRead)]
        return read[-1] if read else self.undo.captured
