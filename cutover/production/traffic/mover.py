"""The one writer of the traffic split: it writes a split through a backend and proves the split by reading it back."""

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
"""Seconds within which a change must settle and be served."""
IDLE_GRACE = 8.0
"""Seconds for which a service may be settled on another split before the change counts as lost."""
HELD_SECONDS = 5.0
"""Seconds from the proof of a restored split or override to its last read, because the value may be lost or overwritten."""
HALVINGS = 4
"""Number of writes of a rollback or an undo that get half of the remaining time to settle; later writes get all of it."""
FIRST_POLL, LAST_POLL = 0.05, 2.0
"""Seconds between two reads while a change settles; doubled from the first to the last."""
_CONFLICTS = frozenset({CONFLICT, 412})


@attrs.frozen(kw_only=True)
class Shift:
    """The result of one change of the split."""

    proven: bool
    """True if the change settled, succeeded and is served as asked."""
    detail: str
    state: TrafficState | None
    """The last state that was read; None if no read succeeded after the last write."""
    seconds: float
    """Seconds from the start of the change to its end: the proof, a refusal or the deadline."""


@attrs.define(eq=False)
class TrafficMover:
    """The one writer of the split.

    It journals each change, sends it, journals the answer, and reads the split until the change is proven or the time is over.
    """

    backend: TrafficBackend
    journal: Journal
    clock: Clock
    captured: TrafficState
    """The split before the train's first change, for the undo."""
    step_id: str
    refuse_reason: Callable[[TrafficState], str] = lambda _: ""
    """A function that returns the reason not to write over a state, or an empty text. It is called before each write.

    A reason ends the change, also with ``OnRefusal.TRY_AGAIN``.
    """

    async def shift(
        self,
        targets: Sequence[TrafficTarget],
        *,
        current: TrafficState,
        label: str,
        on_refusal: OnRefusal,
        deadline: float = SETTLE_DEADLINE,
        write_again: bool = False,
    ) -> Shift:
        """Write a split and prove it. With ``OnRefusal.TRY_AGAIN`` it writes again until the proof or the deadline.

        Args:
            targets: The split to write.
            current: The last state read; its etag guards the write.
            label: Prefix of the labels of the requests.
            on_refusal: The reaction to a refusal, for instance after a stale etag.
            deadline: Seconds for the whole change.
            write_again: True sends the first write even if the same change is in progress, for instance because an earlier write has
                not settled in time.
        """
        started = self.clock.now()
        ends = started + deadline
        shift = Shift(proven=False, detail="", state=current, seconds=0.0)
        for number in itertools.count(1):
            state = shift.state or current
            if reason := self.refuse_reason(state):
                shift = attrs.evolve(shift, proven=False, detail=reason)
                break
            # A change in progress is not written again: that would start the change again.
            answer, retry_after = (
                (_IN_PROGRESS, 0.0)
                if _is_in_progress(state, targets) and not (write_again and number == 1)
                else await self._write(targets, state, label=label, on_refusal=on_refusal)
            )
            refusal = answer.detail if answer.outcome in {"refused", "failed", NOT_SENT} else ""
            left = ends - self.clock.now()
            if refusal and on_refusal is OnRefusal.STOP:
                shift = attrs.evolve(shift, detail=refusal)
            else:
                # After a refused write, read once. Any other write gets the time left; half of it if more writes may follow.
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
            await self.clock.sleep(min(pause_after(number, at_least=retry_after), left))
        return attrs.evolve(shift, seconds=self.clock.now() - started)

    async def _write(
        self, targets: Sequence[TrafficTarget], state: TrafficState, *, label: str, on_refusal: OnRefusal
    ) -> tuple[Answered, float]:
        """Journal a write, send it and journal its answer. Return the answer, and the least number of seconds before the next write."""
        self.journal.record(
            TrafficIntended(
                step_id=self.step_id, captured=self.captured, wanted=tuple(targets), etag=state.etag
            )
        )
        if self.journal.stopped is not None and on_refusal is OnRefusal.STOP:
            # A forward change that cannot be journaled is not sent. A rollback or an undo is sent even so.
            answer = Answered(key=TRAFFIC, outcome=NOT_SENT, detail=self.journal.stopped)
            self.journal.record(answer)
            return answer, 0.0

        def on_start(command: CommandStarted) -> None:
            self.journal.record(command)
            if self.journal.stopped is not None and on_refusal is OnRefusal.STOP:
                raise RefusedError(self.journal.stopped, status=0)

        answer, retry_after = Answered(key=TRAFFIC, outcome="accepted"), 0.0
        try:
            # The write is shielded, so that its answer is journaled; the backend has a deadline.
            with anyio.CancelScope(shield=True):
                await self.backend.write(targets, etag=state.etag, label=f"{label}.write", on_start=on_start)
        except RefusedError as error:
            why = "somebody else changed the service in the meantime: " if error.status in _CONFLICTS else ""
            outcome, retry_after = "refused" if error.for_certain else "failed", error.retry_after
            answer = attrs.evolve(answer, outcome=outcome, detail=f"{why}{error}")
        except PeerError as error:
            # Only a read can show the outcome now.
            answer = attrs.evolve(answer, outcome="unknown", detail=str(error))
        self.journal.record(answer)
        return answer, retry_after

    async def _settle(
        self,
        targets: Sequence[TrafficTarget],
        *,
        before: TrafficState,
        label: str,
        wait: float,
        longest: float,
    ) -> Shift:
        """Read until the change is proven, has failed, or has no effect, or until the time is over.

        A change in progress gets ``longest`` seconds, any other change ``wait`` seconds. The split is read at least once,
        and the last state is journaled.
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
            patience = longest if shift.state is not None and _is_in_progress(shift.state, targets) else wait
            if over or self.clock.now() - started + pause > patience:
                if shift.state is not None:
                    self.journal.record(TrafficRead(found=shift.state, proven=shift.proven))
                return shift
            await self.clock.sleep(pause)
            pause = min(pause * 2, LAST_POLL)


_IN_PROGRESS = Answered(key=TRAFFIC, outcome="accepted")
"""The answer for a change in progress, which is not written again."""


def _is_in_progress(state: TrafficState, targets: Sequence[TrafficTarget]) -> bool:
    """Return True if the service is reconciling towards exactly these targets."""
    return not state.settled and state.asks_for(targets)


def _first(since: float | None, now: float) -> float:
    return now if since is None else since


def _idle(since: float | None, now: float) -> bool:
    """Return True if at least ``IDLE_GRACE`` seconds have passed since the service settled on another split."""
    return since is not None and now - since >= IDLE_GRACE
