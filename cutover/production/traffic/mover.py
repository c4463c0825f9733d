"""The one writer of the traffic split: it writes a split through a backend and proves the split by reading it back.

The module is longer than most, because a forward write and a write of a way back share how they are sent, journaled and settled.
"""

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
from cutover.production.on_refusal import CANCELLED, OnRefusal, reason_not_to_send, until_recorded
from cutover.production.traffic.backend import TrafficBackend, advice
from cutover.production.traffic.write_answer import WriteAnswer
from cutover.record.journal import Journal

SETTLE_DEADLINE = 60.0
"""Seconds within which a change must settle and be served."""
IDLE_GRACE = 8.0
"""Seconds for which a service may be settled on another split before the change counts as lost."""
HELD_SECONDS = 5.0
"""Seconds from the proof of a restored split or override to its last read, because the value may be lost or overwritten."""
FORWARD_WRITES = 4
"""Number of writes of one forward change: the first, and more only after a hiccup, while nobody has changed anything."""
HALVINGS = 4
"""Number of writes of a rollback or an undo that get half of the remaining time to settle; later writes get all of it."""
FIRST_POLL, LAST_POLL = 0.05, 2.0
"""Seconds between two reads while a change settles; doubled from the first to the last."""


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
        """Write a split and prove it.

        A forward change (``OnRefusal.STOP``) survives a few hiccups: a conflict, a 429, a 5xx, or no answer. It is written again
        only if a read shows that nobody has changed the split since ``current``. With ``OnRefusal.TRY_AGAIN`` the split is
        written again until the proof or the deadline.

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
        move = self._forward if on_refusal is OnRefusal.STOP else self._until_proven
        shift = await move(targets, current, label=label, ends=started + deadline, write_again=write_again)
        return attrs.evolve(shift, seconds=self.clock.now() - started)

    async def _forward(
        self,
        targets: Sequence[TrafficTarget],
        current: TrafficState,
        *,
        label: str,
        ends: float,
        write_again: bool,
    ) -> Shift:
        """Write a split and prove it; write over nobody, and stop at a refusal that is no hiccup."""
        state, number = current, 0
        while True:
            number += 1
            if reason := self._reason_not_to_write(state):
                return _unproven(reason, state)
            force = write_again and number == 1
            sent = await self._send(targets, state, label=label, on_refusal=OnRefusal.STOP, force=force)
            if sent.refusal and not sent.is_hiccup:
                return _unproven(sent.detail, state)
            left = ends - self.clock.now()
            last = number == FORWARD_WRITES or left <= 0
            if last and sent.had_no_effect:
                return _unproven(f"{sent.detail} (the last of {number} writes)", state)
            if last or not sent.is_hiccup:
                # After the last hiccup too, because a write without a clear answer may take effect late.
                shift = await self._settle(targets, before=state, label=label, wait=left, longest=left)
                return _with_answer(shift, sent)
            await self.clock.sleep(min(pause_after(number, at_least=sent.retry_after), left))
            shift = await self._look(targets, before=state, label=label, ends=ends)
            if shift.state is None or shift.state.asks_for(targets):
                return _with_answer(shift, sent)
            if not _is_unchanged(current, shift.state):
                changed = current.differences_from(shift.state)
                detail = f"somebody else changed the service in the meantime: {changed}"
                return _with_answer(attrs.evolve(shift, detail=detail), sent)
            state = shift.state

    async def _look(
        self, targets: Sequence[TrafficTarget], *, before: TrafficState, label: str, ends: float
    ) -> Shift:
        """Read the split after a hiccup: once, or until it settles if the write has taken effect, or until a read succeeds."""
        left = ends - self.clock.now()
        shift = await self._settle(targets, before=before, label=label, wait=0.0, longest=left)
        taken = shift.state is None or shift.state.asks_for(targets)
        if taken and not shift.proven:
            left = ends - self.clock.now()
            shift = await self._settle(targets, before=before, label=label, wait=left, longest=left)
        return shift

    async def _until_proven(
        self,
        targets: Sequence[TrafficTarget],
        current: TrafficState,
        *,
        label: str,
        ends: float,
        write_again: bool,
    ) -> Shift:
        """Write a split again and again until it is proven, or until the deadline."""
        state, shift = current, _unproven("", current)
        sent: WriteAnswer | None = None
        for number in itertools.count(1):
            if reason := self._reason_not_to_write(state):
                return attrs.evolve(shift, proven=False, detail=reason)
            # After a conflict the etag is known to be stale. Until a read succeeds, a write with it would be refused again.
            if sent is None or not sent.is_conflict or shift.state is not None:
                force = write_again and number == 1
                sent = await self._send(
                    targets, state, label=label, on_refusal=OnRefusal.TRY_AGAIN, force=force
                )
            left = ends - self.clock.now()
            # After a refused write, read once. Any other write gets the time left; half of it if more writes may follow.
            wait = 0.0 if sent.refusal else left / 2 if number <= HALVINGS else left
            shift = await self._settle(targets, before=state, label=label, wait=wait, longest=left)
            if sent.refusal and not shift.proven:
                shift = attrs.evolve(shift, detail=sent.detail)
            else:
                shift = _with_answer(shift, sent)
            state = shift.state or state
            left = ends - self.clock.now()
            if shift.proven or left <= 0:
                break
            await self.clock.sleep(min(pause_after(number, at_least=sent.retry_after), left))
        return shift

    async def _send(
        self,
        targets: Sequence[TrafficTarget],
        state: TrafficState,
        *,
        label: str,
        on_refusal: OnRefusal,
        force: bool,
    ) -> WriteAnswer:
        """Journal a write, send it and journal its answer; return the answer.

        A change in progress is not written again, because that would start the change again; ``force`` writes it even so.
        """
        if _is_in_progress(state, targets) and not force:
            return WriteAnswer(outcome="accepted")
        self.journal.record(
            TrafficIntended(
                step_id=self.step_id, captured=self.captured, wanted=tuple(targets), etag=state.etag
            )
        )
        await self._until_recorded(on_refusal)
        if reason := reason_not_to_send(self.journal, on_refusal):
            answer = WriteAnswer(outcome=NOT_SENT, detail=reason)
        else:
            answer = await self._write(targets, state, label=label, on_refusal=on_refusal)
        self.journal.record(Answered(key=TRAFFIC, outcome=answer.outcome, detail=answer.detail))
        return answer

    def _reason_not_to_write(self, state: TrafficState) -> str:
        """Return the reason not to write over a state; empty if there is none."""
        return self.journal.taken_over or self.refuse_reason(state)

    async def _until_recorded(self, on_refusal: OnRefusal) -> None:
        """Wait for the copy of the intent. A change that is cancelled meanwhile was not sent."""
        try:
            await until_recorded(self.journal, on_refusal)
        except anyio.get_cancelled_exc_class():
            self.journal.record(Answered(key=TRAFFIC, outcome=NOT_SENT, detail=CANCELLED))
            raise

    async def _write(
        self, targets: Sequence[TrafficTarget], state: TrafficState, *, label: str, on_refusal: OnRefusal
    ) -> WriteAnswer:
        def on_start(command: CommandStarted) -> None:
            self.journal.record(command)
            if self.journal.stopped is not None and on_refusal is OnRefusal.STOP:
                raise RefusedError(self.journal.stopped, status=0)

        try:
            # The write is shielded, so that its answer is journaled; the backend has a deadline.
            with anyio.CancelScope(shield=True):
                await self.backend.write(targets, etag=state.etag, label=f"{label}.write", on_start=on_start)
        except RefusedError as error:
            return WriteAnswer(
                outcome="refused" if error.for_certain else "failed",
                detail=f"{error}{advice(error.status, self.backend)}",
                status=error.status,
                retry_after=error.retry_after,
            )
        except PeerError as error:
            # Only a read can show the outcome now.
            return WriteAnswer(outcome="unknown", detail=str(error))
        return WriteAnswer(outcome="accepted")

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


def _unproven(detail: str, state: TrafficState) -> Shift:
    return Shift(proven=False, detail=detail, state=state, seconds=0.0)


def _with_answer(shift: Shift, answer: WriteAnswer) -> Shift:
    """Return the result of a change; if it is not proven, its detail has the answer to the last write."""
    if shift.proven or answer.outcome == "accepted":
        return shift
    return attrs.evolve(shift, detail=f"{shift.detail} (the write: {answer.detail})")


def _is_unchanged(before: TrafficState, found: TrafficState) -> bool:
    """Return True if the specification is as before, with the same revision behind a share of LATEST."""
    same_latest = not before.asks_for_latest or before.latest_ready == found.latest_ready
    return same_latest and found.asks_for(before.targets)


def _is_in_progress(state: TrafficState, targets: Sequence[TrafficTarget]) -> bool:
    """Return True if the service is reconciling towards exactly these targets."""
    return not state.settled and state.asks_for(targets)


def _first(since: float | None, now: float) -> float:
    return now if since is None else since


def _idle(since: float | None, now: float) -> bool:
    """Return True if at least ``IDLE_GRACE`` seconds have passed since the service settled on another split."""
    return since is not None and now - since >= IDLE_GRACE
