"""Who serves what share: the backend's interface, and one change of the split with its proof."""

import itertools
from collections.abc import Callable, Sequence

import anyio
import attrs

from cutover.clock import Clock
from cutover.errors import PeerError, RefusedError
from cutover.http.outbound import pause_after
from cutover.model.traffic_state import TrafficState, TrafficTarget, mismatch_reason
from cutover.model.train_events import (
    NOT_SENT,
    TRAFFIC,
    Answered,
    CommandStarted,
    TrafficIntended,
    TrafficRead,
)
from cutover.production.on_refusal import OnRefusal
from cutover.production.traffic.backend import CONFLICT, TrafficBackend
from cutover.record.journal import Journal

SETTLE_DEADLINE = 60.0
"""Seconds within which a change must have settled and be served."""
IDLE_GRACE = 8.0
"""Seconds that a service may say that it is settled, and serve something else, before the change counts as lost."""
HELD_SECONDS = 5.0
"""How long after it was proven a way back is read once more: it may be taken back, or a late write may land."""
HALVINGS = 4
"""Writes, while going back, that are waited for half of the time that is left; later ones, all of it."""
FIRST_POLL, LAST_POLL = 0.05, 2.0
"""Seconds between reads while settling; doubled from the first to the last."""
_CONFLICTS = frozenset({CONFLICT, 412})


@attrs.frozen(kw_only=True)
class Shift:
    """What became of one change of the split."""

    proven: bool
    """Whether it settled, succeeded, and is served as asked."""
    detail: str
    state: TrafficState | None
    """The last state that was read."""
    seconds: float
    """From the first write to the proof, or to giving up."""


@attrs.define(eq=False)
class TrafficMover:
    """The one writer of the split: intent, write, answer, and read back until it is proven."""

    backend: TrafficBackend
    journal: Journal
    clock: Clock
    captured: TrafficState
    """What undo needs: the split before the train touched anything."""
    step_id: str
    objection: Callable[[TrafficState], str] = lambda _: ""
    """Why a state is not to be written over, asked before each write; empty where it may be."""

    async def shift(
        self,
        targets: Sequence[TrafficTarget],
        *,
        current: TrafficState,
        label: str,
        on_refusal: OnRefusal,
        deadline: float = SETTLE_DEADLINE,
        anew: bool = False,
    ) -> Shift:
        """Write a split and prove it; while going back again and again, until the deadline.

        Args:
            targets: What to ask for.
            current: The last state read; its etag guards the write.
            label: Prefix of the labels of the requests.
            on_refusal: What to do about a refusal, a stale etag among them.
            deadline: Seconds for all of it.
            anew: Write first also where the very same is under way: it was waited for already, and did not settle.
        """
        started = self.clock.now()
        ends = started + deadline
        shift = Shift(proven=False, detail="", state=current, seconds=0.0)
        for number in itertools.count(1):
            state = shift.state or current
            if objection := self.objection(state):
                shift = attrs.evolve(shift, proven=False, detail=objection)
                break
            # what is under way already is waited for: writing it again would make it begin anew
            answer, wish = (
                (_WAITED_FOR, 0.0)
                if _under_way(state, targets) and not (anew and number == 1)
                else await self._write(targets, state, label=label, on_refusal=on_refusal)
            )
            refusal = answer.detail if answer.outcome in {"refused", "failed", NOT_SENT} else ""
            left = ends - self.clock.now()
            if refusal and on_refusal is OnRefusal.STOP:
                shift = attrs.evolve(shift, detail=refusal)
            else:
                # a refused write is read back once; a written one is waited for, and written again at half-time
                halved = on_refusal is OnRefusal.TRY_AGAIN and number <= HALVINGS
                wait = 0.0 if refusal else left / 2 if halved else left
                shift = await self._settle(targets, before=state, label=label, wait=wait, longest=left)
                if refusal and not shift.proven:
                    shift = attrs.evolve(shift, detail=refusal)
                elif answer.outcome == "unknown" and not shift.proven:
                    shift = attrs.evolve(shift, detail=f"{shift.detail} (the write: {answer.detail})")
            left = ends - self.clock.now()
            if shift.proven or on_refusal is OnRefusal.STOP or left <= 0:
                break
            await self.clock.sleep(min(pause_after(number, wish=wish), left))
        return attrs.evolve(shift, seconds=self.clock.now() - started)

    async def _write(
        self, targets: Sequence[TrafficTarget], state: TrafficState, *, label: str, on_refusal: OnRefusal
    ) -> tuple[Answered, float]:
        """Send one write between its two journal lines; return what became of it, and for how long the peer wants no other."""
        self.journal.record(
            TrafficIntended(
                step_id=self.step_id, captured=self.captured, wanted=tuple(targets), etag=state.etag
            )
        )
        if self.journal.broken is not None and on_refusal is OnRefusal.STOP:
            # what was not written down is not done; only what goes back still is
            answer = Answered(key=TRAFFIC, outcome=NOT_SENT, detail=self.journal.broken)
            self.journal.record(answer)
            return answer, 0.0

        def begun(command: CommandStarted) -> None:
            self.journal.record(command)
            if self.journal.broken is not None and on_refusal is OnRefusal.STOP:
                raise RefusedError(self.journal.broken, status=0)

        answer, wish = Answered(key=TRAFFIC, outcome="accepted"), 0.0
        try:
            with anyio.CancelScope(shield=True):  # between its two lines; the backend has the deadline
                await self.backend.write(targets, etag=state.etag, label=f"{label}.write", begun=begun)
        except RefusedError as error:
            why = "somebody else changed the service in the meantime: " if error.status in _CONFLICTS else ""
            outcome, wish = "refused" if error.for_certain else "failed", error.retry_after
            answer = attrs.evolve(answer, outcome=outcome, detail=f"{why}{error}")
        except PeerError as error:  # only reading back tells
            answer = attrs.evolve(answer, outcome="unknown", detail=str(error))
        self.journal.record(answer)
        return answer, wish

    async def _settle(
        self,
        targets: Sequence[TrafficTarget],
        *,
        before: TrafficState,
        label: str,
        wait: float,
        longest: float,
    ) -> Shift:
        """Read until the change is proven, has failed, or shows no sign of life; or so many seconds have passed.

        What is under way is waited for ``longest`` seconds, what is not for ``wait``.
        """
        started, pause = self.clock.now(), FIRST_POLL
        idle_since: float | None = None
        shift = Shift(proven=False, detail="", state=None, seconds=0.0)
        while True:
            try:
                found = await self.backend.read(label=f"{label}.read-back")
            except PeerError as error:
                shift = attrs.evolve(shift, detail=f"the traffic could not be read back: {error}")
                over = False
            else:
                detail = mismatch_reason(found, targets)
                shift = attrs.evolve(shift, state=found, detail=detail, proven=not detail)
                failed = found.settled and not found.succeeded and found.generation != before.generation
                idle_since = _first(idle_since, self.clock.now()) if found.settled else None
                over = not detail or failed or _idle(idle_since, self.clock.now())
            patience = longest if shift.state is not None and _under_way(shift.state, targets) else wait
            if over or self.clock.now() - started + pause > patience:
                if shift.state is not None:
                    self.journal.record(TrafficRead(found=shift.state, proven=shift.proven))
                return shift
            await self.clock.sleep(pause)
            pause = min(pause * 2, LAST_POLL)


_WAITED_FOR = Answered(key=TRAFFIC, outcome="accepted")
"""Of a change that is under way already, and is not written again."""


def _under_way(state: TrafficState, targets: Sequence[TrafficTarget]) -> bool:
    """Whether the service is reconciling towards exactly these targets."""
    return not state.settled and state.asks_for(targets)


def _first(since: float | None, now: float) -> float:
    return now if since is None else since


def _idle(since: float | None, now: float) -> bool:
    """Whether the service has long been settled on something else: the change has no effect."""
    return since is not None and now - since >= IDLE_GRACE
