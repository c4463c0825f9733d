"""The one executor of every way back: the drill's rollback, the train's undo, ``cutover recover``.

For each part of production it looks, lets ``model/undo_policy.py`` decide, journals the decision, writes, and proves the write by reading
production again. ``undo_parts.py`` holds what differs between the split and the overrides.

The module is a little longer than most, because one loop and the results that it can have are read together.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import assert_never

import anyio
import attrs

from cutover.errors import PeerError
from cutover.http.outbound import MUTATION_DEADLINE
from cutover.model import step_ids
from cutover.model.gcloud_service import GcloudService
from cutover.model.route_state import ROUTES_DEADLINE, describe_overrides
from cutover.model.traffic_state import describe_shares, mismatch_reason
from cutover.model.train_events import (
    Answered,
    Decided,
    RouteIntended,
    TrafficIntended,
    TrafficRead,
    TrafficSettled,
    TrainEvent,
    UndoStarted,
)
from cutover.model.undo_plan import Moment, RoutesUndo, TrafficUndo, UndoPlan, plan_undo, way_back
from cutover.model.undo_policy import MOVED_ON, REASONS, Action, Decision, RecoveryMode
from cutover.production.services import Services
from cutover.production.traffic.mover import HELD_SECONDS
from cutover.record.journal import Journal
from cutover.text import recover_command
from cutover.train.left_behind import LeftBehind, look_before_traffic
from cutover.train.undo_parts import Look, Proof, UndoPart
from cutover.train.undo_routes import RoutesPart
from cutover.train.undo_traffic import TrafficPart

UNDO_DEADLINE = 300.0
"""Seconds for a whole undo: the read before it, the split, the overrides, the smoke after it. A longer undo counts as not proven."""
TRAFFIC_DEADLINE = 150.0
"""Seconds for the split, so that time is left for the overrides."""
CLOCK_JUMP = 60.0
"""Seconds by which the wall clock may jump between two processes without shortening a wait."""
_OR = "or, "
"""The beginning of a line that is another way than the line before it."""
_DECISIONS = 4
"""Largest number of decisions about one part besides a wait: after a write without a proof, or somebody else's change."""
_WRITES = 2
"""Largest number of writes of one part whose proof fails."""


@attrs.frozen(kw_only=True)
class UndoResult:
    """The result of an undo, or of one part of it."""

    proven: bool
    detail: str
    to_do: tuple[str, ...] = ()


def together(parts: Sequence[UndoResult]) -> UndoResult:
    """Return the result of several parts together. The result of no parts is proven."""
    to_do = list(dict.fromkeys(line for part in parts for line in part.to_do))
    if to_do:
        # An operator reads it first, so there is nothing yet that it could be another way for.
        to_do[0] = to_do[0].removeprefix(_OR)
    return UndoResult(
        proven=all(part.proven for part in parts),
        detail="; ".join(part.detail for part in parts) or "nothing had been applied",
        to_do=tuple(to_do),
    )


@attrs.define(eq=False, kw_only=True)
class UndoExecutor:
    """The executor of the way back of one run."""

    services: Services
    """Services for the undo alone, whose clients nobody else closes."""
    journal: Journal
    service: GcloudService
    folder: Path | str | None = None
    """The run directory, or the address of the run in STATE_URL, for the commands that an operator gets; None if there is none."""
    recovering: RecoveryMode | None = None
    """The mode of a recovery by another process; None for the process that made the changes."""
    header_seen: bool = False
    """True if a header named the revision before the first change, so that streams without a name prove nothing."""
    begun: bool = False
    """True once a recovery has journaled ``UndoStarted``, before its first write or acceptance."""
    _made_at: float = attrs.field(
        init=False, default=attrs.Factory(lambda self: self.services.clock.now(), takes_self=True)
    )
    """The time on the clock at which this executor was made. A process that a recovery follows sent nothing after it."""

    async def look_again(self, *, stable: str) -> None:
        """Read the traffic once more after it was restored, and journal it; if it was lost since, the undo plan restores it again.

        Do nothing if the train never moved traffic, or if the traffic is still to be undone. If it cannot be read, nothing is
        journaled, and it counts as restored.
        """
        events = self.journal.events
        captured = next((event.captured for event in events if isinstance(event, TrafficIntended)), None)
        if captured is None or plan_undo(events, stable=stable).traffic is not None:
            return
        try:
            found = await self.services.traffic.read(label="undo.traffic.settled")
        except PeerError:
            return
        problem = mismatch_reason(found, way_back(events, captured, stable))
        self.journal.record(TrafficRead(found=found, proven=not problem))

    async def undo(self, plan: UndoPlan) -> UndoResult:
        """Restore and prove every part of a plan. The traffic comes first, because the serving instances hold the overrides.

        After a promotion the canary's instances serve, and what somebody else has set there goes out of sight with the traffic. So the overrides are
        looked at before it moves. An operator who takes a completed promotion back is in no hurry: then they are restored there too.
        """
        parts: list[UndoResult] = []
        routes, left, traffic_is_back = plan.routes, None, True
        if routes is not None and plan.traffic is not None:
            if self.recovering in {"revert", "restore-captured"}:
                first = await self.restore(self._routes_part(routes))
                if not first.proven:
                    return together((first,))
                routes = attrs.evolve(routes, on_canary=())
            elif self.recovering != "accept-found":
                left = await self._look_before_traffic(routes)
        if plan.traffic is not None:
            undone = await self._restore_traffic(plan.traffic)
            traffic_is_back = undone.proven
            parts.append(undone)
        if routes is not None:
            part = self._routes_part(routes)
            parts.append(await self.restore(part))
            # An override that the instances which serve now have too was not left behind.
            if left is not None and (left := left.without(part.keys_of_others)).others:
                parts.insert(0, self._left_behind(left, has_left=traffic_is_back))
            if traffic_is_back and self.recovering != "accept-found":
                parts += _out_of_sight(routes, left)
        return together(parts)

    async def _restore_traffic(self, undo: TrafficUndo) -> UndoResult:
        """Restore the split within ``TRAFFIC_DEADLINE``, and journal that it is settled."""
        part = self._traffic_part(undo)
        undone = UndoResult(
            proven=False,
            detail=f"the traffic could not be proven undone within {TRAFFIC_DEADLINE:g} s",
            to_do=(*part.by_hand(), *self._again()),
        )
        with anyio.move_on_after(TRAFFIC_DEADLINE):
            undone = await self.restore(part)
        if undone.proven:
            self.journal.record(TrafficSettled())
        return undone

    async def _look_before_traffic(self, undo: RoutesUndo) -> LeftBehind:
        """Read the overrides of the instances that the traffic is about to leave, and journal what somebody else has set there."""
        part = self._routes_part(undo)
        left = await look_before_traffic(self.services.control, undo, label=f"{part.label}.left-behind")
        if left.others or not left.is_read:
            why = (
                f"somebody else has set {', '.join(left.keys)} on the instances that the traffic leaves"
                if left.is_read
                else "the traffic does not wait for an answer"
            )
            decision = Decision(action=Action.REFUSE, why=why, moved_on=left.keys)
            self._say(part, Look(decision=decision, found=left.found, is_read=left.is_read))
        return left

    def _left_behind(self, left: LeftBehind, *, has_left: bool) -> UndoResult:
        """Return the result of overrides that somebody else has set on the instances that the traffic leaves. It is not proven.

        ``has_left`` is False if the traffic could not be proven back, so that these overrides may still be in force.
        """
        control = self.services.control
        to_do = [f"to set it on the instances that serve now: {control.curl(*pair)}" for pair in left.others]
        if self.folder is not None:
            to_do.append(f"then, or to leave it as it is: {recover_command(self.folder, '--accept-found')}")
        keys = ", ".join(left.keys)
        state = (
            f"somebody else has set {keys} on the instances that the traffic leaves, and it is not in force any more"
            if has_left
            else f"before the traffic was to go back, somebody else had set {keys} on the instances that served then"
        )
        return UndoResult(proven=False, detail=f"routes: {state} ({left.found})", to_do=tuple(to_do))

    def by_hand(self, plan: UndoPlan) -> tuple[str, ...]:
        """Return the checks and commands with which an operator carries a plan out."""
        traffic = self._traffic_part(plan.traffic).by_hand() if plan.traffic is not None else ()
        routes = self._routes_part(plan.routes).by_hand() if plan.routes is not None else ()
        return (*traffic, *routes, *self._again())

    async def restore(self, part: UndoPart, *, hold: bool = True) -> UndoResult:
        """Restore one part: look, decide, write, prove; decide again if somebody else changes the part meanwhile.

        Args:
            part: The part of production.
            hold: True reads the restored value once more after ``HELD_SECONDS``, or later if a write without an answer may still
                take effect. False leaves that to a later look of the caller.
        """
        wait = self._expiry(part.pending_since) if self.recovering is not None else 0.0
        proof = Proof(proven=False, detail="production changes again and again")
        for writes in range(_DECISIONS):
            look = await self._look(part, wait)
            if self.journal.taken_over is not None:
                return self.left_to_others(self.journal.taken_over)
            if (result := await self._without_a_write(part, look, written=writes > 0)) is not None:
                return result
            self._begin()
            proof = await self._write(part, look, again=writes > 0, hold=hold)
            # The wait for a late effect was part of this write.
            wait = 0.0
            if proof.proven and not look.decision.moved_on:
                return self._restored(part, look, written=True)
            if writes + 1 >= _WRITES and not proof.proven and not proof.overtaken:
                break
        if self.journal.taken_over is not None:
            return self.left_to_others(self.journal.taken_over)
        return self._unproven(part, proof)

    def left_to_others(self, taken_over: str) -> UndoResult:
        """Return the result of an undo that another process has taken over. It is not proven here."""
        check = (
            ()
            if self.folder is None
            else (f"see how that ends; if it stays open: {recover_command(self.folder)}",)
        )
        return UndoResult(proven=False, detail=taken_over, to_do=check)

    async def _look(self, part: UndoPart, wait: float) -> Look:
        """Read a part, decide, and journal the decision; if it is to wait, wait and look again."""
        look = await part.look(wait)
        self._say(part, look)
        if look.decision.action is Action.WAIT:
            await self.services.clock.sleep(wait)
            look = await part.look(0.0)
            self._say(part, look)
        return look

    async def _without_a_write(self, part: UndoPart, look: Look, *, written: bool) -> UndoResult | None:
        """Return the result of a decision that writes nothing; None if the part is to be written.

        A part that is as it should be is written all the same if streams disprove it. ``written`` is True if it was written before.
        """
        match look.decision.action:
            case Action.ACCEPT:
                self._begin()
                return UndoResult(proven=True, detail=f"{part.name}: {look.decision.why} ({look.found})")
            case Action.REFUSE:
                return self._refused(part, look, written=written)
            case Action.CLOSE:
                disproved = await part.prove_by_streams(look)
                return None if disproved else self._restored(part, look, written=False)
            case Action.WRITE | Action.WAIT:
                return None
            case _:
                assert_never(look.decision.action)

    async def _write(self, part: UndoPart, look: Look, *, again: bool, hold: bool) -> Proof:
        """Write, wait, read again, and look at the streams. The first of these that fails is the result."""
        proof = await part.write(look, again=again)
        if hold:
            await self.services.clock.sleep(max(HELD_SECONDS, self._expiry(part.unanswered)))
            later = await part.read_again(look)
            # The reason why a write failed says more than the state that it left.
            proof = later if proof.proven or later.proven else attrs.evolve(later, detail=proof.detail)
        if proof.proven and (stray := await part.prove_by_streams(look)):
            return Proof(proven=False, detail=stray, by_streams=True)
        return proof

    def _expiry(self, sent: Moment | None) -> float:
        """Return the seconds for which a write may still take effect; 0 for none."""
        if sent is None:
            return 0.0
        now = self.services.clock.now()
        left = seconds_until_write_expires(sent, now=now, wall=datetime.now(UTC))
        # One wait is enough for both parts.
        return (
            left if sent.tick is not None else min(left, max(0.0, MUTATION_DEADLINE - (now - self._made_at)))
        )

    def _restored(self, part: UndoPart, look: Look, *, written: bool) -> UndoResult:
        """Return the result of a part that is proven to be as it should be. A pinned split stays open: an operator decides about LATEST."""
        if isinstance(part, TrafficPart) and (pinned := part.pinned()):
            return self._unresolved(pinned, part.to_latest())
        return UndoResult(proven=True, detail=part.restored(look, written=written))

    def _refused(self, part: UndoPart, look: Look, *, written: bool) -> UndoResult:
        """Return the result of a part that only an operator can decide about: the three states, and the commands."""
        if look.decision.pinned and isinstance(part, TrafficPart):
            return self._unresolved(look.decision.why, part.to_latest())
        why = look.decision.why
        if why == MOVED_ON:
            who = "the undo" if self.recovering is None else "recovery"
            why += f", and {who} {'left that as it is' if written else 'changed nothing'}"
        states = f"captured: {part.captured}; intended: {part.intended}; found: {look.found}"
        whose = (
            f"; changed by somebody else: {', '.join(look.decision.moved_on)}"
            if look.decision.moved_on
            else ""
        )
        to_do: tuple[str, ...] = ()
        if isinstance(part, TrafficPart) and look.state is not None:
            to_do = part.to_untag()
        if not look.is_read and self.folder is not None:
            # No operator has to decide about a part that the next recovery may read.
            to_do = (*_renewal(part, why), f"when the cause is gone: {recover_command(self.folder)}")
        return self._unresolved(f"{part.name}: {why}. {states}{whose}", *to_do)

    def _unproven(self, part: UndoPart, proof: Proof) -> UndoResult:
        """Return the result of a part whose writes could not be proven."""
        # Streams have a token of their own, which their text names.
        renew = () if proof.by_streams else _renewal(part, proof.detail)
        detail = (
            f"the {part.name} could not be proven undone: {proof.detail}{_last_served(part, proof.detail)}"
        )
        if self.recovering is None:
            return UndoResult(proven=False, detail=detail, to_do=(*renew, *part.by_hand(), *self._again()))
        return self._unresolved(detail, *renew, *part.by_hand(), *self._again())

    def _again(self) -> tuple[str, ...]:
        return (
            () if self.folder is None else (f"{_OR}once production answers: {recover_command(self.folder)}",)
        )

    def _unresolved(self, detail: str, *to_do: str) -> UndoResult:
        """Return a result that an operator closes with one of two commands."""
        if self.folder is not None:
            accept, restore = (
                recover_command(self.folder, option) for option in ("--accept-found", "--restore-captured")
            )
            to_do = (
                *to_do,
                f"{_OR}to leave production as it is now: {accept}",
                f"{_OR}to write the captured state over it: {restore}",
            )
        return UndoResult(proven=False, detail=detail, to_do=to_do)

    def _begin(self) -> None:
        """Journal the start of a recovery once, before its first write or acceptance.

        If the recovery is killed after that, the journal shows an unfinished undo.
        """
        if self.recovering is not None and not self.begun:
            self.begun = True
            self.journal.record(UndoStarted(reason=REASONS[self.recovering]))

    def _say(self, part: UndoPart, look: Look) -> None:
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

    def _traffic_part(self, undo: TrafficUndo) -> TrafficPart:
        return TrafficPart(
            undo=undo,
            services=self.services,
            journal=self.journal,
            service=self.service,
            label=f"{self._label}.traffic",
            mode=self.recovering or "finish",
            knows_last=self.recovering is None,
            header_seen=self.header_seen,
        )

    def _routes_part(self, undo: RoutesUndo) -> RoutesPart:
        return RoutesPart(
            undo=undo,
            services=self.services,
            journal=self.journal,
            label=f"{self._label}.routes",
            mode=self.recovering or "finish",
            knows_last=self.recovering is None,
        )

    @property
    def _label(self) -> str:
        return step_ids.UNDO if self.recovering is None else "recover"


def _out_of_sight(undo: RoutesUndo, left: LeftBehind | None) -> Iterator[UndoResult]:
    """Yield what an operator must know of the instances that the traffic has left; the changes of the train are undone all the same."""
    if left is not None and not left.is_read:
        yield UndoResult(
            proven=True,
            detail=f"the overrides of the instances that the traffic left are {left.found}",
            to_do=(
                "nobody has seen if somebody set an override by hand before the traffic went back: ask, and set it again if it is still needed",
            ),
        )
    kept = undo.on_canary if left is None else left.kept
    if kept:
        keep = "keep" if left is not None and left.is_read else "may keep"
        yield UndoResult(
            proven=True,
            detail=f"the canary's instances have no traffic, but {keep} the overrides of the promotion ({describe_overrides(kept)}) until they end",
            to_do=("deploy the canary as a new revision before it gets traffic again",),
        )


def _renewal(part: UndoPart, detail: str) -> tuple[str, ...]:
    """Return the line that asks for a new token, if the text quotes the refusal of the token (HTTP 401)."""
    return (f"renew {part.token} first: it was refused",) if "HTTP 401" in detail else ()


def _last_served(part: UndoPart, detail: str) -> str:
    """Return the split that was read last, in words, unless the text names it already; the refusal of a write alone does not show it."""
    if not isinstance(part, TrafficPart) or part.last is None:
        return ""
    served = f"{describe_shares(part.last.served())} is served"
    return "" if served in detail else f"; at the last read {served}"


def seconds_until_write_expires(sent: Moment, *, now: float, wall: datetime) -> float:
    """Return the seconds for which a write sent at this time may still take effect; 0 if that time is over.

    Inside the process that sent the write, the monotonic clock decides. In another process only the wall clock is known, and it may have
    jumped by up to ``CLOCK_JUMP`` seconds. But the process that sent the write is dead then, so a whole deadline from now on is enough.

    Args:
        sent: The time of the write.
        now: The present time on the monotonic clock of this process, in seconds.
        wall: The present time on the wall clock.
    """
    if sent.tick is not None:
        return max(0.0, MUTATION_DEADLINE - (now - sent.tick))
    try:
        left = MUTATION_DEADLINE - (wall - datetime.fromisoformat(sent.at)).total_seconds()
    # The text is not a time, or has no time zone.
    except (ValueError, TypeError):
        return MUTATION_DEADLINE
    return max(0.0, min(MUTATION_DEADLINE, left + CLOCK_JUMP))


def seconds_until_routes_rest(events: Sequence[TrainEvent]) -> float:
    """Return the seconds for which another process may still write overrides, although it can journal nothing more; 0 if it does not.

    One intended override may be written many times, for up to ``ROUTES_DEADLINE`` seconds. A process that a recovery from another machine has
    stopped learns of that only when it journals the answer. Each single write then still has its own deadline, for which the recovery waits too.
    """
    last = next((event for event in reversed(events) if isinstance(event, RouteIntended | Answered)), None)
    if not isinstance(last, RouteIntended):
        return 0.0
    try:
        spent = (datetime.now(UTC) - datetime.fromisoformat(last.at)).total_seconds()
    except (ValueError, TypeError):
        return ROUTES_DEADLINE
    return max(0.0, min(ROUTES_DEADLINE, ROUTES_DEADLINE + CLOCK_JUMP - spent))
